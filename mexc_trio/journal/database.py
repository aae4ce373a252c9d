"""The journal's database: how it is opened, what breaks it. The only user of sqlite3.

SQLite's WAL with synchronous=NORMAL keeps the file consistent through a power cut, but not
complete: the last transactions may be gone unless the file was synced since.
"""

import errno
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mexc_trio.errors import DiskFull, JournalBusy, JournalError
from mexc_trio.locks import who_locks

Database = sqlite3.Connection

PATIENCE: Final = 5.0
"""Seconds that a statement waits for another program's lock, unless it was told another time."""

LARGEST: Final = 2**28
"""Bytes of one value that are believed: what is written together has some megabytes."""
_WORDS: Final = """
    create table unique index if not exists on integer text blob primary key null default without
    rowid tables entries facts places id name acked table_rows engine marks doubtful crc base sent
    tbl first n at version rows value entries_by_position 0
"""
"""All that any version of this program has said of its tables, but for brackets and commas."""


class Damage(sqlite3.DatabaseError):
    """What is in the file is not what was written."""


def connect(path: Path) -> Database:
    """Open a database, made if it is missing; raises what `translated` turns into our errors.

    Nothing of it is to be used before `refuse_what_runs`.
    """
    _refuse_links(path)
    db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA journal_size_limit = 16777216")
    except BaseException:
        db.close()
        raise
    return db


def connect_to_read(path: Path) -> Database:
    """Open a database that another process may be writing, and change nothing; see `connect`."""
    _refuse_links(path)
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        refuse_what_runs(db)
    except BaseException:
        db.close()
        raise
    return db


def _refuse_links(path: Path) -> None:
    """SQLite would write through a link, to whatever file of ours a stranger has it lead to.

    Raises:
        OSError: what is to be opened is one.
    """
    for one in (path, wal(path), shm(path)):
        if one.is_symlink():
            raise OSError(errno.EMLINK, f"{one.name} is a link; take it away")


def refuse_what_runs(db: Database) -> None:
    """Check that a file has our tables and nothing else, before anything of it is used.

    A trigger in one that somebody else made could remove what we write, and a view in the place of
    a table never end.

    Raises:
        Damage: it has something else.
    """
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)
    known = set(_WORDS.split())
    for type_, sql in db.execute("SELECT type, sql FROM sqlite_master"):
        if sql is None:  # the index of a key
            continue
        words = re.findall(r"\w+|[^\s(),]", str(sql).lower())
        if type_ not in ("table", "index") or not known.issuperset(words):
            raise Damage(f"a {type_} that is not ours")


def shm(path: Path) -> Path:
    """Return the file beside a database by which those who have it open find what is in its WAL."""
    return path.with_name(path.name + "-shm")


def wal(path: Path) -> Path:
    """Return the file beside a database that has what was written last."""
    return path.with_name(path.name + "-wal")


@contextmanager
def transaction(db: Database) -> Iterator[None]:
    """Do all of the block, or nothing of it if it fails."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def is_damage(error: Exception) -> bool:
    """Whether a file that does not open for this holds something else than was written."""
    # SQLite's own words may quote damaged bytes, which Python then cannot decode.
    if isinstance(error, (Damage, UnicodeDecodeError)):
        return True
    # What it calls an error and no more is, as its statements are ours, a schema that is not.
    return isinstance(error, sqlite3.DatabaseError) and _code(error) in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_TOOBIG,
    )


def _code(error: sqlite3.Error) -> int:
    # Without the details; Python's own errors have none, such as of a text that is none.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite or the disk says into an error of ours.

    Raises DiskFull without space, JournalBusy if another program has the file locked, JournalError
    for any other failure.
    """
    try:
        yield
    except sqlite3.Error as error:
        if _code(error) == sqlite3.SQLITE_FULL:
            raise DiskFull(
                f"journal {path}: the disk is full; free some space and start again"
            ) from error
        if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            holder = who_locks([path, shm(path)])
            raise JournalBusy(f"journal {path} is locked by {holder}: close it there") from error
        raise JournalError(f"journal {path}: {error}") from error
    except OSError as error:
        raise JournalError(f"journal {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:  # SQLite's words quote damaged bytes
        raise JournalError(f"journal {path} is damaged; start again") from error
