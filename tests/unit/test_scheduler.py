"""Whose INSERT goes next: busy tables each second, quiet ones later, and none is forgotten."""

import math
from collections.abc import Sequence
from itertools import pairwise

import attrs
import trio
from trio.testing import MockClock

from mexc_trio.clickhouse.scheduler import INSERTS_PER_SECOND, InsertScheduler
from tools.bench.exchange import spread

LINGER = 1.0
WHOLE_EXCHANGE = spread(1200, 4000.0)
"""Messages a second of each of 1,200 contracts."""


@attrs.define(eq=False)
class Rows:
    """A table's queue, which gets rows evenly."""

    rate: float
    """Rows a second."""
    first: float
    """When the first one comes."""
    stored: int = 0

    @property
    def backlog(self) -> int:
        """Rows that wait."""
        came = math.floor((trio.current_time() - self.first) * self.rate) + 1
        return max(0, came) - self.stored


@attrs.define(eq=False)
class Rig:
    """Tables that get rows evenly, and a store that takes so many INSERTs at once."""

    takes: float = 0.0
    """Seconds that the store is busy with one INSERT."""
    at_once: int = 64
    under_way: int = 0
    inserts: list[tuple[float, int, int]] = attrs.field(factory=list)
    """When, into which table, how many rows."""
    _store: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(4))
    scheduler: InsertScheduler = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.scheduler = InsertScheduler(self.at_once, lambda: self.under_way)

    async def table(self, number: int, rate: float) -> None:
        """Write one table's rows as its writer does."""
        queue = Rows(rate, trio.current_time() + number % 100 / 100 / rate)
        while True:
            if not queue.backlog:
                await trio.sleep_until(queue.first + queue.stored / rate)
                await trio.sleep(1e-6)
            await self.scheduler.scheduled(LINGER, queue)
            rows = queue.backlog
            self.under_way += 1
            async with self._store:
                await trio.sleep(self.takes)
            self.under_way -= 1
            queue.stored += rows
            self.inserts.append((trio.current_time(), number, rows))

    async def run(self, rates: Sequence[float], seconds: float) -> None:
        """Record tables for some time."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.scheduler.run)
            for number, rate in enumerate(rates):
                nursery.start_soon(self.table, number, rate)
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()

    def pauses(self, table: int) -> list[float]:
        """Return the seconds between a table's INSERTs, but for the first few seconds'."""
        times = [at for at, number, _ in self.inserts if number == table and at > 20]
        return [later - earlier for earlier, later in pairwise(times)]


async def test_few_tables_go_after_linger(autojump_clock: MockClock) -> None:
    """While all INSERTs of a second are fewer than the bound, no row waits longer than `linger`."""
    rig = Rig()
    await rig.run([20.0] * 50, 60)
    assert all(max(rig.pauses(table)) <= LINGER + 0.1 for table in range(50))
    assert len(rig.inserts) <= 60 * 50 * 1.2


async def test_many_tables_wait_by_their_rate(autojump_clock: MockClock) -> None:
    """1,200 tables: the busiest goes every second, the quietest within 13, and all are bounded.

    A table with a row in an hour is not forgotten: it goes within a few rounds of the others.
    """
    rig = Rig(takes=0.005)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run, WHOLE_EXCHANGE, 50)
        await trio.sleep(20)
        began = trio.current_time()
        await rig.scheduler.scheduled(LINGER, Rows(1e-9, began))
        assert trio.current_time() - began < 20
    assert max(rig.pauses(0)) < 1.5
    assert max(max(rig.pauses(table)) for table in range(1200)) < 13
    later = [at for at, _, _ in rig.inserts if at > 20]
    assert len(later) <= 30 * INSERTS_PER_SECOND * 1.01


async def test_a_slow_store_slows_all_in_proportion(autojump_clock: MockClock) -> None:
    """A store that takes half of what is wanted: busy tables do not wait for all the quiet ones."""
    rig, rates = Rig(takes=4 / 75), WHOLE_EXCHANGE
    await rig.run(rates, 70)
    busy, quiet = rig.pauses(0), rig.pauses(1199)
    assert max(busy) < 4
    assert 10 < max(quiet) < 30


async def test_a_store_that_is_busy_is_given_no_more(autojump_clock: MockClock) -> None:
    """What the store was given and has not ended bounds what it is given next."""
    rig = Rig(takes=1000.0, at_once=5)
    await rig.run([1.0] * 50, 60)
    assert rig.under_way == 5


async def test_a_table_that_no_longer_waits_is_forgotten(autojump_clock: MockClock) -> None:
    """A symbol that is stopped while it waits takes nobody's turn."""
    scheduler = InsertScheduler(64, lambda: 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        with trio.move_on_after(0.5) as scope:
            await scheduler.scheduled(LINGER, Rows(1.0, trio.current_time()))
        assert scope.cancelled_caught
        await trio.sleep(10)
        began = trio.current_time()
        await scheduler.scheduled(LINGER, Rows(1.0, began))
        assert trio.current_time() - began <= LINGER
        nursery.cancel_scope.cancel()
