"""Rows of a table as backups and restores compare them: how they are read, and their checksum.

Each column is hashed by itself: numbers as 64 bits, texts by their bytes, and their lengths apart
from those. The parts in which rows come leave no trace in it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from mexc_trio.clickhouse.schema import literal, milliseconds, qualified, quoted
from mexc_trio.clickhouse.tables import in_order, is_numbered
from mexc_trio.read.reading import Reader

if TYPE_CHECKING:
    import pyarrow as pa


@attrs.define
class Checksum:
    """Rows that were added so far."""

    rows: int = 0
    _hashes: list["hashlib._Hash"] = attrs.field(factory=list, init=False)

    def add(self, batch: "pa.RecordBatch") -> None:
        """Add rows: columns of whole numbers and of texts, without missing values."""
        if not self._hashes:
            self._hashes = [hashlib.sha256() for _ in range(2 * batch.num_columns)]
        self.rows += batch.num_rows
        for number, column in enumerate(batch.columns):
            lengths, content = _bytes_of(column)
            self._hashes[2 * number].update(lengths)
            self._hashes[2 * number + 1].update(content)

    def digest(self) -> str:
        """Return the checksum of the rows added so far; of no rows it is empty."""
        if not self.rows:
            return ""
        whole = hashlib.sha256(str(self.rows).encode())
        for part in self._hashes:
            whole.update(part.digest())
        return whole.hexdigest()


def _bytes_of(column: "pa.Array") -> tuple[bytes, memoryview | bytes]:
    """Return the lengths of a column's values (of numbers: nothing) and the values."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_integer(column.type):
        return b"", column.to_numpy(zero_copy_only=False).astype("<i8", casting="unsafe").tobytes()
    texts = column.cast(pa.binary())
    _, ends, content = texts.buffers()
    if not len(texts):
        return b"", b""
    offsets = np.frombuffer(ends, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    lengths = np.diff(offsets).astype("<i4").tobytes()
    return lengths, memoryview(content or b"")[offsets[0] : offsets[-1]]


Types = Mapping[str, str]
"""Types of a table's columns by their names."""


def select_rows(
    reader: Reader,
    table: str,
    types: Types,
    wanted: Sequence[str],
    limit: str,
    only: Sequence[str] = (),
) -> str:
    """Return a SELECT of whole numbers and texts, in the order of insertion.

    `types` has the types of the table's columns, of which some are wanted. `limit` says which rows,
    as in SQL: `10` are the first ten, `5, 10` the ten after the fifth. `only` are the symbols whose
    rows of the ledger of gaps are wanted. Of the reader only the names are used.
    """
    # Named apart from the columns, which a WHERE may be about.
    values = (f"{_value(name, types[name])} AS {quoted('value_' + name)}" for name in wanted)
    source = qualified(reader, table) + in_order(is_numbered(types))
    rows = f"(SELECT * FROM {source} LIMIT {limit})"
    where = f" WHERE symbol IN ({', '.join(map(literal, only))})" if only else ""
    return f"SELECT {', '.join(values)} FROM {rows}{where} SETTINGS max_threads = 1"


def _value(name: str, type_: str) -> str:
    if type_ == "DateTime64(6)":
        return f"toUnixTimestamp64Micro({quoted(name)})"
    if type_.startswith("DateTime64"):
        return milliseconds(name)
    if type_.startswith(("UInt", "Int")):
        return quoted(name)
    return f"CAST({quoted(name)}, 'String')"
