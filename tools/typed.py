"""What the typed views and the exports must say of a row, computed apart from them."""

import json
import re
from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from typing import Any, Final, Protocol, TypeAlias

from tools.market import CHANNELS, Market, Row, truth

Number: TypeAlias = Decimal | float
Levels: TypeAlias = tuple[list[Any], list[Any]]
"""Prices and amounts of one side."""


class Numbers(Protocol):
    """What the texts of numbers become."""

    def number(self, text: str) -> Any:
        """Return a number; None for what is none, or does not fit."""

    def half(self, number: Any) -> Any:
        """Return half of it."""

    def plus(self, a: Any, b: Any) -> Any:
        """Return the sum."""

    def minus(self, a: Any, b: Any) -> Any:
        """Return the difference."""


CONTEXT: Final = Context(prec=100)


class Exact:
    """Decimals with 18 digits before the point and 18 after it."""

    def number(self, text: str) -> Decimal | None:
        """Return the number if it fits without rounding."""
        if not re.fullmatch(r"-?\d+(\.\d+)?", text, re.ASCII):
            return None
        digits, _, fraction = text.removeprefix("-").partition(".")
        if len(digits) > 18 or len(fraction.rstrip("0")) > 18:
            return None
        return Decimal(text)

    def half(self, number: Decimal) -> Decimal:
        """Return half of it, exactly."""
        return CONTEXT.multiply(number, Decimal("0.5"))

    def plus(self, a: Decimal, b: Decimal) -> Decimal:
        """Add exactly."""
        return CONTEXT.add(a, b)

    def minus(self, a: Decimal, b: Decimal) -> Decimal:
        """Subtract exactly."""
        return CONTEXT.subtract(a, b)


class Float:
    """The nearest double."""

    def number(self, text: str) -> float | None:
        """Return what Python reads, if JSON has such a number."""
        try:
            value = json.loads(text)
        except ValueError:
            return None
        return float(value) if isinstance(value, int | float) else None

    def half(self, number: float) -> float:
        """Return half of it."""
        return number / 2

    def plus(self, a: float, b: float) -> float:
        """Add as doubles."""
        return a + b

    def minus(self, a: float, b: float) -> float:
        """Subtract as doubles."""
        return a - b


EXACT: Final = Exact()
FLOAT: Final = Float()


def levels(side: str, numbers: Numbers) -> Levels:
    """Return one side of a book; no levels if one of its numbers is none, or does not fit."""
    found = [
        (numbers.number(price), numbers.number(amount))
        for price, amount in re.findall(r"\[([^\[\],]*),([^\[\],]*)\]", side)
    ]
    if any(number is None for level in found for number in level):
        return [], []
    return [price for price, _ in found], [amount for _, amount in found]


def depth_row(m: str, numbers: Numbers) -> tuple[Any, ...]:
    """Return what `depths` must say of a row, but its time."""
    sides = m.split("|")
    best: list[Any] = []
    for side in sides:
        first = re.match(r"\[([^\[\],]*),([^\[\],]*)\]", side)
        best += [numbers.number(text) for text in first.groups()] if first else [None, None]
    bid, _, ask, _ = best
    mid = spread = None
    if bid is not None and ask is not None:
        mid, spread = numbers.half(numbers.plus(bid, ask)), numbers.minus(ask, bid)
    return (*levels(sides[0], numbers), *levels(sides[1], numbers), *best, mid, spread)


def ticker_row(m: str, numbers: Numbers) -> tuple[Any, ...]:
    """Return what `tickers` must say of a row, but its time."""
    return tuple(numbers.number(text) for text in m.split("|"))


def deal_row(m: str, numbers: Numbers) -> tuple[Any, ...]:
    """Return what `deals` must say of a row, but its time."""
    price, volume, direction = m.split("|")
    return numbers.number(price), numbers.number(volume), {"1": "buy", "2": "sell"}[direction]


def candles(rows: Sequence[Row], interval: int, numbers: Numbers = EXACT) -> list[tuple[Any, ...]]:
    """Return the candles of the deals among `rows`, which are in the order of insertion."""
    step = interval * 1000
    groups: dict[int, list[tuple[Any, ...]]] = {}
    for ts, mt, m in rows:
        if mt == "d":
            groups.setdefault(ts // step * step, []).append((ts, *deal_row(m, numbers)))
    found = []
    for start, deals in sorted(groups.items()):
        ordered = sorted(deals, key=lambda deal: deal[0])  # stable
        prices = [deal[1] for deal in ordered]
        bought = sum(deal[2] for deal in deals if deal[3] == "buy")
        volume = sum(deal[2] for deal in deals)
        found.append(
            (start, prices[0], max(prices), min(prices), prices[-1], volume, bought, len(deals))
        )
    return found


ROWS: Final[dict[str, tuple[str, Callable[[str, Numbers], tuple[Any, ...]]]]] = {
    "tickers": ("t", ticker_row),
    "deals": ("d", deal_row),
    "depths": ("dp", depth_row),
}
"""The message type of each kind, and what computes it."""


def expected(rows: Sequence[Row], kind: str, numbers: Numbers = EXACT) -> list[tuple[Any, ...]]:
    """Return what must be said of these rows, each with its time in milliseconds."""
    wanted, computed = ROWS[kind]
    return [(ts, *computed(m, numbers)) for ts, mt, m in rows if mt == wanted]


def market_rows(frames: int, oddities: float, *, seed: int = 1, step: int = 70) -> list[Row]:
    """Return the rows of generated frames of BTC_USDT, `step` milliseconds apart."""
    now = [1_788_335_243_000]
    market = Market(seed=seed, oddities=oddities, clock=lambda: now[0])
    rows: list[Row] = []
    for n in range(frames):
        now[0] += step
        rows += truth(market.frame("BTC_USDT", CHANNELS[n % 3])) or []
    return rows
