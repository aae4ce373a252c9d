"""What INSERTs leave in the engine's memory for ever is told before a machine runs out of it."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import trio
from trio.testing import MockClock

from mexc_trio.clickhouse.async_store import AsyncStore
from mexc_trio.clickhouse.index_memory import MUCH, WHILE_RUNNING
from mexc_trio.clickhouse.tally import Outcome
from mexc_trio.record.watch import INDEX_INTERVAL, watch_index
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget

if TYPE_CHECKING:
    from mexc_trio.clickhouse.schema import Store
    from mexc_trio.record.recording import Recording


class Nowhere:
    """A store that is never asked."""

    database, concurrency = "mexc_data", 1


class Parts:
    """What is looked at of a recording."""

    def __init__(self, directory: Path) -> None:
        self.settings = Settings(store=EmbeddedTarget(directory))
        self.gate = AsyncStore(cast("Store", Nowhere()))


def index(directory: Path, gigabytes: float) -> None:
    """Leave a table whose index takes that much of memory; the file itself takes no room."""
    table = directory / "data" / "mexc_data" / "btc"
    table.mkdir(parents=True)
    with (table / "index.mrk").open("wb") as file:
        file.truncate(int(gigabytes * 2**30 / 520 * 117))


async def said(parts: Parts, caplog: pytest.LogCaptureFixture, *inserts: int) -> list[str]:
    """Watch, while the numbers of INSERTs become these, one after the other; return the log."""
    with caplog.at_level(logging.WARNING):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_index, cast("Recording", parts))
            for number in inserts:
                parts.gate.insert_tally.outcomes[Outcome.STORED] = number
                await trio.sleep(2 * INDEX_INTERVAL)
            nursery.cancel_scope.cancel()
    return [record.getMessage() for record in caplog.records]


async def test_a_short_recording_says_nothing(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A day of one symbol is nothing to worry about."""
    index(tmp_path, 0.05)
    assert await said(Parts(tmp_path), caplog, 0, 86_400) == []


async def test_what_earlier_runs_left_is_told_at_the_start(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """And not again before it has grown by as much."""
    index(tmp_path, 2.5)
    (line,) = await said(Parts(tmp_path), caplog, 0, 1000, 2000)
    assert "the engine keeps an index entry of every INSERT: about 2.7 GB" in line


async def test_what_a_long_run_adds_is_told(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each gibibyte once."""
    gibibyte = MUCH // WHILE_RUNNING + 1
    lines = await said(Parts(tmp_path), caplog, 0, gibibyte, gibibyte + 10, 2 * gibibyte)
    assert len(lines) == 2
