"""Clusters of several shards: tables on all of them, and tables that read over all."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from mexc_trio.clickhouse import cluster, preparing, views
from mexc_trio.clickhouse.replicas import ReplicatedStore
from mexc_trio.clickhouse.server import ServerStore
from mexc_trio.clickhouse.tables import CONTRACTS, GAPS, TableEngine, market_table
from mexc_trio.errors import ForeignTable, StoreRejected
from mexc_trio.settings.targets import ServerTarget, parse_store
from tests.support.replicas import (
    OLD_SERVER,
    OLD_USERS,
    as_of_old,
    needs_a_pair,
    needs_zookeeper,
    remote_servers,
    replica_config,
    zookeeper,
)
from tests.support.running import DEADLINE
from tools.clickhouse import HOST, ClickHouseServer, free_port

TABLES: Final = [market_table("btc", TableEngine.MERGETREE, wide=True), GAPS, CONTRACTS]


@contextmanager
def two_shards(directory: Path, *, old: bool) -> Iterator[list[ClickHouseServer]]:
    """Run two servers, each a shard of the cluster `main`."""
    ports = [free_port(), free_port()]
    with zookeeper() as keeper, ExitStack() as stack:
        servers = []
        for number, port in enumerate(ports, 1):
            config_d = directory / str(number)
            config_d.mkdir()
            (config_d / "shard.xml").write_text(
                replica_config(keeper.port, number, ports, patient=not old)
            )
            more: Any = {"command": OLD_SERVER, "users_d": directory / "users"} if old else {}
            server = ClickHouseServer(port, config_d=config_d, **more)
            stack.callback(server.close)
            server.start()
            servers.append(server)
        yield servers


def store_of(*servers: ClickHouseServer, name: str = "main") -> ReplicatedStore:
    """Return the store of some servers with a cluster."""
    first, *others = servers
    more = "".join(f",{HOST}:{other.tcp_port}" for other in others)
    target = parse_store(first.url.replace(f":{first.tcp_port}/", f":{first.tcp_port}{more}/"))
    assert isinstance(target, ServerTarget)
    return ReplicatedStore(target, cluster=name)


def test_statements_are_understood(clickhouse_server: ClickHouseServer) -> None:
    """A current server's parser takes each as what it is."""
    for statement in cluster.statements("mexc_data", "main", TABLES):
        tree = clickhouse_server.execute(f"EXPLAIN AST {statement}")
        assert tree[0][0].startswith("CreateQuery")


def test_rows_on_another_shard_are_noticed(
    tmp_path: Path,
    emptied_server: ClickHouseServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A symbol whose rows another shard has is not begun on this one; if both have, it is told."""
    # Tables as a cluster makes them, but without Keeper, and so no replicas.
    monkeypatch.setattr(preparing, "prepare", lambda store, tables: [])
    other, config_d, port = emptied_server, tmp_path / "config", free_port()
    config_d.mkdir()
    shards = remote_servers([port, other.tcp_port])
    (config_d / "shard.xml").write_text(f"<clickhouse>{shards}</clickhouse>")
    with ClickHouseServer(port, config_d=config_d) as server, closing(store_of(server)) as store:
        for statement in cluster.statements("mexc_data", "main", TABLES):
            alone = re.sub(r"Replicated(MergeTree)\(.*?\)", r"\1", statement)
            alone = re.sub(
                r"replicated(_deduplication_window) = \d+, .*", r"non_replicated\1 = 9", alone
            )
            for each in (server, other):
                if each is server or "mexc_data_all" not in alone:
                    each.execute(alone.replace(" ON CLUSTER `main`", ""))
        preparing.prepare_all(store, TABLES)
        for each in (server, other):  # of which every recorder writes some
            each.execute("INSERT INTO mexc_data.gaps (symbol) VALUES", [("BTC_USDT",)])
        other.execute("INSERT INTO mexc_data.btc (n) VALUES", [(0,), (1,)])
        for prepared in (preparing.prepare_here, preparing.prepare_all):
            with pytest.raises(ForeignTable, match=r"btc has no row at .*main 2 on shard 2: rec"):
                prepared(store, TABLES)
        server.execute("INSERT INTO mexc_data.btc (n) VALUES", [(0,)])
        preparing.prepare_all(store, TABLES)
        preparing.prepare_here(store, TABLES)
        (said,) = caplog.messages
        assert said.startswith("table btc of cluster main has rows on more than one shard: 1 on sh")
        server.execute("DROP TABLE mexc_data_all.btc")
        server.execute("TRUNCATE TABLE mexc_data.btc")
        preparing.prepare_here(store, TABLES)
        assert (
            "whether other shards have rows of the same symbols is unknown" in caplog.messages[-1]
        )


@needs_zookeeper
def test_tables_read_over_all_shards(tmp_path: Path) -> None:
    """A current server makes the tables, ON CLUSTER apart, and reads from both shards."""
    with two_shards(tmp_path, old=False) as servers:
        for server in servers:
            for statement in cluster.statements("mexc_data", "main", TABLES):
                server.execute(statement.replace(" ON CLUSTER `main`", ""))
        counted = "SELECT count() FROM mexc_data_all.btc WHERE n < 5"
        assert [server.execute(counted) for server in servers] == [[(0,)], [(0,)]]
        with closing(store_of(servers[0])) as store:
            assert len(views.create(store, ["btc"])) == 8
        for database in ("mexc_data", "mexc_data_all"):
            assert servers[0].execute(f"SELECT * FROM {database}.btc_deals") == []
        with (
            closing(store_of(servers[0], name="mani")) as misspelt,
            pytest.raises(StoreRejected, match=r"knows no cluster mani: it knows .*main"),
        ):
            cluster.make(misspelt, TABLES)
        with (
            closing(store_of(*servers)) as both,
            pytest.raises(StoreRejected, match=r"of more than one shard of main: .* to shard 2"),
        ):
            cluster.make(both, TABLES)


@needs_a_pair
def test_tables_are_made_on_all_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One host is told, and the cluster has them; rows of both shards are read together."""
    monkeypatch.setattr("mexc_trio.clickhouse.server.MINIMUM_VERSION", (18, 16))
    understood = ServerStore.query
    monkeypatch.setattr(ServerStore, "query", lambda store, sql: understood(store, as_of_old(sql)))
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "old.xml").write_text(OLD_USERS)
    with two_shards(tmp_path, old=True) as servers, closing(store_of(servers[0])) as store:
        cluster.make(store, TABLES)
        for number, server in enumerate(servers):
            deadline = time.monotonic() + DEADLINE  # the other one makes them when it can
            while not server.execute("EXISTS TABLE mexc_data_all.contracts")[0][0]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            row = (1, "t", f"shard {number}", 0, 0, number)
            server.execute("INSERT INTO mexc_data.btc (ts, mt, m, rt, id, n) VALUES", [row])
        for server in servers:
            found = server.execute("SELECT m FROM mexc_data_all.btc ORDER BY m")
            assert found == [("shard 0",), ("shard 1",)]
        cluster.make(store, TABLES)  # nothing is missing
