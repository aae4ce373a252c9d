"""The ledger of holes: whenever data could have been missed, a row in the table `gaps` says so.

A hole has two ends, and both are rows: the last one of its channel before, and the first one after.
So a hole is opened when something goes wrong, and written when the channel's next row comes, into
the journal in the same transaction as that row. The ledger remembers each channel's last row in the
journal, which lets the next start of the program write the hole since then.
"""

import time
from enum import StrEnum

import attrs
import msgspec

from mexc_trio.journal import Queue
from mexc_trio.rows import CHANNELS, DEAL, DEPTH, TICKER, Channel, Gap
from mexc_trio.wire import Data

_CHANNEL_OF: dict[object, Channel] = {TICKER: "ticker", DEAL: "deal", DEPTH: "depth"}


class Cause(StrEnum):
    """Why data could have been missed: the values of the column `cause`."""

    PROGRAM_STOPPED = "program stopped"
    CONNECTION_LOST = "connection lost"
    CHANNEL_SILENT = "channel silent"
    CLOCK_JUMPED = "clock jumped"
    DECODE_ERRORS = "decode errors"
    DISK_FULL = "disk full"
    SYMBOL_STOPPED = "symbol stopped"
    JOURNAL_LOST = "journal lost"
    TABLE_SHORTER = "table shorter than expected"
    TABLE_DAMAGED = "table damaged"
    TABLE_DROPPED = "table dropped"


@attrs.define
class _Mark:
    """The last row of one channel, and the hole that is open after it."""

    ts: int = 0
    """Milliseconds; 0 if there was none yet."""
    version: int = 0
    cause: Cause | None = None
    detail: str = ""


class _Remembered(msgspec.Struct):
    position: int
    """Rows from this position of the queue on are not yet in `marks`."""
    marks: dict[str, tuple[int, int]]


@attrs.define(eq=False)
class Ledger:
    """The holes of one symbol."""

    symbol: str
    written: int = attrs.field(default=0, init=False)
    """Holes that were written in this run."""
    _queue: Queue
    _gaps: Queue
    _marks: dict[Channel, _Mark] = attrs.field(init=False)
    _began: int = attrs.field(factory=lambda: int(time.time() * 1000), init=False)

    def __attrs_post_init__(self) -> None:
        self._marks = {channel: _Mark() for channel in CHANNELS}
        self._recall()
        self._queue.marks = self._remember

    @property
    def has_history(self) -> bool:
        """Whether a row of any channel was ever recorded, as far as the journal knows."""
        return any(mark.ts for mark in self._marks.values())

    def program_started(self, cause: Cause, detail: str) -> None:
        """Open the hole since the last run in every channel that has been recorded before."""
        for channel, mark in self._marks.items():
            if mark.ts:
                self.lost(cause, detail, channel)

    def lost(self, cause: Cause, detail: str, channel: Channel | None = None) -> None:
        """Open a hole in a channel, or in all of them. One that is open keeps its cause."""
        for name in CHANNELS if channel is None else (channel,):
            mark = self._marks[name]
            if mark.cause is None:
                mark.cause, mark.detail = cause, detail

    def received(self, message: Data) -> None:
        """Note the rows of a frame: they close an open hole, and dead letters open one."""
        channel = message.channel
        good = len(message.rows) - message.dead
        if channel is not None and good:
            mark = self._marks[channel]
            if mark.cause is not None:
                self._write(channel, mark, message.rows[0].ts, message.version)
            mark.ts = message.rows[good - 1].ts
            mark.version = message.version
        if message.dead and (channel is not None or not message.symbol):
            self.lost(
                Cause.DECODE_ERRORS, "a message could not be read; see the dead letters", channel
            )

    def stopped(self, cause: Cause, detail: str) -> None:
        """Write what is open, up to now, because no next row will come in this run."""
        self.lost(cause, detail)
        now = int(time.time() * 1000)
        for channel, mark in self._marks.items():
            self._write(channel, mark, now, 0)

    def record(self, cause: Cause, detail: str, start: int, end: int) -> None:
        """Write a hole in all channels that something other than the exchange has made."""
        self._put(Gap(self.symbol, "all", start, max(start, end), cause.value, detail, 0, 0))

    def _write(self, channel: Channel, mark: _Mark, end: int, version: int) -> None:
        assert mark.cause is not None  # noqa: S101 - the callers looked
        # A channel without any row has been missing since the program began to listen. The
        # exchange may send the last book again on a new connection, so an end can lie before.
        start = mark.ts or min(self._began, end)
        self._put(
            Gap(
                self.symbol,
                channel,
                start,
                max(start, end),
                mark.cause.value,
                mark.detail,
                mark.version,
                version,
            )
        )
        mark.cause, mark.detail = None, ""

    def _put(self, gap: Gap) -> None:
        self._gaps.append([gap])
        self.written += 1

    def _remember(self) -> bytes:
        marks: dict[str, tuple[int, int]] = {
            channel: (mark.ts, mark.version) for channel, mark in self._marks.items()
        }
        return msgspec.msgpack.encode(_Remembered(self._queue.end, marks))

    def _recall(self) -> None:
        position = self._queue.acked
        if self._queue.stored_marks:
            remembered = msgspec.msgpack.decode(self._queue.stored_marks, type=_Remembered)
            position = remembered.position
            for channel in CHANNELS:
                mark = self._marks[channel]
                mark.ts, mark.version = remembered.marks.get(channel, (0, 0))
        for entry in self._queue.since(position):
            for ts, mt, _ in entry.rows:
                known = _CHANNEL_OF.get(mt)
                if known is not None:
                    self._marks[known].ts = int(ts)
            if entry.version:
                self._marks["depth"].version = entry.version
