"""Files that are whole or not there: written under another name, synced, and then renamed."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mexc_trio.errors import FileError, UsageError


@contextmanager
def whole_file(path: Path, *, replace: bool = False) -> Iterator[BinaryIO]:
    """Write a file that appears under its name only when the block has ended well.

    Until then it is `.NAME.part` in the same directory. One that a killed process left behind is
    written over by the next attempt.

    Args:
        path: where it is to be. Its directory must exist.
        replace: whether it may be there already.

    Raises:
        UsageError: it is there already, or its directory cannot be written to.
        FileError: it could not be written, or another process is writing it.
    """
    part = path.with_name(f".{path.name}.part")
    refuse_existing(path, replace=replace)
    try:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise UsageError(f"cannot write into {path.parent}: {error.strerror}") from error
    file = open(part, "wb", opener=lambda name, flags: fd)  # noqa: SIM115 - closed below
    try:
        _claim(fd, part, path)
        try:
            os.ftruncate(fd, 0)
            yield file
            file.flush()
            os.fsync(fd)
            refuse_existing(path, replace=replace)
            os.replace(part, path)
            sync_directory(path.parent)
        except OSError as error:
            raise FileError(
                f"cannot write {path}: {error.strerror or error}; nothing is left under that name"
            ) from error
        finally:
            with suppress(OSError):
                part.unlink()
    finally:
        with suppress(OSError):  # what a full disk did not take has been reported
            file.close()


def refuse_existing(path: Path, *, replace: bool) -> None:
    """Refuse to write over what is there, unless told to.

    Raises:
        UsageError: it is there, or it is no file: a directory, a device, a pipe.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a directory; give a file's name")
    if path.exists() and not path.is_file():  # a link to one, such as /dev/stdout, is no better
        raise UsageError(f"{path} is a device or a pipe, not a file")
    if not replace and os.path.lexists(path):
        raise UsageError(f"{path} is there already; --force writes over it")


def open_own(path: Path, flags: int) -> int:
    """Open a file of this program's, made if missing; others may not read it. Return a descriptor.

    Raises:
        OSError: that cannot be, or what has its name is a link to something else, a device or a
            pipe, as somebody prepares who wants that written to.
    """
    flags |= os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags, 0o600)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(fd)
        raise OSError(errno.EMLINK, "it is a link, or no file")
    return fd


def write_own(path: Path, text: str) -> None:
    """Write a file that only this user can read, and that is whole or not there.

    Raises:
        OSError: it cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    fd = open_own(new, os.O_WRONLY | os.O_EXCL)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def sync_directory(path: Path) -> None:
    """Make the names in a directory outlast a power failure."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _claim(fd: int, part: Path, path: Path) -> None:
    """Make this process the only one that writes the file."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between open and lock, whoever had it may have finished and renamed it.
        mine = os.fstat(fd).st_ino == part.stat().st_ino
    except OSError:
        mine = False
    if not mine:
        raise FileError(f"{path} is being written by another process")
