"""The command `sql`, as a user types it."""

import io
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mexc_trio.clickhouse import views
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import prepare, qualified
from mexc_trio.clickhouse.tables import GAPS, market_table
from tests.support import running
from tests.support.running import DEADLINE, OLD_MARKET, environment
from tools.clickhouse import ClickHouseServer

ROWS = [(1_767_225_600_000 + n, "d", f"{n}.50|{n}|1") for n in range(3)]
SELECT = "SELECT mt, m FROM btc ORDER BY m"


def fill(store: EmbeddedStore) -> None:
    """Give it three deals."""
    prepare(store, [market_table("btc")])
    views.create(store, ["btc"])
    store.append(market_table("btc"), ROWS)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a store of three deals in ./mexc-data, which somebody has open."""
    path = tmp_path_factory.mktemp("sql")
    with closing(EmbeddedStore(path / "mexc-data")) as store:
        fill(store)
        yield path


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, which a command has to open itself."""
    path = tmp_path_factory.mktemp("closed")
    with closing(EmbeddedStore(path / "mexc-data")) as store:
        fill(store)
    return path


def command(*arguments: str) -> Sequence[str]:
    """Return a command line."""
    return [sys.executable, "-m", "mexc_trio", "sql", *arguments]


def sql(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Run the command with its output into a file."""
    return running.command("sql", *arguments, cwd=directory)


def test_output(closed: Path, clickhouse_server: ClickHouseServer) -> None:
    """Tab-separated into a pipe, any format on request, the same from either store."""
    clickhouse_server.execute("DROP TABLE IF EXISTS mexc_data.btc")
    clickhouse_server.execute(f"CREATE TABLE mexc_data.btc {OLD_MARKET}")
    clickhouse_server.execute("INSERT INTO mexc_data.btc VALUES", ROWS)
    for store in ("mexc-data", clickhouse_server.url):
        done = sql(closed, SELECT, "--store", store)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == b"d\t0.50|0|1\nd\t1.50|1|1\nd\t2.50|2|1\n"
        done = sql(closed, SELECT, "--format", "Parquet", "--store", store)
        assert (done.returncode, done.stderr) == (0, b"")
        assert pq.read_table(io.BytesIO(done.stdout)).to_pylist() == [
            {"mt": mt.encode(), "m": m} for _, mt, m in ROWS
        ]
    clickhouse_server.execute("DROP TABLE mexc_data.btc")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="only Linux tells how much it took")
def test_a_long_answer_takes_little_memory(tmp_path: Path) -> None:
    """A ledger of 500,000 gaps goes through as it comes; it would be 64 MB."""
    with closing(EmbeddedStore(tmp_path / "mexc-data")) as store:
        prepare(store, [GAPS])
        store.query(
            f"INSERT INTO {qualified(store, GAPS.name)} SELECT 'BTC_USDT', 'deal', number, "
            f"number + 1, 'disconnected', repeat('no pong ', 10), 1, 2 FROM numbers(500000)"
        )
        with subprocess.Popen(
            command("SELECT * FROM gaps", "--format", "CSV"),
            cwd=tmp_path, env=environment(), stdout=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            rows, used = 0, ""
            while part := process.stdout.read(2**16):
                rows += part.count(b"\n")
                if rows > 400_000 and not used:  # it cannot have ended
                    used = Path(f"/proc/{process.pid}/status").read_text()
        assert process.returncode == 0
    assert rows == 500_000
    kib = int(used.split("VmHWM:")[1].split()[0])
    assert kib < 80_000


def test_a_terminal_gets_a_table(directory: Path) -> None:
    """On a terminal the answer is a table for people, as clickhouse-client has it."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command("SELECT count() AS n FROM btc"), cwd=directory, env=environment(), stdout=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        while b"\xe2\x94\x98" not in shown:
            shown += os.read(ours, 1000)
        assert process.wait(DEADLINE) == 0
    os.close(ours)
    assert "│ 3 │" in shown.decode()


def test_a_terminal_gets_nothing_that_moves_its_cursor(directory: Path) -> None:
    """What an exchange sent is shown on a terminal, and does nothing to it."""
    evil = "SELECT char(27, 91, 50, 74, 13, 7, 155, 194, 155, 127) || 'end'"
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(evil, "--format", "RawBLOB"), cwd=directory, env=environment(), stdout=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        while b"end" not in shown:
            shown += os.read(ours, 1000)
        assert process.wait(DEADLINE) == 0
    os.close(ours)
    assert shown == rb"\x1b[2J\r\x07" + b"\x9b" + rb"\x9b\x7fend"
    assert sql(directory, evil, "--format", "RawBLOB").stdout.startswith(b"\x1b[2J\r\x07")


def test_a_statement_is_bytes(directory: Path) -> None:
    """Text of another encoding than UTF-8 goes to the engine and back as it is."""
    done = subprocess.run(
        [*command(), b"SELECT 'caf\xe9', nope"], cwd=directory, env=environment(),
        capture_output=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"Unknown expression identifier `nope`" in done.stderr
    done = subprocess.run(
        [*command(), b"SELECT 'caf\xe9'"], cwd=directory, env=environment(),
        capture_output=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"caf\xe9\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["SELECT nope"], 1, "store mexc-data: Unknown expression identifier `nope`"),
        (["SELECT 1 FROM"], 1, "store mexc-data: Syntax error"),
        (["SELECT * FROM BTC_USDT"], 1, "; BTC_USDT is in table btc, and its deals in btc_deals"),
        (["SELECT * FROM deals"], 1, "; did you mean btc_deals?"),
        (["SELECT * FROM btc_deels"], 1, "Maybe you meant mexc_data.btc_deals?"),
        (["SELECT * FROM nothing_like_it"], 1, "; SHOW TABLES says what there is"),
        (["SELECT * FROM btc_candles"], 1, "length in seconds: btc_candles(interval = 60)"),
        (["SELECT * FROM btc_candles(60)"], 1, "length in seconds: btc_candles(interval = 60)"),
        (["DROP TABLE btc"], 1, "Not enough privileges"),
        (["SELECT 1", "--format", "Nope"], 1, "store mexc-data: Unknown format Nope"),
        (["SELECT 1", "--store", "none"], 2, "store none: there is no such directory; see --store"),
        (["SELECT 1", "--store", "."], 2, "store .: nothing was ever recorded there"),
        ([], 2, 'command "sql" parameter STATEMENT requires an argument'),
    ],
)
def test_what_goes_wrong(directory: Path, arguments: list[str], code: int, message: str) -> None:
    """One line that says what is wrong, the right exit code, and nothing on standard output."""
    done = sql(directory, *arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert message.casefold() in done.stderr.decode().casefold()
    assert done.stderr.decode().startswith("mexc-trio: error: ")
    assert done.stderr.count(b"\n") == 1
    assert {path.name for path in directory.iterdir()} == {"mexc-data"}


def test_a_server_that_is_away(directory: Path) -> None:
    """A server that does not answer is one line."""
    done = sql(directory, "SELECT 1", "--store", "clickhouse://127.0.0.1:1/mexc_data")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
    assert b"ClickHouse at 127.0.0.1:1 cannot be reached" in done.stderr


def test_a_reader_that_has_seen_enough(closed: Path) -> None:
    """`mexc-trio sql ... | head` ends without a word."""
    with subprocess.Popen(
        command("SELECT * FROM numbers(100000000)"),
        cwd=closed,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(DEADLINE)


def test_ctrl_c(closed: Path) -> None:
    """Ctrl-C ends a long statement at once, and the store can be read again."""
    with subprocess.Popen(
        command("SELECT number + 1 FROM numbers(1000000000000)"),
        cwd=closed,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"1\n"
        process.send_signal(signal.SIGINT)
        # The shell makes 130 of it.
        assert process.wait(DEADLINE) == -signal.SIGINT
    assert sql(closed, "SELECT count() FROM btc").stdout == b"3\n"
