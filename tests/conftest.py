"""What tests share: a real ClickHouse server."""

import os
from collections.abc import Iterator

import pytest
from faults import TALLY

from tools.clickhouse import ClickHouseServer, NoServerError, find_server


@pytest.fixture(scope="session")
def clickhouse_server() -> Iterator[ClickHouseServer]:
    """Lend the session's one server; a test that stops it starts it again."""
    try:
        find_server()
    except NoServerError as error:
        # A continuous integration run without its server would be green and prove nothing.
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    with ClickHouseServer() as server:
        yield server


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
