"""What the typed views cost: queries on them beside the same ones on the raw table.

    python -m tools.views_cost [--rows 10000000] [--directory DIR]

It fills an embedded store with a generated market (deals 78 %, books of 20 levels 19 %, tickers
3 % of the rows, INSERTs of a thousand) and prints the seconds of each query, the best of three.
With --directory the store is kept there, and used again by the next run.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mexc_trio.clickhouse import views
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import prepare
from mexc_trio.clickhouse.tables import market_table
from tools.market import Market, truth

if TYPE_CHECKING:
    from mexc_trio.rows import RowTuple

SYMBOL = "BTC_USDT"
START = 1_788_307_200_000
STEP = 80  # milliseconds from frame to frame
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


def fill(store: EmbeddedStore, rows: int) -> None:
    """Give the store `rows` rows of a market."""
    prepare(store, [market_table("btc"), market_table("pattern")])
    now = [START]
    market = Market(seed=1, oddities=0.02, clock=lambda: now[0])
    pattern: list[RowTuple] = []
    while len(pattern) < PATTERN:
        now[0] += STEP
        pattern += truth(market.frame(SYMBOL, market.draw_channel(SYMBOL))) or []
    del pattern[PATTERN:]
    store.append(market_table("pattern"), pattern)
    span = now[0] + STEP - START
    for n in range(max(1, rows // PATTERN)):
        store.query(
            f"INSERT INTO mexc_data.btc SELECT fromUnixTimestamp64Milli("
            f"toUnixTimestamp64Milli(ts) + {n * span}), mt, m FROM mexc_data.pattern "
            f"SETTINGS max_threads = 1, max_insert_threads = 1, max_block_size = {BATCH}, "
            f"min_insert_block_size_rows = {BATCH}, min_insert_block_size_bytes = 0"
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
            fill(store, rows)
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


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    if options.directory:
        measure(options.directory, options.rows)
        return
    with tempfile.TemporaryDirectory(prefix="views-cost-") as directory:
        measure(Path(directory), options.rows)


if __name__ == "__main__":
    main()
