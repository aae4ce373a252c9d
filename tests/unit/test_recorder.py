"""How a recorder starts and ends: what it needs at the first start, and what it leaves behind."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from mexc_trio.clickhouse.error_codes import error_of
from mexc_trio.clickhouse.tables import Table
from mexc_trio.errors import StoreError, StoreUnavailable, UsageError
from mexc_trio.record import opening
from mexc_trio.rows import RowTuple
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import ServerTarget
from tests.support.running import BTC


@attrs.define(eq=False)
class Refusing:
    """A server of today that answers questions and refuses everything else."""

    refusal: StoreError
    closed: bool = False
    name: str = "ClickHouse at host:9000"
    database: str = "mexc_data"
    concurrency: int = 4
    replicated, hosts, quorum, one_thread = False, (), 0, False

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Answer as a server without the database."""
        if sql == "SELECT version()":
            return [("26.3.1.1",)]
        if sql.startswith("SELECT"):
            return []
        raise self.refusal

    def append(self, table: Table, rows: Sequence[RowTuple]) -> None:
        """Refuse."""
        raise self.refusal

    def server_start_id(self) -> str:
        """Return one."""
        return "1"

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings for a server that no other run of the tests has: its tables are locked."""
    return Settings(store=ServerTarget(host=f"host-{os.getpid()}"), state_dir=tmp_path / "state")


def start(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, refusal: StoreError
) -> tuple[UsageError, Refusing]:
    """Start on a store that refuses; return what the user is told."""
    store = Refusing(refusal)
    monkeypatch.setattr(opening, "open_store", lambda settings, readers: store)
    with (
        pytest.raises(UsageError) as caught,
        opening.open_recording(settings, [BTC]),
    ):
        pass
    return caught.value, store


@pytest.mark.parametrize(
    "refusal",
    [
        error_of(497, "recorder: Not enough privileges. To execute this query ...", "server"),
        error_of(164, "Cannot create database in readonly mode.", "server"),
        StoreUnavailable("server cannot be reached: no route to host"),
    ],
)
def test_a_first_start_that_is_refused_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, refusal: StoreError
) -> None:
    """A missing database without the right to create it is a matter of settings, not an outage."""
    error, store = start(monkeypatch, settings, refusal)
    assert str(refusal) in str(error)
    assert error.exit_code == 2
    assert store.closed
    assert not settings.state_directory.exists()


def test_a_later_start_waits_for_the_store(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """A store that was written to before may be away: recording goes on into the journal."""
    settings.state_directory.mkdir()
    settings.journal_path.touch()
    store = Refusing(StoreUnavailable("server cannot be reached"))
    monkeypatch.setattr(opening, "open_store", lambda settings, readers: store)
    with opening.open_recording(settings, [BTC]) as opened:
        assert [collector.symbol for collector in opened.collectors] == [BTC]


@pytest.mark.parametrize("code", [516, 497, 745, 201, 1002, 16])
def test_a_later_start_records_whatever_the_store_says(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, code: int
) -> None:
    """A store that worked before may refuse: receiving goes on while there is disk."""
    settings.state_directory.mkdir()
    settings.journal_path.touch()
    store = Refusing(error_of(code, "No", "server"))
    monkeypatch.setattr(opening, "open_store", lambda settings, readers: store)
    with opening.open_recording(settings, [BTC]) as opened:
        assert [collector.symbol for collector in opened.collectors] == [BTC]
