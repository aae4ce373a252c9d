"""What is written to the journal, as it is in memory and as bytes."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from mexc_trio.rows import RowTuple

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(list[RowTuple]).decode

Marks = Mapping[str, tuple[int, int]]
"""Time and version of each channel's last row: what the gap ledger remembers."""


class Entry(NamedTuple):
    """Rows of one table that were written to the journal together."""

    rows: list[RowTuple]
    version: int
    """Depth: the highest version among them; 0 if there is none."""
