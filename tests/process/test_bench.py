"""The benchmarks run, check what they measure, and say what they should. No figure is asserted."""

import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mexc_trio.exchange import websocket
from tests.support.running import DEADLINE
from tools.bench import contenders
from tools.bench.database import check, databases
from tools.bench.exchange import exchange, spread
from tools.bench.frames import fingerprint, pool
from tools.bench.journal import journal
from tools.bench.latency import latency
from tools.bench.plan import Plan
from tools.bench.processes import processes
from tools.bench.questions import questions
from tools.bench.report import BenchError, Goal, Report
from tools.bench.scaling import scaling
from tools.bench.start import start
from tools.bench.throughput import throughput
from tools.clickhouse import ClickHouseServer

ROOT = Path(__file__).resolve().parents[2]


def names(report: Report) -> set[str]:
    """Return the names of a report's figures, all of which must be printed and be numbers."""
    table = report.table()
    for figure in report.figures.values():
        assert figure.name in table
        assert figure.values
        assert all(math.isfinite(value) for value in figure.values)
    return set(report.figures)


def test_questions() -> None:
    """Each is asked of both engines' views, and answered."""
    asked = {"last price", "last ten minutes", "candles of the last day", "turnover of all days"}
    found = names(questions(days=0.1, rate=1, repetitions=1))
    assert found == {f"{engine}: {one}" for engine in ("mergetree", "stripelog") for one in asked}


@pytest.mark.usefixtures("clickhouse_server")
def test_throughput() -> None:
    """All are measured over TLS and without; every row is stored, and compared or counted."""
    report = throughput(frames=500, repetitions=1, linger=0.05, pool_size=300)
    contenders = {
        "bare loop",
        "reference design",
        "hand-written",
        "recorder, server",
        "recorder, embedded",
    }
    assert names(report) >= {f"{one}, {scheme}" for one in contenders for scheme in ("wss", "ws")}
    assert names(report) >= {
        "recorder, server, wss / hand-written, wss",
        "bare loop, ws: processor time / recorder, server, wss: processor time",
    }


def test_bare_loop_reads_as_much_at_once_as_the_recorder() -> None:
    """The ratio to the bare loop compares like with like."""
    assert contenders.BUFFER_SIZE == websocket._BUFFER_SIZE  # noqa: SLF001


@pytest.mark.usefixtures("clickhouse_server")
def test_latency() -> None:
    """Each frame is followed from its arrival to the journal and to a SELECT, in this order."""
    report = latency(seconds=1, repetitions=1, rates=(100,), lingers=(0.1,), stores=("server",))
    case = "100/s, linger 0.1, server"
    assert names(report) >= {
        f"{case}: received to journaled, median",
        f"{case}: received to visible, 99 %",
    }
    medians = [
        report.figures[f"{case}: received to {what}, median"].median
        for what in ("journaled", "visible")
    ]
    assert 0 < medians[0] < medians[1]


def test_storage_as_a_command() -> None:
    """Virtual time passes in the engine's own time, and batches take less space.

    `--json` leaves standard output to one document; progress goes to standard error.
    """
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tools.bench",
            "storage",
            "--minutes=0.2",
            "--stores=embedded",
            "--wide",
            "--json",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    report = json.loads(done.stdout)
    assert report["benchmark"] == "storage"
    assert {figure["unit"] for figure in report["figures"]} >= {"bytes", "MB", "ratio"}
    medians = {figure["name"]: figure["median"] for figure in report["figures"]}
    assert medians.keys() >= {
        f"embedded: {what}"
        for what in ("a row", "tables, a day", "whole volume, a day", "--wide, a row")
    }
    assert 0 < medians["embedded: a row / embedded, one row an INSERT: a row"] < 0.6
    assert medians["embedded, mergetree: tables after all merges, a day"] > 1
    assert re.search("storage 1/1: embedded: .* bytes a row", done.stderr)


@pytest.mark.usefixtures("clickhouse_server")
def test_exchange() -> None:
    """Bursts and calm are told apart, and every row of every table is checked."""
    report = exchange(
        symbols=15,
        rate=200,
        seconds=3,
        burst_every=2,
        burst_seconds=1,
        symbols_per_connection="4",
        linger=0.1,
    )
    assert names(report) >= {
        "messages a second",
        "processor, whole run",
        "memory at most",
        "backlog at most",
        "delay of the busiest, calm, longest",
        "delay of all, in bursts, longest",
    }


@pytest.mark.usefixtures("clickhouse_server")
def test_scaling() -> None:
    """The cost of a message is compared with that of one symbol."""
    report = scaling(counts=(1, 5), rate=200, seconds=1, repetitions=1, linger=0.1)
    assert names(report) >= {"1 symbol", "5 symbols", "5 symbols / 1 symbol"}


@pytest.mark.usefixtures("clickhouse_server")
def test_processes() -> None:
    """One recorder of two symbols is compared with one recorder for each."""
    report = processes(frames=300, repetitions=1, linger=0.05, pool_size=300)
    assert names(report) >= {"one process", "two processes", "two processes / one process"}


@pytest.mark.usefixtures("clickhouse_server")
def test_start() -> None:
    """The first row is stored after the program has subscribed."""
    report = start(repetitions=1, counts=(1,), rate=50, rest=0.2, linger=0.05, stores=("server",))
    assert names(report) >= {"server, 1 symbol: memory at rest"}
    stored = report.figures["server, 1 symbol: first row stored"].median
    assert stored > report.figures["server, 1 symbol: subscribed"].median > 0


def test_report_tells_median_spread_and_verdict() -> None:
    """Ratios pair the values of the same repetition; a goal is held against the median."""
    report = Report("some", {})
    for ours, theirs in ((10, 20), (30, 40), (12, 20)):
        report.note("ours", ours, "rows/s")
        report.note("theirs", theirs, "rows/s")
    report.ratio("ours", "theirs", Goal(0.6, at_least=True))
    ratio = report.figures["ours / theirs"]
    assert ratio.values == [0.5, 0.75, 0.6]
    assert re.search(
        r"ours / theirs +0\.6 +0\.5 +0\.75 +3 +ratio +\(goal >= 0\.6: met\)", report.table()
    )
    entry = report.as_json()["figures"][-1]
    assert (entry["median"], entry["lowest"], entry["highest"], entry["met"]) == (
        0.6,
        0.5,
        0.75,
        True,
    )


def test_check_finds_what_differs(clickhouse_server: ClickHouseServer) -> None:
    """A lost row, a row too many and rows in another order are all told from what was sent."""
    rows = [row for made in pool(50).rows for row in made]
    with databases(("server",)) as lender, lender.empty("server", ["BTC_USDT"]) as database:
        assert lender.server is not None
        lender.server.execute("INSERT INTO mexc_data.btc VALUES", rows)
        check(database, {"BTC_USDT": pool(50).expected(50)})
        for others in (rows[:-1], [*rows, rows[0]], [rows[1], rows[0], *rows[2:]]):
            with pytest.raises(BenchError, match="BTC_USDT"):
                check(database, {"BTC_USDT": fingerprint(others)})


def test_load_keeps_its_rates() -> None:
    """Frames are due at the rates asked for, in bursts and outside, and the same each time."""
    rates = spread(100, 1000)
    assert math.isclose(sum(rates), 1000)
    plan = Plan(
        symbols=tuple(f"C{n}_USDT" for n in range(100)),
        rates=rates,
        seconds=10,
        burst_every=5,
        burst_seconds=1,
        burst_factor=5,
    )
    times, order = plan.schedule()
    assert list(times) == sorted(times)
    assert max(times) < 10
    in_burst = sum(plan.in_burst(at) for at in times)
    assert in_burst == pytest.approx(10_000, rel=0.05)
    assert len(times) - in_burst == pytest.approx(8_000, rel=0.05)
    assert Counter(order)[0] == pytest.approx(18 * rates[0], rel=0.1)
    assert plan.schedule() == (times, order)


def test_frames_are_of_the_mix_that_is_promised() -> None:
    """4 % tickers, 69 % deals, 27 % books of 20 levels a side; each makes rows."""
    frames = pool()
    kinds = Counter(rows[0][1] for rows in frames.rows)
    for kind, share in (("t", 0.04), ("d", 0.69), ("dp", 0.27)):
        assert kinds[kind] / len(frames.rows) == pytest.approx(share, abs=0.01)
    assert all(rows[0][2].count("[") == 40 for rows in frames.rows if rows[0][1] == "dp")


def test_journal() -> None:
    """The journal is measured with few tables and with many, with an index of them and without."""
    report = journal(messages=2000, repetitions=1, counts=(1, 50))
    assert names(report) >= {
        "1 table",
        "50 tables",
        "50 tables, with an index",
        "50 tables, with an index / 50 tables",
    }
