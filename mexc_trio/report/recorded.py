"""A range of one symbol: step by step, its gaps, and how much of it was recorded."""

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from mexc_trio.analysis.coverage import Silence
from mexc_trio.analysis.gaps import LedgerGap
from mexc_trio.analysis.minutes import Minute
from mexc_trio.channels import ALL
from mexc_trio.rows import Channel
from mexc_trio.spans import SECOND

STEPS: Final = tuple(SECOND * n for n in (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600))
"""Lengths of what is added up, in milliseconds."""
MOST: Final = 1440
"""Steps of a range: a day has a minute each, an hour five seconds."""


@attrs.frozen
class Covered:
    """How much of a range was recorded, in milliseconds."""

    recorded: int
    """How much of it lies between the symbol's first and last row of all."""
    live: int
    """How much of that is without a gap in any channel."""


@attrs.frozen(kw_only=True)
class Summary:
    """A symbol's range in a few numbers."""

    symbol: str
    covered: Covered | None
    channels: Mapping[Channel, int]
    """Rows."""
    dead: int
    """Dead letters."""
    gaps: int
    longest: int | None
    """Milliseconds of the longest gap; None without any."""
    silences: int
    """Those that no gap accounts for."""

    @property
    def rows(self) -> int:
        """All rows of the range."""
        return sum(self.channels.values()) + self.dead


@attrs.frozen(kw_only=True)
class Recorded:
    """What was recorded of a symbol in a range. Times are milliseconds since 1970."""

    symbol: str
    start: int
    """Where the range begins, or the symbol's first row if that is later; a whole step."""
    end: int
    """Where it ends, or the last row is; a whole step."""
    step: int
    """One of `STEPS`."""
    steps: Mapping[int, Minute]
    """By number from `start` on; those without rows are left out."""
    pauses: Mapping[int, int] | None
    """The longest pause that ended in each step, in milliseconds; None where it is not known."""
    why_no_pauses: str
    """Why it is not known; empty if it is."""
    gaps: Sequence[LedgerGap]
    """Those of the ledger that touch the range, oldest first, with their own ends."""
    unaccounted: Sequence[Silence]
    """Silences that no gap accounts for and that touch the range; see `analysis.coverage`."""
    covered: Covered | None
    """How much was recorded; None if the range lies before the first row or after the last."""
    bytes_a_row: float | None
    """What a row of the table takes on disk on average; None where the size is not known."""

    @property
    def rows(self) -> int:
        """All rows of the range."""
        return sum(one.total for one in self.steps.values())

    @property
    def number(self) -> int:
        """How many steps the range has."""
        return (self.end - self.start) // self.step

    def summary(self) -> Summary:
        """Return the range without its steps, of which a thousand symbols have many."""
        steps = self.steps.values()
        return Summary(
            symbol=self.symbol,
            covered=self.covered,
            channels={name: sum(one.rows[name] for one in steps) for name in ALL},
            dead=sum(one.dead for one in steps),
            gaps=len(self.gaps),
            longest=max((gap.end - gap.start for gap in self.gaps), default=None),
            silences=len(self.unaccounted),
        )
