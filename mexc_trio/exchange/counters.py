"""Counters of one line's connections: what was lost and why, the clocks, the symbols."""

from collections import Counter
from typing import Final

import attrs
import trio

from mexc_trio.errors import Loss

FRESH: Final = 60.0
"""Seconds for which a sample of the exchange's clock is better than a newer, slower one."""


@attrs.frozen
class ClockSample:
    """One comparison of this machine's clock with the exchange's."""

    offset: float
    """Seconds by which this machine's clock is ahead, give or take half of `round_trip`."""
    round_trip: float
    """Seconds from the ping to its pong."""
    at: float
    """When it was made, in Trio's time."""


@attrs.define(eq=False)
class LineCounters:
    """Counters of one line on one route. One object for all its connections."""

    line: str = "1"
    route: str = "direct"
    losses: Counter[Loss] = attrs.field(factory=Counter, init=False)
    """Connections that were lost or could not be made; each was followed by a reconnect."""
    clock: ClockSample | None = attrs.field(default=None, init=False)
    """The best of the latest samples of the exchange's clock; None before the first."""
    symbols: Counter[str] = attrs.field(factory=Counter, init=False)
    """By symbol, how many connections are subscribed to it."""

    def clock_seen(self, exchange: float, sent: float, round_trip: float) -> None:
        """Note the exchange's time, from a pong.

        `exchange` is in seconds since 1970, and so is `sent`, when the ping left by this machine's
        clock; the pong came `round_trip` seconds later.
        """
        now, best = trio.current_time(), self.clock
        if best is None or round_trip <= best.round_trip or now - best.at > FRESH:
            self.clock = ClockSample(sent + round_trip / 2 - exchange, round_trip, now)
