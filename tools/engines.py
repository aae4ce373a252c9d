"""What the embedded engine of this environment costs: disk, time, memory, and bytes a row.

`python -m tools.engines`, with the extras `embedded` and `bench`.
"""

import importlib.metadata
import tempfile
import time
from pathlib import Path

import psutil

from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import market_table, prepare

DISTRIBUTIONS = ("chdb", "chdb-core")
COMPANIONS = ("pandas", "pyarrow", "numpy", "python-dateutil", "tzdata", "six", "pytz")
BATCHES, ROWS = 200, 15
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
        rows = [(1_700_000_000_000 + n, "d", f"775{n}.1|{n}|1") for n in range(ROWS - 5)]
        rows += [(1_700_000_000_100 + n, "dp", f"{BOOK}|{BOOK}") for n in range(5)]
        began = time.perf_counter()
        for _ in range(BATCHES):
            store.append(table, rows)
        took = (time.perf_counter() - began) / BATCHES * 1000
        files = Path(directory, "data", "mexc_data", "btc").resolve().glob("*")
        size = sum(file.stat().st_size for file in files) / BATCHES / ROWS
        version = store.query("SELECT version()")[0][0]
        memory = engine_mib()
        store.close()
    print(f"ClickHouse {version}: an INSERT of {ROWS} rows {took:.1f} ms, {size:.0f} bytes a row")
    print(f"its memory afterwards: {memory:.0f} MiB")


if __name__ == "__main__":
    main()
