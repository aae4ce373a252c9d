"""What tests of processes share: ClickHouse servers and embedded stores with empty tables."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from mexc_trio.clickhouse.embedded import EmbeddedStore
from tests.support.faults import TABLE, make_tables
from tests.support.running import Embedded, Served, Store
from tools.clickhouse import DATABASE, ClickHouseServer


@pytest.fixture
def server(clickhouse_server: ClickHouseServer) -> ClickHouseServer:
    """Lend it with a symbol's table and that of gaps, both empty."""
    for table in (TABLE, "gaps"):
        clickhouse_server.execute(f"DROP TABLE IF EXISTS {DATABASE}.{table}")
    make_tables(clickhouse_server)
    return clickhouse_server


@pytest.fixture
def emptied_server(clickhouse_server: ClickHouseServer) -> ClickHouseServer:
    """Lend it without any table of ours, and of nobody else's in our database."""
    for statement in ("DROP DATABASE {} SYNC", "CREATE DATABASE {}"):
        clickhouse_server.execute(statement.format(DATABASE))
    return clickhouse_server


@attrs.define
class Kept:
    """Engines that are kept: to start another takes longer than most of what tests ask it."""

    place: Path
    stores: list[EmbeddedStore] = attrs.field(factory=list)

    def lend(self, number: int) -> Path:
        """Return the directory of one of them, in which nothing was recorded yet."""
        while len(self.stores) <= number:
            self.stores.append(EmbeddedStore(self.place / str(len(self.stores))))
        store = self.stores[number]
        for statement in ("DROP DATABASE {} SYNC", "CREATE DATABASE {}"):
            store.query(statement.format(DATABASE))
        for left in store.directory.glob("*journal*"):
            left.unlink()
        return store.directory


@pytest.fixture(scope="session")
def kept_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """Keep the session's engines."""
    kept = Kept(tmp_path_factory.mktemp("kept"))
    yield kept
    for store in kept.stores:
        store.close()


@pytest.fixture
def kept(kept_engines: Kept, tmp_path: Path) -> Callable[[str], Path]:
    """Lend directories in `tmp_path` that are new stores; whoever opens them finds them open."""
    numbers = itertools.count()

    def lend(name: str) -> Path:
        place = tmp_path / name
        place.symlink_to(kept_engines.lend(next(numbers)))
        return place

    return lend


@pytest.fixture
def kept_data(kept: Callable[[str], Path]) -> Path:
    """Lend one as `tmp_path / "data"`."""
    return kept("data")


@pytest.fixture(params=["embedded", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Lend each of the two stores, empty and ready for BTC_USDT and ETH_USDT."""
    if request.param == "embedded":
        return Embedded(tmp_path)
    served = Served(request.getfixturevalue("clickhouse_server"))
    served.create("btc", "eth")
    return served


@pytest.fixture(params=["embedded", "server"])
def mortal_server(request: pytest.FixtureRequest) -> Iterator[ClickHouseServer | None]:
    """Lend a server that a test may kill, or None for the embedded store."""
    if request.param == "embedded":
        yield None
        return
    with ClickHouseServer() as server:
        make_tables(server)
        yield server
