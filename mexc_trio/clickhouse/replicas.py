"""Several hosts that keep replicas of the same tables: which one is used, and whether it has all.

One host is used at a time, for reading and writing, until it does not answer or is read-only; then
the next. A replica may lag: what another has taken and it has not fetched yet is missing from it,
and comes by itself. So nothing is concluded from what a replica lacks before it has caught up with
all that Keeper knows of, and what is concluded belongs to one host: `ReplicatedStore.one_host`.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from typing import Final

import attrs

from mexc_trio.clickhouse.schema import Store, engines, inserting, literal
from mexc_trio.clickhouse.server import ServerStore
from mexc_trio.clickhouse.suitability import REPLICATED
from mexc_trio.errors import StoreRejected, StoreUnavailable
from mexc_trio.settings.targets import ServerTarget

log = logging.getLogger(__name__)

PATIENCE: Final = 60.0
"""Seconds for which a replica that lags is waited for, until another host is tried."""

_kept: ContextVar[int | None] = ContextVar("the host that calls are to keep to", default=None)


@attrs.define(eq=False)
class ReplicatedStore(ServerStore):
    """The hosts of one shard, of which one is used at a time."""

    cluster: str = attrs.field(default="", kw_only=True)
    """The cluster whose shard they are, if there are more; see `cluster`."""
    replicated: bool = attrs.field(default=True, kw_only=True)
    _hosts: "list[ServerStore]" = attrs.field(init=False)
    # Counts the changes from one host to the next, so that nobody takes one for another.
    _changes: int = attrs.field(default=0, init=False)
    _changing: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _used: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._hosts = [ServerStore(host, 1, replicated=True) for host in self.target.hosts]

    @property
    def name(self) -> str:
        """The host that is used now."""
        return self._host(self._changes).name

    @property
    def hosts(self) -> Sequence[ServerStore]:
        return self._hosts

    @contextmanager
    def one_host(self) -> Iterator[None]:
        """See `Store.one_host`; threads that a task starts are bound as well."""
        before = _kept.set(self._changes)
        try:
            yield
        finally:
            _kept.reset(before)

    @property
    def current(self) -> ServerTarget:
        """The host that is used now."""
        return self._target_of(self._host_index())

    def leave(self) -> None:
        self._failed(self._changes)

    def server_start_id(self) -> str:
        """See `Store.server_start_id`; each host's is another."""
        with self.one_host():
            started = super().server_start_id()
            return f"{self.current.address}@{started}"

    def close(self) -> None:
        super().close()
        for host in self._hosts:
            host.close()

    def _host_index(self) -> int:
        now, kept = self._changes, _kept.get()
        if kept is not None and kept != now:
            raise StoreUnavailable(f"{self.name} is used now, in place of another replica")
        return now

    def _connected(self, index: int) -> None:
        if self._host(index) is not self._hosts[self._used]:
            log.warning("%s is used now, in place of another replica", self._host(index).name)
            self._used = index % len(self._hosts)

    def _failed(self, index: int) -> None:
        with self._changing:
            if index == self._changes:
                self._changes += 1

    def _target_of(self, index: int) -> ServerTarget:
        return self._host(index).target

    def _host(self, index: int) -> ServerStore:
        return self._hosts[index % len(self._hosts)]


def answering(target: ServerTarget) -> ServerTarget:
    """Return the first of a store's hosts that answers, for who only reads.

    If none of the others does it is the last one, whether that answers or not.
    """
    *others, last = target.hosts
    for host in others:
        with closing(ServerStore(host, 1)) as store, suppress(StoreUnavailable):
            store.query("SELECT 1")
            return host
    return last


_LAG: Final = "inserts_in_queue, log_max_index, log_pointer, zookeeper_path, replica_path"


def lag(store: Store, table: str) -> str:
    """Return what a replica has not fetched yet, or has alone; empty if it has what all have.

    Empty as well for a table that is no replica. Raises StoreUnavailable if the replica is
    read-only, since it has no connection to Keeper.
    """
    if not engines(store, [table]).get(table, "").startswith(REPLICATED):
        return ""
    found = store.query(
        f"SELECT is_readonly OR is_session_expired OR total_replicas = 0, active_replicas, {_LAG} "
        f"FROM system.replicas WHERE database = {literal(store.database)} "
        f"AND table = {literal(table)}"
    )
    if not found:
        return ""
    is_alone, active, waiting, last, following, path, own_path = found[0]
    if is_alone:
        name = store.name
        store.leave()
        raise StoreUnavailable(f"table {table} at {name} is read-only: Keeper does not answer it")
    if int(active) < store.quorum:
        # What is here of an INSERT that found no quorum is not to be acknowledged yet.
        return f"{active} replicas are connected, of a quorum of {store.quorum}"
    # The number of the last entry is 0 also if there is none.
    entries = f"SELECT count() FROM system.zookeeper WHERE path = {literal(f'{path}/log')}"
    has_entries = int(last) or int(store.query(entries)[0][0])
    unread = int(last) + 1 - int(following) if has_entries else 0
    parts = max(unread, 0) + int(waiting)
    if parts:
        return f"{store.name} has to fetch {parts} parts from other replicas"
    # Where Keeper was lost in the commit of an INSERT, its rows can be read, and the server removes
    # them after some minutes if Keeper has not heard of them: that they are there proves nothing.
    known = f"SELECT name FROM system.zookeeper WHERE path = {literal(f'{own_path}/parts')}"
    alone = store.query(
        f"SELECT count() FROM system.parts WHERE active AND database = {literal(store.database)} "
        f"AND table = {literal(table)} AND name NOT IN ({known})"
    )
    return f"{store.name} has {alone[0][0]} parts that Keeper does not know" if alone[0][0] else ""


def refuse_replicas(store: Store, table: str, what: str) -> None:
    """Raise StoreRejected for a table that has replicas; `what` says what is not done to it."""
    if store.replicated or engines(store, [table]).get(table, "").startswith(REPLICATED):
        raise StoreRejected(f"table {table} at {store.name} has replicas, so it {what}")


def inconclusive(store: Store, table: str) -> str:
    """Return why what a table lacks means nothing yet; empty if it does.

    A server that was frozen or cut off may go on with an INSERT that we have given up, and a
    replica may have to fetch what another one has.
    """
    return "an earlier INSERT has not ended" if inserting(store, table) else lag(store, table)
