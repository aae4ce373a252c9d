"""The recorder as a process of its own, for tests that want it as its user has it."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractContextManager,
    asynccontextmanager,
    closing,
    contextmanager,
    nullcontext,
    suppress,
)
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

import attrs
import msgspec
import trio

from mexc_trio.clickhouse import schema
from mexc_trio.clickhouse.engine import Engine
from mexc_trio.clickhouse.engine_config import COMMANDS
from mexc_trio.clickhouse.server import ServerStore
from mexc_trio.clickhouse.tables import GAPS, market_table
from mexc_trio.settings.targets import ServerTarget, parse_store
from tests.support.forks import HASTY, Constants, Fork, fork
from tools.clickhouse import DATABASE, ClickHouseServer
from tools.market import Row

ROOT: Final = Path(__file__).parents[2]
BTC: Final = "BTC_USDT"
DEADLINE: Final = 300.0
"""Seconds after which a test gives up waiting, on a slow machine where others work as well."""
OLD_MARKET: Final = (
    "(ts DateTime64(3), mt Enum8('t' = 1, 'd' = 2, 'dp' = 3, 'dl' = 4), m String) "
    "ENGINE = StripeLog"
)
OLD_LEDGER: Final = (
    "(symbol String, channel String, `from` DateTime64(3), `to` DateTime64(3), cause String, "
    "detail String, version_before UInt64, version_after UInt64) ENGINE = StripeLog"
)
"""The tables of a symbol and of gaps as they were before channels on request, and fillings."""


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a user who has set nothing but these variables."""
    environ = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    return environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **variables}


def read_embedded(directory: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask an embedded store, whether or not somebody has it open."""
    (answer,) = read_all_embedded(directory, sql)
    return answer


def read_all_embedded(directory: Path, *statements: str) -> list[list[tuple[Any, ...]]]:
    """Ask it more than one thing."""
    with (
        closing(Engine(directory)) as engine,
        closing(ServerStore(engine.access().target(COMMANDS), 1)) as server,
    ):
        return [server.query(sql) for sql in statements]


@contextmanager
def held_open(directory: Path) -> Iterator[None]:
    """Hold an embedded store open that nobody has open: not each question starts an engine then."""
    with closing(Engine(directory)) as engine:
        engine.access()
        yield


def engine_pid(directory: Path) -> int:
    """Return the process of a directory's engine, as it noted it itself when it started last."""
    # It may just be writing it, or have been killed then and be about to be started again.
    while not (noted := (directory / "status").read_text()).startswith("PID: "):
        time.sleep(0.01)
    return int(noted.split("\n", 1)[0].removeprefix("PID: "))


def server_store(url: str) -> ServerStore:
    """Return the store that `--store` would mean with this URL."""
    target = parse_store(url)
    assert isinstance(target, ServerTarget)
    return ServerStore(target)


@attrs.define(eq=False)
class Program:
    """A running `mexc-trio`."""

    process: trio.Process | Fork
    directory: Path

    @property
    def output(self) -> str:
        """What it has written to standard output."""
        return (self.directory / "output.txt").read_text()

    @property
    def log(self) -> str:
        """What it has written to standard error."""
        return (self.directory / "log.txt").read_text()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; whoever waits in vain sees the log."""
        with trio.move_on_after(DEADLINE):
            while not condition():
                assert self.process.poll() is None, self.log
                await trio.sleep(0.02)
            return
        raise AssertionError(f"waited in vain\n{self.log}")

    async def journaled(self, rows: int, table: str = "") -> None:
        """Wait until that many rows of symbols, or of one table, have come into the journal."""
        which = f"AND name = '{table}'" if table else ""
        await self.until(lambda: (self._journal("sum(n)", which) or 0) >= rows)

    async def acknowledged(self, rows: int) -> None:
        """Wait until the store has acknowledged that many rows of a symbol."""
        await self.until(lambda: (self._journal("max(acked)", "") or 0) >= rows)

    def acked(self) -> int:
        """Return up to which row of a symbol the store has acknowledged, in any run."""
        return int(self._journal("max(acked)", "") or 0)

    async def last_journaled(self, row: Row) -> None:
        """Wait until this row is among those that came last into the journal.

        Another line may bring what comes after it first, so that it is not in the very last entry.
        All of it is looked for: of some hundred deals another one often has the same text.
        """
        # Without the number of columns, of which wide rows have more.
        values = msgspec.msgpack.encode(row)[1:]
        found = f"max(instr(rows, x'{values.hex()}'))"
        last = "AND entries.id > (SELECT max(id) FROM entries) - 100"
        await self.until(lambda: bool(self._journal(found, last)))

    def _journal(self, what: str, which: str) -> Any:
        """Ask the journal, which another process may read, for one value; None if it has none."""
        sql = f"SELECT {what} FROM entries JOIN tables ON tables.id = tbl WHERE name <> 'gaps'"
        for path in self.directory.glob("mexc-data/journal*.sqlite"):
            with (
                closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db,
                suppress(sqlite3.OperationalError),  # it is just being made
            ):
                row = db.execute(f"{sql} {which}").fetchone()
                return row[0] if row else None
        return None

    async def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for its end and return the exit code."""
        with trio.fail_after(DEADLINE):
            return await _end(self.process)


async def _end(process: trio.Process | Fork) -> int:
    return await (process.ended() if isinstance(process, Fork) else process.wait())


@asynccontextmanager
async def running(
    directory: Path,
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    forked: bool = True,
    constants: Constants | None = None,
) -> AsyncIterator[Program]:
    """Run the program in a directory; whatever happens, it has ended afterwards.

    Unless it is `forked` it imports all by itself, as where a test is about its start: see `forks`,
    also for what may be other in it, besides `HASTY`.
    """
    env = environment(**(variables or {}))
    with (
        (directory / "output.txt").open("w") as output,
        (directory / "log.txt").open("w") as log,
    ):
        process: trio.Process | Fork
        if forked:
            out, err = output.fileno(), log.fileno()
            process = fork(
                "mexc_trio", arguments, cwd=directory, env=env, stdout=out, stderr=err,
                constants={**HASTY, **(constants or {})},
            )  # fmt: skip
        else:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "mexc_trio", *arguments],
                cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=log,
            )  # fmt: skip
    try:
        yield Program(process, directory)
    finally:
        if process.poll() is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await _end(process)


def command(*arguments: str, cwd: Path, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """Run the program to its end, forked; return what it said and its exit code."""
    with TemporaryFile() as out, TemporaryFile() as err:
        process = fork(
            "mexc_trio", arguments, cwd=cwd, env=environment(**variables), stdout=out.fileno(),
            stderr=err.fileno(),
        )  # fmt: skip
        try:
            code = process.wait(DEADLINE)
        finally:
            process.kill()  # if it has not ended
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(arguments, code, out.read(), err.read())


def command_text(
    *arguments: str, cwd: Path, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Do the same; what it said is text."""
    done = command(*arguments, cwd=cwd, **variables)
    return subprocess.CompletedProcess(
        arguments, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


@attrs.frozen
class Embedded:
    """The store in ./mexc-data of a test's directory."""

    directory: Path
    url: str = "mexc-data"

    def create(self, *tables: str) -> None:
        """Do nothing: the recorder creates its tables."""

    def opened(self) -> AbstractContextManager[None]:
        """Hold it open for several questions, while nobody records."""
        return held_open(self.directory / "mexc-data")

    def select(self, columns: str, table: str) -> list[tuple[object, ...]]:
        """Read a table in the order of insertion."""
        sql = f"SELECT {columns} FROM mexc_data.`{table}` SETTINGS max_threads = 1"
        return read_embedded(self.directory / "mexc-data", sql)

    def rows(self, table: str) -> list[Row]:
        """Return a symbol's rows in the order of insertion."""
        found = self.select("toUnixTimestamp64Milli(ts), mt, m", table)
        return [(int(str(ts)), str(mt), str(m)) for ts, mt, m in found]


@attrs.frozen
class Served:
    """The store of a test on the real server."""

    server: ClickHouseServer
    database: str = "mexc_data"

    @property
    def url(self) -> str:
        """What --store takes."""
        return self.server.url.replace(f"/{DATABASE}?", f"/{self.database}?")

    def create(self, *tables: str) -> None:
        """Make empty tables."""
        self.server.execute(f"CREATE DATABASE IF NOT EXISTS {self.database}")
        for table in (*tables, "gaps"):
            self.server.execute(f"DROP TABLE IF EXISTS {self.database}.`{table}`")
        with closing(server_store(self.url)) as store:
            schema.prepare(store, [*map(market_table, tables), GAPS])

    def opened(self) -> AbstractContextManager[None]:
        """Do nothing: it is."""
        return nullcontext()

    def select(self, columns: str, table: str) -> list[tuple[object, ...]]:
        """Read a table in the order of insertion."""
        return self.server.execute(
            f"SELECT {columns} FROM {self.database}.`{table}` SETTINGS max_threads = 1"
        )

    def rows(self, table: str) -> list[Row]:
        """Return a symbol's rows in the order of insertion."""
        found = self.select("toUnixTimestamp64Milli(ts), mt, m", table)
        return [(int(str(ts)), str(mt), str(m)) for ts, mt, m in found]


Store = Embedded | Served


def counts(rows: list[Row]) -> dict[str, int]:
    """Return how the final statistics count these rows."""
    by_type = [mt for _, mt, _ in rows]
    return {
        "Total Records Appended": len(rows),
        "Ticker Messages": by_type.count("t"),
        "Deal Messages": by_type.count("d"),
        "Depth Messages": by_type.count("dp"),
        "Dead Letters": by_type.count("dl"),
    }


def final_statistics(output: str, symbol: str) -> dict[str, int]:
    """Return the numbers of a symbol's last final block."""
    block = output.rpartition(f"{symbol} STATISTICS (Final")[2].split("=" * 50)[1]
    numbers = {key: int(n) for key, n in re.findall(r"^([\w ]+): (\d+)(?: .*)?$", block, re.M)}
    return {"Dead Letters": 0, **numbers}
