"""Until when a connection was heard, by the exchange's clock, whichever symbol a message was of."""

from typing import Final

import attrs

from mexc_trio.spans import EARLIEST, LATEST, SECOND

LAG: Final = SECOND
"""Milliseconds by which messages of one symbol may come after those of others, or after a pong.

The exchange promises no order among them. A second is far more than was ever seen.
"""
_WILD: Final = 60 * SECOND
"""Milliseconds by which a message's time may differ from what is due, to be believed."""


@attrs.define(eq=False)
class Heard:
    """The same of one connection."""

    lag: int = LAG
    ts: int = attrs.field(default=0, init=False)
    """The exchange's time of what came last, in milliseconds; 0 before anything has."""
    _at: float = attrs.field(default=0.0, init=False)

    def note(self, ts: int, now: float) -> None:
        """Note the time of a message that comes now; that of a single one may be wrong."""
        if self.ts:
            if abs(ts - self.ts - (now - self._at) * SECOND) > _WILD:
                return
        elif not EARLIEST <= ts < LATEST:
            return
        self.ts, self._at = ts, now

    @property
    def reach(self) -> int:
        """The time before which nothing more comes, of whatever symbol; at most 0 if unknown."""
        return self.ts - self.lag if self.ts else 0
