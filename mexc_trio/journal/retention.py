"""How rows leave the journal's file: when the store has them and they are old enough.

They are swept in the order in which they were written, which is nearly always the order in which
they may go. What is still needed when the sweep comes by is left, and removed table by table later.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import attrs

from mexc_trio.journal.database import Database, transaction, translated
from mexc_trio.journal.entry_index import EntryIndex

_SLACK: Final = 1024
"""Pages (of 4 KiB) that the file may keep for later although nothing is in them."""


class _Old(NamedTuple):
    """An entry that is perhaps to be removed."""

    id: int
    table: int
    first: int
    n: int
    at: int

    @property
    def end(self) -> int:
        return self.first + self.n


@attrs.define(eq=False)
class Retention:
    """The part of an open journal file that removes what need not be kept."""

    _path: Path
    _db: Database
    _index: EntryIndex
    _kept: dict[int, int]
    """The first position of each table whose row is there; shared with the file."""
    _swept: int = attrs.field(default=0, init=False)
    """Entries up to this number are removed, or `_left`, and noted in the index."""
    _left: dict[int, int] = attrs.field(factory=dict, init=False)
    """How many entries of a table are swept and still needed."""

    def sweep(self, acked: Mapping[int, int], since: int, until: int, most: int) -> bool:
        """Remove the oldest entries that are acknowledged, up to the first of a span of time.

        `acked` has the tables of which entries may be removed, and up to which position; the span
        is from `since` to `until`, in milliseconds since 1970. Looks at `most` entries; returns
        whether there may be more.
        """
        with translated(self._path):
            found = self._db.execute(
                "SELECT id, tbl, first, n, at FROM entries WHERE id > ? ORDER BY id LIMIT ?",
                (self._swept, most),
            )
            entries = itertools.starmap(_Old, found)
            old = list(itertools.takewhile(lambda e: not since <= e.at <= until, entries))
            found.close()
            if not old:
                return False
            done: list[_Old] = []
            needed: list[_Old] = []
            for entry in old:
                # A table's entries go in their order: one that was left goes before this one.
                gone = entry.table not in self._left and entry.end <= acked.get(entry.table, 0)
                (done if gone else needed).append(entry)
            self._remove(done)
            if needed:
                self._index.note(old[-1].id + 1)
        for entry in needed:
            self._left[entry.table] = self._left.get(entry.table, 0) + 1
        self._swept = old[-1].id
        return len(old) == most

    def sweep_again(self, table: int, acked: int, most: int) -> bool:
        """Remove entries of a table that were needed when they were swept, and no longer are."""
        if table not in self._left:
            return False
        with translated(self._path):
            found = [
                _Old(*values)
                for values in self._db.execute(
                    "SELECT e.id, e.tbl, e.first, e.n, e.at FROM places p JOIN entries e "
                    "ON e.id = p.id WHERE p.tbl = ? AND p.first < ? AND p.id <= ? "
                    "ORDER BY p.first LIMIT ?",
                    (table, acked, self._swept, most),
                )
            ]
            done = [entry for entry in found if entry.end <= acked]
            self._remove(done)
        self._left[table] -= len(done)
        if not self._left[table]:
            del self._left[table]
        return len(done) == most

    def _remove(self, entries: Sequence[_Old]) -> None:
        with transaction(self._db):
            self._db.executemany(
                "DELETE FROM entries WHERE id = ?", [(entry.id,) for entry in entries]
            )
            self._index.forget([(entry.id, entry.table, entry.first) for entry in entries])
        self._kept.update((entry.table, entry.end) for entry in entries)

    def shrink(self, pages: int) -> bool:
        """Give some empty pages back to the disk; return whether there may be more to give.

        A quarter stays, since rows come as fast as they go and would only ask for it again.
        """
        with translated(self._path):
            (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
            (total,) = self._db.execute("PRAGMA page_count").fetchone()
            if free <= _SLACK or free * 4 <= total:
                return False
            self._db.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
        return True
