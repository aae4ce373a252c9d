"""A StripeLog table is rewritten in large blocks: the same rows in the same order, in less room.

Each INSERT leaves a block of its own in the table's files and an entry of its own in the engine's
memory. Here all rows go into a second table beside the first, in blocks of `BLOCK` rows. When that
one has been compared with the first, row for row and in order, and lies on the disk, the two change
names in one step, and the old one is dropped.

So whatever dies in between leaves under the table's name one whole table with the same rows: the
old one or the new. What it leaves beside that is removed by the next attempt.
"""

from contextlib import suppress
from typing import Final

import attrs

from mexc_trio.clickhouse import repair
from mexc_trio.clickhouse.schema import (
    Readable,
    Store,
    columns,
    count,
    engines,
    known_sizes,
    literal,
    qualified,
    quoted,
)
from mexc_trio.errors import (
    StoreError,
    StoreRejected,
    StoreUnavailable,
    TableConflict,
    TableDamaged,
    TableMissing,
)
from mexc_trio.texts import size

BLOCK: Final = 65_536
"""Rows of a block, or so many as take `BLOCK_BYTES`. Larger ones take no less room on the disk
(measured: 1,000 rows 8 % more, 8,192 rows 0.5 %), and a reader needs a whole one in its memory."""
BLOCK_BYTES: Final = 32 * 2**20
"""Bytes of a block before it is compressed."""
ENGINE: Final = "StripeLog"
"""The engine whose tables this is about."""

_COPY: Final = "_compacting"
CONVERTING: Final = "_converting"
"""How the name of a table ends that is being filled beside another one, of another engine."""
_INSERT: Final = "INSERT INTO {copy} ("


@attrs.frozen
class Compacted:
    """What became of a table."""

    rows: int
    before: int
    """Bytes of its files."""
    after: int

    def __str__(self) -> str:
        return f"{self.rows:,} rows rewritten, {size(self.before)} before, {size(self.after)} now"


def copy_of(table: str) -> str:
    """Return in which table one is rewritten; when they have changed names, it is the old one."""
    return table + _COPY


def is_beside(name: str) -> bool:
    """Return whether a table of this name stands beside a symbol's, by a compaction or a repair."""
    return name.endswith((_COPY, CONVERTING)) or repair.PUT_ASIDE.fullmatch(name) is not None


def compact(store: Store, table: str, least_free: int) -> Compacted:
    """Rewrite a table into which nobody inserts meanwhile. Blocks for a minute or more a GB.

    Args:
        store: where it is.
        table: the table.
        least_free: bytes of disk to leave free.

    Raises:
        StoreRejected: it cannot be done, and the table is as it was.
        TableDamaged: the table cannot be read in full.
        TableConflict: somebody inserts into it.
        TableMissing: there is no such table.
        StoreUnavailable: there was no answer; the table is the old one, or the new.
    """
    copy = copy_of(table)
    old, new = qualified(store, table), qualified(store, copy)
    _check_kind(store, table)
    remove_leftover(store, table)
    rows, before = count(store, table), _bytes(store, table)
    _check_room(store, table, before, least_free)
    names = ", ".join(map(quoted, (columns(store, tables=[table]) or {})[table]))
    digest = _digest_of_all(store, table, rows, names)
    try:
        store.query(f"CREATE TABLE {new} AS {old}")
        store.query(
            f"{_INSERT.format(copy=new)}{names}) SELECT {names} FROM {old} LIMIT {rows} "
            f"SETTINGS max_threads = 1, max_insert_threads = 1, async_insert = 0, "
            f"min_insert_block_size_rows = {BLOCK}, min_insert_block_size_bytes = {BLOCK_BYTES}"
        )
        if count(store, copy) != rows or _digest(store, copy, rows, names) != digest:
            raise StoreRejected(
                f"{store.name}: the copy of table {table} is not what was copied; the table "
                f"stays as it is"
            )
        _sync(store, copy)
        after = _bytes(store, copy)
        if count(store, table) != rows:
            raise _conflict(store, table)
    except StoreError:
        with suppress(StoreError):  # it stays until the next attempt
            store.query(f"DROP TABLE IF EXISTS {new}")
        raise
    store.query(f"EXCHANGE TABLES {old} AND {new}")
    if count(store, copy) != rows:
        store.query(f"EXCHANGE TABLES {old} AND {new}")
        raise _conflict(store, table)
    store.query(f"DROP TABLE {new}")
    return Compacted(rows, before, after)


def remove_leftover(store: Store, table: str) -> bool:
    """Remove what a compaction that died has left beside a table; return whether there was any.

    It holds no row that the table lacks: it is a copy that was not finished, or, after the two have
    changed names, the old table.

    Raises:
        StoreRejected: it has more rows than the table, so it is something else.
        StoreError: there was no answer.
    """
    copy = copy_of(table)
    if not engines(store, [copy]):
        return False
    if count(store, copy) > count(store, table):
        raise StoreRejected(
            f"{store.name}: table {copy} has more rows than {table}, so no compaction "
            f"left it; look what it is, and rename it"
        )
    store.query(f"DROP TABLE {qualified(store, copy)}")
    return True


def stop(store: Store, table: str) -> None:
    """End the long statements of a compaction that is under way; who waits for them gets an error.

    Raises:
        StoreError: there was no answer, or no right to do this.
    """
    copy = copy_of(table)
    insert = literal(_INSERT.format(copy=qualified(store, copy)))
    store.query(f"KILL QUERY WHERE startsWith(query, {insert}) AND user = currentUser()")
    for read in (table, copy):
        repair.stop_reading(store, read)


def _check_kind(store: Readable, table: str) -> None:
    engine = engines(store, [table]).get(table)
    if engine is None:
        raise TableMissing(f"{store.name} has no table {table}")
    if engine != ENGINE:
        raise StoreRejected(f"table {table} is a {engine.split()[0]}; only a {ENGINE} is compacted")
    (kind,) = store.query(
        f"SELECT engine FROM system.databases WHERE name = {literal(store.database)}"
    )[0]
    if kind != "Atomic":  # the others exchange no tables, or those of other replicas as well
        raise StoreRejected(
            f"{store.name}: database {store.database} is {kind}; only in an Atomic one can two "
            f"tables change names in one step, so its tables are not compacted"
        )


def _check_room(store: Readable, table: str, needed: int, least_free: int) -> None:
    free = int(store.query("SELECT min(free_space) FROM system.disks")[0][0])
    # Twice, because recording goes on into the journal meanwhile, and stops at the least.
    if free < needed + 2 * least_free:
        raise StoreRejected(
            f"table {table} is not compacted: its copy may take {size(needed)}, and "
            f"{size(free)} of disk are free, of which {size(2 * least_free)} are left alone"
        )


def _digest_of_all(store: Store, table: str, rows: int, names: str) -> tuple[int, int]:
    try:
        digest = _digest(store, table, rows, names)
        damage = "" if digest[0] == rows else f"{digest[0]} of {rows} rows are there"
    except (TableDamaged, StoreUnavailable) as error:
        damage = repair.damage(error)
    if damage:
        raise TableDamaged(
            f"table {table} cannot be read in full, and is not compacted: {damage}; a "
            f"recording puts it right, as far as that can be done"
        )
    return digest


def _digest(store: Readable, table: str, rows: int, names: str) -> tuple[int, int]:
    """Return the number of rows, and the hashes of each with its place among them, added up."""
    if not rows:
        return 0, 0
    found = store.query(
        f"{repair.READ_IN_FULL}(rowNumberInAllBlocks(), {names})) FROM "
        f"(SELECT {names} FROM {qualified(store, table)} LIMIT {rows}) "
        # One thread returns the blocks in the order of insertion.
        f"SETTINGS max_threads = 1"
    )
    return int(found[0][0]), int(found[0][1])


def _sync(store: Store, table: str) -> None:
    """Have a table's files on the disk, and not only in the memory of the machine it is on.

    Raises:
        StoreRejected: the user may not have that done.
    """
    if store.seal(table):
        return
    try:
        store.query("SYSTEM SYNC FILE CACHE")
    except StoreRejected as error:
        raise StoreRejected(
            f"{error}: a table is compacted only if the new one is on the disk before the old one "
            f"goes; GRANT SYSTEM SYNC FILE CACHE ON *.* lets the user see to that"
        ) from error


def _bytes(store: Readable, table: str) -> int:
    return known_sizes(store).get(table) or 0


def _conflict(store: Readable, table: str) -> TableConflict:
    return TableConflict(
        f"table {table} at {store.name} got rows while it was compacted, and stays as it is: "
        f"something else writes to it"
    )
