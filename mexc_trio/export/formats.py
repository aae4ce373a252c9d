"""Rows as Parquet, CSV and JSON lines.

Parquet has the types of the typed views: times in milliseconds UTC, numbers Float64; exact ones are
Decimal(38, 18), which is what its readers have. CSV and JSON lines have times in ISO 8601 with a Z,
and a book's prices and amounts as JSON arrays; what the exchange did not send is empty, or null.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from mexc_trio.export.local_time import LocalClock
from mexc_trio.export.part import Part
from mexc_trio.export.source import ExportSource
from mexc_trio.parquet import Parquet
from mexc_trio.texts import shown

if TYPE_CHECKING:
    import pyarrow as pa


class FileWriter(Protocol):
    """Writes rows into one file."""

    def write(self, table: "pa.Table") -> None:
        """Add rows, which come in their final order."""

    def close(self) -> None:
        """Write what a file of the format ends with. The file itself stays open."""

    def abandon(self) -> None:
        """Let go of everything; the file will be removed."""

    @property
    def about(self) -> Mapping[str, str]:
        """What is to stand in a file beside this one, when it is closed; mostly nothing."""


@contextmanager
def open_writer(source: ExportSource, part: Part, file: BinaryIO) -> Iterator[FileWriter]:
    """Lend what writes a part of a source's rows into a file, in the request's format."""
    writer = _writer(source, part, file)
    try:
        yield writer
        writer.close()
    except BaseException:
        writer.abandon()
        raise


def _writer(source: ExportSource, part: Part, file: BinaryIO) -> FileWriter:
    request = source.request
    if request.format == "parquet":
        return Parquet(file)
    if request.format == "hftbacktest":
        from mexc_trio.export.hftbacktest import EventFile

        return EventFile(file, part.gaps, LocalClock(request.latency, part.known), part.terms)
    return LineWriter(file, header=source.names if request.format == "csv" else ())


class LineWriter:
    """One line a row, as the engine has written it: the second of two columns."""

    about: Mapping[str, str] = MappingProxyType({})

    def __init__(self, file: BinaryIO, header: Sequence[str] = ()) -> None:
        self._file = file
        if header:
            file.write(",".join(header).encode() + b"\n")

    def write(self, table: "pa.Table") -> None:
        """See `FileWriter.write`."""
        lines = table.column(1).to_pylist()
        self._file.write(("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))

    def close(self) -> None:
        """Nothing follows the last line."""

    def abandon(self) -> None:
        """See `FileWriter.abandon`."""


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
