"""What is written to the journal, as it is in memory and as bytes."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from mexc_trio.rows import RowTuple

Count = Annotated[int, msgspec.Meta(ge=0)]
encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(list[RowTuple]).decode


class Marks(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the gap ledger remembers of one table's channels."""

    last: Mapping[str, tuple[int, int]]
    """Time and version of each channel's last row."""
    until: int = 0
    """The rows before this position are considered in that."""
    pending: Sequence[tuple[str, str, int, int, str, str, int, int]] = ()
    """Gaps that have ended and are not yet written."""
    uncertain_since: int = 0
    """Milliseconds: the deal after which others may be lacking, though later ones are there; 0 if
    none may."""


class TableState(NamedTuple):
    """What is remembered of one table."""

    name: str
    acked: Count
    table_rows: Count | None
    engine: str
    marks: bytes
    base: int | None = None
    """The number in the table of the row at position 0, below 0 where the table has lost rows
    before; None if its rows are not numbered."""
    sent: Count = 0
    """The position after the last row that was ever sent to a table of numbered rows."""
    after_reboot: bool = False
    """Whether the machine was started anew since: the journal's own end may be lost."""

    def crc(self) -> int:
        """Return the checksum of all but `after_reboot`, which is set later than the rest."""
        numbered = () if self.base is None else (self.base, self.sent)
        return zlib.crc32(repr((*self[:5], *numbered)).encode())


class Stored(NamedTuple):
    """Rows of one table that were written together."""

    table: int
    first: Count
    """The position of the first of them."""
    n: Annotated[int, msgspec.Meta(ge=1)]
    at: int
    """When they were written, in milliseconds since 1970."""
    version: int
    rows: bytes

    def crc(self) -> int:
        """Return the checksum."""
        return zlib.crc32(self.rows, zlib.crc32(repr(self[:5]).encode()))


Kind = TypeVar("Kind", TableState, Stored)


def read_back(kind: type[Kind], values: Sequence[object], crc: object) -> Kind:
    """Return what was written, from its columns in the file.

    Raises:
        ValueError: a value is none of its kind, which a column's type does not see to, or the
            checksum is that of something else.
    """
    found = msgspec.convert(values, kind, builtin_types=(bytes,))  # else a text may become bytes
    if found.crc() != crc:
        raise ValueError("another checksum")
    return found


def fact_crc(name: str, value: str) -> int:
    """Return the checksum of what is remembered under a name."""
    # As a text, which it is when it is read: it may be a member of an enumeration now.
    return zlib.crc32(repr((name, str(value))).encode())


class Entry(NamedTuple):
    """Rows of one table that were written to the journal together."""

    rows: list[RowTuple]
    version: int
    """Depth: the highest version among them; 0 if there is none."""


def with_width(rows: list[RowTuple], width: int) -> list[RowTuple]:
    """Return rows as wide as a table: a run before may have had other columns, or 0 there."""
    if not width or {*map(len, rows)} <= {width}:
        return rows
    return [(*row[:width], *[0] * (width - len(row))) for row in rows]


def decode_rows(data: bytes, n: int) -> list[RowTuple]:
    """Return the rows of an entry.

    Raises:
        ValueError: they are none, or not so many.
    """
    rows = decode(data)
    if len(rows) != n:
        raise ValueError(f"{len(rows)} rows instead of {n}")
    return rows


_MARKS = Marks | dict[str, tuple[int, int]]
"""A table's marks as they are kept, and as earlier versions did."""


def decode_marks(data: bytes) -> Marks:
    """Return a table's marks.

    Raises:
        ValueError: they are none.
    """
    marks = msgspec.msgpack.decode(data, type=_MARKS)
    return marks if isinstance(marks, Marks) else Marks(marks)
