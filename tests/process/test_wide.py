"""Wide tables: when each row was received, and the exchange's number of it, wherever rows go."""

import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import pytest
import trio

from mexc_trio import open_store
from mexc_trio.cli.main import main
from mexc_trio.clickhouse import views
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import prepare
from mexc_trio.clickhouse.tables import GAPS, market_table
from mexc_trio.export.hftbacktest import DEPTH_CLEAR_EVENT
from tests.support.running import Embedded, Program, Served, Store, running
from tools.exchange import open_exchange

BTC: Final = "BTC_USDT"
WIDE: Final = "toUnixTimestamp64Milli(ts), mt, m, toUnixTimestamp64Micro(rt), id"


@pytest.fixture(params=["embedded", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Lend one of the two stores, empty."""
    if request.param == "embedded":
        return Embedded(tmp_path)
    served = Served(request.getfixturevalue("clickhouse_server"))
    served.create()
    served.server.execute(f"DROP TABLE IF EXISTS {served.database}.btc")
    return served


async def acknowledged_more(program: Program, rows: int) -> None:
    """Wait until a program has stored so many rows in this run."""
    await program.until(lambda: "Subscribed to" in program.log)
    await program.acknowledged(program.acked() + rows)


@pytest.mark.parametrize(
    ("store", "engine"),
    [("embedded", "stripelog"), ("server", "mergetree")],
    indirect=["store"],
)
async def test_each_row_bears_its_receipt_and_number(
    tmp_path: Path, store: Store, engine: str
) -> None:
    """Killed and started again, with --wide and without: every row once, and as it was received."""
    command = (BTC, "--linger", "0", "--store", store.url, "--engine", engine)
    began = time.time_ns() // 1000
    async with open_exchange(rate=300) as exchange:
        for number, option in enumerate(("--wide", "--no-wide", "--wide")):
            async with running(tmp_path, *command, "--url", exchange.url, option) as program:
                await acknowledged_more(program, 200)
                if number < 2:
                    program.process.kill()
                    await program.ended()
                else:
                    assert await program.stop() == 0
        ended = time.time_ns() // 1000
        wide: Any = await trio.to_thread.run_sync(store.select, WIDE, "btc")
        sent = Counter(exchange.rows(BTC))
    if engine == "mergetree":
        wide = sorted(wide, key=lambda row: row[3])
    assert len(wide) > 600
    assert Counter(tuple(row[:3]) for row in wide) <= sent
    received = [row[3] for row in wide]
    assert began < min(received)
    assert max(received) < ended
    assert received == sorted(received)
    deals = [row[4] for row in wide if row[1] == "d"]
    assert len(deals) > 100
    assert all(deals)
    books = [row[4] for row in wide if row[1] == "dp"]
    assert all(books)
    assert books == sorted(books)
    assert {row[4] for row in wide if row[1] == "t"} == {0}


async def test_a_narrow_table_stays_so_and_is_recorded_into(tmp_path: Path, store: Store) -> None:
    """One line says so; rows that an earlier run left for a wide table find their place, too."""
    command = (BTC, "--linger", "0", "--store", store.url)
    async with open_exchange(rate=200) as exchange:
        async with running(tmp_path, *command, "--url", exchange.url) as program:
            await acknowledged_more(program, 50)
            assert await program.stop() == 0
        async with running(tmp_path, *command, "--url", exchange.url, "--wide") as program:
            await acknowledged_more(program, 100)
            assert await program.stop() == 0
            assert program.log.count("was made without --wide and stays as it is") == 1
        rows = await trio.to_thread.run_sync(store.rows, "btc")
        assert len(rows) >= 150
        assert set(rows) <= set(exchange.rows(BTC))


async def test_of_two_lines_the_first_to_bring_a_row_is_when_it_was_received(
    tmp_path: Path,
) -> None:
    """Each deal and book is stored once, with its receipt and number, whichever line brought it."""
    store = Embedded(tmp_path)
    command = (BTC, "--linger", "0", "--store", store.url, "--wide", "--lines", "2")
    began = time.time_ns() // 1000
    async with open_exchange(rate=300) as exchange:
        async with running(tmp_path, *command, "--url", exchange.url) as program:
            await acknowledged_more(program, 300)
            assert await program.stop() == 0
        ended = time.time_ns() // 1000
        wide: Any = await trio.to_thread.run_sync(store.select, WIDE, "btc")
        sent = set(exchange.rows(BTC))
    assert {tuple(row[:3]) for row in wide} <= sent
    assert all(began < row[3] < ended for row in wide)
    deals = [(row[:3], row[4]) for row in wide if row[1] == "d"]
    assert len(deals) > 100
    assert all(number for _, number in deals)
    assert len(set(deals)) == len(deals)
    books = [row[4] for row in wide if row[1] == "dp"]
    assert all(books)
    assert books == sorted(set(books))
    assert {row[4] for row in wide if row[1] == "t"} == {0}


# --- What is made of them ------------------------------------------------------------------------

NOON: Final = 1_795_176_000_000  # 2026-11-20T12:00Z
ROWS: Final = [
    (NOON + 1_000, "d", "100.5|3|1", NOON * 1000 + 1_020_123, 71),
    (NOON + 2_000, "dp", "[100,7],[99.5,1]|[101,2]", NOON * 1000 + 2_030_000, 8),
    (NOON + 2_500, "t", "100.5|100|99.5|1000|0.00010000", NOON * 1000 + 2_490_000, 0),
    (NOON + 3_000, "d", "101.5|5|2", 0, 0),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a wide table and a narrow one."""
    directory = tmp_path_factory.mktemp("wide")
    with closing(EmbeddedStore(directory)) as store:
        tables = [market_table("btc", wide=True), market_table("eth")]
        prepare(store, tables)
        store.append(tables[0], ROWS)
        store.append(tables[1], [row[:3] for row in ROWS])
        views.create(store, ["btc", "eth"])
    return directory


def moment(microseconds: int) -> datetime:
    """Return a time as Python has it."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


@pytest.fixture
def export(data: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return what exports into a new file."""

    def run(name: str, *arguments: str) -> Path:
        out = tmp_path / name
        assert main(["export", *arguments, "--store", str(data), "--out", str(out)]) == 0
        return out

    return run


def fill(directory: Path, rows: list[tuple[int, str, str, int, int]]) -> None:
    """Give the wide table `btc` of an embedded store these rows."""
    table = market_table("btc", wide=True)
    with closing(EmbeddedStore(directory)) as store:
        prepare(store, [table])
        store.append(table, rows)


def catalog_rows(catalog: Path, kind: str) -> list[dict[str, Any]]:
    """Return the rows of a catalog's files of one kind, in the order of the files."""
    files = sorted((catalog / "data" / kind / f"{BTC}.MEXC").iterdir())
    return [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]


def test_views_and_exports_have_them(data: Path, export: Callable[..., Path]) -> None:
    """`received` to the microsecond and `id`; NULL where nobody knows; in all formats."""
    with open_store(data) as store:
        found = store.deals(BTC)
        assert found.column("received").to_pylist() == [moment(ROWS[0][3]), None]
        assert found.column("id").to_pylist() == [71, None]
        assert "received" not in store.deals("ETH_USDT").column_names
        for suffix in ("", "_exact"):
            answer = store.sql(f"SELECT received, id FROM btc_depths{suffix}").to_pylist()
            assert answer == [{"received": moment(ROWS[1][3]), "id": 8}]
        assert store.sql("SELECT * FROM btc_candles(interval = 60)").num_rows == 1
    deals = pq.read_table(export("x.parquet", BTC, "--kind", "deals")).to_pydict()
    assert deals["received"] == [moment(ROWS[0][3]), None]
    books = json.loads(export("x.jsonl", BTC, "--kind", "depths").read_text())
    assert books["received"] == "2026-11-20T12:00:02.030000Z"
    assert books["id"] == 8
    lines = export("x.csv", BTC, "--kind", "raw").read_text().splitlines()
    assert lines[0] == "ts,symbol,mt,m,received,id"
    assert lines[1].endswith(',"100.5|3|1",2026-11-20T12:00:01.020123Z,71')
    assert lines[4].endswith(',"101.5|5|2",,')
    both = pq.read_table(export("y.parquet", BTC, "ETH_USDT", "--kind", "tickers"))
    assert (both.num_rows, "received" in both.column_names) == (2, False)


def test_backtests_have_the_time_of_receipt(export: Callable[..., Path]) -> None:
    """Never before the exchange's time or another event's; a latency that is given comes first."""
    events = np.load(export("x.npz", BTC))["data"]
    local = (events["local_ts"] - NOON * 1_000_000) // 1000  # microseconds
    assert list(events["exch_ts"]) == sorted(events["exch_ts"])
    assert list(local) == sorted(local)
    assert local[0] == 1_020_123
    assert set(local[1:-1]) == {2_030_000}
    assert local[-1] == 3_000_000  # not known: the exchange's time
    fixed = np.load(export("y.npz", BTC, "--latency-ms", "5"))["data"]
    assert set(fixed["local_ts"] - fixed["exch_ts"]) == {5_000_000}


def test_a_book_is_cleared_locally_when_the_gap_begins(tmp_path: Path) -> None:
    """Not when the book after the gap is received."""
    rows = [
        (NOON, "dp", "[100,7]|[101,2]", NOON * 1000 + 20_000, 1),
        (NOON + 60_000, "dp", "[100,7]|[101,2]", NOON * 1000 + 60_020_000, 2),
    ]
    fill(tmp_path / "data", rows)
    with closing(EmbeddedStore(tmp_path / "data")) as store:
        prepare(store, [GAPS])
        gap = (BTC, "depth", NOON, NOON + 60_000, "channel silent", "", 0, 0)
        store.append(GAPS, [gap])
    command = ["export", BTC, "--store", str(tmp_path / "data"), "--out"]
    assert main([*command, str(tmp_path / "x.npz")]) == 0
    events = np.load(tmp_path / "x.npz")["data"]
    clears = events[events["ev"] & 0xFF == DEPTH_CLEAR_EVENT]
    local = (clears["local_ts"] - NOON * 1_000_000) // 1_000_000
    assert list(local) == [20, 20, 60_020]  # the first book, the gap a millisecond later, the next
    assert clears["local_ts"][1] > clears["local_ts"][0], "the first book is there for a moment"
    assert main([*command, str(tmp_path / "catalog"), "--format", "nautilus"]) == 0
    deltas = catalog_rows(tmp_path / "catalog", "order_book_delta")
    assert [row["ts_init"] for row in deltas if row["action"] == 4] == list(clears["local_ts"])


def test_of_days_that_follow_each_other_no_clock_goes_back(tmp_path: Path) -> None:
    """Late deals of one day and those of the next: also in a day that is exported by itself."""
    midnight = NOON + 43_200_000
    rows = [
        (midnight + at, "d", "100|1|1", (midnight + known) * 1000, n + 1)
        for n, (at, known) in enumerate([(-90, -80), (-10, 250), (5, 20), (10, 240), (400, 410)])
    ]
    fill(tmp_path / "data", rows)
    command = ["export", BTC, "--store", str(tmp_path / "data"), "--format", "hftbacktest"]
    found = []
    for name, more in (("both", []), ("second", ["--from", "2026-11-21"])):
        out = tmp_path / name
        assert main([*command, "--by-day", "--out", str(out), *more]) == 0
        days = [np.load(file)["data"]["local_ts"] for file in sorted(out.glob("*.npz"))]
        found.append([list((day // 1_000_000 - midnight).tolist()) for day in days])
    assert found == [[[-80, 250], [250, 250, 410]], [[250, 250, 410]]]


def test_a_catalog_of_nautilus_has_receipt_and_number(
    export: Callable[..., Path], tmp_path: Path
) -> None:
    """`ts_init` as backtests have it, the deal's number as the trade's, the book's as sequence."""
    catalog = export("catalog", BTC, "--format", "nautilus")
    noon = NOON * 1_000_000
    names = ("ts_event", "ts_init", "trade_id")
    trades = [tuple(row[name] for name in names) for row in catalog_rows(catalog, "trade_tick")]
    assert trades[0] == (noon + 1_000_000_000, noon + 1_020_123_000, "71")
    assert trades[1][:2] == (noon + 3_000_000_000,) * 2  # not known: the exchange's time
    deltas = catalog_rows(catalog, "order_book_delta")
    assert {(row["ts_event"], row["ts_init"], row["sequence"]) for row in deltas} == {
        (noon + 2_000_000_000, noon + 2_030_000_000, 8)
    }
    fixed = catalog_rows(
        export("fixed", BTC, "--format", "nautilus", "--latency-ms", "5"), "trade_tick"
    )
    assert {row["ts_init"] - row["ts_event"] for row in fixed} == {5_000_000}


def test_files_of_a_catalog_follow_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where one frame has deals of both: what is known never goes back, nothing is refused.

    The names of files say when their rows were known, by which the package chooses and joins them.
    """
    midnight = NOON + 43_200_000
    received = midnight * 1000 + 60_000
    rows = [
        (midnight + at, "d", f"{100 + n}|1|1", received + n, n + 1)
        for n, at in enumerate((-90, -10, 0, 10, 80))
    ]
    fill(tmp_path / "data", rows)
    catalog = tmp_path / "catalog"
    command = ["export", BTC, "--format", "nautilus", "--kind", "deals", "--out", str(catalog)]
    command += ["--store", str(tmp_path / "data")]
    first, second = ["--to", "2026-11-21"], ["--from", "2026-11-21"]
    assert main([*command, *first]) == 0
    assert main([*command, *second]) == 0
    found = catalog_rows(catalog, "trade_tick")
    assert [row["trade_id"] for row in found] == ["1", "2", "3", "4", "5"]
    known = [row["ts_init"] for row in found]
    assert known == sorted(known)
    files = sorted((catalog / "data" / "trade_tick" / f"{BTC}.MEXC").iterdir())
    assert known[1] < known[2]
    assert [file.stem[11:].replace("2026-11-", "") for file in files] == [
        "00-00-00-060000000Z_21T00-00-00-060001000Z",
        "00-00-00-060002000Z_21T00-00-00-080000000Z",
    ]
    for again in ([], first, second):
        assert main([*command, *again]) == 2
        assert "has rows of that time already" in capsys.readouterr().err
    assert main([*command, *first, "--force"]) == 0
    files[0].unlink()
    assert main([*command, *first]) == 0
    assert catalog_rows(catalog, "trade_tick") == found
    (files[0].with_name("a_b.parquet")).write_text("mine")
    assert main([*command, *second]) == 2
    assert "is no file of a catalog" in capsys.readouterr().err


def test_backup_and_restore(data: Path, tmp_path: Path) -> None:
    """A restored table is as wide as it was, to the microsecond."""
    backup, restored = tmp_path / "backup", tmp_path / "restored"
    assert main(["backup", "--store", str(data), "--out", str(backup)]) == 0
    assert main(["restore", "--store", str(restored), "--in", str(backup)]) == 0
    with open_store(data) as before, open_store(restored) as after:
        for table in ("btc", "eth"):
            select = f"SELECT * FROM {table} ORDER BY ts"
            assert after.sql(select) == before.sql(select)
