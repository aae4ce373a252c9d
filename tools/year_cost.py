"""How much memory a start takes after a year of three busy symbols in StripeLog tables.

    python -m tools.year_cost [--days 365] [--inserts 227000] [--directory DIR]

What the engine keeps in memory of such a table is an entry for each block in its files. So tables
are made with as many blocks as the time leaves: those of compactions, nearly all of them with fewer
rows than real ones to save time, and those of INSERTs since, which after a year are 227,000 at the
most and 147,000 on average (see `mexc_trio.record.growth`). Then a recorder, `sql` and `verify` run
with them, each with an engine of its own, and with an empty store for comparison: a recorder with a
journal that knows nothing of the tables, one after a clean stop, and one after a kill, which reads
them in full. What is printed is the most that all their processes ever took, with the pages of
libraries.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import psutil
import trio

from mexc_trio.clickhouse.compaction import BLOCK
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.symbols import table_name
from mexc_trio.texts import size
from tools.bench.storage import RATES
from tools.exchange import open_exchange
from tools.filling import fill

DAY: Final = 86_400
WHOLE: Final = 20
"""Blocks of each table that are as large as a compaction makes them."""
FEW: Final = 100  # rows of the others
ROWS: Final = 13
"""Of an INSERT."""
POLL: Final = 0.05
RECORDING: Final = 120.0
"""Seconds for which a recorder runs."""


def make(directory: Path, days: float, inserts: int) -> None:
    """Make the tables."""
    with closing(EmbeddedStore(directory)) as store:
        for symbol, rate in RATES.items():
            table, blocks = table_name(symbol), int(rate * DAY * days / BLOCK)
            whole, share = min(WHOLE, blocks), int(inserts * rate / sum(RATES.values()))
            others = (blocks - whole) * FEW
            fill(store, table, blocks - whole, FEW)
            fill(store, table, whole, BLOCK, first=others)
            fill(store, table, share, ROWS, first=others + whole * BLOCK)
            print(f"{table}: {blocks:,} blocks of compactions, {share:,} INSERTs since", flush=True)


def memory(pid: int) -> int:
    """Return the bytes that a process and its children take; 0 if it has just ended."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        every = [process, *process.children(recursive=True)]
        return sum(one.memory_info().rss for one in every)
    return 0


async def watch(
    directory: Path, *arguments: str, seconds: float = 0.0, end: int = signal.SIGINT
) -> None:
    """Run a command to its end, or for some seconds; print what it took.

    Args:
        directory: the store.
        arguments: the command's.
        seconds: after which it is ended; 0 for never.
        end: the signal that does it.
    """
    most = last = 0
    began = trio.current_time()
    command = [sys.executable, "-m", "mexc_trio", *arguments, "--store", str(directory)]
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None:
        last = memory(process.pid) or last
        most = max(most, last)
        if seconds and trio.current_time() > began + seconds:
            process.send_signal(end)
            seconds = 0.0
        await trio.sleep(POLL)
    name = arguments[0] if arguments[0] not in RATES else "recording"
    print(
        f"{name}: {size(most)} at the most, exit code {process.returncode} after "
        f"{trio.current_time() - began:.0f} s",
        flush=True,
    )


async def measure(directory: Path, empty: Path) -> None:
    """Print the figures."""
    async with open_exchange(rate=10.0) as exchange:
        recorder = (*RATES, "--url", exchange.url, "--metrics", "off")
        for place in (empty, directory):
            print("an empty store:" if place is empty else "after that time:", flush=True)
            for end in (signal.SIGINT, signal.SIGKILL, signal.SIGINT):
                await watch(place, *recorder, seconds=RECORDING, end=end)
            await watch(place, "sql", "SELECT max(price) FROM btc_deals")
            await watch(place, "verify")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--days", type=float, default=365.0)
    parser.add_argument("--inserts", type=int, default=227_000, help="since the last compactions")
    parser.add_argument("--directory", type=Path, help="where it is made, and kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="year-cost-") as temporary:
        directory = options.directory or Path(temporary, "year")
        if not directory.exists():
            make(directory, options.days, options.inserts)
        trio.run(measure, directory, Path(temporary, "empty"))


if __name__ == "__main__":
    main()
