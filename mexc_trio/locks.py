"""Locks between processes that say who holds them, and that a killed process lets go."""

import fcntl
import hashlib
import os
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs

from mexc_trio.errors import StoreLocked, UsageError
from mexc_trio.files import open_own, write_own

_OFFSET_BITS: Final = 62


@contextmanager
def hold_file(path: Path, what: str) -> Iterator[int]:
    """Hold a lock file, made if missing, for as long as the block runs; it names the holder.

    Gives the file's descriptor: a child process that inherits it holds the lock, too. The file is
    left in place. Raises StoreLocked if another process holds it, which names `what` it protects,
    UsageError if the file cannot be made.
    """
    try:
        fd = open_own(path, os.O_RDWR)
    except OSError as error:
        raise UsageError(f"{what}: cannot write {path} ({error.strerror})") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(fd, 200, 0).decode("utf-8", "replace").strip() or "another process"
            raise StoreLocked(
                f"{what} is in use by {holder}; stop it first, or choose another directory"
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"process {os.getpid()}\n".encode(), 0)
        yield fd
    finally:
        os.close(fd)


def write_held(path: Path, text: str) -> int:
    """Write a file that only this user can read, locked before anybody can see it; else OSError.

    Returns the descriptor that holds the lock: until it is closed, `is_held`.
    """
    new = path.with_name(f"{path.name}.new")
    write_own(new, text)
    fd = os.open(new, os.O_RDWR | os.O_CLOEXEC)  # NFS locks nothing for others that is only read
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.replace(path)
    except OSError:
        os.close(fd)
        raise
    return fd


def is_held(path: Path) -> bool:
    """Return whether a process holds a lock file; False if there is none."""
    return _holder(path) is not None


def holder(path: Path) -> int | None:
    """Return the process that holds a lock file; None if nobody does, or it cannot be told."""
    words = (_holder(path) or "").split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None


def _holder(path: Path) -> str | None:
    """Return what a lock file says; None if nobody holds it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        # What it says alone may be of a process that has ended, and whose number is another's now.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.pread(fd, 200, 0).decode("utf-8", "replace")
    else:
        return None
    finally:
        os.close(fd)


@attrs.frozen
class TableLocks:
    """Tables of one server that are held against other recorders on this machine.

    One file for the machine, and a byte in it for each (store, table): record locks, because
    they name the process that holds them and go with it. A store that is a directory has a file of
    its own in there: what is the machine's, any user of it can hold, and so keep others out.
    """

    store: str
    """What the user knows the store by."""
    _names: Collection[str]
    _fd: int

    def hold(self, tables: Sequence[str]) -> None:
        """Hold more tables; StoreLocked if another process records into one of them."""
        # All on one descriptor: closing any other one of the file would let go of all.
        for table, offset in self._offsets(tables):
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
            except OSError as error:
                holder = _record_holder(self._fd, offset)
                raise StoreLocked(
                    f"table {table} of {self.store} is being recorded by {holder} "
                    f"on this machine; two recorders would store every row twice"
                ) from error

    def release(self, tables: Sequence[str]) -> None:
        """Let others have tables that are not written to any more."""
        for _, offset in self._offsets(tables):
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, offset)

    def _offsets(self, tables: Sequence[str]) -> Iterator[tuple[str, int]]:
        for table in tables:
            for name in self._names:
                digest = hashlib.sha256(f"{name}/{table}".encode()).digest()
                yield table, int.from_bytes(digest[:8], "big") >> (64 - _OFFSET_BITS)


def lock_directories() -> list[Path]:
    """Return the directories where the lock file may be; the first one that lets us is taken.

    Not the temporary directory, if that can be helped: it is cleaned of what is ten days old, and
    a service or a session may have one of its own.
    """
    machine = Path("/run/lock")
    directories = [machine] if machine.is_dir() else []
    state = os.environ.get("XDG_STATE_HOME", "")
    with suppress(RuntimeError):  # a container's user may have no home
        directories.append(Path(state if os.path.isabs(state) else "~/.local/state").expanduser())
    with suppress(FileNotFoundError):  # nor any place for what is temporary
        directories.append(Path(tempfile.gettempdir()))
    return directories


@contextmanager
def hold_tables(
    store: str,
    names: Collection[str],
    tables: Sequence[str] = (),
    directories: Sequence[Path] | None = None,
) -> Iterator[TableLocks]:
    """Hold tables of a server for as long as the block runs; see `TableLocks`.

    `store` is what the user knows the store by, `names` what it is known by here, of which another
    process may know only one, `tables` are the first ones to hold, and `directories` where the lock
    file may be; None for `lock_directories()`. Raises StoreLocked if another process records into
    one of the tables, UsageError if there is no place for the lock file.
    """
    fd = _open_lock_file(lock_directories() if directories is None else directories)
    try:
        locks = TableLocks(store, names, fd)
        locks.hold(tables)
        yield locks
    finally:
        os.close(fd)


def _open_lock_file(directories: Sequence[Path]) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    reason = ""
    for directory in directories:
        path = directory / "mexc-trio.tables.lock"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            try:
                # Without O_CREAT: a file of another user's in a directory for all would be refused.
                fd = os.open(path, flags)
            except FileNotFoundError:
                with suppress(FileExistsError):  # another process was quicker
                    _make_lock_file(path)
                fd = os.open(path, flags)
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return fd
            os.close(fd)
            reason = f"{path} (it is a device or a pipe)"
        except OSError as error:
            reason = f"{path} ({error.strerror})"
    raise UsageError(f"cannot open the lock file {reason}")


def _make_lock_file(path: Path) -> None:
    """Make it for all who may write beside it: in the machine's place for everybody.

    And the directory's owner has it, so that he can record after root was the first who came.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    place = path.parent.stat()
    with suppress(OSError):  # not every root may, nor does every file system know owners
        if os.geteuid() == 0:
            os.fchown(fd, place.st_uid, place.st_gid)
        os.fchmod(fd, 0o600 | 3 * (place.st_mode & 0o022))
    os.close(fd)


def describe_process(pid: int) -> str:
    """Return a process by its number and, where the system tells, its command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        command = b" ".join(words).decode("utf-8", "replace").strip()
    except OSError:
        asked = ["ps", "-o", "command=", "-p", str(pid)]
        try:
            answer = subprocess.run(asked, capture_output=True, text=True, timeout=5, check=False)  # noqa: S603
            command = answer.stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            command = ""
    return f"process {pid}" + (f" ({command[:100]})" if command else "")


def who_locks(paths: Sequence[Path], mode: str = "WRITE") -> str:
    """Return which other process has files locked, for WRITE or READ, where the system tells.

    The files are not asked: whoever closes a descriptor of one lets go of all the locks that the
    process has on it.
    """
    try:
        inodes = {str(path.stat().st_ino) for path in paths if path.exists()}
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        locks = []
    for _, kind, _, found, pid, place, *_ in map(str.split, locks):
        is_there = kind == "POSIX" and found == mode and place.rpartition(":")[2] in inodes
        if is_there and int(pid) not in (0, os.getpid()):
            return describe_process(int(pid))
    return "another program"


def _record_holder(fd: int, offset: int) -> str:
    # struct flock as Linux on 64 bits has it; elsewhere the process stays unnamed.
    if sys.platform != "linux":
        return "another process"
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
    pid = struct.unpack("hhqqi4x", fcntl.fcntl(fd, fcntl.F_GETLK, asked))[4]
    return f"process {pid}"
