"""Files: what is written to, and what is never touched."""

import os
import socket
import stat
from pathlib import Path

import pytest

from mexc_trio.errors import UsageError
from mexc_trio.files import whole_file, write_own
from mexc_trio.locks import hold_file


def test_a_file_is_written_over_only_when_told(tmp_path: Path) -> None:
    """What is there stays, unless `--force` says else."""
    path = tmp_path / "deals.csv"
    path.write_text("before")
    with pytest.raises(UsageError, match="--force"), whole_file(path):
        pass
    with whole_file(path, replace=True) as file:
        file.write(b"after")
    assert path.read_text() == "after"


@pytest.mark.parametrize("kind", ["pipe", "socket", "link to a device", "link to a pipe"])
def test_force_replaces_nothing_but_files(tmp_path: Path, kind: str) -> None:
    """`--out /dev/stdout --force` leaves /dev/stdout what it is, for everybody's sake."""
    path = tmp_path / "out"
    with socket.socket(socket.AF_UNIX) as listener:
        match kind:
            case "pipe":
                os.mkfifo(path)
            case "socket":
                listener.bind(str(path))
            case "link to a device":
                path.symlink_to(os.devnull)
            case _:
                os.mkfifo(tmp_path / "pipe")
                path.symlink_to("pipe")
        before = os.lstat(path)
        with (
            pytest.raises(UsageError, match="is a device or a pipe"),
            whole_file(path, replace=True),
        ):
            pass
        assert os.lstat(path) == before
    assert not list(tmp_path.glob(".*"))


def test_a_lock_is_the_users_own(tmp_path: Path) -> None:
    """Others may not read it, and so cannot hold it either."""
    with hold_file(tmp_path / "store.lock", "store"):
        assert stat.S_IMODE((tmp_path / "store.lock").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_a_prepared_lock_writes_to_nothing_else(tmp_path: Path, kind: str) -> None:
    """Whoever may make a file in the directory does not choose what is written over."""
    precious, lock = tmp_path / "precious", tmp_path / "store.lock"
    precious.write_text("years of work")
    match kind:
        case "link":
            lock.symlink_to(precious)
        case "hard link":
            lock.hardlink_to(precious)
        case _:
            os.mkfifo(lock)
    with (
        pytest.raises(UsageError, match=r"store: cannot write .*store.lock"),
        hold_file(lock, "store"),
    ):
        pass
    assert precious.read_text() == "years of work"


def test_an_address_is_written_to_nothing_else(tmp_path: Path) -> None:
    """A link that has the name of the address is replaced, and where it leads is left alone."""
    precious, address = tmp_path / "precious", tmp_path / "metrics.url"
    precious.write_text("years of work")
    for name in ("metrics.url", "metrics.new", f".metrics.url.{os.getpid()}"):
        (tmp_path / name).symlink_to(precious)
    write_own(address, "http://127.0.0.1:1/metrics\n")
    assert precious.read_text() == "years of work"
    assert address.read_text() == "http://127.0.0.1:1/metrics\n"
    assert stat.S_IMODE(address.lstat().st_mode) == 0o600
