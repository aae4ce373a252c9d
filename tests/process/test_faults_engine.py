"""SIGKILL inside the embedded engine's INSERT: what it acknowledged is there, once, in order."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import pytest

from mexc_trio.clickhouse.engine_config import RECORDER, Access
from mexc_trio.clickhouse.server import ServerStore
from mexc_trio.locks import holder
from tests.support.faults import (
    ROOT,
    TABLE,
    TALLY,
    Recorder,
    chance,
    compare,
    recording,
    repetitions,
    stored,
    wait_until,
)
from tests.support.hostile import REFUSED
from tests.support.running import engine_pid, environment, read_embedded

APPENDER = f"""
import sys
from pathlib import Path
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import prepare, count
from mexc_trio.clickhouse.tables import market_table

store, table, size = EmbeddedStore(Path(sys.argv[1])), market_table("{TABLE}"), int(sys.argv[2])
prepare(store, [table])
n = count(store, "{TABLE}")
print("from", n, flush=True)
while True:
    store.append(table, [(k, "d", f"{{k}}|" + "x" * (k % 300)) for k in range(n, n + size)])
    n += size
    print(n, flush=True)
"""


def test_kill_9_inside_an_insert(tmp_path: Path) -> None:
    """An INSERT of the engine is all there or not at all, and nothing acknowledged is ever lost."""
    instants = chance("engine")
    store = tmp_path / "store"
    least, inside = 0, 0
    kills = repetitions(4)
    for _ in range(kills):
        size = instants.choice((1, 100, 10_000, 50_000))
        process = subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(store), str(size)],
            env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        start = process.stdout.readline().split()
        assert start, "it did not start"
        # More than was acknowledged means that one INSERT had ended unheard.
        assert int(start[1]) >= least
        inside += int(start[1]) > least
        least = int(start[1])
        time.sleep(instants.uniform(0, 0.6))
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        # It ends a moment later, and the INSERT under way may: unlike a recorder, the next appender
        # would not wait for that before it counts.
        wait_until("the engine's end", lambda: holder(store / "store.lock") is None)
        acknowledged = [int(line) for line in rest.split("\n") if line]
        least = max([least, *acknowledged])
        TALLY.fault("kill -9 inside the embedded engine's INSERT")
    sql = (
        f"SELECT count(), min(toUnixTimestamp64Milli(ts) = n AND startsWith(m, concat(toString(n), "
        f"'|')) AND length(m) = length(toString(n)) + 1 + n % 300) FROM (SELECT ts, m, "
        f"rowNumberInAllBlocks() AS n FROM mexc_data.{TABLE} SETTINGS max_threads = 1)"
    )
    count, right = read_embedded(store, sql)[0]
    assert int(count) >= least
    assert right
    TALLY.rows += int(count)
    TALLY.notes.append(f"embedded engine: {inside} of {kills} kills fell between INSERT and answer")


def engine_of(recorder: Recorder) -> int:
    """Return the process of a recorder's engine, as it notes it itself."""
    status = recorder.state / "status"
    wait_until("the engine's own note", lambda: "Started" in status.read_text())
    return engine_pid(recorder.state)


@pytest.mark.parametrize(("table_engine", "kills"), [("stripelog", 6), ("mergetree", 4)])
def test_kill_9_of_the_engine_under_load(table_engine: str, kills: int, tmp_path: Path) -> None:
    """It is started again at once, and the journal has what came meanwhile."""
    instants = chance(f"engine-child-{table_engine}")
    kills = repetitions(kills)
    with recording(tmp_path, engine=table_engine) as (exchange, recorder):
        recorder.linger = "0"
        recorder.start()
        exchange.sends()
        for number in range(kills):
            recorder.stores(1)
            recorder.run_for(instants.uniform(0, 0.3))
            pid = engine_of(recorder)
            with suppress(ProcessLookupError):  # it was killed before it could note itself
                os.kill(pid, signal.SIGKILL)
            if number % 3 == 0:  # and while it starts again
                changed = partial(lambda pid: engine_of(recorder) != pid, pid)
                wait_until("another engine", changed)
                with suppress(ProcessLookupError):
                    os.kill(engine_of(recorder), signal.SIGKILL)
        recorder.stores(100)
        recorder.catches_up()
        assert recorder.is_running
        recorder.stop()
        found = compare(exchange.connections(), stored(recorder, None))
        assert len(found.segments) == 1, "the connection to the exchange never suffers"
        TALLY.fault(f"kill -9 of the embedded engine under load, {table_engine}", kills)


def test_kill_9_of_both_at_once(tmp_path: Path) -> None:
    """No orphan is left, the next start finds the directory free, and all is there once."""
    instants = chance("both")
    kills = repetitions(3)
    with recording(tmp_path) as (exchange, recorder):
        for _ in range(kills):
            exchange.feed(recorder)
            recorder.stores(1)
            recorder.run_for(instants.uniform(0, 0.5))
            pid = engine_of(recorder)
            os.kill(pid, signal.SIGKILL)
            recorder.kill()
        exchange.feed(recorder)
        recorder.stores(1)
        recorder.stop()
        compare(exchange.connections(), stored(recorder, None))
        TALLY.fault("kill -9 of recorder and engine at once", kills)


def test_frozen_engine(tmp_path: Path) -> None:
    """It is the database away: rows wait in the journal, and a stop does not wait for it."""
    shorter = {"mexc_trio.clickhouse.engine_child.STOP": 1.0}
    with recording(tmp_path, constants=shorter) as (exchange, recorder):
        recorder.start()
        recorder.stores(100)
        pid = engine_of(recorder)
        os.kill(pid, signal.SIGSTOP)
        recorder.waits_for_store()
        os.kill(pid, signal.SIGCONT)
        recorder.catches_up()
        os.kill(engine_of(recorder), signal.SIGSTOP)
        recorder.waits_for_store()
        recorder.stop(leaves_rows=True)
        recorder.start()
        recorder.stores(300)
        recorder.stop()
        compare(exchange.connections(), stored(recorder, None))
        TALLY.fault("engine frozen", 2)


def _lateness(store: ServerStore, looks: int, asked: Sequence[str] | None = None) -> list[float]:
    """Return how old the newest row was, in seconds, at so many looks.

    At more, until fifty different statements have been asked.
    """
    late: list[float] = []
    while len(late) < looks or (asked is not None and len(set(asked)) < 50):
        assert len(late) < 1000, asked
        sql = f"SELECT max(toUnixTimestamp64Milli(ts)) FROM mexc_data.{TABLE}"
        late.append(time.time() - int(store.query(sql)[0][0]) / 1000)
        time.sleep(0.25)
    return late


BUSY = (
    "SELECT count() FROM numbers(1000000000000)",
    "SELECT m, count() FROM btc GROUP BY m ORDER BY 2 DESC",
    "SELECT groupArray(number) FROM numbers(1000000000)",
    "SELECT * FROM numbers(100000000) ORDER BY cityHash64(number) FORMAT Null",
    "SELECT repeat('x', 1000) FROM numbers(10000000000)",
    "SELECT sleepEachRow(1) FROM numbers(3)",
    "SELECT count() FROM btc AS a CROSS JOIN btc AS b",
)


def test_readers_do_not_slow_recording(tmp_path: Path) -> None:
    """With heavy, endless and hostile statements at work, rows are late by `--linger` and little.

    Nor is any lost.
    """
    words = dict.fromkeys(("secret", "outside", "store"), tmp_path / "outside")
    hostile = [(sql.format(**words), settings) for sql, settings in REFUSED]
    asked: list[str] = []

    def read(url: str, statements: Sequence[tuple[str, Mapping[str, str]]]) -> None:
        for sql, settings in itertools.cycle(statements):
            if stop.is_set():
                return
            asked.append(sql)
            query = urlencode({name: value.format(**words) for name, value in settings.items()})
            where = [f"{url}?{query}", "--data-binary", sql]
            command = ["curl", "-sS", "-m", "3", "-o", os.devnull, *where]
            subprocess.run(command, check=False, capture_output=True)

    exchange_options = ("--rate", "1000", "--oddities", "0")
    with recording(tmp_path, exchange=exchange_options) as (exchange, recorder):
        recorder.linger = "1"
        recorder.start()
        recorder.stores(100)
        url = (recorder.state / "http.url").read_text().strip()
        access = Access(**json.loads((recorder.state / "engine" / "access").read_text()))
        with closing(ServerStore(access.target(RECORDER), 1)) as store:
            # A machine that is busy with other things makes rows late by itself, at any moment.
            for _ in range(4):
                alone = _lateness(store, 6)
                stop = threading.Event()
                readers = [
                    threading.Thread(target=read, args=(url, statements))
                    for statements in (*([(sql, {})] for sql in BUSY), hostile)
                ]
                for reader in readers:
                    reader.start()
                try:
                    crowded = _lateness(store, 16, asked)
                finally:
                    stop.set()
                    for reader in readers:
                        reader.join()
                if max(crowded) <= max(4.0, 2 * max(alone) + 1):
                    break
            else:
                raise AssertionError((sorted(alone)[-5:], sorted(crowded)[-5:]))
        recorder.stop()
        compare(exchange.connections(), stored(recorder, None))
    TALLY.notes.append(
        f"eight readers who mean ill at 1,000 rows/s, {len(asked)} statements, {len(set(asked))} "
        f"of them different: newest row at most {max(crowded):.2f} s old, {max(alone):.2f} without "
        f"them"
    )
