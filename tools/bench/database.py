"""The two places to record into, with what a benchmark asks of them."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, Literal, Protocol

import attrs
from clickhouse_driver import Client

from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import prepare
from mexc_trio.clickhouse.server import ServerStore
from mexc_trio.clickhouse.tables import GAPS, market_table
from mexc_trio.settings.targets import ServerTarget, parse_store
from mexc_trio.symbols import table_name
from tools.bench.frames import Fingerprint, fingerprint
from tools.bench.process import apart
from tools.bench.report import BenchError
from tools.clickhouse import DATABASE, HOST, PASSWORD, USER, ClickHouseServer

_PART: Final = 200_000  # rows that are read at once

StoreName = Literal["server", "embedded"]
BOTH: tuple[StoreName, ...] = ("server", "embedded")


class Database(Protocol):
    """A place to record into, empty, for one run of the recorder."""

    @property
    def name(self) -> StoreName:
        """Which of the two it is."""

    @property
    def directory(self) -> Path:
        """A directory for the recorder to run in and keep its journal in."""

    @property
    def arguments(self) -> list[str]:
        """The recorder's options that lead it here."""

    def read(self, symbols: Sequence[str]) -> list[Fingerprint]:
        """Read the symbols' tables in full, after the recorder has ended."""


@attrs.define(eq=False)
class ServerDatabase:
    """Tables in a server of their own."""

    server: ClickHouseServer
    directory: Path
    name: StoreName = "server"
    _client: Client = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        # A connection that is kept, because `stored` is asked often.
        self._client = Client(HOST, self.server.tcp_port, user=USER, password=PASSWORD)

    def create(self, symbols: Sequence[str]) -> None:
        """Make the database anew, with empty tables."""
        self.server.execute(f"DROP DATABASE {DATABASE}")
        self.server.execute(f"CREATE DATABASE {DATABASE}")
        target = parse_store(self.server.url)
        assert isinstance(target, ServerTarget)  # noqa: S101 - for the type checker
        with closing(ServerStore(target, 1)) as store:
            prepare(store, [*(market_table(table_name(symbol)) for symbol in symbols), GAPS])

    @property
    def arguments(self) -> list[str]:
        """See `Database`."""
        return ["--store", self.server.url, "--state-dir", str(self.directory)]

    def read(self, symbols: Sequence[str]) -> list[Fingerprint]:
        """See `Database`."""
        # One thread reads a StripeLog table in the order of insertion.
        columns = "toUnixTimestamp64Milli(ts), mt, m"
        sql = f"SELECT {columns} FROM {DATABASE}.`%s` SETTINGS max_threads = 1"
        return [fingerprint(self._client.execute_iter(sql % table_name(s))) for s in symbols]

    def close(self) -> None:
        """Close the connection."""
        self._client.disconnect()


@attrs.define(eq=False)
class EmbeddedDatabase:
    """A directory of the embedded engine, which only the recorder's own process can ask."""

    directory: Path
    name: StoreName = "embedded"

    @property
    def arguments(self) -> list[str]:
        """See `Database`."""
        return ["--store", str(self.directory)]

    def read(self, symbols: Sequence[str]) -> list[Fingerprint]:
        """See `Database`."""
        return apart(_read_embedded, self.directory, [table_name(symbol) for symbol in symbols])


def check(database: Database, expected: Mapping[str, Fingerprint]) -> None:
    """Compare what is stored of each symbol with what it should be; raise if it differs."""
    found = database.read(list(expected))
    for stored, (symbol, sent) in zip(found, expected.items(), strict=True):
        if stored != sent:
            raise BenchError(
                f"{symbol}, {database.name}: {stored.rows} rows are stored of {sent.rows} sent"
                + ("" if stored.rows != sent.rows else ", but not the same ones in the same order")
            )


def _read_embedded(directory: Path, tables: Sequence[str]) -> list[Fingerprint]:
    store = EmbeddedStore(directory)
    try:
        return [fingerprint(_rows(store, table)) for table in tables]
    finally:
        store.close()


def _rows(store: EmbeddedStore, table: str) -> Iterator[tuple[int | str, ...]]:
    for first in itertools.count(0, _PART):
        part = store.query(
            f"SELECT toUnixTimestamp64Milli(ts), mt, m FROM {DATABASE}.`{table}` "
            f"LIMIT {first}, {_PART} SETTINGS max_threads = 1"
        )
        yield from part
        if len(part) < _PART:
            return


@contextmanager
def databases(names: Sequence[StoreName]) -> Iterator["Databases"]:
    """Lend databases for the block; the server, if one is wanted, runs that long."""
    if "server" not in names:
        yield Databases(None)
        return
    with ClickHouseServer() as server:
        yield Databases(server)


@attrs.define(eq=False)
class Databases:
    """Where to get an empty database from."""

    server: ClickHouseServer | None

    @contextmanager
    def empty(self, name: StoreName, symbols: Sequence[str]) -> Iterator[Database]:
        """Lend an empty database for one run of the recorder."""
        directory = Path(tempfile.mkdtemp(prefix="mexc-trio-bench-"))
        try:
            if name == "embedded":
                yield EmbeddedDatabase(directory)
            else:
                assert self.server is not None  # noqa: S101 - `names` had it
                database = ServerDatabase(self.server, directory)
                with closing(database):
                    database.create(symbols)
                    yield database
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def place(self, database: Database) -> Path:
        """Return the directory in which a database's engine keeps everything."""
        return self.server.data if self.server and database.name == "server" else database.directory
