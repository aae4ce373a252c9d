"""Tables as months of recording leave them, made by the engine in minutes."""

from mexc_trio.clickhouse.schema import Store, prepare
from mexc_trio.clickhouse.tables import market_table
from mexc_trio.rows import RowTuple
from tools.market import Market, truth

START = 1_735_689_600_000  # 2025-01-01
STEP = 80  # milliseconds from row to row
PATTERN = 5_000
"""Rows of a market that are generated; the rest repeats them at later times. So many are about what
is compressed together, and so take the room on the disk that a real market's take."""
_AT_ONCE = 50_000  # INSERTs that one statement makes


def fill(
    store: Store, table: str, inserts: int, rows: int, *, first: int = 0, pattern: int = PATTERN
) -> None:
    """Make a StripeLog table of a symbol, if it is not there, and append what INSERTs leave.

    Args:
        store: where to.
        table: its name.
        inserts: how many there were.
        rows: of each of them.
        first: how many rows there are already, which the times of the others follow.
        pattern: how many rows differ in more than their time.
    """
    made = market_table(f"{table}_pattern")
    database = store.database
    prepare(store, [market_table(table), made])
    store.append(made, _some(pattern))
    for done in range(0, inserts, _AT_ONCE):
        n = min(_AT_ONCE, inserts - done) * rows
        store.query(
            f"INSERT INTO {database}.{table} "  # noqa: S608 - our own names
            f"WITH (SELECT groupArray((mt, m)) FROM {database}.{made.name}) AS rows "
            f"SELECT fromUnixTimestamp64Milli({START} + number * {STEP}), "
            f"rows[number % {pattern} + 1].1, rows[number % {pattern} + 1].2 "
            f"FROM numbers({first + done * rows}, {n}) "
            f"SETTINGS max_threads = 1, max_insert_threads = 1, max_block_size = {rows}, "
            f"min_insert_block_size_rows = 0, min_insert_block_size_bytes = 0"
        )
    store.query(f"DROP TABLE {database}.{made.name}")


def _some(rows: int) -> list[RowTuple]:
    market, made = Market(seed=1, clock=lambda: START), list[RowTuple]()
    while len(made) < rows:
        made += truth(market.frame("BTC_USDT", market.draw_channel("BTC_USDT"), oddity="")) or []
    return made[:rows]
