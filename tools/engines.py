"""What the embedded engine of this environment costs: disk, start, memory, INSERTs.

`python -m tools.engines`, with the extras `embedded` and `bench`.
"""

import importlib.metadata
import os
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import prepare
from mexc_trio.clickhouse.tables import Table, market_table

DISTRIBUTIONS = ("chdb", "chdb-core")
COMPANIONS = ("pandas", "pyarrow", "numpy", "python-dateutil", "tzdata", "six", "pytz")
INSERTS = {1: 400, 13: 400, 1000: 100}
"""How many INSERTs of how many rows, in turns of a tenth of them."""
TURNS = 10
BOOK = ",".join(f"[775{n}.{n % 10},{n * 37}]" for n in range(20))


def installed_mib(names: tuple[str, ...]) -> float:
    """Return the size of the files of those of these distributions that are installed."""
    total = 0
    for name in names:
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        paths = [Path(str(file.locate())) for file in files]
        total += sum(path.stat().st_size for path in paths if path.is_file())
    return total / 2**20


def engine_mib() -> float:
    """Return the memory that the engine has resident, which is this process's only child."""
    (engine,) = psutil.Process().children()
    return float(engine.memory_info().rss) / 2**20


def insert(store: EmbeddedStore, table: Table) -> dict[int, list[float]]:
    """Insert what a busy contract sends; return the seconds of each INSERT, by its rows.

    For no rows: of replacing a small file and syncing it, as the engine does with each INSERT.
    """
    took: dict[int, list[float]] = {rows: [] for rows in (0, *INSERTS)}
    for _ in range(TURNS):
        for _ in range(20):
            began = time.perf_counter()
            with (new := store.directory / "new").open("wb") as file:
                file.write(bytes(100))
                file.flush()
                os.fsync(file.fileno())
            new.replace(store.directory / "file")
            took[0].append(time.perf_counter() - began)
        for rows, times in INSERTS.items():
            batch = [
                (1_700_000_000_000 + n, "d", f"775{n}.1|{n}|1")
                if n % 3
                else (1_700_000_000_000 + n, "dp", f"{BOOK}|{BOOK}")
                for n in range(rows)
            ]
            for _ in range(times // TURNS):
                began = time.perf_counter()
                store.append(table, batch)
                took[rows].append(time.perf_counter() - began)
    return took


def main() -> None:
    """Measure and print."""
    found = {d.name: d.version for d in importlib.metadata.distributions()}
    print("engine:", ", ".join(f"{n} {found[n]}" for n in DISTRIBUTIONS if n in found))
    print(f"installed: {installed_mib(DISTRIBUTIONS):.0f} MiB")
    print(f"with it come pandas, pyarrow and theirs: {installed_mib(COMPANIONS):.0f} MiB")
    table = market_table("btc")
    with tempfile.TemporaryDirectory() as directory:
        began = time.perf_counter()
        store = EmbeddedStore(Path(directory))
        prepare(store, [table])
        took = time.perf_counter() - began
        print(f"start it and create a table: {took:.2f} s, {engine_mib():.0f} MiB")
        inserts = insert(store, table)
        version = store.query("SELECT version()")[0][0]
        memory = engine_mib()
        store.close()
    for rows, seconds in inserts.items():
        median, slow = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
        what = f"ClickHouse {version}: an INSERT of {rows} rows" if rows else "a synced file"
        print(f"{what} takes {1000 * median:.1f} ms, one of twenty {1000 * slow:.1f} or more")
    print(f"its memory afterwards: {memory:.0f} MiB")


if __name__ == "__main__":
    main()
