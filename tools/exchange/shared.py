"""A market that all connections of a symbol look at, as they do on the real exchange.

Deals are made once and sent to each connection that is subscribed to them; books and tickers are
sampled for each by itself. A frame of deals may get lost on the way to one connection, never on
the way to all of them.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

import attrs
import trio

from tools.market import MIX

if TYPE_CHECKING:
    from tools.exchange.connection import Connection
    from tools.exchange.state import State

_SHORTEST_PAUSE: Final = 0.002  # seconds between two looks at what is due


@attrs.define(eq=False)
class _Deal:
    """A frame on its way to all who are subscribed."""

    symbol: str
    frame: str
    is_sent: bool = False
    """Whether a connection has got it."""


async def send_shared_deals(exchange: State) -> None:
    """Send every symbol's deals to all who are subscribed to them, at the exchange's rate."""
    owed: defaultdict[str, float] = defaultdict(float)
    pace = exchange.rate * MIX["deal"]
    last = trio.current_time()
    while True:
        await trio.sleep(max(_SHORTEST_PAUSE, 1 / pace))
        now = trio.current_time()
        due: defaultdict[Connection, list[_Deal]] = defaultdict(list)
        for symbol in exchange.symbols:
            subscribers = exchange.subscribers(symbol, "deal")
            owed[symbol] += min(now - last, 1.0) * pace if subscribers else 0.0
            while owed[symbol] >= 1:
                owed[symbol] -= 1
                _deal(exchange, symbol, subscribers, due)
        last = now
        # One that does not read must not hold up the others' deals.
        async with trio.open_nursery() as nursery:
            for connection, deals in due.items():
                nursery.start_soon(_send, exchange, connection, deals)


async def _send(exchange: State, connection: Connection, deals: list[_Deal]) -> None:
    records = []
    for deal in deals:
        # Once more: after a silence nothing comes that is not in the records at that moment.
        if not exchange.is_silenced(deal.symbol, "deal"):
            add = exchange.records.add
            record = add(connection.number, deal.symbol, "deal", deal.frame, again=deal.is_sent)
            records.append(record)
            deal.is_sent = True
    await exchange.transmit(connection, records)


def _deal(
    exchange: State,
    symbol: str,
    subscribers: list[Connection],
    due: defaultdict[Connection, list[_Deal]],
) -> None:
    if exchange.is_silenced(symbol, "deal"):
        return
    merged = all(one.subscriptions[symbol]["deal"].merged for one in subscribers)
    deal = _Deal(symbol, exchange.market.frame(symbol, "deal", merged=merged))
    unlucky = None
    if len(subscribers) > 1 and exchange.chance.random() < exchange.loss:
        unlucky = exchange.chance.choice(subscribers)
        exchange.lost += 1
    for connection in subscribers:
        if connection is not unlucky:
            due[connection].append(deal)
