"""What people ask of the data is answered right, in each tool, without a cast.

The statements are those that the README shows; the other tools read files that `export` has written
as it does without options. Each answer is compared with one from the raw texts.
"""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np
import pyarrow.parquet as pq
import pytest

from mexc_trio.cli.main import main
from mexc_trio.clickhouse import views
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import market_table, prepare
from mexc_trio.clickhouse.tables import CONTRACTS
from mexc_trio.read.reading import Reader, open_reader
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget
from tests.support.questions import ANSWERS, CONTRACT, SIZE, Raw, market, same
from tools.market import Row

README: Final = Path(__file__).parents[2] / "README.md"

# --- What the README's statements say ------------------------------------------------------------


def statements() -> dict[str, str]:
    """Return the README's questions and their SQL."""
    _, _, rest = README.read_text().partition("### Questions")
    block = re.search(r"```sql\n(.*?)```", rest, re.DOTALL)
    assert block
    lines = block[1].splitlines()
    return {
        name.removeprefix("-- "): sql.removesuffix(";")
        for name, sql in zip(lines[::2], lines[1::2], strict=True)
    }


QUESTIONS: Final = statements()


@pytest.fixture(scope="module")
def recorded() -> tuple[list[Row], list[Row]]:
    """Return the rows of BTC and of ETH."""
    return market("BTC_USDT"), market("ETH_USDT")


@pytest.fixture(scope="module")
def raw(recorded: tuple[list[Row], list[Row]]) -> tuple[Raw, Raw]:
    """Return them taken apart."""
    return Raw.of(recorded[0]), Raw.of(recorded[1])


@pytest.fixture(scope="module")
def directory(
    tmp_path_factory: pytest.TempPathFactory, recorded: tuple[list[Row], list[Row]]
) -> Iterator[Path]:
    """Return a store with both tables and their views."""
    directory = tmp_path_factory.mktemp("questions")
    with closing(EmbeddedStore(directory)) as store:
        prepare(store, [market_table("btc"), market_table("eth"), CONTRACTS])
        store.append(CONTRACTS, [CONTRACT])
        views.create(store, ["btc", "eth"])
        for table, rows in zip(("btc", "eth"), recorded, strict=True):
            for first in range(0, len(rows), 500):
                store.append(market_table(table), rows[first : first + 500])
        yield directory


@pytest.fixture(scope="module")
def reader(directory: Path) -> Iterator[Reader]:
    """Open it for reading."""
    with open_reader(Settings(store=EmbeddedTarget(directory))) as reader:
        yield reader


def test_the_readme_asks_what_is_answered_here() -> None:
    """No statement of the README is without a test, and no answer without a statement."""
    assert list(QUESTIONS) == list(ANSWERS)
    assert len(QUESTIONS) >= 20
    for sql in QUESTIONS.values():
        assert not re.search(r"\bCAST\b|\bto(Float|Decimal|U?Int)|::", sql, re.IGNORECASE)


@pytest.mark.parametrize("question", QUESTIONS)
def test_sql(reader: Reader, raw: tuple[Raw, Raw], question: str) -> None:
    """The README's statement gives what the raw texts say."""
    answer: Any = reader.query(QUESTIONS[question])
    wanted = ANSWERS[question](*raw)
    if not isinstance(wanted, list) or not isinstance(wanted[0], tuple):
        ((answer,),) = answer  # one value, or one array
    same(answer, wanted)


# --- The same in other tools ---------------------------------------------------------------------


@attrs.frozen
class Files:
    """Exported files."""

    deals: Path
    depths: Path
    tickers: Path
    eth: Path
    """Deals of the other contract."""


@pytest.fixture(scope="module")
def files(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Export what was recorded."""
    out = tmp_path_factory.mktemp("files")
    for symbol, kind, name in (
        ("BTC_USDT", "deals", "deals"),
        ("BTC_USDT", "depths", "depths"),
        ("BTC_USDT", "tickers", "tickers"),
        ("ETH_USDT", "deals", "eth"),
    ):
        file = str(out / f"{name}.parquet")
        command = ["export", symbol, "--store", str(directory), "--kind", kind, "--out", file]
        assert main(command) == 0
    return Files(*(out / f"{field.name}.parquet" for field in attrs.fields(Files)))


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


@pytest.mark.parametrize("question", ANSWERS)
def test_pandas(files: Files, raw: tuple[Raw, Raw], question: str) -> None:
    """Exported files have what pandas computes with, and it resamples by their times."""
    import pandas as pd

    same(PANDAS[question](Frames.read(files, pd.read_parquet)), ANSWERS[question](*raw))


def polars_asof(f: Frames) -> Any:
    """Return the effective spread in basis points."""
    import polars as pl

    both = f.deals.join_asof(f.depths.select("ts", "mid"), on="ts").drop_nulls()
    return (
        both.select(((pl.col("price") - pl.col("mid")).abs() / pl.col("mid")).mean()).item()
        * 20_000
    )


def polars_minutes(deals: Any) -> Any:
    """Return open and close of each minute."""
    import polars as pl

    return deals.group_by_dynamic("ts", every="1m").agg(
        open=pl.col("price").first(), close=pl.col("price").last()
    )


def polars_correlation(f: Frames) -> Any:
    """Return the correlation of the returns of common minutes."""
    import polars as pl

    both = polars_minutes(f.deals).join(polars_minutes(f.eth), on="ts")
    returns = [
        (pl.col("close") / pl.col("open")).log(),
        (pl.col("close_right") / pl.col("open_right")).log(),
    ]
    return both.select(pl.corr(*returns)).item()


def polars_answers(f: Frames) -> dict[str, Any]:
    """Answer some questions with polars."""
    import polars as pl

    price, volume = pl.col("price"), pl.col("volume")
    turnover = (price * volume).sum()
    imbalance = (pl.col("bid_amounts").list.sum() - pl.col("ask_amounts").list.sum()) / (
        pl.col("bid_amounts").list.sum() + pl.col("ask_amounts").list.sum()
    )
    return {
        "turnover (times the contract's size, in USDT)": f.deals.select(turnover).item(),
        "volume-weighted average price": f.deals.select(turnover / volume.sum()).item(),
        "VWAP of each minute": f.deals.group_by_dynamic("ts", every="1m")
        .agg(turnover / volume.sum())
        .rows(),
        "candles of five minutes": f.deals.group_by_dynamic("ts", every="5m")
        .agg(
            open=price.first(), high=price.max(), low=price.min(), close=price.last(),
            volume=volume.sum(), bought=volume.filter(pl.col("side") == "buy").sum(),
            deals=pl.len(),
        )
        .rows(),
        "average spread in basis points": f.depths.select(
            (pl.col("spread") / pl.col("mid")).mean() * 10_000
        ).item(),
        "imbalance of the whole book": f.depths.select("ts", imbalance.alias("i")).rows(),
        "effective spread in basis points: deals beside the book before them": polars_asof(f),
        "realised variance of a minute's returns": polars_minutes(f.deals)
        .select(pl.col("close").log().diff().pow(2).sum())
        .item(),
        "correlation of two contracts' minutes": polars_correlation(f),
    }  # fmt: skip


def test_polars(files: Files, raw: tuple[Raw, Raw]) -> None:
    """So does polars."""
    import polars as pl

    for question, answer in polars_answers(Frames.read(files, pl.read_parquet)).items():
        same(answer, ANSWERS[question](*raw))


DUCKDB: Final = {
    "turnover (times the contract's size, in USDT)": "SELECT sum(price * volume) FROM deals",
    "volume-weighted average price": "SELECT sum(price * volume) / sum(volume) FROM deals",
    "candles of five minutes": (
        "SELECT time_bucket(INTERVAL '5 minutes', ts) AS t, first(price ORDER BY ts), max(price), "
        "min(price), last(price ORDER BY ts), sum(volume), "
        "sum(volume) FILTER (side = 'buy'), count(*) FROM deals GROUP BY t ORDER BY t"
    ),
    "average spread in basis points": "SELECT avg(spread / mid) * 10000 FROM depths",
    "imbalance of the whole book": (
        "SELECT ts, (list_sum(bid_amounts) - list_sum(ask_amounts)) "
        "/ (list_sum(bid_amounts) + list_sum(ask_amounts)) FROM depths"
    ),
    "effective spread in basis points: deals beside the book before them": (
        "SELECT avg(abs(price - mid) / mid) * 20000 FROM deals ASOF JOIN depths USING (ts)"
    ),
    "realised variance of a minute's returns": (
        "SELECT sum(pow(ln(c / p), 2)) FROM (SELECT c, lag(c) OVER (ORDER BY t) AS p FROM "
        "(SELECT time_bucket(INTERVAL '1 minute', ts) AS t, last(price ORDER BY ts) AS c "
        "FROM deals GROUP BY t))"
    ),
    "premium of the last price over the index, in basis points": (
        "SELECT avg(last_price / index_price - 1) * 10000 FROM tickers"
    ),
}


def test_duckdb(files: Files, raw: tuple[Raw, Raw]) -> None:
    """So does duckdb, in SQL without a cast."""
    import duckdb

    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        for field in attrs.fields(Files):
            file = getattr(files, field.name)
            database.execute(f"CREATE VIEW {field.name} AS FROM read_parquet('{file}')")
        for question, sql in DUCKDB.items():
            answer: Any = database.execute(sql).fetchall()
            wanted = ANSWERS[question](*raw)
            if not isinstance(wanted, list):
                ((answer,),) = answer
            same(answer, wanted)


def test_numpy(files: Files, raw: tuple[Raw, Raw]) -> None:
    """Columns are arrays of doubles for numpy, without a copy and without a conversion."""
    deals, depths = (pq.read_table(path).combine_chunks() for path in (files.deals, files.depths))
    price, volume = (deals[name].chunk(0).to_numpy() for name in ("price", "volume"))
    spread, mid = (depths[name].chunk(0).to_numpy() for name in ("spread", "mid"))
    asked = {
        "turnover (times the contract's size, in USDT)": np.dot(price, volume),
        "volume-weighted average price": np.average(price, weights=volume),
        "average spread in basis points": np.mean(spread / mid) * 10_000,
    }
    for question, answer in asked.items():
        same(answer, ANSWERS[question](*raw))
    assert {array.dtype for array in (price, volume, spread, mid)} == {np.dtype("float64")}
    assert math.isfinite(price.sum())
