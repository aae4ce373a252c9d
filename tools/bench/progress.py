"""What the recorder's journal tells from outside, while the recorder runs.

The journal knows which rows the store has acknowledged. To ask the store itself would disturb what
is measured: an old server counts a table by reading it.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from mexc_trio.symbols import table_name


def acknowledged(directory: Path, symbols: Sequence[str]) -> list[int]:
    """Return how many rows of each symbol are stored. `directory` is the journal's."""
    with _journal(directory) as journal:
        found: dict[str, int] = {}
        if journal is not None:
            found = dict(journal.execute("SELECT name, acked FROM tables"))
    return [found.get(table_name(symbol), 0) for symbol in symbols]


def backlog(directory: Path) -> int:
    """Return how many rows wait in the journal, of all tables."""
    with _journal(directory) as journal:
        if journal is None:
            return 0
        (row,) = journal.execute(
            "SELECT coalesce(sum(max(last - acked, 0)), 0) FROM tables JOIN "
            "(SELECT tbl, max(first + n) AS last FROM entries GROUP BY tbl) ON tbl = id"
        )
    return int(row[0])


@contextmanager
def _journal(directory: Path) -> Iterator[sqlite3.Connection | None]:
    """Open the journal read-only; None while the recorder has not made it."""
    path = next(directory.glob("journal*.sqlite"), None)
    if path is None:
        yield None
        return
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as journal:
        made = "SELECT count(*) FROM sqlite_master WHERE name IN ('tables', 'entries')"
        yield journal if journal.execute(made).fetchone() == (2,) else None
