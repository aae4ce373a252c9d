"""A pair of servers that really replicate: Debian's clickhouse-server with Debian's ZooKeeper.

That server is old (18.16): it has neither DateTime64 nor deduplication tokens. So tables are made
by hand with `ts Int64`, of which the program hears as the type that it knows, and the hash of a
block, in which each row has its number, does what the token does elsewhere. All else is the same
code and, of the server, the same protocol in Keeper.
"""

import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import attrs
import pytest

from mexc_trio.clickhouse import server as server_module
from mexc_trio.clickhouse.replicas import ReplicatedStore
from mexc_trio.clickhouse.schema import quoted
from mexc_trio.clickhouse.server import ServerStore
from mexc_trio.clickhouse.tables import CONTRACTS, GAPS, NUMBER, Numbering, Table
from mexc_trio.rows import RowTuple
from mexc_trio.settings.targets import ServerTarget, parse_store
from tools.clickhouse import (
    DATABASE,
    HOST,
    PASSWORD,
    USER,
    ClickHouseServer,
    ServerError,
    free_port,
)

JARS: Final = Path("/usr/share/java")
LONG: Final = 60.0
"""Seconds after which ZooKeeper counts as not starting."""

OLD_SERVER: Final = ("clickhouse-server",)
OLD_USERS: Final = """<clickhouse>
    <profiles><default><allow_python_table_function remove="1"/></default></profiles>
    <users><default>
        <password></password><no_password remove="1"/><grants remove="1"/>
    </default></users>
</clickhouse>"""


@attrs.define(eq=False)
class ZooKeeper:
    """One ZooKeeper, which can be killed and started again on its data."""

    port: int = attrs.field(factory=free_port)
    directory: Path = attrs.field(init=False)
    _process: "subprocess.Popen[bytes] | None" = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="zookeeper-"))
        (self.directory / "zoo.cfg").write_text(
            f"tickTime=500\ndataDir={self.directory}/data\nclientPort={self.port}\n"
            f"clientPortAddress={HOST}\nadmin.enableServer=false\n"
        )

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "java",
                    "-Xmx96m",
                    "-cp",
                    JARS / "zookeeper.jar",
                    main,
                    self.directory / "zoo.cfg",
                ],
                stdout=log,
                stderr=log,
                process_group=0,
            )
        deadline = time.monotonic() + LONG
        while True:
            try:
                with socket.create_connection((HOST, self.port), timeout=1) as door:
                    door.sendall(b"srvr")
                    if b"Mode:" in door.recv(1000):
                        return
            except OSError:
                pass
            assert self._process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline, "ZooKeeper does not start"
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Kill it and delete its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


COMMIT: Final = (b"/log/log-", b"\nget\n")
"""What only the request that commits an INSERT has in it: an entry that others are to fetch it."""


@attrs.define(eq=False)
class KeeperProxy:
    """Stands between one server and ZooKeeper, and can cut the connection in an INSERT's commit."""

    keeper: int
    """The port of the ZooKeeper."""
    armed: threading.Event = attrs.field(factory=threading.Event, init=False)
    """Set to have the next commit cut off: the server never knows whether it was made."""
    cut: threading.Event = attrs.field(factory=threading.Event, init=False)
    """Set when that has happened, and no connection is let through until it is cleared."""
    _door: socket.socket = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._door = socket.create_server((HOST, 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Where the server finds it."""
        return int(self._door.getsockname()[1])

    def close(self) -> None:
        """Take no more connections."""
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection((HOST, self.keeper)) as keeper:
            if self.cut.is_set():
                return
            answers = threading.Thread(target=self._answer, args=(keeper, client), daemon=True)
            answers.start()
            requests = client.makefile("rb")
            while size := requests.read(4):
                request = requests.read(int.from_bytes(size, "big"))
                if self.armed.is_set() and all(part in request for part in COMMIT):
                    self.armed.clear()
                    self.cut.set()
                    break
                keeper.sendall(size + request)
            for end in (client, keeper):
                end.shutdown(socket.SHUT_RDWR)
            answers.join()

    @staticmethod
    def _answer(keeper: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := keeper.recv(2**16):
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)


@attrs.define(eq=False)
class OldServerStore(ServerStore):
    """The store of one such server."""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Leave out what the server does not know: how many rows there are, DateTime64."""
        sql = sql.replace("toString(uuid)", f"'{UUID(int=0)}'")
        sql = sql.replace("SELECT name, total_rows", "SELECT name, NULL")
        rows = super().query(re.sub(r"toUnixTimestamp64Milli\((`?\w+`?)\)", r"\1", sql))
        if "system.columns" not in sql:
            return rows
        return [tuple("DateTime64(3)" if one == "Int64" else one for one in row) for row in rows]


@attrs.define(eq=False)
class PairStore(OldServerStore, ReplicatedStore):
    """The store of such a pair: what these servers do not know is left out."""

    looks: int = attrs.field(default=0, init=False)
    """How often it was asked whether a replica has all."""

    def __attrs_post_init__(self) -> None:
        self._hosts = [OldServerStore(host, 1, replicated=True) for host in self.target.hosts]

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Count how often it is asked whether a replica has all."""
        self.looks += "log_pointer" in sql
        return super().query(sql)

    def append(
        self, table: Table, rows: Sequence[RowTuple], numbering: Numbering | None = None
    ) -> None:
        """Insert rows without a token and settings: equal blocks are known again by their hash."""
        names, values = table.column_names, [*rows]
        if numbering is not None:
            names += (NUMBER,)
            values = [(*row, number) for row, number in zip(rows, numbering.numbers, strict=True)]
        with self._client() as client:
            client.execute(
                f"INSERT INTO {DATABASE}.{table.name} ({', '.join(map(quoted, names))}) VALUES",
                values,
                settings=self._insert_quorum,
            )


@attrs.define(eq=False)
class Pair:
    """Two servers and their ZooKeeper."""

    servers: tuple[ClickHouseServer, ClickHouseServer]
    keeper: ZooKeeper
    way: KeeperProxy
    """How the first server reaches it."""

    @property
    def url(self) -> str:
        """What `--store` is given."""
        first, second = self.servers
        return first.url.replace(
            f":{first.tcp_port}/", f":{first.tcp_port},{HOST}:{second.tcp_port}/"
        )

    def revive(self, number: int) -> None:
        """Start a server that was killed, once Keeper has noticed: else it takes 10 s."""
        server, other = self.servers[number], self.servers[1 - number]
        replica = f"/clickhouse/tables/01/{DATABASE}/btc/replicas/replica-{number + 1}"
        while other.execute(
            f"SELECT 1 FROM system.zookeeper WHERE path = '{replica}' AND name = 'is_active'"
        ):
            time.sleep(0.05)
        deadline = time.monotonic() + LONG
        while True:
            try:
                return server.start()
            except ServerError:  # one of 2018 ends when Keeper is slow to answer at its start
                if time.monotonic() > deadline:
                    raise

    def store(self, *, quorum: bool = False) -> PairStore:
        """Return the store of both, of which one has to have a row, or both."""
        target = parse_store(self.url + "&quorum=2" if quorum else self.url)
        assert isinstance(target, ServerTarget)
        return PairStore(target)

    def rows(self, server: int) -> list[tuple[Any, ...]]:
        """Return what one of them has, as Keeper knows it, in the order of numbers."""
        parts = f"/clickhouse/tables/01/{DATABASE}/btc/replicas/replica-{server + 1}/parts"
        known = f"SELECT name FROM system.zookeeper WHERE path = '{parts}'"
        return self.all_rows(server, f"WHERE _part IN ({known})")

    def all_rows(self, server: int, condition: str = "") -> list[tuple[Any, ...]]:
        """Return the same with rows of which Keeper was never told, and which will be removed."""
        return self.servers[server].execute(
            f"SELECT n, ts, mt, m FROM {DATABASE}.btc {condition} ORDER BY n"
        )


_HAS_ZOOKEEPER: Final = bool(shutil.which("java")) and (JARS / "zookeeper.jar").exists()
needs_zookeeper = pytest.mark.skipif(not _HAS_ZOOKEEPER, reason="needs Debian's zookeeper")
needs_a_pair = pytest.mark.skipif(
    not _HAS_ZOOKEEPER or not shutil.which("clickhouse-server"),
    reason="needs Debian's clickhouse-server and zookeeper",
)


@contextmanager
def zookeeper() -> Iterator[ZooKeeper]:
    """Run a ZooKeeper."""
    with closing(ZooKeeper()) as keeper:
        keeper.start()
        yield keeper


@contextmanager
def replicated_pair() -> Iterator[Pair]:
    """Run two servers that replicate a table `btc`, and those of all symbols."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_module, "MINIMUM_VERSION", (18, 16))
        configured = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keeper = stack.enter_context(zookeeper())
        way = stack.enter_context(closing(KeeperProxy(keeper.port)))
        (configured / "users").mkdir()
        (configured / "users" / "old.xml").write_text(OLD_USERS)
        servers = []
        for number, port in ((1, way.port), (2, keeper.port)):
            config_d = configured / str(number)
            config_d.mkdir()
            (config_d / "replica.xml").write_text(replica_config(port, number))
            server = ClickHouseServer(
                config_d=config_d, users_d=configured / "users", command=OLD_SERVER
            )
            stack.callback(server.close)
            server.start()
            server.execute(
                f"CREATE TABLE {DATABASE}.btc (ts Int64, mt String, m String, n UInt64) "
                f"ENGINE = ReplicatedMergeTree('/clickhouse/tables/{{shard}}/{DATABASE}/btc', "
                f"'{{replica}}') ORDER BY n"
            )
            for table in (GAPS, CONTRACTS):
                definition = as_of_old(table.replicated(DATABASE))
                server.execute(f"CREATE TABLE {DATABASE}.{table.name} {definition}")
            servers.append(server)
        first, second = servers
        yield Pair((first, second), keeper, way)


def replica_config(
    keeper: int, number: int, shards: Sequence[int] = (), *, patient: bool = False
) -> str:
    """Return the configuration of a server that is one of a shard's replicas.

    Args:
        keeper: the port of its ZooKeeper.
        number: which of the replicas it is, or if there are shards, which shard.
        shards: ports of the servers of a cluster `main`, each a shard of its own.
        patient: whether Keeper may take long to answer; an old server knows no word for it.

    A server that was killed in the commit of an INSERT has a part that Keeper does not know, and
    does not start if that is most of its table, as it is of one of a few rows.
    """
    patience = "<connection_timeout_ms>60000</connection_timeout_ms>" if patient else ""
    return f"""<clickhouse>
    <zookeeper>
        <node><host>{HOST}</host><port>{keeper}</port></node>
        <session_timeout_ms>{60_000 if patient or shards else 1000}</session_timeout_ms>{patience}
    </zookeeper>
    <macros><shard>0{number if shards else 1}</shard><replica>replica-{number}</replica></macros>
    <interserver_http_host>{HOST}</interserver_http_host>
    <interserver_http_port>{free_port()}</interserver_http_port>
    {remote_servers(shards)}
    <distributed_ddl><path>/clickhouse/ddl</path></distributed_ddl>
    <merge_tree>
        <replicated_max_ratio_of_wrong_parts>1</replicated_max_ratio_of_wrong_parts>
    </merge_tree>
</clickhouse>"""


def remote_servers(shards: Sequence[int]) -> str:
    """Return what of a server's configuration says of the cluster `main`: the shards' ports."""
    cluster = "".join(
        f"<shard><replica><host>{HOST}</host><port>{port}</port><user>{USER}</user>"
        f"<password>{PASSWORD}</password></replica></shard>"
        for port in shards
    )
    return f"<remote_servers><main>{cluster}</main></remote_servers>"


def as_of_old(sql: str) -> str:
    """Leave out of a statement what a server of 2018 does not have."""
    sql = re.sub(r" CODEC\((?:[^()]|\([^()]*\))*\)", "", sql)
    sql = re.sub(r"DateTime64\(\d\)", "Int64", sql)
    sql = re.sub(r", INDEX .*?\) ENGINE", ") ENGINE", sql)
    return re.sub(r"PARTITION BY .*? ORDER BY", "ORDER BY", sql)
