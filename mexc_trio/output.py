"""Standard output and standard error that nobody ever waits for.

A terminal stands still after Ctrl-S or when SSH hangs; a pipe fills when its reader pauses. A
recorder that waits for them receives nothing. So it writes into a `SteadyOutput`: a thread takes
the text from there to the file, at most `MOST` bytes wait for it, of more the oldest are dropped
and counted, and the end of the program waits a moment for the thread and no longer.
"""

import contextlib
import errno
import io
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar, Final, TextIO

from mexc_trio.texts import printable

log = logging.getLogger(__name__)

MOST: Final = 1 << 20
"""Bytes that wait for a file at the most."""
LAST_WAIT: Final = 2.0
"""Seconds that the end of the program waits for what is not yet written."""


class SteadyOutput(io.TextIOBase):
    """A text file whose writers never wait.

    Args:
        file: what to write to in the end. Nobody else may write to it meanwhile.
        what: what is written to it, for the log.
        most: bytes that wait at the most.
    """

    GONE: ClassVar[tuple[int, ...]] = (errno.EPIPE, errno.EBADF, errno.EIO)
    """Errors after which nothing can ever be written again."""

    note: Callable[[int], str] = "({:,} lines were dropped, which nobody took)".format
    """Returns the line that stands for so many that were dropped."""

    def __init__(self, file: TextIO, what: str, most: int = MOST) -> None:
        self._what = what
        self._fd = file.fileno()
        self._encoding = file.encoding
        self._most = most
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._torn = False  # the file ends in a part of a line, for which there was no room
        self._busy = False
        self._gone = False
        self._ending = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._keep_writing, name="output", daemon=True)
        self._thread.start()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The file's own."""
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What the encoding lacks is written as an escape: nothing ends for the sake of a sign."""
        return "backslashreplace"

    def fileno(self) -> int:
        """Return the file's descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._fd)

    def writable(self) -> bool:
        """It is."""
        return True

    @property
    def idle(self) -> bool:
        """Whether everything is written."""
        with self._changed:
            return not self._waiting and not self._busy

    def write(self, text: str) -> int:
        """Take a text; it is written soon, or dropped if too much waits or the file is gone."""
        data = text.encode(self._encoding, "backslashreplace")
        with self._changed:
            if self._gone:
                return len(text)
            self._waiting.append(data)
            self._bytes += len(data)
            while self._bytes > self._most and len(self._waiting) > 1:
                dropped = self._waiting.popleft()
                self._bytes -= len(dropped)
                self._dropped += max(1, dropped.count(b"\n"))
            self._changed.notify_all()
        return len(text)

    def drain(self, seconds: float) -> bool:
        """Wait until everything is written, at most so long; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, seconds)

    def __del__(self) -> None:
        """Close nothing, as Python's own finalizer would.

        One that is open is held by its thread. So this is one that is closed, or never was open.
        """

    def close(self) -> None:
        """Write what is left; see `end`."""
        self.end()
        super().close()

    def end(self, seconds: float = LAST_WAIT) -> None:
        """Write what is left, for so many seconds at the most."""
        self.drain(seconds)
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join(0 if self._busy else seconds)

    def _keep_writing(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending)
                if not self._waiting:
                    return
                data, dropped = self._waiting.popleft(), self._dropped
                self._bytes -= len(data)
                self._busy = True
            error, told, taken = None, not dropped, False
            try:
                if dropped:
                    told = self._put(f"{self.note(dropped)}\n".encode(self._encoding, self.errors))
                taken = told and self._put(data)
            except OSError as gone:
                error = gone
            with self._changed:
                self._busy = False
                self._dropped -= dropped if told else 0
                self._dropped += 0 if taken else max(1, data.count(b"\n"))
                if error is not None:
                    self._gone = True
                    self._waiting.clear()
                    self._bytes = 0
                self._changed.notify_all()
            if error is not None:
                log.warning("no more %s: %s", self._what, error.strerror)
                return

    def _prepare(self, size: int) -> None:
        """Do what has to be done before so many bytes are written. May raise OSError."""

    def _failed(self, error: OSError) -> None:
        """Hear why lines are lost."""

    def _worked(self) -> None:
        """Hear that something was written."""

    def _put(self, data: bytes) -> bool:
        """Write to the file; return whether that went well.

        Where it does not for now, as on a full disk, what comes next may. OSError if nothing can be
        written to it ever again.
        """
        if self._torn:
            data = b"\n" + data
        try:
            self._prepare(len(data))
            while data:
                try:
                    written = os.write(self._fd, data)
                except BlockingIOError:  # somebody made it so that shares it with us
                    select.select((), (self._fd,), (), 1.0)
                    continue
                self._torn, data = data[written - 1 : written] != b"\n", data[written:]
        except OSError as error:
            if error.errno in self.GONE:
                raise
            self._failed(error)
            time.sleep(0.1)
            return False
        self._torn = False  # not by us: a line may come in parts
        self._worked()
        return True


@contextlib.contextmanager
def _steady(name: str, what: str) -> Iterator[None]:
    file = getattr(sys, name)
    try:
        file.flush()
        output = SteadyOutput(file, what)
    except (OSError, ValueError):  # such as a test's, which is no file of the system's
        yield
        return
    setattr(sys, name, output)
    try:
        yield
    finally:
        setattr(sys, name, file)
        output.end()


steady_stdout = partial(_steady, "stdout", "statistics on standard output")
steady_stderr = partial(_steady, "stderr", "log on standard error")
"""Make standard output, or error, one that nobody waits for, while the block runs."""


def say(text: str) -> None:
    """Print a line, and have it there before whatever may follow on standard error.

    Names of tables are in it, and a server's may be anything: on a terminal, nothing but text.
    """
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def drain(seconds: float) -> None:
    """Wait for what was printed and logged, at most so long for each place."""
    logs = [getattr(handler, "stream", None) for handler in logging.root.handlers]
    for file in {sys.stdout, sys.stderr, *logs}:
        if isinstance(file, SteadyOutput):
            file.drain(seconds)


def open_missing() -> None:
    """Check that descriptors 0 to 2 are open, and that what is printed can be printed.

    Whoever starts the program may have closed them. A file that is opened later would get the
    number of one, and everything printed.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest number that is free, which is this one.
            os.open(os.devnull, os.O_RDONLY if fd == 0 else os.O_WRONLY)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        file = getattr(sys, name)
        if file is None:
            fd = ("stdin", "stdout", "stderr").index(name)
            setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
        elif mode == "w" and hasattr(file, "reconfigure"):
            # A terminal in Latin-1 has no arrow. That is no reason to end.
            file.reconfigure(errors="backslashreplace")
