"""What tests share: a real ClickHouse server."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests.support.faults import TALLY
from tools.clickhouse import ClickHouseServer

# How long an example takes says more about who else uses the processor than about the example.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def clickhouse_server() -> Iterator[ClickHouseServer]:
    """Lend the session's one server; a test that stops it starts it again."""
    with ClickHouseServer() as server:
        yield server


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
