"""What trials share: the recorder as a process of one symbol, and questions to what it stored."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final

import attrs
import cyclopts
import trio

from mexc_trio.read.reading import open_reader
from mexc_trio.rows import Gap
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget, StoreTarget, parse_store
from tools.market import CHANNELS, Row

if TYPE_CHECKING:
    from tools.exchange import Exchange
    from tools.exchange.connection import Connection

SYMBOL: Final = "BTC_USDT"
TABLE: Final = "btc"
LONGEST_WAIT: Final = 180.0
"""Seconds for which anything is waited for."""
_LOOK: Final = 0.5
_ROOT: Final = Path(__file__).resolve().parents[2]
_MOST_SHOWN: Final = 10
_Made = cyclopts.Parameter(parse=False)
"""Of what is no option of a trial's command."""


@attrs.frozen
class Place:
    """Where a recorder records."""

    directory: Annotated[Path, _Made] = Path()
    """In which it is started."""
    store: Annotated[str, _Made] = "mexc-data"
    """What `--store` takes; relative to the directory."""

    @property
    def target(self) -> StoreTarget:
        """The same as it is opened."""
        if "://" in self.store:
            return parse_store(self.store)
        return EmbeddedTarget(self.directory / self.store)

    @property
    def journal(self) -> Path:
        """The journal's file."""
        state = self.directory / "mexc-data"
        return next(state.glob("journal*.sqlite"), state / "journal.sqlite")

    def journaled(self) -> tuple[int, int]:
        """Return how many rows have come into the journal, and how many of them are stored."""
        with (
            suppress(sqlite3.OperationalError),  # it is still to be made
            closing(sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True, timeout=5)) as file,
        ):
            found = file.execute(
                "SELECT first + n, acked FROM entries JOIN tables ON tables.id = tbl "
                "WHERE name = ? ORDER BY entries.id DESC LIMIT 1",
                (TABLE,),
            ).fetchone()
            return found or (0, 0)
        return 0, 0

    @property
    def log(self) -> Path:
        """What was logged, over all runs."""
        return self.directory / "log.txt"

    def begun(self, since: int = 0) -> int:
        """Return how often a recorder began to rewrite, by the log from this byte on."""
        with self.log.open("rb") as log:
            log.seek(since)
            return log.read().count(b"; what comes waits")

    def wrongs(self) -> list[str]:
        """Return what is wrong, as `mexc-trio verify` says."""
        verdict = json.loads(self.run("verify", "--json").stdout)
        return [finding["text"] for finding in verdict["findings"] if finding["wrong"]]

    async def start(self, *options: str) -> trio.Process:
        """Start the recorder; what it logs is added to the log."""
        with self.log.open("a") as log:
            return await trio.lowlevel.open_process(
                [sys.executable, "-m", "tools.soak.hasty", SYMBOL, "--store", self.store,
                 "--stats-interval", "0", *options],
                cwd=self.directory, env=_environment(), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command on the store, as a user does."""
        return subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "mexc_trio", *arguments, "--store", self.store],
            cwd=self.directory, env=_environment(), check=False, capture_output=True, text=True,
        )  # fmt: skip

    def run_into(self, file: BinaryIO, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run another command, whose output is too much for memory."""
        return subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "mexc_trio", *arguments, "--store", self.store],
            cwd=self.directory, env=_environment(), check=False, stdout=file,
        )  # fmt: skip

    async def begin(self, *arguments: str) -> trio.Process:
        """Begin the same, and do not wait for its end; what it says is added to the log."""
        with self.log.open("a") as log:
            return await trio.lowlevel.open_process(
                [sys.executable, "-m", "mexc_trio", *arguments, "--store", self.store],
                cwd=self.directory, env=_environment(), stdin=subprocess.DEVNULL, stdout=log,
                stderr=log,
            )  # fmt: skip

    def ask(self, sql: str) -> list[list[object]]:
        """Return the rows of an answer, in the order of insertion."""
        with open_reader(Settings(store=self.target)) as reader:
            return [list(row) for row in reader.query(f"{sql} SETTINGS max_threads = 1")]

    def rows(self, order: str = "") -> list[Row]:
        """Return what is stored, in the order of insertion, which of a MergeTree is to be asked."""
        found = self.ask(f"SELECT toUnixTimestamp64Milli(ts), mt, m FROM {TABLE}{order}")  # noqa: S608
        return [(int(str(ts)), str(mt), str(m)) for ts, mt, m in found]

    def ledger(self) -> list[Gap]:
        """Return the ledger of gaps."""
        found = self.ask(
            "SELECT symbol, channel, toUnixTimestamp64Milli(`from`), toUnixTimestamp64Milli(`to`), "
            "cause, detail, version_before, version_after FROM gaps"
        )
        return [
            Gap(str(symbol), str(channel), int(str(start)), int(str(end)), str(cause), str(detail),
                *(int(str(version)) for version in versions))
            for symbol, channel, start, end, cause, detail, *versions in found
        ]  # fmt: skip

    async def until_stored(self, row: Row) -> None:
        """Wait until a row is stored, as one that was sent last is once all has been heard.

        For `LONGEST_WAIT` at the most: what is lacking is for the comparison to say.
        """
        sql = (
            f"SELECT count() FROM btc WHERE mt = '{row[1]}' "  # noqa: S608 - of the market
            f"AND toUnixTimestamp64Milli(ts) = {row[0]} AND m = '{row[2]}'"
        )
        for _ in range(round(LONGEST_WAIT / _LOOK)):
            if await trio.to_thread.run_sync(self.ask, sql) != [[0]]:
                return
            await trio.sleep(_LOOK)


@attrs.frozen(kw_only=True)
class Outcome:
    """What came of a trial."""

    @property
    def wrong(self) -> bool:
        """Whether a promise was broken."""
        raise NotImplementedError

    def __str__(self) -> str:
        return text_of(attrs.asdict(self))


def text_of(known: Mapping[str, object]) -> str:
    """Return figures and findings, a line each; of long lists the first few."""
    lines = []
    for name, value in known.items():
        more = ""
        if isinstance(value, list) and len(value) > _MOST_SHOWN:
            value, more = value[:_MOST_SHOWN], f" (of {len(value)})"
        shown = f"{value:,}" if type(value) is int else value
        lines.append(f"{name.replace('_', ' ')}: {shown}{more}")
    return "\n".join(lines)


async def kill(recorder: trio.Process) -> None:
    """Leave no process behind, however a trial ends."""
    if recorder.poll() is None:
        recorder.kill()
        with trio.CancelScope(shield=True):
            await recorder.wait()


async def stop(recorder: trio.Process, seconds: float = LONGEST_WAIT) -> int:
    """Stop it as Ctrl-C does; return its exit code."""
    recorder.send_signal(signal.SIGINT)
    with trio.fail_after(seconds):
        return await recorder.wait()


async def wait_for(
    recorder: trio.Process, condition: Callable[[], bool], seconds: float, look: float
) -> None:
    """Look every `look` seconds while the recorder runs, for so many seconds at the most."""
    with trio.fail_after(seconds):
        while not condition():
            if recorder.poll() is not None:
                raise RuntimeError(f"the recorder has ended with {recorder.returncode}")
            await trio.sleep(look)


def subscribed(exchange: "Exchange") -> "list[Connection]":
    """List the connections that are subscribed to everything."""
    those = exchange.subscribers(SYMBOL)
    return [one for one in those if len(one.subscriptions[SYMBOL]) == len(CHANNELS)]


async def until(
    exchange: "Exchange", recorder: trio.Process, condition: Callable[[], bool]
) -> None:
    """Wait for what the exchange sees of a recorder that runs."""
    with trio.fail_after(LONGEST_WAIT):
        while not condition():
            if recorder.poll() is not None:
                raise RuntimeError(f"the recorder has ended with {recorder.returncode}")
            with trio.move_on_after(1):
                await exchange.until(condition)


def _environment() -> dict[str, str]:
    known = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    return known | {"PYTHONPATH": str(_ROOT)}
