"""Formats of ClickHouse: how the pieces of an answer become one document.

The embedded engine gives an answer piece by piece, each a document with a header of its own. Here
they are joined, so that only one piece is ever in memory.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from mexc_trio.read.arrow import is_arrow

_PLAIN: Final = re.compile(
    r"TSV|TabSeparated|TSVRaw|TabSeparatedRaw|CSV|JSONLines|NDJSON|"
    r"JSON(Compact)?(Strings)?EachRow|RowBinary|Native|Null"
)
_HEADER: Final = re.compile(
    r"(TSV|TabSeparated|TSVRaw|TabSeparatedRaw|CSV|JSONCompactEachRow|JSONCompactStringsEachRow|"
    r"RowBinary)WithNames(AndTypes)?"
)


def is_streamed(name: str) -> bool:
    """Return whether an answer in a format can be had in pieces."""
    return is_arrow(name) or any(match.fullmatch(name) for match in (_PLAIN, _HEADER))


def join(name: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces of an answer without the headers of all but the first."""
    match = _HEADER.fullmatch(name)
    if not match:
        yield from pieces
        return
    lines = 2 if match[2] else 1
    length = 0
    for piece in pieces:
        if length:
            yield piece[length:]
        else:
            # The same bytes in each piece, so once is enough.
            length = _header_length(match[1], piece, lines)
            yield piece


def _header_length(family: str, piece: bytes, lines: int) -> int:
    if family == "RowBinary":
        columns, at = _varint(piece, 0)
        for _ in range(columns * lines):
            size, at = _varint(piece, at)
            at += size
        return at
    at = 0
    for _ in range(lines):
        at = piece.index(b"\n", at) + 1
        # Only CSV has line feeds inside of a field, and there an odd number of quotes before them.
        while family == "CSV" and piece[:at].count(b'"') % 2:
            at = piece.index(b"\n", at) + 1
    return at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
