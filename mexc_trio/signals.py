"""SIGINT, SIGTERM and SIGHUP: the first cancels, a second SIGINT or SIGTERM ends the process.

SIGHUP has two meanings: the terminal is gone, or, for a program that has been told how, that its
settings are to be read again.
"""

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
from mexc_trio.supervise import beside

log = logging.getLogger(__name__)

LAST_WORDS: Final = 0.3
"""Seconds that a second signal waits for a terminal to take the last words."""


@asynccontextmanager
async def stoppable(
    last_words: Callable[[], None], reload: Callable[[], None] | None = None
) -> AsyncIterator[trio.CancelScope]:
    """Make a scope that a signal cancels; a second one ends the process after `last_words`.

    `reload` is called for a SIGHUP that is not a closed terminal's, and under nohup for each;
    without it, that stops, too.
    """
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as under nohup
    had_terminal = not is_ignored and _has_terminal()  # else its end is none of ours
    heard = [signal.SIGINT, signal.SIGTERM]
    if reload is not None or not is_ignored:
        heard.append(signal.SIGHUP)
    running = trio.CancelScope()
    # Not KeyboardInterrupt, which leaves nurseries as a nested group and strikes anywhere.
    with trio.open_signal_receiver(*heard) as signals:

        async def listen() -> None:
            async for number in signals:
                closed = had_terminal and not _has_terminal()
                if number == signal.SIGHUP and reload is not None and not closed:
                    reload()
                elif not running.cancel_called:
                    log.info("%s: stopping", signal.Signals(number).name)
                    running.cancel()
                elif number != signal.SIGHUP:  # a closed terminal's comes beside another one
                    # A call to the database in a thread cannot be cancelled, so there is nothing
                    # gentler. Nothing is lost: what was received is in the journal, as after any
                    # kill.
                    last_words()
                    sys.stdout.flush()
                    output.drain(LAST_WORDS)
                    os._exit(INTERRUPTED)

        async with beside(listen):
            yield running


def _has_terminal() -> bool:
    """Whether the process belongs to a terminal, wherever its input and output go."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True
