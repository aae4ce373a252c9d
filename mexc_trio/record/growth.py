"""When a table is rewritten by itself: the rule, and what it is measured by.

The engine keeps an entry in memory of every INSERT. When those of all tables take more than
`compact_mib`, the tables with most INSERTs are rewritten, one after another, until it is half of
that.

To rewrite a table costs what all its rows cost: done whenever a bound is reached, that would grow
with the square of the time. So a table must have had an INSERT for every `WORTH` of its rows. Then
no more than so many rows are ever rewritten for an INSERT, and what the engine keeps stays under 64
MiB until the tables have about 920 million rows; from then on it may be 0.07 bytes a row.
"""

import logging
import statistics
from collections import deque
from collections.abc import Sequence
from typing import Final

import attrs
import trio

from mexc_trio.clickhouse.compaction import CONVERTING, ENGINE
from mexc_trio.clickhouse.index_memory import MUCH, WHILE_RUNNING
from mexc_trio.clickhouse.suitability import table_engine
from mexc_trio.errors import StoreError, StoreRejected
from mexc_trio.journal import Queue
from mexc_trio.record.reconcile import BATCH
from mexc_trio.record.recording import Recording
from mexc_trio.texts import size

log = logging.getLogger(__name__)

WORTH: Final = 4_000
"""Rows of a table for each of its INSERTs, at the most, for it to be worth rewriting."""
FEW: Final = 1_000
"""INSERTs that are not worth a rewriting, which takes a fifth of a second for any table."""
INTERVAL: Final = 60.0
"""Seconds between two checks."""
REMEMBERED: Final = 60
"""Checks with which the present one is compared."""
PATIENCE: Final = 3600.0
"""Seconds to wait for a quiet moment, and after a failure."""


def worth_rewriting(queues: Sequence[Queue], bound: int) -> list[Queue]:
    """Return which of all tables to rewrite, and in which order; none while the bound is kept.

    It is in bytes of the engine's memory for INSERTs; 0 is no bound.
    """
    left = sum(one.inserts for one in queues) * WHILE_RUNNING
    chosen: list[Queue] = []
    if not bound or left <= bound:
        return chosen
    for one in sorted(queues, key=lambda one: one.inserts, reverse=True):
        if left <= bound // 2 or one.inserts < FEW:
            break
        if (one.table_rows or 0) <= WORTH * one.inserts:
            chosen.append(one)
            left -= one.inserts * WHILE_RUNNING
    return chosen


@attrs.define(eq=False)
class Growth:
    """Watches the tables of a recorder."""

    recording: Recording
    _known: dict[str, bool] = attrs.field(factory=dict, init=False)
    """Tables whose INSERTs of earlier runs were asked for, and whether they can be rewritten."""
    _later: dict[str, float] = attrs.field(factory=dict, init=False)
    """When a table that could not be rewritten is tried again, in Trio's time."""
    _came: deque[int] = attrs.field(factory=lambda: deque(maxlen=REMEMBERED), init=False)
    """How many rows came between checks."""
    _ends: int | None = attrs.field(default=None, init=False)
    _due_since: float | None = attrs.field(default=None, init=False)
    _warned_of: int = attrs.field(default=0, init=False)

    async def due(self) -> list[Queue]:
        """Return the queues of the tables that are to be rewritten now.

        Raises StoreError if the store does not answer.
        """
        # As it is now: while the store is asked, symbols come and go, and are verified.
        verified = [one for one in self.recording.collectors if one.queue.verified]
        for one in verified:
            if one.queue.name not in self._known:
                await self._look_at(one.symbol, one.queue)
        queues = [one.queue for one in verified if self._known[one.queue.name]]
        self._warn_of(sum(one.inserts for one in queues) * WHILE_RUNNING)
        quiet, now = self._is_quiet(), trio.current_time()
        tried = [one for one in queues if self._later.get(one.name, now) <= now]
        chosen = worth_rewriting(tried, self.recording.settings.compact_mib << 20)
        if not chosen:
            self._due_since = None
        elif self._due_since is None:
            self._due_since = now
        if not quiet and (self._due_since is None or now < self._due_since + PATIENCE):
            return []
        return chosen

    async def _look_at(self, symbol: str, queue: Queue) -> None:
        """Find out of what engine a table is, how many INSERTs it has had, and what was left."""
        store, beside = self.recording.store, queue.name + CONVERTING
        kinds = await store.engines([queue.name, beside])
        kind = kinds.get(queue.name)
        if kind is not None and beside in kinds:
            # It may be the table's beginning as another engine has it, or all of it as it was.
            log.warning(
                "table %s is what a conversion that died has left, and takes room: mexc-trio "
                "convert %s --engine %s removes it; with the other engine it goes on",
                beside, symbol, table_engine(kind),
            )  # fmt: skip
        if kind == ENGINE:
            queue.inserts = await store.inserts(queue.name)
            try:
                if await store.remove_leftover(queue.name):
                    log.info("table %s: what a compaction that died had left is gone", queue.name)
            except StoreRejected as error:
                log.warning("%s", error)
        self._known[queue.name] = kind == ENGINE

    def forget(self, queue: Queue) -> None:
        """Ask anew of what engine a table is."""
        self._known.pop(queue.name, None)

    def failed(self, queue: Queue, error: StoreError) -> None:
        """Take note that a table could not be rewritten; it is tried again in an hour."""
        self._later[queue.name] = trio.current_time() + PATIENCE
        log.warning("%s; it is tried again in an hour", error)

    def _is_quiet(self) -> bool:
        """Whether no more comes than usually, and what came is written."""
        ends = sum(one.queue.end for one in self.recording.collectors)
        came, self._ends = 0 if self._ends is None else ends - self._ends, ends
        usual = statistics.median(self._came) if self._came else came
        self._came.append(came)
        caught_up = self.recording.store.away_since is None and self.recording.backlog < BATCH
        return caught_up and came <= usual

    def _warn_of(self, memory: int) -> None:
        if memory < self._warned_of:
            self._warned_of = memory - memory % MUCH
        if memory >= self._warned_of + MUCH:
            self._warned_of = memory
            log.warning(
                "the engine keeps an index entry of every INSERT: about %s of its memory; "
                "mexc-trio compact makes it next to nothing, and a longer --linger makes fewer",
                size(memory),
            )
