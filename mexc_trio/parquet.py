"""Parquet files, for exports and backups."""

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO, Final

from mexc_trio.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

_GROUP_ROWS: Final = 131_072
_GROUP_BYTES: Final = 32 * 1024 * 1024


def need_arrow() -> None:
    """Check that the libraries are there; UsageError, with how to get them, if not."""
    try:
        import numpy as np  # noqa: F401
        import pyarrow as pa  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"this needs pyarrow and numpy ({error}): pip install 'mexc-trio[files]', or "
            f"'mexc-trio[embedded]', which brings them too"
        ) from error


class Parquet:
    """Row groups of a bounded size, compressed with zstd."""

    about: Mapping[str, str] = MappingProxyType({})
    """Nothing that would have to stand beside the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._writer: pa.parquet.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def write(self, table: "pa.Table") -> None:
        """Add rows, which come in their final order."""
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
        """Let go of everything; the file will be removed."""
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
