"""`mexc-trio convert`: a table moves to another engine, whole, whatever dies meanwhile."""

import itertools
import os
import random
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from mexc_trio import channels
from mexc_trio.cli.main import main
from mexc_trio.clickhouse import conversion
from mexc_trio.clickhouse.conversion import convert
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import columns, engine_of, engines, prepare
from mexc_trio.clickhouse.tables import Table, TableEngine
from mexc_trio.errors import StoreRejected
from mexc_trio.record.rewriting import RewritingRequest
from tests.support.faults import (
    TABLE,
    TALLY,
    Recorder,
    ask,
    chance,
    compare,
    compare_all,
    kill_in_rewriting,
    opened,
    recording,
    repetitions,
    stored,
    wait_until,
)
from tests.support.forks import Fork, fork
from tests.support.running import DEADLINE, environment
from tools.clickhouse import DATABASE, ClickHouseServer

OLD = "Enum8('t' = 1, 'd' = 2, 'dp' = 3, 'dl' = 4)"
"""What types of rows there were before channels on request."""
BLOCK = 5000
"""Rows that are moved together here."""
ROWS = 3 * BLOCK
MONTHS = 70 * 86_400_000
"""Milliseconds, in three months."""


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three blocks of the usual size would take longer than all else here."""
    monkeypatch.setattr(conversion, "BLOCK", BLOCK)


def fill(directory: Path, rows: int = ROWS) -> None:
    """Make a table as of old, with rows of which no two are equal, over three months."""
    with closing(EmbeddedStore(directory)) as store:
        of_old = (("ts", "DateTime64(3)"), ("mt", OLD), ("m", "String"))
        prepare(store, [Table("btc", of_old)])
        store.query(
            f"INSERT INTO mexc_data.btc SELECT fromUnixTimestamp64Milli(1788335243000 + number * "
            f"{MONTHS // rows} - number % 7 * 150000), ['t', 'd', 'dp'][number % 3 + 1], "
            f"toString(number) FROM numbers({rows}) SETTINGS max_threads = 1, "
            f"max_block_size = {BLOCK}"
        )


def is_whole(store: EmbeddedStore, rows: int = ROWS) -> None:
    """See that the rows are those, in their order, under the table's name alone; with room."""
    assert columns(store)["btc"]["mt"] == channels.enum()
    order = "ORDER BY n" if engine_of(store, "btc") is TableEngine.MERGETREE else ""
    found = store.query(
        f"SELECT count(), min(m = toString(place)) FROM (SELECT m, rowNumberInAllBlocks() AS "
        f"place FROM (SELECT m FROM mexc_data.btc {order} LIMIT {2 * rows})) "
        f"SETTINGS max_threads = 1"
    )
    assert tuple(map(int, found[0])) == (rows, 1)
    assert not engines(store, ["btc_converting"])


def test_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Either engine becomes the other; a second time there is nothing to do.

    But for a table from before a channel was known, which gets room for its rows.
    """
    fill(tmp_path)
    with closing(EmbeddedStore(tmp_path)) as store:
        for engine in ("stripelog", "mergetree", "stripelog"):
            for said in (f"{ROWS:,} rows rewritten, compared", f"is a {engine} already"):
                where = ["--engine", engine, "--store", str(tmp_path)]
                assert main(["convert", "BTC_USDT", *where]) == 0
                assert said in capsys.readouterr().out
            assert engine_of(store, "btc") == engine
            is_whole(store)


def test_what_cannot_be_moved_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a full disk nothing is begun; of a table that is damaged nothing is left beside it."""
    fill(tmp_path)
    data = tmp_path / "data" / DATABASE / "btc" / "data.bin"
    sound = data.read_bytes()
    with closing(EmbeddedStore(tmp_path)) as store:
        with pytest.raises(
            StoreRejected, match=r"table btc is not moved: its copy may take .* kB, and"
        ):
            convert(store, "btc", TableEngine.MERGETREE, 2**50)
        assert not engines(store, ["btc_converting"])
    data.write_bytes(sound[:-400] + bytes(400))
    assert main(["convert", "BTC_USDT", "--engine", "mergetree", "--store", str(tmp_path)]) == 1
    assert "btc cannot be read in full, and is not moved: " in capsys.readouterr().err
    data.write_bytes(sound)
    with closing(EmbeddedStore(tmp_path)) as store:
        assert main(["convert", "BTC_USDT", "--engine", "mergetree", "--store", str(tmp_path)]) == 0
        is_whole(store)


def test_kill_9_at_any_instant(tmp_path: Path) -> None:
    """The old table or the new one is there, and the next attempt ends well."""
    instants, rows = chance("convert"), 30 * BLOCK
    fill(tmp_path, rows)

    def start(engine: str) -> Fork:
        with Path(os.devnull).open("wb") as nowhere:
            return fork(
                "mexc_trio",
                ["convert", "BTC_USDT", "--store", str(tmp_path), "--engine", engine],
                env=environment(), cwd=tmp_path, stdout=nowhere.fileno(), stderr=nowhere.fileno(),
                constants={"mexc_trio.clickhouse.conversion.BLOCK": BLOCK},
            )  # fmt: skip

    # How long it takes, this machine has to say, and whether that changes meanwhile.
    began = time.monotonic()
    assert start("mergetree").wait(DEADLINE) == 0
    took = time.monotonic() - began
    kills = 0
    for number in itertools.count():
        if number >= repetitions(4) and kills:
            break
        engine = ("stripelog", "mergetree")[number % 2]
        began = time.monotonic()
        process = start(engine)
        try:
            process.wait(instants.uniform(0.2, 1) * took)
            took = min(took, time.monotonic() - began)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        with closing(EmbeddedStore(tmp_path)) as store:
            assert main(["convert", "BTC_USDT", "--engine", engine, "--store", str(tmp_path)]) == 0
            is_whole(store, rows)
    TALLY.fault("kill -9 of a conversion", kills)


def test_recording_goes_on_in_the_other_engine(tmp_path: Path) -> None:
    """Also after a kill, with rows on their way of which nobody heard."""
    instants = random.Random(1)
    with recording(tmp_path, linger="0") as (exchange, recorder):
        for engine in ("mergetree", "stripelog", "mergetree"):
            exchange.feed(recorder)
            recorder.stores(200)
            recorder.run_for(instants.uniform(0, 0.3))
            recorder.kill()
            where = ["--engine", engine, "--store", str(recorder.state)]
            assert main(["convert", "BTC_USDT", *where]) == 0
            recorder.engine = engine
        exchange.feed(recorder)
        recorder.stores(200)
        recorder.catches_up()
        recorder.stop()
        compare(exchange.connections(), stored(recorder, None))


def engine_at(recorder: Recorder, server: ClickHouseServer | None) -> str:
    """Return the engine of the table."""
    sql = f"SELECT engine FROM system.tables WHERE name = '{TABLE}' AND database = '{DATABASE}'"
    found = ask(recorder, server, sql)
    return str(found[0][0])


def test_recording_goes_on_while_a_table_moves(
    tmp_path: Path, mortal_server: ClickHouseServer | None
) -> None:
    """There and back: the connection is not touched, no row is missing, none out of order."""
    with recording(tmp_path, mortal_server, linger="0") as (exchange, recorder):
        recorder.start()
        for engine in ("mergetree", "stripelog"):
            recorder.stores(300)
            done = recorder.asked("convert", "BTC_USDT", "--engine", engine)
            assert (done.returncode, done.stderr) == (0, "")
            assert f"table {TABLE}: " in done.stdout
            assert "rows rewritten, compared one by one" in done.stdout
            recorder.stores(1)  # in the table as it is now
            recorder.engine = engine
            assert engine_at(recorder, mortal_server).lower() == engine
        again = recorder.asked("convert", "BTC_USDT", "--engine", engine)
        assert f"is a {engine} already" in again.stdout
        recorder.catches_up()
        recorder.stop()
        assert "ERROR" not in recorder.said()
        found = compare_all(exchange, recorder, mortal_server)
        assert len(found.segments) == 1


# In test_faults_compaction each victim has the other store; the way of a table is the same.
@pytest.mark.parametrize(
    ("victim", "mortal_server"),
    [("recorder", "server"), ("engine", "embedded")],
    indirect=["mortal_server"],
)
def test_kill_9_while_a_table_moves_and_is_recorded(
    victim: str, tmp_path: Path, mortal_server: ClickHouseServer | None
) -> None:
    """At any instant of it: every row once and in order; what was asked for is done in the end."""
    instants = chance(f"conversion-{victim}-{mortal_server is not None}")
    kills = repetitions(1)
    with recording(tmp_path, mortal_server, linger="0") as (exchange, recorder):
        both = (TableEngine.MERGETREE, TableEngine.STRIPELOG)
        requests = [RewritingRequest(str(n), ("BTC_USDT",), both[n % 2]) for n in range(kills)]
        kill_in_rewriting(victim, recorder, mortal_server, requests, instants)
        asked = recorder.journal.with_suffix(".request")
        wait_until("nothing is asked for any more", lambda: not asked.exists())
        recorder.stores(50)
        done = recorder.asked("convert", "BTC_USDT", "--engine", "mergetree")
        assert done.returncode == 0, done.stderr
        recorder.engine = "mergetree"
        recorder.catches_up()
        recorder.stop()
        with opened(recorder, mortal_server):
            assert engine_at(recorder, mortal_server) == "MergeTree"
            compare_all(exchange, recorder, mortal_server)
            TALLY.fault(f"kill -9 of the {victim} while a recorded table moved", kills)
            left = f"SELECT name FROM system.tables WHERE name = '{TABLE}_converting'"
            assert not ask(recorder, mortal_server, left)
