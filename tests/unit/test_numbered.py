"""Exactly once by number: whatever a table has or lacks, in the end each row is there once."""

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Literal

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from mexc_trio.clickhouse.numbered import MissingNumbers, NumberRange
from mexc_trio.clickhouse.tables import Numbering, Table, TableEngine, market_table
from mexc_trio.errors import StoreError, StoreUnavailable, TableConflict, TableMissing
from mexc_trio.journal import Journal, Queue, open_journal
from mexc_trio.record.writer import Writer
from mexc_trio.rows import Cause, RowTuple
from tests.support.inmemory import MemoryStore, as_async

BTC = market_table("btc", TableEngine.MERGETREE)

Outcome = Literal[
    "stored", "lost", "unheard", "late", "partly", "forgotten", "swallowed", "dropped", "emptied"
]
"""What becomes of an INSERT: all well; not stored; stored, and nobody hears of it; stored a while
after the writer was told that it failed; only the rows of one partition stored; not stored, but its
token is known from then on, as after a kill at the wrong moment; the same, and it is acknowledged;
the table is dropped with it; or emptied."""


@attrs.define(eq=False)
class TreeStore(MemoryStore):
    """A table of numbered rows, which knows tokens again and fails as it is told."""

    rows: list[tuple[int, RowTuple]] | None = attrs.field(factory=list)
    tokens: set[tuple[str, int]] = attrs.field(factory=set)
    """Of what was stored, by partition: rows of even numbers are in another one than the others."""
    outcomes: list[Outcome] = attrs.field(factory=list)
    late: list[tuple[float, Sequence[RowTuple], Numbering]] = attrs.field(factory=list)
    refused: list[StoreError] = attrs.field(factory=list)
    life: str = "life 1"

    def table(self) -> list[tuple[int, RowTuple]]:
        """Return the rows, with those that have come late."""
        if self.rows is None:
            raise TableMissing("no table")
        while self.late and self.late[0][0] <= trio.current_time():
            _, rows, numbering = self.late.pop(0)
            self.put(rows, numbering)
        return self.rows

    def put(
        self, rows: Sequence[RowTuple], numbering: Numbering, parts: Sequence[int] = (0, 1)
    ) -> None:
        """Store what no token is known of."""
        assert self.rows is not None
        for part in parts:
            if (numbering.token, part) not in self.tokens:
                self.tokens.add((numbering.token, part))
                self.rows += [
                    (n, row)
                    for n, row in zip(numbering.numbers, rows, strict=True)
                    if n % 2 == part
                ]

    async def append(
        self, table: Table, rows: Sequence[RowTuple], numbering: Numbering | None = None
    ) -> None:
        """Insert."""
        await trio.sleep(0.001)
        assert numbering is not None
        there = self.table()
        outcome = self.outcomes.pop(0) if self.outcomes else "stored"
        match outcome:
            case "stored":
                self.put(rows, numbering)
                return
            case "unheard":
                self.put(rows, numbering)
            case "partly":
                self.put(rows, numbering, (0,))
            case "late":
                self.late.append((trio.current_time() + 3, rows, numbering))
            case "forgotten" | "swallowed":
                self.tokens |= {(numbering.token, 0), (numbering.token, 1)}
                if outcome == "swallowed":
                    return
            case "dropped":
                self.rows, self.tokens = None, set()
                raise TableMissing("no table")
            case "emptied":
                there.clear()
            case _:
                pass
        raise StoreUnavailable("away")

    async def engine(self, table: Table) -> TableEngine:
        """Number rows."""
        return TableEngine.MERGETREE

    async def prepare(self, tables: Sequence[Table]) -> list[str]:
        """Create."""
        await trio.sleep(0.001)
        if self.rows is None:
            self.rows = []
            return [table.name for table in tables]
        return []

    async def until_conclusive(self, table: Table) -> None:
        """Wait for INSERTs that come late."""
        for at, *_ in list(self.late):
            await trio.sleep_until(at)

    async def server_start_id(self) -> str:
        """Name the life of the engine."""
        return self.life

    async def count(self, table: Table) -> int:
        """Count."""
        await trio.sleep(0.001)
        return len(self.table())

    async def rows_between(self, table: Table, first: int, end: int) -> list[tuple[int, RowTuple]]:
        """Return them in an order of their own."""
        await trio.sleep(0.001)
        found = [(n, row) for n, row in self.table() if first <= n < end]
        random.Random(first).shuffle(found)
        return found

    async def numbers(self, table: Table) -> NumberRange | None:
        """Look at the first and the last."""
        await trio.sleep(0.001)
        if not (rows := sorted(self.table())):
            return None
        return NumberRange(rows[-1][0], int(rows[0][1][0]))

    async def missing_numbers(self, table: Table) -> list[MissingNumbers]:
        """Look at all."""
        rows = sorted(self.table())
        return [
            MissingNumbers(n, n - before - 1, int(earlier[0]), int(row[0]))
            for (before, earlier), (n, row) in pairwise(rows)
            if n - before > 1
        ]

    async def newest(self, table: Table) -> int | None:
        """Read the newest time."""
        return max((int(row[0]) for _, row in self.table()), default=None)

    async def fingerprint(self, table: Table) -> str:
        """There are no files."""
        return ""

    def say_refused(self, table: Table, error: StoreError) -> None:
        """Keep it."""
        self.refused.append(error)

    async def available(self) -> None:
        """Come back after a second."""
        await trio.sleep(1)


@attrs.define(eq=False)
class Bench:
    """A journal's queue beside a table."""

    journal: Journal
    queue: Queue
    store: TreeStore
    gaps: list[tuple[Cause, str, int, int]]

    def writer(self) -> Writer:
        """Return one that writes the queue into the table."""
        gap = self.gaps.append
        return Writer(
            BTC, self.queue, as_async(self.store), 0.0, lambda rows: None, lambda *one: gap(one)
        )

    async def write(self, seconds: float = 1e9) -> None:
        """Run a writer until nothing is left, or for so long."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.writer().run)
            with trio.move_on_after(min(seconds, 600)):
                await trio.sleep(5)
                while self.queue.backlog:
                    await trio.sleep(0.1)
            nursery.cancel_scope.cancel()


@contextmanager
def bench(directory: Path, store: TreeStore, name: str = "journal") -> Iterator[Bench]:
    """Open a journal beside a table, as a start of the program does."""
    retention = -1.0 if name == "forgetful" else 600.0
    with open_journal(directory / f"{name}.sqlite", retention=retention) as journal:
        yield Bench(journal, journal.queue("btc"), store, [])


def made(first: int, n: int) -> list[RowTuple]:
    """Return rows of which no two are equal."""
    return [(1_600_000_000_000 + i, "d", f"{i}|x") for i in range(first, first + n)]


def whole(store: TreeStore, n: int) -> None:
    """See that the table has the first so many rows, each once, under its number."""
    assert sorted(store.rows or []) == list(enumerate(made(0, n)))


@settings(max_examples=40)
@given(
    outcomes=st.lists(
        st.sampled_from(("stored", "lost", "unheard", "late", "partly", "forgotten", "dropped")),
        max_size=8,
    ),
    frames=st.lists(st.tuples(st.integers(1, 7), st.floats(0, 3)), min_size=1, max_size=12),
    restarts=st.lists(st.floats(0, 10), max_size=3),
)
def test_exactly_once(
    outcomes: list[Outcome], frames: list[tuple[int, float]], restarts: list[float]
) -> None:
    """Promise 2: after any outcomes, with any restarts between, each row is there once."""

    async def main(directory: Path) -> None:
        store = TreeStore(outcomes=list(outcomes))
        sent, due = 0, list(frames)
        for runs_for in [*restarts, 1e9]:
            with bench(directory, store) as parts:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(parts.write, runs_for)
                    with trio.move_on_after(runs_for):
                        while due:
                            n, pause = due.pop(0)
                            parts.queue.append(made(sent, n))
                            sent += n
                            await trio.sleep(pause)
                await parts.write(runs_for)
                assert not parts.gaps
        whole(store, sent)

    with tempfile.TemporaryDirectory() as directory:
        trio.run(main, Path(directory), clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("times", [1, 3])
async def test_an_insert_that_was_deduplicated_away_is_found(
    times: int, tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It was acknowledged, and its rows are new: an audit misses them, and they go again.

    Also when the same happens to those that go again.
    """
    swallowed: list[Outcome] = ["swallowed"]
    store = TreeStore(outcomes=["stored", *(times * swallowed)])
    with bench(tmp_path, store) as parts:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parts.writer().run)
            for first in range(0, 300, 10):
                parts.queue.append(made(first, 10))
                await trio.sleep(4)
            nursery.cancel_scope.cancel()
        assert not parts.gaps
    whole(store, 300)
    assert "10 rows are appended again from the journal" in caplog.text


@settings(max_examples=50)
@given(
    stored=st.integers(0, 40),
    waiting=st.integers(0, 40),
    there=st.sets(st.integers(0, 79)),
    sent=st.integers(0, 40),
    others=st.sets(st.integers(0, 30), max_size=5),
    seed=st.integers(),
)
def test_any_subset_of_a_batch_is_completed(
    stored: int, waiting: int, there: set[int], sent: int, others: set[int], seed: int
) -> None:
    """Rows that were stored and are gone, and any of a batch that came: in any order, all end well.

    Older rows that this journal never had stay as they are, wherever they stand.
    """

    async def main(directory: Path) -> None:
        old = [(n, (1_500_000_000_000 + n, "t", "old")) for n in range(31)]
        store = TreeStore(rows=list(old))
        with bench(directory, store) as parts:
            parts.queue.append(made(0, stored))
            parts.queue.base, parts.queue.table_rows = 31, 31
            parts.queue.move_head(stored, 31 + stored)
            parts.queue.append(made(stored, waiting))
            parts.queue.send(min(sent, waiting))
        table = [
            *((n, row) for n, row in old if n not in others),
            *((31 + n, row) for n, row in enumerate(made(0, stored + min(sent, waiting)))
              if n in there),
        ]  # fmt: skip
        random.Random(seed).shuffle(table)
        store.rows = table
        with bench(directory, store) as parts:
            await parts.write()
            assert parts.queue.acked == stored + waiting
            # What nobody has any more is in the ledger, if anything was missed at all.
            assert len(parts.gaps) == 0 or others
        kept = [(n, row) for n, row in old if n not in others]
        assert sorted(store.rows) == [
            *kept, *((31 + n, row) for n, row in enumerate(made(0, stored + waiting)))
        ]  # fmt: skip

    with tempfile.TemporaryDirectory() as directory:
        trio.run(main, Path(directory), clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("n", [3, 12, 25])
async def test_another_row_under_a_number_is_a_conflict(
    n: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Somebody else writes there: nothing more is written, wherever that row stands."""
    store = TreeStore()
    with bench(tmp_path, store) as parts:
        parts.queue.append(made(0, 10))
        await parts.write()
        assert store.rows is not None
        store.rows = [one for one in store.rows if one[0] != n]
        store.rows.append((n, (1, "d", "another")))
    before = list(store.rows)
    with bench(tmp_path, store) as parts:
        parts.queue.append(made(10, 10))
        await parts.write(100)
        assert store.rows == before
        assert parts.queue.backlog == 10
        assert isinstance(store.refused[0], TableConflict)


async def test_a_new_journal_counts_on_above_all_numbers(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """No number is used for two rows, and the ledger says what is not known."""
    store = TreeStore()
    with bench(tmp_path, store) as parts:
        parts.queue.append(made(0, 10))
        await parts.write()
    with bench(tmp_path, store, "another") as parts:
        parts.queue.append(made(10, 10))
        await parts.write()
        assert [gap[0] for gap in parts.gaps] == [Cause.JOURNAL_LOST]
    whole(store, 20)


async def test_a_journal_that_lost_its_end_counts_on_above_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Rows that only the table has keep their numbers; the next ones get others."""
    store = TreeStore()
    with bench(tmp_path, store) as parts:
        parts.queue.append(made(0, 10))
        await parts.write()
    assert store.rows is not None
    store.rows += [(n, row) for n, row in enumerate(made(10, 5), 10)]
    with bench(tmp_path, store) as parts:
        parts.queue.after_reboot = True
        parts.queue.append(made(15, 5))
        await parts.write()
    whole(store, 20)


async def test_what_nobody_has_is_a_gap(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Each place where rows are missing is told once, with its two ends."""
    store = TreeStore()
    with bench(tmp_path, store, "forgetful") as parts:
        parts.queue.append(made(0, 100))
        await parts.write()
        await parts.journal.purge()
        ts = 1_600_000_000_000
        for lost in ({20, 21}, {50}):
            assert store.rows is not None
            store.rows = [one for one in store.rows if one[0] not in lost]
            store.life = f"life after {lost}"
            parts.queue.verified = False
            await parts.write()
            first, last = min(lost), max(lost)
            assert [gap[2:] for gap in parts.gaps] == [(ts + first - 1, ts + last + 1)]
            parts.gaps.clear()
