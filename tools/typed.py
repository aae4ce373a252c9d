"""What the typed views and the exports must say of a row, computed apart from them in Decimal."""

import re
from collections.abc import Sequence
from decimal import Context, Decimal
from typing import Any, Final

from tools.market import CHANNELS, Market, Row, truth

Level = tuple[Decimal | None, Decimal | None]
"""Price and amount; None where the text is no number, or one that does not fit."""


def number(text: str, whole: int = 18, decimals: int = 18) -> Decimal | None:
    """Return the number if it fits without rounding."""
    if not re.fullmatch(r"-?\d+(\.\d+)?", text, re.ASCII):
        return None
    digits, _, fraction = text.removeprefix("-").partition(".")
    if len(digits) > whole or len(fraction.rstrip("0")) > decimals:
        return None
    return Decimal(text)


def levels(side: str) -> list[Level]:
    """Return one side of a book."""
    return [
        (number(price), number(amount))
        for price, amount in re.findall(r"\[([^\[\],]*),([^\[\],]*)[^\]]*\]", side)
    ]


EXACT: Final = Context(prec=100)


def plus(a: Decimal | None, b: Decimal | None) -> Decimal | None:
    """Add exactly; what is unknown makes the sum unknown."""
    return None if a is None or b is None else EXACT.add(a, b)


def minus(a: Decimal | None, b: Decimal | None) -> Decimal | None:
    """Subtract likewise."""
    return None if a is None or b is None else EXACT.subtract(a, b)


def depth_row(m: str) -> tuple[Any, ...]:
    """Return what `depths` must say of a row, but its time."""
    b, _, a = m.partition("|")
    bids, asks = levels(b), levels(a)
    bid, ask = (side[0][0] if side else None for side in (bids, asks))
    total = plus(ask, bid)
    mid = None if total is None else EXACT.multiply(total, Decimal("0.5"))
    return bids, asks, bid, ask, mid, minus(ask, bid)


def ticker_row(m: str) -> tuple[Any, ...]:
    """Return what `tickers` must say of a row, but its time."""
    fields = m.split("|")
    return (*(number(text) for text in fields[:4]), number(fields[4], 10, 8))


def deal_row(m: str) -> tuple[Any, ...]:
    """Return what `deals` must say of a row, but its time."""
    price, volume, direction = m.split("|")
    return number(price), number(volume), {"1": "buy", "2": "sell"}[direction]


def candles(rows: Sequence[Row], interval: int) -> list[tuple[Any, ...]]:
    """Return the candles of the deals among `rows`, which are in the order of insertion."""
    step = interval * 1000
    groups: dict[int, list[tuple[Any, ...]]] = {}
    for ts, mt, m in rows:
        if mt == "d":
            groups.setdefault(ts // step * step, []).append((ts, *deal_row(m)))
    found = []
    for start, deals in sorted(groups.items()):
        ordered = sorted(deals, key=lambda deal: deal[0])  # stable
        prices = [deal[1] for deal in ordered]
        bought = sum((deal[2] for deal in deals if deal[3] == "buy"), Decimal())
        volume = sum((deal[2] for deal in deals), Decimal())
        found.append(
            (start, prices[0], max(prices), min(prices), prices[-1], volume, bought, len(deals))
        )
    return found


ROWS: Final = {"tickers": ("t", ticker_row), "deals": ("d", deal_row), "depths": ("dp", depth_row)}
"""The message type of each kind, and what computes it."""


def expected(rows: Sequence[Row], kind: str) -> list[tuple[Any, ...]]:
    """Return what must be said of these rows, each with its time in milliseconds."""
    wanted, computed = ROWS[kind]
    return [(ts, *computed(m)) for ts, mt, m in rows if mt == wanted]


def market_rows(frames: int, oddities: float, *, seed: int = 1, step: int = 70) -> list[Row]:
    """Return the rows of generated frames of BTC_USDT, `step` milliseconds apart."""
    now = [1_788_335_243_000]
    market = Market(seed=seed, oddities=oddities, clock=lambda: now[0])
    rows: list[Row] = []
    for n in range(frames):
        now[0] += step
        rows += truth(market.frame("BTC_USDT", CHANNELS[n % 3])) or []
    return rows
