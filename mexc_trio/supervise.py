"""A task that fails alone: it is started again, and nobody else hears of it.

A nursery ends with the first error of any of its tasks, which is wrong for a thousand symbols, the
statistics and a screen, of which none needs another. What passes through is what concerns
everybody: a cancellation, and an error of the journal, without which nothing can be kept.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from mexc_trio.backoff import Backoff
from mexc_trio.errors import JournalBusy, JournalError, MexcTrioError, leaves, out_of_resources

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
"""Seconds until a task that failed is started again."""
HEALTHY: Final = 60.0
"""Seconds for which a task must have run for the next pause to be the first again."""


async def supervise(
    name: str,
    task: Callable[[], Awaitable[None]],
    failed: Callable[[Exception], None] = lambda error: None,
) -> None:
    """Run a task to its end; whenever it fails, tell so, call `failed`, and start it again.

    What the user can be told in a line is told in one, and not again until it is another; so is a
    shortage of open files or threads. Anything else is a bug, and its traceback is wanted. A
    JournalError that does not pass passes through.
    """
    backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
    said = ""
    while True:
        began = trio.current_time()
        try:
            await task()
            return
        except* JournalBusy as group:
            error = leaves(group)[0]
        except* JournalError:
            raise
        except* Exception as group:  # noqa: BLE001 - whatever it is, it fails alone
            error = leaves(group)[0] if len(leaves(group)) == 1 else group
        assert isinstance(error, Exception)  # noqa: S101 - the clauses say so
        if trio.current_time() - began >= HEALTHY:
            backoff.reset()
            said = ""
        pause = backoff.next()
        told = out_of_resources(error) or (str(error) if isinstance(error, MexcTrioError) else "")
        if not told:
            text = "%s: an error of this program; starting again in %.0f s"
            log.error(text, name, pause, exc_info=error)
        elif told != said:
            log.warning("%s: %s; trying again in %.0f s", name, told, pause)
            said = told
        failed(error)
        await trio.sleep(pause)


@asynccontextmanager
async def beside(*tasks: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run tasks for as long as the block runs. An error of one ends all."""
    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(task)
        yield
        nursery.cancel_scope.cancel()


def supervised(name: str, task: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """Return a task that is supervised."""
    return partial(supervise, name, task)
