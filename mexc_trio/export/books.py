"""Recorded books as changes from one to the next, which is how backtests are told of them.

A recorded book is the 20 best levels a side. The first one begins with a clear of whatever was
there before; from then on each recorded book is told as changes, after which the backtest's book is
exactly the recorded one. A level that fell out of the best 20 is gone, because nobody saw it any
more. Where books are missing, the book is cleared at the gap's start and set anew at its end.

A book may come crossed, or with both sides at one price. Backtests show no such book: they take the
better levels of a side for gone, and miss them afterwards. So the next book is set anew, too.
"""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from mexc_trio.texts import trimmed

Action: TypeAlias = Literal["clear", "add", "update", "delete"]

BIDS: Final = 0
ASKS: Final = 1
_LEVEL: Final = re.compile(r"\[([^\[\],]*),([^\[\],]*)")


class LevelChange(NamedTuple):
    """One change of a book."""

    action: Action
    side: int
    """`BIDS` or `ASKS`; a clear is of both."""
    price: str
    amount: str
    """In digits without zeros at the end, as the price."""
    snapshot: bool
    """Whether it belongs to a book that is set anew."""


CLEAR: Final = LevelChange("clear", BIDS, "0", "0", True)


class Books:
    """The book of one symbol as a backtest has it by now."""

    def __init__(self, gaps: Sequence[int] = ()) -> None:
        """Begin without a book; `gaps` in them begin at these milliseconds, in order."""
        self._gaps = deque(gaps)
        self._sides: tuple[dict[str, str], dict[str, str]] | None = None

    def gaps_before(self, ts: int) -> Iterator[int]:
        """Yield the times at which the book is cleared before something happens at `ts`."""
        while self._gaps and self._gaps[0] < ts:
            start = self._gaps.popleft()
            if self._sides is not None:
                self._sides = None
                yield start + 1

    def become(self, m: str) -> Iterator[LevelChange]:
        """Yield the changes that make a recorded book of the one before."""
        bids, _, asks = m.partition("|")
        sides = (_levels(bids), _levels(asks))
        snapshot = self._sides is None or _crossed(*self._sides)
        if snapshot:
            yield CLEAR
        before = ({}, {}) if snapshot or self._sides is None else self._sides
        # Levels that are gone come first, so that no book is crossed on the way.
        for side in (BIDS, ASKS):
            for price in before[side]:
                if price not in sides[side]:
                    yield LevelChange("delete", side, price, "0", snapshot)
        for side in (BIDS, ASKS):
            old = before[side]
            for price, amount in sides[side].items():
                if (was := old.get(price)) != amount:
                    yield LevelChange("update" if was else "add", side, price, amount, snapshot)
        self._sides = sides


def in_units(number: str, decimals: int) -> int:
    """Return digits in units of the last of so many decimals; what is beyond that is cut off."""
    whole, _, fraction = number.partition(".")
    return int(whole + fraction[:decimals].ljust(decimals, "0"))


def _crossed(bids: dict[str, str], asks: dict[str, str]) -> bool:
    """Tell whether the best bid, which is the first, is no lower than the best ask."""
    return bool(bids and asks) and float(next(iter(bids))) >= float(next(iter(asks)))


def _levels(side: str) -> dict[str, str]:
    """Return amounts by price."""
    return {trimmed(price): trimmed(amount) for price, amount in _LEVEL.findall(side)}
