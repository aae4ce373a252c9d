"""A table of a symbol is moved to another engine: the same rows, in the same order.

The new table has room for the rows of every channel, which one from before a channel was known has
not. So one that lacks room is moved even if it is of the wanted engine already.

See `rewriting` for its steps. Whatever dies in between leaves one whole table under the name. The
next attempt goes on where the last one ended: a table is filled from its start, so what it has are
the first rows.
"""

import time
from collections.abc import Mapping
from typing import Final

from mexc_trio.channels import with_room
from mexc_trio.clickhouse import views
from mexc_trio.clickhouse.compaction import CONVERTING
from mexc_trio.clickhouse.numbered import end_of
from mexc_trio.clickhouse.replicas import refuse_replicas
from mexc_trio.clickhouse.rewriting import INSERT, Rewriting, Rewritten, size_of
from mexc_trio.clickhouse.schema import (
    Store,
    columns,
    count,
    engine_of,
    engines,
    inserting,
    qualified,
    quoted,
)
from mexc_trio.clickhouse.tables import NUMBER, Table, TableEngine, in_order

BLOCK: Final = 65_536
"""Rows that are moved together, at the most."""
_PAUSE: Final = 0.1
"""Seconds between two checks whether an earlier attempt's statement goes on."""


def convert(store: Store, table: str, engine: TableEngine, least_free: int) -> Rewritten | None:
    """Move a table; return None if that is done already.

    Nobody may write to it meanwhile: the caller holds its lock. `least_free` bytes of disk are left
    free. Raises TableMissing if it is not there, TableDamaged if it cannot be read in full,
    StoreRejected if it has replicas, there is no room, or the new table is not what the old one is,
    TableConflict if somebody has written to it all the same; then it stays as it is.
    """
    refuse_replicas(store, table, "is not moved to another engine")
    copy = table + CONVERTING
    old, new = qualified(store, table), qualified(store, copy)
    while inserting(store, copy):  # the server may not have noticed that a client was killed
        time.sleep(_PAUSE)
    if not is_due(store, table, engine):
        _drop_the_old_one(store, table, copy)
        return None
    now, types = engine_of(store, table), _with_room(_types(store, table))
    step = Rewriting(store, table, copy, "moved")
    rows, before = count(store, table), size_of(store, table)
    step.check_room(before, least_free)
    names = ", ".join(map(quoted, types))
    source = f"{old}{in_order(now is TableEngine.MERGETREE)}"
    whole = step.digest(source, rows, names)
    done = _rows_moved(store, copy, engine, types, rows)
    if not done:
        store.query(f"DROP TABLE IF EXISTS {new} SYNC")
        made = Table(copy, tuple(types.items()), engine).definition(of_ours=store.one_thread)
        store.query(f"CREATE TABLE {new} {made}")
    into, number = names, ""
    if engine is TableEngine.MERGETREE:
        into, number = f"{names}, {NUMBER}", f", rowNumberInAllBlocks() + {done}"
    store.query(
        f"{INSERT.format(copy=new)}{into}) SELECT {names}{number} FROM "
        f"(SELECT {names} FROM {source} LIMIT {done}, {rows}) "
        f"SETTINGS max_threads = 1, max_insert_threads = 1, async_insert = 0, "
        f"max_block_size = {BLOCK}, min_insert_block_size_rows = {BLOCK}"
    )
    target = f"{new}{in_order(engine is TableEngine.MERGETREE)}"
    after = step.check_copy(target, rows, names, whole)
    step.exchange(rows)
    _drop_the_old_one(store, table, copy)
    return Rewritten(rows, before, after)


def is_due(store: Store, table: str, engine: TableEngine) -> bool:
    """Whether a table is of another engine, or has no room for some channel's rows.

    Raises TableMissing if there is no such table.
    """
    if engine_of(store, table) is not engine:
        return True
    types = _types(store, table)
    return types != _with_room(types)


def _types(store: Store, table: str) -> dict[str, str]:
    """Return the columns of a table and their types, but for the rows' numbers."""
    types = columns(store, tables=[table]).get(table, {})
    return {name: type_ for name, type_ in types.items() if name != NUMBER}


def _with_room(types: Mapping[str, str]) -> dict[str, str]:
    return {name: with_room(type_) if name == "mt" else type_ for name, type_ in types.items()}


def _rows_moved(
    store: Store, copy: str, engine: TableEngine, types: Mapping[str, str], rows: int
) -> int:
    """Return how many of the first rows an earlier attempt has moved."""
    if not engines(store, [copy]) or engine_of(store, copy) is not engine:
        return 0
    if _types(store, copy) != types:
        return 0
    there = count(store, copy)
    if engine is TableEngine.MERGETREE and end_of(store, copy) != there:
        return 0  # a block over two months is in two parts, of which one may have come
    return there if there <= rows else 0


def _drop_the_old_one(store: Store, table: str, copy: str) -> None:
    """Drop what stands beside a table that has been moved."""
    if engines(store, [copy]) and count(store, copy) <= count(store, table):
        store.query(f"DROP TABLE {qualified(store, copy)}")
    views.create(store, [table])
