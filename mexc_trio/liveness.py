"""Has a channel gone silent? Each learns its own rhythm, because contracts differ.

A busy contract has five deals a second, a quiet one minutes between two, and a connection can live,
pongs and all, while one channel of it is dead. So a channel's patience is a multiple of the longest
pause it has shown lately.
"""

from typing import Final

import attrs

from mexc_trio.rows import Channel

LEAST: Final = 30.0
"""Seconds of silence that never worry anybody."""
MOST: Final = 3600.0
"""Seconds of silence that always do."""
FACTOR: Final = 5.0
"""How many times its longest pause a channel may be silent."""
BEATS_TO_LEARN: Final = 20

# Until a channel has shown its rhythm, in seconds. Tickers come every 1-3 s on every contract,
# books of quiet contracts 4-6 s apart (captured); deals may be rare.
_AT_FIRST: Final[dict[Channel, float]] = {"ticker": 60.0, "depth": 180.0, "deal": 900.0}
# The longest pause fades by this at each beat, so one bad minute is not held against it for ever.
_FADE: Final = 0.999


@attrs.define
class Pulse:
    """The rhythm of one channel of one symbol, over all its connections. Times are Trio's."""

    channel: Channel
    _last: float = attrs.field(default=0.0, init=False)
    _beats: int = attrs.field(default=0, init=False)
    _longest: float = attrs.field(default=0.0, init=False)
    _leniency: float = attrs.field(default=1.0, init=False)
    _asked: bool = attrs.field(default=False, init=False)

    @property
    def patience(self) -> float:
        """Seconds of silence after which something is done about it."""
        usual = FACTOR * self._longest if self._beats >= BEATS_TO_LEARN else _AT_FIRST[self.channel]
        return min(MOST, max(LEAST, usual) * self._leniency)

    def connected(self, now: float) -> None:
        """Start counting: what came before on another connection says nothing about this one."""
        self._last = now
        self._asked = False

    def beat(self, now: float) -> None:
        """Note a frame of this channel."""
        pause = now - self._last
        self._longest = max(pause, self._longest * _FADE)
        self._last = now
        self._beats += 1
        self._leniency = 1.0
        self._asked = False

    def silence(self, now: float) -> float:
        """Return the seconds since the last frame."""
        return now - self._last

    def subscribe_again(self, now: float) -> bool:
        """Whether it is time for the first answer to silence. True once for each silence."""
        if self._asked or self.silence(now) < self.patience:
            return False
        self._asked = True
        return True

    def give_up(self, now: float) -> bool:
        """Whether subscribing again has not helped either, and the connection is to be replaced.

        A channel that then stays silent gets twice the patience each time: perhaps there is
        nothing to hear.
        """
        if not self._asked or self.silence(now) < 1.5 * self.patience:
            return False
        self._leniency *= 2
        return True
