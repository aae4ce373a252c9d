"""Tables are made where they are missing: on one host, on all replicas, on all shards."""

import logging
from collections.abc import Sequence

from mexc_trio.clickhouse import cluster
from mexc_trio.clickhouse.schema import Store, literal, prepare, qualified
from mexc_trio.clickhouse.tables import Table
from mexc_trio.errors import StoreRejected, StoreUnavailable

log = logging.getLogger(__name__)


def prepare_all(store: Store, tables: Sequence[Table]) -> list[str]:
    """Do what `prepare` does, on each host that answers; return the names of new tables.

    Raises as `prepare`, StoreRejected if the tables of two hosts are no replicas of each other, and
    ForeignTable if another shard has a table's rows.
    """
    if not store.hosts:
        return prepare(store, tables)
    if cluster.has_cluster(store):
        cluster.make(store, tables)
    created: dict[str, None] = {}
    there: list[Store] = []
    away: list[StoreUnavailable] = []
    for host in store.hosts:
        try:
            created |= dict.fromkeys(prepare(host, tables))
            there.append(host)
        except StoreUnavailable as error:
            away.append(error)
    if not there:
        raise away[0]
    for absent in away:
        log.warning("%s; what it lacks of the tables is made when it is used", absent)
    refuse_strangers(there, tables)
    if cluster.has_cluster(store):
        cluster.look_elsewhere(store, tables)
    return list(created)


def prepare_here(store: Store, tables: Sequence[Table]) -> list[str]:
    """Do what `prepare` does on the host that is used; if anything is new, on the others, too.

    What has no rows yet is looked for on other shards, as at a start: symbols come at any time.
    """
    created = prepare(store, tables)
    if created and store.hosts:
        prepare_all(store, tables)
    elif cluster.has_cluster(store):
        empty = [
            table
            for table in tables
            if not store.query(f"SELECT 1 FROM {qualified(store, table.name)} LIMIT 1")
        ]
        cluster.look_elsewhere(store, empty)
    return created


def refuse_strangers(hosts: Sequence[Store], tables: Sequence[Table]) -> None:
    """Check that hosts have replicas of the same tables, and not tables of the same names."""
    names = ", ".join(literal(table.name) for table in tables)
    known: dict[str, tuple[str, dict[str, str]]] = {}
    for host in hosts:
        found = host.query(
            f"SELECT table, zookeeper_path, replica_name, total_replicas FROM system.replicas "
            f"WHERE database = {literal(host.database)} AND table IN ({names})"
        )
        for table, path, replica, replicas in found:
            first, replicas_of = known.setdefault(table, (path, {}))
            why = ""
            if path != first:
                why = f"its place in Keeper is {path}, and the other's {first}"
            elif replica in replicas_of:
                why = f"both are named {replica}: each needs a macro replica of its own"
            elif len(replicas_of) >= int(replicas) > 0:
                why = f"their Keepers are not the same: {replica} knows of {replicas} in all"
            if why:
                other = next(iter(replicas_of.values()))
                raise StoreRejected(
                    f"table {table} at {host.name} is no replica of that at {other}: {why}. "
                    f"--store takes the hosts of one shard"
                )
            replicas_of[replica] = host.name
