"""The numbers of a range's plots, step by step; a pixel needs no more than a float.

There are as many as the range has steps. Where there is nothing, prices and pauses are no number.
"""

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final, TypeAlias

import attrs

from mexc_trio.analysis.minutes import Minute, Price, Spread
from mexc_trio.channels import ALL, OPTIONAL
from mexc_trio.report.recorded import Recorded
from mexc_trio.rows import Channel
from mexc_trio.spans import SECOND

Band: TypeAlias = tuple[list[float], list[float], list[float]]
"""What is in the middle, the lowest and the highest of each step."""

_NOTHING: Final = math.nan


def prices(range_: Recorded) -> Band:
    """Return last, lowest and highest price of each step."""
    return _band(one.price if one else None for one in _steps(range_))


def numbers(range_: Recorded, channel: Channel) -> Band:
    """Return the same of a channel that is recorded on request."""
    return _band(one.numbers.get(channel) if one else None for one in _steps(range_))


def spreads(range_: Recorded) -> Band:
    """Return mean, lowest and highest spread of each step."""
    return _band(one.spread if one else None for one in _steps(range_))


def _band(those: Iterable[Price | Spread | None]) -> Band:
    found = [attrs.astuple(one) if one else (_NOTHING,) * 3 for one in those]
    middle, low, high = ([float(one[n]) for one in found] for n in range(3))
    return middle, low, high


def rates(range_: Recorded, channel: Channel) -> list[float]:
    """Return a channel's rows a second in each step; 0 without any."""
    seconds = range_.step / SECOND
    return [one.rows[channel] / seconds if one else 0.0 for one in _steps(range_)]


def pauses(range_: Recorded) -> list[float]:
    """Return the longest pause that ended in each step, in seconds."""
    known = range_.pauses or {}
    return [known[n] / SECOND if n in known else _NOTHING for n in range(range_.number)]


def growth(range_: Recorded) -> list[int]:
    """Return the rows of the range that there were after each step."""
    total, found = 0, []
    for one in _steps(range_):
        total += one.total if one else 0
        found.append(total)
    return found


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


def _steps(range_: Recorded) -> Iterable[Minute | None]:
    return (range_.steps.get(n) for n in range(range_.number))
