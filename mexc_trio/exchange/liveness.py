"""Has a channel gone silent? Each learns its own rhythm, because contracts differ.

A busy contract has five deals a second, a quiet one minutes between two, and a connection can live,
pongs and all, while one channel of it is dead. So a channel's patience is a multiple of the longest
pause it has shown lately. That pause fades with time, but never faster than with the number of
those that came after it: neither does a burst of trading wipe out what was known of the quiet
before it, nor is a contract with a deal in ten minutes judged by two or three pauses.
"""

import math
from collections.abc import Sequence
from typing import Final

import attrs

from mexc_trio.channels import ALL
from mexc_trio.rows import Channel

LEAST: Final = 30.0
"""Seconds of silence that never worry anybody."""
MOST: Final = 6 * 3600.0
"""Seconds of silence that always do."""
FACTOR: Final = 5.0
"""How many times its longest pause a channel may be silent."""
FRAMES_TO_LEARN: Final = 20
"""Frames on one connection after which a channel's rhythm is known."""

# The longest pause halves in a quarter of an hour, or in 34 frames if those take longer.
_FADE_SECONDS: Final = 1300.0
_FADE_PER_FRAME: Final = 0.98


@attrs.define
class Liveness:
    """Whether one channel of one symbol is alive, over all its connections. Times are Trio's."""

    channel: Channel
    heard: float | None = attrs.field(default=None, init=False)
    """When the last frame came; None before the first."""
    _last: float = attrs.field(default=0.0, init=False)
    _frames: int = attrs.field(default=0, init=False)  # on this connection
    _known: bool = attrs.field(default=False, init=False)
    _longest: float = attrs.field(default=0.0, init=False)
    _leniency: float = attrs.field(default=1.0, init=False)
    _asked: bool = attrs.field(default=False, init=False)

    @property
    def patience(self) -> float:
        """Seconds of silence after which something is done about it."""
        usual = FACTOR * self._longest
        if not self._known:
            usual = max(usual, ALL[self.channel].patience)
        return min(MOST, max(LEAST, usual) * self._leniency)

    def connected(self, now: float) -> None:
        """Start counting: what came before on another connection says nothing about this one.

        A channel that was still silent when the last connection ended gets twice the patience:
        perhaps there is nothing to hear. That does not end with the next frame, because the
        exchange may greet each new connection with the last book of a market that is closed, but
        when the rhythm is known again.
        """
        if self._asked:
            self._leniency *= 2
        self._last = now
        self._frames = 0
        self._asked = False

    def note_frame(self, now: float) -> None:
        """Note a frame of this channel."""
        pause = now - self._last
        if pause > 0:  # neither in the same read as the one before, nor not asked for yet
            fade = 1 - pause / _FADE_SECONDS
            faded = self._longest * (fade if fade > _FADE_PER_FRAME else _FADE_PER_FRAME)
            self._longest = pause if pause > faded else faded
        self._last = self.heard = now
        self._asked = False
        self._frames += 1
        if self._frames == FRAMES_TO_LEARN:
            self._known = True
            self._leniency = 1.0

    def silence(self, now: float) -> float:
        """Return the seconds since the last frame, or since the connection was made."""
        return now - self._last

    def subscribe_again(self, now: float) -> bool:
        """Whether it is time for the first answer to silence. True once for each silence."""
        if self._asked or self.silence(now) < self.patience:
            return False
        self._asked = True
        return True

    def give_up(self, now: float) -> bool:
        """Whether subscribing again has not helped either, and the connection is to be replaced."""
        return self._asked and self.silence(now) >= 1.5 * self.patience


def keep_channels(liveness: dict[Channel, Liveness], channels: Sequence[Channel]) -> None:
    """Watch these channels and no others; one that is new is not awaited yet."""
    for gone in liveness.keys() - set(channels):
        del liveness[gone]
    for channel in channels:
        if channel not in liveness:
            liveness[channel] = new = Liveness(channel)
            new.connected(math.inf)
