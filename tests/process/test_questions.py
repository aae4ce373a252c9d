"""What people ask of the data is answered right, in each tool, without a cast.

The statements are those of `tools/questions/questions.sql`, some of which the README shows; the
other tools read files that `export` has written as it does without options. Each answer is compared
with one from the raw texts.
"""

from collections.abc import Iterator
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
from mexc_trio.clickhouse.schema import prepare
from mexc_trio.clickhouse.tables import CONTRACTS, market_table
from mexc_trio.read.reading import Reader, open_reader
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget
from tests.support.questions import ANSWERS, CONTRACT, Raw, market
from tools.market import Row
from tools.questions import by_numpy, day, rows_of, same
from tools.questions.by_pandas import PANDAS, Files, Frames
from tools.questions.statements import CAST, QUESTIONS, shown


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
    """No statement is without a test, nor an answer without one, and the README shows some."""
    assert list(QUESTIONS) == list(ANSWERS)
    assert len(shown()) >= 5
    assert shown().items() <= QUESTIONS.items()
    assert len(QUESTIONS) >= 20
    assert list(by_numpy.ANSWERS) == list(PANDAS) == list(ANSWERS)
    for sql in QUESTIONS.values():
        assert not CAST.search(sql)


@pytest.mark.parametrize("question", QUESTIONS)
def test_sql(reader: Reader, raw: tuple[Raw, Raw], question: str) -> None:
    """The statement gives what the raw texts say."""
    answer: Any = rows_of(reader.table(QUESTIONS[question]))
    wanted = ANSWERS[question](*raw)
    if not isinstance(wanted, list) or not isinstance(wanted[0], tuple):
        ((answer,),) = answer  # one value, or one array
    same(answer, wanted)


# --- The same in other tools ---------------------------------------------------------------------


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


@pytest.mark.parametrize("question", ANSWERS)
def test_numpy(recorded: tuple[list[Row], list[Row]], raw: tuple[Raw, Raw], question: str) -> None:
    """What answers a whole day of raw texts, in doubles, answers this hour as Decimals do."""
    btc, eth = (by_numpy.Arrays.of(rows) for rows in recorded)
    same(by_numpy.ANSWERS[question](btc, eth), ANSWERS[question](*raw))


def test_columns_are_arrays_of_doubles(files: Files) -> None:
    """For numpy, without a copy and without a conversion."""
    for path, names in ((files.deals, ("price", "volume")), (files.depths, ("spread", "mid"))):
        table = pq.read_table(path).combine_chunks()
        for name in names:
            assert table[name].chunk(0).to_numpy().dtype == np.dtype("float64")


def test_a_day_of_a_busy_contract(capsys: pytest.CaptureFixture[str]) -> None:
    """The command that makes one and asks it all, in SQL and pandas, here for a part of a day."""
    assert day.main(["--hours", "0.2"]) == 0
    said = capsys.readouterr().out
    assert said.count(" right ") == 2 * len(ANSWERS)
    assert "wrong" not in said
