"""`mexc-trio export`: files that hold the rows, in the order of time, or no files."""

import csv
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import pytest
import trio

from mexc_trio.cli.main import main
from mexc_trio.clickhouse import view_sql
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import prepare
from mexc_trio.clickhouse.tables import CONTRACTS, GAPS, market_table
from mexc_trio.errors import StoreUnavailable
from mexc_trio.export import export as export_module
from mexc_trio.export import formats, source
from mexc_trio.export.hftbacktest import (
    BUY_EVENT,
    DEPTH_CLEAR_EVENT,
    SELL_EVENT,
    TRADE_EVENT,
)
from mexc_trio.export.part import ExportedDays
from tests.support.running import DEADLINE, OLD_MARKET, command_text, environment, running
from tools.clickhouse import ClickHouseServer
from tools.exchange import open_exchange
from tools.market import Row
from tools.typed import EXACT, FLOAT, Numbers, candles, expected, levels, market_rows

# Where a command has to open the store itself, a test says so.
pytestmark = pytest.mark.usefixtures("kept_data")

DAY: Final = 86_400_000
FRIDAY: Final = 1_795_132_800_000  # 2026-11-20T00:00Z


def fill(directory: Path, rows: Sequence[Row], batch: int = 500) -> None:
    """Give the table `btc` of an embedded store these rows, after those it has."""
    with closing(EmbeddedStore(directory)) as store:
        prepare(store, [market_table("btc")])
        for first in range(0, len(rows), batch):
            store.append(market_table("btc"), rows[first : first + batch])


def run(directory: Path, *arguments: object) -> int:
    """Run the command on the store of a directory."""
    return main(["export", "BTC_USDT", "--store", str(directory), *map(str, arguments)])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line of standard error."""
    error = capsys.readouterr().err.splitlines()
    assert len([line for line in error if line.startswith("mexc-trio: error: ")]) == 1
    return error[-1]


def by_time(rows: Sequence[Row]) -> list[Row]:
    """Return rows in the order of time; sorting is stable."""
    return sorted(rows, key=lambda row: row[0])


def parquet_rows(path: Path) -> list[tuple[Any, ...]]:
    """Return a file's rows: milliseconds, then Decimals; levels as pairs."""
    found = []
    for row in pq.read_table(path).to_pylist():
        ts, symbol, *values = row.values()
        assert symbol == "BTC_USDT"
        found.append((milliseconds(ts), *values))
    return found


def columns_of(kind: str) -> list[str]:
    """Return the columns of an export."""
    ts, *others = view_sql.COLUMNS[kind]
    return [ts, "symbol", *others]


def milliseconds(moment: datetime) -> int:
    """Return a time as the tables have it."""
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


# --- What the files hold -------------------------------------------------------------------------


KINDS: Final = pytest.mark.parametrize("kind", ["tickers", "deals", "depths"])
BOTH: Final = pytest.mark.parametrize(("numbers", "computed"), [("float", FLOAT), ("exact", EXACT)])


@KINDS
@BOTH
def test_parquet_has_every_row(tmp_path: Path, kind: str, numbers: str, computed: Numbers) -> None:
    """Read back with pyarrow, a kind's rows are the rows, in the order of time."""
    rows = market_rows(600, oddities=0.6)
    rows[7:9] = rows[8:6:-1]  # some came late
    fill(tmp_path / "data", rows)
    out = tmp_path / "x.parquet"
    assert run(tmp_path / "data", "--kind", kind, "--out", out, "--numbers", numbers) == 0
    assert parquet_rows(out) == expected(by_time(rows), kind, computed)
    assert pq.read_schema(out).names == columns_of(kind)


def test_numbers_are_floats_unless_asked_otherwise(tmp_path: Path) -> None:
    """Tools compute with what they get without a word, and see the time as a time in UTC."""
    fill(tmp_path / "data", market_rows(50, oddities=0))
    for numbers, type_ in (("", "double"), ("exact", "decimal128(38, 18)"), ("text", "string")):
        out = tmp_path / f"{numbers}.parquet"
        more = ["--numbers", numbers] if numbers else []
        assert run(tmp_path / "data", "--kind", "deals", "--out", out, *more) == 0
        types = {field.name: str(field.type) for field in pq.read_schema(out)}
        assert types == {
            "ts": "timestamp[ms, tz=UTC]", "symbol": "string", "price": type_, "volume": type_,
            "side": "string",
        }  # fmt: skip


@KINDS
def test_texts_are_the_exchanges_own(tmp_path: Path, kind: str) -> None:
    """With --numbers text the digits are those of the row, zeros at the end included."""
    rows = market_rows(300, oddities=0.6)
    fill(tmp_path / "data", rows)
    out = tmp_path / "x.jsonl"
    assert (
        run(
            tmp_path / "data",
            "--kind",
            kind,
            "--out",
            out,
            "--numbers",
            "text",
            "--format",
            "jsonl",
        )
        == 0
    )
    mt = {"tickers": "t", "deals": "d", "depths": "dp"}[kind]
    for (_, _, m), line in zip(
        [row for row in by_time(rows) if row[1] == mt], out.read_text().splitlines(), strict=True
    ):
        found = json.loads(line)
        if kind == "depths":
            sides = (
                ",".join(
                    f"[{p},{a}]"
                    for p, a in zip(found[f"{side}_prices"], found[f"{side}_amounts"], strict=True)
                )
                for side in ("bid", "ask")
            )
            assert "|".join(sides) == m
        elif kind == "deals":
            assert [found["price"], found["volume"]] == m.split("|")[:2]
        else:
            assert [
                text or "" for name, text in found.items() if name not in ("ts", "symbol")
            ] == m.split("|")


def test_raw_has_every_row_of_every_type(tmp_path: Path) -> None:
    """Raw rows are the table's, texts untouched."""
    rows = [*market_rows(100, oddities=1.0), (FRIDAY * 2, "dl", 'tab\there "quoted", line\nend é')]
    fill(tmp_path / "data", rows)
    for form in ("parquet", "csv", "jsonl"):
        out = tmp_path / f"x.{form}"
        assert run(tmp_path / "data", "--kind", "raw", "--format", form, "--out", out) == 0
        if form == "parquet":
            found = parquet_rows(out)
        elif form == "csv":
            found = [
                (milliseconds(datetime.fromisoformat(row["ts"])), row["mt"], row["m"])
                for row in csv.DictReader(io.StringIO(out.read_text(), newline=""))
            ]
        else:
            lines = map(json.loads, out.read_text().splitlines())
            found = [
                (milliseconds(datetime.fromisoformat(line["ts"])), line["mt"], line["m"])
                for line in lines
            ]
        assert found == by_time(rows)


def _value(text: str) -> Any:
    if text in ("buy", "sell"):
        return text
    if text.startswith("["):
        return json.loads(text, parse_float=Decimal, parse_int=Decimal)
    return Decimal(text) if text else None


@KINDS
def test_csv_and_json_lines_are_exact(tmp_path: Path, kind: str) -> None:
    """Exact numbers keep all digits in the text formats; what was not sent is empty, or null."""
    rows = market_rows(300, oddities=0.6)
    fill(tmp_path / "data", rows)
    wanted = expected(by_time(rows), kind)
    for form in ("csv", "jsonl"):
        arguments = ["--kind", kind, "--format", form, "--numbers", "exact"]
        assert run(tmp_path / "data", *arguments, "--out", tmp_path / f"x.{form}") == 0
    reader = csv.reader(io.StringIO((tmp_path / "x.csv").read_text(), newline=""))
    assert next(reader) == columns_of(kind)
    assert [
        (milliseconds(datetime.fromisoformat(ts)), *map(_value, fields))
        for ts, _, *fields in reader
    ] == wanted
    found = []
    for line in (tmp_path / "x.jsonl").read_text().splitlines():
        values = json.loads(line, parse_float=Decimal, parse_int=Decimal)
        assert list(values) == columns_of(kind)
        assert values.pop("symbol") == "BTC_USDT"
        found.append((milliseconds(datetime.fromisoformat(values.pop("ts"))), *values.values()))
    assert found == wanted


def test_several_symbols_share_a_file(tmp_path: Path) -> None:
    """One symbol after the other, each in the order of time, told apart by a column."""
    data, out = tmp_path / "data", tmp_path / "x.parquet"
    rows = {"btc": market_rows(60, oddities=0), "eth": market_rows(90, oddities=0, seed=2)}
    with closing(EmbeddedStore(data)) as store:
        for table, some in rows.items():
            prepare(store, [market_table(table)])
            store.append(market_table(table), some)
    command = ["export", "btc_usdt", "ETH_USDT", "--store", str(data), "--kind", "deals"]
    assert main([*command, "--out", str(out)]) == 0
    found = pq.read_table(out).to_pylist()
    for symbol, table in (("BTC_USDT", "btc"), ("ETH_USDT", "eth")):
        assert [
            (milliseconds(row["ts"]), row["price"], row["volume"], row["side"])
            for row in found
            if row["symbol"] == symbol
        ] == expected(rows[table], "deals", FLOAT)
    assert [row["symbol"] for row in found] == sorted(row["symbol"] for row in found)
    # By day each has a directory of its own.
    assert main([*command, "--out", str(tmp_path / "days"), "--by-day"]) == 0
    assert sorted(path.name for path in (tmp_path / "days").iterdir()) == ["BTC_USDT", "ETH_USDT"]


GAPS_STORED: Final = [
    ("BTC_USDT", "deal", FRIDAY, FRIDAY + 5_500, "connection lost", 'it said "bye", twice', 0, 0),
    ("ETH_USDT", "all", FRIDAY + 1, FRIDAY + 2, "program stopped", "", 0, 0),
    ("BTC_USDT", "depth", FRIDAY - DAY, FRIDAY - DAY + 1, "clock jumped", "", 5, 2**63),
]


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_gaps_are_a_kind(tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What was missed goes with what was recorded, with times that are times."""
    fill(tmp_path / "data", [])
    with closing(EmbeddedStore(tmp_path / "data")) as store:
        prepare(store, [GAPS])
        store.append(GAPS, GAPS_STORED)
    out = tmp_path / f"gaps.{form}"
    assert run(tmp_path / "data", "--kind", "gaps", "--out", out) == 0
    if form == "parquet":
        found = pq.read_table(out).to_pylist()
        assert str(pq.read_schema(out).field("to").type) == "timestamp[ms, tz=UTC]"
    elif form == "csv":
        found = list(csv.DictReader(io.StringIO(out.read_text(), newline="")))
    else:
        found = list(map(json.loads, out.read_text().splitlines()))
    for row in found:
        for name in ("from", "to"):
            moment = row[name] if form == "parquet" else datetime.fromisoformat(row[name])
            row[name] = milliseconds(moment)
        for name in ("version_before", "version_after"):
            row[name] = int(row[name])
    wanted = [gap for gap in sorted(GAPS_STORED, key=lambda gap: gap[2]) if gap[0] == "BTC_USDT"]
    assert [tuple(row[name] for name in GAPS.column_names) for row in found] == wanted
    # All symbols', and only those that touch the range.
    both = ["export", "--store", str(tmp_path / "data"), "--kind", "gaps", "--from", "2026-11-20"]
    assert main([*both, "--out", str(tmp_path / "x.csv")]) == 0
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 3
    assert main([*both, "BTC_USDT", "ETH_USDT", "--out", str(tmp_path / "y.csv")]) == 0
    assert "y.csv: BTC_USDT, ETH_USDT gaps from 2 rows" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "hftbacktest"])
def test_standard_output(tmp_path: Path, form: str) -> None:
    """`--out -` writes the same bytes into a pipe as into a file, and the summary elsewhere."""
    fill(tmp_path / "data", market_rows(100, oddities=0))
    command = ["export", "BTC_USDT", "--store", str(tmp_path / "data"), "--format", form]
    command += [] if form == "hftbacktest" else ["--kind", "deals"]
    assert main([*command, "--out", str(tmp_path / "x")]) == 0
    program = [sys.executable, "-m", "mexc_trio", *command, "--out", "-"]
    done = subprocess.run(program, capture_output=True, check=True, env=environment())
    if form == "hftbacktest":
        with np.load(io.BytesIO(done.stdout)) as piped, np.load(tmp_path / "x") as written:
            assert np.array_equal(piped["data"], written["data"])
    else:
        assert done.stdout == (tmp_path / "x").read_bytes()
    assert b"rows" in done.stderr


def test_the_format_is_the_files_ending(tmp_path: Path) -> None:
    """Nobody has to say it twice; without an ending that is known it is Parquet."""
    fill(tmp_path / "data", market_rows(30, oddities=0))
    for name, start in (("x.csv", b"ts,"), ("x.JSONL", b"{"), ("x.pq", b"PAR1"), ("x.y", b"PAR1")):
        assert run(tmp_path / "data", "--kind", "deals", "--out", tmp_path / name) == 0
        assert (tmp_path / name).read_bytes().startswith(start)
    assert run(tmp_path / "data", "--out", tmp_path / "x.npz") == 0
    assert (tmp_path / "x.npz").read_bytes().startswith(b"PK")


@BOTH
def test_flat_books(tmp_path: Path, numbers: str, computed: Numbers) -> None:
    """Each level has columns of its own, empty where the book is not so deep."""
    rows: list[Row] = [
        (FRIDAY, "dp", "[1.5,2],[1.4,3]|[1.6,7]"),
        (FRIDAY + 1, "dp", "|" + ",".join(f"[{n},{n * 2}]" for n in range(1, 21))),
    ]
    fill(tmp_path / "data", rows)
    out = tmp_path / "x.parquet"
    flat = ["--kind", "depths", "--flat", "--numbers", numbers, "--out", out]
    assert run(tmp_path / "data", *flat) == 0
    first, second = pq.read_table(out).to_pylist()
    names = [
        f"{s}_{w}_{n}" for n in range(1, 21) for s in ("bid", "ask") for w in ("price", "amount")
    ]
    assert list(first) == ["ts", "symbol", *names, "mid", "spread"]
    assert {name: value for name, value in first.items() if value is not None and "_" in name} == {
        name: computed.number(text)
        for name, text in {
            "bid_price_1": "1.5", "bid_amount_1": "2", "bid_price_2": "1.4", "bid_amount_2": "3",
            "ask_price_1": "1.6", "ask_amount_1": "7",
        }.items()
    }  # fmt: skip
    assert second["ask_amount_20"] == 40
    assert second["bid_price_1"] is None


def test_candles_of_a_range_are_whole(tmp_path: Path) -> None:
    """A candle that begins in the range has all of its deals, also those after the range's end."""
    rows = market_rows(3000, oddities=0.1, step=700)
    fill(tmp_path / "data", rows)
    start, end = rows[0][0] + 90_000, rows[-1][0] - 90_000
    arguments = ["--kind", "candles", "--interval", "5m", "--out", tmp_path / "x.parquet"]
    bounds = [datetime.fromtimestamp(at / 1000, UTC).isoformat() for at in (start, end)]
    assert run(tmp_path / "data", *arguments, "--from", bounds[0], "--to", bounds[1]) == 0
    wanted = [candle for candle in candles(rows, 300, FLOAT) if start <= candle[0] < end]
    assert 3 < len(wanted) < len(candles(rows, 300))
    assert parquet_rows(tmp_path / "x.parquet") == wanted


def test_rows_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    """Rows that are a little late come in the order of time, equals in that of receipt."""
    rows: list[Row] = []
    for n in range(2000):
        back = 500_000 if n % 300 == 299 else 20 if n % 10 == 0 else 0
        rows.append((FRIDAY + DAY + n // 4 * 7_000 - back, "d", f"{n}.5|1|1"))
    fill(tmp_path / "data", rows, batch=70)
    assert run(tmp_path / "data", "--kind", "deals", "--out", tmp_path / "x.parquet") == 0
    assert parquet_rows(tmp_path / "x.parquet") == expected(by_time(rows), "deals")


def test_one_row_out_of_place_costs_no_scan_an_hour(tmp_path: Path) -> None:
    """Rows far out of order are put in order too, and the table is read as often as ever."""
    step = 360_000  # so that there are 200 hours
    rows: list[Row] = [(FRIDAY + n * step, "d", f"{n}.5|1|1") for n in range(2000)]
    rows.insert(1500, (FRIDAY + 5, "d", "0.25|1|2"))
    rows.insert(7, (9_999_999_999_999, "d", "7|1|1"))  # as an exchange sends now and then
    asked = "SELECT value FROM system.events WHERE event = 'SelectQuery'"
    with closing(EmbeddedStore(tmp_path / "data")) as store:
        prepare(store, [market_table("btc")])
        store.append(market_table("btc"), rows)
        before = store.query(asked)[0][0]
        assert run(tmp_path / "data", "--kind", "deals", "--out", tmp_path / "x.parquet") == 0
        assert store.query(asked)[0][0] - before < 20
    assert parquet_rows(tmp_path / "x.parquet") == expected(by_time(rows), "deals")


def test_a_range_is_half_open(tmp_path: Path) -> None:
    """--from is part of the range, --to is not; both are UTC."""
    rows: list[Row] = [(FRIDAY + n - 2, "d", f"{n}|1|1") for n in range(5)]
    rows += [(FRIDAY + DAY + n - 2, "d", f"{n + 5}|1|1") for n in range(5)]
    fill(tmp_path / "data", rows)
    out = tmp_path / "x.parquet"
    day = ["--from", "2026-11-20", "--to", "2026-11-21"]
    assert run(tmp_path / "data", "--kind", "deals", "--out", out, *day) == 0
    assert parquet_rows(out) == expected(rows[2:7], "deals")
    zone = ["--from", "2026-11-20T01:00:00.001+01:00", "--to", "2026-11-21T00:00:00.001"]
    assert run(tmp_path / "data", "--kind", "deals", "--out", out, *zone, "--force") == 0
    assert parquet_rows(out) == expected(rows[3:8], "deals")


# --- hftbacktest ---------------------------------------------------------------------------------


def replayed(events: Any) -> list[tuple[int, dict[float, float], dict[float, float]]]:
    """Return the two sides of the book after each millisecond that has an event of depth."""
    bids: dict[float, float] = {}
    asks: dict[float, float] = {}
    found: list[tuple[int, dict[float, float], dict[float, float]]] = []
    for ev, exch_ts, local_ts, px, qty, *_ in events.tolist():
        kind, side = ev & 0xFF, bids if ev & BUY_EVENT else asks
        assert ev >> 30 == 0b11
        assert exch_ts == local_ts
        if kind == TRADE_EVENT:
            continue
        if kind == DEPTH_CLEAR_EVENT:
            assert not ev & (BUY_EVENT | SELL_EVENT)
            bids.clear()
            asks.clear()
        elif qty:
            side[px] = qty
        else:
            del side[px]
        state = (exch_ts // 1_000_000, dict(bids), dict(asks))
        if found and found[-1][0] == state[0]:
            found[-1] = state
        else:
            found.append(state)
    return found


def books(rows: Sequence[Row]) -> list[tuple[int, dict[float, float], dict[float, float]]]:
    """Return the recorded books, the last one of each millisecond, where one differs."""
    found: list[tuple[int, dict[float, float], dict[float, float]]] = []
    for ts, mt, m in rows:
        if mt == "dp":
            sides = [dict(zip(*levels(side, FLOAT), strict=True)) for side in m.split("|")]
            found.append((ts, sides[0], sides[1]))
    return found


def exported_events(tmp_path: Path, rows: Sequence[Row], *more: object) -> Any:
    """Export for hftbacktest and load the array."""
    fill(tmp_path / "data", rows)
    out = tmp_path / "x.npz"
    assert run(tmp_path / "data", "--format", "hftbacktest", "--out", out, *more) == 0
    with np.load(out) as file:
        return file["data"]


def test_hftbacktest_events_rebuild_each_book_and_have_each_deal(tmp_path: Path) -> None:
    """After each recorded book, the events have made exactly that book; deals have their side."""
    rows = market_rows(900, oddities=0.3)
    events = exported_events(tmp_path, rows)
    assert replayed(events) == books(by_time(rows))
    trades = events[events["ev"] & 0xFF == TRADE_EVENT]
    wanted = [
        (ts * 1_000_000, float(price), float(volume), side == "buy")
        for ts, price, volume, side in expected(by_time(rows), "deals")
    ]
    sides = (trades["ev"] & BUY_EVENT != 0).tolist()
    columns = (trades[name].tolist() for name in ("exch_ts", "px", "qty"))
    assert list(zip(*columns, sides, strict=True)) == wanted


def test_hftbacktest_leaves_out_impossible_times(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Deals of 1970 and 2286, as the exchange may send them: a word in the log, no traceback."""
    rows = market_rows(30, oddities=0.0)
    odd: list[Row] = [(ts, "d", "107.5|2|1") for ts in (0, 1_700_000_000, 9_999_999_999_999)]
    events = exported_events(tmp_path, [*rows, *odd])
    assert replayed(events) == books(by_time(rows))
    assert 107.5 not in events["px"]
    assert "3 rows have an impossible time and are left out" in caplog.text


def rows_with_a_gap() -> tuple[list[Row], int, int]:
    """Return deals and books, and from when to when there are no books."""
    rows = [row for row in by_time(market_rows(300, oddities=0.0)) if row[1] != "t"]
    books_at = [n for n, row in enumerate(rows) if row[1] == "dp"]
    first, last = books_at[30], books_at[60]
    deals = [row for row in rows[first + 1 : last] if row[1] == "d"]
    return [*rows[: first + 1], *deals, *rows[last:]], rows[first][0], rows[last][0]


def test_hftbacktest_has_no_book_in_a_gap(tmp_path: Path) -> None:
    """At the start of each gap in the books the book is cleared; the next one sets it anew."""
    rows, start, end = rows_with_a_gap()
    with closing(EmbeddedStore(tmp_path / "data")) as store:
        prepare(store, [GAPS])
        store.append(
            GAPS,
            [
                ("BTC_USDT", "depth", start, end, "channel silent", "", 0, 0),
                ("BTC_USDT", "deal", end + 5, end + 6, "channel silent", "", 0, 0),
                ("ETH_USDT", "all", end + 7, end + 8, "program stopped", "", 0, 0),
            ],
        )
    events = exported_events(tmp_path, rows)
    found = {ts: (bids, asks) for ts, bids, asks in replayed(events)}
    assert found.pop(start + 1) == ({}, {})
    assert [(ts, *sides) for ts, sides in found.items()] == books(rows)
    assert sum(events["ev"] & 0xFF == DEPTH_CLEAR_EVENT) == 3  # at the beginning, and around it


@pytest.mark.parametrize("form", ["hftbacktest", "nautilus"])
def test_a_book_does_not_outlast_a_day_that_ends_in_a_gap(tmp_path: Path, form: str) -> None:
    """The day's file ends with a clear, since the next one may begin hours later."""
    fill(tmp_path / "data", [(FRIDAY + at, "dp", "[1,2]|[2,3]") for at in (0, DAY + 1)])
    with closing(EmbeddedStore(tmp_path / "data")) as store:
        prepare(store, [GAPS])
        gap = ("BTC_USDT", "depth", FRIDAY, FRIDAY + DAY + 1, "program stopped", "", 0, 0)
        store.append(GAPS, [gap])
    out = tmp_path / "out"
    kind = ["--kind", "depths", "--format", form, "--out", out]
    if form == "hftbacktest":
        assert run(tmp_path / "data", *kind, "--by-day") == 0
        days = [np.load(file)["data"] for file in sorted(out.glob("*.npz"))]
        clears = [day["exch_ts"][day["ev"] & 0xFF == DEPTH_CLEAR_EVENT].tolist() for day in days]
    else:
        assert run(tmp_path / "data", *kind, "--to", "2026-11-21") == 0
        assert run(tmp_path / "data", *kind, "--from", "2026-11-21") == 0
        files = sorted(out.rglob("*.parquet"))
        tables = [pq.ParquetFile(file).read().to_pylist() for file in files]
        clears = [[row["ts_event"] for row in rows if row["action"] == 4] for rows in tables]
        assert files[0].stem.endswith("T00-00-00-001000000Z"), "when it was cleared"
    ms = 1_000_000
    assert clears == [[FRIDAY * ms, (FRIDAY + 1) * ms], [(FRIDAY + DAY + 1) * ms]]


def test_hftbacktest_sets_the_book_anew_after_one_that_is_crossed(tmp_path: Path) -> None:
    """The package takes levels that are crossed for gone, and would miss the bid at 99 for ever."""
    crossed, plain = "[101,7],[99,8]|[100,9]", "[99,8]|[100,9]"
    rows: list[Row] = [(FRIDAY + at, "dp", m) for at, m in enumerate((plain, crossed, plain))]
    events = exported_events(tmp_path, rows, "--kind", "depths")
    assert replayed(events) == books(rows)
    last = events[events["exch_ts"] == (FRIDAY + 2) * 1_000_000]
    assert last[0]["ev"] & 0xFF == DEPTH_CLEAR_EVENT
    assert last[1:]["px"].tolist() == [99.0, 100.0]


def test_hftbacktest_says_when_prices_lie_between_the_contracts_ticks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A backtest takes long over a step that is far too small: whoever makes one is told why."""
    with closing(EmbeddedStore(tmp_path / "data")) as store:
        prepare(store, [CONTRACTS])
        store.append(CONTRACTS, [_contract(FRIDAY, 0.001)])
    exported_events(tmp_path, [(FRIDAY, "d", "0.5|1|1")])
    assert not caplog.text
    exported_events(tmp_path, [(FRIDAY, "d", "0.0125|1|1")], "--force")
    assert "between the contract's ticks of 0.01: tick_size is 0.0125" in caplog.text


def test_hftbacktest_has_local_times_and_the_contracts_steps(tmp_path: Path) -> None:
    """With --latency-ms, local times are later by so much; the tick and the lot stand beside."""
    rows = market_rows(200, oddities=0.0)
    events = exported_events(tmp_path, rows, "--latency-ms", "35")
    assert set(events["local_ts"] - events["exch_ts"]) == {35_000_000}
    assert json.loads((tmp_path / "x.npz.json").read_text()) == {
        "tick_size": "0.1",
        "lot_size": "1",
    }


def test_hftbacktest_itself_reads_the_file(tmp_path: Path) -> None:
    """The package's own checks pass, and its backtest sees the recorded best prices.

    Over two days in two files, the second of which begins with another book.
    """
    hft = pytest.importorskip("hftbacktest", reason="the package is heavy: pip install hftbacktest")
    from hftbacktest.data import validate_event_order

    rows = by_time(market_rows(600, oddities=0.0, step=100_000))
    fill(tmp_path / "data", rows)
    out = tmp_path / "days"
    assert run(tmp_path / "data", "--format", "hftbacktest", "--by-day", "--out", out) == 0
    files = sorted(map(str, out.glob("*.npz")))
    assert len(files) == 2
    for file in files:
        with np.load(file) as loaded:
            events = loaded["data"]
        assert events.dtype == hft.event_dtype
        validate_event_order(events)
    asset = (
        hft.BacktestAsset()
        .data(files)
        .linear_asset(1.0)
        .constant_order_latency(0, 0)
        .risk_adverse_queue_model()
        .no_partial_fill_exchange()
        .trading_value_fee_model(0.0, 0.0)
        .tick_size(0.1)
        .lot_size(1.0)
        .last_trades_capacity(10_000)
    )
    backtest = hft.HashMapMarketDepthBacktest([asset])
    wanted = {ts: (max(bids), min(asks)) for ts, bids, asks in books(rows)}
    seen: dict[int, tuple[float, float]] = {}
    trades, answer = 0, 2
    while answer == 2:  # a feed came
        answer = backtest.wait_next_feed(True, 10**15)
        depth = backtest.depth(0)
        # At the end the clock stays where it was.
        at = backtest.current_timestamp // 1_000_000 if answer == 2 else max(wanted)
        seen[at] = (round(depth.best_bid, 1), round(depth.best_ask, 1))
        trades += len(backtest.last_trades(0))
        backtest.clear_last_trades(0)
    assert answer == 1  # the end of the data
    assert {at: seen.get(at) for at in wanted} == wanted
    assert trades == sum(mt == "d" for _, mt, _ in rows)
    assert not backtest.close()


# --- nautilus_trader -----------------------------------------------------------------------------

NAUTILUS: Final = """
import json, sys
from nautilus_trader.model.book import OrderBook
from nautilus_trader.model.enums import BookType
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.persistence.catalog import ParquetDataCatalog

catalog = ParquetDataCatalog(sys.argv[1])
instrument = InstrumentId.from_str("BTC_USDT.MEXC")
trades = [
    (t.ts_event, t.ts_init, str(t.price), str(t.size), t.aggressor_side.name)
    for t in catalog.trade_ticks([str(instrument)])
]
book, books = OrderBook(instrument, BookType.L2_MBP), []
for delta in catalog.order_book_deltas([str(instrument)]):
    book.apply_delta(delta)
    if delta.flags & 128:
        sides = [
            [(float(str(level.price)), round(level.size(), 6)) for level in side]
            for side in (book.bids(), book.asks())
        ]
        books.append((delta.ts_event, *sides))
print(json.dumps([trades, books]))
"""


def python_with_nautilus() -> str:
    """Return an interpreter that has the package; it wants other versions of numpy and pandas."""
    python = os.environ.get("NAUTILUS_PYTHON", sys.executable)
    command = [python, "-c", "import nautilus_trader"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("NAUTILUS_PYTHON names no Python that has nautilus_trader")
    return python


@pytest.mark.parametrize("wide", [False, True])
def test_nautilus_itself_reads_the_catalog(tmp_path: Path, wide: bool) -> None:
    """The package's own catalog gives each deal and rebuilds each book, and none in a gap.

    Local times are a latency's, or those of receipt where the table has them.
    """
    python = python_with_nautilus()
    rows, start, end = rows_with_a_gap()
    table = market_table("btc", wide=wide)
    with closing(EmbeddedStore(tmp_path / "data")) as store:
        prepare(store, [GAPS, table])
        store.append(GAPS, [("BTC_USDT", "depth", start, end, "channel silent", "", 0, 0)])
        stored = [*rows, (9_999_999_999_999, "d", "1|1|1")]
        store.append(table, [(*r, (r[0] + 3) * 1000, 0) for r in stored] if wide else stored)
    out = tmp_path / "catalog"
    command = ["--format", "nautilus", "--out", out, *([] if wide else ["--latency-ms", 3])]
    assert run(tmp_path / "data", *command) == 0
    done = subprocess.run(
        [python, "-c", NAUTILUS, str(out)], capture_output=True, text=True, check=True
    )
    trades, found = json.loads(done.stdout.splitlines()[-1])
    sides = {"1": "BUYER", "2": "SELLER"}
    assert [(*times, Decimal(p), Decimal(v), side) for *times, p, v, side in trades] == [
        (ts * 1_000_000, (ts + 3) * 1_000_000, Decimal(price), Decimal(volume), sides[side])
        for ts, mt, m in rows
        if mt == "d"
        for price, volume, side in [m.split("|")]
    ]
    wanted = [
        [ts * 1_000_000, *([list(level) for level in side.items()] for side in sides)]
        for ts, *sides in books(rows)
    ]
    wanted.insert([ts for ts, *_ in books(rows)].index(end), [(start + 1) * 1_000_000, [], []])
    assert found == wanted


def test_a_catalog_never_has_rows_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An export of a later time adds files; one of a time that is there is refused."""
    rows = days_of_deals(2)
    fill(tmp_path / "data", rows)
    command = ["--format", "nautilus", "--kind", "deals", "--out", tmp_path / "catalog"]
    assert run(tmp_path / "data", *command, "--to", "2026-11-21") == 0
    assert run(tmp_path / "data", *command, "--from", "2026-11-21") == 0
    files = sorted((tmp_path / "catalog").rglob("*.parquet"))
    assert sum(pq.read_metadata(file).num_rows for file in files) == len(rows)
    assert len(files) == 2
    capsys.readouterr()
    assert run(tmp_path / "data", *command) == 2
    assert "has rows of that time already" in one_line(capsys)


# --- By day --------------------------------------------------------------------------------------


def days_of_deals(days: int, each: int = 400) -> list[Row]:
    """Return deals of some days, the first of them FRIDAY."""
    return [
        (FRIDAY + day * DAY + n * (DAY // each), "d", f"{day}.{n}1|{n + 1}|{n % 2 + 1}")
        for day in range(days)
        for n in range(each)
    ]


def test_by_day_a_complete_day_is_not_written_again(tmp_path: Path) -> None:
    """A second run writes only the days that have got rows since; the others stay as they are."""
    rows = days_of_deals(3)
    fill(tmp_path / "data", rows[:-100])
    out = tmp_path / "deals"
    command = ["--kind", "deals", "--by-day", "--out", out]
    assert run(tmp_path / "data", *command) == 0
    names = [f"BTC_USDT-deals-2026-11-{day}.parquet" for day in (20, 21, 22)]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "_export.json"])
    before = {name: (out / name).stat().st_mtime_ns for name in names}

    fill(tmp_path / "data", rows[-100:])
    assert run(tmp_path / "data", *command) == 0
    after = {name: (out / name).stat().st_mtime_ns for name in names}
    assert [name for name in names if before[name] != after[name]] == names[2:]
    for day, name in enumerate(names):
        assert parquet_rows(out / name) == expected(
            rows[day * 400 : day * 400 + 400], "deals", FLOAT
        )

    late = (rows[200][0] + 1, "d", "7|7|1")  # two days, that is
    fill(tmp_path / "data", [late])
    assert run(tmp_path / "data", *command) == 0
    changed = [name for name in names if (out / name).stat().st_mtime_ns != after[name]]
    assert changed == names[:1]
    first = [*rows[:201], late, *rows[201:400]]
    assert parquet_rows(out / names[0]) == expected(first, "deals", FLOAT)

    # The second day is recorded anew after a reset, and has got as many rows.
    second = (FRIDAY + DAY) // DAY
    anew = [(ts + (ts // DAY == second), mt, m) for ts, mt, m in [*rows, late]]
    with closing(EmbeddedStore(tmp_path / "data")) as store:
        store.query("DROP TABLE mexc_data.btc")
    fill(tmp_path / "data", anew)
    before = {name: (out / name).stat().st_mtime_ns for name in names}
    assert run(tmp_path / "data", *command) == 0
    changed = [name for name in names if (out / name).stat().st_mtime_ns != before[name]]
    assert changed == names[1:2]
    assert parquet_rows(out / names[1]) == expected(anew[400:800], "deals", FLOAT)


def test_by_day_an_interrupted_run_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was whole stays, what was half is gone, and the next run does the rest."""
    fill(tmp_path / "data", days_of_deals(3))
    out = tmp_path / "deals"
    command = ["--kind", "deals", "--by-day", "--format", "csv", "--out", out]
    original = formats.open_writer
    written: list[str] = []

    def failing(rows: Any, part: Any, file: Any) -> Any:
        written.append(Path(file.name).name)
        if len(written) == 2:
            raise KeyboardInterrupt
        return original(rows, part, file)

    monkeypatch.setattr(export_module, "open_writer", failing)
    assert run(tmp_path / "data", *command) == 130
    assert "interrupted" in one_line(capsys)
    names = [f"BTC_USDT-deals-2026-11-{day}.csv" for day in (20, 21, 22)]
    assert sorted(path.name for path in out.iterdir()) == [names[0], "_export.json"]
    assert run(tmp_path / "data", *command) == 0
    assert written[2:] == [f".{name}.part" for name in names[1:]]
    for name in names:
        assert len((out / name).read_text().splitlines()) == 401


def test_by_day_a_run_that_ends_between_a_file_and_its_note_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is known as ours, and nobody has to say --force to a nightly job."""
    fill(tmp_path / "data", days_of_deals(2))
    command = ["--kind", "deals", "--by-day", "--format", "csv", "--out", tmp_path / "deals"]

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ExportedDays, "add", killed)
        assert run(tmp_path / "data", *command) == 130
    assert len(list((tmp_path / "deals").glob("*.csv"))) == 1
    assert run(tmp_path / "data", *command) == 0
    for path in (tmp_path / "deals").glob("*.csv"):
        assert len(path.read_text().splitlines()) == 401


def test_by_day_refuses_what_is_not_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that no export made, or a directory with another one, is not written over."""
    fill(tmp_path / "data", days_of_deals(1))
    out = tmp_path / "deals"
    out.mkdir()
    (out / "BTC_USDT-deals-2026-11-20.parquet").write_text("mine")
    command = ["--kind", "deals", "--by-day", "--out", out]
    assert run(tmp_path / "data", *command) == 2
    assert "is there already" in one_line(capsys)
    assert run(tmp_path / "data", *command, "--force") == 0
    assert run(tmp_path / "data", *command, "--format", "csv") == 2
    assert "give --out another directory" in one_line(capsys)


def written_days(tmp_path: Path, *more: object) -> dict[str, int]:
    """Export for hftbacktest by day; return when each file was written, by its name."""
    out = tmp_path / "days"
    command = ["--format", "hftbacktest", "--by-day", "--out", out, *more]
    assert run(tmp_path / "data", *command) == 0
    return {path.stem[-10:]: path.stat().st_mtime_ns for path in out.glob("*.npz")}


def changed(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """Return the days whose files were written since."""
    return sorted(day for day in after if before.get(day) != after[day])


def test_by_day_a_gap_that_is_written_later_is_cleared(tmp_path: Path) -> None:
    """A day's file has the gaps that the store knows of now, and no other day is written again."""
    rows: list[Row] = [
        (FRIDAY + day * DAY + at, "dp", "[1,2]|[2,3]") for day in range(3) for at in (0, 9_000)
    ]
    fill(tmp_path / "data", rows)
    before = written_days(tmp_path, "--kind", "depths")
    with closing(EmbeddedStore(tmp_path / "data")) as store:
        prepare(store, [GAPS])
        start, end = FRIDAY + DAY + 9_000, FRIDAY + 2 * DAY
        store.append(GAPS, [("BTC_USDT", "all", start, end, "program stopped", "", 0, 0)])
    after = written_days(tmp_path, "--kind", "depths")
    assert changed(before, after) == ["2026-11-21"]
    (file,) = (tmp_path / "days").glob("*-2026-11-21.npz")
    with np.load(file) as loaded:
        assert replayed(loaded["data"])[-1] == (start + 1, {}, {})
    assert changed(after, written_days(tmp_path, "--kind", "depths")) == []


def test_by_day_no_file_begins_before_the_one_before_it_ends(tmp_path: Path) -> None:
    """Local times do not go back from one day to the next when a late row changed the first."""
    wide = market_table("btc", wide=True)
    times = [FRIDAY + 1000, FRIDAY + DAY, FRIDAY + 2 * DAY]
    with closing(EmbeddedStore(tmp_path / "data")) as store:
        prepare(store, [wide])
        store.append(wide, [(at, "d", "1|1|1", (at + 5) * 1000, 0) for at in times])
    before = written_days(tmp_path, "--kind", "deals")
    with closing(EmbeddedStore(tmp_path / "data")) as store:
        store.append(wide, [(FRIDAY + DAY - 1, "d", "2|1|1", (FRIDAY + DAY + 20) * 1000, 0)])
    after = written_days(tmp_path, "--kind", "deals")
    assert changed(before, after) == ["2026-11-20", "2026-11-21"]
    files = sorted((tmp_path / "days").glob("*.npz"))
    local = [at for file in files for at in np.load(file)["data"]["local_ts"].tolist()]
    assert [at // 1_000_000 for at in local] == [
        times[0] + 5, times[1] + 20, times[1] + 20, times[2] + 5,
    ]  # fmt: skip
    assert local == sorted(local)


def test_by_day_local_times_do_not_go_back_after_a_clock_was_far_ahead(tmp_path: Path) -> None:
    """What one day's clock said holds for all that follow, not for the next one alone."""
    wide = market_table("btc", wide=True)
    received = [FRIDAY + 3 * DAY + 7, FRIDAY + DAY + 5, FRIDAY + 2 * DAY + 5, FRIDAY + 4 * DAY + 5]
    with closing(EmbeddedStore(tmp_path / "data")) as store:
        prepare(store, [wide])
        rows = zip((0, 1, 2, 4), received, strict=True)
        store.append(wide, [(FRIDAY + d * DAY, "d", "1|1|1", at * 1000, 0) for d, at in rows])
    before = written_days(tmp_path, "--kind", "deals")
    files = sorted((tmp_path / "days").glob("*.npz"))
    local = [at for file in files for at in np.load(file)["data"]["local_ts"].tolist()]
    assert local == sorted(local)
    assert local[::3] == [at * 1_000_000 for at in received[::3]]
    assert changed(before, written_days(tmp_path, "--kind", "deals")) == []


def _contract(as_of: int, size: float) -> tuple[Any, ...]:
    return ("BTC_USDT", as_of, "btc", size, 0.01, 1.0, 2, 0, 0, "{}")


def test_by_day_each_day_has_the_contract_of_its_time(tmp_path: Path) -> None:
    """A contract that changes later leaves the files of earlier days, and what they say of it."""
    fill(tmp_path / "data", days_of_deals(2))
    with closing(EmbeddedStore(tmp_path / "data")) as store:
        prepare(store, [CONTRACTS])
        store.append(CONTRACTS, [_contract(FRIDAY, 0.001)])
    before = written_days(tmp_path)
    with closing(EmbeddedStore(tmp_path / "data")) as store:
        store.append(CONTRACTS, [_contract(FRIDAY + DAY + 5, 0.1)])
    after = written_days(tmp_path)
    assert changed(before, after) == ["2026-11-21"]
    about = [json.loads(path.read_text()) for path in sorted((tmp_path / "days").glob("B*.json"))]
    assert [one["contract_size"] for one in about] == ["0.001", "0.1"]


# --- Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "deal"], "did you mean deals?"),
        ([], "--kind is missing"),
        (["--kind", "deals", "--format", "xml"], "--format 'xml'"),
        (["--kind", "raw", "--format", "hftbacktest"], "--kind deals or depths"),
        (["--kind", "deals", "--from", "2026-11-21", "--to", "2026-11-20"], "is not before"),
        (["--kind", "deals", "--from", "2026-11-21", "--to", "2026-11-21"], "is not before"),
        (["--kind", "deals", "--from", "tuesday"], "'tuesday' is no time"),
        (["--kind", "deals", "--interval", "1m"], "goes with --kind candles"),
        (["--kind", "candles", "--interval", "0m"], "--interval '0m'"),
        (["--kind", "candles", "--interval", "7h", "--by-day"], "no whole number"),
        (["--kind", "deals", "--from", "2027-01-01"], "only between 2026-11-20 00:00:00"),
        (["--kind", "tickers"], "there are none"),
    ],
)
def test_wrong_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """Each is one line that names what is wrong, exit code 2, and no file."""
    fill(tmp_path / "data", days_of_deals(1, 3))
    assert run(tmp_path / "data", "--out", tmp_path / "x", *arguments) == 2
    assert message in one_line(capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_an_unknown_symbol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error says which tables there are."""
    fill(tmp_path / "data", days_of_deals(1, 3))
    store, out = str(tmp_path / "data"), str(tmp_path / "x")
    assert main(["export", "ETH_USDT", "--kind", "raw", "--store", store, "--out", out]) == 2
    assert "ETH_USDT was not recorded" in (line := one_line(capsys))
    assert "there are btc" in line


def test_a_store_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is an error, and no store is made."""
    assert run(tmp_path / "none", "--kind", "deals", "--out", tmp_path / "x") == 2
    assert str(tmp_path / "none") in one_line(capsys)
    assert not (tmp_path / "none").exists()


def test_a_target_that_is_there_or_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written over, and a directory that is missing is not made."""
    fill(tmp_path / "data", days_of_deals(1, 3))
    (tmp_path / "x").write_text("mine")
    assert run(tmp_path / "data", "--kind", "deals", "--out", tmp_path / "x") == 2
    assert "--force writes over it" in one_line(capsys)
    assert (tmp_path / "x").read_text() == "mine"
    (tmp_path / "x.npz.json").write_text("mine, too")
    assert run(tmp_path / "data", "--out", tmp_path / "x.npz") == 2
    assert "x.npz.json is there already; --force writes over it" in one_line(capsys)
    assert not (tmp_path / "x.npz").exists()
    assert run(tmp_path / "data", "--kind", "deals", "--out", tmp_path / "no" / "x") == 2
    assert "cannot write into" in one_line(capsys)
    assert run(tmp_path / "data", "--kind", "deals", "--out", tmp_path) == 2
    assert "is a directory" in one_line(capsys)


@pytest.mark.parametrize("form", ["parquet", "csv", "hftbacktest"])
def test_a_full_disk(tmp_path: Path, form: str) -> None:
    """In the middle of a file: one line, exit code 1, and nothing is left behind.

    Nobody has the store open. The disk is full for this process alone: the system lets it write no
    file beyond 100 kB.
    """
    fill(tmp_path / "own", market_rows(3000, oddities=0.0))
    kind = [] if form == "hftbacktest" else ["--kind", "depths"]
    out = tmp_path / "out"
    out.mkdir()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    ended = subprocess.run(
        [sys.executable, "-m", "mexc_trio", "export", "BTC_USDT", "--store", tmp_path / "own",
         "--format", form, "--out", out / "x", *kind],
        env=environment(), capture_output=True, text=True, timeout=DEADLINE, check=False,
        preexec_fn=limit, cwd=tmp_path,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith(f"mexc-trio: error: cannot write {out / 'x'}")
    assert "Traceback" not in ended.stderr
    assert list(out.iterdir()) == []


def begun(out: Path) -> bool:
    """Return whether something is written into a directory."""
    with suppress(FileNotFoundError):  # it has its other name now
        return any(path.stat().st_size for path in out.iterdir())
    return False


def test_ctrl_c(tmp_path: Path) -> None:
    """In the middle of a file: one line, exit code 130, and nothing is left behind.

    Nobody has the store open.
    """
    with closing(EmbeddedStore(tmp_path / "own")) as store:
        prepare(store, [market_table("btc")])
        store.query(
            f"INSERT INTO mexc_data.btc SELECT fromUnixTimestamp64Milli(toInt64({FRIDAY} + number))"
            f", 'd', concat(toString(number), '.5|1|1') FROM numbers(3000000)"
        )
    out = tmp_path / "out"
    out.mkdir()
    code = 0
    while not code:
        (out / "x").unlink(missing_ok=True)  # it was done before we had the processor again
        with subprocess.Popen(
            [sys.executable, "-m", "mexc_trio", "export", "BTC_USDT", "--store", tmp_path / "own",
             "--kind", "deals", "--format", "csv", "--out", out / "x"],
            env=environment(), stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        ) as process:  # fmt: skip
            while process.poll() is None and not begun(out):
                time.sleep(0.005)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=DEADLINE)
        code = process.returncode
    assert code == 130, error
    assert error.splitlines()[-1] == "mexc-trio: error: interrupted"
    assert "Traceback" not in error
    assert list(out.iterdir()) == []


def test_a_query_that_fails_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store's error is the one line; the rows so far are not kept."""
    fill(tmp_path / "data", days_of_deals(2))
    original = source.ExportSource.tables

    def failing(self: source.ExportSource, *arguments: Any) -> Any:
        yield from original(self, *arguments)
        raise StoreUnavailable("the store went away")

    monkeypatch.setattr(source.ExportSource, "tables", failing)
    assert run(tmp_path / "data", "--kind", "deals", "--out", tmp_path / "x") == 1
    assert one_line(capsys) == "mexc-trio: error: the store went away"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_server_that_goes_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a real server: its rows; and when it is killed in the middle, one line and no file."""
    with ClickHouseServer() as server:
        server.execute(f"CREATE TABLE mexc_data.btc {OLD_MARKET}")
        rows = days_of_deals(3)
        server.execute("INSERT INTO mexc_data.btc VALUES", rows)
        command = ["export", "BTC_USDT", "--store", server.url, "--kind", "raw", "--out"]
        assert main([*command, str(tmp_path / "whole.parquet")]) == 0
        assert parquet_rows(tmp_path / "whole.parquet") == rows

        original = formats.open_writer

        def killing(*arguments: Any) -> Any:
            server.kill()
            return original(*arguments)

        server.execute(
            "INSERT INTO mexc_data.btc SELECT number, 'd', "
            "concat(toString(number), '.5|1|1 is much longer than a deal') "
            "FROM system.numbers LIMIT 500000"
        )
        monkeypatch.setattr(export_module, "open_writer", killing)
        capsys.readouterr()
        assert main([*command, str(tmp_path / "x.parquet")]) == 1
        assert "cannot be reached" in one_line(capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "whole.parquet"]


# --- While recording -----------------------------------------------------------------------------


async def test_while_a_recorder_runs(tmp_path: Path) -> None:
    """An export and a backup of a store that is being recorded have the rows that were there."""
    async with (
        open_exchange(rate=100) as exchange,
        running(tmp_path, "BTC_USDT", "--url", exchange.url, "--linger", "0.1") as program,
    ):
        await program.until(lambda: len(exchange.rows("BTC_USDT")) > 300)
        before = len(exchange.rows("BTC_USDT"))
        await program.acknowledged(before)
        commands = (
            ["export", "BTC_USDT", "--kind", "raw", "--out", "raw.parquet"],
            ["export", "BTC_USDT", "--kind", "candles", "--format", "csv", "--out", "candles.csv"],
            ["backup", "--out", "copy"],
        )
        for words in commands:
            ended = await trio.to_thread.run_sync(partial(command_text, *words, cwd=tmp_path))
            assert ended.returncode == 0, ended.stderr
        assert await program.stop() == 0
        sent = exchange.rows("BTC_USDT")
        found = parquet_rows(tmp_path / "raw.parquet")
        assert before <= len(found) < len(sent)
        assert found == by_time(sent[: len(found)])
        copied = pq.read_table(tmp_path / "copy" / "btc.parquet").to_pydict().values()
        kept = list(zip(*copied, strict=True))
        assert kept == sent[: len(kept)]
        assert len(kept) >= len(found)
        assert (tmp_path / "candles.csv").read_text().count("\n") >= 2


def test_the_help_names_the_formats(capsys: pytest.CaptureFixture[str]) -> None:
    """What can be asked for is in the help."""
    assert main(["export", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for word in ("parquet", "hftbacktest", "--by-day", "--from TIME", "candles"):
        assert word in text
