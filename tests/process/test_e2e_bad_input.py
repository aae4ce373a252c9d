"""What the user can get wrong: one clear line, the right exit code, nothing half-created."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running import (
    BTC,
    DEADLINE,
    Embedded,
    Served,
    command_text,
    counts,
    environment,
    final_statistics,
    running,
)
from tools.clickhouse import ClickHouseServer, free_port
from tools.exchange import open_exchange


def run(*arguments: str, cwd: Path, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run the program to its end; with `code`, in an interpreter in which that was run before."""
    if not code:
        return command_text(*arguments, cwd=cwd)
    start = f"{code}; from mexc_trio.__main__ import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", start, *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def refused(result: subprocess.CompletedProcess[str], exit_code: int = 2) -> str:
    """Return the one line with which it was refused, and before which nothing is said."""
    assert result.returncode == exit_code, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("mexc-trio: error: ")
    assert result.stdout == ""
    return line.removeprefix("mexc-trio: error: ")


@pytest.fixture
def served(clickhouse_server: ClickHouseServer) -> Iterator[Served]:
    """Lend a server with empty tables for BTC_USDT in a database of its own."""
    store = Served(clickhouse_server, "bad_input")
    store.create("btc")
    yield store
    clickhouse_server.execute("DROP DATABASE IF EXISTS bad_input")


# Stores that cannot be reached or used.


def test_a_closed_port(tmp_path: Path) -> None:
    """A server that was never reached is a mistake, not an outage to be sat out."""
    port = free_port()
    line = refused(run(BTC, "--store", f"clickhouse://127.0.0.1:{port}", cwd=tmp_path))
    assert line == (
        f"ClickHouse at 127.0.0.1:{port} cannot be reached: Code: 210. Connection refused "
        f"(127.0.0.1:{port}). At the first start the store must work; check --store"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_host(tmp_path: Path) -> None:
    """A misspelt host is named."""
    line = refused(run(BTC, "--store", "clickhouse://nowhere.invalid", cwd=tmp_path))
    assert line.startswith("ClickHouse at nowhere.invalid:9000 cannot be reached: ")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_answers(tmp_path: Path) -> None:
    """A port behind which nobody speaks ends the wait, within the timeouts of the URL."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        url = f"clickhouse://{host}?send_receive_timeout=0.5"
        line = refused(run(BTC, "--store", url, cwd=tmp_path))
    assert line.startswith(f"ClickHouse at {host} cannot be reached: ")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_password(served: Served, tmp_path: Path) -> None:
    """The line says who was not let in, where the password goes, and not what it is."""
    url = served.url.replace("secret", "mistaken")
    result = run(BTC, "--store", url, cwd=tmp_path)
    assert "does not let user 'recorder' in: wrong user or password" in refused(result)
    assert "mistaken" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_user_who_may_only_read(served: Served, tmp_path: Path) -> None:
    """Whether rows can be inserted is tried at the first start, with no row."""
    url = served.url.replace("recorder:secret", "reader:lookonly")
    line = refused(run(BTC, "--store", url, "--store-connections", "1", cwd=tmp_path))
    assert "Cannot execute query in readonly mode" in line
    assert list(tmp_path.iterdir()) == []
    assert served.rows("btc") == []


def test_a_table_that_is_not_ours(served: Served, tmp_path: Path) -> None:
    """A table that lacks a column is named, and left as it is."""
    served.server.execute("DROP TABLE bad_input.btc")
    served.server.execute(
        "CREATE TABLE bad_input.btc (ts DateTime64(3), price String) ENGINE = StripeLog"
    )
    line = refused(run(BTC, "--store", served.url, cwd=tmp_path))
    assert line.startswith("table bad_input.btc at ClickHouse at ")
    assert "has no column mt, m: it is not one of ours" in line
    assert list(tmp_path.iterdir()) == []


def test_a_store_path_below_a_file(tmp_path: Path) -> None:
    """A directory cannot be where a file is."""
    (tmp_path / "file").touch()
    for path in ("file", "file/data"):
        line = refused(run(BTC, "--store", path, cwd=tmp_path))
        assert line == "--store: 'file' is a file, not a directory"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# Root ignores permissions, but not that /proc and /sys take no files.
_NO_FILES = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs Linux's /proc")


@_NO_FILES
@pytest.mark.parametrize("path", ["/proc/nope", "/proc/nope/deeper"])
def test_a_store_path_that_cannot_be_written(tmp_path: Path, path: str) -> None:
    """The line says where no file can be made."""
    line = refused(run(BTC, "--store", path, cwd=tmp_path))
    assert line.startswith(f"state directory {path}: no file can be made in /proc (")
    assert list(tmp_path.iterdir()) == []


@_NO_FILES
def test_a_state_directory_that_cannot_be_written(served: Served, tmp_path: Path) -> None:
    """It is found before the server is touched."""
    served.server.execute("DROP TABLE bad_input.btc")
    result = run(BTC, "--store", served.url, "--state-dir", "/proc/nope", cwd=tmp_path)
    assert refused(result).startswith("state directory /proc/nope: no file can be made in /proc (")
    assert list(tmp_path.iterdir()) == []


def test_parents_of_the_store_are_made(tmp_path: Path) -> None:
    """A path whose parents are missing is no mistake."""
    result = run(
        "NOPE_USDT", "--store", "a/b/c", "--url", "ws://127.0.0.1:1", "--max-errors", "1",
        cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 1
    assert (tmp_path / "a/b/c/data/mexc_data/nope/data.bin").parent.is_dir()


def test_the_engine_is_not_installed(tmp_path: Path) -> None:
    """Who installed without the extra is told how to get it, or how to do without."""
    result = run(BTC, cwd=tmp_path, code="import sys; sys.modules['chdb'] = None")
    assert "pip install 'mexc-trio[embedded]'" in refused(result)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["record", "verify", "setup", "state directory"])
def test_a_directory_that_is_open_to_everybody(tmp_path: Path, command: str) -> None:
    """Whoever can write there could have the program write anywhere; nothing is made in it."""
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    options = ["--store", str(place)]
    if command == "state directory":
        options = ["--store", f"clickhouse://127.0.0.1:{free_port()}", "--state-dir", str(place)]
    words = [command, BTC] if command in ("verify", "setup") else [BTC]
    line = refused(run(*words, *options, cwd=tmp_path))
    assert line.startswith(f"directory {place} belongs to user "), line
    assert line.endswith(f"; chmod o-w {place}, or choose one in it, such as {place}/mexc-data")
    assert list(place.iterdir()) == []


# Two at a time.


async def test_a_second_recorder_in_the_same_directory(tmp_path: Path) -> None:
    """The second one says who holds the directory, and the first goes on."""
    async with (
        open_exchange() as exchange,
        running(tmp_path, BTC, "--url", exchange.url) as program,
    ):
        await program.until(lambda: exchange.symbols == [BTC])
        line = refused(run("ETH_USDT", cwd=tmp_path), exit_code=1)
        assert f" is in use by process {program.process.pid}; stop it first" in line
        await exchange.subscribed(BTC)
        await exchange.push(BTC, "deal")
        await program.journaled(1)
        assert await program.stop() == 0
        assert Embedded(tmp_path).rows("btc") == exchange.rows(BTC)


@pytest.mark.parametrize("how", ["moved", "deleted"])
async def test_the_store_goes_away_while_recording(tmp_path: Path, how: str) -> None:
    """It is told in one line, and what was received until then is where the journal went."""
    async with (
        open_exchange(rate=100.0) as exchange,
        running(tmp_path, BTC, "--url", exchange.url) as program,
    ):
        await program.journaled(100)
        if how == "moved":
            (tmp_path / "mexc-data").rename(tmp_path / "elsewhere")
        else:
            shutil.rmtree(tmp_path / "mexc-data", ignore_errors=True)
        assert await program.ended() == 1
        assert "Traceback" not in program.log
        assert "was removed or replaced while in use" in program.log.splitlines()[-1]


async def test_a_second_recorder_of_the_same_table(served: Served, tmp_path: Path) -> None:
    """On a server, too, even with another journal: it would store every row twice."""
    other = tmp_path / "other"
    other.mkdir()
    async with (
        open_exchange() as exchange,
        running(tmp_path, BTC, "--url", exchange.url, "--store", served.url) as program,
    ):
        await program.until(lambda: exchange.symbols == [BTC])
        line = refused(run(BTC, "--store", served.url, cwd=other), exit_code=1)
        assert line.startswith("table btc of ClickHouse at 127.0.0.1:")
        assert f"is being recorded by process {program.process.pid} on this machine" in line
        assert list(other.iterdir()) == []
        assert await program.stop() == 0


# Ctrl-C before there is anything to stop.


@pytest.mark.parametrize(
    ("module", "exit_code"),
    [
        ("cyclopts", 130),
        ("trio", 130),
        ("mexc_trio.record.recorder", 130),
        ("mexc_trio.clickhouse.embedded", 0),
    ],
)
def test_an_interrupt_while_starting(tmp_path: Path, module: str, exit_code: int) -> None:
    """Whatever is being loaded, a Ctrl-C ends the program without a traceback."""
    code = (
        "import os, signal, sys\n"
        "class Interrupter:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupter())\n"
        "0"
    )
    result = run(BTC, "--url", "ws://127.0.0.1:1", cwd=tmp_path, code=code)
    assert result.returncode == exit_code, result.stderr
    assert "Traceback" not in result.stderr


def test_nobody_reads_the_statistics(tmp_path: Path) -> None:
    """A recorder whose output goes nowhere any more goes on recording, and says so."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as output:
        result = subprocess.run(
            [
                sys.executable, "-m", "mexc_trio", BTC, "--url", "ws://127.0.0.1:1",
                "--duration", "0.5", "--stats-interval", "0.1",
            ],
            cwd=tmp_path,
            env=environment(),
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            check=False,
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("no more statistics on standard output: Broken pipe") == 1
    assert "Traceback" not in result.stderr


# Any frame whatsoever.


_DEAL = '{"channel":"push.deal","symbol":"BTC_USDT","ts":1700000000000,"data":%s}'
_ONE = '{"p":%s,"v":1,"T":1,"t":%s}'
_NOW = "1700000000000"


def _nasty_frames() -> list[str | bytes]:
    deal, one, now, digits = _DEAL, _ONE, _NOW, "7" * 1000
    return [
        "", " ", "null", "true", "0", "[]", "{}", '"text"', "{", "}", "\ufeff{}", "\x00", "NaN",
        '{"channel":null}', '{"channel":"push.deal"}', '{"channel":"push.deal","data":null}',
        '{"channel":"push.","data":1}', '{"channel":"push.kline","data":{}}', '{"channel":"new"}',
        '{"channel":"push.ticker","symbol":"BTC_USDT","data":[]}',
        '{"channel":"push.depth.full","symbol":5,"data":{"asks":{},"bids":"x"}}',
        '{"channel":["push.deal"],"symbol":{}}', '{"channel":"",',
        "[" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000, "[" * 5000 + "]" * 5000,
        deal % one % (digits, now), deal % one % ("0." + digits, now), deal % one % (1, digits),
        deal % one % (1, "-1"), deal % one % (1, "1e400"), deal % one % (1, "99999999999999999"),
        deal % one % (1, "1.5"), deal % one % ('"x"', now), deal % one % ("1e-400", now),
        deal % one % ("1e999999999", now), deal % one % ("[]", now), deal % one % ('{"a":1}', now),
        deal % ("[" + ",".join([one % (1, now)] * 2000) + "]"), deal % "[]", deal % "[null,[],1]",
        (deal % one % (1, now))[:-1] + " " * 2**21 + "}", "x" * 2**21, "\U0001f600\u2028\t\n\\",
        '{"channel":"push.deal","symbol":"ETH_USDT","data":{"p":1,"v":1,"T":1,"t":1}}',
        b"", b"\x00\xff" * 100, b"\x1f\x8b\x08\x00garbage", b"{}", bytes(range(256)) * 1000,
    ]  # fmt: skip


async def test_no_frame_ends_the_program(tmp_path: Path) -> None:
    """Each frame of the nastiest kinds becomes rows, among them dead letters, or is skipped.

    A good deal after each of them shows that nothing of what follows is lost.
    """
    frames = _nasty_frames()
    async with (
        open_exchange() as exchange,
        running(tmp_path, BTC, "--url", exchange.url, "--linger", "0.1") as program,
    ):
        await program.until(lambda: exchange.symbols == [BTC])
        await exchange.subscribed(BTC)
        good = [(int(_NOW), "d", f"{number}.4242|1|1") for number in range(len(frames))]
        for number, frame in enumerate(frames):
            await exchange.send(BTC, frame)
            await exchange.send(BTC, _DEAL % _ONE % (f"{number}.4242", _NOW))
        await program.last_journaled(good[-1])
        assert await program.stop() == 0, program.log
        assert exchange.accepted == 1
        assert "Traceback" not in program.log
        rows = Embedded(tmp_path).rows("btc")
        numbers = final_statistics(program.output, BTC)
        assert numbers.items() >= counts(rows).items()
        # Every good deal is there, in order, and what lies between two of them is one nasty frame.
        between: list[list[str]] = [[]]
        following = iter(good)
        expected = next(following)
        for row in rows:
            if row == expected:
                between.append([])
                expected = next(following, (0, "", ""))
            else:
                between[-1].append(row[1])
        assert between.pop() == []
        assert len(between) == len(frames)
        assert numbers["Skipped Messages"] == between.count([])
        assert sum(kinds == ["dl"] for kinds in between) > len(frames) / 2
        assert ["d"] * 2000 in between
