"""Exactly once by number, for a table in which each row bears its own.

The number is the row's position in the journal, from where the table began for this journal.
Nothing is counted to know what a table has, and nothing depends on the order in which it keeps its
rows:

- A batch keeps its bounds in the journal until it is acknowledged, across restarts. If nothing of
  it is to be seen after an INSERT of which nobody heard, the same rows go again as the same batch,
  which the table knows by its token and stores once.
- Then, and for all that the journal still has at a start, after a restart of the engine or when the
  number of rows is not what it should be, the table's rows are compared by their numbers. What is
  missing goes again under a new token, since a table may know a batch again whose rows it has lost.
  A replica that has not caught up is waited for: what it lacks until then means nothing.
- Another row under a number is a conflict: somebody else writes there. So are numbers beyond the
  journal's end, unless the machine was started anew: then it is the journal that lost its end.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from mexc_trio.clickhouse.numbered import MissingNumbers
from mexc_trio.clickhouse.repair import same_server_start
from mexc_trio.clickhouse.tables import Numbering
from mexc_trio.errors import StoreRejected, TableDamaged
from mexc_trio.record.reconcile import BATCH, OR_AN_OLD_JOURNAL, Reconciler
from mexc_trio.rows import RowTuple
from mexc_trio.spans import now

log = logging.getLogger(__name__)

_MISSING: Final = "holes"  # as journals have it
_FROM: Final = "numbered from"
_AGAIN: Final = "appended again"
_TIMES: Final = 4
"""How often rows are appended again before a table is one that does not keep them."""
SHOWN: Final = 100
"""Characters of a row that are shown."""


@attrs.define(eq=False)
class NumberedReconciler(Reconciler):
    """One table of numbered rows and its queue. Nobody else writes to the table."""

    async def append(self, rows: Sequence[RowTuple]) -> None:
        """Insert the first rows of the queue as a batch of which the journal knows the bounds."""
        self.queue.send(len(rows))
        await self._send(rows)

    async def _send(self, rows: Sequence[RowTuple]) -> None:
        first = self.queue.number(self.queue.acked)
        numbering = Numbering(range(first, first + len(rows)), self.queue.token())
        await self.store.append(self.table, rows, numbering)

    async def _reconcile(self, engine: str) -> None:
        queue = self.queue
        is_known = queue.verified and same_server_start(queue.engine, engine)
        if queue.base is None:
            await self._find_base()
        waiting = queue.sent - queue.acked
        if waiting and not queue.after_reboot:
            first = queue.number(queue.acked)
            # Whether any of the batch is there, whether or not the table knows its token (still).
            if not await self.store.rows_between(self.table, first, first + waiting):
                await self._send(queue.head(waiting))
        is_whole = await self.store.count(self.table) == (queue.table_rows or 0) + waiting
        first = queue.acked
        if not (is_known and is_whole):
            first = min(first, max(queue.first_kept(), int(queue.recall(_FROM) or 0)))
        try:
            await self._compare_with_journal(first)
        except TableDamaged as error:
            raise StoreRejected(
                f"table {self.table.name} at {self.store.name} cannot be read: {error}. A restart "
                f"of the engine puts damaged parts aside; what the journal has is appended again"
            ) from error
        if queue.engine != engine:
            queue.checked(engine)

    async def _find_base(self) -> None:
        """Find the number of the journal's first row: above all that there are."""
        queue = self.queue
        rows = await self.store.count(self.table)
        is_new = queue.table_rows is None
        if is_new:
            await self._first_contact(rows)
            rows = queue.table_rows or 0
        found = await self.store.numbers(self.table)
        if is_new or rows == queue.table_rows:
            end, since = 0 if found is None else found.highest + 1, queue.acked
        else:
            # A table that was moved may have rows of an INSERT of which nobody heard, or lack some.
            end, since = queue.table_rows or 0, 0
        self._count_from(since, end - queue.acked)
        queue.sent = queue.acked

    def _count_from(self, position: int, base: int) -> None:
        """Give rows their numbers from another one on; the earlier ones are not compared again."""
        self.queue.note(_FROM, str(position))
        self.queue.base = base

    async def _compare_with_journal(self, first: int) -> None:
        """Compare rows from a position on, append what is missing, and set the queue's head."""
        queue, table = self.queue, self.table
        found = await self.store.numbers(table)
        beyond = queue.acked if found is None else found.highest + 1 - queue.number(0)
        # What came in this run may stand where the journal had rows that it lost.
        known = queue.earlier if queue.after_reboot else queue.end
        end = max(min(beyond, known), min(queue.sent, known), queue.acked)
        if beyond > end and not queue.after_reboot:
            raise self._conflict(
                f"has rows up to number {queue.number(beyond) - 1}, which were not recorded here: "
                f"something else writes to it",
                OR_AN_OLD_JOURNAL,
            )
        again = 0
        for at in range(first, end, BATCH):
            again += await self._compare_rows(at, min(at + BATCH, end))
        if beyond > end:
            self._take_lost_end(beyond, end)
        ours = end - queue.acked
        rows, should = await self.store.count(table), (queue.table_rows or 0) + ours
        lost = should - rows if queue.table_rows is not None else 0
        if lost > 0 or again > ours:
            log.warning(
                "table %s: %s: %d rows are appended again from the journal%s",
                table.name, self._cause, again, f", {lost} are lost" if lost > 0 else "",
            )  # fmt: skip
        if lost > 0:
            await self._write_gaps(lost, end)
        if ours:
            log.info("table %s: %d rows of an unanswered INSERT had arrived", table.name, ours)
        for at in range(queue.acked, end, BATCH):
            self.acknowledged(queue.rows(at, min(BATCH, end - at)))
        queue.move_head(end, rows)
        if queue.began is None and found is not None:
            queue.began = found.oldest

    async def _compare_rows(self, first: int, end: int) -> int:
        """Append what is missing of the rows between two positions; return how many that was."""
        missing = await self._missing(first, end)
        again = len(missing)
        for _ in range(_TIMES):
            if not missing:
                return again
            await self._append_again(missing)
            # It may be known for an INSERT whose rows are lost, or on their way from a replica.
            await self.store.until_conclusive(self.table)
            missing = await self._missing(first, end)
        raise StoreRejected(
            f"table {self.table.name} at {self.store.name} takes rows and has not got them "
            f"afterwards: {len(missing)}, from number {min(missing)} on"
        )

    async def _missing(self, first: int, end: int) -> dict[int, RowTuple]:
        """Return the rows between two positions that the table lacks, by their numbers."""
        queue, table = self.queue, self.table
        ours = dict(enumerate(queue.rows(first, end - first), queue.number(first)))
        there: set[int] = set()
        twice = 0
        for number, row in await self.store.rows_between(
            table, queue.number(first), queue.number(end)
        ):
            if row != ours[number]:
                raise self._conflict(
                    f"has another row {number} than was recorded here, {str(row)[:SHOWN]}: "
                    f"something else writes to it"
                )
            twice += number in there
            there.add(number)
        if twice:
            log.error(
                "table %s has %d rows twice, number and all; OPTIMIZE TABLE %s FINAL DEDUPLICATE "
                "removes them", table.name, twice, table.name,
            )  # fmt: skip
        # Numbers below 0 are of rows that the table lost before its rows were numbered.
        return {n: row for n, row in ours.items() if n not in there and n >= 0}

    async def _append_again(self, missing: Mapping[int, RowTuple]) -> None:
        """Append what is missing under a token that the batch has not had.

        The same token until that is acknowledged: a host that was left may have it under way.
        """
        queue, numbers = self.queue, tuple(missing)
        times = int(queue.recall(_AGAIN) or 0)
        which = hashlib.sha256(repr(numbers).encode()).hexdigest()[:16]
        token = f"{queue.token()} again {times} {which}"
        await self.store.append(self.table, [*missing.values()], Numbering(numbers, token))
        queue.note(_AGAIN, str(times + 1))

    def _take_lost_end(self, beyond: int, end: int) -> None:
        more = beyond - end
        # See `Reconciler`: the ledger of gaps has what the journal lost from its last row on.
        log.warning(
            "table %s: up to %d rows are not in the journal, which lost its end with the power",
            self.table.name, more,
        )  # fmt: skip
        self._count_from(end, self.queue.number(more))

    async def _write_gaps(self, lost: int, end: int) -> None:
        """Write the gaps of rows that the journal no longer has."""
        queue = self.queue
        found = await self.store.numbers(self.table)
        following = queue.first_time(end) or now()
        first = following if found is None else found.oldest
        detail = f"{lost} rows lost"
        spans = list(
            self._newly_missing(await self.store.missing_numbers(self.table)) if found else ()
        )
        if queue.began is None or first > queue.began or not spans:
            spans.insert(0, (min(queue.began or first, first), first))
            queue.began = first
        for start, until in spans:
            self.gap(self._cause, detail, start, until)

    def _newly_missing(self, missing: Sequence[MissingNumbers]) -> Iterator[tuple[int, int]]:
        """Yield from when to when rows are missing, where the ledger does not have it yet."""
        told = set(self.queue.recall(_MISSING).split())
        for one in missing:
            if f"{one.before}:{one.rows}" not in told:
                yield one.start, one.end
        self.queue.note(_MISSING, " ".join(f"{one.before}:{one.rows}" for one in missing))
