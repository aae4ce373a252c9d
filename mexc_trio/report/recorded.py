"""A range of one symbol: step by step, its gaps, and how much of it was recorded."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import accumulate
from typing import Final, TypeAlias

import attrs

from mexc_trio import texts
from mexc_trio.analysis.coverage import Silence
from mexc_trio.analysis.gaps import LedgerGap
from mexc_trio.analysis.minutes import Minute, Price, Spread
from mexc_trio.channels import ALL, OPTIONAL
from mexc_trio.rows import Channel
from mexc_trio.spans import SECOND

STEPS: Final = tuple(SECOND * n for n in (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600))
"""Lengths of what is added up, in milliseconds."""
MOST_STEPS: Final = 1440
"""Steps of a range: a day has a minute each, an hour five seconds."""


Band: TypeAlias = tuple[list[float], list[float], list[float]]
"""What is in the middle, the lowest and the highest of each step."""


@attrs.frozen
class Share:
    """How much of a range was recorded, in milliseconds."""

    recorded: int = 0
    """How much of it lies between the symbol's first and last row of all."""
    covered: int = 0
    """How much of that is without a gap in any channel."""

    @property
    def percent(self) -> str:
        """The covered part in percent."""
        return texts.percent(self.covered, self.recorded)


@attrs.frozen(kw_only=True)
class Summary:
    """A symbol's range in a few numbers."""

    symbol: str
    share: Share
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


def share_of(summaries: Iterable[Summary]) -> Share:
    """Return how much of a range was recorded of some symbols together."""
    shares = [one.share for one in summaries]
    return Share(sum(one.recorded for one in shares), sum(one.covered for one in shares))


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
    share: Share
    """Nothing if the range lies before the first row or after the last."""
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

    @property
    def every(self) -> Sequence[Minute | None]:
        """Each step; None for one without rows."""
        return [self.steps.get(number) for number in range(self.number)]

    def rates(self, channel: Channel) -> list[float]:
        """Return a channel's rows a second in each step; 0 without any."""
        return [one.rows[channel] * SECOND / self.step if one else 0.0 for one in self.every]

    def growth(self) -> list[int]:
        """Return the rows of the range that there were after each step."""
        return list(accumulate(one.total if one else 0 for one in self.every))

    def pause_seconds(self) -> list[float]:
        """Return the longest pause that ended in each step; no number where none did."""
        ended = self.pauses or {}
        return [ended[n] / SECOND if n in ended else math.nan for n in range(self.number)]

    def band(self, of: Callable[[Minute], Price | Spread | None]) -> Band:
        """Return a number of each step, such as its last price, the lowest and the highest.

        A pixel needs no more than a float. Where there is nothing they are no number.
        """
        found = [of(one) if one else None for one in self.every]
        numbers = [attrs.astuple(one) if one else (math.nan,) * 3 for one in found]
        middle, low, high = ([float(three[n]) for three in numbers] for n in range(3))
        return middle, low, high

    def summary(self) -> Summary:
        """Return the range without its steps, of which a thousand symbols have many."""
        steps = self.steps.values()
        return Summary(
            symbol=self.symbol,
            share=self.share,
            channels={name: sum(one.rows[name] for one in steps) for name in ALL},
            dead=sum(one.dead for one in steps),
            gaps=len(self.gaps),
            longest=max((gap.end - gap.start for gap in self.gaps), default=None),
            silences=len(self.unaccounted),
        )


def coarser(range_: Recorded, most: int) -> Recorded:
    """Return the same range in steps that are so long that there are not more of them."""
    together = -(-range_.number // most)
    if together <= 1:
        return range_
    groups: dict[int, list[Minute]] = {}
    for number, one in sorted(range_.steps.items()):
        groups.setdefault(number // together, []).append(one)
    longest: dict[int, int] = {}
    for number, pause in (range_.pauses or {}).items():
        longest[number // together] = max(pause, longest.get(number // together, 0))
    step = range_.step * together
    return attrs.evolve(
        range_,
        step=step,
        end=range_.start + -(-range_.number // together) * step,
        steps={number: _sum(those) for number, those in groups.items()},
        pauses=None if range_.pauses is None else longest,
    )


def _sum(those: Sequence[Minute]) -> Minute:
    numbers = {
        name: _together(found)
        for name in OPTIONAL
        if (found := [one.numbers[name] for one in those if name in one.numbers])
    }
    traded = [one.price for one in those if one.price]
    books = [(one.spread, one.rows["depth"]) for one in those if one.spread]
    weight = sum(rows for _, rows in books)
    return Minute(
        {name: sum(one.rows[name] for one in those) for name in ALL},
        sum(one.dead for one in those),
        {},
        sum(one.text for one in those),
        _together(traded) if traded else None,
        Spread(
            sum((spread.mean * rows for spread, rows in books), Decimal()) / weight,
            min(spread.low for spread, _ in books),
            max(spread.high for spread, _ in books),
        )
        if weight
        else None,
        numbers,
    )


def _together(those: Sequence[Price]) -> Price:
    return Price(those[-1].last, min(one.low for one in those), max(one.high for one in those))
