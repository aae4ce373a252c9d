"""Files that are whole or not there, and directories in which nobody else puts any.

What is whole is written under another name, synced, and then renamed.
"""

import errno
import fcntl
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mexc_trio.errors import FileError, UsageError


@contextmanager
def whole_file(path: Path, *, replace: bool = False) -> Iterator[BinaryIO]:
    """Write a file that appears under its name only when the block has ended well.

    Until then it is `.NAME.part` in the same directory, which must exist. One that a killed process
    left behind is written over by the next attempt. Raises UsageError if the file is there already
    and not to be replaced, or its directory cannot be written to, FileError if it could not be
    written, or another process is writing it.
    """
    refuse_existing(path, replace=replace)
    part, fd = _open_part(path, os.O_RDWR | os.O_CREAT)
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


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Make a directory that appears under its name only when the block has ended well.

    Until then it is `.NAME.part`, and files are written there. Raises UsageError if it is there
    already, or cannot be made, FileError if writing failed, or another process is at it.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} is there already; give --out a new directory")
    part, fd = _open_part(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _claim(fd, part, path)
        try:
            for left in os.listdir(fd):  # of a run that was killed
                os.unlink(left, dir_fd=fd)
            yield part
            sync_directory(part)
            part.rename(path)
            sync_directory(path.parent)
        except OSError as error:
            raise FileError(
                f"cannot write {path}: {error.strerror or error}; it is not kept"
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    finally:
        os.close(fd)


def refuse_existing(path: Path, *, replace: bool) -> None:
    """Refuse to write over what is there, unless told to.

    Raises UsageError if it is there and not to be replaced, and in any case if it is no file, but a
    directory, a device or a pipe.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a directory; give a file's name")
    if path.exists() and not path.is_file():  # a link to one, such as /dev/stdout, is no better
        raise UsageError(f"{path} is a device or a pipe, not a file")
    if not replace and os.path.lexists(path):
        raise UsageError(f"{path} is there already; --force writes over it")


def make_directory(path: Path) -> None:
    """Make a directory, and those that it is in, unless it is there.

    Raises UsageError if it cannot be made, or another user has put it where everybody may write.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if may_be_a_trap(path):
            raise OSError(errno.EEXIST, "another user has put one where everybody may write")
    except OSError as error:
        raise UsageError(f"cannot make the directory {path}: {error.strerror}") from error


def open_own(path: Path, flags: int) -> int:
    """Open a file of this program's, made if missing; others may not read it. Return a descriptor.

    Raises OSError if that cannot be, or if what has its name is a link to something else, a device
    or a pipe, as somebody prepares who wants that written to.
    """
    flags |= os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags, 0o600)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(fd)
        raise OSError(errno.EMLINK, "it is a link, or no file")
    return fd


def write_own(path: Path, text: str) -> None:
    """Write a file that only this user can read, and that is whole or not there; else OSError."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    fd = open_own(new, os.O_WRONLY | os.O_EXCL)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
        new.replace(path)
    except OSError:  # of a full disk, each run would leave a piece
        with suppress(OSError):
            new.unlink()
        raise


def refuse_others(directory: Path) -> None:
    """Refuse to keep a store or a journal in a directory where others may put what we would obey.

    Tables' definitions are read from there, links followed and journals replayed. So neither
    another user's directory will do, unless that is root, nor one to which everybody can write:
    a sticky bit guards the files that are there, not the names that are yet to be made.

    What is not refused: a group that may write, which the owner chose; for root the directory of
    anybody, as in a container or to look after a service, unless anybody can have put it there; the
    top of a volume, which provisioners open to everybody; a file system on which owners and modes
    mean nothing. Nor is one that is still to be made. A link to a directory is judged as one is,
    also further up its path: whose it is can lead it elsewhere.

    Raises:
        UsageError: it is refused, or may not be looked into; says whose it is, and what to do.
    """
    # Not Path's, which fails where links lead in a circle.
    place, user = Path(os.path.realpath(directory)), os.geteuid()
    above = (directory.absolute(), *directory.absolute().parents)
    try:
        links = {one: one.lstat() for one in above if one.is_symlink()}
        found = place.stat()
    except PermissionError as error:
        raise UsageError(
            f"directory {directory} is where user {_name(user)} may not look; run it as whoever "
            f"it belongs to, or choose another"
        ) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UsageError(
                f"directory {directory}: links lead in a circle there; choose another"
            ) from error
        return
    for link, status in links.items():
        if _is_foreign(link, status, user):
            what = "is" if link == directory.absolute() else f"is behind {link},"
            raise UsageError(
                f"directory {directory} {what} a link of user {_name(status.st_uid)}, who can lead "
                f"it elsewhere; name the directory itself, or choose another"
            )
    owner = _name(found.st_uid)
    mounted = os.path.ismount(place)
    everybody = found.st_mode & stat.S_IWOTH and not (mounted and not found.st_mode & stat.S_ISVTX)
    foreign = _is_foreign(place, found, user) and not (mounted and user == 0)
    if not (foreign or everybody) or not _keeps_owners(place):
        effective = os.access in os.supports_effective_ids
        if os.access(place, os.R_OK | os.X_OK, effective_ids=effective):
            return
        raise UsageError(
            f"directory {directory} belongs to user {owner} and may not be looked into by user "
            f"{_name(user)}; change that, or choose another"
        )
    opened = " and is open to everybody to write" if everybody else ""
    remedy = f"run it as {owner}, or choose a directory of your own"
    if not foreign:
        remedy = f"choose one in it, such as {directory / 'mexc-data'}"
        if found.st_uid == user and not found.st_mode & stat.S_ISVTX:  # it is no /tmp
            remedy = f"chmod o-w {directory}, or {remedy}"
    raise UsageError(
        f"directory {directory} belongs to user {owner}{opened}: others could have this program "
        f"write where they like; {remedy}"
    )


def _is_foreign(place: Path, found: os.stat_result, user: int) -> bool:
    """Whether a directory or link is another user's; to root if anybody can have put it there."""
    foreign = found.st_uid not in (0, user)
    return foreign and (user != 0 or bool(place.parent.stat().st_mode & stat.S_IWOTH))


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _keeps_owners(directory: Path) -> bool:
    """Whether a file that is made there is ours alone, which some file systems cannot say."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            made = os.fstat(file.fileno())
    except OSError:
        return True
    return made.st_uid == os.geteuid() and not made.st_mode & stat.S_IRWXO


def may_be_a_trap(path: Path) -> bool:
    """Whether another user has put there what has this name, where everybody may put something.

    Such as a link in /tmp to a file of ours, or a file that he goes on writing to. The system's own
    guard against that (fs.protected_symlinks) does not see who looks at a link and opens its end.
    """
    try:
        owner = path.lstat().st_uid
        return owner not in (0, os.geteuid()) and bool(path.parent.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False  # there is nothing, or what follows will tell


def bytes_of(*paths: Path) -> int:
    """Return the bytes of files together; one that is not there has none."""
    total = 0
    for path in paths:
        with suppress(OSError):
            total += path.stat().st_size
    return total


def sync_directory(path: Path) -> None:
    """Make the names in a directory outlast a power failure."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _open_part(path: Path, flags: int) -> tuple[Path, int]:
    """Make what is to become a file or a directory; return its path and a descriptor."""
    part = path.with_name(f".{path.name}.part")
    try:
        if flags & os.O_DIRECTORY:
            part.mkdir(exist_ok=True)
        if may_be_a_trap(part):
            raise OSError(errno.EPERM, f"{part.name} is there, and belongs to another user")
        # A link to something of ours would have that emptied.
        return part, os.open(part, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise UsageError(f"cannot write into {path.parent}: {error.strerror}") from error


def _claim(fd: int, part: Path, path: Path) -> None:
    """Make this process the only one that writes what `_open_part` has opened."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between open and lock, whoever had it may have finished and renamed it.
        mine = os.fstat(fd).st_ino == part.stat().st_ino
    except OSError:
        mine = False
    if not mine:
        raise FileError(f"{path} is being written by another process")
