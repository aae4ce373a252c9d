"""What tests of processes share: ClickHouse servers and embedded stores with empty tables."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mexc_trio.clickhouse.embedded import EmbeddedStore
from tests.support.faults import TABLE, make_tables
from tools.clickhouse import DATABASE, ClickHouseServer


@pytest.fixture
def server(clickhouse_server: ClickHouseServer) -> ClickHouseServer:
    """Lend it with a symbol's table and that of gaps, both empty."""
    for table in (TABLE, "gaps"):
        clickhouse_server.execute(f"DROP TABLE IF EXISTS {DATABASE}.{table}")
    make_tables(clickhouse_server)
    return clickhouse_server


@pytest.fixture(scope="session")
def kept_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    """Keep one engine: to start another takes longer than most of what tests ask it."""
    with closing(EmbeddedStore(tmp_path_factory.mktemp("kept") / "data")) as store:
        yield store


@pytest.fixture
def kept_data(kept_store: EmbeddedStore, tmp_path: Path) -> Path:
    """Lend its directory as `tmp_path / "data"`, without tables; whoever opens it finds it open."""
    for statement in ("DROP DATABASE {} SYNC", "CREATE DATABASE {}"):
        kept_store.query(statement.format(DATABASE))
    place = tmp_path / "data"
    place.symlink_to(kept_store.directory)
    return place


@pytest.fixture(params=["embedded", "server"])
def mortal_server(request: pytest.FixtureRequest) -> Iterator[ClickHouseServer | None]:
    """Lend a server that a test may kill, or None for the embedded store."""
    if request.param == "embedded":
        yield None
        return
    with ClickHouseServer() as server:
        make_tables(server)
        yield server
