"""A cluster of several shards: tables on all of its hosts, and beside them those that read all.

A recorder writes to one shard, that of the hosts which `--store` names. Each table is made on all
shards, empty but on one, so that a Distributed table of the same name in a second database can read
over all. Nothing is ever written through that: its answers prove nothing.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Final

import attrs

from mexc_trio.clickhouse.replicas import ReplicatedStore
from mexc_trio.clickhouse.schema import Store, literal, quoted
from mexc_trio.clickhouse.server import ServerStore
from mexc_trio.clickhouse.tables import Table
from mexc_trio.errors import StoreRejected, StoreUnavailable

ALL_SHARDS: Final = "_all"
"""What the database with the tables over all shards is named behind that of the shards."""
LONGEST: Final = 60.0
"""Seconds in which a host must have made what the cluster was told to make."""
_PAUSE: Final = 0.1
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


@contextmanager
def stores_over_all_shards(store: Store) -> Iterator[list[ServerStore]]:
    """Open each host of a cluster as a store of the tables over all shards; else nothing."""
    with ExitStack() as stack:
        opened: list[ServerStore] = []
        if isinstance(store, ReplicatedStore) and store.cluster:
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
