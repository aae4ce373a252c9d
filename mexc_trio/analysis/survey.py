"""One table read in full: how many rows of which type, from when to when, and can they be read.

Nothing less than a query that touches every column of every row proves a table; rows that are
hidden even from it show in the length of the files. Where it fails, the rows before the damage are
found and surveyed alone.
"""

from collections.abc import Mapping
from pathlib import Path

import attrs

from mexc_trio.clickhouse import repair, stripelog
from mexc_trio.clickhouse.index_memory import inserts_of
from mexc_trio.clickhouse.schema import (
    Readable,
    count,
    known_sizes,
    milliseconds,
    qualified,
    quoted,
)
from mexc_trio.clickhouse.tables import Table, in_order, is_numbered
from mexc_trio.errors import StoreError, StoreRejected, StoreUnavailable
from mexc_trio.files import bytes_of


@attrs.frozen
class Size:
    """What a table takes on disk, in bytes."""

    total: int
    data: int | None = None
    """`data.bin` alone; None where the files are the server's."""
    index: int | None = None
    """`index.mrk` alone; None likewise."""


@attrs.frozen
class Survey:
    """What a full read of a table showed."""

    name: str
    rows: int
    """Rows that were read."""
    counted: int | None
    """Rows that the engine says there are; None if it does not know."""
    by_key: Mapping[str, int]
    """Rows by message type; in the ledger of gaps, by cause."""
    oldest: int | None
    """Milliseconds since 1970; None in an empty table. In the ledger, the first gap's start."""
    newest: int | None
    """Likewise; in the ledger, the last gap's end."""
    damage: str
    """What is wrong with it, in the engine's words; empty if it is sound."""
    source: str
    """The SQL for the rows that can be read, to stand behind FROM."""
    inserts: int = 0
    """INSERTs with which the rows came."""


def survey(
    store: Readable, table: Table, key: str, times: tuple[str, str], directory: Path | None = None
) -> Survey:
    """Read a table in full; if that fails, as far as it can be read.

    `table` has the columns and types that are there; rows are counted by the column `key`, and
    `times` are the columns of the oldest and the newest time. `directory` is the embedded store's,
    where the files can be looked at; None for a server. Raises StoreError without an answer.
    """
    before = counted = _count(store, table.name)
    source, damage = qualified(store, table.name), ""
    try:
        found = _read(store, table, key, times, source)
    except StoreError as error:
        damage = repair.damage(error).removeprefix(f"{store.name}: ")
        # What parts of a MergeTree can be read, the engine tells when it starts.
        is_log = not is_numbered(dict(table.columns))
        readable = repair.longest_readable(store, table, counted) if is_log else 0
        source = _first_rows(store, table, readable)
        # Not even none can be read where the index is damaged.
        found = _read(store, table, key, times, source) if readable else []
    rows = sum(line[1] for line in found)
    if not damage and before is not None and rows != before:
        # A recorder may be writing to it, so it may have grown in between.
        counted = count(store, table.name)
        if not before <= rows <= counted:
            damage = f"a full read gives {rows:,} rows, and count() {counted:,}"
    if not damage and (damage := _shortened(store, table.name, directory)):
        counted = None  # what the engine says is as short as its files
    return Survey(
        table.name,
        rows,
        counted,
        {line[0]: line[1] for line in found},
        min((line[2] for line in found), default=None),
        max((line[3] for line in found), default=None),
        damage,
        source,
        inserts_of(store, source) if rows and not is_numbered(dict(table.columns)) else 0,
    )


def sizes(store: Readable, directory: Path | None) -> dict[str, Size]:
    """Return what the tables of the database take, as far as that is known.

    `directory` is the embedded store's, where the files can be looked at; None for a server.
    """
    known = {name: Size(size) for name, size in known_sizes(store).items() if size is not None}
    if directory is None:
        return known
    tables = directory / "data" / store.database
    # A MergeTree has directories that come and go; the engine knows best.
    found = (path for path in tables.glob("*") if path.is_dir())
    logs = [path for path in found if not (path / "format_version.txt").exists()]
    return known | {path.name: _files(path) for path in logs}


def _files(directory: Path) -> Size:
    found = {path.name: bytes_of(path) for path in directory.glob("*") if path.is_file()}
    return Size(sum(found.values()), found.get("data.bin", 0), found.get("index.mrk", 0))


def _read(
    store: Readable, table: Table, key: str, times: tuple[str, str], source: str
) -> list[tuple[str, int, int, int]]:
    """Return key, rows, oldest and newest time, reading every column of every row."""
    oldest, newest = map(milliseconds, times)
    # A hash, so that the engine cannot leave a column unread.
    found = store.query(
        f"SELECT toString({quoted(key)}) AS k, count(), min({oldest}), max({newest}), "
        f"sum(cityHash64({_names(table)})) FROM {source} GROUP BY k ORDER BY k"
    )
    return [(str(k), int(n), int(first), int(last)) for k, n, first, last, _ in found]


def _count(store: Readable, table: str) -> int | None:
    """Return the rows that the engine says there are; None if damage keeps it from telling."""
    try:
        return count(store, table)
    except StoreError as error:
        repair.damage(error)
        return None


def _shortened(store: Readable, table: str, directory: Path | None) -> str:
    """Return what is wrong with the length of the table's files; empty if nothing is.

    An index that was cut between two blocks hides the rows behind it without any error.
    """
    if directory is not None:
        return _cut_short(directory / "data" / store.database / table)
    try:
        found = store.query(f"CHECK TABLE {qualified(store, table)}")
    except (StoreRejected, StoreUnavailable):
        return ""  # not every engine has it, and not every user may
    # Old servers answer with one number, new ones with a line for each file.
    wrong = [line for line in found if not int(line[1] if len(line) > 1 else line[0])]
    words = "; ".join(str(line[-1]) for line in wrong if len(line) > 1)
    return words or ("CHECK TABLE says that its files are cut short" if wrong else "")


def _cut_short(table: Path) -> str:
    """Compare the files with the lengths that the engine noted after each INSERT.

    They may be longer, when it writes just now; what is behind the noted length does not count.
    """
    directory = table.resolve()  # another table may take its name, and it may go
    noted = stripelog.noted_sizes(directory)
    lengths = {name: bytes_of(directory / name) for name in noted or ()}
    if not (directory / "sizes.json").exists():
        return ""  # nothing was ever inserted
    if noted is None:
        return "sizes.json cannot be read"
    for name, size in noted.items():
        if lengths[name] < size:
            return f"{name} has {lengths[name]:,} bytes of {size:,}"
    return ""


def _first_rows(store: Readable, table: Table, rows: int) -> str:
    """Return the SQL of a table's first rows, read as `repair.unreadable` reads them."""
    source = qualified(store, table.name) + in_order(is_numbered(dict(table.columns)))
    return f"(SELECT {_names(table)} FROM {source} LIMIT {rows} SETTINGS max_threads = 1)"


def _names(table: Table) -> str:
    return ", ".join(quoted(name) for name in table.column_names)
