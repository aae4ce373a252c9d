"""The terminal while the live screen is shown.

It is drawn on the terminal's alternate screen, as an editor does: nothing of it stays behind. What
others write meanwhile is held back, shown at the bottom as far as there is room, and written when
the screen has gone.
"""

import io
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Final, TextIO

import attrs
from rich.console import Console
from rich.screen import Screen as FullScreen

from mexc_trio.output import SteadyOutput
from mexc_trio.screen.picture import Picture
from mexc_trio.screen.screen import draw

MOST: Final = 1000
"""Writes that are held back; of more, the oldest are lost."""
LONGEST_WAIT: Final = 0.5
"""Seconds that a terminal gets to take one thing before the next."""


@attrs.define(eq=False, weakref_slot=False)  # its base has that slot
class CapturedOutput(io.TextIOBase):
    """A file that keeps what is written."""

    _parts: deque[str] = attrs.field(factory=lambda: deque(maxlen=MOST))

    def write(self, text: str) -> int:
        """Keep a text."""
        self._parts.append(text)
        return len(text)

    @property
    def text(self) -> str:
        """All that is kept."""
        return "".join(self._parts)


@contextmanager
def capture_output() -> Iterator[CapturedOutput]:
    """Hold back standard output and, if it is a terminal, standard error; give the latter."""
    printed, log = CapturedOutput(), CapturedOutput()
    output, errors = sys.stdout, sys.stderr
    with ExitStack() as stack:
        stack.callback(_write, output, printed)
        stack.enter_context(redirect_stdout(printed))
        if errors.isatty():
            stack.callback(_write, errors, log)
            # The screen is left on standard output. A log that came before that would be lost.
            stack.callback(_wait_until_written, output)
            stack.enter_context(redirect_stderr(log))
            for handler in logging.root.handlers:
                if isinstance(handler, logging.StreamHandler) and handler.stream is errors:
                    handler.setStream(log)
                    stack.callback(handler.setStream, errors)
        yield log


def _write(file: TextIO, captured: CapturedOutput) -> None:
    if captured.text:
        file.write(captured.text)
        file.flush()
        _wait_until_written(file)


def _wait_until_written(file: object) -> None:
    """Wait a moment until all is written, since each file has a thread of its own."""
    if isinstance(file, SteadyOutput):
        file.drain(LONGEST_WAIT)


def drawable() -> bool:
    """Whether standard output is a terminal on which a screen can be drawn."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


@attrs.define(eq=False)
class LiveScreen:
    """The terminal while the screen is shown."""

    close: Callable[[], None]
    """Gives the terminal back; may be called twice."""
    _console: Console
    _log: CapturedOutput

    @property
    def idle(self) -> bool:
        """Whether the terminal has taken all that was drawn."""
        file = self._console.file
        return file.idle if isinstance(file, SteadyOutput) else True

    def show(self, picture: Picture) -> None:
        """Draw; OSError if the terminal is gone."""
        columns, lines = os.get_terminal_size(self._console.file.fileno())
        width, height = columns or 80, lines or 25
        self._console.size = (width, height)
        log = self._log.text.splitlines()
        self._console.update_screen(FullScreen(draw(picture, log, width, height)))


@contextmanager
def open_screen() -> Iterator[LiveScreen]:
    """Take the terminal on standard output; what others write meanwhile comes afterwards."""
    terminal = sys.stdout
    with ExitStack() as stack:
        log = stack.enter_context(capture_output())
        console = Console(file=terminal)
        stack.enter_context(console.screen())
        yield LiveScreen(stack.close, console, log)
