"""Rows as Parquet, CSV and JSON lines.

Parquet has the types of the typed views: times in milliseconds UTC, numbers Float64; exact ones are
Decimal(38, 18), which is what its readers have. CSV and JSON lines have times in ISO 8601 with a Z,
and a book's prices and amounts as JSON arrays; what the exchange did not send is empty, or null.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from mexc_trio.export.local_time import LocalClock
from mexc_trio.export.part import Part
from mexc_trio.export.source import ExportSource
from mexc_trio.parquet import open_parquet
from mexc_trio.texts import shown

if TYPE_CHECKING:
    import pyarrow as pa

AddRows: TypeAlias = "Callable[[pa.Table], None]"
"""Adds rows to a file; they come in their final order."""


@contextmanager
def open_writer(
    source: ExportSource, part: Part, file: BinaryIO
) -> Iterator[tuple[AddRows, Mapping[str, str]]]:
    """Lend what writes a part of a source's rows into a file, in the request's format.

    And what is to stand in a file beside this one, which is known when the block has ended; mostly
    nothing.
    """
    request = source.request
    if request.format == "parquet":
        with open_parquet(file) as write:
            yield write, {}
    elif request.format == "hftbacktest":
        from mexc_trio.export.hftbacktest import open_events

        local = LocalClock(request.latency, part.known)
        with open_events(file, part.gaps, local, part.terms) as (write, about):
            yield write, about
    else:
        if request.format == "csv":
            file.write(",".join(source.names).encode() + b"\n")

        def write_lines(table: "pa.Table") -> None:
            lines = table.column(1).to_pylist()  # as the engine has written them
            file.write(("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))

        yield write_lines, {}


class Piped(io.RawIOBase, BinaryIO):
    """Standard output as a file that can tell how much was written, and does a terminal no harm."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._written = 0
        self._for_people = file.isatty()

    def writable(self) -> bool:
        """It is for nothing else."""
        return True

    def write(self, data: Any) -> int:
        """Pass all of it on."""
        self._file.write(shown(bytes(data)) if self._for_people else data)
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        """Return the bytes so far."""
        return self._written
