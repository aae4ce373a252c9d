"""Parquet files, for exports and backups."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def open_parquet(file: BinaryIO) -> "Iterator[Callable[[pa.Table], None]]":
    """Lend what adds rows, which come in their final order; the file is whole when the block ends.

    Row groups have a bounded size, and are compressed with zstd.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: pq.ParquetWriter | None = None
    waiting: list[pa.Table] = []

    def flush() -> None:
        nonlocal writer
        if waiting:
            table = pa.concat_tables(waiting)
            waiting.clear()
            writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
            writer.write_table(table)

    def write(table: pa.Table) -> None:
        waiting.append(table)
        rows = sum(table.num_rows for table in waiting)
        if rows >= _GROUP_ROWS or sum(table.nbytes for table in waiting) >= _GROUP_BYTES:
            flush()

    try:
        yield write
        flush()
        if writer is not None:
            writer.close()
    except BaseException:
        if writer is not None:
            # Else it would close itself some day, and find its file closed.
            with suppress(OSError, ValueError):
                writer.close()
        raise
