"""A backup's directory: one Parquet file a table, and `manifest.json`, which says what they hold.

A table's rows are in the order in which they were inserted, times as milliseconds.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from mexc_trio.backup.checksum import Checksum
from mexc_trio.clickhouse.tables import SHARED_TABLES, Table, market_table
from mexc_trio.errors import FileError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST: Final = "manifest.json"
_VERSION: Final = 1


class SavedTable(msgspec.Struct, frozen=True):
    """A table of a backup."""

    table: str
    rows: int
    checksum: str
    """See `Checksum`; empty if there are no rows."""
    wide: bool = False
    """Whether its rows have their receipt."""

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.table}.parquet"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds."""

    version: int = _VERSION
    taken: str
    """When, in UTC."""
    store: str
    """From where, without secrets."""
    tables: list[SavedTable]

    def encode(self) -> bytes:
        """Return it as the file has it."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def read_manifest(directory: Path) -> Manifest:
    """Read a backup's manifest.

    Raises UsageError if the directory is no backup, FileError if the manifest cannot be read, or is
    a later version's.
    """
    path = directory / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{directory} is no backup: it has no {MANIFEST}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path} cannot be read: {error}") from error
    if manifest.version != _VERSION:
        raise FileError(f"{path} is of version {manifest.version}; this program reads {_VERSION}")
    names = [entry.table for entry in manifest.tables]
    for name in names:
        if not names_a_file(name) or names.count(name) > 1:
            raise FileError(f"{path} has a table {name!r}, as no backup has")
    return manifest


def names_a_file(table: str) -> bool:
    """Whether a table's name, which somebody else may have chosen, may be a file's of a backup."""
    return bool(table) and table.isprintable() and "/" not in table


def table_of(name: str, *, wide: bool = False) -> Table:
    """Return the table of that name, as we create it."""
    return SHARED_TABLES.get(name) or market_table(name, wide=wide)


def read_rows(directory: Path, entry: SavedTable) -> "Iterator[pa.RecordBatch]":
    """Yield the rows of a table's file; FileError if it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = directory / entry.file
    if path.exists() and not path.is_file():
        raise FileError(f"{path} is no file")
    types = [type_ for _, type_ in table_of(entry.table, wide=entry.wide).columns]
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=10_000):
                if not _fits(batch, types):
                    raise FileError(f"{path} has other columns than table {entry.table}")
                yield batch
    except (OSError, pa.ArrowException) as error:
        raise FileError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def _fits(batch: "pa.RecordBatch", types: Sequence[str]) -> bool:
    """Whether it has columns as a backup writes those of these types, without missing values."""
    import pyarrow as pa

    def has(column: "pa.Array", type_: str) -> bool:
        if type_.startswith(("DateTime64", "UInt", "Int")):
            return bool(pa.types.is_integer(column.type))
        return bool(pa.types.is_string(column.type) or pa.types.is_binary(column.type))

    return batch.num_columns == len(types) and all(
        not column.null_count and has(column, type_)
        for column, type_ in zip(batch.columns, types, strict=True)
    )


def check_file(directory: Path, entry: SavedTable) -> None:
    """Read a table's file in full; FileError if it is not what the manifest says."""
    found = Checksum()
    for batch in read_rows(directory, entry):
        found.add(batch)
    if (found.rows, found.digest()) != (entry.rows, entry.checksum):
        raise FileError(f"{directory / entry.file} is not what was backed up: it was damaged")
