"""What people ask of the data, answered from the raw texts: in Decimal and in plain loops."""

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

import attrs

from tools.market import Market, Row, truth

START: Final = 1_788_335_243_000
MINUTE: Final = 60_000
SIZE: Final = Decimal("0.0001")
"""Bitcoins of a contract."""
CONTRACT: Final = ("BTC_USDT", START, "btc", float(SIZE), 0.1, 1.0, 1, 0, 0, "{}")
"""The row that says so."""


def market(symbol: str, frames: int = 6000, step: int = 700) -> list[Row]:
    """Return the rows of more than an hour of a market, in the order of receipt."""
    now = [START]
    walk = Market(seed=7, clock=lambda: now[0])
    rows: list[Row] = []
    for _ in range(frames):
        now[0] += step
        rows += truth(walk.frame(symbol, walk.draw_channel(symbol))) or []
    price = next(m for _, mt, m in reversed(rows) if mt == "d").partition("|")[0]
    rows.append((now[0] + 120_000, "d", f"{price}|3|2"))  # a minute in which nobody buys
    return rows


# --- What is right, from the raw texts -----------------------------------------------------------


@attrs.frozen
class Deal:
    """One deal."""

    ts: int
    price: Decimal
    volume: Decimal
    side: str


@attrs.frozen
class Book:
    """One book: levels of price and amount, best first."""

    ts: int
    bids: list[tuple[Decimal, Decimal]]
    asks: list[tuple[Decimal, Decimal]]

    @property
    def mid(self) -> Decimal:
        """The middle between the best prices."""
        return (self.bids[0][0] + self.asks[0][0]) / 2

    @property
    def spread(self) -> Decimal:
        """Between the best prices."""
        return self.asks[0][0] - self.bids[0][0]


@attrs.frozen
class Raw:
    """Rows of a symbol, taken apart."""

    deals: list[Deal]
    books: list[Book]
    tickers: list[tuple[int, list[Decimal]]]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Raw":
        """Take the texts apart."""
        raw = cls([], [], [])
        for ts, mt, m in sorted(rows, key=lambda row: row[0]):
            parts = m.split("|")
            if mt == "d":
                side = {"1": "buy", "2": "sell"}[parts[2]]
                raw.deals.append(Deal(ts, Decimal(parts[0]), Decimal(parts[1]), side))
            elif mt == "dp":
                raw.books.append(Book(ts, *map(_levels, parts)))
            elif mt == "t":
                raw.tickers.append((ts, [Decimal(part) for part in parts]))
        return raw

    def grouped(self, step: int) -> dict[int, list[Deal]]:
        """Return the deals of each time step, by its start."""
        groups: dict[int, list[Deal]] = defaultdict(list)
        for deal in self.deals:
            groups[deal.ts // step * step].append(deal)
        return dict(groups)

    def candles(self, step: int) -> list[tuple[Any, ...]]:
        """Return start, open, high, low, close, volume, volume bought and number of deals."""
        return [
            (
                start, deals[0].price, max(d.price for d in deals), min(d.price for d in deals),
                deals[-1].price, volume(deals), volume(deals, "buy"), len(deals),
            )
            for start, deals in self.grouped(step).items()
        ]  # fmt: skip


def _levels(side: str) -> list[tuple[Decimal, Decimal]]:
    return [(Decimal(p), Decimal(a)) for p, a in re.findall(r"\[([^,]+),([^\]]+)\]", side)]


def volume(deals: Iterable[Deal], *sides: str) -> Decimal:
    """Return the volume of some deals, or of those of a side."""
    return sum((d.volume for d in deals if not sides or d.side in sides), Decimal())


def vwap(deals: Sequence[Deal]) -> Decimal:
    """Return the average price by volume."""
    return sum((d.price * d.volume for d in deals), Decimal()) / volume(deals)


def mean(values: Iterable[Any]) -> Any:
    """Return the arithmetic mean."""
    values = list(values)
    return sum(values) / len(values)


def quantile(values: Iterable[Any], level: float) -> Any:
    """Return what ClickHouse's quantileExact does: an element, the upper of two in the middle."""
    ordered = sorted(values)
    return ordered[min(int(level * len(ordered)), len(ordered) - 1)]


def effective_spread(raw: Raw) -> Decimal:
    """Return twice the distance of deals from the middle of the book before them, in bp."""
    found = []
    for deal in raw.deals:
        before = [book for book in raw.books if book.ts <= deal.ts]
        if before:
            found.append(abs(deal.price - before[-1].mid) / before[-1].mid * 20_000)
    return Decimal(mean(found))


def price_of(amount: int, asks: Sequence[tuple[Decimal, Decimal]]) -> Decimal:
    """Return the average price of buying so many contracts, level by level."""
    left, paid = Decimal(amount), Decimal()
    for price, there in asks:
        taken = min(there, left)
        paid, left = paid + taken * price, left - taken
    return paid / amount


def returns(raw: Raw) -> dict[int, float]:
    """Return the logarithmic return within each minute."""
    return {c[0]: math.log(c[4] / c[1]) for c in raw.candles(MINUTE)}


def realised_variance(raw: Raw) -> float:
    """Return the sum of the squared returns from minute to minute."""
    closes = [candle[4] for candle in raw.candles(MINUTE)]
    return sum(math.log(b / a) ** 2 for a, b in pairwise(closes))


def correlation(raw: Raw, other: Raw) -> float:
    """Return the correlation of the returns of common minutes."""
    a, b = returns(raw), returns(other)
    both = sorted(a.keys() & b.keys())
    return statistics.correlation([a[m] for m in both], [b[m] for m in both])


def hours(raw: Raw) -> list[tuple[Any, ...]]:
    """Return start, open, high, low, close and volume of hours."""
    return [candle[:6] for candle in raw.candles(60 * MINUTE)]


ANSWERS: Final[Mapping[str, Callable[[Raw, Raw], Any]]] = {
    "turnover (times the contract's size, in USDT)": lambda raw, _: sum(
        d.price * d.volume for d in raw.deals
    ),
    "turnover in USDT": lambda raw, _: sum(d.price * d.volume for d in raw.deals) * SIZE,
    "volume-weighted average price": lambda raw, _: vwap(raw.deals),
    "VWAP of each minute": lambda raw, _: [
        (minute, vwap(deals)) for minute, deals in raw.grouped(MINUTE).items()
    ],
    "candles of five minutes": lambda raw, _: raw.candles(5 * MINUTE),
    "candles of a minute made into hours": lambda raw, _: hours(raw),
    "share of the volume that was bought": lambda raw, _: (
        volume(raw.deals, "buy") / volume(raw.deals)
    ),
    "net order flow of each minute": lambda raw, _: [
        (minute, volume(deals, "buy") - volume(deals, "sell"))
        for minute, deals in raw.grouped(MINUTE).items()
    ],
    "the largest deals": lambda raw, _: [
        (d.volume, d.price, d.side) for d in sorted(raw.deals, key=lambda d: (-d.volume, d.ts))[:5]
    ],
    "volume by price, in steps of 10": lambda raw, _: [
        (step, volume(d for d in raw.deals if d.price // 10 * 10 == step))
        for step in sorted({d.price // 10 * 10 for d in raw.deals})
    ],
    "median time between deals, in milliseconds": lambda raw, _: quantile(
        [0, *(b.ts - a.ts for a, b in pairwise(raw.deals))], 0.5
    ),
    "average spread in basis points": lambda raw, _: mean(
        b.spread / b.mid * 10_000 for b in raw.books
    ),
    "the spread's quartiles in basis points": lambda raw, _: [
        quantile([b.spread / b.mid * 10_000 for b in raw.books], level)
        for level in (0.25, 0.5, 0.75)
    ],
    "microprice": lambda raw, _: [
        (b.ts, (bid * ask_amount + ask * bid_amount) / (bid_amount + ask_amount))
        for b in raw.books
        for (bid, bid_amount), (ask, ask_amount) in [(b.bids[0], b.asks[0])]
    ],
    "imbalance of the whole book": lambda raw, _: [
        (b.ts, (bids - asks) / (bids + asks))
        for b in raw.books
        for bids, asks in [(sum(a for _, a in b.bids), sum(a for _, a in b.asks))]
    ],
    "bids within 0.001 % of the middle": lambda raw, _: [
        (b.ts, sum(a for p, a in b.bids if p >= b.mid * Decimal("0.99999"))) for b in raw.books
    ],
    "average price of buying 50,000 contracts at once": lambda raw, _: [
        (b.ts, price_of(50_000, b.asks)) for b in raw.books if sum(a for _, a in b.asks) >= 50_000
    ],
    "effective spread in basis points: deals beside the book before them": (
        lambda raw, _: effective_spread(raw)
    ),
    "realised variance of a minute's returns": lambda raw, _: realised_variance(raw),
    "correlation of two contracts' minutes": correlation,
    "premium of the last price over the index, in basis points": lambda raw, _: mean(
        (last / index - 1) * 10_000 for _, (last, _, index, *_) in raw.tickers
    ),
    "change of the open contracts": lambda raw, _: raw.tickers[-1][1][3] - raw.tickers[0][1][3],
    "the last funding rate": lambda raw, _: raw.tickers[-1][1][4],
}
