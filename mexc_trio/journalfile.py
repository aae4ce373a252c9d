"""The journal's file: tables of SQLite, and what can happen to them. The only user of sqlite3.

SQLite's WAL with synchronous=NORMAL keeps the file consistent through a power cut, but not
complete: the last transactions may be gone unless `sync` was called since. Every entry bears a
checksum, because a damaged byte within a row would pass SQLite's own check.
"""

import os
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import attrs

from mexc_trio.boot import boot_id
from mexc_trio.errors import DiskFull, JournalError, JournalLocked, StoreLocked
from mexc_trio.locks import hold_file

_SCHEMA_VERSION: Final = 1
_NO_VERSION: Final = 1000  # or more is no version but damage
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS tables (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    acked INTEGER NOT NULL,
    table_rows INTEGER,
    engine TEXT NOT NULL,
    marks BLOB NOT NULL,
    doubtful INTEGER NOT NULL,
    crc INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY,
    tbl INTEGER NOT NULL,
    first INTEGER NOT NULL,
    n INTEGER NOT NULL,
    at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    rows BLOB NOT NULL,
    crc INTEGER NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS entries_by_position ON entries (tbl, first);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

_PAGE: Final = 256
"""Entries that are read at once, so that no read stays open and keeps the WAL from shrinking."""

_SLACK: Final = 1024
"""Pages (of 4 KiB) that the file may keep for later although nothing is in them."""


class State(NamedTuple):
    """What is remembered of one table."""

    name: str
    acked: int
    table_rows: int | None
    engine: str
    marks: bytes
    doubtful: bool = False
    """Whether the machine was started anew since: the journal's own end may be lost."""

    def crc(self) -> int:
        """Return the checksum of all but the doubt, which comes later than the rest."""
        return zlib.crc32(repr(self[:5]).encode())


class Stored(NamedTuple):
    """Rows of one table that were written together."""

    table: int
    first: int
    """The position of the first of them."""
    n: int
    at: int
    """When they were written, in milliseconds since 1970."""
    version: int
    rows: bytes

    def crc(self) -> int:
        """Return the checksum."""
        return zlib.crc32(self.rows, zlib.crc32(repr(self[:5]).encode()))


@attrs.define(eq=False)
class JournalFile:
    """An open journal file, held against other processes."""

    path: Path
    damaged: Path | None
    """Where a file was put that could not be read at the start; None if all was well."""
    _db: sqlite3.Connection
    _inodes: dict[Path, int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._inodes = {path: path.stat().st_ino for path in (self.path, self._wal)}

    @property
    def _wal(self) -> Path:
        return self.path.with_name(self.path.name + "-wal")

    def names(self) -> list[str]:
        """Return the tables that are known, oldest first."""
        with translated(self.path):
            return [name for (name,) in self._db.execute("SELECT name FROM tables ORDER BY id")]

    def table(self, name: str) -> tuple[int, State, int]:
        """Return a table's number, its state and its end position; add it if it is not known."""
        with translated(self.path):
            new = State(name, 0, None, "", b"")
            self._db.execute(
                "INSERT OR IGNORE INTO tables (name, acked, table_rows, engine, marks, doubtful, "
                "crc) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*new, new.crc()),
            )
            id_, acked, table_rows, engine, marks, doubtful = self._db.execute(
                "SELECT id, acked, table_rows, engine, marks, doubtful FROM tables WHERE name = ?",
                (name,),
            ).fetchone()
            last = self._db.execute(
                "SELECT first + n FROM entries WHERE tbl = ? ORDER BY first DESC LIMIT 1", (id_,)
            ).fetchone()
        found = State(name, acked, table_rows, engine, marks, bool(doubtful))
        return id_, found, max(found.acked, last[0]) if last else found.acked

    def write(self, entries: Sequence[Stored], states: Sequence[State]) -> None:
        """Write all of this in one transaction, or nothing if it fails."""
        with translated(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(
                    "INSERT INTO entries (tbl, first, n, at, version, rows, crc) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [(*entry, entry.crc()) for entry in entries],
                )
                self._db.executemany(
                    "UPDATE tables SET acked = ?, table_rows = ?, engine = ?, marks = ?, "
                    "doubtful = ?, crc = ? WHERE name = ?",
                    [(*state[1:], state.crc(), state.name) for state in states],
                )
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def read(self, table: int, position: int, page: int = _PAGE) -> Iterator[Stored]:
        """Yield a table's entries from the one that holds a position on.

        Raises:
            JournalError: one is damaged.
        """
        while True:
            with translated(self.path):
                found = self._db.execute(
                    "SELECT tbl, first, n, at, version, rows, crc FROM entries WHERE tbl = ? "
                    "AND first + n > ? AND first >= coalesce((SELECT max(first) FROM entries "
                    "WHERE tbl = ? AND first <= ?), 0) ORDER BY first LIMIT ?",
                    (table, position, table, position, page),
                ).fetchall()
            for *values, crc in found:
                stored = Stored(*values)
                if stored.crc() != crc:
                    raise JournalError(
                        f"journal {self.path}: rows {stored.first} and following of table "
                        f"{table} are damaged; start again, and a new journal is begun"
                    )
                yield stored
                position = stored.first + stored.n
            if len(found) < page:
                return

    def first_position(self, table: int) -> int | None:
        """Return the first position of a table whose row is here; None if there is none."""
        with translated(self.path):
            (first,) = self._db.execute(
                "SELECT min(first) FROM entries WHERE tbl = ?", (table,)
            ).fetchone()
        return first if first is None else int(first)

    def remove(self, table: int, acked: int, before: int, most: int) -> bool:
        """Remove the first entries of a table that are acknowledged and older than a time.

        Return whether there may be more than the `most` that were looked at.
        """
        with translated(self.path):
            removed = self._db.execute(
                "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE tbl = ? "
                "AND first < ? ORDER BY first LIMIT ?) AND first + n <= ? AND at < ?",
                (table, acked, most, acked, before),
            ).rowcount
        return removed == most

    def shrink(self, pages: int) -> bool:
        """Give some empty pages back to the disk; return whether there may be more to give.

        A quarter stays, since rows come as fast as they go and would only ask for it again.
        """
        with translated(self.path):
            (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
            (total,) = self._db.execute("PRAGMA page_count").fetchone()
            if free <= _SLACK or free * 4 <= total:
                return False
            self._db.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
        return True

    def fact(self, name: str) -> str:
        """Return a remembered fact about the program, empty if there is none."""
        with translated(self.path):
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def remember(self, name: str, value: str) -> None:
        """Remember a fact about the program."""
        with translated(self.path):
            _remember(self._db, name, value)

    def sync(self) -> None:
        """Sync what was written to the disk. Blocks for as long as the disk takes: in a thread."""
        with translated(self.path):
            for path in (self._wal, self.path, self.path.parent):
                fd = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)

    def check_in_place(self) -> None:
        """See that the file has not been removed or replaced under our feet.

        Raises:
            JournalError: it has.
        """
        for path, inode in self._inodes.items():
            try:
                found = path.stat().st_ino
            except OSError:
                found = 0
            if found != inode:
                raise JournalError(
                    f"journal {path} was removed or replaced while in use; start again"
                )


@contextmanager
def open_file(path: Path) -> Iterator[JournalFile]:
    """Open a journal file, made if it is missing, and hold it against other processes.

    A file that cannot be read is put aside under another name and a new one begun.

    Raises:
        JournalLocked: another process has it.
        JournalError: it cannot be made or opened.
        DiskFull: no space.
    """
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"cannot make {path.parent}: {error.strerror}") from error
        try:
            stack.enter_context(hold_file(path.with_suffix(".lock"), f"journal {path}"))
        except StoreLocked as error:
            raise JournalLocked(str(error)) from error
        damaged = None
        with translated(path):
            try:
                db = _connect(path)
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if not _is_damage(error):
                    raise
                damaged = _put_aside(path)
                db = _connect(path)
        stack.callback(db.close)
        yield JournalFile(path, damaged, db)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA journal_size_limit = 16777216")
        (found,) = db.execute("PRAGMA user_version").fetchone()
        if not 0 <= found <= _NO_VERSION:
            raise _Damage(f"version {found}")
        if found not in (0, _SCHEMA_VERSION):
            raise JournalError(
                f"journal {path} is of version {found}, this program knows {_SCHEMA_VERSION}: "
                f"use the version of mexc-trio that wrote it"
            )
        # Not quick_check, which does not see that an index lacks rows. A GB takes half a second.
        (verdict,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise _Damage(verdict)
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()
        if tables != (3 if found else 0):
            raise _Damage(f"{tables} tables")
        db.executescript(_SCHEMA)
        _check(db)
        _note_start(db)
        db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    except BaseException:
        db.close()
        raise
    return db


class _Damage(sqlite3.DatabaseError):
    pass


def _check(db: sqlite3.Connection) -> None:
    """Read everything: what cannot be read is better found now than when it is needed."""
    tables: dict[int, State] = {}
    for id_, crc, *state in db.execute(
        "SELECT id, crc, name, acked, table_rows, engine, marks FROM tables"
    ):
        tables[id_] = State(*state)
        if tables[id_].crc() != crc:
            raise _Damage(f"what is remembered of table {id_} is damaged")
    next_position: dict[int, int] = {}
    for *values, crc in db.execute(
        "SELECT tbl, first, n, at, version, rows, crc FROM entries ORDER BY tbl, first"
    ):
        entry = Stored(*values)
        table = entry.table
        if table not in tables:
            raise _Damage(f"there are rows of a table {table} that is not known")
        start = next_position.get(table, min(entry.first, tables[table].acked))
        if entry.crc() != crc or entry.first != start:
            raise _Damage(f"rows {start} and following of table {table} are damaged")
        next_position[table] = entry.first + entry.n
    for id_, state in tables.items():
        if next_position.get(id_, state.acked) < state.acked:
            raise _Damage(f"rows before {state.acked} of table {id_} are missing")


def _note_start(db: sqlite3.Connection) -> None:
    """Doubt what is remembered if the machine was started anew since it was written."""
    boot = boot_id()
    before = db.execute("SELECT value FROM facts WHERE name = 'boot'").fetchone()
    db.execute("BEGIN IMMEDIATE")
    if before is not None and boot != before[0]:
        db.execute("UPDATE tables SET doubtful = 1")
    _remember(db, "boot", boot)
    db.execute("COMMIT")


def _remember(db: sqlite3.Connection, name: str, value: str) -> None:
    db.execute(
        "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = ?",
        (name, value, value),
    )


def _put_aside(path: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def _is_damage(error: Exception) -> bool:
    text = str(error)
    # SQLite's own words may quote damaged bytes, which Python then cannot decode.
    return isinstance(error, (_Damage, UnicodeDecodeError)) or any(
        words in text
        for words in ("malformed", "not a database", "no such column", "disk image", "decode")
    )


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite or the disk says into an error of ours."""
    try:
        yield
    except sqlite3.Error as error:
        if "full" in str(error):
            raise DiskFull(
                f"journal {path}: the disk is full; free some space and start again"
            ) from error
        raise JournalError(f"journal {path}: {error}") from error
    except OSError as error:
        raise JournalError(f"journal {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:  # SQLite's words quote damaged bytes
        raise JournalError(f"journal {path} is damaged; start again") from error
