"""INSERTs of many tables that go through one thread, one after another.

An INSERT of a few rows into a server takes half a millisecond of processor time when it follows
another one, and nearly twice that by itself: a thread is woken for it, and everything it needs has
left the processor's caches.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import attrs
import trio

from mexc_trio.clickhouse.insert_counters import InsertCounters
from mexc_trio.clickhouse.schema import Store
from mexc_trio.clickhouse.tables import Numbering, Table
from mexc_trio.errors import StoreUnavailable
from mexc_trio.rows import RowTuple

LONGEST: Final = 16
"""INSERTs that go together at the most. With the rest, other connections are kept busy."""


@attrs.define(eq=False)
class _Insert:
    table: Table
    rows: Sequence[RowTuple]
    numbering: Numbering | None
    error: Exception | None = attrs.field(
        factory=lambda: StoreUnavailable("this INSERT was not tried")
    )
    """What it ended with; None once it is acknowledged, and not a moment earlier."""
    seconds: float | None = None
    """How long it took, its waiting not included; None if it was not tried."""
    given_up: bool = False
    """Whether nobody wants it any more; if it is not under way, it is left out."""


@attrs.define(eq=False)
class _Batch:
    inserts: list[_Insert]
    begun: trio.Event = attrs.field(factory=trio.Event)
    """Set when a thread has it, or never will."""
    ended: trio.Event = attrs.field(factory=trio.Event)
    dissolved: bool = False
    """Whether who led it was cancelled before a thread had it."""


@attrs.define(eq=False)
class Coalescer:
    """Lets INSERTs go together that come together, or that wait for a thread together.

    The first INSERT that comes leads a batch and waits for a thread; those that come meanwhile
    join it, up to `LONGEST`. The thread makes them one after another. Whoever is cancelled before
    the thread has the batch leaves it. After that he waits for the thread, which leaves out what
    nobody wants any more, so that no INSERT is under way of which nobody hears.
    """

    _store: Store
    _limiter: trio.CapacityLimiter
    """Bounds the calls into the store at one time."""
    counters: InsertCounters = attrs.field(factory=InsertCounters, init=False)
    under_way: int = attrs.field(default=0, init=False)
    """INSERTs that have come and not ended."""
    _assembling: _Batch | None = attrs.field(default=None, init=False)
    _outage: StoreUnavailable | None = attrs.field(default=None, init=False)
    # `_limiter` counts its calls already.
    _threads: trio.CapacityLimiter = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._threads = trio.CapacityLimiter(self._limiter.total_tokens)

    async def append(
        self, table: Table, rows: Sequence[RowTuple], numbering: Numbering | None = None
    ) -> None:
        """Insert rows. Once begun it runs to its end, whatever is cancelled.

        After any error the outcome is unknown. With `StoreUnavailable`, it may not have been tried,
        since another one had met with that in the meantime.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        insert = _Insert(table, rows, numbering)
        self.under_way += 1
        try:
            while True:
                batch = self._assembling
                if batch is None:
                    batch = self._assembling = _Batch([insert])
                    await self._lead(batch)
                else:
                    await self._follow(batch, insert)
                if not batch.dissolved:
                    break
        finally:
            self.under_way -= 1
        if insert.seconds is not None:
            self.counters.note(len(rows), insert.seconds, insert.error)
        if insert.error is not None:
            raise insert.error

    async def _lead(self, batch: _Batch) -> None:
        outage = self._outage
        try:
            async with self._limiter:  # meanwhile, others join
                self._close(batch)
                batch.begun.set()
                if self._outage is outage:
                    run = partial(self._run, batch.inserts)
                    # A thread cannot be cancelled; its socket's timeouts bound this.
                    with trio.CancelScope(shield=True):
                        await trio.to_thread.run_sync(run, limiter=self._threads)
                else:  # so nobody who wants to stop waits for one timeout after another
                    _fail(batch.inserts, self._outage)
        finally:
            self._close(batch)
            batch.dissolved = not batch.begun.is_set()
            batch.begun.set()
            batch.ended.set()

    async def _follow(self, batch: _Batch, insert: _Insert) -> None:
        batch.inserts.append(insert)
        if len(batch.inserts) == LONGEST:
            self._close(batch)
        try:
            await batch.begun.wait()
        except trio.Cancelled:
            if not batch.begun.is_set():
                batch.inserts.remove(insert)
                raise
        try:
            await batch.ended.wait()
        except trio.Cancelled:
            insert.given_up = True
            with trio.CancelScope(shield=True):
                await batch.ended.wait()
            if insert.seconds is None:
                raise

    def _close(self, batch: _Batch) -> None:
        """Let nobody else join."""
        if self._assembling is batch:
            self._assembling = None

    def _run(self, inserts: Sequence[_Insert]) -> None:
        for number, insert in enumerate(inserts):
            if insert.given_up:
                continue
            began = time.monotonic()
            try:
                self._store.append(insert.table, insert.rows, insert.numbering)
                insert.error = None
            except StoreUnavailable as error:
                self._outage = error
                _fail(inserts[number:], error)
                return
            except Exception as error:  # noqa: BLE001 - a bug, too, is nobody else's
                insert.error = error
            finally:
                insert.seconds = time.monotonic() - began


def _fail(inserts: Sequence[_Insert], error: StoreUnavailable | None) -> None:
    for insert in inserts:
        insert.error = error
