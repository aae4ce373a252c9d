"""The typed views say what the rows say, compared with a computation of its own in Decimal."""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_trio.clickhouse import view_sql, views
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import prepare
from mexc_trio.clickhouse.tables import market_table
from mexc_trio.errors import StoreError
from mexc_trio.symbols import EXACT_VIEWS, VIEWS
from tools.market import Row
from tools.typed import EXACT, FLOAT, ROWS, Numbers, candles, expected, market_rows

# --- Reading them --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    """Open one embedded store for the module: starting the engine is what takes time."""
    store = EmbeddedStore(tmp_path_factory.mktemp("views"))
    fill(store, [])
    yield store
    store.close()


def fill(store: EmbeddedStore, rows: Sequence[Row], batch: int = 10_000) -> None:
    """Give table `btc` these rows, and its views."""
    prepare(store, [market_table("btc")])
    views.create(store, ["btc"])
    refill(store, rows, batch)


def refill(store: EmbeddedStore, rows: Sequence[Row], batch: int = 10_000) -> None:
    """Give table `btc`, which is there with its views, other rows."""
    store.query(f"TRUNCATE TABLE {store.database}.btc")
    for first in range(0, len(rows), batch):
        store.append(market_table("btc"), rows[first : first + batch])


def read(store: EmbeddedStore, view: str, threads: int = 1) -> list[tuple[Any, ...]]:
    """Return the rows of a view, read by one thread in the order of insertion."""
    others = "" if view.startswith("candles") else "EXCEPT (contract_size, tick) "
    return store.query(
        f"SELECT * {others}REPLACE (toUnixTimestamp64Milli(ts) AS ts) "
        f"FROM {store.database}.btc_{view} "
        f"SETTINGS max_threads = {threads}"
    )


# --- Tests ---------------------------------------------------------------------------------------

BOTH: Final = pytest.mark.parametrize(("suffix", "numbers"), [("", FLOAT), ("_exact", EXACT)])


@BOTH
@pytest.mark.parametrize("view", ROWS)
def test_every_row_of_a_generated_market(
    store: EmbeddedStore, view: str, suffix: str, numbers: Numbers
) -> None:
    """Values are the texts', or the doubles nearest to them, however oddly they were written."""
    rows = market_rows(1500, oddities=0.6)
    fill(store, rows)
    found = read(store, f"{view}{suffix}")
    assert len(found) > 400
    assert found == expected(rows, view, numbers)


NUMBERS: Final = (
    "0", "-1.5", "25329.000000000000000000000000000000", "0.0000015036", "233.740269343644737245",
    "999999999999999999.999999999999999999", "10000000", "-0.000000000000000001",
    "1000000000000000000", "0.1234567890123456789", "123456789012345678901234567890",
)  # fmt: skip
NO_NUMBERS: Final = ("-", "", "1.2.3", "x", "--1")
digits = st.tuples(st.integers(0, 10**18 - 1), st.integers(0, 10**17 - 1), st.integers(1, 18))
"""Whole part, fraction, and how many digits that has at least."""
texts = st.sampled_from(NUMBERS + NO_NUMBERS) | digits.map(lambda d: f"{d[0]}.{d[1]:0{d[2]}}")


@BOTH
@settings(max_examples=30, deadline=None)
@given(books=st.lists(st.tuples(*[st.lists(st.tuples(texts, texts), max_size=3)] * 2), min_size=1))
def test_books_of_odd_numbers(
    store: EmbeddedStore,
    books: list[tuple[list[tuple[str, str]], ...]],
    suffix: str,
    numbers: Numbers,
) -> None:
    """Empty sides, and numbers that are none or do not fit: no other side suffers."""
    rows: list[Row] = [
        (n, "dp", "|".join(",".join(f"[{p},{v}]" for p, v in side) for side in book))
        for n, book in enumerate(books)
    ]
    refill(store, rows)
    assert read(store, f"depths{suffix}") == expected(rows, "depths", numbers)


@BOTH
@pytest.mark.parametrize("view", ["deals", "tickers"])
@settings(max_examples=20, deadline=None)
@given(some=st.lists(texts, min_size=1))
def test_odd_numbers(
    store: EmbeddedStore, view: str, some: list[str], suffix: str, numbers: Numbers
) -> None:
    """What is no number, or does not fit, is NULL, never rounded away and never an error."""
    form = "{0}|{0}|1" if view == "deals" else "{0}|{0}||{0}|{0}"
    mt = ROWS[view][0]
    rows: list[Row] = [(n, mt, form.format(text)) for n, text in enumerate([*NUMBERS, *some])]
    refill(store, rows)
    assert read(store, f"{view}{suffix}") == expected(rows, view, numbers)


def test_texts_of_other_programs_do_no_harm(store: EmbeddedStore) -> None:
    """Rows that another program wrote do not make a table unreadable."""
    texts = ["[1,2,3],[2,3,4]|[5,6]", "nonsense", "", "|", "[1,2]", "[[1,2]]|[[3,4],[5,6]]"]
    fill(store, [(n, "dp", text) for n, text in enumerate(texts)])
    for suffix in ("", "_exact"):
        found = read(store, f"depths{suffix}")
        assert found[0][3:5] == ([5], [6])
        nothing: tuple[Any, ...] = ([], [], [], [], None, None, None, None, None, None)
        assert found[1][1:] == found[2][1:] == found[3][1:] == nothing


@pytest.mark.parametrize("interval", [1, 60, 86_400])
def test_candles(store: EmbeddedStore, interval: int) -> None:
    """Open and close go by time, then by the order of insertion, whatever the threads do."""
    rows: list[Row] = []
    price = 1_000_000
    for n in range(6000):
        price += 1 if n % 7 else -11
        late = -400 if n % 50 == 0 else 0  # and some come late
        ts = 1_788_335_243_000 + n // 40 * 250 + late
        rows.append((ts, "d", f"{price}.{n % 10}|{n % 300 + 1}|{n % 2 + 1}"))
        if n % 5 == 0:
            rows.append((ts, "t", "1|||2|"))
    rows += [(ts + 90_000_000, "d", "7|3|2"), (ts + 90_000_000, "d", "8|5|2")]  # nobody buys
    fill(store, rows, batch=97)
    for threads in (1, 8):
        found = read(store, f"candles(interval = {interval})", threads)
        assert found == candles(rows, interval, FLOAT)
        found = read(store, f"candles_exact(interval = {interval})", threads)
        assert found == candles(rows, interval, EXACT)


def test_candles_that_cannot_be_read_in_order_say_so(store: EmbeddedStore) -> None:
    """A profile with readonly = 1 takes the view its single thread: an error, no wrong close."""
    fill(store, [(n, "d", f"{n}|1|1") for n in range(3000)], batch=100)
    with pytest.raises(StoreError, match=r"give it max_threads = 1"):
        store.query(
            "SELECT * FROM mexc_data.btc_candles(interval = 60) "
            "SETTINGS max_threads = 8, readonly = 1"
        )


def test_views_of_rows_are_one_select(store: EmbeddedStore) -> None:
    """Through a second one an engine with an index reads every row to find the last."""
    fill(store, [])
    found = store.query(
        "SELECT name, countSubstrings(as_select, 'SELECT ') FROM system.tables "
        "WHERE database = 'mexc_data' AND name LIKE 'btc|_%' ESCAPE '|' AND engine = 'View'"
    )
    selects = {name: int(number) for name, number in found if "candles" not in name}
    assert set(selects.values()) == {1}
    assert len(selects) == 6


def test_an_index_is_read_at_many_places_at_once(store: EmbeddedStore) -> None:
    """So that whoever asks for the newest rows soon has some near the end, and skips the others.

    How many are skipped depends on who is how fast; with one thread, which is what commands have,
    one place would mean all rows.
    """
    rows = 1_500_000
    prepare(store, [market_table("eth", "mergetree")])
    views.create(store, ["eth"])
    store.query(
        f"INSERT INTO mexc_data.eth (ts, mt, m, n) SELECT fromUnixTimestamp64Milli(toInt64(number) "
        f"* 70 + 1788335243000), if(number % 4 = 0, 'dp', 'd'), concat(toString(number), '|1|1'), "
        f"number FROM numbers({rows})"
    )
    for view in ("eth_deals", "eth_deals_exact"):
        question = f"SELECT price FROM mexc_data.{view} ORDER BY ts DESC LIMIT 3"
        question += " SETTINGS max_threads = 1"
        assert store.query(question) == [(rows - 1,), (rows - 2,), (rows - 3,)]
        pipeline = "\n".join(str(line) for (line,) in store.query(f"EXPLAIN PIPELINE {question}"))
        places = re.search(r"MergeTreeSelect\(.*\) \S (\d+)", pipeline)
        assert places, pipeline
        assert int(places[1]) >= 8


@pytest.mark.parametrize("view", ["deals", "candles(interval = 60)", "candles_exact(interval = 7)"])
def test_of_an_index_only_the_times_that_are_wanted_are_read(
    store: EmbeddedStore, view: str
) -> None:
    """Through each view a WHERE on its `ts` reaches the table, also for whoever may change little.

    The engine refuses what would read more.
    """
    prepare(store, [market_table("sol", "mergetree")])
    views.create(store, ["sol"])
    count, first = 100_000, 1_788_307_200_000  # one a second from a midnight on
    if not store.query("SELECT count() FROM mexc_data.sol")[0][0]:
        store.query(
            f"INSERT INTO mexc_data.sol (ts, mt, m, n) SELECT fromUnixTimestamp64Milli("
            f"toInt64({first} + number * 1000)), 'd', '100|1|1', number FROM numbers({count})"
        )
    wanted = f"ts >= fromUnixTimestamp64Milli({first + 90_000_000}) LIMIT 1"
    found = store.query(
        f"SELECT toUnixTimestamp64Milli(ts) FROM mexc_data.sol_{view} WHERE {wanted} "
        f"SETTINGS max_threads = 1, max_rows_to_read = {count // 4}, readonly = 1"
    )
    assert first + 90_000_000 <= found[0][0] < first + 90_007_000


def test_types(store: EmbeddedStore) -> None:
    """Float64 to compute with; in the exact views no Float, whatever it is computed from."""
    fill(store, [])
    types: dict[str, str] = {}
    for view in (*VIEWS, *EXACT_VIEWS):
        name = f"mexc_data.btc_{view}" + ("(interval = 60)" if "candles" in view else "")
        described = [(column, str(type_)) for column, type_, *_ in store.query(f"DESCRIBE {name}")]
        assert [name for name, _ in described] == list(
            view_sql.COLUMNS[view.removesuffix("_exact")]
            + (() if "candles" in view else ("contract_size", "tick"))
        )
        types |= {f"{view}.{column}": type_ for column, type_ in described}
    assert not [name for name, type_ in types.items() if "_exact" in name and "Float" in type_]
    assert types["deals.ts"] == types["candles.ts"] == "DateTime64(3)"
    assert types["deals.side"] == "Nullable(Enum8('buy' = 1, 'sell' = 2))"
    assert types["deals.price"] == types["candles.volume"] == "Nullable(Float64)"
    assert types["depths.bid_prices"] == "Array(Float64)"
    assert types["depths_exact.bid_prices"] == "Array(Decimal(76, 18))"
    assert types["candles_exact.close"] == "Nullable(Decimal(76, 18))"


def test_a_product_of_exact_numbers_is_exact(store: EmbeddedStore) -> None:
    """The largest prices and amounts there can be, multiplied and summed, do not overflow."""
    largest = "999999999999999999.999999999999999999"
    fill(store, [(n, "d", f"{largest}|{largest}|1") for n in range(1000)])
    found = store.query(
        "SELECT toString(sum(price * volume)), toTypeName(any(price * volume)) "
        "FROM mexc_data.btc_deals_exact"
    )
    wanted = 1000 * int(largest.replace(".", "")) ** 2
    assert Decimal(found[0][0]) == Decimal(f"{wanted}e-36")
    assert found[0][1] == "Nullable(Decimal(76, 36))"


def test_what_is_there_is_kept_and_what_is_ours_is_renewed(
    store: EmbeddedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A table of the user's is left alone and named; a view of an older definition is replaced."""
    fill(store, [(1, "d", "5|1|1")])
    assert views.create(store, ["btc"]) == []
    for view in ("deals", "tickers"):
        store.query(f"DROP VIEW mexc_data.btc_{view}")
    store.query("CREATE TABLE mexc_data.btc_deals (mine String) ENGINE = StripeLog")
    store.query("CREATE VIEW mexc_data.btc_tickers AS SELECT 1 AS old COMMENT 'mexc-trio views 0'")
    try:
        assert views.create(store, ["btc"]) == ["btc_tickers"]
        assert "btc_deals is not ours" in caplog.text
        assert json.dumps(store.query("DESCRIBE mexc_data.btc_deals")).count("mine") == 1
        assert read(store, "tickers") == []
    finally:
        store.query("DROP TABLE mexc_data.btc_deals")


def test_a_refusal_is_a_line_and_no_error(
    store: EmbeddedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """What prevents the views never prevents recording."""
    fill(store, [])
    for view in VIEWS:
        store.query(f"DROP VIEW mexc_data.btc_{view}")
    assert views.create(Refusing(store), ["btc"]) == []  # type: ignore[arg-type]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


class Refusing:
    """A store whose user may not create a view."""

    hosts = ()
    one_thread = True

    def __init__(self, store: EmbeddedStore) -> None:
        self.store, self.name, self.database = store, store.name, store.database

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Answer all else."""
        if sql.startswith("CREATE"):
            raise StoreError("Not enough privileges (ClickHouse error 497)")
        return self.store.query(sql)


def test_setup_and_recording_make_them(tmp_path: Path, store: EmbeddedStore) -> None:
    """A table that is created while the recorder runs has its views, too."""
    import trio

    from mexc_trio.clickhouse.async_store import AsyncStore

    trio.run(AsyncStore(store).create_views, [market_table("late")])
    assert store.query("SELECT count() FROM mexc_data.late_deals") == [(0,)]
