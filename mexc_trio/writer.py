"""From the journal into the store, exactly once.

The writer takes rows from the head of a table's queue, inserts them, and only then moves the head.
When it does not know what became of an INSERT (no answer, the program was killed, the server was),
it looks before it writes again: the journal remembers how many rows the table had, the table's
`count()` says how many it has, and the rows in between must be the first ones of the queue. That
comparison is `_reconcile`; it runs at the start and after every error, and a quick look at the
count runs once a minute.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import attrs
import trio

from mexc_trio.errors import StoreError, StoreUnavailable, TableConflict, TableMissing
from mexc_trio.gaps import Cause
from mexc_trio.journal import Queue
from mexc_trio.store.repair import Soundness, same_incarnation
from mexc_trio.store.schema import RowTuple, Table

log = logging.getLogger(__name__)

BATCH: Final = 10_000
"""Rows of one INSERT at the most. After an outage this is what catches up; it bounds memory."""
AUDIT_INTERVAL: Final = 60.0
"""Seconds between two looks at the table's count while all goes well."""
DRAIN_TIMEOUT: Final = 5.0
"""Seconds that a stopping writer may take to write what is left. The journal keeps the rest."""

HoleRecorder = Callable[[Cause, str, int, int], None]
"""Takes cause, detail, start and end in milliseconds of a hole that is none of the exchange's."""


class Gate(Protocol):
    """What a writer needs of a store; `mexc_trio.store.gate.Gate` is the real one and says more."""

    @property
    def name(self) -> str: ...
    @property
    def away_since(self) -> float | None: ...

    async def append(self, table: Table, rows: Sequence[RowTuple]) -> None: ...
    async def count(self, table: Table) -> int: ...
    async def prepare(self, tables: Sequence[Table]) -> list[str]: ...
    async def incarnation(self) -> str: ...
    async def make_sound(self, table: Table) -> Soundness: ...
    async def rows_at(self, table: Table, first: int, n: int) -> list[RowTuple]: ...
    async def newest(self, table: Table) -> int | None: ...
    async def available(self) -> None: ...


@attrs.define(eq=False)
class Writer:
    """Writes one table's queue."""

    table: Table
    queue: Queue
    gate: Gate
    linger: float
    """Seconds a row may wait for company."""
    acknowledged: Callable[[Sequence[RowTuple]], None]
    """Told which rows the store has acknowledged in this run."""
    hole: HoleRecorder
    _settled: bool = attrs.field(default=False, init=False)
    _looked: float = attrs.field(default=0.0, init=False)

    async def run(self) -> None:
        """Write until cancelled, then write what is left.

        Raises:
            TableConflict: something else writes to the table.
            StoreError: the store refuses for a reason that will not pass.
        """
        try:
            while True:
                if self._settled and not self.queue.backlog:
                    await self.queue.arrival()
                    await trio.sleep(self.linger)
                elif self._settled and self.queue.backlog < BATCH:
                    await trio.sleep(self.linger)
                await self._step_or_wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + DRAIN_TIMEOUT):
                await self.drain()
            raise

    async def until_empty(self) -> None:
        """Write until nothing is left, however long the store is away. Raises as `run` does."""
        while self.queue.backlog:
            await self._step_or_wait()

    async def drain(self) -> None:
        """Write until the queue is empty or the store is away. Errors are logged."""
        try:
            while (self.queue.backlog or not self._settled) and self.gate.away_since is None:
                await self._step()
        except StoreUnavailable:
            pass  # the gate has said so; the rows stay in the journal
        except StoreError as error:
            log.error("table %s: %s; the rows stay in the journal", self.table.name, error)

    async def _step_or_wait(self) -> None:
        try:
            await self._step()
        except StoreUnavailable:
            self._settled = False
            await self.gate.available()
        except TableMissing:
            self._settled = False

    async def _step(self) -> None:
        if not self._settled:
            await self._reconcile()
        elif trio.current_time() - self._looked > AUDIT_INTERVAL:
            self._looked = trio.current_time()
            self._settled = await self.gate.count(self.table) == self.queue.table_rows
        elif self.queue.backlog:
            batch = self.queue.head(BATCH)
            # Set first and cleared after: an INSERT that nobody answers leaves it so.
            self._settled = False
            await self.gate.append(self.table, batch.rows)
            self._settled = True
            self._acknowledge(batch.rows)

    def _acknowledge(self, rows: Sequence[RowTuple]) -> None:
        self.queue.acknowledge(len(rows))
        self.acknowledged(rows)

    async def _reconcile(self) -> None:
        """Find out what the table has, and set the head of the queue accordingly."""
        queue, table = self.queue, self.table
        created = table.name in await self.gate.prepare([table])
        reason = Cause.TABLE_DROPPED if created else Cause.TABLE_SHORTER
        engine = await self.gate.incarnation()
        rows = await self.gate.count(table)
        if not same_incarnation(queue.engine, engine):
            if rows:
                sound = await self.gate.make_sound(table)
                if sound.lost:
                    reason = Cause.TABLE_DAMAGED
                    log.error(
                        "table %s: %d rows at its end cannot be read (%s); kept as table %s",
                        table.name, sound.lost, sound.reason, sound.kept_as,
                    )  # fmt: skip
                rows = sound.rows
            queue.checked(engine)
        expected = queue.table_rows
        if expected is None:
            await self._first_contact(rows)
        elif rows < expected:
            await self._shorter(rows, expected - rows, reason)
        elif rows > expected:
            await self._longer(rows, rows - expected)
        self._settled = True
        self._looked = trio.current_time()

    async def _first_contact(self, rows: int) -> None:
        self.queue.settle(self.queue.acked, rows)
        newest = await self.gate.newest(self.table) if rows else None
        if newest is not None:
            # Rows that this journal knows nothing of: it was lost, or the table was recorded
            # from elsewhere. What came after them is unknown.
            log.warning(
                "table %s: has %d rows that this journal does not know", self.table.name, rows
            )
            self.hole(
                Cause.JOURNAL_LOST,
                f"the journal began anew beside a table of {rows} rows",
                newest,
                self.queue.first_time(self.queue.acked) or _now(),
            )

    async def _shorter(self, rows: int, lost: int, cause: Cause) -> None:
        """Give the table again what it lost of its end, as far as the journal still has it."""
        queue = self.queue
        again = max(queue.acked - lost, queue.first_kept(), 0)
        restored = queue.acked - again
        gone = lost - restored
        log.warning(
            "table %s: %s: %d rows fewer than it had; %d are appended again from the journal%s",
            self.table.name, cause, lost, restored,
            f", {gone} are lost" if gone else "",
        )  # fmt: skip
        if gone:
            start = await self.gate.newest(self.table) if rows else 0
            end = queue.first_time(again) or _now()
            self.hole(cause, f"{gone} rows lost, {restored} restored", start or 0, end)
        queue.settle(again, rows)

    async def _longer(self, rows: int, more: int) -> None:
        """Acknowledge the rows of an INSERT that nobody heard of, if they are its rows."""
        assert self.queue.table_rows is not None  # noqa: S101 - seen by the caller
        found = (
            await self.gate.rows_at(self.table, self.queue.table_rows, more)
            if more <= min(self.queue.backlog, BATCH * 2)
            else []
        )
        # What the store holds is compared with what it was given, not only counted: another
        # writer may have added as many.
        if not found or found != self.queue.head(more).rows[:more]:
            raise TableConflict(
                f"table {self.table.name} at {self.gate.name} has {more} rows more than were "
                f"recorded here: something else writes to it. Stop that, or give the symbol a "
                f"table of its own in settings.ini; the journal keeps what is not written"
            )
        log.info("table %s: %d rows of an unanswered INSERT had arrived", self.table.name, more)
        self._acknowledge(found)


def _now() -> int:
    return int(time.time() * 1000)
