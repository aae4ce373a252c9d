"""What is counted of INSERTs: how they ended, and how long they took."""

from bisect import bisect_left
from collections import Counter
from enum import StrEnum
from typing import Final

import attrs

from mexc_trio.errors import StoreUnavailable

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds up to which INSERTs are counted together."""


class Outcome(StrEnum):
    """How an INSERT ended."""

    STORED = "stored"
    UNAVAILABLE = "unavailable"
    """No answer: the outcome is unknown until the table has been asked."""
    REFUSED = "refused"


@attrs.define(eq=False)
class InsertCounters:
    """INSERTs of one store that were tried in this run."""

    outcomes: Counter[Outcome] = attrs.field(factory=Counter, init=False)
    rows: int = attrs.field(default=0, init=False)
    """Rows that the store has acknowledged."""
    seconds: float = attrs.field(default=0.0, init=False)
    """How long all took together."""
    buckets: list[int] = attrs.field(factory=lambda: [0] * (len(BOUNDS) + 1), init=False)
    """How many took at most so long, by `BOUNDS`, not adding up; the last one is for the rest."""

    def note(self, rows: int, seconds: float, error: Exception | None) -> None:
        """Count one."""
        if error is None:
            outcome = Outcome.STORED
            self.rows += rows
        elif isinstance(error, StoreUnavailable):
            outcome = Outcome.UNAVAILABLE
        else:
            outcome = Outcome.REFUSED
        self.outcomes[outcome] += 1
        self.seconds += seconds
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
