"""What tests share: a real ClickHouse server."""

import os
from collections.abc import Iterator

import pytest

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
