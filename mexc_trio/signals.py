"""SIGINT, SIGTERM and SIGHUP: the first cancels, a second SIGINT or SIGTERM ends the process."""

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from mexc_trio import output
from mexc_trio.errors import INTERRUPTED

log = logging.getLogger(__name__)

LAST_WORDS: Final = 0.3
"""Seconds that a second signal waits for a terminal to take the last words."""


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
    heard = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        heard.append(signal.SIGHUP)
    # Not KeyboardInterrupt, which leaves nurseries as a nested group and strikes anywhere.
    with trio.open_signal_receiver(*heard) as signals:
        task_status.started()
        async for number in signals:
            if not running.cancel_called:
                log.info("%s: stopping", signal.Signals(number).name)
                running.cancel()
                continue
            if number == signal.SIGHUP:
                continue  # the terminal that is closed sends it beside another one
            # A call to the database in a thread cannot be cancelled, so there is nothing gentler.
            # Nothing is lost: what was received is in the journal, as after any kill.
            last_words()
            sys.stdout.flush()
            output.drain(LAST_WORDS)
            os._exit(INTERRUPTED)
