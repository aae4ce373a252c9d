"""What a client asks for on its socket, and the answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import trio

from tools.exchange.connection import Connection, Subscription
from tools.market import CHANNELS, LEVELS, OPTIONAL

if TYPE_CHECKING:
    from tools.exchange.state import State


async def answer(exchange: State, connection: Connection, message: str | bytes) -> None:
    """Do what a client asks for, and answer as the exchange would."""
    if exchange.records.keep:
        text = message if isinstance(message, str) else message.decode(errors="replace")
        exchange.requests.append((connection.number, text))
    try:
        request = json.loads(message)
        method = request["method"]
        if method == "ping":
            await _answer_ping(exchange, connection)
            return
        action, _, name = method.partition(".")
        symbol = request["param"]["symbol"]
        limit = request["param"].get("limit", LEVELS)
        # Merged is the default since 2025-08-21.
        merged = name != "deal" or request["param"].get("compress") is not False
    except (ValueError, LookupError, TypeError, AttributeError):
        return  # what it does not understand it does not answer
    channel = next((known for known in (*CHANNELS, *OPTIONAL) if known == name), None)
    if channel is None or action not in ("sub", "unsub") or not isinstance(symbol, str):
        return
    if action == "unsub":
        connection.unsubscribe(symbol, channel)  # without a confirmation
    elif not exchange.listing.exists(symbol):
        error = exchange.refusal.format(symbol=symbol)
        await connection.send([reply(exchange, "rs.error", error)])
    elif not merged and exchange.unmerged_deals != "sent":
        if exchange.unmerged_deals == "refused":
            await connection.send([reply(exchange, "rs.error", "Parameter error: compress")])
    else:
        depth = limit if isinstance(limit, int) and 0 < limit < LEVELS else LEVELS
        # Who has heard the acknowledgement is subscribed; and as it queues for the wire at
        # once, no data of the new subscription goes before it.
        connection.subscribe(symbol, channel, Subscription(depth, merged))
        if channel not in exchange.withheld_acks:
            await connection.send([reply(exchange, f"rs.sub.{channel}", "success")])


async def _answer_ping(exchange: State, connection: Connection) -> None:
    connection.patience.deadline = trio.current_time() + exchange.ping_limit
    if not exchange.answer_pings:
        return
    pong = reply(exchange, "pong", exchange.market.clock())
    replies = [pong]
    if exchange.chance.random() < exchange.market.oddities:
        replies.append(pong)  # two pongs may answer one ping
    if exchange.chance.random() < exchange.market.oddities:
        replies.append(reply(exchange, "clientId", f"{exchange.chance.getrandbits(64):016x}"))
    await connection.send(replies)


def reply(exchange: State, channel: str, data: str | int) -> str:
    """Write a message that is no push."""
    message = {"channel": channel, "data": data, "ts": exchange.market.clock()}
    return json.dumps(message, separators=(",", ":"))
