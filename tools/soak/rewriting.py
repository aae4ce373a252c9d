"""A big table is rewritten while it is recorded: nothing late, nothing lost, caught up soon.

The table is made beforehand; the exchange runs here, and the recorder is a process. Then a user
gives the command `compact` or `convert`, and gives it again whenever the recorder was killed.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import attrs
import trio

from mexc_trio.clickhouse import open_store
from mexc_trio.clickhouse.compaction import BLOCK
from mexc_trio.clickhouse.rewriting import digest, size_of
from mexc_trio.clickhouse.schema import Store, count, engine_of
from mexc_trio.clickhouse.tables import TableEngine, in_order
from mexc_trio.settings import Settings
from mexc_trio.texts import size
from tools.exchange import Exchange, open_exchange
from tools.filling import fill
from tools.soak.made import in_turn
from tools.soak.recorder import (
    SYMBOL,
    TABLE,
    Outcome,
    Place,
    kill,
    stop,
    subscribed,
    until,
    wait_for,
)

if TYPE_CHECKING:
    from tools.market import Row

POLL: Final = 0.1
"""Seconds between two samples of the journal."""
CAUGHT_UP: Final = 2.0
"""Seconds of rows that may wait when there is nothing to catch up with."""
_AT_ONCE: Final = 4
"""Blocks by which the table is made larger until it is large enough."""
BEFORE: Final = 5.0
"""Seconds of recording before the command is given."""
LONGEST: Final = 3600.0
_A_FRAME: Final = 1.41
"""Rows of a message, on average."""
_NAMES: Final = "`ts`, `mt`, `m`"


@attrs.frozen(kw_only=True)
class Rewriting(Place):
    """What is to be done."""

    gigabytes: float = 1.0
    """Size of the table, which is made first. Twice as much disk is needed."""
    rate: float = 1000.0
    """Messages a second that are recorded."""
    engine: Literal["", "stripelog", "mergetree"] = ""
    """To which the table is moved; without it, it is compacted."""
    kills: int = 0
    """How often the recorder is killed in the middle."""
    within: float = 10.0
    """Seconds after the command within which that is."""
    seed: int = 1
    """Makes the instants repeatable, as far as processes are."""

    def open(self) -> Store:
        """Open the store."""
        return open_store(Settings(store=self.target))

    async def command(self) -> trio.Process:
        """Give the command that the trial is about."""
        what = ["convert", SYMBOL, "--engine", self.engine] if self.engine else ["compact", SYMBOL]
        return await self.begin(*what)


@attrs.frozen(kw_only=True)
class Result(Outcome):
    """What came of it."""

    size_before: str
    size_after: str
    rows_before: int
    seconds: float
    """From the first command to the end of the last one."""
    kills: int
    latest: float
    """Seconds for which nothing came into the journal, at the most: all the time something is sent.
    The market's own clock runs ahead of ours at such rates, so it says nothing of this."""
    waiting: int
    """Rows that waited in the journal at the most."""
    catching_up: float
    """Seconds from the end of it until no more rows waited than usually."""
    recorded: int
    """Rows that were recorded and compared, one by one."""
    unheard: int
    """Rows that were on their way when the recorder was killed."""
    as_before: bool
    """Whether the table's older rows are the same, in the same order."""
    wrong_rows: int
    """Recorded rows that are not the ones that were sent next."""
    engine: str
    exit_code: int

    @property
    def wrong(self) -> bool:
        """Whether a promise was broken."""
        return bool(self.wrong_rows or not self.as_before or self.exit_code)


@attrs.define(eq=False)
class _Watch:
    """Samples how far the journal and the table are."""

    trial: Rewriting
    latest: int = 0
    """Milliseconds."""
    most: int = 0
    """Rows that waited."""
    end: int = 0
    acked: int = 0
    _last: int = 0
    _at: int = 0

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            with suppress(sqlite3.OperationalError):  # the journal is still to be made
                self._sample()
            self.most = max(self.most, self.waiting)
            await trio.sleep(POLL)

    @property
    def waiting(self) -> int:
        """How many rows wait by now."""
        return self.end - self.acked

    async def until(self, recorder: trio.Process, condition: Callable[[], bool]) -> None:
        """Wait for something while the recorder runs."""
        await wait_for(recorder, condition, LONGEST, POLL)

    def _sample(self) -> None:
        path = f"file:{self.trial.journal}?mode=ro"
        with closing(sqlite3.connect(path, uri=True, timeout=5)) as journal:
            new = journal.execute(
                "SELECT entries.id, first + n, at FROM entries JOIN tables "
                "ON tables.id = tbl WHERE entries.id > ? AND name = ? ORDER BY entries.id",
                (self._last, TABLE),
            )
            for self._last, self.end, at in new:
                self.latest = max(self.latest, at - (self._at or at))
                self._at = at
            found = journal.execute("SELECT acked FROM tables WHERE name = ?", (TABLE,)).fetchone()
            self.acked = found[0] if found else 0


async def try_rewriting(trial: Rewriting) -> Result:
    """Do it, and compare."""
    rows, before, same = await trio.to_thread.run_sync(_made, trial)
    async with (
        open_exchange(rate=trial.rate, seed=trial.seed, oddities=0.0) as exchange,
        trio.open_nursery() as nursery,
    ):
        watch = _Watch(trial)
        nursery.start_soon(watch.run)
        try:
            recorder = await _start(trial, exchange)
            await watch.until(recorder, lambda: watch.acked > 0)
            usual = max(1000, int(CAUGHT_UP * trial.rate * _A_FRAME))
            await watch.until(recorder, lambda: watch.waiting < usual)
            await trio.sleep(BEFORE)
            watch.latest = watch.most = 0
            began, kills = trio.current_time(), 0
            chance = random.Random(trial.seed)
            while True:
                command = await trial.command()
                if kills < trial.kills:
                    # Before that it may find no recorder, and do it by itself.
                    begun = partial(_has_begun, trial, kills, command)
                    await watch.until(recorder, begun)
                    with trio.move_on_after(trial.within * chance.random()):
                        await command.wait()
                    if command.returncode is None:
                        kills += 1
                        await kill(recorder)
                        recorder = await _start(trial, exchange)
                if await command.wait() == 0:
                    break
            ended = trio.current_time()
            await watch.until(recorder, lambda: watch.waiting < usual)
            caught_up = trio.current_time()
            exchange.silence()
            await watch.until(recorder, lambda: not watch.waiting)
            exit_code = await stop(recorder)
        finally:
            await kill(recorder)
        nursery.cancel_scope.cancel()
        with closing(trial.open()) as store:
            numbered = engine_of(store, TABLE) is TableEngine.MERGETREE
            name = f"`{store.database}`.`{TABLE}`{in_order(numbered)}"
            recorded = count(store, TABLE) - rows
            stored: list[Row] = [
                (int(ts), str(mt), str(m))
                for ts, mt, m in store.query(
                    f"SELECT toUnixTimestamp64Milli(ts), mt, m "  # noqa: S608 - our own names
                    f"FROM {name} LIMIT {rows}, "
                    f"{recorded} SETTINGS max_threads = 1"
                )
            ]
            wrong, unheard = in_turn(exchange.sent(SYMBOL), stored)
            return Result(
                size_before=size(before),
                size_after=size(size_of(store, TABLE)),
                rows_before=rows,
                seconds=round(ended - began, 1),
                kills=kills,
                latest=watch.latest / 1000,
                waiting=watch.most,
                catching_up=round(caught_up - ended, 1),
                recorded=recorded,
                unheard=len(unheard),
                as_before=digest(store, name, rows, _NAMES) == same,
                wrong_rows=wrong,
                engine=str(engine_of(store, TABLE)),
                exit_code=exit_code,
            )


def _made(trial: Rewriting) -> tuple[int, int, tuple[int, int, int]]:
    """Make the table; return its rows, its bytes and its digest."""
    with closing(trial.open()) as store:
        rows = 0
        while rows == 0 or size_of(store, TABLE) < trial.gigabytes * 1e9:
            fill(store, TABLE, _AT_ONCE, BLOCK, first=rows)
            rows += _AT_ONCE * BLOCK
        same = digest(store, f"`{store.database}`.`{TABLE}`", rows, _NAMES)
        return rows, size_of(store, TABLE), same


async def _start(trial: Rewriting, exchange: Exchange) -> trio.Process:
    recorder = await trial.start("--url", exchange.url, "--max-errors", "1000000")
    await until(exchange, recorder, lambda: bool(subscribed(exchange)))
    return recorder


def _has_begun(trial: Rewriting, kills: int, command: trio.Process) -> bool:
    return trial.begun() > kills or command.poll() is not None
