"""Arrow as a server sends it, made the same whatever its version.

Decimals are decimal128 and 64-bit integers are int64, so nothing is rounded; times are timestamps
in UTC; an Enum is its text.
"""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from mexc_trio.clickhouse.types import Type, parse

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Columns = Sequence[tuple[str, str]]
"""Names and ClickHouse types of an answer's columns."""

ARROW_STREAM: Final = "ArrowStream"
BYTES: Final = 2**24
"""Bytes that make a batch even of fewer rows: a book takes a thousand times what a deal takes."""
ROWS: Final = 65536
"""Rows of a batch."""


def read(pieces: Iterable[bytes], columns: Columns) -> "Iterator[pa.RecordBatch]":
    """Yield the rows of one of the engine's Arrow streams as batches, at least one.

    The engine makes a batch of each INSERT that it reads, and of some types what it likes.
    """
    import pyarrow as pa

    schema = _schema(pa, columns)
    waiting: list[Any] = []
    rows = size = 0
    empty = True
    with pa.ipc.open_stream(io.BufferedReader(_Pieces(iter(pieces)))) as reader:
        for batch in reader:
            if not batch.num_rows:
                continue
            waiting.append(pa.Table.from_batches([batch]))
            rows += batch.num_rows
            size += batch.nbytes
            if rows >= ROWS or size >= BYTES:
                yield from _normalized(pa, waiting, columns, schema)
                waiting, rows, size, empty = [], 0, 0, False
    if waiting or empty:
        yield from _normalized(pa, waiting, columns, schema)


def of_values(rows: Sequence[tuple[Any, ...]], columns: Columns) -> "pa.Table":
    """Return rows of the driver's values as a table; those without a type of Arrow's as text."""
    import pyarrow as pa

    schema = _schema(pa, columns)
    values = zip(*rows, strict=True) if rows else [()] * len(columns)
    arrays = [
        pa.array([*map(_text, column)] if field.type == pa.string() else column, field.type)
        for column, field in zip(values, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _text(value: object) -> str | None:
    return None if value is None else str(value)  # an address, or the UUID of a statement


def times(table: "pa.Table") -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return the first column, a time in milliseconds."""
    import pyarrow as pa

    found: np.ndarray[tuple[int], np.dtype[np.int64]] = table.column(0).cast(pa.int64()).to_numpy()
    return found


def in_order(table: "pa.Table") -> "pa.Table":
    """Return the rows in the order of their first column, a time; equal ones as they came."""
    import numpy as np
    import pyarrow as pa

    ts = times(table)
    if not np.any(ts[1:] < ts[:-1]):
        return table
    return table.take(pa.array(np.argsort(ts, kind="stable")))


class _Pieces(io.RawIOBase):
    """A file to read from, made of pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._piece = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._piece:
            if (piece := next(self._pieces, None)) is None:
                return 0
            self._piece = piece
        taken = self._piece[: len(buffer)]
        buffer[: len(taken)] = taken
        self._piece = self._piece[len(taken) :]
        return len(taken)


def _schema(pa: Any, columns: Columns) -> Any:
    types = [(name, parse(type_)) for name, type_ in columns]
    return pa.schema([pa.field(name, _type(pa, t), nullable=t.nullable) for name, t in types])


def _type(pa: Any, type_: Type) -> Any:
    """Return the type of Arrow for one of ClickHouse; text for those without."""
    name = type_.name
    if re.fullmatch(r"U?Int(8|16|32|64)|Float(32|64)", name):
        return getattr(pa, name.lower())()
    if name.startswith("Decimal"):
        precision, scale = (int(number) for number in re.findall(r"\d+", type_.arguments))
        return (pa.decimal128 if precision <= 38 else pa.decimal256)(precision, scale)
    simple = {
        "Bool": pa.bool_(),
        "Date": pa.date32(),
        "Date32": pa.date32(),
        "DateTime": pa.timestamp("s", "UTC"),
    }
    if name in simple:
        return simple[name]
    if name == "DateTime64":
        digits = int(re.findall(r"\d+", type_.arguments)[0])
        unit = "s" if not digits else "ms" if digits <= 3 else "us" if digits <= 6 else "ns"
        return pa.timestamp(unit, "UTC")

    def field(label: str, part: Type) -> Any:
        return pa.field(label, _type(pa, part), nullable=part.nullable)

    if name == "Array":
        return pa.list_(field("item", type_.inner[0]))
    if name == "Tuple":
        labels = type_.names or [str(n + 1) for n in range(len(type_.inner))]
        return pa.struct([field(*pair) for pair in zip(labels, type_.inner, strict=True)])
    if name == "Map":
        return pa.map_(_type(pa, type_.inner[0]), field("value", type_.inner[1]))
    return pa.string()


def _normalized(pa: Any, tables: Sequence[Any], columns: Columns, schema: Any) -> Iterator[Any]:
    """Yield batches of the tables as `schema` has them; one empty batch for none."""
    if not tables:
        yield pa.RecordBatch.from_pylist([], schema=schema)
        return
    table = pa.concat_tables(tables)
    fixed = [
        _cast(pa, column, parse(type_), field.type)
        for column, (_, type_), field in zip(table.columns, columns, schema, strict=True)
    ]
    yield from pa.Table.from_arrays(fixed, schema=schema).combine_chunks().to_batches(ROWS)


def _cast(pa: Any, column: Any, type_: Type, wanted: Any) -> Any:
    if column.type == wanted:
        return column
    if type_.name.startswith("Enum"):
        import pyarrow.compute as pc

        texts = {
            int(number): re.sub(r"\\(.)|''", lambda m: m[1] or "'", text)
            for text, number in re.findall(r"'((?:[^'\\]|\\.|'')*)' = (-?\d+)", type_.arguments)
        }
        keys = pa.array(list(texts), column.type)
        return pc.take(pa.array(list(texts.values())), pc.index_in(column, keys))
    if isinstance(column.type, pa.BaseExtensionType) or pa.types.is_binary(column.type):
        return pa.chunked_array([[str(v) if v is not None else None for v in column.to_pylist()]])
    if pa.types.is_timestamp(wanted) and pa.types.is_integer(column.type):
        column = column.cast(pa.int64())
    return column.cast(wanted)
