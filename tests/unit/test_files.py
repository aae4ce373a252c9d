"""Files: what is written to, and what is never touched."""

import fcntl
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from mexc_trio.errors import FileError, UsageError
from mexc_trio.files import make_directory, refuse_others, whole_directory, whole_file, write_own
from mexc_trio.journal import open_journal
from mexc_trio.locks import hold_file
from mexc_trio.logs import RotatingOutput, start_logging
from mexc_trio.settings.targets import EmbeddedTarget


def test_a_file_is_written_over_only_when_told(tmp_path: Path) -> None:
    """What is there stays, unless `--force` says else."""
    path = tmp_path / "deals.csv"
    path.write_text("before")
    with pytest.raises(UsageError, match="--force"), whole_file(path):
        pass
    with whole_file(path, replace=True) as file:
        file.write(b"after")
    assert path.read_text() == "after"


@pytest.mark.parametrize("whole", [whole_file, whole_directory])
def test_what_another_process_has_just_finished_is_not_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Any
) -> None:
    """Between the opening and the lock it may have got its name: then it is no part any more."""
    lock, path, part = fcntl.flock, tmp_path / "out", tmp_path / ".out.part"

    def finish(fd: int, operation: int) -> None:
        if part.is_dir():
            (part / "btc.parquet").write_text("a backup")
        part.rename(path)
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", finish)
    with pytest.raises(FileError, match="is being written by another process"), whole(path):
        pass
    assert path.is_file() or (path / "btc.parquet").read_text() == "a backup"


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
        assert os.path.samestat(os.lstat(path), before)
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


def test_what_cannot_be_written_leaves_no_piece(tmp_path: Path) -> None:
    """Each run has a name of its own for it, so that pieces would gather."""
    (tmp_path / "contracts.json").mkdir()
    with pytest.raises(IsADirectoryError):
        write_own(tmp_path / "contracts.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["contracts.json"]


ROOT, ALICE, MALLORY = 0, 40_001, 40_002


@pytest.fixture
def above() -> Iterator[Path]:
    """Lend a directory that every user can reach."""
    if os.geteuid() != 0:
        pytest.skip("only root can be several users")
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@contextmanager
def being(user: int) -> Iterator[None]:
    """Do something as another user."""
    before = os.geteuid()
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize(
    ("user", "owner", "mode", "mode_above", "refused"),
    [
        (ALICE, ALICE, 0o700, 0o1777, ""),
        (ALICE, ALICE, 0o775, 0o777, ""),
        (ALICE, ROOT, 0o775, 0o755, ""),
        (ROOT, ROOT, 0o755, 0o755, ""),
        (ROOT, ALICE, 0o755, 0o775, ""),
        (ALICE, MALLORY, 0o700, 0o755, "belongs to user 40002: .*; run it as 40002, or"),
        (ALICE, MALLORY, 0o775, 0o1777, "belongs to user 40002: .*; run it as 40002, or"),
        (ALICE, MALLORY, 0o777, 0o755, "belongs to user 40002 and is open.*; run it"),
        (ALICE, ALICE, 0o777, 0o755, "belongs to user 40001 and is open.*; chmod o-w "),
        (ALICE, ROOT, 0o777, 0o755, "belongs to user root and is open.*like; choose one in it, "),
        (ALICE, ROOT, 0o1777, 0o755, "belongs to user root and is open.*such as .*-data"),
        (ROOT, ROOT, 0o777, 0o755, "belongs to user root and is open.*; chmod o-w "),
        (ROOT, ROOT, 0o1777, 0o755, "belongs to user root and is open.*like; choose one in it, "),
        (ROOT, ALICE, 0o777, 0o755, "belongs to user 40001 and is open.*like; choose one in it, "),
        (ROOT, MALLORY, 0o755, 0o1777, "belongs to user 40002: "),
        (ALICE, ROOT, 0o700, 0o755, "belongs to user root and may not be looked into by user 4000"),
        (ALICE, ALICE, 0o700, 0o700, "is where user 40001 may not look; "),
    ],
)  # fmt: skip
def test_directories_of_others(
    above: Path, user: int, owner: int, mode: int, mode_above: int, refused: str
) -> None:
    """Nothing is kept where somebody else could have us write into our own files."""
    place = above / "store"
    place.mkdir()
    refuse_others(place / "still to be made")
    os.chown(place, owner, owner)
    place.chmod(mode)
    above.chmod(mode_above)
    with being(user):
        if refused:
            with pytest.raises(UsageError, match=f"^directory {place} {refused}") as said:
                refuse_others(place)
            assert "\n" not in str(said.value)
        else:
            refuse_others(place)


@pytest.mark.parametrize(
    ("user", "whose", "mode_above", "refused"),
    [
        (ALICE, ALICE, 0o777, False),
        (ALICE, ROOT, 0o755, False),
        (ALICE, MALLORY, 0o777, True),
        (ROOT, ALICE, 0o755, False),
        (ROOT, MALLORY, 0o1777, True),
    ],
)
def test_links_of_others(
    above: Path, user: int, whose: int, mode_above: int, refused: bool
) -> None:
    """It leads to a directory of the user's own today, and elsewhere when its owner likes."""
    place, link = above / "own", above / "link"
    for mine in (place, place / "inner"):
        mine.mkdir(mode=0o700)
        os.chown(mine, user, user)
    link.symlink_to(place)
    os.lchown(link, whose, whose)
    above.chmod(mode_above)
    with being(user):
        refuse_others(place)
        for directory, what in ((link, "is"), (link / "inner", f"is behind {link},")):
            words = f"^directory {directory} {what} a link of user {whose}, who"
            with pytest.raises(UsageError, match=words) if refused else nullcontext():
                refuse_others(directory)


@pytest.mark.parametrize(
    ("whose", "mode_above", "taken"),
    [(ALICE, 0o1777, True), (ROOT, 0o1777, True), (MALLORY, 0o1777, False), (MALLORY, 0o755, True)],
)
def test_a_log_that_somebody_prepared(
    above: Path, whose: int, mode_above: int, taken: bool
) -> None:
    """A link in /tmp would have our own file written to, which the system does not see, either."""
    precious, link = above / "precious", above / "x.log"
    precious.write_text("years of work")
    os.chown(precious, ALICE, ALICE)
    link.symlink_to(precious)
    os.lchown(link, whose, whose)
    above.chmod(mode_above)
    with being(ALICE):
        if taken:
            RotatingOutput(link).close()
            return
        with pytest.raises(UsageError, match=r"x\.log: another user has put it where everybody"):
            start_logging("info", file=link)
    assert precious.read_text() == "years of work"


@pytest.mark.parametrize("kind", ["file", "hard link"])
def test_a_part_that_somebody_prepared(above: Path, kind: str) -> None:
    """What is exported is no file that another user goes on writing to, nor written into ours."""
    precious, part = above / "precious", above / ".deals.csv.part"
    precious.write_text("years of work")
    if kind == "file":
        part.touch(0o666)
    else:
        part.hardlink_to(precious)
    os.chown(part, MALLORY, MALLORY)
    above.chmod(0o1777)
    with (
        being(ALICE),
        pytest.raises(UsageError, match=r"\.deals\.csv\.part is there, and belongs to"),
        whole_file(above / "deals.csv"),
    ):
        pass
    assert precious.read_text() == "years of work"


def test_a_directory_for_files_that_somebody_prepared(above: Path) -> None:
    """Pages and exports of many files go where nobody else has led them."""
    place, own = above / "report", above / "own"
    own.mkdir()
    os.chown(own, ALICE, ALICE)
    place.symlink_to(own)
    os.lchown(place, MALLORY, MALLORY)
    above.chmod(0o1777)
    with being(ALICE):
        make_directory(own / "a" / "b")
        with pytest.raises(UsageError, match="report: another user has put one where everybody"):
            make_directory(place)
    assert (own / "a" / "b").is_dir()


def test_links_that_lead_in_a_circle(tmp_path: Path) -> None:
    """They are the user's mistake, and told in a line."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for place in (loop, loop / "store"):
        with pytest.raises(UsageError, match=r"links lead in a circle there; choose another$"):
            refuse_others(place)
        assert EmbeddedTarget(place).identity == str(place)


def test_a_journal_in_a_directory_that_somebody_has_just_made(above: Path) -> None:
    """Between the check and the making of it there is time, in a place such as /tmp."""
    place = above / "state"
    refuse_others(place)
    place.mkdir(mode=0o777)
    os.chown(place, MALLORY, MALLORY)
    place.chmod(0o777)
    with (
        being(ALICE),
        pytest.raises(UsageError, match="belongs to user 40002"),
        open_journal(place / "journal.sqlite"),
    ):
        pass
    assert list(place.iterdir()) == []


def test_a_volume(above: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Provisioners of containers' volumes open their top to everybody; /tmp is another thing."""
    monkeypatch.setattr(os.path, "ismount", lambda path: path == above)
    with being(ALICE):
        for mode, refused in ((0o777, False), (0o1777, True)):
            with being(ROOT):
                above.chmod(mode)
            with pytest.raises(UsageError) if refused else nullcontext():
                refuse_others(above)


def test_a_file_system_without_owners(above: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk of another system everything is open to everybody, and no chmod changes it."""
    above.chmod(0o777)
    real = tempfile.TemporaryFile

    def open_to_all(**where: Any) -> Any:
        file = real(**where)
        os.fchmod(file.fileno(), 0o777)
        return file

    with pytest.raises(UsageError):
        refuse_others(above)
    monkeypatch.setattr(tempfile, "TemporaryFile", open_to_all)
    refuse_others(above)
