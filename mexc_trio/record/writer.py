"""From the journal into the store, exactly once.

The writer takes rows from the head of a table's queue, inserts them, and only then moves the head.
When it does not know what became of an INSERT (no answer, the program was killed, the server was),
it looks before it writes again: the journal remembers how many rows the table had, the engine says
how many it has, and the rows in between must be the first ones of the queue. That comparison is
`_reconcile`; it runs at the start and after every error, and a quick look at the count runs once a
minute.
"""

import logging
import zlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import attrs
import trio

from mexc_trio.clickhouse.repair import Soundness, same_incarnation
from mexc_trio.clickhouse.schema import RowTuple, Table
from mexc_trio.errors import (
    StoreError,
    StoreRejected,
    StoreUnavailable,
    TableConflict,
    TableDamaged,
    TableMissing,
)
from mexc_trio.journal import Queue
from mexc_trio.rows import Cause
from mexc_trio.spans import now

log = logging.getLogger(__name__)

BATCH: Final = 10_000
"""Rows of one INSERT at the most. After an outage this is what catches up; it bounds memory."""
INSERTS_PER_SECOND: Final = 100
"""INSERTs of all writers together, about, from which on quiet tables wait longer than `linger`:
1,200 tables up to 12 seconds."""
COMPANY: Final = 50
"""Rows with which a table need not wait longer than `linger`; others wait for about so many."""
MANY: Final = 10
"""Writers of one store from which on their INSERTs keep to a common beat, and go together."""
BEATS: Final = 8
"""Beats of one linger. A row waits for `linger` at the most, and so for one beat less at least."""
AUDIT_INTERVAL: Final = 60.0
"""Seconds between two looks at the table's count while all goes well, at least."""
FIRST_AUDIT: Final = 1.0
"""Seconds until the first such look after a start: a second recorder of the table is soon found."""
AUDITS_PER_SECOND: Final = 2
"""Such looks of all writers together, at the most. One costs more than an INSERT."""
WATCHED: Final = 5.0
"""Seconds for which a table is watched that has new rows of which this journal knows nothing."""
RECENT: Final = 60.0
"""Seconds for which a row is new: another recorder may be about to write the next one."""
DRAIN_TIMEOUT: Final = 4.0
"""Seconds that a stopping writer may take to write what is left. The journal keeps the rest."""
LEDGER_DRAIN_TIMEOUT: Final = 1.0
"""The same for the ledger's writer, which stops after all others."""
QUICKLY_READ: Final = 1_000_000
"""Rows of a table that a stopping writer may still read in full: a third of a second."""
COMPARED: Final = 100
"""Rows by which the end of a table is recognised."""
LOOKED_UP: Final = 500
"""Rows of the ledger that are looked for at once, however many it has."""
FIRST_PAUSE: Final = 0.25
"""Seconds until a table that failed twice in a row is tried again; doubles up to `LAST_PAUSE`."""
LAST_PAUSE: Final = 10.0
FIRST_HOLD: Final = 1.0
"""Seconds until a store that refused is asked again; doubles up to `LAST_HOLD`."""
LAST_HOLD: Final = 60.0

GapRecorder = Callable[[Cause, str, int, int], None]
"""Takes cause, detail, start and end in milliseconds of a gap that is none of the exchange's."""


def longest_wait(linger: float, writers: int) -> float:
    """Return for how many seconds a row may wait for company where so many share a store."""
    return max(linger, writers / INSERTS_PER_SECOND) if linger else 0.0


class AsyncStore(Protocol):
    """What a writer needs of a store; the one in `mexc_trio.clickhouse.async_store` says more."""

    writers: int
    """How many writers share the store."""

    @property
    def name(self) -> str: ...
    @property
    def away_since(self) -> float | None: ...

    async def append(self, table: Table, rows: Sequence[RowTuple]) -> None: ...
    async def quiet(self, table: Table) -> None: ...
    async def count(self, table: Table) -> int: ...
    async def prepare(self, tables: Sequence[Table]) -> list[str]: ...
    async def server_start_id(self) -> str: ...
    async def seal(self, table: Table) -> str: ...
    async def make_sound(self, table: Table) -> Soundness: ...
    async def rows_at(self, table: Table, first: int, n: int) -> list[RowTuple]: ...
    async def those_there(self, table: Table, rows: Sequence[RowTuple]) -> set[RowTuple]: ...
    async def newest(self, table: Table) -> int | None: ...
    async def put_aside(self, table: Table) -> str: ...
    async def available(self) -> None: ...
    def say_refused(self, table: Table, error: StoreError) -> None: ...


@attrs.define(eq=False)
class Writer:
    """Writes one table's queue. Nobody else writes to the table."""

    table: Table
    queue: Queue
    gate: AsyncStore
    linger: float
    """Seconds a row may wait for company."""
    acknowledged: Callable[[Sequence[RowTuple]], None]
    """Told which rows the store has acknowledged in this run."""
    gap: GapRecorder
    drain_timeout: float = DRAIN_TIMEOUT
    """Seconds that a stop may take to write what is left; then one INSERT's time at the most."""
    refusal: StoreError | None = attrs.field(default=None, init=False)
    """Why rows are held back although the store answers; None while they are written."""
    _refusals: int = attrs.field(default=0, init=False)
    _settled: bool = attrs.field(default=False, init=False)
    _cause: Cause = attrs.field(default=Cause.TABLE_SHORTER, init=False)
    """Why the table may have fewer rows than it should; until it is settled."""
    _next_look: float = attrs.field(default=0.0, init=False)
    _audit_after: float = attrs.field(default=FIRST_AUDIT, init=False)
    _failures: int = attrs.field(default=0, init=False)
    _took: float = attrs.field(default=0.0, init=False)
    """Seconds that the last INSERT took."""

    async def run(self) -> None:
        """Write until cancelled, then write what is left.

        Whatever the store says, this goes on: what is received waits in the journal meanwhile.

        Raises:
            JournalError: the journal cannot be read or written.
        """
        self.gate.writers += 1
        try:
            while True:
                if self._settled and not self.queue.backlog:
                    await self.queue.arrival()
                if self._settled and self.queue.backlog < BATCH:
                    await self._wait_for_company()
                try:
                    await self._step_or_wait()
                except StoreError as error:
                    await self._hold_back(error)
        except trio.Cancelled:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self.drain_timeout):
                await self.drain()
            raise
        finally:
            self.gate.writers -= 1

    async def _wait_for_company(self) -> None:
        # The INSERT's own time counts, so that its first row is to be seen after `linger`.
        due = trio.current_time() + self.linger - min(self._took, self.linger / 4)
        await trio.sleep_until(self._beat(due))
        # An INSERT costs half a millisecond of processor time however few rows it has: a thousand
        # quiet tables with one a second each would take more than all the rest together.
        cycle = longest_wait(self.linger, self.gate.writers) - self.linger
        if cycle > 0:
            # Each table has its own moment in the cycle, or all would go at once after an outage.
            moment = zlib.crc32(self.table.name.encode()) / 2**32 * cycle
            company = self.linger * max(0.0, COMPANY / self.queue.backlog - 1)
            await trio.sleep_until(self._beat(due + min((moment - due) % cycle, company)))

    def _beat(self, time: float) -> float:
        """Return the last common beat until then, where INSERTs are many enough to have one."""
        if self.gate.writers < MANY or not self.linger:
            return time
        return time - time % (self.linger / BEATS)

    async def _hold_back(self, error: StoreError) -> None:
        """Wait: the store refuses this table, or what it holds is not what was recorded.

        Neither passes quickly, and both may pass: somebody changes a right, a quota ends, a foreign
        row is removed. Nothing is written meanwhile that could be wrong.
        """
        self._settled = False
        self.refusal = error
        self.gate.say_refused(self.table, error)
        self._refusals += 1
        await trio.sleep(min(LAST_HOLD, FIRST_HOLD * 2.0 ** min(self._refusals - 1, 10)))

    async def until_empty(self) -> None:
        """Write until nothing is left, however long the store is away.

        Raises:
            TableConflict: something else writes to the table.
            StoreError: the store refuses.
            JournalError: the journal cannot be read or written.
        """
        while self.queue.backlog:
            await self._step_or_wait()
        await self._seal()

    async def drain(self) -> None:
        """Write until the queue is empty or the store is away. Errors are logged."""
        try:
            if not self.queue.proven and await self.gate.count(self.table) > QUICKLY_READ:
                return  # nobody who wants to stop waits for that; the next run does it
            while self.queue.backlog and self.gate.away_since is None:
                await self._step()
            await self._seal()
        except StoreUnavailable:
            pass  # the gate has said so; the rows stay in the journal
        except StoreError as error:
            log.error("table %s: %s; the rows stay in the journal", self.table.name, error)

    async def _step_or_wait(self) -> None:
        try:
            await self._step()
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
        self._settled = False
        self._failures += 1
        await self.gate.available()
        # The store answers, but perhaps it has trouble with this table only.
        if self._failures > 1:
            await trio.sleep(min(LAST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures - 2, 10)))

    async def _step(self) -> None:
        if not self._settled:
            with self.queue.held():
                await self._reconcile()
            return
        began = trio.current_time()
        if began > self._next_look:
            self._settled = await self._as_expected()
            # Old servers count by reading; they are asked the less often the longer it takes.
            self._look_later(100 * (trio.current_time() - began))
            self._audit_after = min(2 * self._audit_after, AUDIT_INTERVAL)
        if self._settled and self.queue.backlog:  # the look does not cost rows a second linger
            rows = self.queue.head(BATCH)
            # Set first and cleared after: an INSERT that nobody answers leaves it so.
            self._settled = False
            sent = trio.current_time()
            await self.gate.append(self.table, rows)
            self._took = trio.current_time() - sent
            self._settled = True
            self._failures = self._refusals = 0
            self.refusal = None
            self._acknowledge(rows)

    def _acknowledge(self, rows: Sequence[RowTuple]) -> None:
        self.queue.acknowledge(len(rows))
        self.acknowledged(rows)

    async def _as_expected(self) -> bool:
        return await self.gate.count(self.table) == self.queue.table_rows

    def _look_later(self, seconds: float = 0.0) -> None:
        among_all = self.gate.writers / AUDITS_PER_SECOND
        self._next_look = trio.current_time() + max(seconds, self._audit_after, among_all)

    async def _seal(self) -> None:
        """Spare the next run the full read, if nobody touches the table's files until then."""
        if self._settled and (seal := await self.gate.seal(self.table)):
            self.queue.checked(seal)

    async def _reconcile(self) -> None:
        """Find out what the table has, and set the head of the queue accordingly."""
        queue, table = self.queue, self.table
        if table.name in await self.gate.prepare([table]):
            self._cause = Cause.TABLE_DROPPED
        # An INSERT that we gave up may still be running. Before it has ended, nothing that the
        # table has or lacks means anything.
        await self.gate.quiet(table)
        engine = await self.gate.server_start_id()
        if await self._is_proven(engine):
            rows = await self.gate.count(table)
        else:
            sound = await self.gate.make_sound(table)
            rows = sound.rows
            if sound.kept_as:
                self._cause = Cause.TABLE_DAMAGED
                log.error(
                    "table %s: its end cannot be read (%s); %d rows are good; the damaged table "
                    "is kept as %s", table.name, sound.reason, rows, sound.kept_as,
                )  # fmt: skip
        if queue.engine != engine:
            queue.checked(engine)
        await self._compare(rows)
        self._settled = queue.proven = True
        self._cause = Cause.TABLE_SHORTER
        self._look_later()

    async def _is_proven(self, engine: str) -> bool:
        """Whether the table was read in full and nothing can have happened to it since."""
        known = self.queue.engine
        return bool(known) and (
            same_incarnation(known, engine) or known == await self.gate.seal(self.table)
        )

    async def _compare(self, rows: int) -> None:
        """Settle a table that has `rows` rows, whatever was expected."""
        expected = self.queue.table_rows
        if expected is None:
            await self._first_contact(rows)
        elif rows < expected:
            await self._shorter(rows, expected - rows)
        elif rows > expected:
            await self._longer(rows)
        if self.queue.began is None and rows:
            self.queue.began = await self._first_row()

    async def _first_contact(self, rows: int) -> None:
        queue = self.queue
        newest = await self.gate.newest(self.table) if rows else None
        if newest is not None or self._cause is Cause.TABLE_DAMAGED:
            # Rows that this journal knows nothing of: it was lost, or the table was recorded
            # from elsewhere. What came between them and our first row is unknown.
            log.warning("table %s: has %d rows that this journal does not know", queue.name, rows)
            if newest is not None and newest > now() - 1000 * RECENT:
                await self._watch(rows)
            if newest is not None:
                await queue.arrival()
            end = queue.first_time(queue.acked) or now()
            detail = f"the journal began anew beside a table of {rows} rows"
            if self._cause is Cause.TABLE_DAMAGED:
                detail += ", those that could be read"
            self.gap(Cause.JOURNAL_LOST, detail, end if newest is None else newest, end)
        if not rows:
            queue.began = now()
        queue.settle(queue.acked, rows)

    async def _watch(self, rows: int) -> None:
        """See that nobody else writes to the table, for a few seconds before we do.

        A recorder on another machine is held back by no lock of ours.
        """
        until = trio.current_time() + WATCHED
        while trio.current_time() < until:
            await trio.sleep(1)
            if (more := await self.gate.count(self.table) - rows) > 0:
                raise TableConflict(
                    f"table {self.table.name} at {self.gate.name} got {more} rows that are not "
                    f"from here: another recorder writes to it. Stop that one, or give the symbol "
                    f"a table of its own in settings.ini; the journal keeps what is not written"
                )

    async def _shorter(self, rows: int, lost: int) -> None:
        """Give the table again what it lost, as far as the journal still has it."""
        queue = self.queue
        kept = queue.first_kept()
        again, missing = max(queue.acked - lost, kept, 0), lost
        start: int | None = None
        end_is_lost = await self._ends_at(rows, queue.acked - lost)
        emptied = not end_is_lost and await self._ends_at(rows, queue.acked)
        if not emptied and end_is_lost is False:
            raise TableConflict(
                f"table {self.table.name} at {self.gate.name} has {lost} rows fewer than were "
                f"recorded, and its rows are not those that were recorded here. Give the symbol a "
                f"table of its own in settings.ini; the journal keeps what is not written"
            )
        if not emptied:
            start = await self.gate.newest(self.table) if rows else None
        # We went on writing: what is gone lies before the rows that are there.
        elif kept < queue.acked - rows and await self._emptied(rows):
            again, missing, rows = kept, lost + rows, 0
        else:
            again = queue.acked
        # The first row after what is gone is the next one to be written, or the table's first.
        written_next = not emptied or not rows
        gone = missing - (queue.acked - again)
        restored = lost - gone
        end = (queue.first_time(again) or now()) if written_next else await self._first_row()
        if gone:
            # Of a table that has nothing left it is known when it began, or nothing at all.
            start = min(start or queue.began or end, end)
            self.gap(self._cause, f"{gone} rows lost, {restored} restored", start, end)
        if not rows or not written_next:
            queue.began = end
        queue.settle(again, rows)
        log.warning(
            "table %s: %s: %d rows fewer than it had; %d are appended again from the journal%s",
            self.table.name, self._cause, lost, restored, f", {gone} are lost" if gone else "",
        )  # fmt: skip

    async def _emptied(self, rows: int) -> bool:
        """Empty a table whose rows the journal has all, so that it gets them again in order."""
        try:
            kept_as = await self.gate.put_aside(self.table)
        except StoreRejected as error:
            log.warning("table %s: what it lost stays lost: %s", self.table.name, error)
            return False
        log.warning(
            "table %s was emptied: the %d rows since are kept as %s, and written again in order",
            self.table.name, rows, kept_as,
        )  # fmt: skip
        return True

    async def _first_row(self) -> int:
        return int((await self.gate.rows_at(self.table, 0, 1))[0][0])

    async def _ends_at(self, rows: int, position: int) -> bool | None:
        """Whether the last rows are those before a position; None if the journal lacks them."""
        known = min(rows, position - self.queue.first_kept(), COMPARED)
        if known <= 0:
            return None
        found = await self.gate.rows_at(self.table, rows - known, known)
        return found == self.queue.rows(position - known, known)

    async def _longer(self, rows: int) -> None:
        """Acknowledge the rows of an INSERT that nobody heard of, if they are its rows."""
        queue = self.queue
        doubtful = queue.doubtful
        end = queue.earlier if doubtful else queue.end
        # What the table holds is compared with what it was given, not only counted: another
        # writer may have added as many.
        while more := rows - (queue.table_rows or 0):
            ours = queue.head(min(more, BATCH, end - queue.acked))
            if not ours:
                break
            if await self.gate.rows_at(self.table, queue.table_rows or 0, len(ours)) != ours:
                doubtful = False
                break
            log.info(
                "table %s: %d rows of an unanswered INSERT had arrived", self.table.name, len(ours)
            )
            self._acknowledge(ours)
        if not more:
            return
        if not doubtful:
            raise TableConflict(
                f"table {self.table.name} at {self.gate.name} has {more} rows more than were "
                f"recorded here: something else writes to it. Stop that, or give the symbol a "
                f"table of its own in settings.ini; the journal keeps what is not written. (If "
                f"instead the journal is an older copy, move it away)"
            )
        # Without --journal-sync, the journal's end can go with the power. What it lost beyond
        # this, the ledger of gaps has from the last row that it still knows.
        log.warning(
            "table %s: %d rows are not in the journal, which lost its end with the power",
            self.table.name, more,
        )  # fmt: skip
        queue.settle(queue.acked, rows)


class SharedWriter(Writer):
    """Writes the ledger of gaps, to which all recorders of a database may write.

    So its count says nothing, and its rows are looked for instead.
    """

    async def _as_expected(self) -> bool:
        return True

    async def _compare(self, rows: int) -> None:
        queue = self.queue
        stored = queue.acked
        while ours := queue.rows(stored, LOOKED_UP):
            there = await self.gate.those_there(self.table, ours)
            new = next((n for n, row in enumerate(ours) if row not in there), len(ours))
            stored += new
            if new < len(ours):
                break
        first = queue.first_kept()
        while first < stored <= queue.acked:
            begin = max(first, stored - LOOKED_UP)
            ours = queue.rows(begin, stored - begin)
            there = await self.gate.those_there(self.table, ours)
            lost = next((n for n, row in enumerate(reversed(ours)) if row in there), len(ours))
            stored -= lost
            if lost < len(ours):
                break
        if stored < queue.acked:
            log.warning(
                "table %s: %s: %d rows are appended again from the journal",
                self.table.name, self._cause, queue.acked - stored,
            )  # fmt: skip
        queue.settle(stored, rows)
