"""The live screen's task: sample the recorder once a second, and draw.

A terminal can stand still for minutes, after Ctrl-S or while a connection over SSH hangs. Nobody is
to wait for it: a picture is drawn only when the one before has been taken.
"""

import logging
import signal
import time
from typing import Final

import trio

from mexc_trio.record.recording import Recording
from mexc_trio.record.watch import print_statistics
from mexc_trio.screen.picture import Picture, Sampler, with_sizes
from mexc_trio.screen.terminal import LiveScreen, drawable, open_screen

log = logging.getLogger(__name__)

REFRESH: Final = 1.0
"""Seconds between two samples."""


async def show_screen(recording: Recording) -> None:
    """Show the live screen until cancelled; where it cannot be shown, print blocks."""
    if drawable():
        try:
            await _keep_drawing(recording)
        except OSError as error:
            log.warning("no more live screen: %s", error.strerror)
    else:
        log.info("no live screen: standard output is no terminal that could show it")
    await print_statistics(recording)


async def _keep_drawing(recording: Recording) -> None:
    sampler = Sampler(recording)
    with trio.open_signal_receiver(signal.SIGWINCH) as resized, open_screen() as terminal:
        recording.restore_terminal = terminal.close
        due = trio.current_time()
        while True:
            picture = sampler.sample(trio.current_time(), time.time())
            await _draw(terminal, picture)
            due = max(due + REFRESH, trio.current_time())
            with trio.move_on_at(due):
                async for _ in resized:
                    await _draw(terminal, picture)


async def _draw(terminal: LiveScreen, picture: Picture) -> None:
    if terminal.idle:
        # In a thread, because it takes a while, and not the others' time.
        await trio.to_thread.run_sync(lambda: terminal.show(with_sizes(picture)))
