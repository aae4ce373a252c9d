"""How a journal file is opened: held against other processes, and believed only after a check.

A file that cannot be read, or that holds something else than was written, is put aside.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from mexc_trio.errors import JournalError, JournalLocked, StoreLocked
from mexc_trio.files import open_own, refuse_others
from mexc_trio.journal import entry_index
from mexc_trio.journal.database import (
    Damage,
    Database,
    connect,
    is_damage,
    refuse_what_runs,
    transaction,
    translated,
)
from mexc_trio.journal.entries import Stored, TableState, decode_marks, fact_crc, read_back
from mexc_trio.journal.file import SCHEMA, JournalFile, remember
from mexc_trio.locks import hold_file

_VERSION: Final = 4
_TABLES: Final = {0: 0, 1: 3, 2: 4, 3: 4, 4: 4}
"""How many tables a journal of each version has; 0 is a new one."""
_NO_VERSION: Final = 1000  # or more is no version but damage


@contextmanager
def open_file(path: Path) -> Iterator[JournalFile]:
    """Open a journal file, made if it is missing, and hold it against other processes.

    A file that cannot be read is put aside under another name and a new one begun. Raises
    JournalLocked if another process has it, JournalBusy if another program has locked its database,
    JournalError or DiskFull if it cannot be made or opened, UsageError as `refuse_others`.
    """
    with ExitStack() as stack:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"cannot make {path.parent}: {error.strerror}") from error
        refuse_others(path.parent)  # in a place such as /tmp somebody else may have made it by now
        try:
            stack.enter_context(hold_file(path.with_suffix(".lock"), f"journal {path}"))
        except StoreLocked as error:
            raise JournalLocked(str(error)) from error
        with translated(path):
            _make_private(path)
            try:
                file = _open(path)
            except Exception as error:
                if not is_damage(error):
                    raise
                file = _open(path, damaged=_put_aside(path))
            stack.callback(file.close)
        yield file


def _make_private(path: Path) -> None:
    """Make the file if it is missing, and let nobody else read it.

    Whoever may read it may lock it, and so hold up the database or let it grow. SQLite gives the
    files beside it the same rights.
    """
    # Closing a descriptor of a database drops its locks; this one has none yet.
    fd = open_own(path, os.O_RDWR)
    with suppress(PermissionError):  # it is another user's, who lets us write
        os.fchmod(fd, 0o600)
    os.close(fd)


def _open(path: Path, damaged: Path | None = None) -> JournalFile:
    db = connect(path)
    try:
        (found,) = db.execute("PRAGMA user_version").fetchone()
        if not 0 <= found <= _NO_VERSION:
            raise Damage(f"version {found}")
        if found not in _TABLES:
            raise JournalError(
                f"journal {path} is of version {found}, this program knows {_VERSION}: "
                f"use the version of mexc-trio that wrote it"
            )
        refuse_what_runs(db)
        # Not quick_check, which does not see that an index lacks rows. A GB takes half a second.
        (verdict,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise Damage(verdict)
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()
        if tables != _TABLES[found]:
            raise Damage(f"{tables} tables")
        with transaction(db):
            # Version 1 had an index that was always kept up to date.
            db.execute("DROP INDEX IF EXISTS entries_by_position")
            for statement in (*SCHEMA, entry_index.SCHEMA):
                db.execute(statement)
            # Earlier versions knew no tables of numbered rows, nor checksums of facts.
            if not _has_column(db, "tables", "base"):
                db.execute("ALTER TABLE tables ADD COLUMN base INTEGER")
                db.execute("ALTER TABLE tables ADD COLUMN sent INTEGER NOT NULL DEFAULT 0")
            if not _has_column(db, "facts", "crc"):
                db.execute("ALTER TABLE facts ADD COLUMN crc INTEGER NOT NULL DEFAULT 0")
                for name, value in db.execute("SELECT name, value FROM facts").fetchall():
                    remember(db, name, value)
            db.execute(f"PRAGMA user_version = {_VERSION}")
        found = _check(db)
        _note_start(db)
        return JournalFile(path, damaged, db, *found)
    except BaseException:
        db.close()
        raise


def _has_column(db: Database, table: str, column: str) -> bool:
    return column in {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}


def _check(db: Database) -> tuple[dict[int, int], dict[int, int], int]:
    """Read everything: what cannot be read is better found now than when it is needed.

    Returns each table's first position and its end, which are equal if it has no rows, and the
    number of the next entry.
    """
    for name, value, crc in db.execute("SELECT name, value, crc FROM facts"):
        if fact_crc(name, value) != crc:
            raise Damage("a fact is damaged")
    states: dict[int, TableState] = {}
    for id_, crc, *state in db.execute(
        "SELECT id, crc, name, acked, table_rows, engine, marks, base, sent FROM tables"
    ):
        try:
            states[id_] = found = read_back(TableState, state, crc)
            if found.marks:
                decode_marks(found.marks)
        except (ValueError, RecursionError) as error:
            raise Damage(f"what is remembered of table {id_} is damaged") from error
    kept: dict[int, int] = {}
    ends: dict[int, int] = {}
    last = 0
    for id_, *values, crc in db.execute(
        "SELECT id, tbl, first, n, at, version, rows, crc FROM entries ORDER BY id"
    ):
        try:
            entry = read_back(Stored, values, crc)
        except ValueError as error:
            raise Damage(f"entry {id_} is damaged") from error
        table = entry.table
        if not isinstance(id_, int) or id_ <= last:
            raise Damage(f"entry {last} is followed by {id_}")
        if table not in states:
            raise Damage(f"there are rows of a table {table} that is not known")
        if entry.first != ends.get(table, min(entry.first, states[table].acked)):
            raise Damage(f"rows before {entry.first} of table {table} are missing")
        kept.setdefault(table, entry.first)
        ends[table] = entry.first + entry.n
        last = id_
    for table, state in states.items():
        kept.setdefault(table, state.acked)
        if ends.setdefault(table, state.acked) < state.acked:
            raise Damage(f"rows before {state.acked} of table {table} are missing")
    return kept, ends, last + 1


def _note_start(db: Database) -> None:
    """Note whether the machine was started anew since what is remembered was written."""
    boot = boot_id()
    before = db.execute("SELECT value FROM facts WHERE name = 'boot'").fetchone()
    with transaction(db):
        if before is not None and boot != before[0]:
            db.execute("UPDATE tables SET doubtful = 1")
        remember(db, "boot", boot)


def boot_id() -> str:
    """Return what stays the same until the machine starts anew; empty where nobody knows."""
    with suppress(OSError):
        if sys.platform == "linux":
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        if sys.platform == "darwin":
            command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
            answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
            return answer.stdout.strip()
    return ""


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
