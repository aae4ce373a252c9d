"""Locks between processes: two recorders of one table would store every row twice."""

import multiprocessing
import os
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from mexc_trio.errors import StoreLocked, UsageError
from mexc_trio.locks import hold_tables, usual_places


def try_to_hold(names: Collection[str], table: str, places: Sequence[Path] | None) -> str:
    """Hold a table as another process does, for a moment; return why that cannot be."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return str(pool.apply(_hold, (names, table, places)))


def _hold(names: Collection[str], table: str, places: Sequence[Path] | None) -> str:
    try:
        with hold_tables("the store", names, [table], places):
            return ""
    except StoreLocked as error:
        return str(error)


def test_one_recorder_for_each_table(tmp_path: Path) -> None:
    """Another table, another store, and a table that was released are free."""
    with hold_tables("the store", ["localhost:9000/db"], ["btc", "eth"], [tmp_path]) as locks:
        refused = try_to_hold(["localhost:9000/db"], "btc", [tmp_path])
        assert f"table btc of the store is being recorded by process {os.getpid()}" in refused
        assert not try_to_hold(["localhost:9000/db"], "sol", [tmp_path])
        assert not try_to_hold(["localhost:9000/other"], "btc", [tmp_path])
        locks.release(["btc"])
        assert not try_to_hold(["localhost:9000/db"], "btc", [tmp_path])
        assert try_to_hold(["localhost:9000/db"], "eth", [tmp_path])


def test_one_store_by_two_names(tmp_path: Path) -> None:
    """`localhost` and `127.0.0.1` are one store when it has said what it is."""
    with hold_tables("the store", ["localhost:9000/db", "uuid"], ["btc"], [tmp_path]):
        assert try_to_hold(["127.0.0.1:9000/db", "uuid"], "btc", [tmp_path])
        assert try_to_hold(["localhost:9000/db"], "btc", [tmp_path]), "it did not answer this one"
        assert not try_to_hold(["127.0.0.1:9000/db", "another"], "btc", [tmp_path])


def test_the_lock_is_where_nobody_cleans_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in /tmp is removed after ten days, and may be a service's own directory."""
    assert usual_places()[0] != Path(tempfile.gettempdir())
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert Path("/state") in usual_places()


def test_the_first_place_that_can_be_had(tmp_path: Path) -> None:
    """A link that somebody has prepared is not followed."""
    first, second = tmp_path / "first", tmp_path / "a" / "second"
    first.mkdir()
    (first / "mexc-trio.tables.lock").symlink_to(tmp_path / "elsewhere")
    with hold_tables("the store", ["db"], ["btc"], [first, second]):
        assert not (tmp_path / "elsewhere").exists()
        assert try_to_hold(["db"], "btc", [second])
    with pytest.raises(UsageError, match="cannot open the lock file"):
        hold_tables("the store", ["db"], ["btc"], [first]).__enter__()
