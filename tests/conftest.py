"""What tests share: a ClickHouse server, simulated exchanges, and a recorder at rest."""

import gc
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import settings

from mexc_trio.exchange.rate_limiter import RateLimiter
from mexc_trio.exchange.rest import Client, open_client
from mexc_trio.record.recording import Recording
from tests.support.faults import TALLY
from tests.support.inmemory import Line
from tools.clickhouse import ClickHouseServer
from tools.exchange import Exchange, Rest, open_exchange
from tools.metrics_cost import recorder

# How long an example takes says more about who else uses the processor than about the example.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def _tests_options_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what tests are asked for by variables from a program that a test runs in its process."""
    for option in ("REPEAT", "SEED"):
        monkeypatch.delenv(f"MEXC_TRIO_TEST_{option}", raising=False)


@pytest.fixture(scope="session")
def clickhouse_server() -> Iterator[ClickHouseServer]:
    """Lend the session's one server; a test that stops it starts it again."""
    with ClickHouseServer() as server:
        yield server


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    """Run an exchange that sends only what it is told to."""
    async with open_exchange() as running:
        yield running


@pytest.fixture
async def line(exchange: Exchange, nursery: trio.Nursery) -> Line:
    """Lay a line to it."""
    return Line(nursery, exchange)


@pytest.fixture
def rest(exchange: Exchange) -> Rest:
    """Return the REST interface of an exchange that has one."""
    assert exchange.rest is not None
    return exchange.rest


@pytest.fixture
async def client(rest: Rest) -> AsyncIterator[Client]:
    """Connect to it; without the pauses between requests."""
    async with open_client(rest.url, rate_limiter=RateLimiter(0.0)) as opened:
        yield opened


@pytest.fixture
async def recording(tmp_path: Path) -> AsyncIterator[Recording]:
    """Make a recorder of three symbols, S0_USDT to S2_USDT, that have just had a frame each."""
    with recorder(tmp_path, 3) as made:
        yield made


@pytest.fixture
def no_socket_is_left_open() -> Iterator[None]:
    """A socket that is left to the garbage collector is a ResourceWarning, which is an error."""
    yield
    gc.collect()


class TallyOfWorkers:
    """Adds up what the processes of pytest-xdist have counted."""

    @pytest.hookimpl
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand over this process's tally, if it is a worker."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["tally"] = (TALLY.faults, TALLY.rows, TALLY.notes)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add a worker's tally to ours."""
        faults, rows, notes = node.workeroutput.get("tally", ({}, 0, []))
        for kind, number in faults.items():
            TALLY.fault(kind, number)
        TALLY.rows += rows
        TALLY.notes += notes


def pytest_configure(config: pytest.Config) -> None:
    """Have the tallies added up, and signals heard by the programs that tests start."""
    config.pluginmanager.register(TallyOfWorkers())
    # What runs behind a shell's `&` or nohup was told to ignore them, and programs inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """Spare the garbage collector what stays: all that was imported, and the tests themselves."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many faults were injected and how many rows were compared afterwards."""
    if not TALLY.faults:
        return
    terminalreporter.section("faults")
    for kind, number in sorted(TALLY.faults.items()):
        terminalreporter.write_line(f"{number:>6,} x {kind}")
    total = sum(TALLY.faults.values())
    terminalreporter.write_line(f"{total:>6,} faults; {TALLY.rows:,} rows checked")
    for note in TALLY.notes:
        terminalreporter.write_line(f"       {note}")
