"""Spaces out requests: of each address the exchange takes only so many in a second."""

import math

import attrs
import trio


@attrs.define(eq=False)
class RateLimiter:
    """Lets callers pass one at a time, first come first served."""

    interval: float
    """Seconds between two of them."""
    _next: float = attrs.field(default=-math.inf, init=False)

    async def acquire(self) -> None:
        """Wait until it is one's time. Who is cancelled meanwhile leaves that unused."""
        now = trio.current_time()
        at = max(self._next, now)
        self._next = at + self.interval
        if at > now:
            await trio.sleep_until(at)
        else:
            await trio.lowlevel.checkpoint()
