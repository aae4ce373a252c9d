"""What people ask of the data, asked of pandas with exported files: no column is converted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np

from tools.questions.by_numpy import SIZE


@attrs.frozen
class Files:
    """Exported files."""

    deals: Path
    depths: Path
    tickers: Path
    eth: Path
    """Deals of the other contract."""


@attrs.define
class Frames:
    """The files as frames of some library."""

    deals: Any
    depths: Any
    tickers: Any
    eth: Any

    @classmethod
    def read(cls, files: Files, read: Callable[[Path], Any]) -> "Frames":
        """Read each."""
        return cls(*(read(path) for path in attrs.astuple(files)))


def rows(series: Any) -> list[tuple[Any, ...]]:
    """Return a Series or DataFrame of pandas as tuples, the index first."""
    frame = series.to_frame() if hasattr(series, "to_frame") else series
    return list(frame.itertuples(name=None))


def pandas_minutes(deals: Any) -> Any:
    """Return candles of a minute."""
    return deals.set_index("ts").price.resample("1min").ohlc().dropna()


def pandas_walk(amount: float) -> Callable[[Any], Any]:
    """Return what computes a book's average price of buying so much at once."""

    def average(book: Any) -> Any:
        upto = np.cumsum(book.ask_amounts)
        taken = np.clip(np.minimum(book.ask_amounts, amount - upto + book.ask_amounts), 0, None)
        return (book.ask_prices * taken).sum() / amount

    return average


def pandas_returns(deals: Any) -> Any:
    """Return the logarithmic return within each minute."""
    minutes = pandas_minutes(deals)
    return np.log(minutes.close / minutes.open)


def pandas_candles(deals: Any, length: str) -> Any:
    """Return candles with their volumes."""
    deals = deals.assign(bought=deals.volume.where(deals.side == "buy", 0.0))
    bars = deals.set_index("ts").resample(length)
    return bars.price.ohlc().assign(
        volume=bars.volume.sum(), bought=bars.bought.sum(), deals=bars.size()
    )


def pandas_effective(f: Frames) -> Any:
    """Return the effective spread in basis points."""
    import pandas as pd

    both = pd.merge_asof(f.deals, f.depths[["ts", "mid"]], on="ts").dropna()
    return ((both.price - both.mid).abs() / both.mid).mean() * 20_000


PANDAS: Final[dict[str, Callable[[Frames], Any]]] = {
    "turnover (times the contract's size, in USDT)": lambda f: (
        (f.deals.price * f.deals.volume).sum()
    ),
    "turnover in USDT": lambda f: (f.deals.price * f.deals.volume).sum() * float(SIZE),
    "volume-weighted average price": lambda f: (
        (f.deals.price * f.deals.volume).sum() / f.deals.volume.sum()
    ),
    "VWAP of each minute": lambda f: rows(
        (f.deals.price * f.deals.volume).groupby(f.deals.ts.dt.floor("1min")).sum()
        / f.deals.volume.groupby(f.deals.ts.dt.floor("1min")).sum()
    ),
    "candles of five minutes": lambda f: rows(pandas_candles(f.deals, "5min")),
    "candles of a minute made into hours": lambda f: rows(
        pandas_candles(f.deals, "1min")
        .resample("1h")
        .agg({"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"})
    ),
    "share of the volume that was bought": lambda f: (
        f.deals.volume[f.deals.side == "buy"].sum() / f.deals.volume.sum()
    ),
    "net order flow of each minute": lambda f: rows(
        f.deals.volume.where(f.deals.side == "buy", -f.deals.volume)
        .groupby(f.deals.ts.dt.floor("1min"))
        .sum()
    ),
    "the largest deals": lambda f: list(
        f.deals.sort_values(["volume", "ts"], ascending=[False, True])
        .head(5)[["volume", "price", "side"]]
        .itertuples(index=False, name=None)
    ),
    "volume by price, in steps of 10": lambda f: rows(
        f.deals.volume.groupby(f.deals.price // 10 * 10).sum()
    ),
    "median time between deals, in milliseconds": lambda f: (
        f.deals.ts.diff().fillna(f.deals.ts.diff().min() * 0).dt.total_seconds().mul(1000)
        .sort_values().iloc[len(f.deals) // 2]
    ),
    "average spread in basis points": lambda f: (f.depths.spread / f.depths.mid).mean() * 10_000,
    "the spread's quartiles in basis points": lambda f: list(
        (f.depths.spread / f.depths.mid * 10_000).quantile(
            [0.25, 0.5, 0.75], interpolation="nearest"
        )
    ),
    "microprice": lambda f: list(
        zip(
            f.depths.ts,
            (f.depths.best_bid * f.depths.best_ask_amount
             + f.depths.best_ask * f.depths.best_bid_amount)
            / (f.depths.best_bid_amount + f.depths.best_ask_amount),
            strict=True,
        )
    ),
    "imbalance of the whole book": lambda f: [
        (book.ts, (book.bid_amounts.sum() - book.ask_amounts.sum())
         / (book.bid_amounts.sum() + book.ask_amounts.sum()))
        for book in f.depths.itertuples()
    ],
    "bids within 0.001 % of the middle": lambda f: [
        (book.ts, book.bid_amounts[book.bid_prices >= book.mid * 0.99999].sum())
        for book in f.depths.itertuples()
    ],
    "average price of buying 50,000 contracts at once": lambda f: [
        (book.ts, pandas_walk(50_000)(book))
        for book in f.depths.itertuples()
        if book.ask_amounts.sum() >= 50_000
    ],
    "effective spread in basis points: deals beside the book before them": pandas_effective,
    "realised variance of a minute's returns": lambda f: (
        np.log(pandas_minutes(f.deals).close).diff().pow(2).sum()
    ),
    "correlation of two contracts' minutes": lambda f: (
        pandas_returns(f.deals).corr(pandas_returns(f.eth))
    ),
    "premium of the last price over the index, in basis points": lambda f: (
        (f.tickers.last_price / f.tickers.index_price - 1).mean() * 10_000
    ),
    "change of the open contracts": lambda f: (
        f.tickers.hold_volume.iloc[-1] - f.tickers.hold_volume.iloc[0]
    ),
    "the last funding rate": lambda f: f.tickers.funding_rate.iloc[-1],
}  # fmt: skip
