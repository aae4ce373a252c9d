"""The ledger of gaps: whenever data could have been missed, a row in the table `gaps` says so.

A gap has two ends, and both are rows: the last one of its channel before, and the first one after.
So a gap is opened when something goes wrong, and written when the channel's next row comes, into
the journal in the same transaction as that row. The ledger remembers each channel's last row in the
journal, which lets the next start of the program write the gap since then.
"""

from collections import Counter
from collections.abc import Sequence

import attrs
import msgspec

from mexc_trio.channels import BY_TYPE
from mexc_trio.exchange.messages import Data
from mexc_trio.journal import Marks, Queue
from mexc_trio.rows import CHANNELS, Cause, Channel, Gap
from mexc_trio.spans import EARLIEST, LATEST, now, steady

_MARKS = dict[Channel, tuple[int, int]]
"""The ledger's marks as the journal keeps them."""


@attrs.define
class _OpenGap:
    cause: Cause
    detail: str
    start: int
    """Milliseconds: the channel's last row before; 0 if it is since the ledger was opened."""
    version: int


@attrs.define
class _Mark:
    """The last row of one channel, and the gap that is open after it."""

    channel: Channel
    ts: int = 0
    """Milliseconds; 0 if there was none yet."""
    version: int = 0
    gap: _OpenGap | None = None


@attrs.define(eq=False)
class Ledger:
    """The gaps of one symbol."""

    symbol: str
    written: Counter[str] = attrs.field(factory=Counter, init=False)
    """Gaps that were written in this run, by cause."""
    missed: Counter[str] = attrs.field(factory=Counter, init=False)
    """Their milliseconds, by cause; a gap in all channels counts once."""
    _queue: Queue
    _gaps: Queue
    _channels: Sequence[Channel] = CHANNELS
    """Those that are recorded."""
    _marks: dict[Channel, _Mark] = attrs.field(init=False)
    # Since when a channel without any row has been missed when it is: since the program was last
    # known to listen. 0 is since now, which the machine's clock may not know yet.
    _since: int = attrs.field(init=False)
    _began: int = attrs.field(factory=steady, init=False)
    _has_history: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._marks = {channel: _Mark(channel) for channel in self._channels}
        self._recall()
        self._since = self.newest
        self._has_history = self.newest > 0
        self._queue.marks = self._to_remember()

    @property
    def newest(self) -> int:
        """Milliseconds: the last row of any channel; 0 if there was none yet."""
        return max(mark.ts for mark in self._marks.values())

    def record_channels(self, channels: Sequence[Channel]) -> None:
        """Go on with other channels. One that is new has no past in which it was missed."""
        self._channels = channels
        self._marks = {name: self._marks.get(name) or _Mark(name, now()) for name in channels}
        self._queue.marks = self._to_remember()

    def program_started(self, cause: Cause, detail: str) -> None:
        """Open the gap since the last run, if the symbol has been recorded before."""
        if self._has_history:
            self.lost(cause, detail)

    def listed(self, since: int, detail: str) -> None:
        """Open the gap of a symbol that comes while the program runs.

        Args:
            since: when it was last known not to be listed, in milliseconds.
            detail: a few words about it.
        """
        if not self._has_history:
            self._since = since
        self.lost(Cause.NEWLY_LISTED, detail)

    def lost(self, cause: Cause, detail: str, channel: Channel | None = None) -> None:
        """Open a gap in a channel, or in all of them. One that is open keeps its cause."""
        for name, mark in self._marks.items():
            if channel in (None, name) and mark.gap is None:
                mark.gap = _OpenGap(cause, detail, mark.ts or self._since, mark.version)

    def note_missed(
        self, cause: Cause, detail: str, channel: Channel, start: int, end: int | None
    ) -> None:
        """Note what no line has of a channel.

        Args:
            cause: why.
            detail: a few words about it.
            channel: of what.
            start: the last row before, in milliseconds; where the end is open it is known here.
            end: the first row after; None if none has come, so that a gap is open.
        """
        if end is None:
            self.lost(cause, detail, channel)
        else:
            gap = Gap(self.symbol, channel, start, max(start, end), cause.value, detail, 0, 0)
            self._put(gap)

    def received(self, message: Data) -> Marks:
        """Note the rows of a frame: they close an open gap, and dead letters open one.

        Returns what is to be written with the rows, for the next run to know where they ended.
        """
        channel = message.channel
        good = len(message.rows) - message.dead
        mark = self._marks[channel] if good and channel in self._marks else None
        if mark is not None:
            self._end_gap(mark, _possible(message.rows[0].ts), message.version)
        # Between the two: a dead letter among good rows may be older than they are.
        for missed in message.missed:
            self.lost(
                Cause.DECODE_ERRORS, "a message could not be read; see the dead letters", missed
            )
        if mark is not None:
            mark.ts = _possible(message.rows[good - 1].ts)
            mark.version = message.version
        return self._to_remember()

    def unreadable(self) -> None:
        """Open a gap in all channels: a dead letter of another symbol may have been for this."""
        self.lost(
            Cause.DECODE_ERRORS,
            "a message of this or another symbol could not be read; see the others' dead letters",
        )

    def stopped(self, cause: Cause, detail: str) -> None:
        """Write the gap that begins now: no next row will come in this run."""
        self.lost(cause, detail)
        self.close()

    def close(self) -> None:
        """Write what is open, up to now. The next run opens it again from the same row."""
        at = now()
        for mark in self._marks.values():
            self._end_gap(mark, at, 0)

    def record(self, cause: Cause, detail: str, start: int, end: int) -> None:
        """Write a gap in all channels that something other than the exchange has made."""
        self._put(Gap(self.symbol, "all", start, max(start, end), cause.value, detail, 0, 0))

    def _end_gap(self, mark: _Mark, end: int, version: int) -> None:
        gap = mark.gap
        if gap is None:
            return
        mark.gap = None
        start = gap.start or end - (steady() - self._began)
        self._put(
            Gap(
                self.symbol,
                mark.channel,
                start,
                # The exchange may send the last book again on a new connection: before the start.
                max(start, end),
                gap.cause.value,
                gap.detail,
                gap.version,
                version,
            )
        )

    def _put(self, gap: Gap) -> None:
        self._gaps.collect([gap])
        self.written[gap.cause] += 1
        self.missed[gap.cause] += gap.end - gap.start

    def _to_remember(self) -> Marks:
        return {name: (mark.ts, mark.version) for name, mark in self._marks.items()}

    def _recall(self) -> None:
        if self._queue.stored_marks:
            for name, last in msgspec.msgpack.decode(self._queue.stored_marks, type=_MARKS).items():
                if name in self._marks:  # else it is recorded no longer
                    self._marks[name].ts, self._marks[name].version = last
        # They are written whenever `acked` is, and what came later is still in the queue.
        for entry in self._queue.since(self._queue.acked):
            for ts, mt, _ in entry.rows:
                known = BY_TYPE.get(str(mt))
                if known in self._marks:
                    self._marks[known].ts = _possible(int(ts))
            if entry.version and "depth" in self._marks:
                self._marks["depth"].version = entry.version


def _possible(ts: int) -> int:
    """Return a row's time, or this machine's where the exchange cannot mean what it says."""
    return ts if EARLIEST <= ts < LATEST else now()
