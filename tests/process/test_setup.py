"""`mexc-trio setup`: database and tables are there afterwards, and it says what it did."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from mexc_trio.cli.main import main
from mexc_trio.clickhouse import open_store
from mexc_trio.clickhouse.error_codes import error_of
from mexc_trio.clickhouse.schema import columns
from mexc_trio.errors import StoreError, StoreLocked, StoreRejected, UsageError
from mexc_trio.locks import hold_file
from mexc_trio.operate.setup import setup
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget, parse_store
from mexc_trio.symbols import EXACT_VIEWS, VIEWS
from tests.support.running import OLD_LEDGER, OLD_MARKET
from tools.clickhouse import ClickHouseServer


def embedded(directory: Path, **more: Any) -> Settings:
    """Return settings with the embedded store in a directory."""
    return Settings(store=EmbeddedTarget(directory), **more)


def tables(settings: Settings) -> dict[str, dict[str, str]]:
    """Return what is in the store."""
    store = open_store(settings)
    try:
        return columns(store)
    finally:
        store.close()


def run(settings: Settings, *symbols: str, drop: bool = False) -> int:
    """Run the command."""
    return setup(settings, symbols, drop_system_logs=drop)


@pytest.fixture
def server() -> Iterator[ClickHouseServer]:
    """Lend a server of one's own, whose database and system tables may be changed."""
    with ClickHouseServer() as server:
        yield server


def with_tables(server: ClickHouseServer) -> Settings:
    """Make the tables that a server without DateTime64 can have; return its settings."""
    server.execute(f"CREATE TABLE mexc_data.btc {OLD_MARKET}")
    server.execute(f"CREATE TABLE mexc_data.gaps {OLD_LEDGER}")
    return Settings(store=parse_store(server.url))


@pytest.mark.usefixtures("kept_data")
def test_it_creates_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary has one line a symbol, in its known form, and names what is new."""
    settings = embedded(tmp_path / "data")
    assert run(settings, "BTC_USDT", "BTC_USD", "ETH_USDC") == 0
    assert capsys.readouterr().out.splitlines() == [
        "BTC data: btc table → btc/data.bin (continuous growth)",
        "BTC_USD data: btc_usd table → btc_usd/data.bin (continuous growth)",
        "ETH_USDC data: eth_usdc table → eth_usdc/data.bin (continuous growth)",
        "Typed views: "
        + ", ".join(
            f"{table}_{view}"
            for table in ("btc", "btc_usd", "eth_usdc")
            for view in (*VIEWS, *EXACT_VIEWS)
        ),
        f"New in database mexc_data, store {tmp_path / 'data'}: btc, btc_usd, eth_usdc, gaps",
    ]
    found = tables(settings)
    assert sorted(found) == ["btc", "btc_usd", "eth_usdc", "gaps"]
    assert found["btc"]["ts"] == "DateTime64(3)"


@pytest.mark.usefixtures("kept_data")
def test_twice_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is there stays as it is, rows included; only what is missing is added."""
    settings = embedded(tmp_path / "data")
    run(settings, "BTC_USDT")
    store = open_store(settings)
    store.query("INSERT INTO mexc_data.btc VALUES (1700000000, 't', 'x')")
    store.close()
    before = tables(settings)
    capsys.readouterr()

    assert run(settings, "BTC_USDT") == 0
    assert capsys.readouterr().out.splitlines() == [
        "BTC data: btc table → btc/data.bin (continuous growth)",
        f"Nothing is new in database mexc_data, store {tmp_path / 'data'}",
    ]
    assert tables(settings) == before

    assert run(settings, "BTC_USDT", "ETH_USDT") == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(": eth")
    store = open_store(settings)
    assert store.query("SELECT m FROM mexc_data.btc") == [("x",)]
    store.close()


@pytest.mark.usefixtures("kept_data")
def test_the_table_that_the_settings_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A symbol's own section of the settings file counts here too."""
    settings = embedded(tmp_path / "data", overrides={"BTC_USDT": {"table": "bitcoin"}})
    assert run(settings, "BTC_USDT") == 0
    line = "BTC data: bitcoin table → bitcoin/data.bin (continuous growth)"
    assert capsys.readouterr().out.splitlines()[0] == line
    assert sorted(tables(settings)) == ["bitcoin", "gaps"]


@pytest.mark.usefixtures("kept_data")
def test_a_table_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """A table without our columns is named, and left alone."""
    settings = embedded(tmp_path / "data")
    run(settings, "ETH_USDT")
    store = open_store(settings)
    store.query("CREATE TABLE mexc_data.btc (price Float64) ENGINE = Log")
    store.close()
    with pytest.raises(StoreRejected, match=r"mexc_data\.btc .* has no column ts, mt, m"):
        run(settings, "BTC_USDT")
    assert tables(settings)["btc"] == {"price": "Float64"}


def test_a_store_that_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While something has the directory that does not answer, one error says who it is."""
    monkeypatch.setattr("mexc_trio.clickhouse.engine.FIND", 0.1)
    settings = embedded(tmp_path / "data")
    run(settings, "BTC_USDT")
    with (
        hold_file(tmp_path / "data" / "store.lock", "store"),
        pytest.raises(StoreLocked, match="in use by process"),
    ):
        run(settings, "ETH_USDT")


def test_a_store_that_cannot_be_made(tmp_path: Path) -> None:
    """A path below a file is a usage error, not a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="no directory can be made there"):
        run(embedded(tmp_path / "file" / "data"), "BTC_USDT")


@pytest.mark.usefixtures("kept_data")
def test_the_embedded_engine_has_no_system_logs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked to drop what it does not have, it says so and is content."""
    assert run(embedded(tmp_path / "data"), "BTC_USDT", drop=True) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "System log tables: the embedded engine has none"


def test_a_server_with_tables(
    clickhouse_server: ClickHouseServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables that are there are used as they are."""
    clickhouse_server.execute("CREATE DATABASE IF NOT EXISTS setup_there")
    clickhouse_server.execute(f"CREATE TABLE IF NOT EXISTS setup_there.btc {OLD_MARKET}")
    clickhouse_server.execute(f"CREATE TABLE IF NOT EXISTS setup_there.gaps {OLD_LEDGER}")
    url = clickhouse_server.url.replace("/mexc_data", "/setup_there")
    assert run(Settings(store=parse_store(url)), "BTC_USDT") == 0
    address = f"ClickHouse at 127.0.0.1:{clickhouse_server.tcp_port}"
    assert capsys.readouterr().out.splitlines() == [
        "BTC data: btc table → btc/data.bin (continuous growth)",
        f"Typed views: {', '.join(f'btc_{view}' for view in (*VIEWS, *EXACT_VIEWS))}",
        f"Nothing is new in database setup_there, {address}",
    ]


@attrs.frozen
class NewServer:
    """Stands in for a server newer than the one at hand: answers what is asked about it."""

    answers: Mapping[str, list[tuple[Any, ...]] | StoreError]
    """By the beginning of the statement."""
    asked: list[str] = attrs.field(factory=list)
    name: str = "ClickHouse at host:9000"
    database: str = "mexc_data"
    concurrency: int = 1
    replicated, hosts, quorum, one_thread = False, (), 0, False

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Answer, or refuse."""
        self.asked.append(sql)
        for beginning, answer in self.answers.items():
            if sql.startswith(beginning):
                if isinstance(answer, StoreError):
                    raise answer
                return answer
        return []

    def close(self) -> None:
        """Nothing to close."""


def pretend(monkeypatch: pytest.MonkeyPatch, store: NewServer) -> Settings:
    """Make the command use the given store."""
    monkeypatch.setattr("mexc_trio.operate.setup.open_store", lambda settings: store)
    return Settings(store=parse_store("clickhouse://reader@host"))


@pytest.mark.parametrize("code", [164, 497])
def test_a_user_who_may_not_create(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Without the right to create, the error names the user and what was tried."""
    refusal = error_of(code, "Not allowed", "ClickHouse at host:9000")
    store = NewServer({"SELECT version()": [("26.8.1",)], "CREATE": refusal})
    with pytest.raises(StoreRejected) as caught:
        run(pretend(monkeypatch, store), "BTC_USDT")
    assert str(caught.value) == (
        "user 'reader' has no right to create database and tables: "
        f"ClickHouse at host:9000: Not allowed (ClickHouse error {code})"
    )


def test_the_logs_of_a_current_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All kinds of log tables go, one that is refused is told of after the others; views stay."""
    logs = {
        "asynchronous_metric_log": "MergeTree",
        "dead_letter_queue": "MergeTree",
        "metric_log": "SystemMetricLogView",
        "processors_profile_log_12": "MergeTree",
        "text_log": "MergeTree",
        "trace_log": "ReplicatedMergeTree",
        "user_query_log": "SystemUserQueryLog",
        "tables": "SystemTables",
    }
    store = NewServer(
        {
            "SELECT version()": [("26.8.1",)],
            "SELECT name, engine": list(logs.items()),
            "DROP TABLE IF EXISTS system.`text_log`": error_of(359, "Too big", "ClickHouse"),
        }
    )
    with pytest.raises(StoreRejected, match=r"^ClickHouse: Too big \(ClickHouse error 359\)$"):
        run(pretend(monkeypatch, store), "BTC_USDT", drop=True)
    dropped = [line for line in capsys.readouterr().out.splitlines() if "Dropped" in line]
    assert dropped == [
        "Dropped system.asynchronous_metric_log",
        "Dropped system.dead_letter_queue",
        "Dropped system.processors_profile_log_12",
        "Dropped system.trace_log",
    ]


def test_system_logs_are_dropped_by_name(
    server: ClickHouseServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each log table of the server goes and is named; nothing else in its database does."""
    settings = with_tables(server)
    for name in ("query_log", "query_log_0", "asynchronous_metric_log", "changelog", "log_of_mine"):
        server.execute(f"CREATE TABLE system.{name} (d Date, x Int8) ENGINE = MergeTree ORDER BY x")
    server.execute("CREATE TABLE system.other_log (x Int8) ENGINE = Log")
    before = set(server.execute("SELECT name FROM system.tables WHERE database = 'system'"))

    assert run(settings, "BTC_USDT") == 0
    assert set(server.execute("SELECT name FROM system.tables WHERE database = 'system'")) == before
    capsys.readouterr()
    assert run(settings, "BTC_USDT", drop=True) == 0
    after = set(server.execute("SELECT name FROM system.tables WHERE database = 'system'"))
    assert before - after == {("query_log",), ("query_log_0",), ("asynchronous_metric_log",)}
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:5] == [
        "Dropped system.asynchronous_metric_log",
        "Dropped system.query_log",
        "Dropped system.query_log_0",
    ]

    assert run(settings, "BTC_USDT", drop=True) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "System log tables: there are none"


def test_without_the_right_to_drop(
    server: ClickHouseServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line says who may not, the exit code is 1, and the logs are still there."""
    with_tables(server)
    server.execute("CREATE TABLE system.query_log (d Date, x Int8) ENGINE = MergeTree ORDER BY x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mexc_trio.cli.options.start_logging", lambda *given: None)
    arguments = ["setup", "BTC_USDT", "--drop-system-logs", "--store", server.readonly_url]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert said.out.startswith("BTC data: btc table")
    assert said.err.startswith(
        "mexc-trio: error: user 'reader' has no right to drop system.query_log: "
    )
    assert said.err.count("\n") == 1
    assert server.execute("SELECT count() FROM system.query_log") == [(0,)]
