"""The way from Trio into a store: threads, their limit, and what is known of an outage.

Where a call raises `StoreUnavailable` the store counts as away, and writers wait in `available`
until the one task in `keep_asking` has had an answer: a thousand writers do not knock on a closed
door a thousand times.
"""

import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import attrs
import trio
from trio_util import AsyncBool

from mexc_trio.clickhouse import (
    compaction,
    conversion,
    numbered,
    preparing,
    repair,
    replicas,
    rewriting,
    schema,
    views,
)
from mexc_trio.clickhouse.coalescer import LONGEST, Coalescer
from mexc_trio.clickhouse.insert_counters import InsertCounters
from mexc_trio.clickhouse.interruptible import interruptible
from mexc_trio.clickhouse.refusals import SAY_AGAIN, Refusals
from mexc_trio.clickhouse.scheduler import Backlogged, InsertScheduler
from mexc_trio.clickhouse.schema import Store
from mexc_trio.clickhouse.tables import Numbering, Table, TableEngine
from mexc_trio.errors import StoreError, StoreUnavailable
from mexc_trio.rows import RowTuple

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

VIEWS_AT_ONCE: Final = 10
"""Tables whose views are created in one call."""
VIEWS_PAUSE: Final = 2.0
"""How many times as long as such a call took the next one waits: INSERTs go before views."""
FIRST_RETRY: Final = 0.25
"""Seconds until a store that went away is asked again; doubles up to `LAST_RETRY`."""
LAST_RETRY: Final = 10.0
FIRST_PAUSE: Final = 0.02
"""Seconds between two checks whether an INSERT is still running; doubles up to `LAST_PAUSE`."""
LAST_PAUSE: Final = 2.0


def _in_thread(
    function: Callable[Concatenate[Store, P], T],
) -> Callable[Concatenate["AsyncStore", P], Coroutine[Any, Any, T]]:
    """Return a method that calls a function of a store in a thread."""

    async def call(self: "AsyncStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(partial(function, self.store, *args, **kwargs))

    return call


@attrs.define(eq=False)
class AsyncStore:
    """One store as the tasks of a recorder see it."""

    store: Store
    away_since: float | None = attrs.field(default=None, init=False)
    """Unix seconds; None while the store answers."""
    writers: int = attrs.field(default=0, init=False)
    _limiter: trio.CapacityLimiter = attrs.field(init=False)
    # For calls that `_limiter` counts already, or that must not wait for others.
    _unlimited: trio.CapacityLimiter = attrs.field(init=False)
    # Held by who reads a table of an engine of ours, which copies all of its index for that.
    _reading: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _coalescer: Coalescer = attrs.field(init=False)
    scheduler: InsertScheduler = attrs.field(init=False)
    """Tells writers when to `append`, as long as its `run` runs."""
    _is_away: AsyncBool = attrs.field(factory=AsyncBool, init=False)
    _retry: float = attrs.field(default=FIRST_RETRY, init=False)
    _refusals: Refusals = attrs.field(factory=Refusals, init=False)
    # Why the store is away, and when that was said last, since the last INSERT that worked.
    _said: dict[str, float] = attrs.field(factory=dict, init=False)

    prepare = _in_thread(preparing.prepare_here)
    engines = _in_thread(schema.engines)
    rows_between = _in_thread(numbered.rows_between)
    numbers = _in_thread(numbered.numbers)
    missing_numbers = _in_thread(numbered.missing_numbers)
    present_rows = _in_thread(repair.present_rows)
    put_aside = _in_thread(repair.put_aside)
    remove_leftover = _in_thread(compaction.remove_leftover)

    def __attrs_post_init__(self) -> None:
        # Not Trio's default limiter, which DNS look-ups share.
        self._limiter = trio.CapacityLimiter(self.store.concurrency)
        self._unlimited = trio.CapacityLimiter(math.inf)
        self._coalescer = coalescer = Coalescer(self.store, self._limiter)
        most = LONGEST * self.store.concurrency
        self.scheduler = InsertScheduler(most, lambda: coalescer.under_way)

    @property
    def name(self) -> str:
        """What the user knows the store by."""
        return self.store.name

    @property
    def insert_counters(self) -> InsertCounters:
        """What became of the INSERTs of this run."""
        return self._coalescer.counters

    async def append(
        self, table: Table, rows: Sequence[RowTuple], numbering: Numbering | None = None
    ) -> None:
        """Insert rows. Once begun it runs to its end, whatever is cancelled.

        After a StoreError the outcome is unknown; ask `count`.
        """
        with self._noticing_outages():
            await self._coalescer.append(table, rows, numbering)
        self._retry = FIRST_RETRY
        self._said.clear()

    async def scheduled(self, wait: float, queue: Backlogged) -> None:
        """See `InsertScheduler.scheduled`."""
        await self.scheduler.scheduled(wait, queue)

    async def until_conclusive(self, table: Table) -> None:
        """Wait until what a table lacks means something; see `replicas.inconclusive`."""
        pause, began = FIRST_PAUSE, trio.current_time()
        while why := await self.run(lambda: replicas.inconclusive(self.store, table.name)):
            if pause == FIRST_PAUSE:
                log.info("table %s: waiting: %s", table.name, why)
            await trio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)
            if trio.current_time() - began > replicas.PATIENCE:
                self.store.leave()

    def one_host(self) -> AbstractContextManager[None]:
        """See `Store.one_host`."""
        return self.store.one_host()

    async def count(self, table: Table) -> int:
        """See `schema.count`; TableMissing if there is no such table."""
        return await self.run(lambda: schema.count(self.store, table.name))

    async def engine(self, table: Table) -> TableEngine:
        """See `schema.engine_of`."""
        return await self.run(lambda: schema.engine_of(self.store, table.name))

    async def columns(self, tables: Sequence[str]) -> dict[str, dict[str, str]]:
        """See `schema.columns`."""
        return await self.run(lambda: schema.columns(self.store, tables=tables))

    async def create_views(self, tables: Sequence[Table]) -> None:
        """Create the typed views of symbols' tables that lack them, a few at a time.

        Thousands take minutes, during which INSERTs go on in between. What prevents them is no
        error: views are a convenience, and the next start tries again.
        """
        for first in range(0, len(tables), VIEWS_AT_ONCE):
            some, began = tables[first : first + VIEWS_AT_ONCE], trio.current_time()
            with suppress(StoreError):  # the writers meet it too, and tell
                await self.run(partial(views.create_with_tables, self.store, some))
            if some[-1] is not tables[-1]:
                await trio.sleep(VIEWS_PAUSE * (trio.current_time() - began))

    async def server_start_id(self) -> str:
        """See `Store.server_start_id`."""
        return await self.run(self.store.server_start_id)

    async def fingerprint(self, table: Table) -> str:
        """See `Store.fingerprint`."""
        return await self.run(lambda: self.store.fingerprint(table.name))

    async def make_sound(self, table: Table) -> repair.Soundness:
        """Read the table in full; where its tail cannot be read, keep what can.

        Whoever is cancelled does not wait for the end of it: the read is ended in the engine.
        """
        async with self._alone(), self._limiter:
            return await self._long(
                lambda: repair.make_sound(self.store, table),
                lambda: repair.stop_reading(self.store, table.name),
            )

    async def newest(self, table: Table) -> int | None:
        """See `repair.newest`."""
        async with self._alone():
            return await self.run(lambda: repair.newest(self.store, table))

    async def rows_at(self, table: Table, first: int, n: int) -> list[RowTuple]:
        """See `repair.rows_at`."""
        async with self._alone():
            return await self.run(lambda: repair.rows_at(self.store, table, first, n))

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        if not self.store.one_thread:
            yield
            return
        async with self._reading:
            yield
            await self.run(lambda: repair.trim(self.store))  # the copy, before there is another

    async def inserts(self, table: str) -> int:
        """See `Store.inserts`."""
        return await self.run(lambda: self.store.inserts(table))

    async def compact(self, table: str, least_free: int) -> rewriting.Rewritten:
        """Rewrite a table; see `compaction.compact`. Ends soon when it is cancelled, as the above.

        It has a connection of its own, so that INSERTs into other tables do not wait for it.
        """
        return await self._long(
            lambda: compaction.compact(self.store, table, least_free),
            lambda: rewriting.stop(self.store, table, compaction.copy_of(table)),
        )

    async def convert(
        self, table: str, engine: TableEngine, least_free: int
    ) -> rewriting.Rewritten | None:
        """Move a table to another engine; see `conversion.convert`. As `compact` otherwise.

        What has been moved when it is cancelled need not be moved again.
        """
        return await self._long(
            lambda: conversion.convert(self.store, table, engine, least_free),
            lambda: rewriting.stop(self.store, table, table + compaction.CONVERTING),
        )

    async def _long(self, call: Callable[[], T], stop: Callable[[], None]) -> T:
        """Make a call that takes minutes; `stop` ends it in the engine when we are cancelled."""
        with self._noticing_outages():
            return await interruptible(call, stop, self._unlimited)

    async def available(self) -> None:
        """Wait until the store answers."""
        await self._is_away.wait_value(False)

    def say_refused(self, table: Table, error: StoreError) -> None:
        """See `Refusals.say`."""
        self._refusals.say(table, error)

    async def keep_asking(self) -> None:
        """Ask a store that is away until it answers, again and again. Runs until cancelled."""
        while True:
            await self._is_away.wait_value(True)
            await trio.sleep(self._retry)
            # Only an INSERT that works makes the next outage start at FIRST_RETRY again: a store
            # may answer SELECT 1 and refuse to write.
            self._retry = min(self._retry * 2, LAST_RETRY)
            try:
                await trio.to_thread.run_sync(
                    lambda: self.store.query("SELECT 1"), limiter=self._limiter
                )
            except StoreUnavailable as error:
                if str(error) not in self._said:  # it is up, say, and the password is another one
                    self._say_away(error)
                continue
            except StoreError as error:
                # It talks, so let the writers hear what it says.
                log.warning("%s", error)
            self.away_since = None
            self._is_away.value = False

    async def run(self, call: Callable[[], T]) -> T:
        """Make a call in a thread, and note if it finds the store away; raises what it raises."""
        with self._noticing_outages():
            return await trio.to_thread.run_sync(call, limiter=self._limiter)

    @contextmanager
    def _noticing_outages(self) -> Iterator[None]:
        try:
            yield
        except StoreUnavailable as error:
            self._away(error)
            raise

    def _away(self, error: StoreUnavailable) -> None:
        if self.away_since is None:
            self.away_since = time.time()
            # A store may answer and refuse to write, and so come and go for hours.
            if trio.current_time() - self._said.get(str(error), -math.inf) > SAY_AGAIN:
                self._say_away(error)
            self._is_away.value = True

    def _say_away(self, error: StoreUnavailable) -> None:
        self._said[str(error)] = trio.current_time()
        log.warning("%s; recording goes on into the journal", error)
