"""One contract of a believable market: its random walk, its clock, and how its numbers are written.

Numbers are texts from end to end. A price is a count of units and a number of decimals; no float
ever holds one, because a recorder that promises digit-for-digit texts needs a test partner that
controls every digit.
"""

from __future__ import annotations

import random
import zlib
from decimal import Decimal
from typing import Final

import attrs

# Units and decimals of the contracts whose price everybody knows.
_KNOWN_PRICES: Final = {
    "BTC_USDT": (775260, 1),
    "ETH_USDT": (238460, 2),
    "SOL_USDT": (14235, 2),
}


def decimal_text(units: int, decimals: int) -> str:
    """Write ``units`` / 10**``decimals`` in plain digits, without trailing zeros."""
    sign = "-" if units < 0 else ""
    digits = str(abs(units)).rjust(decimals + 1, "0")
    if not decimals:
        return sign + digits
    whole, fraction = digits[:-decimals], digits[-decimals:].rstrip("0")
    return f"{sign}{whole}.{fraction}" if fraction else sign + whole


def with_exponent(text: str) -> str:
    """Write a number with an exponent."""
    return f"{Decimal(text).normalize():E}"


def with_zeros(text: str, count: int) -> str:
    """Write a number with so many zeros more behind its decimal point."""
    return text + ("" if "." in text else ".") + "0" * count


def starting_price(symbol: str) -> tuple[int, int]:
    """Return a symbol's known price, else one derived from its name: units and decimals."""
    if symbol in _KNOWN_PRICES:
        return _KNOWN_PRICES[symbol]
    name = zlib.crc32(symbol.encode())  # the same in every process, unlike hash()
    return 10_000 + name % 90_000, 1 + name % 10


@attrs.define
class Contract:
    """One symbol's random walk and its clock."""

    symbol: str
    chance: random.Random
    price: int  # in units of the last decimal
    decimals: int
    reference: int = attrs.field(init=False)
    last_ms: int  # the newest millisecond taken by a row
    funding: int = attrs.field(default=72, init=False)  # in millionths
    hold: int = attrs.field(default=546_882_118, init=False)
    version: int = attrs.field(default=5_220_571_685, init=False)
    trades: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.reference = self.price

    @classmethod
    def of(cls, symbol: str, seed: int, now: int) -> Contract:
        """Start a symbol at its starting price."""
        price, decimals = starting_price(symbol)
        return cls(symbol, random.Random(f"{seed} {symbol}"), price, decimals, now)

    def step(self) -> None:
        """Walk one step, and never further than half the way to zero or to the double."""
        self.price += int(self.chance.random() * 7) - 3
        half = self.reference // 2
        self.price = min(max(self.price, self.reference - half), self.reference + half)

    def times(self, now: int, count: int) -> list[int]:
        """Take ``count`` new milliseconds, oldest first, the last of them now.

        No millisecond is taken twice, so that no two rows of a symbol are equal; above a thousand
        a second this clock therefore runs ahead of real time.
        """
        newest = max(now, self.last_ms + count)
        earliest = max(self.last_ms + 1, newest - 150)
        self.last_ms = newest
        if count == 1:
            return [newest]
        return [*sorted(self.chance.sample(range(earliest, newest), count - 1)), newest]
