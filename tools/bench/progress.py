"""What the recorder's journal tells from outside, while the recorder runs.

The journal knows which rows the store has acknowledged. To ask the store itself would disturb what
is measured: an old server counts a table by reading it.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import attrs

from mexc_trio.symbols import table_name


def acknowledged(directory: Path, symbols: Sequence[str]) -> list[int]:
    """Return how many rows of each symbol are stored. `directory` is the journal's."""
    with _journal(directory) as journal:
        found: dict[str, int] = {}
        if journal is not None:
            found = dict(journal.execute("SELECT name, acked FROM tables"))
    return [found.get(table_name(symbol), 0) for symbol in symbols]


@attrs.define(eq=False)
class Backlog:
    """How many rows wait in a recorder's journal. Each look reads only what is new since the last.

    To read all entries anew each time would cost, after a minute, half a core that is then missing
    to what is measured.
    """

    directory: Path
    """The journal's."""
    _last: int = attrs.field(default=0, init=False)
    _ends: dict[int, int] = attrs.field(factory=dict, init=False)

    def is_empty(self) -> bool:
        """Return whether all rows are stored."""
        return not self.rows()

    def rows(self) -> int:
        """Return how many rows of all tables are not stored yet."""
        with _journal(self.directory) as journal:
            if journal is None:
                return 0
            new = journal.execute(
                "SELECT tbl, max(first + n), max(id) FROM entries WHERE id > ? GROUP BY tbl",
                (self._last,),
            )
            for table, end, last in new.fetchall():
                self._ends[table] = end
                self._last = max(self._last, last)
            stored = dict(journal.execute("SELECT id, acked FROM tables"))
        return sum(max(0, end - stored.get(table, 0)) for table, end in self._ends.items())


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
