"""What INSERTs cost an engine's memory and disk, and what a compaction costs and saves.

    python -m tools.compaction_cost [--symbols 3] [--inserts 100000] [--rows 13] [--directory DIR]

It makes a store with tables as so many INSERTs leave them (a year of one a second are 31,536,000),
starts its engine, rewrites the tables and starts it again. With --directory the store is kept.
The blocks are those of real INSERTs; only the file of the index, which has a header for each
INSERT, is smaller than theirs.
"""

import argparse
import os
import tempfile
import time
from contextlib import closing
from pathlib import Path

from mexc_trio.clickhouse.compaction import compact
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.engine_config import DATABASE
from mexc_trio.clickhouse.index_memory import inserts_of
from mexc_trio.clickhouse.schema import count, known_sizes
from mexc_trio.texts import size
from tools.filling import fill


def memory(directory: Path) -> int:
    """Return the bytes that the engine of a store takes. Linux only."""
    pid = (directory / "status").read_text().split("\n", 1)[0].removeprefix("PID: ")
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS")


def after_a_start(directory: Path, tables: list[str]) -> tuple[int, float]:
    """Start the engine, have it load the tables; return its memory, and the seconds that took."""
    began = time.perf_counter()
    with closing(EmbeddedStore(directory)) as store:
        for table in tables:
            count(store, table)
        return memory(directory), time.perf_counter() - began


def measure(directory: Path, symbols: int, inserts: int, rows: int) -> None:
    """Print the figures."""
    tables = [f"t{number}" for number in range(symbols)]
    if not (directory / "data" / DATABASE / tables[-1]).exists():
        with closing(EmbeddedStore(directory)) as store:
            for table in tables:
                fill(store, table, inserts, rows)
    print(f"{symbols} tables of {inserts:,} INSERTs of {rows} rows, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="compaction-cost-") as empty:
        bare, seconds = after_a_start(Path(empty), [])
    print(f"an empty store: {size(bare)} of memory, {seconds:.1f} s from start to answer")
    for moment in ("as recorded", "compacted"):
        taken, seconds = after_a_start(directory, tables)
        with closing(EmbeddedStore(directory)) as store:
            made = sum(inserts_of(store, f"{DATABASE}.{table}") for table in tables)
            stored = sum(count(store, table) for table in tables)
            on_disk = sum(known_sizes(store)[table] or 0 for table in tables)
            print(
                f"{moment}: {made:,} blocks; {size(taken)} of memory, "
                f"{(taken - bare) / (symbols * inserts):.0f} bytes for each INSERT that was made; "
                f"start to answer {seconds:.1f} s; {on_disk / stored:.1f} bytes a row on disk"
            )
            if moment == "compacted":
                return
            began = time.perf_counter()
            for table in tables:
                compact(store, table, 0)
            took = time.perf_counter() - began
            print(
                f"compaction: {took:.1f} s, {took / stored * 1e6:.1f} us a row, "
                f"{took / on_disk * 1e9:.0f} s a GB"
            )


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--symbols", type=int, default=3)
    parser.add_argument("--inserts", type=int, default=100_000, help="of each symbol")
    parser.add_argument("--rows", type=int, default=13, help="of each INSERT")
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="compaction-cost-") as directory:
        place = options.directory or Path(directory)
        measure(place, options.symbols, options.inserts, options.rows)


if __name__ == "__main__":
    main()
