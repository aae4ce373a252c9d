"""Spaces out what the exchange counts by address, whoever in the program asks for it."""

import math

import attrs
import trio


@attrs.define(eq=False)
class RateLimiter:
    """Gives turns, one at a time and first come first served."""

    interval: float
    """Seconds between two turns."""
    _next: float = attrs.field(default=-math.inf, init=False)

    async def turn(self) -> None:
        """Wait for a turn. Who is cancelled meanwhile leaves it unused."""
        now = trio.current_time()
        turn = max(self._next, now)
        self._next = turn + self.interval
        if turn > now:
            await trio.sleep_until(turn)
        else:
            await trio.lowlevel.checkpoint()
