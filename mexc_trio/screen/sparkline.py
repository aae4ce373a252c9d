"""A row of numbers as a row of bars that takes one line of text."""

from collections.abc import Sequence
from typing import Final

_BARS: Final = "▁▂▃▄▅▆▇█"
_NOTHING: Final = "·"


def sparkline(numbers: Sequence[float], width: int, most: int) -> str:
    """Return numbers, none below zero and the oldest first, as bars from zero to their greatest.

    Zero is a dot. `most` numbers fill the width; while there are fewer, the left stays empty. Where
    the width has fewer signs than that, a sign is the mean of several numbers.
    """
    cells = min(width, most)
    known = numbers[-most:]
    missing = most - len(known)
    means: list[float | None] = []
    for cell in range(cells):
        start, end = (max(0, at * most // cells - missing) for at in (cell, cell + 1))
        part = known[start:end]
        means.append(sum(part) / len(part) if part else None)
    greatest = max((mean for mean in means if mean is not None), default=0.0)
    return "".join(" " if mean is None else _bar(mean, greatest) for mean in means)


def _bar(number: float, greatest: float) -> str:
    if number <= 0:
        return _NOTHING
    return _BARS[min(len(_BARS) - 1, int(number / greatest * len(_BARS)))]
