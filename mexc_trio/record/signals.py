"""SIGINT and SIGTERM: the first cancels, the second ends the process."""

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from mexc_trio.errors import INTERRUPTED

log = logging.getLogger(__name__)


@asynccontextmanager
async def stoppable(last_words: Callable[[], None]) -> AsyncIterator[trio.CancelScope]:
    """Make a scope that a signal cancels; a second one ends the process after `last_words`."""
    running = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        await nursery.start(_listen, running, last_words)
        yield running
        nursery.cancel_scope.cancel()


async def _listen(
    running: trio.CancelScope,
    last_words: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    # Not KeyboardInterrupt, which leaves nurseries as a nested group and strikes anywhere.
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            if not running.cancel_called:
                log.info("%s: stopping", signal.Signals(number).name)
                running.cancel()
                continue
            # A call to the database in a thread cannot be cancelled, so there is nothing gentler.
            # Nothing is lost: what was received is in the journal, as after any kill.
            last_words()
            sys.stdout.flush()
            os._exit(INTERRUPTED)
