"""What people ask of the data, answered from the raw texts with arrays of doubles.

For as many rows as a day has. `tests/support/questions.py` has the same in Decimals and plain
loops, with which a test compares this.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from tools.market import Row

MINUTE: Final = 60_000
SIZE: Final = 0.0001
"""Bitcoins of a contract."""

Numbers: TypeAlias = NDArray[np.float64]
Times: TypeAlias = NDArray[np.int64]
_BRACKETS: Final = str.maketrans("[]|", "  ,")


@attrs.frozen
class Arrays:
    """Rows of a symbol as arrays, in the order of time."""

    ts: Times
    price: Numbers
    volume: Numbers
    bought: NDArray[np.bool_]
    book_ts: Times
    books: Numbers
    """Of each book its two sides, bids first, of each side its levels: price and amount."""
    tickers: Numbers
    """Last, fair and index price, open contracts, funding rate."""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Arrays":
        """Take texts apart; all books have as many levels as the first."""
        ts, deals = _taken(rows, "d", 3)
        book_ts, books = _taken(rows, "dp", 0)
        _, tickers = _taken(rows, "t", 5)
        sides = books.reshape(len(book_ts), 2, -1, 2) if len(book_ts) else np.empty((0, 2, 0, 2))
        return cls(ts, deals[:, 0], deals[:, 1], deals[:, 2] == 1, book_ts, sides, tickers)

    @classmethod
    def together(cls, parts: "Sequence[Arrays]") -> "Arrays":
        """Join parts that follow each other in time."""
        return cls(*(np.concatenate(columns) for columns in zip(*map(_fields, parts), strict=True)))

    @property
    def mid(self) -> Numbers:
        """The middle between the best prices."""
        middle: Numbers = self.books[:, :, 0, 0].sum(axis=1) / 2
        return middle

    @property
    def spread(self) -> Numbers:
        """Between the best prices."""
        return self.books[:, 1, 0, 0] - self.books[:, 0, 0, 0]

    def candles(self, step: int) -> list[Numbers]:
        """Return start, open, high, low, close, volume, volume bought and number of deals."""
        starts, first = np.unique(self.ts // step * step, return_index=True)
        last = np.append(first[1:], len(self.ts)) - 1
        return [
            starts,
            self.price[first],
            np.maximum.reduceat(self.price, first),
            np.minimum.reduceat(self.price, first),
            self.price[last],
            np.add.reduceat(self.volume, first),
            np.add.reduceat(self.volume * self.bought, first),
            last - first + 1,
        ]


def _taken(rows: Sequence[Row], mt: str, each: int) -> tuple[Times, Numbers]:
    """Return the times of one type's rows, and their numbers; `each` of a row, 0 for any."""
    ordered = sorted((row for row in rows if row[1] == mt), key=lambda row: row[0])
    text = ",".join(m for _, _, m in ordered).translate(_BRACKETS)
    numbers = np.array(text.split(",") if text else [], dtype=np.float64)
    times = np.array([ts for ts, _, _ in ordered], dtype=np.int64)
    return times, numbers.reshape(-1, each) if each else numbers


def _fields(one: Arrays) -> tuple[NDArray[Any], ...]:
    return tuple(getattr(one, field.name) for field in attrs.fields(Arrays))


def _tuples(*columns: NDArray[Any]) -> list[tuple[Any, ...]]:
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _vwap(one: Arrays) -> Any:
    return one.price @ one.volume / one.volume.sum()


def _vwap_of_minutes(one: Arrays) -> Any:
    minutes, first = np.unique(one.ts // MINUTE * MINUTE, return_index=True)
    volume = np.add.reduceat(one.volume, first)
    return _tuples(minutes, np.add.reduceat(one.price * one.volume, first) / volume)


def _flow(one: Arrays) -> Any:
    start, *_, volume, bought, _ = one.candles(MINUTE)
    return _tuples(start, 2 * bought - volume)


def _largest(one: Arrays) -> Any:
    five = np.lexsort((one.ts, -one.volume))[:5]
    sides = np.where(one.bought[five], "buy", "sell")
    return _tuples(one.volume[five], one.price[five], sides)


def _steps(one: Arrays) -> Any:
    steps, place = np.unique(np.floor(one.price / 10) * 10, return_inverse=True)
    return _tuples(steps, np.bincount(place, weights=one.volume))


def _quantile(values: NDArray[Any], level: float) -> Any:
    return np.sort(values)[min(int(level * len(values)), len(values) - 1)]


def _microprice(one: Arrays) -> Any:
    (bid, bid_amount), (ask, ask_amount) = (one.books[:, side, 0].T for side in (0, 1))
    value = (bid * ask_amount + ask * bid_amount) / (bid_amount + ask_amount)
    return _tuples(one.book_ts, value)


def _imbalance(one: Arrays) -> Any:
    bids, asks = one.books[:, :, :, 1].sum(axis=2).T
    return _tuples(one.book_ts, (bids - asks) / (bids + asks))


def _near(one: Arrays) -> Any:
    prices, amounts = one.books[:, 0, :, 0], one.books[:, 0, :, 1]
    near = prices >= one.mid[:, None] * 0.99999
    return _tuples(one.book_ts, (amounts * near).sum(axis=1))


def _walk(one: Arrays) -> Any:
    prices, amounts = one.books[:, 1, :, 0], one.books[:, 1, :, 1]
    enough = amounts.sum(axis=1) >= 50_000
    before = np.cumsum(amounts, axis=1) - amounts
    taken = np.clip(50_000 - before, 0, amounts)
    return _tuples(one.book_ts[enough], ((prices * taken).sum(axis=1) / 50_000)[enough])


def _effective(one: Arrays) -> Any:
    place = np.searchsorted(one.book_ts, one.ts, side="right") - 1
    mid = one.mid[place[place >= 0]]
    return np.mean(np.abs(one.price[place >= 0] - mid) / mid) * 20_000


def _variance(one: Arrays) -> Any:
    close = one.candles(MINUTE)[4]
    return np.sum(np.diff(np.log(close)) ** 2)


def _correlation(one: Arrays, other: Arrays) -> Any:
    ours, theirs = one.candles(MINUTE), other.candles(MINUTE)
    both = np.intersect1d(ours[0], theirs[0])
    a, b = (
        np.log(candles[4] / candles[1])[np.isin(candles[0], both)] for candles in (ours, theirs)
    )
    return np.corrcoef(a, b)[0, 1]


def _of_one(answer: Callable[[Arrays], Any]) -> Callable[[Arrays, Arrays], Any]:
    return lambda one, _: answer(one)


ANSWERS: Final[Mapping[str, Callable[[Arrays, Arrays], Any]]] = {
    "turnover (times the contract's size, in USDT)": _of_one(lambda a: a.price @ a.volume),
    "turnover in USDT": _of_one(lambda a: a.price @ a.volume * SIZE),
    "volume-weighted average price": _of_one(_vwap),
    "VWAP of each minute": _of_one(_vwap_of_minutes),
    "candles of five minutes": _of_one(lambda a: _tuples(*a.candles(5 * MINUTE))),
    "candles of a minute made into hours": _of_one(lambda a: _tuples(*a.candles(60 * MINUTE)[:6])),
    "share of the volume that was bought": _of_one(lambda a: a.volume @ a.bought / a.volume.sum()),
    "net order flow of each minute": _of_one(_flow),
    "the largest deals": _of_one(_largest),
    "volume by price, in steps of 10": _of_one(_steps),
    "median time between deals, in milliseconds": _of_one(
        lambda a: _quantile(np.diff(a.ts, prepend=a.ts[0]), 0.5)
    ),
    "average spread in basis points": _of_one(lambda a: np.mean(a.spread / a.mid) * 10_000),
    "the spread's quartiles in basis points": _of_one(
        lambda a: [_quantile(a.spread / a.mid * 10_000, level) for level in (0.25, 0.5, 0.75)]
    ),
    "microprice": _of_one(_microprice),
    "imbalance of the whole book": _of_one(_imbalance),
    "bids within 0.001 % of the middle": _of_one(_near),
    "average price of buying 50,000 contracts at once": _of_one(_walk),
    "effective spread in basis points: deals beside the book before them": _of_one(_effective),
    "realised variance of a minute's returns": _of_one(_variance),
    "correlation of two contracts' minutes": _correlation,
    "premium of the last price over the index, in basis points": _of_one(
        lambda a: np.mean(a.tickers[:, 0] / a.tickers[:, 2] - 1) * 10_000
    ),
    "change of the open contracts": _of_one(lambda a: a.tickers[-1, 3] - a.tickers[0, 3]),
    "the last funding rate": _of_one(lambda a: a.tickers[-1, 4]),
}
"""Each question's answer, of a contract and of another one."""
