"""Locks between processes: two recorders of one table would store every row twice."""

import multiprocessing
import os
import pwd
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from multiprocessing.pool import Pool
from pathlib import Path

import pytest

from mexc_trio.errors import StoreLocked, UsageError
from mexc_trio.locks import hold_tables, lock_directories
from mexc_trio.operate.exclusive import open_exclusively
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget


@pytest.fixture(scope="module")
def another() -> Iterator[Pool]:
    """Lend another process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield pool


@pytest.fixture
def try_to_hold(another: Pool) -> Callable[..., str]:
    """Hold a table as another process does, for a moment; return why that cannot be."""

    def hold(names: Collection[str], table: str, places: Sequence[Path] | None) -> str:
        return str(another.apply(_hold, (names, table, places)))

    return hold


def _hold(names: Collection[str], table: str, places: Sequence[Path] | None) -> str:
    try:
        with hold_tables("the store", names, [table], places):
            return ""
    except StoreLocked as error:
        return str(error)


def test_one_recorder_for_each_table(tmp_path: Path, try_to_hold: Callable[..., str]) -> None:
    """Another table, another store, and a table that was released are free."""
    with hold_tables("the store", ["localhost:9000/db"], ["btc", "eth"], [tmp_path]) as locks:
        refused = try_to_hold(["localhost:9000/db"], "btc", [tmp_path])
        assert f"table btc of the store is being recorded by process {os.getpid()}" in refused
        assert not try_to_hold(["localhost:9000/db"], "sol", [tmp_path])
        assert not try_to_hold(["localhost:9000/other"], "btc", [tmp_path])
        locks.release(["btc"])
        assert not try_to_hold(["localhost:9000/db"], "btc", [tmp_path])
        assert try_to_hold(["localhost:9000/db"], "eth", [tmp_path])


def test_one_store_by_two_names(tmp_path: Path, try_to_hold: Callable[..., str]) -> None:
    """`localhost` and `127.0.0.1` are one store when it has said what it is."""
    with hold_tables("the store", ["localhost:9000/db", "uuid"], ["btc"], [tmp_path]):
        assert try_to_hold(["127.0.0.1:9000/db", "uuid"], "btc", [tmp_path])
        assert try_to_hold(["localhost:9000/db"], "btc", [tmp_path]), "it did not answer this one"
        assert not try_to_hold(["127.0.0.1:9000/db", "another"], "btc", [tmp_path])


def test_the_lock_is_where_nobody_cleans_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in /tmp is removed after ten days, and may be a service's own directory."""
    assert lock_directories()[0] != Path(tempfile.gettempdir())
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert Path("/state") in lock_directories()


def test_neither_a_home_nor_a_place_for_what_is_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user has none of the two; another place will do."""
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: os.stat("/there/is/none"))
    assert all(place == Path("/run/lock") for place in lock_directories())
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.setenv("XDG_STATE_HOME", "state")  # beside whatever is recorded: nobody else's
    assert Path("/home/x/.local/state") in lock_directories()


def test_the_first_place_that_can_be_had(tmp_path: Path, try_to_hold: Callable[..., str]) -> None:
    """A link that somebody has prepared is not followed."""
    first, second = tmp_path / "first", tmp_path / "a" / "second"
    first.mkdir()
    (first / "mexc-trio.tables.lock").symlink_to(tmp_path / "elsewhere")
    with hold_tables("the store", ["db"], ["btc"], [first, second]):
        assert not (tmp_path / "elsewhere").exists()
        assert try_to_hold(["db"], "btc", [second])
    with pytest.raises(UsageError, match="cannot open the lock file"):
        hold_tables("the store", ["db"], ["btc"], [first]).__enter__()


def test_what_somebody_put_in_the_locks_place(tmp_path: Path) -> None:
    """A pipe, a link or a directory of that name in a place for all keeps nobody from recording."""
    places = [tmp_path / name for name in ("pipe", "link", "directory", "good")]
    for place in places:
        place.mkdir()
    name = "mexc-trio.tables.lock"
    os.mkfifo(places[0] / name)
    (places[1] / name).symlink_to(tmp_path / "elsewhere")
    (places[2] / name).mkdir()
    with hold_tables("a store", ["a"], ["btc"], places):
        assert (places[3] / name).is_file()
    assert not (tmp_path / "elsewhere").exists()


def test_who_holds_what_is_the_machines_keeps_nobody_from_his_own_store(
    tmp_path: Path, try_to_hold: Callable[..., str]
) -> None:
    """Any user may hold a byte of the machine's file. The file of a directory is not theirs."""
    settings = Settings(store=EmbeddedTarget(tmp_path))
    with (
        hold_tables("nothing", [settings.store.identity], ["btc"]),
        open_exclusively(settings) as held,
    ):
        held[2](["btc"])
        assert try_to_hold([settings.store.identity], "btc", settings.store.lock_directories)
        (file,) = tmp_path.glob("*.tables.lock")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(("place", "file"), [(0o700, 0o600), (0o775, 0o660), (0o1777, 0o666)])
def test_the_lock_is_for_whoever_may_write_beside_it(tmp_path: Path, place: int, file: int) -> None:
    """Who may not could hold it all the same, if the file let him."""
    tmp_path.chmod(place)
    with hold_tables("the store", ["db"], ["btc"], [tmp_path]):
        (lock,) = tmp_path.iterdir()
        assert stat.S_IMODE(lock.stat().st_mode) == file


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")
def test_the_lock_that_root_was_the_first_to_take_is_the_owners(tmp_path: Path) -> None:
    """Whoever records there does not find after `sudo mexc-trio drain` that he may not."""
    os.chown(tmp_path, 65534, 65533)
    with hold_tables("the store", ["db"], ["btc"], [tmp_path]):
        (lock,) = tmp_path.iterdir()
    found = lock.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 65533, 0o600)
