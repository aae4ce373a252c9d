"""Rows as Parquet, CSV and JSON lines.

Parquet has the types of the typed views: times in milliseconds UTC, numbers Float64; exact ones are
Decimal(38, 18), which is what its readers have. CSV and JSON lines have times in ISO 8601 with a Z,
and a book's prices and amounts as JSON arrays; what the exchange did not send is empty, or null.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol

from mexc_trio.errors import UsageError
from mexc_trio.export.request import Request

if TYPE_CHECKING:
    import pyarrow as pa

_GROUP_ROWS: Final = 131_072
_GROUP_BYTES: Final = 32 * 1024 * 1024


class Writer(Protocol):
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
def open_writer(
    request: Request, names: Sequence[str], file: BinaryIO, gaps: Sequence[int] = ()
) -> Iterator[Writer]:
    """Lend the writer of the request's format.

    Args:
        request: what was asked for.
        names: the rows' columns.
        file: where it is written.
        gaps: for hftbacktest, when gaps in the books begin.
    """
    writer = _writer(request, names, file, gaps)
    try:
        yield writer
        writer.close()
    except BaseException:
        writer.abandon()
        raise


def _writer(request: Request, names: Sequence[str], file: BinaryIO, gaps: Sequence[int]) -> Writer:
    if request.format == "parquet":
        return Parquet(file)
    if request.format == "hftbacktest":
        from mexc_trio.export.hftbacktest import Events

        return Events(file, gaps, request.latency)
    return Lines(file, header=names if request.format == "csv" else ())


def need_arrow() -> None:
    """Check that the libraries are there.

    Raises:
        UsageError: they are not; it says how to get them.
    """
    try:
        import numpy as np  # noqa: F401
        import pyarrow as pa  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"this needs pyarrow and numpy ({error}): pip install 'mexc-trio[files]', or "
            f"'mexc-trio[embedded]', which brings them too"
        ) from error


class Lines:
    """One line a row, as the engine has written it: the second of two columns."""

    about: Mapping[str, str] = MappingProxyType({})

    def __init__(self, file: BinaryIO, header: Sequence[str] = ()) -> None:
        self._file = file
        if header:
            file.write(",".join(header).encode() + b"\n")

    def write(self, table: "pa.Table") -> None:
        """See `Writer.write`."""
        lines = table.column(1).to_pylist()
        self._file.write(("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))

    def close(self) -> None:
        """Nothing follows the last line."""

    def abandon(self) -> None:
        """See `Writer.abandon`."""


class Parquet:
    """Row groups of a bounded size, compressed with zstd."""

    about: Mapping[str, str] = MappingProxyType({})

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._writer: pa.parquet.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def write(self, table: "pa.Table") -> None:
        """See `Writer.write`."""
        self._waiting.append(table)
        rows = sum(waiting.num_rows for waiting in self._waiting)
        if rows >= _GROUP_ROWS or sum(t.nbytes for t in self._waiting) >= _GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the rows that wait, and the footer."""
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def abandon(self) -> None:
        """See `Writer.abandon`."""
        if self._writer is not None:
            # Else it would close itself some day, and find its file closed.
            with suppress(OSError, ValueError):
                self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting = []
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, table.schema, compression="zstd")
        self._writer.write_table(table)


class Piped(io.RawIOBase, BinaryIO):
    """Standard output as a file that can tell how much was written."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._written = 0

    def writable(self) -> bool:
        """It is for nothing else."""
        return True

    def write(self, data: Any) -> int:
        """Pass all of it on."""
        self._file.write(data)
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        """Return the bytes so far."""
        return self._written
