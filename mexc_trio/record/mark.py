"""Where one channel of a symbol has come to, as its ledger of gaps knows it."""

from collections.abc import Sequence

import attrs

from mexc_trio.rhythm import PAUSE, RECORDER, Rhythm
from mexc_trio.rows import Cause, Channel, Gap, Row
from mexc_trio.spans import EARLIEST, LATEST, Span, union


@attrs.define
class OpenGap:
    """A gap that no row has ended yet."""

    cause: Cause
    detail: str
    start: int
    """Milliseconds: the channel's last row before; 0 if it is since the ledger was opened."""
    version: int


@attrs.define
class Mark:
    """The last row of one channel, and the gap that is open after it."""

    channel: Channel
    ts: int = 0
    """Milliseconds; 0 if there was none yet."""
    version: int = 0
    gap: OpenGap | None = None
    pause: int = attrs.field(init=False)
    """Milliseconds after `heard`; a longer pause may be a silence."""
    heard: int = attrs.field(init=False)
    """Milliseconds: the last row received whose time is possible; 0 if there is none."""
    _rhythm: Rhythm = attrs.field(init=False)
    # Those that may touch the next pause.
    _gaps: list[Gap] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.pause = PAUSE[self.channel]
        self.heard = self.ts
        self._rhythm = Rhythm(self.channel, RECORDER)

    def note_gap(self, gap: Gap) -> None:
        """Note a gap in this channel."""
        self._gaps = [*(one for one in self._gaps if one.end > self.heard), gap]

    def note_fetched(self, span: Span) -> None:
        """Note a time of which rows were fetched afterwards: it was no silence."""
        self._rhythm.forget(span)

    def unaccounted(self, rows: Sequence[Row]) -> list[Span]:
        """Note rows, some of which come after a pause; return the silences that are in no gap.

        They are to be noted as gaps.
        """
        found = []
        for ts, _, _ in rows:
            if not EARLIEST <= ts < LATEST:
                continue
            pause = self.heard, ts
            if self.heard and pause[1] - pause[0] > self.pause:
                gaps = union((gap.start, gap.end) for gap in self._gaps)
                outages = union(
                    (gap.start, gap.end) for gap in self._gaps if gap.cause != Cause.CHANNEL_SILENT
                )
                if silence := self._rhythm.unaccounted(pause, gaps, outages):
                    found.append(silence)
                    # Now that it is told of, it tells the rhythm.
                    self._rhythm.unaccounted(pause, union([*gaps, silence]), outages)
            self.heard = ts
        self._gaps = [gap for gap in self._gaps if gap.end > self.heard]
        return found
