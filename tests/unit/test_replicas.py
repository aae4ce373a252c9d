"""Several hosts in --store: how they are written, and which of them is asked."""

from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from mexc_trio.clickhouse import cluster
from mexc_trio.clickhouse.preparing import refuse_strangers
from mexc_trio.clickhouse.repair import same_server_start
from mexc_trio.clickhouse.replicas import ReplicatedStore, lag
from mexc_trio.clickhouse.tables import TableEngine, market_table
from mexc_trio.errors import StoreRejected, StoreUnavailable, UsageError
from mexc_trio.settings.targets import ServerTarget, parse_store

BTC = market_table("btc", TableEngine.MERGETREE)


def target(text: str) -> ServerTarget:
    """Return what a URL means."""
    found = parse_store(text)
    assert isinstance(found, ServerTarget)
    return found


def test_hosts_of_a_shard() -> None:
    """All have one user, one database and their own ports; what is shown is read again."""
    url = "clickhouse://me:pass,word@one:9001,two,[::1]:9003/db?connect_timeout=2.0"
    found = target(url)
    assert [one.address for one in found.hosts] == ["one:9001", "two:9000", "[::1]:9003"]
    assert {(one.user, one.password, one.database) for one in found.hosts} == {
        ("me", "pass,word", "db")
    }
    assert found.identity == "one:9001,two:9000,[::1]:9003/db"
    assert str(found) == url.replace("pass,word", "***").replace("two,", "two:9000,")
    assert "pass" not in str(found)
    assert [one.address for one in target("clickhouses://a,b").hosts] == ["a:9440", "b:9440"]


@pytest.mark.parametrize("hosts", ["a,", ",a", "a,,b", "a:0,b", "a,b:port", "a,a:9000", "a, b"])
def test_hosts_that_are_none(hosts: str) -> None:
    """A slip is not a host that is never tried."""
    with pytest.raises(UsageError) as caught:
        parse_store(f"clickhouse://me:secret@{hosts}/db")
    assert "secret" not in str(caught.value)


def test_calls_that_belong_together_are_answered_by_one_host() -> None:
    """Whoever compares what two hosts have would conclude what is true of neither."""
    store = ReplicatedStore(target("clickhouse://a,b"))
    assert store.name == "ClickHouse at a:9000"
    with store.one_host():
        store.leave()
        with pytest.raises(StoreUnavailable, match="b:9000 is used now"):
            store.query("SELECT 1")
    assert store.name == "ClickHouse at b:9000"
    store.leave()
    assert store.name == "ClickHouse at a:9000"


@attrs.define(eq=False)
class Told:
    """A host that answers what it is told to."""

    name: str
    answers: Sequence[tuple[Any, ...]]
    entries: int = 0
    alone: int = 0
    database: str = "mexc_data"
    left: int = 0
    quorum: int = 2
    cluster: str = ""
    hosts: "Sequence[Told]" = ()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return what is known of a replica."""
        if "engine_full" in sql:
            return [("btc", "ReplicatedMergeTree(...)")]
        if "system.parts" in sql:
            return [(self.alone,)]
        return [(self.entries,)] if "system.zookeeper" in sql else list(self.answers)

    def leave(self) -> None:
        """Count that."""
        self.left += 1


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (("/a", "r1", 2), ("/a", "r2", 2), ""),
        (("/a", "r1", 3), ("/a", "r2", 3), ""),
        (("/a", "r1", 2), ("/b", "r2", 2), "its place in Keeper is /b, and the other's /a"),
        (("/a", "r1", 1), ("/a", "r1", 1), "both are named r1"),
        (("/a", "r1", 1), ("/a", "r2", 1), "their Keepers are not the same"),
    ],
)
def test_strangers(first: tuple[Any, ...], second: tuple[Any, ...], why: str) -> None:
    """Hosts of two shards, or of two clusters, would each have a part of the rows."""
    hosts: Any = [Told("one", [("btc", *first)]), Told("two", [("btc", *second)])]
    if not why:
        return refuse_strangers(hosts, [BTC])
    with pytest.raises(StoreRejected, match=why):
        refuse_strangers(hosts, [BTC])
    return None


@pytest.mark.parametrize(
    ("waiting", "last", "following", "entries", "parts"),
    [
        (0, 0, 0, 0, 0),  # nothing was ever inserted
        (0, 0, 0, 1, 1),  # the first INSERT is still to be read of
        (0, 0, 1, 1, 0),
        (1, 0, 1, 1, 1),  # it is to be fetched
        (0, 7, 8, 8, 0),
        (0, 7, 6, 8, 2),
        (2, 9, 8, 9, 4),
    ],
)
def test_a_replica_lags(waiting: int, last: int, following: int, entries: int, parts: int) -> None:
    """What is in Keeper's log and not in the table is on its way."""
    store: Any = Told("one", [(0, 2, waiting, last, following, "/a", "/a/r1")], entries)
    said = lag(store, "btc")
    assert said == (f"one has to fetch {parts} parts from other replicas" if parts else "")


def test_a_part_that_keeper_does_not_know_is_waited_for() -> None:
    """Either it will be told of it, or the server removes the part."""
    store: Any = Told("one", [(0, 2, 0, 7, 8, "/a", "/a/r1")], alone=1)
    assert lag(store, "btc") == "one has 1 parts that Keeper does not know"


def test_a_quorum_is_waited_for() -> None:
    """What was stored without it is on one machine alone."""
    store: Any = Told("one", [(0, 1, 0, 7, 8, "/a", "/a/r1")])
    assert lag(store, "btc") == "1 replicas are connected, of a quorum of 2"


def test_a_replica_without_keeper_is_left() -> None:
    """It takes no row, and another may."""
    told = Told("one", [(1, 0, 0, 0, 0, "/a", "/a/r1")])
    store: Any = told
    with pytest.raises(StoreUnavailable, match="read-only"):
        lag(store, "btc")
    assert told.left == 1


def test_the_table_of_replicas() -> None:
    """It is the same as of one server, but for its engine and how long INSERTs are known again."""
    sql = BTC.replicated("mexc_data")
    path = "'/clickhouse/tables/{shard}/mexc_data/btc', '{replica}'"
    as_one = sql.replace(f"ReplicatedMergeTree({path})", "MergeTree").split(" SETTINGS ")[0]
    assert as_one == BTC.definition().split(" SETTINGS ")[0]
    assert "replicated_deduplication_window_seconds = 604800" in sql


@pytest.mark.parametrize(
    ("name", "second", "why"),
    [
        ("main", 1, ""),
        ("mani", 1, "one knows no cluster mani: it knows main, other"),
        ("main", 2, "more than one shard of main: one to shard 1, two to shard 2. A recorder"),
    ],
)
def test_hosts_of_a_cluster(name: str, second: int, why: str) -> None:
    """A cluster that is not there is told with those that are; hosts of two shards are none."""

    def host(of: str, shard: int) -> Told:
        return Told(of, [("other", 1, 0), *(("main", n, int(n == shard)) for n in (1, 2))])

    store: Any = Told("one", [("mexc_data", "btc"), ("mexc_data_all", "btc")])
    store.hosts, store.cluster = [host("one", 1), host("two", second)], name
    if not why:
        return cluster.make(store, [BTC])
    with pytest.raises(StoreRejected, match=why):
        cluster.make(store, [BTC])
    return None


def test_a_start_is_told_from_another_hosts() -> None:
    """Two hosts that were started in one second are two; one that reads its clock again is one."""
    assert same_server_start("1764000000", "1764000001")
    assert same_server_start("a:9000@1764000000", "a:9000@1764000001")
    assert not same_server_start("a:9000@1764000000", "b:9000@1764000000")
    assert not same_server_start("a:9000@1764000000", "a:9000@1764000002")


def test_a_quorum_is_of_the_hosts() -> None:
    """More than there are could never be had."""
    assert target("clickhouse://a,b?quorum=2").quorum == 2
    assert str(target("clickhouse://a,b?quorum=2")).endswith("?quorum=2")
    for text in (
        "clickhouse://a?quorum=2",
        "clickhouse://a,b?quorum=3",
        "clickhouse://a,b?quorum=1",
    ):
        with pytest.raises(UsageError, match="quorum"):
            parse_store(text)
