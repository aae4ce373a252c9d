"""Is a table what its queue says, and if not, what is true: so each row is there once and in order.

The journal remembers how many rows the table had when they were last acknowledged. If it has more,
they must be the first rows of the queue: an INSERT of which nobody heard had arrived. If it has
fewer, it gets again what the journal still has, and the rest is a gap. Rows that are nobody's stop
the writing, not the receiving.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import trio

from mexc_trio.clickhouse.async_store import AsyncStore
from mexc_trio.clickhouse.repair import same_server_start
from mexc_trio.clickhouse.tables import Table
from mexc_trio.errors import StoreRejected, TableConflict
from mexc_trio.journal import Queue
from mexc_trio.rows import Cause, RowTuple
from mexc_trio.spans import now

log = logging.getLogger(__name__)

BATCH: Final = 10_000
"""Rows that are written or compared at once, at the most. After an outage this is what catches up;
it bounds memory."""
WATCHED: Final = 5.0
"""Seconds for which a table is watched that has new rows of which this journal knows nothing."""
RECENT: Final = 60.0
"""Seconds for which a row is new: another recorder may be about to write the next one."""
COMPARED: Final = 100
"""Rows by which the end of a table is recognised."""
LOOKED_UP: Final = 500
"""Rows of the ledger that are looked for at once, however many it has."""

OR_AN_OLD_JOURNAL: Final = ". (If instead the journal is an older copy, move it away)"

GapRecorder = Callable[[Cause, str, int, int], None]
"""Takes cause, detail, start and end in milliseconds of a gap that is none of the exchange's."""


@attrs.define(eq=False)
class Reconciler:
    """One table and its queue. Nobody else writes to the table."""

    table: Table
    queue: Queue
    store: AsyncStore
    acknowledged: Callable[[Sequence[RowTuple]], None]
    gap: GapRecorder
    _cause: Cause = attrs.field(default=Cause.TABLE_SHORTER, init=False)
    """Why the table may have fewer rows than it should; until that is known."""

    async def as_expected(self) -> bool:
        """Whether the engine is the one we know, and the table has the rows that it should have.

        A restart between two INSERTs goes unheard: the client connects anew without a word.
        """
        known = same_server_start(self.queue.engine, await self.store.server_start_id())
        return known and await self._has_its_rows()

    async def _has_its_rows(self) -> bool:
        return await self.store.count(self.table) == self.queue.table_rows

    def acknowledge(self, rows: Sequence[RowTuple]) -> None:
        """Note that the first rows of the queue are in the table."""
        self.queue.acknowledge(len(rows))
        self.acknowledged(rows)

    async def append(self, rows: Sequence[RowTuple]) -> None:
        """Insert the first rows of the queue; raises StoreError if the outcome is unknown."""
        await self.store.append(self.table, rows)

    async def reconcile(self, *, created: bool = False) -> None:
        """Find out what the table has, and set the head of the queue accordingly.

        `created` says that the table was missing and was made for this. Raises TableConflict if
        something else writes to it, StoreError if the store does not answer, or refuses,
        JournalError if the journal cannot be read or written.
        """
        if created:
            self._cause = Cause.TABLE_DROPPED
        with self.queue.retained(), self.store.one_host():
            # An INSERT that we gave up may still be running. Before it has ended, nothing that the
            # table has or lacks means anything, nor must rows meet it under another token.
            await self.store.until_conclusive(self.table)
            await self._reconcile(await self.store.server_start_id())
        self.queue.verified = True
        self._cause = Cause.TABLE_SHORTER

    async def _reconcile(self, engine: str) -> None:
        """Do so now that nothing is on its way there; `engine` is its `server_start_id`."""
        queue, table = self.queue, self.table
        queue.base = None
        if await self._is_verified(engine):
            rows = await self.store.count(table)
        else:
            sound = await self.store.make_sound(table)
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

    async def _is_verified(self, engine: str) -> bool:
        """Whether the table was read in full and nothing can have happened to it since."""
        known = self.queue.engine
        return bool(known) and (
            same_server_start(known, engine) or known == await self.store.fingerprint(self.table)
        )

    async def _compare(self, rows: int) -> None:
        """Bring the queue in line with a table that has `rows` rows, whatever was expected."""
        expected = self.queue.table_rows
        if expected is None:
            await self._first_contact(rows)
        elif rows < expected:
            await self._restore_lost(rows, expected - rows)
        elif rows > expected:
            await self._acknowledge_arrived(rows)
        if self.queue.began is None and rows:
            self.queue.began = await self._first_row_time()

    async def _first_contact(self, rows: int) -> None:
        queue = self.queue
        newest = await self.store.newest(self.table) if rows else None
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
            # Rows may have come before the store answered.
            queue.began = min(queue.first_time(queue.acked) or now(), now())
        queue.move_head(queue.acked, rows)

    async def _watch(self, rows: int) -> None:
        """Check that nobody else writes to the table, for a few seconds before we do.

        A recorder on another machine knows no lock of ours.
        """
        until = trio.current_time() + WATCHED
        while trio.current_time() < until:
            await trio.sleep(1)
            if (more := await self.store.count(self.table) - rows) > 0:
                raise self._conflict(
                    f"got {more} rows that are not from here: another recorder writes to it"
                )

    async def _restore_lost(self, rows: int, lost: int) -> None:
        """Give the table again what it lost, as far as the journal still has it."""
        queue = self.queue
        kept = queue.first_kept()
        again, missing = max(queue.acked - lost, kept, 0), lost
        start: int | None = None
        end_is_lost = await self._ends_at(rows, queue.acked - lost)
        emptied = not end_is_lost and await self._ends_at(rows, queue.acked)
        if not emptied and end_is_lost is False:
            raise self._conflict(
                f"has {lost} rows fewer than were recorded, and its rows are not those that were "
                f"recorded here: something else writes to it"
            )
        if not emptied:
            start = await self.store.newest(self.table) if rows else None
        # We went on writing: what is gone lies before the rows that are there.
        elif kept < queue.acked - rows and await self._put_aside(rows):
            again, missing, rows = kept, lost + rows, 0
        else:
            again = queue.acked
        # The first row after what is gone is the next one to be written, or the table's first.
        written_next = not emptied or not rows
        gone = missing - (queue.acked - again)
        restored = lost - gone
        end = (queue.first_time(again) or now()) if written_next else await self._first_row_time()
        if gone:
            # Of a table that has nothing left it is known when it began, or nothing at all.
            start = min(start or queue.began or end, end)
            self.gap(self._cause, f"{gone} rows lost, {restored} restored", start, end)
        if not rows or not written_next:
            queue.began = end
        queue.move_head(again, rows)
        log.warning(
            "table %s: %s: %d rows fewer than it had; %d are appended again from the journal%s",
            self.table.name, self._cause, lost, restored, f", {gone} are lost" if gone else "",
        )  # fmt: skip

    async def _put_aside(self, rows: int) -> bool:
        """Empty a table whose rows the journal has all, so that it gets them again in order."""
        try:
            kept_as = await self.store.put_aside(self.table)
        except StoreRejected as error:
            log.warning("table %s: what it lost stays lost: %s", self.table.name, error)
            return False
        log.warning(
            "table %s was emptied: the %d rows since are kept as %s, and written again in order",
            self.table.name, rows, kept_as,
        )  # fmt: skip
        return True

    def _conflict(self, what: str, more: str = "") -> TableConflict:
        return TableConflict(
            f"table {self.table.name} at {self.store.name} {what}. Stop that, or give the symbol a "
            f"table of its own in settings.ini; the journal keeps what is not written{more}"
        )

    async def _first_row_time(self) -> int:
        return int((await self.store.rows_at(self.table, 0, 1))[0][0])

    async def _ends_at(self, rows: int, position: int) -> bool | None:
        """Whether the last rows are those before a position; None if the journal lacks them."""
        known = min(rows, position - self.queue.first_kept(), COMPARED)
        if known <= 0:
            return None
        found = await self.store.rows_at(self.table, rows - known, known)
        return found == self.queue.rows(position - known, known)

    async def _acknowledge_arrived(self, rows: int) -> None:
        """Acknowledge the rows of an INSERT that nobody heard of, if they are its rows."""
        queue = self.queue
        end_may_be_lost = queue.after_reboot
        end = queue.earlier if end_may_be_lost else queue.end
        # What the table holds is compared with what it was given, not only counted: another
        # writer may have added as many.
        while more := rows - (queue.table_rows or 0):
            ours = queue.head(min(more, BATCH, end - queue.acked))
            if not ours:
                break
            if await self.store.rows_at(self.table, queue.table_rows or 0, len(ours)) != ours:
                end_may_be_lost = False
                break
            log.info(
                "table %s: %d rows of an unanswered INSERT had arrived", self.table.name, len(ours)
            )
            self.acknowledge(ours)
        if not more:
            return
        if not end_may_be_lost:
            raise self._conflict(
                f"has {more} rows more than were recorded here: something else writes to it",
                OR_AN_OLD_JOURNAL,
            )
        # Without --journal-sync, the journal's end can go with the power. What it lost beyond
        # this, the ledger of gaps has from the last row that it still knows.
        log.warning(
            "table %s: %d rows are not in the journal, which lost its end with the power",
            self.table.name, more,
        )  # fmt: skip
        queue.move_head(queue.acked, rows)


class SharedReconciler(Reconciler):
    """The ledger of gaps, to which many write: its count says nothing, its rows are looked for."""

    async def _has_its_rows(self) -> bool:
        return True

    async def _compare(self, rows: int) -> None:
        queue = self.queue
        stored = queue.acked
        while ours := queue.rows(stored, LOOKED_UP):
            there = await self.store.present_rows(self.table, ours)
            new = next((n for n, row in enumerate(ours) if row not in there), len(ours))
            stored += new
            if new < len(ours):
                break
        first = queue.first_kept()
        while first < stored <= queue.acked:
            begin = max(first, stored - LOOKED_UP)
            ours = queue.rows(begin, stored - begin)
            there = await self.store.present_rows(self.table, ours)
            lost = next((n for n, row in enumerate(reversed(ours)) if row in there), len(ours))
            stored -= lost
            if lost < len(ours):
                break
        if stored < queue.acked:
            log.warning(
                "table %s: %s: %d rows are appended again from the journal",
                self.table.name, self._cause, queue.acked - stored,
            )  # fmt: skip
        queue.move_head(stored, rows)
