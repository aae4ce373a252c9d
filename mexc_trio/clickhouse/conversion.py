"""A table of a symbol is moved to another engine: the same rows, in the same order.

See `rewriting` for its steps. Whatever dies in between leaves one whole table under the name. The
next attempt goes on where the last one ended: a table is filled from its start, so what it has are
the first rows.
"""

import time
from typing import Final

from mexc_trio.clickhouse import views
from mexc_trio.clickhouse.compaction import CONVERTING
from mexc_trio.clickhouse.numbered import end_of
from mexc_trio.clickhouse.replicas import refuse_replicas
from mexc_trio.clickhouse.rewriting import INSERT, Rewriting, Rewritten, digest, size_of
from mexc_trio.clickhouse.schema import (
    Store,
    Table,
    columns,
    count,
    engine_of,
    engines,
    inserting,
    qualified,
    quoted,
)
from mexc_trio.clickhouse.tables import NUMBER, TableEngine, in_order

_BLOCK: Final = 65_536
"""Rows that are moved together, at the most."""
_PAUSE: Final = 0.1
"""Seconds between two checks whether an earlier attempt's statement goes on."""


def convert(store: Store, table: str, engine: TableEngine, least_free: int) -> Rewritten | None:
    """Move a table; return None if it is of that engine already.

    Nobody may write to it meanwhile: the caller holds its lock. `least_free` bytes of disk are left
    free. Raises TableMissing if it is not there, StoreRejected if it has replicas, there is no
    room, or the new table is not what the old one is, TableConflict if somebody has written to it
    all the same; then it stays as it is.
    """
    refuse_replicas(store, table, "is not moved to another engine")
    copy = table + CONVERTING
    old, new = qualified(store, table), qualified(store, copy)
    while inserting(store, copy):  # the server may not have noticed that a client was killed
        time.sleep(_PAUSE)
    now = engine_of(store, table)
    if now is engine:
        _drop_the_old_one(store, table, copy)
        return None
    step = Rewriting(store, table, copy, "moved")
    types = (columns(store, tables=[table]) or {})[table]
    types = {name: type_ for name, type_ in types.items() if name != NUMBER}
    rows, before = count(store, table), size_of(store, table)
    step.check_room(before, least_free)
    done = _begun(store, copy, engine, rows)
    if not done:
        store.query(f"DROP TABLE IF EXISTS {new} SYNC")
        store.query(f"CREATE TABLE {new} {Table(copy, tuple(types.items()), engine).definition}")
    names = ", ".join(map(quoted, types))
    source = f"{old}{in_order(now is TableEngine.MERGETREE)}"
    into, number = names, ""
    if engine is TableEngine.MERGETREE:
        into, number = f"{names}, {NUMBER}", f", rowNumberInAllBlocks() + {done}"
    store.query(
        f"{INSERT.format(copy=new)}{into}) SELECT {names}{number} FROM "
        f"(SELECT {names} FROM {source} LIMIT {done}, {rows}) "
        f"SETTINGS max_threads = 1, max_insert_threads = 1, async_insert = 0, "
        f"max_block_size = {_BLOCK}, min_insert_block_size_rows = {_BLOCK}"
    )
    target = f"{new}{in_order(engine is TableEngine.MERGETREE)}"
    there = digest(store, target, rows, names) if count(store, copy) == rows else None
    if there != digest(store, source, rows, names):
        store.query(f"DROP TABLE {new}")
        raise step.differs()
    step.sync()
    after = size_of(store, copy)
    step.exchange(rows)
    _drop_the_old_one(store, table, copy)
    return Rewritten(rows, before, after)


def _begun(store: Store, copy: str, engine: TableEngine, rows: int) -> int:
    """Return how many of the first rows an earlier attempt has moved."""
    if not engines(store, [copy]) or engine_of(store, copy) is not engine:
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
