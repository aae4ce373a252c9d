"""A progress bar on standard error, where that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Progress: TypeAlias = Callable[[int], None]
"""Takes the number, of rows mostly, that were done since the last call."""


@contextmanager
def progress(title: str, rows: int, unit: str = "rows") -> Iterator[Progress]:
    """Show how many of `rows`, or of another unit, are done, for as long as the block runs."""
    if not sys.stderr.isatty():
        yield lambda rows: None
        return
    from rich import progress as rich
    from rich.console import Console

    with rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + unit),
        rich.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(title, total=rows)
        yield lambda rows: bar.advance(task, rows)
