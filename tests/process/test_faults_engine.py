"""SIGKILL inside the embedded engine's INSERT: what it acknowledged is there, once, in order."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.faults import ROOT, TABLE, TALLY, chance, environment, repetitions
from tests.support.running import read_embedded

APPENDER = f"""
import sys
from pathlib import Path
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import market_table, prepare, count

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
    kills = repetitions(10)
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
