"""Where in the journal's file a table's rows are: an index that is made when somebody asks.

Rows are nearly always removed in the order in which they were written, without having been read:
what waits for the store is in memory, too. An index kept up to date with each row cost more than
all the rest of the journal with a thousand tables, since nearly every row is on a page of its own,
which goes to the WAL and later to the file, and again when the row is removed. (`tools.bench
journal`: 19 microseconds and 7 KB a message, instead of 10 and 1.8.)

So where a row is gets noted only if an outage or a loss makes somebody read rows that are not in
memory: then of all rows up to now, sorted, which takes two thirds of a microsecond each.
"""

from collections.abc import Sequence
from typing import Final

import attrs

from mexc_trio.journal.database import Database

SCHEMA: Final = """

    CREATE TABLE IF NOT EXISTS places (
        tbl INTEGER NOT NULL,
        first INTEGER NOT NULL,
        id INTEGER NOT NULL,
        PRIMARY KEY (tbl, first)
    ) WITHOUT ROWID
"""

_STEP: Final = 50_000
"""Entries whose positions are sorted and noted together: about 30 ms."""


@attrs.define(eq=False)
class EntryIndex:
    """The positions of all entries whose number is below `below`."""

    _db: Database
    below: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._db.execute("DELETE FROM places")  # what an earlier run needed to know

    def note(self, below: int) -> None:
        """Note the positions of all entries up to a number."""
        while self._note_some(below):
            pass

    def note_ahead(self, below: int) -> bool:
        """Note some of them, if there are many; return whether there still are.

        Few are not worth it: the more are noted together, the fewer pages of the index each costs.
        """
        return below - self.below > _STEP and self._note_some(below)

    def _note_some(self, below: int) -> bool:
        # Numbers may begin far from where the last ones ended: those between are gone.
        (first,) = self._db.execute(
            "SELECT min(id) FROM entries WHERE id >= ? AND id < ?", (self.below, below)
        ).fetchone()
        if first is None:
            self.below = max(self.below, below)
            return False
        end: int = min(first + _STEP, below)
        self._db.execute(
            "INSERT INTO places SELECT tbl, first, id FROM entries "
            "WHERE id >= ? AND id < ? ORDER BY tbl, first",
            (first, end),
        )
        self.below = end
        return end < below

    def forget(self, entries: Sequence[tuple[int, int, int]]) -> None:
        """Forget entries (number, table, first position) that are removed in this transaction."""
        noted = sorted((table, first) for id_, table, first in entries if id_ < self.below)
        self._db.executemany("DELETE FROM places WHERE tbl = ? AND first = ?", noted)
