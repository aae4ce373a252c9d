"""The limit of open files, in a process of its own whose limit is really set."""

import resource
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from mexc_trio.record.limits import SPARE
from tests.support.running import BTC, Program, environment, running
from tools.exchange import open_exchange

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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_what_was_counted_is_enough(tmp_path: Path) -> None:
    """Promise 6: with just the files that it asks for, and readers, no symbol stops.

    The engine has as many as the user may open.
    """
    needed = 1 + 4 + SPARE
    limited = f'ulimit -Sn {needed}; exec "$0" "$@"'
    program = [sys.executable, "-m", "mexc_trio", BTC, "--linger", "0"]
    async with open_exchange(rate=100.0) as exchange:
        with (tmp_path / "log.txt").open("w") as log, (tmp_path / "output.txt").open("w") as out:
            process = await trio.lowlevel.open_process(
                ["/bin/sh", "-c", limited, *program, "--url", exchange.url],
                cwd=tmp_path, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=log,
            )  # fmt: skip
        running = Program(process, tmp_path)
        try:
            await running.acknowledged(50)
            (engine,) = _children(process.pid)
            assert _soft_limit(engine) == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            url = urlsplit((tmp_path / "mexc-data" / "metrics.url").read_text())
            with ExitStack() as readers:
                for _ in range(200):
                    stream = await trio.open_tcp_stream(str(url.hostname), int(url.port or 0))
                    readers.callback(stream.socket.close)
                await running.acknowledged(400)
            assert await running.stop() == 0
        finally:
            if process.poll() is None:
                process.kill()
    assert "too many open files" not in running.log


def _children(pid: int) -> list[int]:
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for file in files for word in file.read_text().split()]


def _soft_limit(pid: int) -> int:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return int(next(line for line in lines if "open files" in line).split()[3])


async def test_a_disk_that_is_too_full_is_no_place_to_start(tmp_path: Path) -> None:
    """The line says how much is free and how much must be; the next run knows of the gap."""
    async with running(
        tmp_path, BTC, "--url", "ws://127.0.0.1:1", "--min-free-mib", "999999999"
    ) as program:
        assert await program.ended() == 1
        line = program.log.splitlines()[-1]
        assert line.startswith("mexc-trio: error: only ")
        assert "the bound is 999999999 MiB: recording stops" in line
        assert "Traceback" not in program.log
