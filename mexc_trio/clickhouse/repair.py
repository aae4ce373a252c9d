"""Is a table sound, and what to do when its tail is not.

A StripeLog table whose engine lost power can have a tail of zeros or be cut short, while `count()`,
CHECK TABLE and the next INSERT all succeed (measured). Only reading it in full proves it. So a
table is read once after each restart of its engine, before anything is appended to it.
"""

import re
import time
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import attrs

from mexc_trio.clickhouse.schema import (
    Readable,
    Store,
    count,
    literal,
    milliseconds,
    qualified,
    quoted,
)
from mexc_trio.clickhouse.tables import Table
from mexc_trio.errors import StoreError, StoreRejected, TableDamaged
from mexc_trio.rows import RowTuple
from mexc_trio.spans import EARLIEST, LATEST

PUT_ASIDE: Final = re.compile(r".+_(damaged|repaired)_\d{8}_\d{6}")
"""Names of tables that a repair has left."""
READ_IN_FULL: Final = "SELECT count(), sum(cityHash64"


@attrs.frozen
class Soundness:
    """What a full read of a table showed, and what was done about it."""

    rows: int
    """Rows in the table now, all of them readable."""
    kept_as: str
    """The name under which the damaged table was put aside; empty if it was sound."""
    reason: str
    """The engine's own words about the damage; empty if it was sound."""


def same_server_start(before: str, now: str) -> bool:
    """Compare two values of `Store.server_start_id`."""
    (host, _, since), (other, _, again) = before.rpartition("@"), now.rpartition("@")
    if host == other and since.isdigit() and again.isdigit():
        return abs(int(since) - int(again)) <= 1  # two clocks that read whole seconds
    return before == now


def make_sound(store: Store, table: Table) -> Soundness:
    """Read a table in full. Where its tail cannot be read, replace it by the part that can.

    The damaged table stays under another name, so nothing is thrown away. Raises StoreError also if
    the repair itself failed.
    """
    rows, reason, repaired = _inspect(store, table)
    if not reason:
        return Soundness(rows or 0, repaired, "its index was damaged" if repaired else "")
    good = longest_readable(store, table, rows)
    return Soundness(good, put_aside(store, table, good), reason)


def put_aside(store: Store, table: Table, good: int = 0) -> str:
    """Put a new table in the place of one, which stays under another name; return that name.

    The new one gets the first `good` rows. Raises StoreError without the right to do this, or if
    the rows were not copied.
    """
    stamp = time.strftime("%Y%m%d_%H%M%S", time.gmtime())
    aside, fresh = f"{table.name}_damaged_{stamp}", f"{table.name}_repaired_{stamp}"
    old, new = qualified(store, table.name), qualified(store, fresh)
    store.query(f"CREATE TABLE {new} AS {old}")
    if good:
        names = ", ".join(quoted(name) for name in table.column_names)
        # One thread, because several would return the blocks in any order.
        store.query(
            f"INSERT INTO {new} ({names}) SELECT {names} FROM {old} LIMIT {good} "
            f"SETTINGS max_threads = 1, max_insert_threads = 1"
        )
    if count(store, fresh) != good:
        raise StoreRejected(f"{store.name}: table {table.name} is damaged and could not be copied")
    store.query(f"RENAME TABLE {old} TO {qualified(store, aside)}, {new} TO {old}")
    return aside


def _inspect(store: Store, table: Table) -> tuple[int | None, str, str]:
    """Return rows, why they cannot all be read, and where a damaged index is kept.

    The rows are None if not even they can be told.
    """
    drop, repaired = 0, ""
    while True:
        try:
            rows = count(store, table.name)
            trim(store)
            return rows, unreadable(store, table, rows), repaired
        except TableDamaged as error:
            kept = store.truncate_index(table.name, drop)
            if not kept:
                return None, str(error), repaired
            drop, repaired = max(1, drop * 2), repaired or kept


def trim(store: Store) -> None:
    """Have an engine of ours give back what loading or copying an index left, as much as it is."""
    if store.one_thread:
        with suppress(StoreError):  # not every build has that allocator
            store.query("SYSTEM JEMALLOC PURGE")


def stop_reading(store: Store, table: str) -> None:
    """End the full reads of a table that are under way; those who wait for them get an error."""
    reads, place = literal(READ_IN_FULL), literal(f"{qualified(store, table)} ")
    store.query(
        f"KILL QUERY WHERE startsWith(query, {reads}) AND position(query, {place}) > 0 "
        f"AND user = currentUser()"
    )


def unreadable(store: Readable, table: Table, rows: int) -> str:
    """Read the first `rows` rows in full; return why that fails, or an empty string."""
    hashed = ", ".join(quoted(name) for name in table.column_names)
    try:
        # A hash of every column, so that the engine cannot leave one unread.
        read = store.query(
            f"{READ_IN_FULL}({hashed})) FROM "
            f"(SELECT {hashed} FROM {qualified(store, table.name)} LIMIT {rows} "
            f"SETTINGS max_threads = 1)"
            if rows
            else "SELECT 0, 0"
        )
    except StoreError as error:
        return damage(error)
    return "" if int(read[0][0]) == rows else f"{read[0][0]} of {rows} rows are there"


def damage(error: StoreError) -> str:
    """Return the engine's words if the table's files may be what is wrong; else raise the error."""
    # Two codes that pass in other places mean the end of the file here, not of the connection.
    if isinstance(error, TableDamaged) or error.code in (3, 74):
        return str(error)
    raise error


def longest_readable(store: Readable, table: Table, rows: int | None) -> int:
    """Return how many rows from the start can be read of a table that cannot be read in full.

    `rows` is how many the engine believes there are; None if it cannot tell.
    """
    good = 0
    for _ in range(4):  # it may fall short; then asking again is cheaper than halving
        good = max(good, _readable_in_one_go(store, table))
        if unreadable(store, table, good + 1):
            return good
    bad = rows or good + 1024
    while rows is None and not unreadable(store, table, bad):
        good, bad = bad, bad * 2
    return bisect_left(range(bad), 1, good + 1, key=lambda n: bool(unreadable(store, table, n))) - 1


def _readable_in_one_go(store: Readable, table: Table) -> int:
    """Return how many rows a read gives before it fails, or fewer: its error may overtake the last.

    Where a checksum does not match, the engine looks whether one bit is to blame, by trying each:
    for a block of ten thousand rows that takes it a minute, in which nothing stops it. So such a
    block is not to be read again and again.
    """
    hashed = ", ".join(quoted(name) for name in table.column_names)
    ends = store.rows_before_error(
        f"SELECT n FROM (SELECT rowNumberInAllBlocks() + blockSize() AS n, "
        f"rowNumberInBlock() AS k, cityHash64({hashed}) AS hash "
        f"FROM {qualified(store, table.name)}) "
        f"WHERE k = 0 AND NOT ignore(hash) SETTINGS max_threads = 1"
    )
    return int(ends[-1][0]) if ends else 0


def newest(store: Store, table: Table) -> int | None:
    """Return the newest possible time of a symbol's rows, or of gaps' ends, in milliseconds."""
    time_column = milliseconds("ts" if "ts" in table.column_names else "to")
    found = store.query(
        f"SELECT count(), max({time_column}) FROM {qualified(store, table.name)} "
        f"WHERE {time_column} BETWEEN {EARLIEST} AND {LATEST}"
    )
    return int(found[0][1]) if int(found[0][0]) else None


def rows_at(store: Store, table: Table, first: int, n: int) -> list[RowTuple]:
    """Return `n` rows of a table from number `first` on, in the order of insertion.

    They are in the form in which they were appended: times in milliseconds.
    """
    # One thread returns a StripeLog table's blocks in the order of insertion.
    return select(store, table, f"LIMIT {first}, {n} SETTINGS max_threads = 1")


def present_rows(store: Store, table: Table, rows: Sequence[RowTuple]) -> set[RowTuple]:
    """Return which of a few rows a table of gaps has; the answer is about as small as they are."""
    symbol, _, _, until, *_ = (name for name, _ in table.columns)
    symbols = ", ".join({literal(str(row[0])) for row in rows})
    ends = ", ".join({str(row[3]) for row in rows})
    condition = f"WHERE {quoted(symbol)} IN ({symbols}) AND {milliseconds(until)} IN ({ends})"
    return set(rows).intersection(select(store, table, condition))


def select(store: Readable, table: Table, condition: str) -> list[RowTuple]:
    """Return a table's rows in the form in which they were appended."""
    wanted = ", ".join(_as_appended(name, type_) for name, type_ in table.columns)
    found = store.query(f"SELECT {wanted} FROM {qualified(store, table.name)} {condition}")
    return [
        tuple(_value(value, type_) for value, (_, type_) in zip(row, table.columns, strict=True))
        for row in found
    ]


def _as_appended(name: str, type_: str) -> str:
    """Return the SQL of a column's values as they were appended."""
    if type_ == "DateTime64(6)":
        return f"toUnixTimestamp64Micro({quoted(name)})"
    return milliseconds(name) if type_.startswith("DateTime64") else quoted(name)


def _value(value: object, type_: str) -> int | float | str:
    if type_.startswith("Float"):
        return float(str(value))
    return int(str(value)) if type_.startswith(("DateTime64", "UInt", "Int")) else str(value)
