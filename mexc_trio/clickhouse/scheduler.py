"""When a table's rows go, and which tables' go first: one scheduler of all INSERTs into a store.

An INSERT costs a millisecond of processor time however few rows it has, and a thousand tables with
a row or two a second each would take more than all the rest together. So these are the rules:

1. A table's rows go when the first of them has waited for `linger`.
2. All tables together make `INSERTS_PER_SECOND` at the most, and no more than the store takes.
3. Of the tables that are due, those go first whose rows have waited longest in sum.
4. Each counts as if a row a second more waited, so that one with a row an hour is not forgotten.
5. What goes within an eighth of `linger` goes together, see `coalescer`.

By rule 3 the time that a row waits falls with the square root of its table's rate: of 1,200 tables
the busiest goes once a second, and a quiet one every ten.
"""

import heapq
import math
from collections.abc import Callable
from typing import Final, Protocol

import attrs
import trio

from mexc_trio.clickhouse.coalescer import LONGEST

INSERTS_PER_SECOND: Final = 150
"""INSERTs of all tables together at the most, while rows wait no longer than is usual."""
TICKS: Final = 8
"""How often within one `linger` tables get their slots."""
SHORTEST_TICK: Final = 0.01


class Backlogged(Protocol):
    """What waits: a table's queue."""

    @property
    def backlog(self) -> int:
        """How many rows wait by now."""


@attrs.define(eq=False)
class _Slot:
    """A table that waits for its slot."""

    queue: Backlogged
    began: float
    """When its first row came, by Trio's clock."""
    due: float
    granted: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False)
class InsertScheduler:
    """Gives the tables of one store their slots."""

    _at_once: int
    """INSERTs that the store is given at one time."""
    _under_way: Callable[[], int]
    """Tells how many it has been given that have not ended."""
    # In the order in which they came.
    _waiting: dict[_Slot, None] = attrs.field(factory=dict, init=False)
    _somebody_waits: trio.Event = attrs.field(factory=trio.Event, init=False)
    _tick: float = attrs.field(default=math.inf, init=False)
    # How many INSERTs may be granted by rule 2, and when that was reckoned.
    _allowed: float = attrs.field(default=0.0, init=False)
    _reckoned: float = attrs.field(default=-math.inf, init=False)

    async def scheduled(self, wait: float, queue: Backlogged) -> None:
        """Wait until the rows that a table's queue holds are to go.

        They wait for company for `wait` seconds in any case.
        """
        now = trio.current_time()
        slot = _Slot(queue, now, now + wait)
        self._waiting[slot] = None
        self._tick = min(self._tick, max(wait / TICKS, SHORTEST_TICK))
        self._somebody_waits.set()
        try:
            await slot.granted.wait()
        finally:
            self._waiting.pop(slot, None)

    async def run(self) -> None:
        """Give slots until cancelled."""
        while True:
            await self._somebody_waits.wait()
            if self._waiting:
                self._grant()
                await trio.sleep(self._tick)
            else:
                self._somebody_waits = trio.Event()
                self._tick = math.inf

    def _grant(self) -> None:
        """Give slots to those that would be due before the next tick, as far as rule 2 allows."""
        now = trio.current_time()
        more = INSERTS_PER_SECOND * (now - self._reckoned)
        self._allowed = min(self._allowed + more, max(INSERTS_PER_SECOND * self._tick, LONGEST))
        self._reckoned = now
        next_tick = now + self._tick
        due = [slot for slot in self._waiting if slot.due < next_tick]
        most = max(0, min(int(self._allowed), self._at_once - self._under_way()))

        def urgency(slot: _Slot) -> float:
            waited = now - slot.began
            return (slot.queue.backlog + waited) * waited

        for slot in due if len(due) <= most else heapq.nlargest(most, due, key=urgency):
            self._allowed -= 1
            del self._waiting[slot]
            slot.granted.set()
