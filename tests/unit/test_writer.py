"""The writer: whatever becomes of an INSERT, each row is in the table once and in order."""

import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from mexc_trio.clickhouse.repair import Soundness
from mexc_trio.clickhouse.tables import GAPS, Numbering, Table, market_table
from mexc_trio.errors import (
    StoreError,
    StoreRejected,
    StoreUnavailable,
    TableConflict,
    TableDamaged,
    TableMissing,
)
from mexc_trio.journal import Journal, Queue, open_journal
from mexc_trio.record.reconcile import BATCH, LOOKED_UP, WATCHED
from mexc_trio.record.writer import (
    AUDIT_INTERVAL,
    LAST_HOLD,
    LAST_PAUSE,
    Writer,
)
from mexc_trio.rows import Cause, RowTuple
from tests.support.inmemory import MemoryStore, as_async

BTC = market_table("btc")

Outcome = Literal["stored", "lost", "unheard", "partly", "late", "damaged", "dropped"]
"""What becomes of an INSERT: all well; not stored; stored, but nobody hears of it; only its first
rows stored (as servers before 2026-08 may); stored a while after the writer was told that it
failed; the table loses its end and the engine notices; the table is dropped."""


@attrs.define(eq=False)
class FakeStore(MemoryStore):
    """A store of one table, which fails as it is told."""

    rows: list[RowTuple] | None = attrs.field(factory=list)
    name: str = "the fake"
    outcomes: list[Outcome | Exception] = attrs.field(factory=list)
    """Of the next INSERTs; afterwards all is well."""
    life: str = "life 1"
    readable: int | None = None
    """How many rows can be read; None if all."""
    comes_back_after: float = 1.0
    late: list[tuple[float, list[RowTuple]]] = attrs.field(factory=list)
    fingerprint_now: str = ""
    full_reads: int = 0
    counts: int = 0
    refusals: list[StoreError] = attrs.field(factory=list)
    aside: list[RowTuple] = attrs.field(factory=list)
    keeps_none_aside: bool = False

    def table(self) -> list[RowTuple]:
        """Return the rows, if there is a table, with those that have come late."""
        if self.rows is None:
            raise TableMissing("no table")
        while self.late and self.late[0][0] <= trio.current_time():
            self.rows.extend(self.late.pop(0)[1])
        return self.rows

    def fail(self, text: str = "away") -> StoreUnavailable:
        """Be away for a second."""
        self.away_since = trio.current_time()
        return StoreUnavailable(text)

    async def append(
        self, table: Table, rows: Sequence[RowTuple], numbering: Numbering | None = None
    ) -> None:
        """Insert."""
        assert numbering is None
        await trio.sleep(0.001)
        self.inserts.append((trio.current_time(), table.name, len(rows)))
        outcome = self.outcomes.pop(0) if self.outcomes else "stored"
        stored = self.table()
        match outcome:
            case Exception():
                raise outcome
            case "lost":
                raise self.fail()
            case "unheard":
                stored += rows
                raise self.fail()
            case "partly":
                stored += rows[: len(rows) // 2]
                raise self.fail()
            case "late":
                self.late.append((trio.current_time() + 3, list(rows)))
                raise self.fail()
            case "damaged":
                stored += rows
                self.readable = len(stored) - min(len(stored), 3)
                raise TableDamaged("cannot read")
            case "dropped":
                self.rows = None
                raise TableMissing("no table")
            case _:
                stored += rows

    async def until_conclusive(self, table: Table) -> None:
        """Wait for INSERTs that come late."""
        for at, _ in list(self.late):
            await trio.sleep_until(at)

    async def count(self, table: Table) -> int:
        """Count."""
        await trio.sleep(0.001)
        self.counts += 1
        return len(self.table())

    async def prepare(self, tables: Sequence[Table]) -> list[str]:
        """Create."""
        await trio.sleep(0.001)
        if self.rows is None:
            self.rows = []
            return [table.name for table in tables]
        return []

    async def server_start_id(self) -> str:
        """Name the life of the engine."""
        return self.life

    async def fingerprint(self, table: Table) -> str:
        """Say what the table looks like from outside."""
        return self.fingerprint_now

    async def make_sound(self, table: Table) -> Soundness:
        """Keep what can be read."""
        await trio.sleep(0.001)
        self.full_reads += 1
        if self.readable is None:
            return Soundness(len(self.table()), "", "")
        del self.table()[self.readable :]
        self.readable = None
        return Soundness(len(self.table()), "aside", "damage")

    async def present_rows(self, table: Table, rows: Sequence[RowTuple]) -> set[RowTuple]:
        """Look for a few rows."""
        await trio.sleep(0.001)
        assert len(rows) <= LOOKED_UP
        return set(rows).intersection(self.table())

    async def put_aside(self, table: Table) -> str:
        """Keep it elsewhere."""
        await trio.sleep(0.001)
        if self.keeps_none_aside:
            raise StoreRejected("no right to rename")
        self.aside, self.rows = self.table(), []
        return "aside"

    async def rows_at(self, table: Table, first: int, n: int) -> list[RowTuple]:
        """Read."""
        await trio.sleep(0.001)
        return self.table()[first : first + n]

    async def newest(self, table: Table) -> int | None:
        """Read the newest time."""
        await trio.sleep(0.001)
        return max((int(row[0]) for row in self.table()), default=None)

    def say_refused(self, table: Table, error: StoreError) -> None:
        """Keep it."""
        self.refusals.append(error)

    async def available(self) -> None:
        """Come back after a second, or not."""
        if self.away_since is not None:
            await trio.sleep(self.comes_back_after)
            self.away_since = None


@attrs.define(eq=False)
class Bench:
    """A writer with all that it needs."""

    journal: Journal
    queue: Queue
    store: FakeStore
    gaps: list[tuple[Cause, str, int, int]] = attrs.field(factory=list)
    acknowledged: list[RowTuple] = attrs.field(factory=list)

    def writer(self, table: Table = BTC, linger: float = 1.0) -> Writer:
        """Make a writer, as a start of the program does."""
        return Writer(
            table, self.queue, as_async(self.store), linger, self.acknowledged.extend,
            lambda *gap: self.gaps.append(gap),
        )  # fmt: skip

    async def settle(self, table: Table = BTC) -> None:
        """Run a writer until nothing is left, and stop it."""
        async with trio.open_nursery() as nursery:
            writer = self.writer(table)
            nursery.start_soon(writer.run)
            with trio.fail_after(600):
                await trio.sleep(5)
                while self.queue.backlog:
                    await trio.sleep(0.1)
            nursery.cancel_scope.cancel()


@contextmanager
def bench(directory: Path, store: FakeStore, name: str = "btc") -> Iterator[Bench]:
    """Open a journal with one queue beside a store."""
    with open_journal(directory / "journal.sqlite") as journal:
        yield Bench(journal, journal.queue(name), store)


@pytest.fixture
def store() -> FakeStore:
    """Return an empty store."""
    return FakeStore()


@pytest.fixture
def parts(tmp_path: Path, store: FakeStore) -> Iterator[Bench]:
    """Return a writer's parts."""
    with bench(tmp_path, store) as parts:
        yield parts


def numbered(first: int, n: int) -> list[RowTuple]:
    """Return rows of which no two are equal."""
    return [(1000 + i, "d", f"{i}|x") for i in range(first, first + n)]


@settings(max_examples=50, deadline=None)
@given(
    outcomes=st.lists(
        st.sampled_from(("stored", "lost", "unheard", "partly", "late", "damaged")), max_size=8
    ),
    frames=st.lists(st.tuples(st.integers(1, 7), st.floats(0, 3)), min_size=1, max_size=12),
    restarts=st.lists(st.floats(0, 10), max_size=3),
)
def test_exactly_once(
    outcomes: list[Outcome], frames: list[tuple[int, float]], restarts: list[float]
) -> None:
    """Promise 2: after any outcomes, with any restarts between, each row is there once."""

    async def main(directory: Path) -> None:
        store = FakeStore(outcomes=list(outcomes))
        sent = 0
        due = list(frames)
        for runs_for in [*restarts, None]:
            with bench(directory, store) as parts:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(parts.writer().run)
                    with trio.move_on_after(runs_for or 1e9):
                        while due:
                            n, pause = due[0]
                            await trio.sleep(pause)
                            parts.queue.append(numbered(sent, n))
                            sent += n
                            due.pop(0)
                        while parts.queue.backlog:
                            await trio.sleep(1)
                    nursery.cancel_scope.cancel()
                assert not parts.gaps
        assert store.rows == numbered(0, sent)

    with tempfile.TemporaryDirectory() as directory:
        trio.run(main, Path(directory), clock=MockClock(autojump_threshold=0))


async def test_rows_wait_for_company(parts: Bench, autojump_clock: MockClock) -> None:
    """Rows of one second share an INSERT; with no rows there is none."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parts.writer(linger=1.0).run)
        await trio.sleep(30)
        for n in range(100):
            parts.queue.append(numbered(n, 1))
            await trio.sleep(0.1)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert parts.store.rows == numbered(0, 100)
    assert 9 <= len(parts.store.inserts) <= 11
    first = parts.store.inserts[0][0]
    assert abs(first - 31) < 0.1


async def test_rows_are_visible_after_linger_although_inserts_take_time(
    parts: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second of `--linger` is a second until a SELECT sees the row, the INSERT included."""
    append = FakeStore.append
    acknowledged: list[float] = []

    async def slow(self: FakeStore, table: Table, rows: Sequence[RowTuple]) -> None:
        await trio.sleep(0.15)
        await append(self, table, rows)
        acknowledged.append(trio.current_time())

    monkeypatch.setattr(FakeStore, "append", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parts.writer(linger=1.0).run)
        for n in range(5):
            await trio.sleep(5)
            parts.queue.append(numbered(n, 1))
            began = trio.current_time()
            await trio.sleep(5)
            # The first INSERT shows how long they take.
            assert acknowledged[-1] - began < (1.01 if n else 1.2)
        nursery.cancel_scope.cancel()


async def test_no_linger_is_no_linger(parts: Bench, autojump_clock: MockClock) -> None:
    """With `--linger 0` each row goes at once."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parts.writer(linger=0.0).run)
        await trio.sleep(10)
        for n in range(5):
            parts.queue.append(numbered(n, 1))
            began = trio.current_time()
            await trio.sleep(1)
            assert parts.store.inserts[-1][0] - began < 0.01
        nursery.cancel_scope.cancel()


async def test_catching_up_takes_large_inserts(parts: Bench, autojump_clock: MockClock) -> None:
    """An hour's outage is caught up in a few INSERTs, one after the other."""
    for n in range(500):
        parts.queue.append(numbered(n * 92, 92))
    began = trio.current_time()
    await parts.settle()
    assert parts.store.rows == numbered(0, 46_000)
    assert [n for _, _, n in parts.store.inserts[:4]] == [BATCH] * 4
    assert parts.store.inserts[-1][0] - began < 3


async def test_one_enormous_frame(parts: Bench, autojump_clock: MockClock) -> None:
    """A frame of more rows than an INSERT takes is cut; an unheard INSERT of it is resolved."""
    parts.queue.append(numbered(0, 3 * BATCH + 5))
    parts.store.outcomes = ["unheard", "partly", "unheard"]
    await parts.settle()
    assert parts.store.rows == numbered(0, 3 * BATCH + 5)
    assert max(n for _, _, n in parts.store.inserts) == BATCH


async def test_another_writer(parts: Bench, autojump_clock: MockClock) -> None:
    """Rows that are not ours stop the symbol; nothing is written behind them."""
    parts.queue.append(numbered(0, 5))
    await parts.settle()
    parts.store.table().append((1, "d", "foreign"))
    parts.queue.append(numbered(5, 5))
    with pytest.raises(TableConflict, match="1 rows more than were recorded here"):
        await parts.writer().until_empty()
    assert len(parts.store.table()) == 6
    assert parts.queue.backlog == 5


async def test_as_many_rows_of_another_writer(parts: Bench, autojump_clock: MockClock) -> None:
    """Not their number resolves an INSERT that nobody heard of, but what they are."""
    parts.queue.append(numbered(0, 5))
    await parts.settle()
    parts.queue.append(numbered(5, 5))
    parts.store.table().extend(numbered(100, 5))
    with pytest.raises(TableConflict):
        await parts.writer().until_empty()


async def test_another_writer_is_noticed_within_a_minute(
    parts: Bench, autojump_clock: MockClock
) -> None:
    """While all goes well the count is looked at, too."""

    async def feed() -> None:
        for n in range(200):
            parts.queue.append(numbered(n, 1))
            await trio.sleep(1)
            if n == 10:
                parts.store.table().append((1, "d", "foreign"))

    writer = parts.writer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        nursery.start_soon(writer.run)
        with trio.fail_after(11 + AUDIT_INTERVAL + 3):
            while not isinstance(writer.refusal, TableConflict):
                await trio.sleep(0.5)
        stored = len(parts.store.table())
        await trio.sleep(200)
        assert len(parts.store.table()) == stored
        assert parts.queue.backlog == 200 - (stored - 1)
        # Whoever removes the foreign row is written for again.
        parts.store.table().remove((1, "d", "foreign"))
        await trio.sleep(LAST_HOLD + 5)
        assert writer.refusal is None
        assert parts.store.rows == numbered(0, 200)
        nursery.cancel_scope.cancel()


async def test_a_second_recorder_elsewhere_writes_nothing(
    parts: Bench, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Promise 2: on another machine no lock holds it back; the table itself tells, in seconds."""

    def row(n: int) -> RowTuple:
        return (int(1000 * time.time()), "d", f"{n}|x")

    async def first() -> None:
        for n in range(600):
            parts.queue.append([row(n)])
            await trio.sleep(0.5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        nursery.start_soon(parts.writer().run)
        await trio.sleep(30)
        with bench(tmp_path / "elsewhere", parts.store) as other:
            other.queue.append([row(1000)])
            async with trio.open_nursery() as second:
                writer = other.writer()
                second.start_soon(writer.run)
                await trio.sleep(4)
                assert isinstance(writer.refusal, TableConflict)
                assert "another recorder writes to it" in str(writer.refusal)
                await trio.sleep(200)
                second.cancel_scope.cancel()
            assert other.queue.backlog == 1
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert [row[2] for row in parts.store.table()] == [f"{n}|x" for n in range(600)]


async def test_a_table_that_was_recorded_elsewhere_until_now(
    parts: Bench, autojump_clock: MockClock
) -> None:
    """A symbol that moved to this recorder is written as soon as it is seen that nobody else is."""
    moved: list[RowTuple] = [(int(1000 * time.time()), "d", "0|x")]
    parts.store.rows = list(moved)
    parts.queue.append([(int(1000 * time.time()), "d", "1|x")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parts.writer().run)
        await trio.sleep(WATCHED - 1)
        assert parts.store.rows == moved
        await trio.sleep(4)
        assert len(parts.store.table()) == 2
        nursery.cancel_scope.cancel()


async def test_two_recorders_that_start_together_are_found(
    parts: Bench, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """With an empty table there is nothing to see at first: the first looks come early."""
    with bench(tmp_path / "elsewhere", parts.store) as other:
        async with trio.open_nursery() as nursery:
            writers = [parts.writer(), other.writer()]
            for writer in writers:
                nursery.start_soon(writer.run)
            for n in range(20):
                parts.queue.append(numbered(n, 1))
                other.queue.append(numbered(n, 1))
                await trio.sleep(0.5)
            assert all(isinstance(writer.refusal, TableConflict) for writer in writers)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kept", ["all", "no right", "some"])
async def test_emptied_table_while_recording(
    kept: str, parts: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the journal still has is written again in order; what is gone for good is a gap."""
    monkeypatch.setattr("mexc_trio.record.reconcile.now", lambda: 1000)
    parts.store.keeps_none_aside = kept == "no right"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parts.writer().run)
        for n in range(100):
            parts.queue.append(numbered(n, 1))
            await trio.sleep(1)
            if n == 20 and kept == "some":
                parts.journal.retention = -1
                await parts.journal.purge()
                parts.journal.retention = 600
            if n == 30:
                parts.store.table().clear()
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    if kept == "all":
        assert parts.gaps == []
        assert parts.store.rows == numbered(0, 100)
        assert 0 < len(parts.store.aside) < 70
        (first, *_), aside = parts.store.aside[0], len(parts.store.aside)
        assert parts.store.aside == numbered(int(first) - 1000, aside)
        return
    (gap,) = parts.gaps
    gone = gap[3] - 1000
    assert 28 <= gone <= 32 if kept == "no right" else 18 <= gone <= 22
    assert (gap[0], gap[2]) == (Cause.TABLE_SHORTER, 1000)
    restored = range(1) if kept == "no right" else range(8, 14)
    assert gap[1] in {f"{gone} rows lost, {n} restored" for n in restored}
    assert parts.store.rows == numbered(gone, 100 - gone)


async def test_table_and_journal_damaged_together(
    parts: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 4: nobody knows what was there, and that is a gap even if nothing is left."""
    monkeypatch.setattr("mexc_trio.record.reconcile.now", lambda: 5000)
    parts.store.rows, parts.store.readable = numbered(0, 50), 0
    await parts.settle()
    (gap,) = parts.gaps
    assert gap[0] is Cause.JOURNAL_LOST
    assert gap[2:] == (5000, 5000)
    parts.queue.append(numbered(100, 5))
    await parts.settle()
    assert parts.store.rows == numbered(100, 5)
    assert len(parts.gaps) == 1


async def test_fewer_rows_that_are_not_ours(parts: Bench, autojump_clock: MockClock) -> None:
    """A table that was replaced by something else is left alone."""
    parts.queue.append(numbered(0, 20))
    await parts.settle()
    parts.store.rows = numbered(500, 10)
    parts.queue.append(numbered(20, 5))
    with pytest.raises(TableConflict, match="not those that were recorded here"):
        await parts.writer().until_empty()
    assert parts.store.rows == numbered(500, 10)


async def test_table_shorter_than_the_journal_can_fill(
    parts: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is lost for good is a gap from the last row that is left to the first restored."""
    parts.queue.append(numbered(0, 50))
    await parts.settle()
    parts.queue.append(numbered(50, 50))
    await parts.settle()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts.journal, "retention", -1)
        await parts.journal.purge()
    parts.queue.append(numbered(100, 20))
    await parts.settle()
    del parts.store.table()[30:]
    await parts.settle()
    assert parts.store.rows == numbered(0, 30) + numbered(100, 20)
    assert parts.gaps == [(Cause.TABLE_SHORTER, "70 rows lost, 20 restored", 1029, 1100)]


async def test_dropped_table(parts: Bench, autojump_clock: MockClock) -> None:
    """A table that is dropped while recording is made again and filled from the journal."""
    parts.queue.append(numbered(0, 50))
    await parts.settle()
    parts.store.rows = None
    parts.queue.append(numbered(50, 50))
    await parts.settle()
    assert parts.store.rows == numbered(0, 100)
    assert parts.gaps == []


async def test_dropped_table_that_the_journal_does_not_have(
    parts: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the gap says so: everything from its first row to the first that is left."""
    monkeypatch.setattr("mexc_trio.record.reconcile.now", lambda: 1000)
    parts.queue.append(numbered(0, 50))
    await parts.settle()
    parts.journal.retention = -1
    await parts.journal.purge()
    parts.store.rows = None
    parts.queue.append(numbered(50, 50))
    await parts.settle()
    assert parts.store.rows == numbered(50, 50)
    assert parts.gaps == [(Cause.TABLE_DROPPED, "50 rows lost, 0 restored", 1000, 1050)]


async def test_journal_lost(parts: Bench, autojump_clock: MockClock) -> None:
    """A new journal beside a table with rows: the gap ends with the first row, late or not."""
    parts.store.rows = numbered(0, 10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parts.writer().run)
        await trio.sleep(100)
        assert parts.gaps == []
        parts.queue.append(numbered(500, 5))
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert parts.store.rows == numbered(0, 10) + numbered(500, 5)
    assert [(cause, start, end) for cause, _, start, end in parts.gaps] == [
        (Cause.JOURNAL_LOST, 1009, 1500)
    ]


async def test_journal_lost_and_no_row_comes(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The gap is not forgotten if the run ends first: the next one writes it."""
    store = FakeStore(rows=numbered(0, 10))
    with bench(tmp_path, store) as parts:
        with trio.move_on_after(50):
            await parts.writer().run()
        assert parts.gaps == []
    with bench(tmp_path, store) as parts:
        parts.queue.append(numbered(500, 5))
        await parts.settle()
        assert [(start, end) for _, _, start, end in parts.gaps] == [(1009, 1500)]
        assert store.rows == numbered(0, 10) + numbered(500, 5)


async def test_journal_that_lost_its_end(parts: Bench, autojump_clock: MockClock) -> None:
    """After a power cut the table may have rows that the journal has not: they are ours."""
    parts.queue.append(numbered(0, 10))
    await parts.settle()
    parts.queue.append(numbered(10, 5))  # these the journal still has, unacknowledged
    parts.store.table().extend(numbered(10, 20))  # and the table has them, and more
    parts.queue.after_reboot, parts.queue.earlier = True, 15
    parts.queue.append(numbered(500, 5))  # of this run
    await parts.settle()
    assert parts.store.rows == numbered(0, 30) + numbered(500, 5)


async def test_power_cut_and_another_writer(parts: Bench, autojump_clock: MockClock) -> None:
    """But rows that do not continue what the journal has are somebody else's even then."""
    parts.queue.append(numbered(0, 10))
    await parts.settle()
    parts.queue.append(numbered(10, 5))
    parts.store.table().extend(numbered(300, 20))
    parts.queue.after_reboot, parts.queue.earlier = True, 15
    with pytest.raises(TableConflict):
        await parts.writer().until_empty()


async def test_full_read_after_each_start_of_the_engine(
    parts: Bench, autojump_clock: MockClock
) -> None:
    """A table is read in full once for each life of its engine, and its lost end is given back."""
    parts.queue.append(numbered(0, 50))
    await parts.settle()
    assert parts.store.full_reads == 1
    await parts.settle()
    parts.store.outcomes = ["lost", "unheard"]
    parts.queue.append(numbered(50, 50))
    await parts.settle()
    assert parts.store.full_reads == 1
    parts.store.life, parts.store.readable = "life 2", 90
    parts.queue.append(numbered(100, 5))
    await parts.settle()
    assert parts.store.full_reads == 2
    assert parts.store.rows == numbered(0, 105)


@pytest.mark.parametrize("table", [BTC, GAPS], ids=lambda table: table.name)
async def test_restart_of_the_engine_that_no_insert_meets(
    parts: Bench, autojump_clock: MockClock, table: Table
) -> None:
    """A restart between two INSERTs may have cost the table its end, which no count shows."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parts.writer(table).run)
        parts.queue.append(numbered(0, 10))
        await trio.sleep(100)
        assert parts.store.full_reads == 1
        parts.store.life, parts.store.readable = "life 2", 7
        for number in range(10, 20):
            parts.queue.append(numbered(number, 1))
            await trio.sleep(AUDIT_INTERVAL / 5)
        nursery.cancel_scope.cancel()
    assert parts.store.full_reads == 2
    assert parts.store.rows == numbered(0, 20)
    assert parts.gaps == []


async def test_fingerprint_spares_the_full_read(tmp_path: Path, autojump_clock: MockClock) -> None:
    """After a clean stop the files need not be read; after a kill, or any change, they do."""
    store = FakeStore(fingerprint_now="print a")
    with bench(tmp_path, store) as parts:
        parts.queue.append(numbered(0, 50))
        await parts.settle()
    store.life = "life 2"
    with bench(tmp_path, store) as parts:
        await parts.settle()
        assert store.full_reads == 1
        parts.queue.append(numbered(50, 5))
        await parts.settle()
    store.life, store.fingerprint_now = "life 3", "print b"
    with bench(tmp_path, store) as parts:
        await parts.settle()
        assert store.full_reads == 2


@pytest.mark.parametrize("times", [1, 10])
async def test_a_store_that_refuses_is_asked_again(
    times: int, parts: Bench, autojump_clock: MockClock
) -> None:
    """Promise 3: rows that the store refuses wait, and are written when it takes them again.

    Meanwhile it is not asked in a hot loop.
    """
    parts.queue.append(numbered(0, 5))
    parts.store.outcomes = [StoreRejected("no right")] * times
    writer = parts.writer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        await trio.sleep(1.5)
        assert str(writer.refusal) == "no right"
        assert parts.queue.backlog == 5
        await trio.sleep(times * LAST_HOLD)
        assert writer.refusal is None
        assert parts.store.rows == numbered(0, 5)
        nursery.cancel_scope.cancel()
    assert len(parts.store.refusals) == times


@pytest.mark.parametrize(
    "trouble", [StoreUnavailable("read-only"), TableDamaged("cannot read"), TableMissing("gone")]
)
async def test_trouble_with_one_table_is_no_hot_loop(
    trouble: Exception, parts: Bench, autojump_clock: MockClock
) -> None:
    """A store that answers and refuses one table's INSERTs is asked every ten seconds at last."""
    parts.queue.append(numbered(0, 5))
    parts.store.outcomes = [trouble] * 10_000
    with trio.move_on_after(600):
        await parts.writer().run()
    assert 600 / LAST_PAUSE - 5 <= len(parts.store.inserts) <= 600 / LAST_PAUSE + 15
    parts.store.outcomes.clear()
    await parts.settle()
    assert parts.store.rows == numbered(0, 5)


async def test_stopping_writes_what_is_left(parts: Bench, autojump_clock: MockClock) -> None:
    """Promise 5: a cancelled writer does not wait for company any more."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parts.writer(linger=3600).run)
        await trio.sleep(1)
        parts.queue.append(numbered(0, 50))
        await trio.sleep(1)
        assert parts.store.rows == []
        nursery.cancel_scope.cancel()
    assert parts.store.rows == numbered(0, 50)
    assert parts.acknowledged == numbered(0, 50)


async def test_stopping_with_the_store_away(parts: Bench, autojump_clock: MockClock) -> None:
    """Then the rows stay in the journal, and nobody waits."""
    parts.queue.append(numbered(0, 5))
    await parts.settle()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(parts.writer().run)
        await trio.sleep(1)
        parts.store.outcomes, parts.store.comes_back_after = ["lost"], 1e9
        parts.queue.append(numbered(5, 5))
        await trio.sleep(1.5)
        nursery.cancel_scope.cancel()
        stopped = trio.current_time()
    assert trio.current_time() == stopped
    assert parts.queue.backlog == 5


async def test_stopping_does_not_begin_a_long_read(
    parts: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large table that was not looked at yet is left to the next run."""
    monkeypatch.setattr("mexc_trio.record.writer.QUICKLY_READ", 5)
    parts.store.rows = numbered(0, 10)
    parts.queue.append(numbered(500, 5))
    with trio.CancelScope() as scope:
        scope.cancel()
        await parts.writer().run()
    assert parts.store.full_reads == 0
    assert parts.queue.backlog == 5


# --- The ledger of gaps, to which several recorders write ---------------------------------------


def gaps(first: int, n: int, symbol: str = "BTC_USDT") -> list[RowTuple]:
    """Return rows of the ledger."""
    return [
        (symbol, "deal", i, i + 1, "connection lost", "", 0, 0) for i in range(first, first + n)
    ]


@settings(max_examples=30, deadline=None)
@given(
    outcomes=st.lists(st.sampled_from(("stored", "lost", "unheard", "partly", "late")), max_size=6),
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8),
)
def test_ledger_of_several_recorders(outcomes: list[Outcome], steps: list[tuple[int, int]]) -> None:
    """Rows of others between ours confuse nobody: ours are there once each."""

    async def main(directory: Path) -> None:
        store = FakeStore(outcomes=list(outcomes))
        ours = theirs = 0
        for mine, others in steps:
            with bench(directory, store, "gaps") as parts:
                store.table().extend(gaps(theirs, others, "ETH_USDT"))
                theirs += others
                parts.queue.append(gaps(ours, mine))
                ours += mine
                await parts.settle(GAPS)
        found = [row for row in store.table() if row[0] == "BTC_USDT"]
        assert found == gaps(0, ours)
        assert len(store.table()) == ours + theirs

    with tempfile.TemporaryDirectory() as directory:
        trio.run(main, Path(directory), clock=MockClock(autojump_threshold=0))


async def test_ledger_that_lost_its_end(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Only what is missing of ours is appended again."""
    store = FakeStore(rows=gaps(0, 3, "ETH_USDT"))
    with bench(tmp_path, store, "gaps") as parts:
        parts.queue.append(gaps(0, 5))
        await parts.settle(GAPS)
        assert store.rows is not None
        store.rows = [*store.rows[:6], *gaps(3, 1, "ETH_USDT")]
        with caplog.at_level(logging.WARNING):
            await parts.settle(GAPS)
            parts.queue.append(gaps(5, 1))
            store.life = "life 2"
            await parts.settle(GAPS)
    assert [row for row in store.rows if row[0] == "BTC_USDT"] == gaps(0, 6)
    assert "2 rows are appended again" in caplog.text


@pytest.mark.parametrize("lost", [0, 3, LOOKED_UP, 1300])
@pytest.mark.parametrize("unheard", [0, 1, LOOKED_UP, 700])
async def test_ledger_of_a_bad_day(
    lost: int, unheard: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """However long the ledger is, a few rows at a time are looked for, and never all read."""
    store = FakeStore()
    with bench(tmp_path, store, "gaps") as parts:
        parts.queue.append(gaps(0, 1500))
        await parts.settle(GAPS)
        del store.table()[1500 - lost :]
        parts.queue.append(gaps(1500, 1000))
        if not lost:
            store.table().extend(gaps(1500, unheard))
        store.rows = gaps(0, 9000, "ETH_USDT") + store.table()
        await parts.settle(GAPS)
    assert [row for row in store.table() if row[0] == "BTC_USDT"] == gaps(0, 2500)
    assert len(store.table()) == 11_500
