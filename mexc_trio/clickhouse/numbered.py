"""The SQL about tables of numbered rows: which numbers there are, and what stands under them."""

from collections.abc import Sequence
from typing import Final

import attrs

from mexc_trio.clickhouse.repair import select
from mexc_trio.clickhouse.schema import TIME, Readable, qualified
from mexc_trio.clickhouse.tables import NUMBER, Table
from mexc_trio.rows import RowTuple

MOST_MISSING: Final = 100
"""Places without rows that are told of a table at once."""


@attrs.frozen
class NumberRange:
    """The numbers of a table that has rows."""

    highest: int
    oldest: int
    """The time of the row with the lowest number, in milliseconds."""


@attrs.frozen
class MissingNumbers:
    """Numbers that no row has, between two that some row has."""

    before: int
    """The number after the last missing one."""
    rows: int
    start: int
    """The time of the last row in front of it, in milliseconds."""
    end: int
    """That of the first row behind it."""


def rows_between(store: Readable, table: Table, first: int, end: int) -> list[tuple[int, RowTuple]]:
    """Return the rows with numbers from `first` on and below `end`, each with its number.

    They are in the form in which they were appended, in no particular order.
    """
    whole = attrs.evolve(table, columns=(*table.columns, (NUMBER, "UInt64")))
    condition = f"WHERE {NUMBER} >= {max(0, first)} AND {NUMBER} < {max(0, end)}"
    return [(int(row[-1]), row[:-1]) for row in select(store, whole, condition)]


def numbers(store: Readable, table: Table) -> NumberRange | None:
    """Return which numbers a table has; None if it has no rows."""
    name = qualified(store, table.name)
    found = store.query(f"SELECT count(), min({NUMBER}), max({NUMBER}) FROM {name}")[0]
    rows, lowest, highest = map(int, found)
    if not rows:
        return None
    oldest = store.query(f"SELECT min({TIME}) FROM {name} WHERE {NUMBER} = {lowest}")[0][0]
    return NumberRange(highest, int(oldest))


def end_of(store: Readable, table: str) -> int:
    """Return the number that the next row of a table would have."""
    found = store.query(f"SELECT count(), max({NUMBER}) FROM {qualified(store, table)}")[0]
    return int(found[1]) + 1 if int(found[0]) else 0


def missing_numbers(store: Readable, table: Table) -> Sequence[MissingNumbers]:
    """Return where numbers are missing between rows, the lowest first; reads two columns."""
    found = store.query(
        f"SELECT number, number - before - 1, since, at FROM ("
        f"SELECT toInt64({NUMBER}) AS number, {TIME} AS at, "
        f"lagInFrame(number, 1, number - 1) OVER w AS before, "
        f"lagInFrame(at, 1, at) OVER w AS since FROM {qualified(store, table.name)} "
        f"WINDOW w AS (ORDER BY {NUMBER} ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)) "
        f"WHERE number - before > 1 ORDER BY number LIMIT {MOST_MISSING}"
    )
    return [MissingNumbers(*map(int, line)) for line in found]
