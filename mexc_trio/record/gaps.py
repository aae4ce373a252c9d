"""The ledger of gaps: whenever data could have been missed, a row in the table `gaps` says so.

A gap has two ends, and both are rows: the last one of its channel before, and the first one after.
So a gap is opened when something goes wrong, and written when the channel's next row comes, into
the journal in the same transaction as that row. The ledger remembers each channel's last row in the
journal, which lets the next start of the program write the gap since then.

Where deals can be fetched afterwards, a gap in them that has ended is pending until they are, or
until that has proved impossible. The journal knows of it from the row on that ended it, and has the
fetched deals, the gap's row and that it is pending no longer in one transaction.

What nobody has told of shows in the rows: one that comes after too long a pause has been missed,
whatever the connections were like (`mexc_trio.rhythm`).
"""

from collections import Counter
from collections.abc import Sequence

import attrs

from mexc_trio.exchange.backfill import Deal
from mexc_trio.exchange.messages import Data
from mexc_trio.journal import Marks, Queue
from mexc_trio.record.mark import Mark, OpenGap
from mexc_trio.record.pending import Pending
from mexc_trio.record.remembered import earlier_deals, plausible_time, remembered
from mexc_trio.record.wide import fetched
from mexc_trio.rows import CHANNELS, Cause, Channel, Gap, Row
from mexc_trio.spans import LATEST, SECOND, Span, now, steady


@attrs.define(eq=False)
class Ledger:
    """The gaps of one symbol."""

    symbol: str
    written: Counter[str] = attrs.field(factory=Counter, init=False)
    """Gaps that were written in this run, by cause."""
    milliseconds: Counter[str] = attrs.field(factory=Counter, init=False)
    """Their milliseconds, by cause; a gap in all channels counts once."""
    _queue: Queue
    _gaps: Queue
    _channels: Sequence[Channel] = CHANNELS
    fills: bool = False
    """Whether deals can be fetched afterwards."""
    pending: Pending = attrs.field(init=False)
    """What of deals is to be asked for before it is written, if others can be fetched."""
    _marks: dict[Channel, Mark] = attrs.field(init=False)
    # Time and version of the channels that were recorded once.
    _last: dict[Channel, tuple[int, int]] = attrs.field(init=False)
    # Where a gap begins in a channel that has had no row: when the program was last known to
    # listen. 0 is the start of this run, whose time the machine's clock may not know yet.
    _since: int = attrs.field(init=False)
    _began: int = attrs.field(factory=steady, init=False)
    _has_history: bool = attrs.field(init=False)
    # See `Marks.uncertain_since`.
    _uncertain_since: int = attrs.field(init=False)
    # The position before which rows were looked through for deals of earlier runs.
    _recalled: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._marks = {channel: Mark(channel) for channel in self._channels}
        self._last, pending, self._uncertain_since = remembered(self._queue)
        self.pending = Pending(self.symbol)
        self.pending.add(pending)
        for name, mark in self._marks.items():
            mark.ts, mark.version = self._last.get(name, (0, 0))
        self._since = self.newest
        self._has_history = self.newest > 0
        for mark in self._marks.values():
            mark.heard = mark.ts or self.newest
        self._queue.marks = self._to_remember
        if not self.fills:
            self.give_up()  # an earlier run would have filled them

    @property
    def newest(self) -> int:
        """Milliseconds: the last row of any channel; 0 if there was none yet."""
        return max(mark.ts for mark in self._marks.values())

    def last(self, channel: Channel) -> int:
        """Return the time of a channel's last row, in milliseconds; 0 if there was none yet."""
        mark = self._marks.get(channel)
        return self._last.get(channel, (0, 0))[0] if mark is None else mark.ts

    def record_channels(self, channels: Sequence[Channel]) -> None:
        """Go on with other channels.

        One that is new has no past in which it was missed; one that was recorded once has.
        """
        for name in self._marks.keys() - set(channels):
            self._last[name] = self._marks[name].ts, self._marks[name].version
            self._end_gap(self._marks[name], now(), 0)
            if name == "deal":
                self._give_up_end(Cause.SYMBOL_STOPPED, "deals are not recorded any more")
        for name in channels:
            if name not in self._marks:
                ts, version = self._last.get(name, (0, 0))
                self._marks[name] = Mark(name, ts or now(), version)
                if ts:
                    self.lost(Cause.SYMBOL_STOPPED, "the settings did not name this channel", name)
        self._marks = {name: self._marks[name] for name in channels}

    def program_started(self, cause: Cause, detail: str) -> None:
        """Open the gap since the last run, if the symbol has been recorded before."""
        self._give_up_end(cause, detail)
        if self._has_history:
            self.lost(cause, detail)

    def listed(self, since: int, detail: str) -> None:
        """Open the gap of a symbol that comes while the program runs.

        At `since`, in milliseconds, it was last known not to be listed.
        """
        if not self._has_history:
            self._since = since
        self._give_up_end(Cause.NEWLY_LISTED, detail)
        self.lost(Cause.NEWLY_LISTED, detail)

    def lost(self, cause: Cause, detail: str, channel: Channel | None = None) -> None:
        """Open a gap in a channel, or in all of them. One that is open keeps its cause."""
        for name, mark in self._marks.items():
            if channel in (None, name) and mark.gap is None:
                mark.gap = OpenGap(cause, detail, mark.ts or self._since, mark.version)

    def note_missed(
        self, cause: Cause, detail: str, channel: Channel, start: int, end: int | None
    ) -> None:
        """Note what no line has of a channel, between two of its rows, in milliseconds.

        Without an end no row has come since, and a gap is open, whose start the ledger knows.
        """
        if end is None:
            self.lost(cause, detail, channel)
        else:
            self._write_or_pend(self._gap(channel, start, end, cause, detail))

    def note_uncertain(self, span: Span) -> None:
        """Have deals asked for of a time that is no gap: only those that are lacking are written.

        The journal does not remember the request.
        """
        if self.fills:
            self.pending.add_uncertain(span)

    def received(self, message: Data, until: int = LATEST) -> None:
        """Note the rows of a frame, which go into the queue next.

        They close an open gap, and dead letters open one. `until` is the last row of the channel
        before which a line that lags can bring no other: if the program ends now, others may be
        lacking from there on.
        """
        rows, channel = message.rows, message.channel
        good = len(rows) - message.dead
        mark = self._marks.get(channel or "") if good else None
        if mark is not None and mark.gap is not None:
            self._end_gap(mark, plausible_time(rows[0].ts), message.version, by_row=True)
        # Between the two: a dead letter among good rows may be older than they are.
        for missed in message.missed:
            text = "a message could not be read; see the dead letters"
            self.lost(Cause.DECODE_ERRORS, text, missed)
        if mark is not None:
            ts = rows[good - 1].ts
            last = plausible_time(ts)
            if last - mark.heard > mark.pause:
                self._note_silence(mark, rows[:good], message.version)
            elif last == ts:
                mark.heard = ts
            # A line that lags brings older ones than are there.
            mark.ts = max(mark.ts, last) if until < LATEST else last
            mark.version = message.version
            if channel == "deal":
                if until < LATEST or self.pending.uncertain or self._uncertain_since:
                    self._note_uncertain_end(until, mark.ts)
                if self.fills:
                    self.pending.last_deals.note(message, merged=until < LATEST)

    def unreadable(self) -> None:
        """Open a gap in all channels: a dead letter of another symbol may have been for this."""
        text = "a message of this or another symbol could not be read; see the others' dead letters"
        self.lost(Cause.DECODE_ERRORS, text)

    def stopped(self, cause: Cause, detail: str) -> None:
        """Write the gap that begins now: no next row will come in this run."""
        self._give_up_end(cause, detail)
        self.lost(cause, detail)
        self.close()

    def close(self) -> None:
        """Write what is open, up to now. The next run opens it again from the same row."""
        at = now()
        for mark in self._marks.values():
            self._end_gap(mark, at, 0)
        self.give_up()

    def fill(self, answer: Sequence[Deal]) -> int:
        """Journal what of the exchange's last deals was missed; return how many deals that were.

        `answer` has the oldest deal first. The gaps that the deals belong to are written; those of
        which the answer says nothing stay pending.
        """
        gaps, missed = self.pending.fill(answer)
        for gap in gaps:
            self._write(gap)
        if missed and (mark := self._marks.get("deal")):
            times = [row.ts for row, _ in missed]
            mark.note_fetched((min(times), max(times) + 1))
        self._queue.remember()
        self._queue.append([*map(fetched, missed)])
        return len(missed)

    def give_up(self, *, until: int | None = None) -> tuple[list[Gap], Gap | None]:
        """Write pending gaps as they are, those that ended by then or all.

        Returns them, and the uncertain time that is asked for no longer.
        """
        gaps, uncertain = self.pending.give_up(until)
        for gap in gaps:
            self._write(gap)
        if gaps:
            self._queue.remember()
        return gaps, uncertain

    def record(self, cause: Cause, detail: str, start: int, end: int) -> None:
        """Write a gap in all channels that something other than the exchange has made."""
        self._write(self._gap("all", start, end, cause, detail))

    def _note_uncertain_end(self, until: int, newest: int) -> None:
        """Note from which deal on others may be lacking if the program ends now; see `received`."""
        before, uncertain = self._uncertain_since, self.pending.uncertain
        since = min(until, uncertain.start if uncertain else LATEST)
        self._uncertain_since = since if 0 < since < newest else 0
        if before or self._uncertain_since:
            self._queue.remember()

    def _give_up_end(self, cause: Cause, detail: str) -> None:
        """Write what may be lacking between the last deals that are there: none will come any more.

        It is a gap of its own, to which nothing is fetched: only the last hundred of the deals that
        are there are known, and others would be stored again.
        """
        since, self._uncertain_since = self._uncertain_since, 0
        if 0 < since < (newest := self.last("deal")):
            why = f"{detail}; a line lagged, or deals were being asked for"
            self._write(self._gap("deal", since, newest, cause, why))
            self._queue.remember()

    def _end_gap(self, mark: Mark, end: int, version: int, *, by_row: bool = False) -> None:
        gap, mark.gap = mark.gap, None
        if gap is None:
            return
        start = gap.start or end - (steady() - self._began)
        versions = gap.version, version
        row = self._gap(mark.channel, start, end, gap.cause, gap.detail, versions)
        (self._write_or_pend if by_row else self._write)(row)

    def _note_silence(self, mark: Mark, rows: Sequence[Row], version: int) -> None:
        """Write down the silence before a row, if there was one that nobody has told of."""
        if not self._has_history and not mark.heard:
            # The first row of the symbol begins the time of all channels.
            for one in self._marks.values():
                one.heard = one.heard or plausible_time(rows[0].ts)
        for start, end in mark.unaccounted(rows):
            seconds = (end - start) / SECOND
            detail = f"no {mark.channel} for {seconds:.0f} s, which is longer than is usual"
            cause, versions = Cause.CHANNEL_SILENT, (mark.version, version)
            self._write_or_pend(self._gap(mark.channel, start, end, cause, detail, versions))

    def _gap(
        self, channel: str, start: int, end: int, cause: Cause, detail: str,
        versions: tuple[int, int] = (0, 0),
    ) -> Gap:  # fmt: skip
        # The last book may come again on a new connection: before the start.
        return Gap(self.symbol, channel, start, max(start, end), cause.value, detail, *versions)

    def _write_or_pend(self, gap: Gap) -> None:
        """Write a gap whose end is a row, or hold it if it may be filled."""
        mark = self._marks.get(gap.channel)
        if mark is None or not self.fills or gap.channel != "deal":
            self._write(gap)
            return
        mark.note_gap(gap)
        if self._recalled < self._queue.earlier:
            self._recalled = self._queue.earlier
            self.pending.last_deals.note_earlier(earlier_deals(self._queue))
        self.pending.add([gap])
        self._queue.remember()

    def _write(self, gap: Gap) -> None:
        for name, mark in self._marks.items():
            if gap.channel in (name, "all"):
                mark.note_gap(gap)
        self._gaps.collect([gap])
        self.written[gap.cause] += 1
        self.milliseconds[gap.cause] += gap.end - gap.start

    def _to_remember(self) -> Marks:
        last = {name: (mark.ts, mark.version) for name, mark in self._marks.items()}
        parts = self._last | last, self._queue.end, self.pending.gaps, self._uncertain_since
        return Marks(*parts)
