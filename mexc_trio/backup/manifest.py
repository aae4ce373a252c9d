"""A backup's directory: one Parquet file a table, and `manifest.json`, which says what they hold.

A table's rows are in the order in which they were inserted, times as milliseconds.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from mexc_trio.backup.checksum import Checksum
from mexc_trio.clickhouse.schema import Table, market_table
from mexc_trio.clickhouse.tables import OF_ALL
from mexc_trio.errors import FileError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

NAME: Final = "manifest.json"
_VERSION: Final = 1


class Entry(msgspec.Struct, frozen=True):
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
    tables: list[Entry]

    def encode(self) -> bytes:
        """Return it as the file has it."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def read_manifest(directory: Path) -> Manifest:
    """Read a backup's manifest.

    Raises:
        UsageError: the directory is no backup.
        FileError: it cannot be read, or is a later version's.
    """
    path = directory / NAME
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{directory} is no backup: it has no {NAME}") from error
    except (OSError, msgspec.DecodeError) as error:
        raise FileError(f"{path} cannot be read: {error}") from error
    if manifest.version != _VERSION:
        raise FileError(f"{path} is of version {manifest.version}; this program reads {_VERSION}")
    return manifest


def table_of(name: str, *, wide: bool = False) -> Table:
    """Return the table of that name, as we create it."""
    return OF_ALL.get(name) or market_table(name, wide=wide)


def read_rows(directory: Path, entry: Entry) -> "Iterator[pa.RecordBatch]":
    """Yield the rows of a table's file.

    Raises:
        FileError: it is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = directory / entry.file
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=10_000)
    except (OSError, pa.ArrowException) as error:
        raise FileError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def check_file(directory: Path, entry: Entry) -> None:
    """Read a table's file in full and compare it with the manifest.

    Raises:
        FileError: it is not what was backed up.
    """
    found = Checksum()
    for batch in read_rows(directory, entry):
        found.add(batch)
    if (found.rows, found.digest()) != (entry.rows, entry.checksum):
        raise FileError(f"{directory / entry.file} is not what was backed up: it was damaged")
