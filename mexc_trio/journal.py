"""The durable queue between the exchange and the store.

What is written when. A frame's rows are collected in memory by `Queue.append`, and `Journal.flush`
writes all that was collected in one transaction. `Journal.keep_flushing` does so at the end of each
of Trio's turns, which is before the program waits for anything; when many frames come in one turn,
`append` itself flushes every `GROUP` calls. So frames that arrive together share a transaction (at
64 frames one costs 1 microsecond a frame, alone 14), and none waits.

What survives what. A flushed row is in the kernel: killing the process loses nothing. With
`keep_syncing`, it is on the disk at most 100 ms later, too. The file stays consistent through a
power cut either way, though its end may be lost.

What is remembered. For each table `acked`, the position up to which its rows are in the store, and
`table_rows`, how many rows the table had then. An INSERT with an unknown outcome is settled by
comparing `count()` with these two. Rows stay `retention` seconds after they were written, so that a
table that lost its tail with the power can be given it again.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import attrs
import msgspec
import trio

from mexc_trio.errors import JournalError
from mexc_trio.journalfile import JournalFile, State, Stored, open_file
from mexc_trio.store.schema import RowTuple
from mexc_trio.turn import at_end_of_each_turn

GROUP: Final = 64
"""Frames that are collected at the most before they are written."""

REMEMBERED: Final = 50_000
"""Waiting rows of all tables that are kept in memory too: with a thousand tables, to read their
heads from the file would take a quarter of the time that their INSERTs take."""

SYNC_INTERVAL: Final = 0.1
"""Seconds after which written rows are synced to the disk, if that was asked for."""

PURGE_INTERVAL: Final = 2.0
"""Seconds between two removals of rows that need not be kept; more with very many tables."""

# Entries and pages that are worked on before other tasks have their turn: a few milliseconds.
_PURGE_STEP: Final = 500

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[int | str, ...]]).decode


class Entry(NamedTuple):
    """Rows of one table that were written to the journal together."""

    rows: list[RowTuple]
    version: int
    """Depth: the highest version among them; 0 if there is none."""


@attrs.define(eq=False)
class Queue:
    """The part of the journal that belongs to one table.

    Positions count the rows ever journaled for the table, from 0.
    """

    name: str
    acked: int
    """Rows before this position are in the table."""
    table_rows: int | None
    """How many rows the table had when `acked` was set; None if no store ever said."""
    end: int
    """The position of the next row."""
    engine: str
    """The incarnation of the engine under which the table was last read in full, or its seal."""
    doubtful: bool
    """Whether the machine was started anew since `acked` was set: the journal may lack its end."""
    stored_marks: bytes
    """What the gap ledger remembered of the table when it was last written; empty at first."""
    _id: int
    _journal: "Journal"
    proven: bool = attrs.field(default=False, init=False)
    """Whether the table was found to have all that it should in this run. Before that its rows are
    kept, however old: the machine may have been off for longer than the retention."""
    earlier: int = attrs.field(init=False)
    """Rows before this position were journaled by earlier runs."""
    marks: Callable[[], bytes] = attrs.field(init=False)
    """Returns what the gap ledger remembers now; written whenever the queue's own facts are."""
    _pending: list[RowTuple] = attrs.field(factory=list, init=False)
    # The last rows, as many as are remembered.
    _recent: list[RowTuple] = attrs.field(factory=list, init=False)
    _version: int = attrs.field(default=0, init=False)
    # Rings when the queue is no longer empty. One place is enough: what matters is that, not how
    # often, and so nobody who appends ever waits.
    _bell: trio.MemorySendChannel[None] = attrs.field(init=False)
    _heard: trio.MemoryReceiveChannel[None] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.earlier = self.end
        self.marks = lambda: self.stored_marks
        self._bell, self._heard = trio.open_memory_channel[None](1)

    async def arrival(self) -> None:
        """Wait until a row comes into the empty queue. For one waiter: the writer."""
        while not self.backlog:  # the bell may have rung for rows that are gone already
            await self._heard.receive()

    @property
    def backlog(self) -> int:
        """Rows that the store has not acknowledged."""
        return self.end - self.acked

    def append(self, rows: Sequence[RowTuple], version: int = 0) -> None:
        """Put the rows of one frame at the end of the queue; see the module's text.

        Raises:
            DiskFull, JournalError: writing a full group failed.
        """
        self.collect(rows, version)
        self._journal.appended()

    def collect(self, rows: Sequence[RowTuple], version: int = 0) -> None:
        """Put rows at the end of the queue, to be written with the next frame or soon.

        What is collected before a frame is appended is written in one transaction with it.
        """
        if not rows:
            return
        if not self._pending:
            self._journal.touched.append(self)
        if not self.backlog:
            with suppress(trio.WouldBlock):  # it has rung already
                self._bell.send_nowait(None)
        self._pending += rows
        self._recent += rows
        self.end += len(rows)
        self._journal.remembered += len(rows)
        if self._journal.remembered > REMEMBERED:
            self._forget(len(self._recent))
        self._version = max(self._version, version)
        self._journal.news()

    def head(self, limit: int) -> list[RowTuple]:
        """Return the first rows from `acked` on, in the order of receipt, and leave them here.

        Raises:
            JournalError: they cannot be written or read.
        """
        return self.rows(self.acked, limit)

    def rows(self, position: int, limit: int) -> list[RowTuple]:
        """Return up to `limit` rows from a position on; raises as `head`."""
        self._journal.flush()
        remembered = position - (self.end - len(self._recent))
        if remembered >= 0:
            return self._recent[remembered : remembered + limit]
        rows: list[RowTuple] = []
        for stored in self._journal.file.read(self._id, position):
            rows += _decode(stored.rows)[max(0, position - stored.first) :]
            if len(rows) >= limit:
                break
        return rows[:limit]

    def acknowledge(self, rows: int) -> None:
        """Remember that the store has `rows` more rows of this queue."""
        assert self.table_rows is not None  # noqa: S101 - the writer reconciles before it appends
        self.settle(self.acked + rows, self.table_rows + rows)

    def settle(self, acked: int, table_rows: int) -> None:
        """Remember that the table has `table_rows` rows, the last of them at `acked - 1`."""
        self.acked, self.table_rows, self.doubtful = acked, table_rows, False
        self._forget(len(self._recent) - self.backlog)
        self._journal.changed(self)

    def _forget(self, rows: int) -> None:
        """Keep the first so many rows in memory no longer."""
        if rows > 0:
            del self._recent[:rows]
            self._journal.remembered -= rows

    def checked(self, engine: str) -> None:
        """Remember that the table was read in full under this incarnation, or has this seal."""
        self.engine = engine
        self._journal.changed(self)

    def first_kept(self) -> int:
        """Return the first position whose row is still here; `end` if none is."""
        first = self._journal.file.first_position(self._id)
        return self.end - len(self._pending) if first is None else first

    def first_time(self, position: int) -> int | None:
        """Return the first value of the row at a position: the time of a symbol's row."""
        self._journal.flush()
        for stored in self._journal.file.read(self._id, position, 1):
            return int(_decode(stored.rows)[max(0, position - stored.first)][0])
        return None

    def since(self, position: int) -> Iterator[Entry]:
        """Yield what was journaled from a position on; the first entry may begin before it."""
        for stored in self._journal.file.read(self._id, position):
            yield Entry(_decode(stored.rows), stored.version)

    def oldest_waiting(self) -> int | None:
        """Return when the first waiting row was received, in milliseconds; None if none waits."""
        if not self.backlog:
            return None
        for stored in self._journal.file.read(self._id, self.acked, 1):
            return stored.at
        return _now()

    def hang_up(self) -> None:
        """Close the channel to the writer."""
        self._bell.close()
        self._heard.close()

    def pending(self, at: int) -> Stored:
        """Return what was collected, as the file takes it."""
        rows = self._pending
        return Stored(
            self._id, self.end - len(rows), len(rows), at, self._version, _encode(rows)
        )  # fmt: skip

    def state(self) -> State:
        """Return what is remembered, as the file takes it."""
        return State(
            self.name, self.acked, self.table_rows, self.engine, self.marks(), self.doubtful
        )

    def written(self) -> None:
        """Note that what was collected is in the file."""
        self._pending, self._version = [], 0

    def purge(self, before: int) -> bool:
        """Remove some of what need not be kept; return whether there may be more."""
        return self._journal.file.remove(self._id, self.acked, before, _PURGE_STEP)


@attrs.define(eq=False)
class Journal:
    """An open journal. All calls come from Trio's thread: they are short."""

    file: JournalFile
    retention: float
    """Seconds for which acknowledged rows stay."""
    touched: list[Queue] = attrs.field(factory=list, init=False)
    """Queues with rows that are not yet written."""
    remembered: int = attrs.field(default=0, init=False)
    """How many rows the queues keep in memory besides."""
    _changed: dict[str, Queue] = attrs.field(factory=dict, init=False)
    _queues: dict[str, Queue] = attrs.field(factory=dict, init=False)
    _frames: int = attrs.field(default=0, init=False)
    _news: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    @property
    def damaged(self) -> Path | None:
        """Where a journal was put that could not be read at the start; None if all was well."""
        return self.file.damaged

    def queue(self, name: str) -> Queue:
        """Return the queue of a table, made if it is new."""
        if name not in self._queues:
            id_, state, end = self.file.table(name)
            self._queues[name] = Queue(
                name, state.acked, state.table_rows, end, state.engine, state.doubtful,
                state.marks, id_, self,
            )  # fmt: skip
        return self._queues[name]

    def queues(self) -> list[Queue]:
        """Return the queues of all tables that the journal knows."""
        return [self.queue(name) for name in self.file.names()]

    def news(self) -> None:
        """Note that there is something to write."""
        self._news.set()

    def appended(self) -> None:
        """Note that a frame is complete; write a full group."""
        self._frames += 1
        if self._frames >= GROUP:
            self.flush()

    def changed(self, queue: Queue) -> None:
        """Note that what is remembered of a table changed.

        It may be written later: a restart finds it out again from the table's count.
        """
        self._changed[queue.name] = queue
        self.news()

    def flush(self) -> None:
        """Write all that was collected, in one transaction.

        Raises:
            DiskFull: no space.
            JournalError: any other failure.
        """
        if not self.touched and not self._changed:
            return
        now = _now()
        # If this fails, all stays collected in memory as it was, and the caller hears of it.
        self.file.write(
            [queue.pending(now) for queue in self.touched],
            [queue.state() for queue in self._changed.values()],
        )
        for queue in self.touched:
            queue.written()
        self.touched.clear()
        self._changed.clear()
        self._frames = 0

    async def keep_flushing(self) -> None:
        """Flush whenever the program is about to wait. Runs until cancelled; raises as `flush`."""
        await at_end_of_each_turn(self.flush)

    async def keep_syncing(self) -> None:
        """Sync the disk at most `SYNC_INTERVAL` after rows were written. Runs until cancelled."""
        while True:
            await self._news.wait()
            await trio.sleep(SYNC_INTERVAL / 2)
            self._news = trio.Event()
            self.flush()  # nothing is left to write, unless this is what woke the program
            await trio.to_thread.run_sync(self.file.sync)

    async def keep_purging(self) -> None:
        """Remove what need not be kept, now and then. Runs until cancelled."""
        while True:
            await self.purge()
            # To ask for each of a thousand tables takes long enough to do it less often.
            await trio.sleep(max(PURGE_INTERVAL, len(self._queues) / 100))

    async def purge(self) -> None:
        """Remove rows of proven tables that are acknowledged and older than the retention."""
        self.flush()
        before = int((time.time() - self.retention) * 1000)
        for queue in [queue for queue in self._queues.values() if queue.proven]:
            while queue.purge(before):
                await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        while self.file.shrink(_PURGE_STEP):
            await trio.lowlevel.checkpoint()

    def hang_up(self) -> None:
        """Close the channels of the queues."""
        for queue in self._queues.values():
            queue.hang_up()

    def fact(self, name: str) -> str:
        """Return a remembered fact about the program, empty if there is none."""
        return self.file.fact(name)

    def remember(self, name: str, value: str) -> None:
        """Remember a fact about the program."""
        self.file.remember(name, value)


@contextmanager
def open_journal(path: Path, *, retention: float = 600.0) -> Iterator[Journal]:
    """Open a journal, made if it is missing; see `open_file`. What is left is written at the end.

    Raises:
        JournalLocked, JournalError, DiskFull: as `open_file`.
    """
    with open_file(path) as file:
        journal = Journal(file, retention)
        try:
            yield journal
        except BaseException:
            with suppress(JournalError):  # perhaps it is what brought us here
                journal.flush()
            raise
        else:
            journal.flush()
        finally:
            journal.hang_up()


def _now() -> int:
    return int(time.time() * 1000)
