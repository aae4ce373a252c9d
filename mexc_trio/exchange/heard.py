"""How far a connection has come, by the exchange's clock: its watermark."""

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
    """The newest time of a connection's messages, of whatever symbol they are."""

    lag: int = LAG
    ts: int = attrs.field(default=0, init=False)
    """The exchange's time of what came last, in milliseconds; 0 before anything has."""
    _at: float = attrs.field(default=0.0, init=False)
    # Whether another message has confirmed it; the first one of all may be the one that is wrong.
    _is_confirmed: bool = attrs.field(default=False, init=False)

    def note(self, ts: int, now: float) -> None:
        """Note the time of a message that comes now; that of a single one may be wrong."""
        if not EARLIEST <= ts < LATEST:
            return
        is_due = abs(ts - self.ts - (now - self._at) * SECOND) <= _WILD
        if is_due or not self._is_confirmed:
            self.ts, self._at, self._is_confirmed = ts, now, is_due

    @property
    def reach(self) -> int:
        """The time before which nothing more comes, of whatever symbol; at most 0 if unknown."""
        return self.ts - self.lag if self.ts else 0
