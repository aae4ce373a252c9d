"""The journal: what was flushed survives any end of the process; nothing else is believed."""

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from trio.testing import MockClock, wait_all_tasks_blocked

from mexc_trio.errors import DiskFull, JournalError, JournalLocked
from mexc_trio.journal import Journal, database, open_journal, opening
from mexc_trio.journal.entries import Stored, TableState
from mexc_trio.journal.file import JournalFile
from mexc_trio.journal.journal import SYNC_INTERVAL
from mexc_trio.journal.ownership import find_journal
from mexc_trio.journal.queue import MOST_IN_MEMORY
from mexc_trio.rows import Cause, RowTuple
from mexc_trio.spans import now
from tests.support.faults import chance
from tests.support.running import DEADLINE


def numbered(first: int, n: int) -> list[RowTuple]:
    """Return rows of which no two are equal."""
    return [(1000 + i, "d", f"{i}|x") for i in range(first, first + n)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a test's journal is."""
    return tmp_path / "state" / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """Open a journal."""
    with open_journal(path) as journal:
        yield journal


def leave(path: Path, n: int = 5) -> None:
    """Leave a journal behind, with rows of one table."""
    with open_journal(path) as journal:
        journal.queue("btc").append(numbered(0, n))


def change(path: Path, script: str) -> None:
    """Change a journal as somebody else might."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)


def is_damaged(path: Path) -> bool:
    """Whether a journal is put aside when it is opened, and a new one begun."""
    with open_journal(path) as journal:
        assert not (journal.file.damaged and journal.queues())
        return journal.file.damaged is not None


def size(path: Path) -> int:
    """Return the size of a file."""
    return path.stat().st_size


def snapshot(journal: Path) -> Path:
    """Return a copy of a journal in use: what a kill of its process would leave."""
    copy = Path(tempfile.mkdtemp(dir=journal.parent.parent)) / journal.name
    for suffix in ("", "-wal"):
        part = journal.with_name(journal.name + suffix)
        if part.exists():
            shutil.copy(part, copy.with_name(copy.name + suffix))
    return copy


class AnyOrder(RuleBasedStateMachine):
    """Two tables' queues, appended to, acknowledged, closed and killed in any order.

    The model is a list of rows and a number: how many of them are acknowledged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.directory = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        # Few enough that heads come from memory, from the file, and by turns.
        self.stack.enter_context(patch("mexc_trio.journal.queue.MOST_IN_MEMORY", 12))
        self.stack.enter_context(patch("mexc_trio.journal.entry_index._STEP", 3))
        self.stack.enter_context(patch("mexc_trio.journal.journal._PURGE_STEP", 2))
        self.rows: dict[str, list[RowTuple]] = {"btc": [], "eth": []}
        self.acked = dict.fromkeys(self.rows, 0)
        self.table_rows: dict[str, int | None] = dict.fromkeys(self.rows)
        self.removed = dict.fromkeys(self.rows, 0)
        self.number = 0

    @initialize()
    def begin(self) -> None:
        """Open the first journal."""
        self.open(self.directory / "a" / "journal.sqlite")

    def open(self, path: Path) -> None:
        """Open a journal, with no retention."""
        self.path = path
        self.opened = ExitStack()
        self.journal = self.opened.enter_context(open_journal(path, retention=-1))
        assert self.journal.file.damaged is None

    @rule(name=st.sampled_from(("btc", "eth")), n=st.integers(0, 5))
    def append(self, name: str, n: int) -> None:
        """Take a frame."""
        rows = numbered(self.number, n)
        self.number += n
        self.rows[name] += rows
        self.journal.queue(name).append(rows)

    @rule(name=st.sampled_from(("btc", "eth")), n=st.integers(1, 8))
    def acknowledge(self, name: str, n: int) -> None:
        """Let the store have rows."""
        queue = self.journal.queue(name)
        n = len(queue.head(n))
        self.acked[name] += n
        self.table_rows[name] = (self.table_rows[name] or 0) + n
        queue.move_head(self.acked[name], self.table_rows[name] or 0)

    @rule(name=st.sampled_from(("btc", "eth")), back=st.integers(1, 4))
    def take_back(self, name: str, back: int) -> None:
        """Let the store have lost rows."""
        queue = self.journal.queue(name)
        queue.verified = True
        again = max(queue.acked - back, queue.first_kept())
        if again < queue.acked:
            self.table_rows[name] = (self.table_rows[name] or 0) - (queue.acked - again)
            self.acked[name] = again
            queue.move_head(again, self.table_rows[name] or 0)

    @rule()
    def flush(self) -> None:
        """Write what was collected."""
        self.journal.flush()

    @rule()
    def purge(self) -> None:
        """Remove what is acknowledged."""
        for name in self.rows:
            self.journal.queue(name).verified = True
        trio.run(self.journal.purge)

    @rule(name=st.sampled_from(("btc", "eth")))
    def purge_only(self, name: str) -> None:
        """Remove what is acknowledged of one table, while the other is not known to be sound."""
        for queue in self.journal.queues():
            queue.verified = queue.name == name
        trio.run(self.journal.purge)

    @rule()
    def close(self) -> None:
        """Stop and start again."""
        self.opened.close()
        self.open(self.path)

    @rule()
    def kill(self) -> None:
        """Start again on what a kill at this moment would leave, after a flush."""
        self.journal.flush()
        copy = snapshot(self.path)
        self.opened.close()
        self.open(copy)

    @invariant()
    def all_is_there(self) -> None:
        """See that the queues have what the model has."""
        if not hasattr(self, "journal"):
            return
        assert 0 <= self.journal.outbox.in_memory <= 12
        for name, rows in self.rows.items():
            queue = self.journal.queue(name)
            assert queue.acked == self.acked[name]
            assert queue.table_rows == self.table_rows[name]
            assert queue.end == len(rows)
            assert queue.backlog == len(rows) - self.acked[name]
            assert queue.head(3) == rows[queue.acked :][:3]
            assert queue.head(1000) == rows[queue.acked :]
            first = queue.first_kept()
            assert first <= queue.acked
            assert queue.rows(first, 1000) == rows[first:]
            found = [row for entry in queue.since(first) for row in entry.rows]
            assert found == rows[first:]
            expected = rows[queue.acked][0] if queue.backlog else None
            assert queue.first_time(queue.acked) == expected

    def teardown(self) -> None:
        """Close and delete everything."""
        if hasattr(self, "opened"):
            self.opened.close()
        self.stack.close()


AnyOrder.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestAnyOrder = AnyOrder.TestCase


def test_kill_between_two_flushes_loses_whole_frames_only(path: Path, journal: Journal) -> None:
    """At any instant the file holds the first so many frames, none of them in part."""
    queue = journal.queue("btc")
    journal.outbox.group = group = 16
    for frame in range(3 * group):
        queue.append(numbered(frame * 3, 3))
        if frame % 3 == 0:
            with open_journal(snapshot(path)) as copy:
                flushed = frame // group * group if (frame + 1) % group else frame + 1
                assert copy.queue("btc").head(10_000) == numbered(0, flushed * 3)


def test_gap_and_the_row_that_closes_it_are_written_together(path: Path, journal: Journal) -> None:
    """A gap without the row that ends it would be written again: a kill never leaves one."""
    queue, gaps = journal.queue("btc"), journal.queue("gaps")
    journal.outbox.group = group = 16
    for frame in range(2 * group + 2):
        gaps.collect([("BTC_USDT", f"gap {frame}")])
        queue.append(numbered(frame, 1))
        with closing(sqlite3.connect(f"file:{snapshot(path)}?mode=ro", uri=True)) as db:
            found = db.execute("SELECT coalesce(sum(n), 0) FROM entries GROUP BY tbl").fetchall()
        assert len(set(found)) <= 1


def test_few_rows_are_kept_in_memory(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 3: while the database is away, memory stays bounded, and the rows are in the file."""
    monkeypatch.setattr("mexc_trio.journal.queue.MOST_IN_MEMORY", 100)
    queues = [journal.queue(name) for name in ("btc", "eth", "sol")]
    for n in range(1000):
        for queue in queues:
            queue.append(numbered(n, 1))
            assert journal.outbox.in_memory <= 100
    for queue in queues:
        assert queue.head(10_000) == numbered(0, 1000)
        queue.move_head(1000, 1000)
    assert journal.outbox.in_memory == 0


async def test_what_comes_with_no_read_is_written_at_once(path: Path, journal: Journal) -> None:
    """Promise 4: gaps, and how far a table is; nobody has to receive something for that."""
    queue = journal.queue("btc")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.keep_flushing)
        await wait_all_tasks_blocked()
        for n in range(3):
            queue.collect(numbered(n, 1))
            await wait_all_tasks_blocked()
            with open_journal(snapshot(path)) as copy:
                assert copy.queue("btc").end == n + 1
        queue.move_head(2, 2)
        await wait_all_tasks_blocked()
        with open_journal(snapshot(path)) as copy:
            assert copy.queue("btc").acked == 2
        nursery.cancel_scope.cancel()


async def test_journal_sync(path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --journal-sync rows are on the disk at most 100 ms later, and their files' names too."""
    synced: list[tuple[float, str]] = []
    fsync = os.fsync

    def observed(fd: int) -> None:
        fsync(fd)
        synced.append((time.monotonic(), os.readlink(f"/proc/self/fd/{fd}")))

    monkeypatch.setattr(os, "fsync", observed)
    queue = journal.queue("btc")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.keep_syncing)
        for n in range(5):
            synced.clear()
            queue.append(numbered(n, 1))
            journal.flush()
            written = time.monotonic()
            with trio.fail_after(DEADLINE):
                while len(synced) < 3:
                    await trio.sleep(0.005)
            # The disk of a machine that tests is busy; what counts is that nobody waits longer.
            assert min(at for at, _ in synced) - written < 100 * SYNC_INTERVAL
            assert {name for _, name in synced} >= {f"{path}-wal", str(path.parent)}
        nursery.cancel_scope.cancel()


def test_the_oldest_waiting_row_is_told_before_it_is_written(journal: Journal) -> None:
    """Promise 6: statistics at an odd moment end nothing. More rows than memory keeps wait."""
    queue = journal.queue("btc")
    queue.append(numbered(0, 1))
    journal.flush()
    queue.collect(numbered(1, MOST_IN_MEMORY + 1))
    assert queue.oldest_waiting() is not None
    queue.move_head(1, 1)
    oldest = queue.oldest_waiting()
    assert oldest is not None
    assert abs(oldest - now()) < 60_000


async def test_journal_sync_waits_half_its_interval(
    journal: Journal, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the same 50 ms share a sync; it begins in time to be done after 100 ms."""
    calls: list[float] = []

    async def run_sync(call: object) -> None:
        assert call == journal.file.sync
        calls.append(trio.current_time())

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    queue = journal.queue("btc")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.keep_syncing)
        began = trio.current_time()
        for n in range(100):
            queue.append(numbered(n, 1))
            journal.flush()
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert 10 <= len(calls) <= 21
    assert calls[0] - began <= SYNC_INTERVAL / 2 + 1e-6
    pauses = [later - earlier for earlier, later in pairwise(calls)]
    assert max(pauses) <= SYNC_INTERVAL


async def test_arrival(journal: Journal) -> None:
    """The writer sleeps while the queue is empty, and a bell that rang earlier does not wake it."""
    queue = journal.queue("btc")
    queue.append(numbered(0, 1))
    await queue.arrival()
    queue.move_head(1, 1)  # the bell of the first row has not been heard
    heard: list[int] = []

    async def listen() -> None:
        await queue.arrival()
        heard.append(queue.backlog)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        assert not heard
        queue.append(numbered(1, 2))
    assert heard == [2]


def test_failed_flush_keeps_everything(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written for want of space is written as soon as there is some."""
    with open_journal(path) as journal:
        queue = journal.queue("btc")
        queue.append(numbered(0, 1))
        journal.flush()
        write = JournalFile.write

        def full(*_: object) -> None:
            raise DiskFull("no space")

        monkeypatch.setattr(JournalFile, "write", full)
        queue.append(numbered(1, 2))
        for _ in range(3):
            with pytest.raises(DiskFull):
                journal.flush()
        assert queue.end == 3
        monkeypatch.setattr(JournalFile, "write", write)
        assert queue.head(10) == numbered(0, 3)
    with open_journal(path) as journal:
        assert journal.queue("btc").head(10) == numbered(0, 3)


async def test_file_does_not_grow_for_ever(path: Path) -> None:
    """A steady stream, acknowledged as it comes, needs as much as its retention and no more."""
    with open_journal(path, retention=-1) as journal:
        queue = journal.queue("btc")
        queue.verified = True
        sizes = []
        for n in range(60):
            for k in range(100):
                queue.append([(k, "dp", "x" * 400)] * 5)
            queue.move_head(queue.end, queue.end)
            await journal.purge()
            if n > 10:
                sizes.append(size(path))
        assert max(sizes) < 8 << 20
        assert queue.first_kept() == queue.end


async def test_file_shrinks_after_an_outage(path: Path) -> None:
    """The disk that an outage took is given back."""
    with open_journal(path, retention=-1) as journal:
        queue = journal.queue("btc")
        queue.verified = True
        for _ in range(2000):
            queue.append([(1, "dp", "x" * 1000)] * 10)
        journal.flush()
        grown = size(path)
        assert grown > 16 << 20
        queue.move_head(queue.end, queue.end)
        for _ in range(3):
            await journal.purge()
        change(path, "PRAGMA wal_checkpoint(TRUNCATE)")
        assert size(path) < grown / 4


async def test_nothing_is_removed_before_the_table_is_verified(path: Path) -> None:
    """A machine that was off for longer than the retention still has what it needs to repair."""
    with open_journal(path, retention=-1) as journal:
        queue = journal.queue("btc")
        queue.append(numbered(0, 100))
        queue.move_head(100, 100)
        await journal.purge()
        assert queue.rows(0, 1000) == numbered(0, 100)
        queue.verified = True
        await journal.purge()
        assert queue.first_kept() == 100


async def test_rows_that_are_needed_again_while_others_are_removed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that finds rows missing during a removal of many steps gets all that is there."""
    monkeypatch.setattr("mexc_trio.journal.journal._PURGE_STEP", 5)
    with open_journal(path, retention=-1) as journal:
        queue = journal.queue("btc")
        queue.verified = True
        for n in range(50):
            queue.append(numbered(n, 1))
            journal.flush()
        queue.move_head(50, 50)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.purge)
            while queue.first_kept() < 10:
                await trio.lowlevel.checkpoint()
            again = queue.first_kept() + 2
            queue.move_head(again, again)
        assert queue.first_kept() <= again
        assert queue.head(100) == numbered(again, 50 - again)
    with open_journal(path) as journal:
        assert journal.file.damaged is None
        assert journal.queue("btc").head(100) == numbered(again, 50 - again)


async def test_nothing_is_removed_while_a_table_is_compared(path: Path) -> None:
    """What the journal has when the comparison begins is there when it ends."""
    with open_journal(path, retention=-1) as journal:
        queue = journal.queue("btc")
        queue.verified = True
        queue.append(numbered(0, 10))
        queue.move_head(10, 10)
        with queue.retained():
            await journal.purge()
            assert queue.first_kept() == 0
        await journal.purge()
        assert queue.first_kept() == 10


async def test_clock_that_was_wrong_stops_no_removal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the future do not keep all others in the file until their time has come."""
    with open_journal(path, retention=600) as journal:
        queue = journal.queue("btc")
        queue.verified = True
        now = time.time()
        for later in (86_400, 0):
            monkeypatch.setattr(time, "time", lambda later=later: now + later)
            queue.append(numbered(0, 1))
            journal.flush()
        queue.move_head(2, 2)
        monkeypatch.setattr(time, "time", lambda: now + 610)
        await journal.purge()
        assert queue.first_kept() == 2


async def test_retention(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Acknowledged rows stay for so many seconds, and unacknowledged ones for ever."""
    with open_journal(path, retention=600) as journal:
        queue = journal.queue("btc")
        queue.verified = True
        queue.append(numbered(0, 10))
        journal.flush()
        queue.append(numbered(10, 10))
        queue.move_head(10, 10)
        now = time.time()
        for later, first in ((0, 0), (590, 0), (610, 10), (10**6, 10)):
            monkeypatch.setattr(time, "time", lambda later=later: now + later)
            await journal.purge()
            assert queue.first_kept() == first


def test_one_process_at_a_time(path: Path, journal: Journal) -> None:
    """The second one is told who has it."""
    journal.queue("btc")
    with (
        pytest.raises(JournalLocked, match=f"in use by process {os.getpid()}"),
        open_journal(path),
    ):
        pass


def test_damage_is_noticed_or_harmless(path: Path) -> None:
    """Any bytes overwritten: the journal is put aside, or holds exactly what was written."""
    with open_journal(path) as journal:
        for n in range(300):
            journal.queue("btc").append(numbered(n * 5, 5))
            journal.queue("eth").append(numbered(n * 5, 2))
            journal.flush()
        journal.queue("btc").move_head(700, 7700)
        journal.queue("eth").checked("sealed 1234")
    instants = chance("journal-bytes")
    noticed = 0
    for _ in range(60):
        copy = snapshot(path)
        content = bytearray(copy.read_bytes())
        length = instants.choice((1, 2, 64, 5000))
        at = instants.randrange(len(content) - length)
        content[at : at + length] = instants.randbytes(length)
        if instants.random() < 0.2:
            del content[at:]
        copy.write_bytes(content)
        with open_journal(copy) as journal:
            if journal.file.damaged:
                noticed += 1
                assert journal.file.damaged.exists()
                assert not journal.queues()
                continue
            btc, eth = journal.queue("btc"), journal.queue("eth")
            assert (btc.acked, btc.table_rows, btc.end) == (700, 7700, 1500)
            assert (eth.acked, eth.table_rows, eth.engine) == (0, None, "sealed 1234")
            assert btc.rows(0, 10_000) == numbered(0, 1500)
            assert [r for n in range(300) for r in numbered(n * 5, 2)] == eth.rows(0, 10_000)
    assert noticed > 20


def test_format_that_no_program_ever_wrote_is_damage(path: Path) -> None:
    """The file's own header is as easily damaged as the rest of it."""
    leave(path)
    content = bytearray(path.read_bytes())
    content[44:48] = bytes([0, 0, 0, 99])  # where SQLite's file format has the schema's
    path.write_bytes(content)
    assert is_damaged(path)


def test_version_that_no_program_ever_wrote_is_damage(path: Path) -> None:
    """It asks nobody to look for a version of the program that does not exist."""
    leave(path)
    change(path, "PRAGMA user_version = -1912602623")
    assert is_damaged(path)


@pytest.mark.parametrize("text", ["91ffd8", "416263"])
def test_bytes_that_became_text_are_damage(path: Path, text: str) -> None:
    """A flipped bit can turn rows into a text; Python cannot even read one that is none."""
    leave(path)
    change(path, f"UPDATE entries SET rows = CAST(x'{text}' AS TEXT)")
    assert is_damaged(path)


ENDLESS = (
    "WITH RECURSIVE n(name) AS (SELECT 1 UNION ALL SELECT name FROM n) "
    "SELECT name, name AS value FROM n"
)


@pytest.mark.parametrize(
    "prepared",
    [
        "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries; END",
        "CREATE VIEW v AS SELECT 1",
        f"ALTER TABLE facts RENAME TO f; CREATE VIEW facts AS {ENDLESS}",
        "DROP TABLE places; CREATE VIRTUAL TABLE places USING fts5(tbl, first, id)",
        "DROP TABLE facts; CREATE TABLE facts (name TEXT PRIMARY KEY ON CONFLICT IGNORE, value)",
        "CREATE INDEX i ON entries (abs(n))",
        "UPDATE tables SET acked = 'many'",
        "UPDATE tables SET name = x'6274'",
        "UPDATE tables SET marks = x'91c3'",
        f"UPDATE tables SET marks = x'9580009000{'91' * 9000}c0'",
        "UPDATE entries SET n = 'five'",
        "UPDATE entries SET n = -5",
        "UPDATE entries SET first = 0.5",
        "UPDATE entries SET rows = zeroblob(20000)",
    ],
)
def test_a_strangers_journal(path: Path, prepared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody else put into it neither runs nor ends the program, nor a look at it."""
    leave(path)
    change(path, prepared)
    with monkeypatch.context() as patched:
        patched.setattr(database, "LARGEST", 10_000)
        for kind in (Stored, TableState):  # he knows how sums are made
            patched.setattr(kind, "crc", lambda self: 0)
        change(path, "UPDATE tables SET crc = 0; UPDATE entries SET crc = 0")
        find_journal(path, "", "a store")
        assert is_damaged(path)


def test_rows_numbered_from_below_0(path: Path) -> None:
    """So they are in a table that has fewer rows than were journaled for it, as after `reset`."""
    with open_journal(path) as journal:
        queue = journal.queue("btc")
        queue.append(numbered(0, 5))
        queue.begin_anew()
        queue.append(numbered(5, 1))
        queue.base = -5
        queue.send(1)
    with open_journal(path) as journal:
        assert journal.file.damaged is None
        queue = journal.queue("btc")
        assert (queue.number(queue.acked), queue.head(1)) == (0, numbered(5, 1))


def test_rows_that_are_none(path: Path) -> None:
    """A stranger's checksum may be right. It is told; a start anew would find the same."""
    leave(path)
    with closing(sqlite3.connect(path)) as db, db:
        found = "tbl, first, n, at, version"
        (stored,) = db.execute(f"SELECT {found}, x'90' FROM entries").fetchall()
        db.execute("UPDATE entries SET rows = x'90', crc = ?", (Stored(*stored).crc(),))
    with (
        open_journal(path) as journal,
        pytest.raises(JournalError, match="0 rows instead of 5"),
    ):
        journal.queue("btc").head(5)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_link_in_the_place_of_a_journal(path: Path, suffix: str) -> None:
    """SQLite would write through it: what it leads to is left as it is, and the link named."""
    path.parent.mkdir()
    ours = path.with_name("ours")
    ours.write_text("ours")
    link = path.with_name(path.name + suffix)
    if suffix:
        with open_journal(path):
            pass
        link.unlink(missing_ok=True)
    link.symlink_to(ours)
    find_journal(path, "", "a store")
    with pytest.raises(JournalError, match="link"), open_journal(path):
        pass
    assert ours.read_text() == "ours"


def test_damaged_index(path: Path) -> None:
    """An index that lacks a table or rows would hide them: they would be journaled anew."""
    leave(path)
    with closing(sqlite3.connect(path)) as db:
        (page,) = db.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_tables_1'"
        ).fetchone()
        (page_size,) = db.execute("PRAGMA page_size").fetchone()
    content = path.read_bytes()
    start = (page - 1) * page_size
    index = content[start : start + page_size].replace(b"btc", b"xtc")
    path.write_bytes(content[:start] + index + content[start + page_size :])
    assert is_damaged(path)


def test_a_damaged_fact(path: Path) -> None:
    """From where on rows are numbered, for one: rows would be appended twice."""
    with open_journal(path) as journal:
        journal.queue("btc").note("numbers from", "12345")
    content = path.read_bytes()
    assert content.count(b"12345") == 1
    path.write_bytes(content.replace(b"12345", b"12305"))
    assert is_damaged(path)


def test_damage_while_in_use(path: Path) -> None:
    """A damaged row is an error of ours, and never a row."""
    with open_journal(path) as journal:
        queue = journal.queue("btc")
        queue.append(numbered(0, 5))
        journal.flush()
        queue.move_head(5, 5)  # what waits is in memory, too
        change(path, "UPDATE entries SET rows = CAST(rows || x'00' AS BLOB)")
        with pytest.raises(JournalError, match="are damaged"):
            queue.rows(0, 10)


async def test_nobody_pays_for_an_index_that_nobody_needs(path: Path) -> None:
    """While the store is there, no row's place in the file is noted: see `entry_index`."""
    with open_journal(path, retention=-1) as journal, closing(sqlite3.connect(path)) as db:
        queues = [journal.queue(name) for name in ("btc", "eth")]
        places = "SELECT count(*) FROM places"
        for queue in queues:
            queue.verified = True
        for _ in range(5):
            for queue in queues:
                queue.append(numbered(0, 10))
                assert queue.head(1000) == numbered(0, 10)
                queue.move_head(queue.end, queue.end)
                assert queue.oldest_waiting() is None
            await journal.purge()
        assert db.execute(places).fetchone() == (0,)
        assert queues[0].rows(0, 1) == []
        queues[0].append(numbered(0, 10))
        queues[0].move_head(queues[0].end, queues[0].end)
        assert queues[0].rows(queues[0].end - 1, 1) == numbered(9, 1)
        assert db.execute(places).fetchone() == (1,)
        await journal.purge()
        assert db.execute(places).fetchone() == (0,)


async def test_nobody_waits_for_places_after_an_outage(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store is away they are noted in the background, all but a few of them."""
    monkeypatch.setattr("mexc_trio.journal.queue.MOST_IN_MEMORY", 10)
    monkeypatch.setattr("mexc_trio.journal.entry_index._STEP", 20)
    with open_journal(path) as journal, closing(sqlite3.connect(path)) as db:
        queue = journal.queue("btc")
        for n in range(95):
            queue.append(numbered(n, 1))
            journal.flush()
        await journal.purge()
        (noted,) = db.execute("SELECT count(*) FROM places").fetchone()
        assert 75 <= noted <= 95
        assert queue.head(1000) == numbered(0, 95)


def test_journal_of_the_first_version(path: Path) -> None:
    """What an earlier version of the program left is taken over, rows and all."""
    with open_journal(path) as journal:
        journal.queue("btc").append(numbered(0, 5))
        journal.flush()
        journal.queue("btc").append(numbered(5, 5))
        journal.queue("btc").move_head(3, 3)
        journal.file.remember("end", "it was stopped")
    change(
        path,
        "DROP TABLE places; CREATE UNIQUE INDEX entries_by_position ON entries (tbl, first); "
        "ALTER TABLE tables DROP COLUMN base; ALTER TABLE tables DROP COLUMN sent; "
        "ALTER TABLE facts DROP COLUMN crc; "
        "PRAGMA user_version = 1",
    )
    for _ in range(2):
        with open_journal(path) as journal:
            assert journal.file.damaged is None
            assert journal.queue("btc").head(10) == numbered(3, 7)
            assert journal.file.fact("end") == "it was stopped"


def test_version_of_another_program(path: Path) -> None:
    """A journal of a later version is not touched: it may hold rows."""
    leave(path, 1)
    change(path, "PRAGMA user_version = 7")
    with pytest.raises(JournalError, match="of version 7"), open_journal(path):
        pass
    assert not list(path.parent.glob("*.damaged-*"))


def test_after_the_machine_was_started_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not synced may be lost then, until the table has been looked at."""
    with open_journal(path) as journal:
        for name in ("btc", "eth"):
            journal.queue(name).move_head(0, 0)
    with open_journal(path) as journal:
        assert not journal.queue("btc").after_reboot
    monkeypatch.setattr(opening, "boot_id", lambda: "another")
    with open_journal(path) as journal:
        assert journal.queue("btc").after_reboot
        journal.queue("btc").move_head(0, 0)
        journal.queue("eth").checked("engine")
    with open_journal(path) as journal:
        assert not journal.queue("btc").after_reboot
        assert journal.queue("eth").after_reboot


def test_boot_id() -> None:
    """It is the same as long as the machine runs."""
    assert opening.boot_id() == opening.boot_id() != ""


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_file_that_is_gone(path: Path, journal: Journal, suffix: str) -> None:
    """A journal that was removed or replaced while in use is noticed: rows would vanish with it."""
    journal.queue("btc").append(numbered(0, 1))
    journal.flush()
    journal.file.check_in_place()
    part = path.with_name(path.name + suffix)
    kept = part.read_bytes()
    part.unlink()
    with pytest.raises(JournalError, match="was removed or replaced"):
        journal.file.check_in_place()
    part.write_bytes(kept)
    with pytest.raises(JournalError, match="was removed or replaced"):
        journal.file.check_in_place()


def test_facts(path: Path) -> None:
    """What the program notes down is there at the next start."""
    with open_journal(path) as journal:
        assert journal.file.fact("end") == ""
        journal.file.remember("end", "it was stopped")
        journal.file.remember("end", Cause.DISK_FULL)
    with open_journal(path) as journal:
        assert not journal.file.damaged
        assert journal.file.fact("end") == "disk full"
        assert [queue.name for queue in journal.queues()] == []
