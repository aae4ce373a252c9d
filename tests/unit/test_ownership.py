"""Whose journal a file is: rows are never lost to another name, and never another store's."""

from pathlib import Path

import pytest

from mexc_trio.journal import open_journal
from mexc_trio.journal.ownership import SPELT, STORE, find_journal


def journal(path: Path, store: str = "", spelt: str = "", rows: int = 0) -> Path:
    """Leave a journal behind, with rows that wait."""
    with open_journal(path) as journal:
        if store:
            journal.file.remember(STORE, store)
        if spelt:
            journal.file.remember(SPELT, spelt)
        journal.queue("btc").append([(n, "d", str(n)) for n in range(rows)])
    return path


def test_the_first_journal_of_a_directory(tmp_path: Path) -> None:
    """A directory that is not there has no journals."""
    usual = tmp_path / "new" / "journal.sqlite"
    assert find_journal(usual, "uuid", "a").path == usual
    assert not usual.parent.exists()


def test_a_store_with_another_name_goes_on_with_its_journal(tmp_path: Path) -> None:
    """Promise 2: rows that wait for a server do not stay behind when it gets another name."""
    before = journal(tmp_path / "journal-localhost-9000-db.sqlite", "uuid", "localhost:9000/db", 3)
    found = find_journal(tmp_path / "journal-10.0.0.1-9000-db.sqlite", "uuid", "10.0.0.1:9000/db")
    assert found.path == before
    assert not found.others


def test_a_store_whose_database_was_made_anew_goes_on_with_its_journal(tmp_path: Path) -> None:
    """A server that was emptied gets again what the journal has."""
    usual = journal(tmp_path / "journal-localhost-9000-db.sqlite", "uuid", "localhost:9000/db")
    assert find_journal(usual, "another uuid", "localhost:9000/db").path == usual


def test_a_store_that_is_away_goes_on_with_its_journal(tmp_path: Path) -> None:
    """Promise 3: that it cannot be asked what it is changes nothing."""
    usual = journal(tmp_path / "journal-localhost-9000-db.sqlite", "uuid", "localhost:9000/db")
    assert find_journal(usual, "", "localhost:9000/db").path == usual


def test_a_journal_of_an_earlier_version_is_known_by_its_name(tmp_path: Path) -> None:
    """Nothing in it says whose it is."""
    usual = journal(tmp_path / "journal.sqlite", rows=2)
    assert find_journal(usual, "uuid", "/data").path == usual


@pytest.mark.parametrize("store", ["", "uuid b"])
def test_two_stores_in_one_directory(tmp_path: Path, store: str) -> None:
    """Promise 2: neither gets the other's rows, and whoever starts is told of them."""
    usual = journal(tmp_path / "journal.sqlite", "uuid a", "/a", 3)
    found = find_journal(usual, store, "/b")
    assert found.path == tmp_path / "journal-2.sqlite"
    (other,) = found.others
    assert (other.path, other.spelt, other.waiting) == (usual, "/a", {"btc": 3})
    journal(found.path, "uuid b", "/b")
    assert find_journal(usual, "uuid b", "/b").path == found.path
    assert find_journal(usual, "uuid a", "/a").path == usual
    assert find_journal(usual, "uuid c", "/c").path == tmp_path / "journal-3.sqlite"


def test_a_journal_in_use_can_be_looked_at(tmp_path: Path) -> None:
    """Looking changes nothing, and waits for nobody."""
    usual = tmp_path / "journal.sqlite"
    with open_journal(usual) as used:
        used.file.remember(SPELT, "/a")
        used.queue("btc").append([(1, "d", "x")])
        used.flush()
        (other,) = find_journal(usual, "", "/b").others
        assert other.backlog == 1
        used.file.check_in_place()


def test_a_file_that_is_no_journal(tmp_path: Path) -> None:
    """It is left to whoever opens it."""
    usual = tmp_path / "journal.sqlite"
    usual.write_bytes(b"no database" * 1000)
    assert find_journal(usual, "uuid", "/a").path == usual
