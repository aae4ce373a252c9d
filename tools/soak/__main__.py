"""``python -m tools.soak``: the trials, one command each, whose options are what each is to do."""

# ruff: noqa: B008 - the trials are frozen

import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import attrs
import cyclopts
import trio

from tools.clickhouse import ClickHouseServer
from tools.soak.backfill import Cuts, try_backfill
from tools.soak.breaking import Faults
from tools.soak.everything import try_everything
from tools.soak.faults import try_faults
from tools.soak.lines import Trial, try_lines
from tools.soak.readers import Reading, try_readers
from tools.soak.recorder import Outcome, Place
from tools.soak.rewriting import Rewriting, try_rewriting
from tools.soak.trouble import Soak

app = cyclopts.App(
    name="python -m tools.soak",
    help="Trials of the recorder as a process, against the simulated exchange.",
    version_flags=[],
    default_parameter=cyclopts.Parameter(negative=()),
)

_OPTIONS = cyclopts.Parameter(name="*")
_Store = Annotated[Literal["embedded", "server"], cyclopts.Parameter(help="Where rows go.")]
_Trial = TypeVar("_Trial", bound=Place)


@app.command
def lines(*, trial: Annotated[Trial, _OPTIONS] = Trial(), store: _Store = "embedded") -> int:
    """Kill the lines of a symbol at random, never all at once, and compare every row."""
    return _try(try_lines, trial, store)


@app.command
def backfill(*, trial: Annotated[Cuts, _OPTIONS] = Cuts(), store: _Store = "embedded") -> int:
    """Cut the one line of a contract, and compare every deal and every gap."""
    return _try(try_backfill, trial, store)


@app.command
def everything(*, trial: Annotated[Soak, _OPTIONS] = Soak(), store: _Store = "embedded") -> int:
    """Record many symbols on two lines through faults of every kind, and compare every row."""
    return _try(try_everything, trial, store)


@app.command
def readers(*, trial: Annotated[Reading, _OPTIONS] = Reading()) -> int:
    """Record one symbol into the embedded engine while readers ask it, and compare every row."""
    return _try(try_readers, trial, "embedded")


@app.command
def rewriting(
    *,
    trial: Annotated[Rewriting, _OPTIONS] = Rewriting(),
    store: _Store = "embedded",
    place: Annotated[
        Path | None, cyclopts.Parameter(help="Where all is made; without it in a temporary place.")
    ] = None,
) -> int:
    """Rewrite a big table while it is recorded, and compare every row."""
    return _try(try_rewriting, trial, store, place)


@app.command
def faults(*, trial: Annotated[Faults, _OPTIONS] = Faults(), store: _Store = "embedded") -> int:
    """Kill, freeze and cut off whatever takes part, until Ctrl-C; then compare every row."""
    with ClickHouseServer() if store == "server" else nullcontext() as server:
        there = attrs.evolve(trial, store=server.url) if server else trial
        return _try(partial(try_faults, server=server), there, "embedded")


def _try(
    do: Callable[[_Trial], Awaitable[Outcome]],
    trial: _Trial,
    store: _Store,
    within: Path | None = None,
) -> int:
    """Do it in a directory of its own, and with a server if there shall be one.

    The directory is kept if something is wrong: the log, the store and the journal tell what.
    """
    directory = Path(tempfile.mkdtemp(prefix="soak-", dir=within))
    trial = attrs.evolve(trial, directory=directory)
    is_wrong = True  # also if it does not come to its end
    try:
        with ExitStack() as stack:
            if store == "server":
                trial = attrs.evolve(trial, store=stack.enter_context(ClickHouseServer()).url)
            result = trio.run(do, trial)
        print(result)
        is_wrong = result.wrong
    finally:
        if is_wrong:
            print(f"all of it is left in {directory}")
        else:
            shutil.rmtree(directory)
    return int(is_wrong)


if __name__ == "__main__":
    sys.exit(app())
