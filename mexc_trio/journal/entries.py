"""What is written to the journal, as it is in memory and as bytes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from mexc_trio.rows import RowTuple

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(list[RowTuple]).decode


class Marks(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the gap ledger remembers of one table's channels."""

    last: Mapping[str, tuple[int, int]]
    """Time and version of each channel's last row."""
    until: int = 0
    """The rows before this position are considered in that."""
    pending: Sequence[tuple[int | str, ...]] = ()
    """Gaps that have ended and are not yet written."""
    sure: int = 0
    """Milliseconds: the deal after which others may be lacking, though later ones are there; 0 if
    none may."""


class Entry(NamedTuple):
    """Rows of one table that were written to the journal together."""

    rows: list[RowTuple]
    version: int
    """Depth: the highest version among them; 0 if there is none."""


def fitted(rows: list[RowTuple], width: int) -> list[RowTuple]:
    """Return rows as wide as a table: a run before may have had other columns, or 0 there."""
    if not width or all(len(row) == width for row in rows):
        return rows
    return [(*row[:width], *[0] * (width - len(row))) for row in rows]
