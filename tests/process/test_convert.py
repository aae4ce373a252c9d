"""`mexc-trio convert`: a table moves to another engine, whole, whatever dies meanwhile."""

import os
import random
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mexc_trio.cli.main import main
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import engine_of, engines, market_table, prepare
from mexc_trio.clickhouse.tables import TableEngine
from tests.support.faults import ROOT, TALLY, chance, compare, environment, recording, stored

ROWS = 3_000_000


def fill(directory: Path) -> None:
    """Make a table of rows of which no two are equal, over three months."""
    with closing(EmbeddedStore(directory)) as store:
        prepare(store, [market_table("btc")])
        store.query(
            f"INSERT INTO mexc_data.btc SELECT fromUnixTimestamp64Milli(1788335243000 + number * "
            f"2000 - number % 7 * 3000), ['t', 'd', 'dp'][number % 3 + 1], toString(number) "
            f"FROM numbers({ROWS}) SETTINGS max_threads = 1, max_block_size = 50000"
        )


def is_whole(directory: Path) -> None:
    """See that the rows are those, in their order, under the table's name alone."""
    with closing(EmbeddedStore(directory)) as store:
        order = "ORDER BY n" if engine_of(store, "btc") is TableEngine.MERGETREE else ""
        found = store.query(
            f"SELECT count(), min(m = toString(place)) FROM (SELECT m, rowNumberInAllBlocks() AS "
            f"place FROM (SELECT m FROM mexc_data.btc {order} LIMIT {2 * ROWS})) "
            f"SETTINGS max_threads = 1"
        )
        assert tuple(map(int, found[0])) == (ROWS, 1)
        assert not engines(store, ["btc_converting"])


def test_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Either engine becomes the other; a second time there is nothing to do."""
    fill(tmp_path)
    for engine in ("mergetree", "stripelog"):
        for said in (f"{ROWS:,} rows, compared", f"is a {engine} already"):
            where = ["--engine", engine, "--store", str(tmp_path)]
            assert main(["convert", "BTC_USDT", *where]) == 0
            assert said in capsys.readouterr().out
        with closing(EmbeddedStore(tmp_path)) as store:
            assert engine_of(store, "btc") == engine
        is_whole(tmp_path)


def test_kill_9_at_any_instant(tmp_path: Path) -> None:
    """The old table or the new one is there, and the next attempt ends well."""
    instants = chance("convert")
    fill(tmp_path)
    command = [sys.executable, "-m", "mexc_trio", "convert", "BTC_USDT", "--store", str(tmp_path)]
    kills = 6
    for number in range(kills):
        engine = ("mergetree", "stripelog")[number % 2]
        process = subprocess.Popen(
            [*command, "--engine", engine], env=environment(), cwd=ROOT,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(instants.uniform(1.5, 8))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert main(["convert", "BTC_USDT", "--engine", engine, "--store", str(tmp_path)]) == 0
        is_whole(tmp_path)
    TALLY.fault("kill -9 of a conversion", kills)


def test_recording_goes_on_in_the_other_engine(tmp_path: Path) -> None:
    """Also after a kill, with rows on their way of which nobody heard."""
    instants = random.Random(1)
    with recording(tmp_path, linger="0") as (exchange, recorder):
        for engine in ("mergetree", "stripelog", "mergetree"):
            exchange.look()
            recorder.start()
            exchange.sends()
            recorder.stores(200)
            recorder.run_for(instants.uniform(0, 0.3))
            recorder.kill()
            where = ["--engine", engine, "--store", str(recorder.state)]
            assert main(["convert", "BTC_USDT", *where]) == 0
            recorder.engine = engine
        exchange.look()
        recorder.start()
        exchange.sends()
        recorder.stores(200)
        recorder.catches_up()
        recorder.stop()
        compare(exchange.connections(), stored(recorder, None))
