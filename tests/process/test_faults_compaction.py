"""Tables are rewritten while rows pour in; whatever is killed, no row is lost and none twice."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mexc_trio.clickhouse.compaction import copy_of
from mexc_trio.record.compaction import Request
from tests.support.faults import (
    TABLE,
    TALLY,
    Recorder,
    chance,
    compare,
    compare_gaps,
    environment,
    make_tables,
    recording,
    repetitions,
    stored,
    stored_gaps,
    wait_until,
)
from tests.support.running import DEADLINE, read_embedded
from tools.clickhouse import DATABASE, ClickHouseServer


@pytest.fixture(params=["embedded", "server"])
def server(request: pytest.FixtureRequest) -> Iterator[ClickHouseServer | None]:
    """Lend a server that a test may kill, or None for the embedded store."""
    if request.param == "embedded":
        yield None
        return
    with ClickHouseServer() as server:
        make_tables(server)
        yield server


def compact(recorder: Recorder, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command."""
    recorder.directory.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "mexc_trio", "compact", *arguments,
         "--store", recorder.store or str(recorder.state), "--state-dir", str(recorder.state)],
        cwd=recorder.directory, env=environment(), capture_output=True, text=True, check=False,
        timeout=DEADLINE,
    )  # fmt: skip


def blocks(recorder: Recorder, server: ClickHouseServer | None) -> int:
    """Return in how many pieces the table is stored."""
    sql = f"SELECT uniqExact(blockNumber()) FROM {DATABASE}.{TABLE}"
    found = server.execute(sql) if server is not None else read_embedded(recorder.state, sql)
    return int(found[0][0])


def test_recording_goes_on_while_tables_are_rewritten(
    tmp_path: Path, server: ClickHouseServer | None
) -> None:
    """The connection is not touched, no row is missing, and the INSERTs of before are one block."""
    with recording(tmp_path, server, linger="0") as (exchange, recorder):
        recorder.start()
        for _ in range(3):
            recorder.stores(500)
            done = compact(recorder)
            assert (done.returncode, done.stderr) == (0, "")
            assert f"table {TABLE}: " in done.stdout
            recorder.stores(1)
        done = compact(recorder, "BTC_USDT", "XRP_USDT")
        assert done.returncode == 1
        assert "XRP_USDT is not recorded by this process" in done.stderr
        recorder.catches_up()
        recorder.stop()
        assert "ERROR" not in recorder.said().replace("ERROR XRP", "")
        before = blocks(recorder, server)
        table = stored(recorder, server)
        found = compare(exchange.connections(), table)
        assert len(found.segments) == 1
        compare_gaps(found.segments, stored_gaps(recorder, server))
        # Nobody records: the command does it by itself, and the next recorder takes it as it is.
        done = compact(recorder, "BTC_USDT")
        assert (done.returncode, done.stderr) == (0, "")
        assert blocks(recorder, server) == 1 < before
        assert stored(recorder, server) == table
        recorder.start()
        recorder.stores(10)
        recorder.stop()
        compare(exchange.connections(), stored(recorder, server))


@pytest.mark.parametrize("victim", ["recorder", "engine"])
def test_kill_9_while_a_table_is_rewritten(
    victim: str, tmp_path: Path, server: ClickHouseServer | None
) -> None:
    """At any instant of it, again and again: every row once, in order, each gap written down."""
    instants = chance(f"compaction-{victim}-{server is not None}")
    kills = repetitions(2)
    with recording(tmp_path, server, linger="0") as (exchange, recorder):
        for _ in range(kills):
            if not recorder.is_running:
                recorder.start()
            recorder.stores(50)
            Request("a", ()).leave(recorder.journal)
            recorder.run_for(1 + instants.uniform(0, 1))
            if victim == "recorder":
                recorder.kill()
            elif server is not None:
                server.kill()
                server.start()
            else:
                status = recorder.state / "status"
                pid = int(status.read_text().split("\n", 1)[0].removeprefix("PID: "))
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if not recorder.is_running:
            recorder.start()
        recorder.stores(50)
        done = compact(recorder)
        assert done.returncode == 0, done.stderr
        recorder.catches_up()
        recorder.stop()
        table = stored(recorder, server)
        found = compare(exchange.connections(), table)
        compare_gaps(found.segments, stored_gaps(recorder, server))
        TALLY.fault(f"kill -9 of the {victim} while a table was rewritten", kills)
        left = f"SELECT name FROM system.tables WHERE name = '{copy_of(TABLE)}'"
        found_left = server.execute(left) if server else read_embedded(recorder.state, left)
        assert not found_left


def test_a_signal_does_not_wait_for_the_end_of_it(tmp_path: Path) -> None:
    """What is under way is ended in the engine; the table is the old one, and what waits comes."""
    with recording(tmp_path, linger="0") as (exchange, recorder):
        recorder.start()
        recorder.stores(3000)
        Request("a", ()).leave(recorder.journal)
        recorder.says(f"table {TABLE}: rewriting it")
        recorder.stop(60)
        found = compare(exchange.connections(), stored(recorder, None))
        assert len(found.segments) == 1
        assert recorder.backlog() == 0


def test_a_recorder_elsewhere_is_not_written_over(tmp_path: Path) -> None:
    """A server's table is compacted only where its journal is, which knows what it must have."""
    with ClickHouseServer() as server:
        make_tables(server)
        with recording(tmp_path, server, linger="0") as (_, recorder):
            recorder.start()
            recorder.stores(100)
            elsewhere = Recorder(tmp_path / "elsewhere", "", server.url)
            done = compact(elsewhere, "BTC_USDT")
            assert done.returncode == 1
            assert "is being recorded by process" in done.stderr
            recorder.kill()
            done = compact(elsewhere, "BTC_USDT")
            assert done.returncode == 1
            assert "table btc: no journal here knows it; compact it where it is rec" in done.stderr
            server.execute(f"INSERT INTO {DATABASE}.{TABLE} VALUES (0, 'd', '1|1|1')")
            done = compact(recorder, "BTC_USDT")
            assert done.returncode == 1
            assert "has not the rows that the journal knows of" in done.stderr


def test_what_was_asked_of_a_recorder_that_died_is_done_by_the_next(tmp_path: Path) -> None:
    """And what cannot be read is told, and thrown away."""
    with recording(tmp_path, linger="0") as (exchange, recorder):
        recorder.start()
        recorder.stores(100)
        recorder.kill()
        Request("a", ("BTC_USDT",)).leave(recorder.journal)
        recorder.start()
        recorder.says("rows rewritten")
        place = recorder.journal.with_suffix(".compact")
        wait_until("it is done with", lambda: not place.exists())
        place.write_text("what?")
        recorder.says("asks for cannot be read")
        wait_until("it is thrown away", lambda: not place.exists())
        recorder.stop()
        compare(exchange.connections(), stored(recorder, None))
