"""How far a damaged table can be read, with as few reads of the damaged block as can be."""

import re
from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from mexc_trio.clickhouse.repair import longest_readable
from mexc_trio.clickhouse.tables import market_table
from mexc_trio.errors import TableDamaged

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
