"""The SQL for rows of a table as backups and restores compare them, in their order."""

from collections.abc import Mapping, Sequence

from mexc_trio.backup.manifest import table_of
from mexc_trio.clickhouse.schema import literal, milliseconds, qualified, quoted
from mexc_trio.clickhouse.tables import in_order, is_numbered
from mexc_trio.read.reading import Reader

Types = Mapping[str, str]
"""Types of a table's columns by their names."""


def select_rows(
    reader: Reader,
    table: str,
    types: Types,
    limit: str,
    *,
    as_table: str = "",
    wide: bool = False,
    only: Sequence[str] = (),
) -> str:
    """Return a SELECT of whole numbers and texts, in the order of insertion.

    `limit` says which rows, as in SQL: `10` are the first ten, `5, 10` the ten after the fifth. The
    columns, of which `types` has the types, are those of `as_table`, if the table has another name
    for now. If `wide`, the receipt of rows is wanted. `only` are the symbols whose rows of the
    ledger of gaps are wanted. Of the reader only the names are used.
    """
    # Named apart from the columns, which a WHERE may be about.
    wanted = ", ".join(
        f"{_value(name, types[name])} AS {quoted('value_' + name)}"
        for name in table_of(as_table or table, wide=wide).column_names
    )
    source = qualified(reader, table) + in_order(is_numbered(types))
    rows = f"(SELECT * FROM {source} LIMIT {limit})"
    where = f" WHERE symbol IN ({', '.join(map(literal, only))})" if only else ""
    return f"SELECT {wanted} FROM {rows}{where} SETTINGS max_threads = 1"


def _value(name: str, type_: str) -> str:
    if type_ == "DateTime64(6)":
        return f"toUnixTimestamp64Micro({quoted(name)})"
    if type_.startswith("DateTime64"):
        return milliseconds(quoted(name), type_)
    if type_.startswith(("UInt", "Int")):
        return quoted(name)
    return f"CAST({quoted(name)}, 'String')"
