"""The limit of open files, in a process of its own whose limit is really set."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def limited(soft: int, hard: int, connections: int, *, more: bool = False) -> str:
    """Ask for connections under limits; return the soft limit afterwards, or the error."""
    code = (
        "import resource, sys\n"
        "from mexc_trio.errors import UsageError\n"
        "from mexc_trio.record.limits import allow_connections\n"
        "soft, hard, connections, more = map(int, sys.argv[1:])\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))\n"
        "try:\n"
        "    allow_connections(connections, more=more == 1)\n"
        "except UsageError as error:\n"
        "    print(error)\n"
        "else:\n"
        "    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code, *map(str, (soft, hard, connections, int(more)))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return outcome.stdout.strip()


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "after"),
    [
        (256, 512, 100, "256"),  # enough as it is
        (256, 512, 300, "512"),
        (256, 512, 384, "512"),  # just enough
    ],
)
def test_limit_is_raised_only_where_it_has_to_be(
    soft: int, hard: int, connections: int, after: str
) -> None:
    """A user with many symbols need not know of ulimit."""
    assert limited(soft, hard, connections) == after


def test_limit_is_raised_for_contracts_that_may_be_listed_later() -> None:
    """All that is allowed is taken at the start, since nobody will be there to restart it."""
    assert limited(256, 512, 3, more=True) == "512"
    assert limited(512, 512, 3, more=True) == "512"


def test_limit_that_cannot_be_raised_is_an_error_with_a_way_out() -> None:
    """It says how many are needed, and both things that can be done."""
    assert limited(256, 512, 1200) == (
        "1200 connections need 1328 open files, and the limit is 256 (hard limit 512): raise it "
        "with ulimit -n 1328, or share connections with --symbols-per-connection"
    )
