"""What a table is: its columns and its engine, in one place for all who make or fill one."""

from enum import StrEnum
from typing import Final

import attrs

from mexc_trio import channels
from mexc_trio.rows import RowTuple as RowTuple


class TableEngine(StrEnum):
    """How ClickHouse keeps a table's rows."""

    STRIPELOG = "stripelog"
    """One file that grows at its end: rows are known by their number in it."""


@attrs.frozen
class Table:
    """A table that rows are appended to: its name and its columns in the order of the row."""

    name: str
    columns: tuple[tuple[str, str], ...]
    """Pairs of column name and ClickHouse type. A DateTime64(3) takes milliseconds."""
    engine: TableEngine = TableEngine.STRIPELOG
    """What it is made with if it is not there; one that is there keeps its own."""

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names alone."""
        return tuple(name for name, _ in self.columns)

    @property
    def definition(self) -> str:
        """The SQL of a new table behind its name."""
        parts = ", ".join(f"`{name}` {type_}" for name, type_ in self.columns)
        return f"({parts}) ENGINE = StripeLog"


def market_table(name: str, engine: TableEngine = TableEngine.STRIPELOG) -> Table:
    """Return the table of one symbol."""
    columns = (("ts", "DateTime64(3)"), ("mt", channels.enum()), ("m", "String"))
    return Table(name, columns, engine)


GAPS: Final = Table(
    "gaps",
    (
        ("symbol", "String"),
        ("channel", "String"),
        ("from", "DateTime64(3)"),
        ("to", "DateTime64(3)"),
        ("cause", "String"),
        ("detail", "String"),
        ("version_before", "UInt64"),
        ("version_after", "UInt64"),
    ),
)
"""The ledger of gaps, in the same database as the symbols' tables."""


CONTRACTS: Final = Table(
    "contracts",
    (
        ("symbol", "String"),
        ("as_of", "DateTime64(3)"),
        ("recorded_in", "String"),
        ("contract_size", "Float64"),
        ("tick", "Float64"),
        ("lot", "Float64"),
        ("price_scale", "Int32"),
        ("volume_scale", "Int32"),
        ("state", "Int32"),
        ("rest", "String"),
    ),
)
"""What the exchange says of each recorded contract, a row whenever that changes."""

OF_ALL: Final = {table.name: table for table in (GAPS, CONTRACTS)}
"""The tables that have rows of all symbols, by their names."""
