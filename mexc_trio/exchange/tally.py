"""What is counted of the connections of one line, for who wants to know how it does."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

import attrs
import trio

from mexc_trio.errors import Loss

FRESH: Final = 60.0
"""Seconds for which a look at the exchange's clock is better than a newer, slower one."""


class Named(Protocol):
    """Something that is of one symbol."""

    @property
    def symbol(self) -> str:
        """The symbol."""


@attrs.frozen
class ClockLook:
    """One comparison of this machine's clock with the exchange's."""

    offset: float
    """Seconds by which this machine's clock is ahead, give or take half of `round_trip`."""
    round_trip: float
    """Seconds from the ping to its pong."""
    at: float
    """When it was made, in Trio's time."""


@attrs.define(eq=False)
class Tally:
    """Counters of one line on one route. One object for all its connections."""

    line: str = "1"
    route: str = "direct"
    losses: Counter[Loss] = attrs.field(factory=Counter, init=False)
    """Connections that were lost or could not be made; each was followed by a reconnect."""
    clock: ClockLook | None = attrs.field(default=None, init=False)
    """The best of the latest looks at the exchange's clock; None before the first."""
    symbols: set[str] = attrs.field(factory=set, init=False)
    """Those that a connection is open for, or being opened."""

    @contextmanager
    def serving(self, subscribers: Sequence[Named]) -> Iterator[None]:
        """Note the symbols of a connection, and those that join it, while the block runs."""
        self.symbols.update(one.symbol for one in subscribers)
        try:
            yield
        finally:
            self.symbols.difference_update(one.symbol for one in subscribers)

    def clock_seen(self, exchange: float, sent: float, round_trip: float) -> None:
        """Note what the exchange says the time is, in answer to a ping.

        Args:
            exchange: the exchange's time, in seconds since 1970.
            sent: when the ping was sent, by this machine's clock.
            round_trip: seconds until the pong came.
        """
        now, best = trio.current_time(), self.clock
        if best is None or round_trip <= best.round_trip or now - best.at > FRESH:
            self.clock = ClockLook(sent + round_trip / 2 - exchange, round_trip, now)
