"""The durable queue between the exchange and the store. The only module that knows SQLite.

What is written when. A frame's rows are collected in memory by `Queue.append`, and `Journal.flush`
writes all that was collected in one transaction. The task in `Journal.keep_flushing` does so as
soon as every other task has nothing left to do, which is before the program waits for anything;
when frames arrive faster than that, `append` itself flushes every `GROUP` calls. So frames that
arrive together share a transaction (at 64 frames one costs 1 microsecond a frame, alone 14), and
none waits.

What survives what. A flushed row is in the kernel: killing the process loses nothing. With
`sync_soon`, it is on the disk at most 100 ms later, too. SQLite's WAL with synchronous=NORMAL keeps
the database consistent through a power cut either way.

What is remembered. For each table `acked`, the position up to which its rows are in the store, and
`table_rows`, how many rows the table had then. An INSERT with an unknown outcome is settled by
comparing `count()` with these two. Rows stay `retention` seconds after they were acknowledged, so
that a table that lost its tail with the power can be given it again.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import attrs
import msgspec
import trio
from trio.testing import wait_all_tasks_blocked

from mexc_trio.errors import DiskFull, JournalError, JournalLocked, StoreLocked
from mexc_trio.locks import hold_file
from mexc_trio.store.schema import RowTuple

GROUP: Final = 64
"""Frames that are collected at the most before they are written."""

SYNC_INTERVAL: Final = 0.1
"""Seconds after which written rows are synced to the disk, if that was asked for."""

_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS tables (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    acked INTEGER NOT NULL DEFAULT 0,
    table_rows INTEGER,
    engine TEXT NOT NULL DEFAULT '',
    marks BLOB
);
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY,
    tbl INTEGER NOT NULL,
    first INTEGER NOT NULL,
    n INTEGER NOT NULL,
    at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    rows BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS entries_by_position ON entries (tbl, first);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[int | str, ...]]).decode


class Batch(NamedTuple):
    """Rows from the head of a queue, in the order of receipt."""

    rows: list[RowTuple]
    oldest: int
    """When the first of them was received, in milliseconds since 1970."""


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
    """The incarnation of the engine under which the table was last read in full."""
    stored_marks: bytes
    """What the gap ledger remembered of the table when it was last written; empty at first."""
    _id: int
    _journal: "Journal"
    marks: Callable[[], bytes] = attrs.field(init=False)
    """Returns what the gap ledger remembers now; written whenever the queue's own facts are."""
    _pending: list[RowTuple] = attrs.field(factory=list, init=False)
    _version: int = attrs.field(default=0, init=False)
    # Rings when the queue is no longer empty. One place is enough: what matters is that, not how
    # often, and so nobody who appends ever waits.
    _bell: trio.MemorySendChannel[None] = attrs.field(init=False)
    _heard: trio.MemoryReceiveChannel[None] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.marks = lambda: self.stored_marks
        self._bell, self._heard = trio.open_memory_channel[None](1)

    async def arrival(self) -> None:
        """Wait until a row comes into the empty queue. For one waiter: the writer."""
        if not self.backlog:
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
        if not self._pending:
            self._journal.touched.append(self)
        if self.end == self.acked:
            with suppress(trio.WouldBlock):  # it has rung already
                self._bell.send_nowait(None)
        self._pending += rows
        self.end += len(rows)
        self._version = max(self._version, version)
        self._journal.appended()

    def head(self, limit: int) -> Batch:
        """Return about `limit` rows from `acked` on, without removing them."""
        self._journal.flush()
        rows: list[RowTuple] = []
        oldest = 0
        for first, at, blob in self._journal.entries(self._id, self.acked):
            oldest = oldest or at
            rows += _decode(blob)[max(0, self.acked - first) :]
            if len(rows) >= limit:
                break
        return Batch(rows, oldest)

    def acknowledge(self, rows: int) -> None:
        """Remember that the store has `rows` more rows of this queue."""
        assert self.table_rows is not None  # noqa: S101 - the writer reconciles before it appends
        self.settle(self.acked + rows, self.table_rows + rows)

    def settle(self, acked: int, table_rows: int) -> None:
        """Remember that the table has `table_rows` rows, the last of them at `acked - 1`."""
        self.acked, self.table_rows = acked, table_rows
        self._journal.changed(self)

    def checked(self, engine: str) -> None:
        """Remember that the table was read in full under this incarnation of its engine."""
        self.engine = engine
        self._journal.changed(self)

    def first_kept(self) -> int:
        """Return the first position whose row is still here; `end` if none is."""
        return self._journal.first_position(self._id, self.end)

    def first_time(self, position: int) -> int | None:
        """Return the first value of the row at a position: the time of a symbol's row."""
        for first, _, blob in self._journal.entries(self._id, position):
            return int(_decode(blob)[position - first][0])
        return None

    def since(self, position: int) -> Iterator[Entry]:
        """Yield what was journaled from a position on; the first entry may begin before it."""
        for _, version, blob in self._journal.versions(self._id, position):
            yield Entry(_decode(blob), version)

    def oldest_waiting(self) -> int | None:
        """Return when the first waiting row was received, in milliseconds; None if none waits."""
        if not self.backlog:
            return None
        for _, at, _ in self._journal.entries(self._id, self.acked):
            return at
        return int(time.time() * 1000)

    def hang_up(self) -> None:
        """Close the channel to the writer."""
        self._bell.close()
        self._heard.close()

    def entry(self, at: int) -> tuple[int, int, int, int, int, bytes]:
        """Return what was collected as the values of an entry."""
        rows = self._pending
        return self._id, self.end - len(rows), len(rows), at, self._version, _encode(rows)

    def written(self) -> None:
        """Note that what was collected is in the journal's file."""
        self._pending, self._version = [], 0


@attrs.define(eq=False)
class Journal:
    """An open journal. All calls come from Trio's thread: they are short."""

    path: Path
    retention: float
    """Seconds for which acknowledged rows stay."""
    damaged: Path | None
    """Where a journal was put that could not be read at the start; None if all was well."""
    _db: sqlite3.Connection
    touched: list[Queue] = attrs.field(factory=list, init=False)
    """Queues with rows that are not yet written."""
    _changed: dict[str, Queue] = attrs.field(factory=dict, init=False)
    _queues: dict[str, Queue] = attrs.field(factory=dict, init=False)
    _frames: int = attrs.field(default=0, init=False)
    _news: trio.Event = attrs.field(factory=trio.Event, init=False)
    _written: trio.Event = attrs.field(factory=trio.Event, init=False)

    def queue(self, name: str) -> Queue:
        """Return the queue of a table, made if it is new."""
        if name not in self._queues:
            self._db.execute("INSERT OR IGNORE INTO tables (name) VALUES (?)", (name,))
            row = self._db.execute(
                "SELECT id, acked, table_rows, engine, marks FROM tables WHERE name = ?", (name,)
            ).fetchone()
            id_, acked, table_rows, engine, marks = row
            last = self._db.execute(
                "SELECT first + n FROM entries WHERE tbl = ? ORDER BY first DESC LIMIT 1", (id_,)
            ).fetchone()
            end = max(acked, last[0]) if last else acked
            self._queues[name] = Queue(
                name, acked, table_rows, end, engine, marks or b"", id_, self
            )
        return self._queues[name]

    def queues(self) -> list[Queue]:
        """Return the queues of all tables that the journal knows."""
        names = self._db.execute("SELECT name FROM tables ORDER BY id").fetchall()
        return [self.queue(name) for (name,) in names]

    def appended(self) -> None:
        """Note that a frame was put in a queue."""
        self._frames += 1
        if self._frames >= GROUP:
            self.flush()
        elif self._frames == 1:
            self._news.set()

    def changed(self, queue: Queue) -> None:
        """Note that what is remembered of a table changed.

        It may be written later: a restart finds it out again from the table's count.
        """
        self._changed[queue.name] = queue
        self._news.set()

    def flush(self) -> None:
        """Write all that was collected, in one transaction.

        Raises:
            DiskFull: no space.
            JournalError: any other failure.
        """
        if not self.touched and not self._changed:
            return
        now = int(time.time() * 1000)
        with _translated(self.path):
            # If this fails, all stays collected in memory as it was, and the caller hears of it.
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(
                    "INSERT INTO entries (tbl, first, n, at, version, rows) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    [queue.entry(now) for queue in self.touched],
                )
                if self._changed:
                    self._db.executemany(
                        "UPDATE tables SET acked = ?, table_rows = ?, engine = ?, marks = ? "
                        "WHERE name = ?",
                        [
                            (q.acked, q.table_rows, q.engine, q.marks(), q.name)
                            for q in self._changed.values()
                        ],
                    )
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        for queue in self.touched:
            queue.written()
        self.touched.clear()
        self._changed.clear()
        self._frames = 0
        self._written.set()

    async def keep_flushing(self) -> None:
        """Flush whenever all other tasks are waiting. Runs until cancelled."""
        while True:
            await self._news.wait()
            # Not only for tests: this is how Trio says "nothing else to do". It costs nothing
            # while the program is busy.
            await wait_all_tasks_blocked()
            self._news = trio.Event()
            self.flush()

    async def keep_syncing(self) -> None:
        """Sync the disk at most `SYNC_INTERVAL` after rows were written. Runs until cancelled."""
        wal = self.path.with_name(self.path.name + "-wal")
        while True:
            await self._written.wait()
            await trio.sleep(SYNC_INTERVAL / 2)
            self._written = trio.Event()
            await trio.to_thread.run_sync(_sync, (wal, self.path))

    def purge(self) -> None:
        """Remove rows that were acknowledged longer ago than the retention."""
        self.flush()
        before = int((time.time() - self.retention) * 1000)
        with _translated(self.path):
            self._db.execute(
                "DELETE FROM entries WHERE id IN (SELECT e.id FROM entries e JOIN tables t "
                "ON t.id = e.tbl WHERE e.at < ? AND e.first + e.n <= t.acked "
                "ORDER BY e.id LIMIT 20000)",
                (before,),
            )
            # The file gives back what an outage made it take.
            self._db.execute("PRAGMA incremental_vacuum(2000)").fetchall()

    def hang_up(self) -> None:
        """Close the channels of the queues."""
        for queue in self._queues.values():
            queue.hang_up()

    def fact(self, name: str) -> str:
        """Return a remembered fact about the program, empty if there is none."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def remember(self, name: str, value: str) -> None:
        """Remember a fact about the program."""
        with _translated(self.path):
            self._db.execute(
                "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = ?",
                (name, value, value),
            )

    def entries(self, table: int, position: int) -> Iterable[tuple[int, int, bytes]]:
        """Yield first position, time of receipt and rows of a table's entries."""
        return self._select("first, at, rows", table, position)

    def versions(self, table: int, position: int) -> Iterable[tuple[int, int, bytes]]:
        """Yield first position, highest depth version and rows of a table's entries."""
        return self._select("first, version, rows", table, position)

    def first_position(self, table: int, otherwise: int) -> int:
        """Return the first position of a table that is still here."""
        row = self._db.execute(
            "SELECT first FROM entries WHERE tbl = ? ORDER BY first LIMIT 1", (table,)
        ).fetchone()
        return int(row[0]) if row else otherwise

    def _select(self, what: str, table: int, position: int) -> Iterable[tuple[int, int, bytes]]:
        # Begin at the entry that holds the position, which may have begun before it.
        return self._db.execute(
            f"SELECT {what} FROM entries WHERE tbl = ? AND first + n > ? AND first >= coalesce("  # noqa: S608
            f"(SELECT max(first) FROM entries WHERE tbl = ? AND first <= ?), 0) ORDER BY first",
            (table, position, table, position),
        )


@contextmanager
def open_journal(path: Path, *, retention: float = 600.0) -> Iterator[Journal]:
    """Open a journal, made if it is missing, and hold it against other processes.

    A journal that cannot be read is put aside under another name and a new one begun:
    `Journal.damaged` says so.

    Raises:
        JournalLocked: another process has it.
        JournalError: it cannot be made or opened.
        DiskFull: no space.
    """
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"cannot make {path.parent}: {error.strerror}") from error
        try:
            stack.enter_context(hold_file(path.with_suffix(".lock"), f"journal {path}"))
        except StoreLocked as error:
            raise JournalLocked(str(error)) from error
        damaged = None
        with _translated(path):
            try:
                db = _connect(path)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError) and not _is_damage(error):
                    raise
                damaged = _put_aside(path)
                db = _connect(path)
        stack.callback(db.close)
        journal = Journal(path, retention, damaged, db)
        stack.callback(journal.hang_up)
        try:
            yield journal
        except BaseException:
            with suppress(JournalError):  # perhaps it is what brought us here
                journal.flush()
            raise
        journal.flush()


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA journal_size_limit = 16777216")
        (found,) = db.execute("PRAGMA user_version").fetchone()
        if found not in (0, _SCHEMA_VERSION):
            raise JournalError(
                f"journal {path} is of version {found}, this program knows {_SCHEMA_VERSION}: "
                f"use the version of mexc-trio that wrote it"
            )
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        db.executescript(_SCHEMA)
        db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    except BaseException:
        db.close()
        raise
    return db


def _put_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def _is_damage(error: sqlite3.Error) -> bool:
    return "malformed" in str(error) or "not a database" in str(error) or "disk image" in str(error)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if "full" in str(error):
            raise DiskFull(
                f"journal {path}: the disk is full; free some space and start again"
            ) from error
        raise JournalError(f"journal {path}: {error}") from error


def _sync(paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
