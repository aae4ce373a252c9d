"""What a scrape of the metrics costs a recorder: ``python -m tools.metrics_cost``.

A recorder of many symbols is made, each with frames of all channels and rows that wait, and is
scraped. Trio tells how much processor time each step of the scraping task took, in which nobody
else had a turn; what other programs take of the machine does not count.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import attrs
import cyclopts
import trio

from mexc_trio.clickhouse.async_store import AsyncStore
from mexc_trio.exchange.messages import Data
from mexc_trio.journal import open_journal
from mexc_trio.locks import TableLocks
from mexc_trio.metrics.page import render
from mexc_trio.metrics.snapshot import take_snapshot
from mexc_trio.record.recording import Recording
from mexc_trio.rows import CHANNELS, Row
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget

if TYPE_CHECKING:
    from mexc_trio.clickhouse.schema import Store


@attrs.define(eq=False)
class Steps(trio.abc.Instrument):
    """The lengths of one task's steps, in seconds."""

    task: trio.lowlevel.Task
    taken: list[float] = attrs.field(factory=list)
    _began: float = math.nan

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Start the watch."""
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Note a step of ours."""
        if task is self.task and not math.isnan(self._began):
            self.taken.append(time.thread_time() - self._began)


class _NoStore:
    """A store that nobody asks."""

    name = "nothing"
    concurrency = 1


@contextmanager
def recorder(directory: Path, symbols: int, age: float | None = 0.0) -> Iterator[Recording]:
    """Make a recorder in the midst of its work; nothing of it runs.

    Args:
        directory: where its journal lives.
        symbols: how many it has.
        age: seconds since the last row of each channel; None if there has been none in this run.
    """
    settings = Settings(store=EmbeddedTarget(directory), backfill=False)
    with open_journal(settings.journal_path) as journal:
        async_store = AsyncStore(cast("Store", _NoStore()))
        locks = TableLocks("none", [], -1)
        recording = Recording(settings, journal, async_store, [], locks)
        for number in range(symbols):
            collector = recording.make_collector(settings.for_symbol(f"S{number}_USDT"))
            for channel in CHANNELS:
                if age is None:
                    break
                collector.liveness[channel].connected(trio.current_time())
                row = Row(int((time.time() - age) * 1000), "t", "1|1|1|1|0.00000000")
                collector.data(Data(collector.symbol, channel, [row], 0, 0))
        journal.flush()
        yield recording


async def measure(symbols: int, scrapes: int) -> None:
    """Scrape, and print what it took."""
    with (
        tempfile.TemporaryDirectory() as directory,
        recorder(Path(directory), symbols) as recording,
    ):
        totals, longest, size = [], [], 0
        for _ in range(scrapes):
            steps = Steps(trio.lowlevel.current_task())
            await trio.lowlevel.checkpoint()
            trio.lowlevel.add_instrument(steps)
            size = len(await render(await take_snapshot(recording), recording.collectors))
            await trio.lowlevel.checkpoint()
            trio.lowlevel.remove_instrument(steps)
            totals.append(1000 * sum(steps.taken))
            longest.append(1000 * max(steps.taken))
        print(f"{symbols} symbols, {scrapes} scrapes of {size / 1000:.0f} KB")
        for what, found in (("in all", totals), ("longest piece", longest)):
            print(
                f"{what}: {statistics.median(found):.1f} ms median, {min(found):.1f} to "
                f"{max(found):.1f}"
            )


def main(
    *,
    symbols: Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=1))] = 1200,
    scrapes: Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=1))] = 30,
) -> None:
    """Measure what a scrape costs a recorder's loop.

    Parameters
    ----------
    symbols
        How many are recorded.
    scrapes
        How many times.
    """
    trio.run(measure, symbols, scrapes)


if __name__ == "__main__":
    cyclopts.run(main)
