"""From the journal into the store: how rows go, and what a failure means.

The writer takes rows from the head of a table's queue, inserts them, and only then moves the head.
When it does not know what became of an INSERT, at the start and after every error, it is not in
sync, and compares the table before it writes again; see `reconcile`. In between it looks at the
number of rows, soon after the start and later about once a minute.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import trio

from mexc_trio.backoff import Backoff
from mexc_trio.clickhouse.async_store import AsyncStore
from mexc_trio.clickhouse.tables import SHARED_TABLES, Table, TableEngine
from mexc_trio.errors import JournalBusy, StoreError, StoreUnavailable, TableDamaged, TableMissing
from mexc_trio.journal import Queue
from mexc_trio.record.numbered import NumberedReconciler
from mexc_trio.record.reconcile import BATCH, GapRecorder, Reconciler, SharedReconciler
from mexc_trio.record.wide import note_width
from mexc_trio.rows import RowTuple

log = logging.getLogger(__name__)

AUDIT_INTERVAL: Final = 60.0
"""Seconds between two audits of the table's count while all goes well, at least."""
FIRST_AUDIT: Final = 1.0
"""Seconds until the first audit after a start: a second recorder of the table is soon found."""
AUDITS_PER_SECOND: Final = 2
"""Audits of all writers together, at the most. One costs more than an INSERT."""
DRAIN_TIMEOUT: Final = 4.0
"""Seconds that a stopping writer may take to write what is left. The journal keeps the rest."""
LEDGER_DRAIN_TIMEOUT: Final = 1.0
"""The same for the ledger's writer, which stops after all others."""
QUICKLY_READ: Final = 1_000_000
"""Rows of a table that a stopping writer may still read in full: a third of a second."""
FIRST_PAUSE: Final = 0.25
"""Seconds until a table that failed twice in a row is tried again; doubles up to `LAST_PAUSE`."""
LAST_PAUSE: Final = 10.0
FIRST_HOLD: Final = 1.0
"""Seconds until a store that refused is asked again; doubles up to `LAST_HOLD`."""
LAST_HOLD: Final = 60.0


@attrs.define(eq=False)
class Writer:
    """Writes one table's queue. Nobody else writes to the table, unless all recorders share it."""

    table: Table
    queue: Queue
    store: AsyncStore
    linger: float
    """Seconds a row may wait for company."""
    acknowledged: Callable[[Sequence[RowTuple]], None]
    """Told which rows the store has acknowledged in this run."""
    gap: GapRecorder
    drain_timeout: float = DRAIN_TIMEOUT
    """Seconds that a stop may take to write what is left; then one INSERT's time at the most."""
    refusal: StoreError | None = attrs.field(default=None, init=False)
    """Why rows are held back although the store answers; None while they are written."""
    engine: TableEngine = attrs.field(init=False)
    """The table's engine; until the table has been seen, that of a new one."""
    _holds: Backoff = attrs.field(factory=lambda: Backoff(FIRST_HOLD, LAST_HOLD), init=False)
    _in_sync: bool = attrs.field(default=False, init=False)
    _next_audit: float = attrs.field(default=0.0, init=False)
    _audit_after: float = attrs.field(default=FIRST_AUDIT, init=False)
    _has_failed: bool = attrs.field(default=False, init=False)
    _pauses: Backoff = attrs.field(factory=lambda: Backoff(FIRST_PAUSE, LAST_PAUSE), init=False)
    _took: float = attrs.field(default=0.0, init=False)
    """Seconds that the last INSERT took."""
    _reconciler: Reconciler = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.engine = self.table.engine
        self._reconciler = self._new_reconciler()
        note_width(self.queue, self.table)

    async def run(self) -> None:
        """Write until cancelled, then write what is left.

        Whatever the store says, this goes on: what is received waits in the journal meanwhile.
        Raises JournalError if the journal cannot be read or written.
        """
        self.store.writers += 1
        try:
            while True:
                if self._in_sync and not self.queue.backlog:
                    await self.queue.arrival()
                if self.linger and self._in_sync and self.queue.backlog < BATCH:
                    # The INSERT's own time counts, so that its first row is seen after `linger`.
                    wait = self.linger - min(self._took, self.linger / 4)
                    await self.store.scheduled(wait, self.queue)
                try:
                    await self._step_or_wait()
                except StoreError as error:
                    await self._hold_back(error)
        except trio.Cancelled:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self.drain_timeout):
                await self.drain()
            raise
        finally:
            self.store.writers -= 1

    async def _hold_back(self, error: StoreError) -> None:
        """Wait: the store refuses this table, or what it holds is not what was recorded.

        Neither passes quickly, and both may pass: somebody changes a right, a quota ends, a foreign
        row is removed. Nothing is written meanwhile that could be wrong.
        """
        self._in_sync = False
        self.refusal = error
        self.store.say_refused(self.table, error)
        await trio.sleep(self._holds.next())

    async def until_empty(self) -> None:
        """Write until nothing is left, however long the store is away.

        Raises TableConflict if something else writes to the table, StoreError if the store refuses,
        JournalError if the journal cannot be read or written.
        """
        while self.queue.backlog:
            await self._step_or_wait()
        await self._note_fingerprint()

    async def drain(self) -> None:
        """Write until the queue is empty or the store is away. Errors are logged."""
        try:
            if not self.queue.verified and await self.store.count(self.table) > QUICKLY_READ:
                return  # nobody who wants to stop waits for that; the next run does it
            while self.queue.backlog and self.store.away_since is None:
                await self._step()
            await self._note_fingerprint()
        except JournalBusy:
            pass  # the end says so
        except StoreUnavailable:
            pass  # it has been said; the rows stay in the journal
        except StoreError as error:
            log.error("table %s: %s; the rows stay in the journal", self.table.name, error)

    async def _step_or_wait(self) -> None:
        try:
            await self._step()
        except JournalBusy:
            await self.queue.unlocked()
        except StoreUnavailable:
            await self._start_over()
        except TableMissing as error:
            log.warning("table %s is gone: %s", self.table.name, error)
            await self._start_over()
        except TableDamaged as error:
            # A server whose client was cut off in the middle of its rows says the same.
            log.warning("table %s is to be read in full: %s", self.table.name, error)
            self.queue.checked("")
            await self._start_over()

    async def _start_over(self) -> None:
        failed_before, self._has_failed = self._has_failed, True
        self._in_sync = False
        await self.store.available()
        # The store answers, but perhaps it has trouble with this table only.
        if failed_before:
            await trio.sleep(self._pauses.next())

    async def _step(self) -> None:
        async with self.queue.write_lock:
            # Whoever rewrites a table for another engine leaves it to be compared anew.
            if not (self._in_sync and self.queue.verified):
                created = self.table.name in await self.store.prepare([self.table])
                if (engine := await self.store.engine(self.table)) is not self.engine:
                    self.engine = engine
                    self._reconciler = self._new_reconciler()
                await self._reconciler.reconcile(created=created)
                self._in_sync = True
                self._audit_later()
                return
            began = trio.current_time()
            if began > self._next_audit:
                self._in_sync = await self._reconciler.as_expected()
                # Some engines count by reading; they are asked the less often the longer it takes.
                self._audit_later(100 * (trio.current_time() - began))
                self._audit_after = min(2 * self._audit_after, AUDIT_INTERVAL)
            if self._in_sync and self.queue.backlog:  # an audit does not make rows wait once more
                rows = self.queue.head(BATCH)
                # Set first and cleared after: an INSERT that nobody answers leaves it so.
                self._in_sync = False
                sent = trio.current_time()
                await self._reconciler.append(rows)
                self._took = trio.current_time() - sent
                self._in_sync = True
                self._has_failed, self.refusal = False, None
                self._pauses.reset()
                self._holds.reset()
                self._reconciler.acknowledge(rows)

    def _new_reconciler(self) -> Reconciler:
        if self.table.name in SHARED_TABLES:
            kind: type[Reconciler] = SharedReconciler
        else:
            is_numbered = self.engine is TableEngine.MERGETREE
            kind = NumberedReconciler if is_numbered else Reconciler
        return kind(self.table, self.queue, self.store, self.acknowledged, self.gap)

    def _audit_later(self, seconds: float = 0.0) -> None:
        among_all = self.store.writers / AUDITS_PER_SECOND
        self._next_audit = trio.current_time() + max(seconds, self._audit_after, among_all)

    async def _note_fingerprint(self) -> None:
        """Spare the next run the full read, if nobody touches the table's files until then."""
        async with self.queue.write_lock:
            if self._in_sync and (fingerprint := await self.store.fingerprint(self.table)):
                self.queue.checked(fingerprint)
