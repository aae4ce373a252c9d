"""Files that are whole or not there: written under another name, synced, and then renamed."""

import fcntl
import os
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
        UsageError: it is there, or it is a directory.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a directory; give a file's name")
    if not replace and os.path.lexists(path):
        raise UsageError(f"{path} is there already; --force writes over it")


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
