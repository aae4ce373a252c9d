"""What the engine keeps in memory for each INSERT that was ever made.

StripeLog and its siblings hold the whole index of a table, an entry for each INSERT, from the first
use of the table on: a symbol with one INSERT a second grows by 25 MB a day, and takes 44 MB for
each of its days when the engine is started (measured on 26.9).
"""

from typing import Final

from mexc_trio.clickhouse.schema import Readable

WHILE_RUNNING: Final = 290
"""Bytes for an INSERT that was made since the engine started."""
WHEN_LOADED: Final = 520
"""Bytes for an INSERT that was made before."""
MUCH: Final = 2**30
"""Bytes from which on it is worth a word."""


def inserts_of(store: Readable, source: str) -> int:
    """Return how many INSERTs the rows of a table came with. Reads a column.

    `source` is the table, or its first rows, as they stand behind FROM.
    """
    return int(store.query(f"SELECT uniqExact(blockNumber()) FROM {source}")[0][0])
