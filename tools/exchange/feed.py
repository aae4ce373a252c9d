"""The frames that come by themselves, at the exchange's rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from tools.exchange.connection import Connection
    from tools.exchange.records import Record
    from tools.exchange.state import State

BURST: Final = 64
"""Frames that are written at once when many are due; bounds the memory."""
_SHORTEST_SLEEP: Final = 0.002  # seconds; shorter sleeps cost more than they give


async def send_automatically(exchange: State, connection: Connection) -> None:
    """Send a connection its subscriptions' frames at the exchange's rate.

    One task advances all subscriptions of a connection by the time that has passed, in
    bursts where many frames are due. A client that does not read blocks it, and what was due
    meanwhile is forgotten but for one second's worth: nothing queues up.
    """
    owed, last = 0.0, trio.current_time()
    while True:
        pace = exchange.rate * len(connection.subscriptions)  # frames a second
        if not pace:
            await exchange.until(lambda: bool(connection.subscriptions))
            owed, last = 0.0, trio.current_time()
            continue
        now = trio.current_time()
        owed, last = min(owed + (now - last) * pace, max(pace, 1)), now
        count = min(int(owed), BURST)
        if not count:
            await trio.sleep(max((1 - owed) / pace, _SHORTEST_SLEEP))
            continue
        owed -= count
        records = [_draw(exchange, connection) for _ in range(count)]
        await exchange.transmit(connection, [record for record in records if record])


def _draw(exchange: State, connection: Connection) -> Record | None:
    """Make the next automatic frame; None when its channel is not subscribed or silenced."""
    symbol = connection.next_symbol()
    channel = exchange.market.draw_channel(symbol)
    if exchange.shared and channel == "deal":
        return None  # everybody gets the same ones
    terms = connection.subscriptions[symbol].get(channel)
    if terms is None or exchange.is_silenced(symbol, channel):
        return None
    frame = exchange.market.frame(symbol, channel, **terms._asdict())
    return exchange.records.add(connection.number, symbol, channel, frame)
