"""``python -m tools.soak``: the trials, one command each."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Literal

import cyclopts
import trio

from tools.clickhouse import ClickHouseServer
from tools.soak.backfill import Cuts, try_backfill
from tools.soak.everything import try_everything
from tools.soak.lines import Trial, try_lines
from tools.soak.readers import Reading, try_readers
from tools.soak.rewriting import Rewriting, try_rewriting
from tools.soak.trouble import Soak

app = cyclopts.App(
    name="python -m tools.soak",
    help="Trials of the recorder as a process, against the simulated exchange.",
    version_flags=[],
)

_Store = Literal["embedded", "server"]
_Flag = Annotated[bool, cyclopts.Parameter(negative="")]


@app.command
def lines(
    *,
    lines: int = 2,
    kills: int = 400,
    loss: float = 0.0,
    delay: float = 0.0,
    renewals: int = 0,
    rate: float = 500.0,
    seed: int = 1,
    store: _Store = "embedded",
) -> int:
    """Kill the lines of a symbol at random, never all at once, and compare every row.

    Parameters
    ----------
    lines
        Connections of the symbol.
    kills
        How often one of them is broken.
    loss
        Share of the frames of deals that do not reach one of the lines.
    delay
        Seconds by which every second connection lags; such ones are then broken first.
    renewals
        How often the lines are replaced afterwards, because their routes are changed while the
        recorder runs. Also of a single line that is a planned reconnect without a gap.
    rate
        Messages a second on each line.
    seed
        Makes the instants repeatable, as far as processes are.
    store
        Where rows go.
    """
    with _place(store) as (directory, target):
        trial = Trial(
            directory, target, lines=lines, kills=kills, loss=loss, delay=delay, renewals=renewals,
            rate=rate, seed=seed,
        )  # fmt: skip
        result = trio.run(try_lines, trial)
    print(result)
    return 1 if result.wrong else 0


@app.command
def backfill(
    *,
    cuts: int = 100,
    longest: float = 5.0,
    rate: float = 10.0,
    ids: _Flag = False,
    lag: float = 0.0,
    most: int = 20,
    kill: _Flag = False,
    seed: int = 1,
    store: _Store = "embedded",
) -> int:
    """Cut the one line of a contract, and compare every deal and every gap.

    Parameters
    ----------
    cuts
        How often it is cut.
    longest
        Seconds of the longest cut; the shortest has one.
    rate
        Deals a second.
    ids
        Let the REST interface tell deals' ids.
    lag
        Seconds by which the REST interface lags behind.
    most
        Requests a second that the REST interface answers.
    kill
        Kill the recorder after each cut, while it fetches, and start it again.
    seed
        Makes the instants repeatable, as far as processes are.
    store
        Where rows go.
    """
    with _place(store) as (directory, target):
        trial = Cuts(
            directory=directory, store=target, cuts=cuts, longest=longest, rate=rate, ids=ids,
            lag=lag, most=most, kill=kill, seed=seed,
        )  # fmt: skip
        result = trio.run(try_backfill, trial)
    print(result)
    return 1 if result.wrong else 0


@app.command
def everything(
    *,
    seconds: float = 3600.0,
    symbols: int = 200,
    together: int = 20,
    rate: float = 3.0,
    seed: int = 1,
    store: _Store = "embedded",
) -> int:
    """Record many symbols on two lines through faults of every kind, and compare every row.

    Parameters
    ----------
    seconds
        How long there are faults.
    symbols
        How many there are.
    together
        Symbols of a connection.
    rate
        Messages a second of each symbol on each line.
    seed
        Makes the faults repeatable, as far as processes are.
    store
        Where rows go.
    """
    with _place(store) as (directory, target):
        soak = Soak(
            directory=directory, store=target, seconds=seconds, symbols=symbols,
            together=together, rate=rate, seed=seed,
        )  # fmt: skip
        result = trio.run(try_everything, soak)
    print(result)
    return 1 if result.wrong else 0


@app.command
def readers(
    *, seconds: float = 3600.0, rate: float = 1000.0, readers: int = 3, seed: int = 1
) -> int:
    """Record one symbol into the embedded engine while readers ask it, and compare every row.

    Parameters
    ----------
    seconds
        How long.
    rate
        Messages a second.
    readers
        How many ask, each one statement after another.
    seed
        Makes the market repeatable.
    """
    with _place("embedded") as (directory, target):
        reading = Reading(
            directory=directory, store=target, rate=rate, seconds=seconds, readers=readers,
            seed=seed,
        )  # fmt: skip
        result = trio.run(try_readers, reading)
    print(result)
    return 1 if result.wrong else 0


@app.command
def rewriting(
    *,
    gigabytes: float = 1.0,
    rate: float = 1000.0,
    engine: Literal["stripelog", "mergetree"] | None = None,
    kills: int = 0,
    within: float = 10.0,
    seed: int = 1,
    store: _Store = "embedded",
    place: Path | None = None,
) -> int:
    """Rewrite a big table while it is recorded, and compare every row.

    Parameters
    ----------
    gigabytes
        Size of the table, which is made first. Twice as much disk is needed.
    rate
        Messages a second that are recorded.
    engine
        What the table is moved to; it is compacted unless this is said.
    kills
        How often the recorder is killed in the middle of it.
    within
        Seconds after the command within which that is.
    seed
        Makes the instants repeatable, as far as processes are.
    store
        Where rows go.
    place
        A directory for all that is made; a temporary one unless this is said.
    """
    with _place(store, place) as (directory, target):
        trial = Rewriting(
            directory=directory, store=target, gigabytes=gigabytes, rate=rate,
            engine=engine or "", kills=kills, within=within, seed=seed,
        )  # fmt: skip
        result = trio.run(try_rewriting, trial)
    print(result)
    return 1 if result.wrong else 0


@contextmanager
def _place(store: _Store, within: Path | None = None) -> Iterator[tuple[Path, str]]:
    """Make a directory, and a server if there shall be one; give also what `--store` takes."""
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="soak-", dir=within)
        directory = Path(stack.enter_context(temporary))
        server = store == "server"
        yield directory, stack.enter_context(ClickHouseServer()).url if server else "mexc-data"


if __name__ == "__main__":
    sys.exit(app())
