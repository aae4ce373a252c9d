"""A cluster of several shards: tables on all of its hosts, and beside them those that read all.

A recorder writes to one shard, that of the hosts which `--store` names. Each table is made on all
shards, empty but on one, so that a Distributed table of the same name in a second database can read
over all. Nothing is ever written through that: its answers prove nothing. But they say whether a
symbol's rows are on another shard already.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Final, TypeGuard

import attrs

from mexc_trio.clickhouse.replicas import ReplicatedStore, lag
from mexc_trio.clickhouse.schema import Readable, Store, literal, quoted
from mexc_trio.clickhouse.server import ServerStore
from mexc_trio.clickhouse.tables import SHARED_TABLES, Table
from mexc_trio.errors import ForeignTable, StoreError, StoreRejected, StoreUnavailable

log = logging.getLogger(__name__)

ALL_SHARDS: Final = "_all"
"""What the database with the tables over all shards is named behind that of the shards."""
LONGEST: Final = 60.0
"""Seconds in which a host must have made what the cluster was told to make."""
_PAUSE: Final = 0.1
_AT_ONCE: Final = 50
"""Tables that one statement counts, for each of which it asks every shard."""
# The statement is left with Keeper, and each host makes its tables when it can.
_LEFT_WITH_KEEPER: Final[Any] = {"distributed_ddl_task_timeout": 0}


def statements(database: str, cluster: str, tables: Sequence[Table]) -> list[str]:
    """Return the SQL that makes databases and tables on all hosts of a cluster."""
    on = f"ON CLUSTER {quoted(cluster)}"
    over_all = quoted(database + ALL_SHARDS)
    made = [f"CREATE DATABASE IF NOT EXISTS {name} {on}" for name in (quoted(database), over_all)]
    for table in tables:
        name = quoted(table.name)
        local = f"{quoted(database)}.{name}"
        reading = f"Distributed({quoted(cluster)}, {quoted(database)}, {name})"
        made += [
            f"CREATE TABLE IF NOT EXISTS {local} {on} {table.replicated(database)}",
            f"CREATE TABLE IF NOT EXISTS {over_all}.{name} {on} AS {local} ENGINE = {reading}",
        ]
    return made


def has_cluster(store: Store) -> TypeGuard[ReplicatedStore]:
    """Return whether a store's tables are made on all shards of a cluster."""
    return isinstance(store, ReplicatedStore) and bool(store.cluster)


@contextmanager
def stores_over_all_shards(store: Store) -> Iterator[list[ServerStore]]:
    """Open each host of a cluster as a store of the tables over all shards; else nothing."""
    with ExitStack() as stack:
        opened: list[ServerStore] = []
        if has_cluster(store):
            database = store.database + ALL_SHARDS
            for host in store.hosts:
                one = ServerStore(attrs.evolve(host.target, database=database), 1)
                opened.append(stack.enter_context(closing(one)))
        yield opened


def make(store: ReplicatedStore, tables: Sequence[Table]) -> None:
    """Make what is missing of tables on all hosts of the cluster, and wait until it is here.

    Raises StoreRejected if there is no such cluster, or `--store` names hosts of more than one
    shard of it, StoreUnavailable if the tables are not there in time.
    """
    _check_one_shard(store)
    if not _lacking(store, tables):
        return
    options: Any = {**store.target.options, "settings": _LEFT_WITH_KEEPER}
    target = attrs.evolve(store.current, options=options)
    with closing(ServerStore(target, 1)) as one:
        for statement in statements(store.database, store.cluster, tables):
            one.query(statement)
    deadline = time.monotonic() + LONGEST
    while lacking := _lacking(store, tables):
        if time.monotonic() > deadline:
            raise StoreUnavailable(
                f"cluster {store.cluster} has not made {', '.join(lacking)} at {store.name} after "
                f"{LONGEST:g} s; system.distributed_ddl_queue says why"
            )
        time.sleep(_PAUSE)


def look_elsewhere(store: ReplicatedStore, tables: Sequence[Table]) -> None:
    """See that rows of symbols are on this shard alone.

    Raises ForeignTable for a table without rows here that has some elsewhere. If both have some,
    which is done already, or if a shard does not answer, that is only told.
    """
    names = [table.name for table in tables if table.name not in SHARED_TABLES]
    # Not through the store, which would leave a host whose only fault is that another is away.
    with closing(ServerStore(store.current, 1)) as one:
        try:
            for first in range(0, len(names), _AT_ONCE):
                some = names[first : first + _AT_ONCE]
                over_all, here = (
                    _counted(one, database, some)
                    for database in (store.database + ALL_SHARDS, store.database)
                )
                for name in some:
                    if over_all[name] > here[name]:
                        _tell_elsewhere(store, one, name, here[name])
        except ForeignTable:
            raise
        except StoreError as error:
            log.warning("%s; whether other shards have rows of the same symbols is unknown", error)


def _counted(store: Readable, database: str, tables: Sequence[str]) -> dict[str, int]:
    """Return how many rows tables have. Servers know it, so that none is read for that."""
    each = (
        f"SELECT {literal(name)}, toInt64(count()) FROM {quoted(database)}.{quoted(name)}"
        for name in tables
    )
    return dict(store.query(" UNION ALL ".join(each)))


def _tell_elsewhere(store: ReplicatedStore, one: Readable, table: str, here: int) -> None:
    """Tell of a table's rows on other shards; what a replica lacks that lags says nothing."""
    found = one.query(
        f"SELECT toInt64(_shard_num), count() FROM {quoted(store.database + ALL_SHARDS)}."
        f"{quoted(table)} GROUP BY _shard_num ORDER BY _shard_num"
    )
    where = ", ".join(f"{rows} on shard {shard}" for shard, rows in found)
    if here and len(found) > 1:
        log.warning(
            "table %s of cluster %s has rows on more than one shard: %s; unless its symbol was "
            "moved from one to the other, two recorders write it, of which one is too many",
            table, store.cluster, where,
        )  # fmt: skip
    elif not here:
        ours = one.query(
            f"SELECT toInt64(shard_num) FROM system.clusters "
            f"WHERE cluster = {literal(store.cluster)} AND is_local"
        )
        elsewhere = {shard for shard, _ in found} - {shard for (shard,) in ours}
        if elsewhere and not lag(store, table):
            raise ForeignTable(
                f"table {store.database}.{table} has no row at {store.name}, and of cluster "
                f"{store.cluster} {where}: record its symbol with the hosts of that shard, or "
                f"remove what is there"
            )


def _lacking(store: ReplicatedStore, tables: Sequence[Table]) -> list[str]:
    databases = (store.database, store.database + ALL_SHARDS)
    found = store.query(
        f"SELECT database, name FROM system.tables "
        f"WHERE database IN ({', '.join(map(literal, databases))})"
    )
    wanted = [(database, table.name) for table in tables for database in databases]
    return [f"{database}.{table}" for database, table in wanted if (database, table) not in found]


def _check_one_shard(store: ReplicatedStore) -> None:
    shards: dict[int, str] = {}
    for host in store.hosts:
        try:
            found = host.query(
                "SELECT cluster, toInt64(shard_num), toInt64(is_local) FROM system.clusters"
            )
        except StoreUnavailable:
            continue
        known = {str(cluster) for cluster, _, _ in found}
        if store.cluster not in known:
            others = f": it knows {', '.join(sorted(known))}" if known else ""
            raise StoreRejected(f"{host.name} knows no cluster {store.cluster}{others}")
        for cluster, shard, is_local in found:
            if cluster == store.cluster and is_local:
                shards.setdefault(shard, host.name)
    if len(shards) > 1:
        where = ", ".join(f"{host} to shard {shard}" for shard, host in sorted(shards.items()))
        raise StoreRejected(
            f"--store names hosts of more than one shard of {store.cluster}: {where}. A recorder "
            f"writes to one; start another for the other"
        )
