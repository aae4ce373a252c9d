"""What the typed views cost: queries on them beside the same ones on the raw table.

    python -m tools.views_cost [--rows 10000000] [--directory DIR]

It fills an embedded store with a generated market (deals 78 %, books of 20 levels 19 %, tickers
3 % of the rows, INSERTs of a thousand) and prints the seconds of each query, the best of three.
With --directory the store is kept there, and used again by the next run.
"""

import os
import tempfile
import time
from pathlib import Path

import cyclopts

from mexc_trio.clickhouse import views
from mexc_trio.clickhouse.embedded import EmbeddedStore
from tools.filling import START, fill

BATCH = 1_000
PATTERN = 50_000  # rows that are generated; the rest repeats them at later times

# The second day in the data.
FROM, TO = START + 86_400_000, START + 2 * 86_400_000

QUERIES = (
    ("count", "SELECT count() FROM {}"),
    (
        "one day, all columns",
        (
            "SELECT sum(cityHash64(*)) FROM {} WHERE "
            f"ts >= fromUnixTimestamp64Milli({FROM}) AND ts < fromUnixTimestamp64Milli({TO})"
        ),
    ),
    ("all of it, all columns", "SELECT sum(cityHash64(*)) FROM {}"),
)
SOURCES = (
    ("raw", "btc", ""),
    ("raw, tickers", "btc", "mt = 't'"),
    ("tickers", "btc_tickers", ""),
    ("raw, deals", "btc", "mt = 'd'"),
    ("deals", "btc_deals", ""),
    ("candles, 1 m", "btc_candles(interval = 60)", ""),
    ("raw, depths", "btc", "mt = 'dp'"),
    ("depths", "btc_depths", ""),
)


def seconds(store: EmbeddedStore, sql: str) -> float:
    """Return the best of three runs."""
    took = []
    for _ in range(3):
        began = time.perf_counter()
        store.query(sql)
        took.append(time.perf_counter() - began)
    return min(took)


def measure(directory: Path, rows: int) -> None:
    """Print the table."""
    store = EmbeddedStore(directory)
    try:
        if not (directory / "data" / "mexc_data" / "btc").exists():
            fill(store, "btc", rows // BATCH, BATCH, pattern=PATTERN)
        views.create(store, ["btc"])
        counts = dict(store.query("SELECT mt, count() FROM mexc_data.btc GROUP BY mt"))
        version = store.query("SELECT version()")[0][0]
        kinds = ", ".join(f"{n:,} {mt}" for mt, n in sorted(counts.items()))
        print(f"{sum(counts.values()):,} rows ({kinds}), engine {version}, {os.cpu_count()} cores")
        print("".join(f"{title:>24}" for title in ("seconds", *(name for name, _ in QUERIES))))
        for title, table, where in SOURCES:
            times = []
            for _, query in QUERIES:
                sql = query.format(f"mexc_data.{table}")
                if where:
                    sql += f" {'AND' if 'WHERE' in sql else 'WHERE'} {where}"
                times.append(seconds(store, sql))
            print(f"{title:>24}" + "".join(f"{took:>24.2f}" for took in times))
    finally:
        store.close()


def main(*, rows: int = 10_000_000, directory: Path | None = None) -> None:
    """Measure what the typed views cost.

    Parameters
    ----------
    rows
        How many there are in the table.
    directory
        Where the store is made, kept, and used again by the next run.
    """
    with tempfile.TemporaryDirectory(prefix="views-cost-") as temporary:
        measure(directory or Path(temporary), rows)


if __name__ == "__main__":
    cyclopts.run(main)
