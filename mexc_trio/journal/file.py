"""The journal's file: rows in the order of receipt, and what is remembered of each table.

Every entry bears a checksum, because a damaged byte within a row would pass SQLite's own check.
"""

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Final

import attrs

from mexc_trio.errors import JournalError
from mexc_trio.journal.database import (
    Database,
    connect_to_read,
    transaction,
    translated,
    wal,
)
from mexc_trio.journal.entries import Stored, TableState, decode_rows, fact_crc
from mexc_trio.journal.entry_index import EntryIndex
from mexc_trio.journal.retention import Retention
from mexc_trio.rows import RowTuple

# Columns and tables are called as in every journal that was ever written: `doubtful` is what
# `TableState` calls `after_reboot`, and `places` has the entries' positions.
SCHEMA: Final = (
    """
    CREATE TABLE IF NOT EXISTS tables (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        acked INTEGER NOT NULL,
        table_rows INTEGER,
        engine TEXT NOT NULL,
        marks BLOB NOT NULL,
        doubtful INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        base INTEGER,
        sent INTEGER NOT NULL DEFAULT 0
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS entries (
        id INTEGER PRIMARY KEY,
        tbl INTEGER NOT NULL,
        first INTEGER NOT NULL,
        n INTEGER NOT NULL,
        at INTEGER NOT NULL,
        version INTEGER NOT NULL,
        rows BLOB NOT NULL,
        crc INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS facts (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL,
        crc INTEGER NOT NULL DEFAULT 0
    )
    """,
)

_IDENTITY: Final = "identity"
_PAGE: Final = 256
"""Entries that are read at once, so that no read stays open and keeps the WAL from shrinking."""


@attrs.define(eq=False)
class JournalFile:
    """An open journal file, locked against other processes; `open_file` makes one.

    Entries are numbered in the order of writing; a table's follow each other without a gap.
    """

    path: Path
    damaged: Path | None
    """Where a file was put that could not be read at the start; None if all was well."""
    _db: Database
    _kept: dict[int, int]
    """The first position of each table whose row is here."""
    _ends: dict[int, int]
    """The position after each table's last row when the file was opened."""
    _next: int
    """The number of the next entry."""
    retention: Retention = attrs.field(init=False)
    _index: EntryIndex = attrs.field(init=False)
    # To sync by, and open for as long as the journal: to close any descriptor of a file drops all
    # locks that the process has on it, SQLite's too. The next program to read the journal would
    # then take itself for its only user, and remove the WAL.
    _fds: dict[Path, int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._index = EntryIndex(self._db)
        self.retention = Retention(self.path, self._db, self._index, self._kept)
        synced = (wal(self.path), self.path, self.path.parent)
        self._fds = {path: os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in synced}

    def names(self) -> list[str]:
        """Return the tables that are known, oldest first."""
        with translated(self.path):
            return [name for (name,) in self._db.execute("SELECT name FROM tables ORDER BY id")]

    def table(self, name: str) -> tuple[int, TableState, int]:
        """Return a table's number, its state and its end position; add it if it is not known."""
        with translated(self.path):
            new = TableState(name, 0, None, "", b"")
            self._db.execute(
                "INSERT OR IGNORE INTO tables (name, acked, table_rows, engine, marks, base, sent, "
                "doubtful, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*new, new.crc()),
            )
            id_, *found, after_reboot = self._db.execute(
                "SELECT id, name, acked, table_rows, engine, marks, base, sent, doubtful "
                "FROM tables WHERE name = ?",
                (name,),
            ).fetchone()
        self._kept.setdefault(id_, 0)
        state = TableState._make([*found, bool(after_reboot)])
        return id_, state, self._ends.setdefault(id_, 0)

    def write(self, entries: Sequence[Stored], states: Sequence[TableState]) -> None:
        """Write all of this in one transaction, or nothing if it fails."""
        with translated(self.path), transaction(self._db):
            self._db.executemany(
                "INSERT INTO entries (id, tbl, first, n, at, version, rows, crc) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(id_, *entry, entry.crc()) for id_, entry in enumerate(entries, self._next)],
            )
            self._db.executemany(
                "UPDATE tables SET acked = ?, table_rows = ?, engine = ?, marks = ?, "
                "base = ?, sent = ?, doubtful = ?, crc = ? WHERE name = ?",
                [(*state[1:], state.crc(), state.name) for state in states],
            )
        self._next += len(entries)

    def read(self, table: int, position: int, page: int = _PAGE) -> Iterator[Stored]:
        """Yield a table's entries, from the one that holds a position on.

        Raises JournalError if one is damaged, DiskFull without space to note where they are.
        """
        while True:
            with translated(self.path):
                self._index.note(self._next)
                found = self._db.execute(
                    "SELECT e.tbl, e.first, e.n, e.at, e.version, e.rows, e.crc "
                    "FROM places p JOIN entries e ON e.id = p.id "
                    "WHERE p.tbl = ? AND e.first + e.n > ? AND p.first >= coalesce((SELECT "
                    "max(first) FROM places WHERE tbl = ? AND first <= ?), 0) "
                    "ORDER BY p.first LIMIT ?",
                    (table, position, table, position, page),
                ).fetchall()
            for *values, crc in found:
                stored = Stored(*values)
                if stored.crc() != crc or stored.first > position:
                    raise JournalError(
                        f"journal {self.path}: rows {position} and following of table "
                        f"{table} are damaged; start again, and a new journal is begun"
                    )
                yield stored
                position = stored.first + stored.n
            if len(found) < page:
                return

    def rows_of(self, stored: Stored) -> list[RowTuple]:
        """Return an entry's rows.

        Raises:
            JournalError: they are none, though they bear the right checksum.
        """
        try:
            return decode_rows(stored.rows, stored.n)
        except ValueError as error:
            raise JournalError(
                f"journal {self.path}: rows {stored.first} and following of table {stored.table} "
                f"are none that this program wrote ({error}); take the file away"
            ) from error

    def prepare_to_read(self) -> bool:
        """Do some of what `read` does first, if that would be much; return whether it still is."""
        with translated(self.path):
            return self._index.note_ahead(self._next)

    def first_position(self, table: int) -> int:
        """Return the first position of a table whose row is here, or would be the next one."""
        return self._kept[table]

    def fact(self, name: str) -> str:
        """Return a remembered fact about the program, empty if there is none."""
        with translated(self.path):
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def remember(self, name: str, value: str) -> None:
        """Remember a fact about the program."""
        with translated(self.path):
            remember(self._db, name, value)

    @cached_property
    def identity(self) -> str:
        """What no other journal has."""
        if not self.fact(_IDENTITY):
            self.remember(_IDENTITY, uuid.uuid4().hex)
        return self.fact(_IDENTITY)

    def sync(self) -> None:
        """Sync what was written to the disk. Blocks for as long as the disk takes: in a thread."""
        with translated(self.path):
            for fd in self._fds.values():
                os.fsync(fd)

    def wait_for_locks(self, seconds: float) -> None:
        """Let what follows wait so long, at the most, for another program's lock; blocks."""
        self._db.execute(f"PRAGMA busy_timeout = {int(1000 * seconds)}")

    def close(self) -> None:
        """Close the database, and only then what is held open beside it."""
        self._db.close()
        for fd in self._fds.values():
            os.close(fd)

    def check_in_place(self) -> None:
        """Raise JournalError if the file was removed or replaced under our feet."""
        for path, fd in self._fds.items():
            try:
                in_place = os.path.samestat(path.stat(), os.fstat(fd))
            except OSError:
                in_place = False
            if not in_place:
                raise JournalError(
                    f"journal {path} was removed or replaced while in use; start again"
                )


def fact_of(path: Path, name: str) -> str:
    """Return a fact that a journal remembers, whoever has it open; empty if it does not.

    Raises JournalError if it cannot be read.
    """
    with translated(path), closing(connect_to_read(path)) as db:
        row = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return str(row[0]) if row else ""


def remember(db: Database, name: str, value: str) -> None:
    """Remember a fact about the program."""
    db.execute(
        "INSERT INTO facts (name, value, crc) VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value, crc = excluded.crc",
        (name, value, fact_crc(name, value)),
    )
