"""What the journal holds of one table: the rows in the order of receipt, and the store's progress.

Positions count the rows that were ever journaled for the table, from 0.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import attrs
import trio

from mexc_trio.journal.entries import Entry, Marks, Stored, TableState, encode, with_width
from mexc_trio.journal.outbox import RETRY, Outbox
from mexc_trio.rows import RowTuple
from mexc_trio.spans import now

MOST_IN_MEMORY: Final = 50_000
"""Waiting rows of all tables that are kept in memory too: with a thousand tables, to read their
heads from the file would take a quarter of the time that their INSERTs take."""


@attrs.define(eq=False)
class Queue:
    """The part of the journal that belongs to one table; `Journal.queue` returns it."""

    # Down to `after_reboot` the fields of `TableState`, in its order.
    name: str
    acked: int
    """Rows before this position are in the table."""
    table_rows: int | None
    """How many rows the table had when `acked` was set; None if no store ever said."""
    engine: str
    """The engine's `server_start_id` when the table was last read in full, or its fingerprint."""
    stored_marks: bytes
    """The ledger's marks as an earlier run wrote them; empty if there was none."""
    base: int | None
    """The number in the table of the row at position 0; None if it has none, as far as is known."""
    sent: int
    """The position up to which rows were sent to a table of numbered rows. Those between `acked`
    and this are one batch, which goes again as it is until the store has acknowledged it."""
    after_reboot: bool
    """Whether the machine was started anew since `acked` was set: the journal may lack its end."""
    end: int
    """The position of the next row."""
    id: int
    """The table's number in the file."""
    _outbox: Outbox
    width: int = attrs.field(default=0, init=False)  # of the table's rows; 0 as they were appended
    verified: bool = attrs.field(default=False, init=False)
    """Whether the table was found to have all that it should in this run. Before that its rows are
    kept, however old: the machine may have been off for longer than the retention."""
    inserts: int = attrs.field(default=0, init=False)
    """INSERTs since the table was rewritten, as far as is known in this run."""
    write_lock: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    """Held by whoever changes the table: its writer at each step, or what rewrites it."""
    _is_retained: bool = attrs.field(default=False, init=False)
    earlier: int = attrs.field(init=False)
    """Rows before this position were journaled by earlier runs."""
    marks: Callable[[], Marks] | None = attrs.field(default=None, init=False)
    """Returns what the gap ledger remembers of the rows up to `end`; None if there is no ledger.
    It is asked when that is written, once for many frames."""
    _unwritten: list[RowTuple] = attrs.field(factory=list, init=False)
    # The last rows, as many as are in memory, and of those that are written, when that was.
    _recent: list[RowTuple] = attrs.field(factory=list, init=False)
    _times: list[int] = attrs.field(factory=list, init=False)
    _version: int = attrs.field(default=0, init=False)
    # When the row at a position was received: what was last read from the file of the oldest one.
    _oldest: tuple[int, int] = attrs.field(default=(-1, 0), init=False)
    # Told when the queue is no longer empty. One place is enough: what matters is that, not how
    # often, and so nobody who appends ever waits.
    _send_arrival: trio.MemorySendChannel[None] = attrs.field(init=False)
    _arrival: trio.MemoryReceiveChannel[None] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.earlier = self.end
        self._send_arrival, self._arrival = trio.open_memory_channel[None](1)

    async def arrival(self) -> None:
        """Wait until a row comes into the empty queue. For one waiter: the writer."""
        while not self.backlog:  # it may have been told of rows that are gone already
            await self._arrival.receive()

    @property
    def backlog(self) -> int:
        """Rows that the store has not acknowledged."""
        return self.end - self.acked

    async def unlocked(self) -> None:
        """Wait while another program has the file locked; a moment in any case."""
        await trio.sleep(RETRY)
        await self._outbox.locked.wait_value(False)

    def append(self, rows: Sequence[RowTuple], version: int = 0) -> None:
        """Put the rows of one frame at the end of the queue; see the package's text.

        `version` is the highest depth version among them, 0 if there is none. A full group is
        written at once, for which DiskFull and JournalError are raised as by `Outbox.flush`.
        """
        self._collect(rows, version)
        self._outbox.appended()

    def remember(self) -> None:
        """Write what the gap ledger remembers in one transaction with what is collected next."""
        self._outbox.changed(self)

    def collect(self, rows: Sequence[RowTuple]) -> None:
        """Put rows at the end of the queue that come with no frame; see `Journal.keep_flushing`.

        What is collected before a frame is appended is written in one transaction with it.
        """
        self._collect(rows, 0)
        self._outbox.collected()

    def _collect(self, rows: Sequence[RowTuple], version: int) -> None:
        if not rows:
            return
        outbox = self._outbox
        if not self._unwritten:
            outbox.unwritten.append(self)
        if self.end == self.acked:
            with suppress(trio.WouldBlock):  # it was told already
                self._send_arrival.send_nowait(None)
        self._unwritten += rows
        self._recent += rows
        self.end += len(rows)
        outbox.in_memory += len(rows)
        if outbox.in_memory > MOST_IN_MEMORY:
            self._forget(len(self._recent))
        if version > self._version:
            self._version = version

    def head(self, limit: int) -> list[RowTuple]:
        """Return up to `limit` rows from `acked` on; raises as `rows`."""
        return self.rows(self.acked, limit)

    def rows(self, position: int, limit: int) -> list[RowTuple]:
        """Return up to `limit` rows from a position on, in the order of receipt, and leave them.

        Raises JournalError if they cannot be written or read.
        """
        self._outbox.flush()
        at = position - self._in_memory_from
        if at >= 0:
            return with_width(self._recent[at : at + limit], self.width)
        rows: list[RowTuple] = []
        for stored in self._outbox.file.read(self.id, position):
            rows += self._outbox.file.rows_of(stored)[max(0, position - stored.first) :]
            if len(rows) >= limit:
                break
        return with_width(rows[:limit], self.width)

    @property
    def is_in_memory(self) -> bool:
        """Whether all that waits is in memory."""
        return self._in_memory_from <= self.acked

    @property
    def _in_memory_from(self) -> int:
        return self.end - len(self._recent)

    @property
    def began(self) -> int | None:
        """When the table's first row was, in milliseconds, as far as that was ever known."""
        return int(known) if (known := self.recall("first row")) else None

    @began.setter
    def began(self, at: int) -> None:
        self.note("first row", str(at))

    def recall(self, what: str) -> str:
        """Return what was noted of the table; empty if nothing was."""
        return self._outbox.file.fact(f"{what} of {self.name}")

    def note(self, what: str, value: str) -> None:
        """Note something of the table, at once."""
        self._outbox.file.remember(f"{what} of {self.name}", value)

    def number(self, position: int) -> int:
        """Return the number in the table of the row at a position."""
        return (self.base or 0) + position

    def token(self) -> str:
        """Return what no other batch of any journal has, nor ever had, as the one that is sent."""
        return f"{self._outbox.file.identity} {self.name} {self.base} {self.acked} {self.sent}"

    def send(self, rows: int) -> None:
        """Write down that the first so many rows are about to be sent as one batch."""
        self.sent = self.acked + rows
        self._outbox.changed(self)
        self._outbox.flush()

    def acknowledge(self, rows: int) -> None:
        """Remember that the store has `rows` more rows of this queue."""
        assert self.table_rows is not None  # noqa: S101 - the writer reconciles before it appends
        self.inserts += 1
        self.move_head(self.acked + rows, self.table_rows + rows)

    def move_head(self, acked: int, table_rows: int) -> None:
        """Remember that the table has `table_rows` rows, the last of them at `acked - 1`."""
        self.acked = self.sent = acked
        self.table_rows, self.after_reboot = table_rows, False
        self._forget(len(self._recent) - self.backlog)
        self._outbox.changed(self)

    def begin_anew(self) -> None:
        """Forget the table, which is gone by somebody's wish, with what waited for it."""
        self._forget(len(self._recent))
        self.acked = self.sent = self.end
        self.base, self.table_rows, self.engine = None, None, ""
        self.after_reboot, self.stored_marks, self.marks = False, b"", None
        self._outbox.changed(self)

    def _forget(self, rows: int) -> None:
        """Keep the first so many rows in memory no longer."""
        if rows > 0:
            del self._recent[:rows]
            del self._times[:rows]
            self._outbox.in_memory -= rows

    def checked(self, engine: str) -> None:
        """Remember by which `server_start_id` or fingerprint the table is known to be sound."""
        self.engine = engine
        self._outbox.changed(self)

    @contextmanager
    def retained(self) -> Iterator[None]:
        """Remove nothing while the block runs: it finds out what the table needs again."""
        self._is_retained = True
        try:
            yield
        finally:
            self._is_retained = False

    @property
    def removable(self) -> int:
        """The position before which rows need not be kept for longer than the retention.

        To be asked before each removal: a writer may have found since that its table lost rows.
        """
        return self.acked if self.verified and not self._is_retained else 0

    def first_kept(self) -> int:
        """Return the first position whose row is still here; `end` if none is."""
        return self._outbox.file.first_position(self.id)

    def first_time(self, position: int) -> int | None:
        """Return the first value of the row at a position: the time of a symbol's row."""
        return next((int(row[0]) for row in self.rows(position, 1)), None)

    def since(self, position: int) -> Iterator[Entry]:
        """Yield what was journaled from a position on; the first entry may begin before it."""
        if position < self.end:
            for stored in self._outbox.file.read(self.id, position):
                yield Entry(self._outbox.file.rows_of(stored), stored.version)

    def oldest_waiting(self) -> int | None:
        """Return when the first waiting row was received, in milliseconds; None if none waits."""
        if not self.backlog:
            return None
        if not self.is_in_memory:
            if self._oldest[0] != self.acked:
                stored = next(iter(self._outbox.file.read(self.id, self.acked, 1)), None)
                self._oldest = self.acked, now() if stored is None else stored.at
            return self._oldest[1]
        place = self.acked - self._in_memory_from
        return self._times[place] if place < len(self._times) else now()

    def close_channel(self) -> None:
        """Close the channel to the writer."""
        self._send_arrival.close()
        self._arrival.close()

    def unwritten(self, at: int) -> Stored:
        """Return what was collected, as the file takes it."""
        rows = self._unwritten
        return Stored(self.id, self.end - len(rows), len(rows), at, self._version, encode(rows))

    def state(self) -> TableState:
        """Return what is remembered, as the file takes it."""
        marks = self.stored_marks if self.marks is None else encode(self.marks())
        known = (self.name, self.acked, self.table_rows, self.engine, marks)
        return TableState(*known, self.base, self.sent, self.after_reboot)

    def written(self, at: int) -> None:
        """Note that what was collected is in the file, and since when."""
        self._times += [at] * (len(self._recent) - len(self._times))
        self._unwritten, self._version = [], 0
