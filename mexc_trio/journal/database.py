"""The journal's database: how it is opened, what breaks it. The only user of sqlite3.

SQLite's WAL with synchronous=NORMAL keeps the file consistent through a power cut, but not
complete: the last transactions may be gone unless the file was synced since.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mexc_trio.errors import DiskFull, JournalBusy, JournalError
from mexc_trio.locks import who_locks

Database = sqlite3.Connection

PATIENCE: Final = 5.0
"""Seconds that a statement waits for another program's lock, unless `wait_for_locks` was told."""


class Damage(sqlite3.DatabaseError):
    """What is in the file is not what was written."""


def connect(path: Path) -> Database:
    """Open a database, made if it is missing; raises what `translated` turns into our errors."""
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
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def wait_for_locks(db: Database, seconds: float) -> None:
    """Let each statement wait for so many seconds, at the most, for another program's lock."""
    db.execute(f"PRAGMA busy_timeout = {int(1000 * seconds)}")


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
    )


def _code(error: sqlite3.Error) -> int:
    # Without the details; Python's own errors have none, such as of a text that is none.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite or the disk says into DiskFull, JournalBusy or JournalError."""
    try:
        yield
    except sqlite3.Error as error:
        if _code(error) == sqlite3.SQLITE_FULL:
            raise DiskFull(
                f"journal {path}: the disk is full; free some space and start again"
            ) from error
        if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            holder = who_locks([path, path.with_name(path.name + "-shm")])
            raise JournalBusy(f"journal {path} is locked by {holder}: close it there") from error
        raise JournalError(f"journal {path}: {error}") from error
    except OSError as error:
        raise JournalError(f"journal {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:  # SQLite's words quote damaged bytes
        raise JournalError(f"journal {path} is damaged; start again") from error
