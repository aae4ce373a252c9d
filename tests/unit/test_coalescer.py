"""INSERTs that go together: each has its own outcome, and none is taken for stored that is not."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mexc_trio.clickhouse.coalescer import LONGEST, Coalescer
from mexc_trio.clickhouse.insert_counters import InsertCounters, Outcome
from mexc_trio.clickhouse.tables import Numbering, Table, market_table
from mexc_trio.errors import StoreRejected, StoreUnavailable
from mexc_trio.rows import RowTuple
from tests.support.running import DEADLINE

if TYPE_CHECKING:
    from mexc_trio.clickhouse.schema import Store

ROWS: list[RowTuple] = [(1000, "d", "1|2|1")]


@attrs.define
class SlowStore:
    """A store whose INSERTs wait until they are let go, and fail by table as they are told."""

    failures: dict[str, Exception] = attrs.field(factory=dict)
    go: threading.Event = attrs.field(factory=threading.Event)
    stored: list[str] = attrs.field(factory=list)
    threads: list[int] = attrs.field(factory=list)

    def append(
        self, table: Table, rows: Sequence[RowTuple], numbering: Numbering | None = None
    ) -> None:
        """Insert."""
        assert self.go.wait(DEADLINE)
        self.threads.append(threading.get_ident())
        if error := self.failures.get(table.name):
            raise error
        self.stored.append(table.name)


@attrs.define
class Rig:
    """INSERTs into a slow store, and what became of each table's INSERT."""

    store: SlowStore
    coalescer: Coalescer
    outcomes: dict[str, Any] = attrs.field(factory=dict)

    async def insert(self, name: str) -> None:
        """Insert into a table, and note how that ended."""
        try:
            await self.coalescer.append(market_table(name), ROWS)
        except (StoreUnavailable, StoreRejected) as error:
            self.outcomes[name] = error
        else:
            self.outcomes[name] = "stored"


@pytest.fixture
def rig() -> Rig:
    """Return a store that takes one call at a time."""
    store = SlowStore()
    return Rig(store, Coalescer(cast("Store", store), trio.CapacityLimiter(1)))


async def test_inserts_of_one_turn_go_together_in_order(rig: Rig) -> None:
    """They share a thread, which is what this is for."""
    names = [f"t{n}" for n in range(LONGEST + 3)]
    rig.store.go.set()
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(rig.insert, name)
    assert sorted(rig.store.stored) == sorted(names)
    assert rig.outcomes == dict.fromkeys(names, "stored")
    coalescer = [rig.store.stored[:LONGEST], rig.store.stored[LONGEST:]]
    assert [len(batch) for batch in coalescer] == [LONGEST, 3]
    assert len(set(rig.store.threads[:LONGEST])) == 1


async def test_inserts_join_those_that_wait_for_the_store(rig: Rig) -> None:
    """When the store is slow there are fewer and longer coalescer, not a longer line of threads."""
    async with trio.open_nursery() as nursery:
        for name in ("first", "second", "third"):
            nursery.start_soon(rig.insert, name)
            await wait_all_tasks_blocked(0.01)
        assert not rig.outcomes
        rig.store.go.set()
    assert rig.store.stored == ["first", "second", "third"]


async def test_refusal_of_one_table_is_nobody_elses(rig: Rig) -> None:
    """A table that something is wrong with does not keep the others' rows."""
    rig.store.failures["b"] = refusal = StoreRejected("no such column")
    rig.store.go.set()
    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(rig.insert, name)
    assert rig.outcomes == {"a": "stored", "b": refusal, "c": "stored"}


async def test_outage_is_everybodys_and_is_waited_for_once(rig: Rig) -> None:
    """Promise 5: a store that is silent until a timeout costs one timeout, not one a table."""
    for n in range(100):
        rig.store.failures[f"t{n}"] = StoreUnavailable(f"timeout {n}")
    async with trio.open_nursery() as nursery:
        for n in range(100):
            nursery.start_soon(rig.insert, f"t{n}")
        await wait_all_tasks_blocked(0.01)
        rig.store.go.set()
    assert len(rig.store.threads) == 1
    assert not rig.store.stored
    (said,) = {str(error) for error in rig.outcomes.values()}
    assert said.startswith("timeout ")
    rig.store.failures.clear()
    await rig.insert("later")
    assert rig.outcomes["later"] == "stored"


async def test_what_has_begun_ends_whatever_is_cancelled(rig: Rig) -> None:
    """Promise 2: no INSERT is under way that nobody waits for, whoever of a batch is stopped."""
    leader = trio.CancelScope()
    ended: list[str] = []

    async def lead() -> None:
        with leader:
            await rig.insert("leader")
            ended.append("leader")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lead)
        await wait_all_tasks_blocked(0.01)
        nursery.start_soon(rig.insert, "follower")
        await wait_all_tasks_blocked(0.01)
        leader.cancel()
        await wait_all_tasks_blocked(0.01)
        assert not ended
        rig.store.go.set()
    assert ended == ["leader"]
    assert rig.outcomes == {"leader": "stored", "follower": "stored"}


async def test_whoever_waits_for_a_thread_can_be_stopped(rig: Rig) -> None:
    """Promise 5: a stop waits for the INSERT that is under way, not for those in front of it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.insert, "under way")
        await wait_all_tasks_blocked(0.01)
        async with trio.open_nursery() as stopped:
            stopped.start_soon(rig.insert, "leader")
            await wait_all_tasks_blocked(0.01)
            for n in range(20):
                stopped.start_soon(rig.insert, f"stopped {n}")
            nursery.start_soon(rig.insert, "goes on")
            await wait_all_tasks_blocked(0.01)
            stopped.cancel_scope.cancel()
        rig.store.go.set()
    assert rig.store.stored == ["under way", "goes on"]
    assert rig.outcomes == dict.fromkeys(["under way", "goes on"], "stored")


async def test_what_nobody_wants_any_more_is_left_out_of_a_batch(rig: Rig) -> None:
    """Promise 5: of a batch that a thread has already, only the INSERT under way is waited for."""
    limiter = trio.CapacityLimiter(1)
    rig.coalescer = Coalescer(cast("Store", rig.store), limiter)
    async with trio.open_nursery() as nursery:
        async with limiter:  # until all have joined
            nursery.start_soon(rig.insert, "first")
            await wait_all_tasks_blocked(0.01)
            for n in range(10):
                nursery.start_soon(rig.insert, f"stopped {n}")
            await wait_all_tasks_blocked(0.01)
        await wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked(0.01)
        rig.store.go.set()
    assert rig.store.stored == ["first"]
    assert rig.outcomes == {"first": "stored"}


async def test_cancelled_before_it_has_begun(rig: Rig) -> None:
    """A symbol that is stopped already begins no INSERT."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await rig.insert("a")
    assert not rig.outcomes
    assert not rig.store.threads


async def test_an_error_of_this_program_is_that_of_its_own_insert(rig: Rig) -> None:
    """It is no outage, which would stop all tables: it goes up where it came from, alone."""
    rig.store.failures = dict.fromkeys("ab", ZeroDivisionError("a bug"))
    rig.store.go.set()

    async def insert(name: str) -> None:
        try:
            await rig.insert(name)
        except ZeroDivisionError:
            rig.outcomes[name] = "bug"

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(insert, name)
    assert rig.outcomes == {"a": "bug", "b": "bug", "c": "stored"}
    assert rig.coalescer.counters.rows == len(ROWS)


async def test_how_inserts_end_is_counted_and_what_was_not_tried_is_not(rig: Rig) -> None:
    """Metrics say what the store did, and not what happened to those that waited in vain."""
    rig.store.go.set()
    for name in "abc":
        await rig.insert(name)
    rig.store.failures["b"] = StoreRejected("no such column")
    await rig.insert("b")
    counters = rig.coalescer.counters
    assert counters.outcomes == {Outcome.STORED: 3, Outcome.REFUSED: 1}
    rig.store.failures["b"] = StoreUnavailable("timeout")
    rig.store.go.clear()
    async with trio.open_nursery() as nursery:
        for name in "bc":  # the second waits for the first, and is then not tried
            nursery.start_soon(rig.insert, name)
            await wait_all_tasks_blocked()
        rig.store.go.set()
    assert counters.outcomes == {Outcome.STORED: 3, Outcome.REFUSED: 1, Outcome.UNAVAILABLE: 1}
    assert counters.rows == 3 * len(ROWS)
    assert sum(counters.buckets) == counters.outcomes.total()


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (0.001, 0), (0.0011, 1), (31.0, -1)])
def test_an_insert_is_counted_with_those_that_took_as_long(seconds: float, bucket: int) -> None:
    """A bound counts what took exactly so long, as Prometheus wants it; the last has no bound."""
    counters = InsertCounters()
    counters.note(1, seconds, None)
    assert counters.buckets[bucket] == 1
