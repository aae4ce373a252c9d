"""What is no damage, and how far a damaged table can be read, its bad block as seldom as can be."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from mexc_trio.analysis.survey import Size, sizes, survey
from mexc_trio.clickhouse import stripelog
from mexc_trio.clickhouse.repair import longest_readable
from mexc_trio.clickhouse.tables import market_table
from mexc_trio.errors import TableDamaged
from mexc_trio.record.rewriting import RewritingProgress

GOOD, ROWS = 300, 2300


@attrs.define
class Damaged:
    """A table of which the first `GOOD` rows can be read, in an engine with some haste."""

    ends: list[int]
    """Which row each read that goes as far as it can is heard to have come to."""
    name: str = "store"
    database: str = "mexc_data"
    slow: int = 0
    """Reads of the damaged block."""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Answer a read of so many rows."""
        (limit,) = map(int, re.findall(r"LIMIT (\d+)", sql)) if "LIMIT" in sql else (0,)
        if limit > GOOD:
            self.slow += 1
            raise TableDamaged("checksum")
        return [(limit, 0)]

    def rows_before_error(self, sql: str) -> list[tuple[Any, ...]]:
        """Answer a read of all."""
        self.slow += 1
        end = self.ends.pop(0) if self.ends else 0
        return [(end,)] if end else []


@pytest.mark.parametrize(
    ("ends", "slow"), [([300], 2), ([100, 300], 3), ([300, 100], 2), ([0, 0, 0, 300], 5)]
)
def test_an_error_that_overtakes_blocks_costs_one_read_more(ends: Sequence[int], slow: int) -> None:
    """Each read of a large damaged block takes the engine a minute: asking again beats halving."""
    table = Damaged(list(ends))
    assert longest_readable(table, market_table("btc"), ROWS) == GOOD
    assert table.slow == slow


@pytest.mark.parametrize("rows", [ROWS, None])
def test_an_engine_that_never_says_how_far_it_came(rows: int | None) -> None:
    """Then steps and halving find it."""
    assert longest_readable(Damaged([]), market_table("btc"), rows) == GOOD


@attrs.frozen
class Sound:
    """A store with one table of one row."""

    name: str = "store"
    database: str = "mexc_data"

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Answer what a survey asks."""
        if "system.tables" in sql:
            return [("btc", 1)]
        return [("t", 1, 0, 0, 5)] if "cityHash64" in sql else [(1,)]

    def rows_before_error(self, sql: str) -> list[tuple[Any, ...]]:
        """Nobody asks."""
        raise NotImplementedError


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Make two tables' files as an engine has them, and return what names the larger."""
    for name, size in (("old", 1000), ("new", 10)):
        directory = tmp_path / "store" / name
        directory.mkdir(parents=True)
        for file in ("data.bin", "index.mrk"):
            (directory / file).write_bytes(bytes(size))
        files = {file: {"size": str(size)} for file in ("data%2Ebin", "index%2Emrk")}
        (directory / "sizes.json").write_text(json.dumps({"clickhouse": files}))
    link = tmp_path / "data" / "mexc_data" / "btc"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "store" / "old")
    return link


def test_a_table_that_is_replaced_meanwhile_is_not_damaged(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recorder may compact it just now: lengths of the new files are none of the old one's."""
    noted_sizes = stripelog.noted_sizes

    def replaced(directory: Path) -> dict[str, int] | None:
        noted = noted_sizes(directory)
        table.unlink()
        table.symlink_to(tmp_path / "store" / "new")
        shutil.rmtree(tmp_path / "store" / "old", ignore_errors=True)
        return noted

    kept = shutil.copytree(tmp_path / "store" / "old", tmp_path / "kept")
    monkeypatch.setattr(stripelog, "noted_sizes", replaced)
    assert not stripelog.needs_repair(table)
    kept.rename(tmp_path / "store" / "old")
    table.unlink()
    table.symlink_to(tmp_path / "store" / "old")
    assert not survey(Sound(), market_table("btc"), "mt", ("ts", "ts"), tmp_path).damage


def test_files_that_go_while_they_are_looked_at(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a recorder's engine removes just now has no size, and is no error."""
    is_file = Path.is_file

    def gone(path: Path) -> bool:
        found = is_file(path)
        if path.name == "index.mrk":
            path.unlink()
        return found

    monkeypatch.setattr(Path, "is_file", gone)
    of_index = (tmp_path / "store" / "old" / "sizes.json").stat().st_size
    assert sizes(Sound(), tmp_path) == {"btc": Size(1000 + of_index, 1000, 0)}


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"clickhouse": 1}', '{"clickhouse": {"a": 1}}', "[" * 100_000]
)
def test_sizes_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    """Whatever stands in the file of a store that somebody else made is no bug of ours."""
    (tmp_path / "sizes.json").write_text(content)
    assert stripelog.noted_sizes(tmp_path) is None


@pytest.mark.parametrize("fact", ["", "null", "[1]", '{"done": 1}', "[" * 100_000])
def test_progress_that_cannot_be_read(fact: str) -> None:
    """A journal may say anything; who waits for a rewriting waits on, and says so."""
    assert RewritingProgress.read(fact) == RewritingProgress()
