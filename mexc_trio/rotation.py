"""A log file that is begun anew when it has grown, in bounded space for months."""

import errno
import math
import os
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final

from mexc_trio.files import may_be_a_trap
from mexc_trio.output import SteadyOutput

LARGEST: Final = 16 * 2**20
"""Bytes of a file; then the next one is begun."""
KEPT: Final = 5
"""Older files that are kept beside it: `NAME.1` is the last one before."""
QUIET: Final = 60.0
"""Seconds between two words about lines that are lost: a full disk has room for a line at times."""


class RotatingOutput(SteadyOutput):
    """Text into a file at `path`, whose writers never wait.

    A file that is moved or removed by others, such as logrotate, is made again; one that cannot be
    made, for its directory is gone or its disk is full, costs what could not be written.

    Raises:
        OSError: it cannot be made, is no file, or may be a trap.
    """

    GONE: ClassVar[tuple[int, ...]] = ()  # what is wrong with a file's disk may pass

    def __init__(self, path: Path, *, largest: int = LARGEST, kept: int = KEPT) -> None:
        if may_be_a_trap(path):
            raise OSError(errno.EPERM, "another user has put it where everybody may write")
        self._path = path.resolve()
        self._largest = largest
        self._kept = kept
        self._told, self._works = -math.inf, True
        self._file = open(self._open(), "a", encoding="utf-8")  # noqa: SIM115 - closed below
        super().__init__(self._file, f"log in {path}")

    def close(self) -> None:
        """Write what is left, and close the file unless its disk still keeps us waiting."""
        super().close()
        if self.idle:
            self._file.close()

    def _open(self) -> int:
        # A link was the user's wish at the start. One that comes into the file's place later may be
        # anybody's who can write to the directory, and leads where he wants to be written.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        flags |= os.O_NOFOLLOW
        fd = os.open(self._path, flags, 0o640)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(0, "it is a device or a pipe")
        return fd

    def _prepare(self, size: int) -> None:
        """See that the file is in its place, and has room."""
        here = os.fstat(self._fd)
        try:
            in_place = os.path.samestat(here, self._path.lstat())
        except FileNotFoundError:
            in_place = False
        if in_place and here.st_size and here.st_size + size > self._largest:
            self._shift()
            in_place = False
        if not in_place:
            fd = self._open()
            os.dup2(fd, self._fd, inheritable=False)
            os.close(fd)

    def _failed(self, error: OSError) -> None:
        now = time.monotonic()
        if self._works and now - self._told >= QUIET:
            self._told, self._works = now, False
            with suppress(OSError, ValueError):  # it may be on the same disk, or closed
                sys.stderr.write(f"log file {self._path}: {error.strerror}; its lines are lost\n")

    def _worked(self) -> None:
        self._works = True

    def _shift(self) -> None:
        names = [self._path, *(Path(f"{self._path}.{n}") for n in range(1, self._kept + 1))]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            with suppress(FileNotFoundError):
                newer.replace(older)
