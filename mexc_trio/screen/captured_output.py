"""What is written while a screen has the terminal: held back, and written when that is over."""

import io
import logging
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Final, TextIO

import attrs

from mexc_trio.output import SteadyOutput

MOST: Final = 1000
"""Writes that are held back; of more, the oldest are lost."""
TAKEN: Final = 0.5
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
        file.drain(TAKEN)
