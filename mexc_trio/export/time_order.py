"""Putting rows in the order of time, in little memory.

A table keeps the order of receipt. An export is in the order of `ts`, and rows of one millisecond
in that of receipt. Most that are out of order are so by little: then as many rows are held back as
that takes. Where one is out of it by far, all rows go through a file beside the export, cut into
the hours that they belong to; the table is read once all the same.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import attrs

from mexc_trio.errors import FileError
from mexc_trio.read.arrow import in_order, times
from mexc_trio.spans import HOUR

if TYPE_CHECKING:
    import pyarrow as pa

_PIECE: Final = 2**24
"""Bytes of rows that wait in memory to be written to the file together."""


def reordered(batches: "Iterator[pa.RecordBatch]", lateness: int) -> "Iterator[pa.Table]":
    """Yield the rows of batches in the order of their first column, a time.

    The batches are in the order of insertion. A row's time is at most `lateness` milliseconds
    before an earlier row's.
    """
    import numpy as np
    import pyarrow as pa

    buffered: pa.Table | None = None
    for batch in batches:
        table = pa.Table.from_batches([batch])
        buffered = table if buffered is None else pa.concat_tables([buffered, table])
        if not buffered.num_rows:
            continue
        buffered = in_order(buffered)
        ts = times(buffered)
        # No row to come has a time before this; one with this time comes after those we have.
        ready = int(np.searchsorted(ts, ts[-1] - lateness, side="right"))
        if ready:
            yield buffered.slice(0, ready)
            buffered = buffered.slice(ready)
    if buffered is not None and buffered.num_rows:
        yield buffered


def by_hour(batches: "Iterator[pa.RecordBatch]", directory: Path) -> "Iterator[pa.Table]":
    """Yield the rows of batches in the order of their first column, however far out of it.

    The batches are in the order of insertion. All rows go through a file without a name in the
    directory; raises FileError if there is no room for that.
    """
    import pyarrow as pa

    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            spool = _Spool(file)
            for batch in batches:
                for hour, rows in _cut(pa.Table.from_batches([batch])):
                    spool.add(hour, rows)
            yield from map(in_order, spool.hours())
    except OSError as error:
        raise FileError(
            f"rows are far out of order, and {directory} has no room to put them in order: "
            f"{error.strerror or error}"
        ) from error


def _cut(table: "pa.Table") -> "Iterator[tuple[int, pa.Table]]":
    """Cut a table where a row belongs to another hour than the row before it."""
    import numpy as np

    hours = times(table) // HOUR
    cuts = [0, *(int(cut) + 1 for cut in np.flatnonzero(np.diff(hours))), len(hours)]
    for start, end in pairwise(cuts):
        if end > start:
            yield int(hours[start]), table.slice(start, end - start)


@attrs.define
class _Spool:
    """Rows by hour, in a file."""

    _file: IO[bytes]
    _waiting: "dict[int, list[pa.Table]]" = attrs.field(factory=lambda: defaultdict(list))
    _bytes: int = 0
    _pieces: dict[int, list[tuple[int, int]]] = attrs.field(factory=lambda: defaultdict(list))
    """Of each hour, where its pieces begin and how long they are."""

    def add(self, hour: int, table: "pa.Table") -> None:
        self._waiting[hour].append(table)
        self._bytes += table.nbytes
        if self._bytes > _PIECE:
            self._write()

    def hours(self) -> "Iterator[pa.Table]":
        """Yield the rows of hour after hour, in the order in which they were added."""
        import pyarrow as pa

        self._write()
        for _, pieces in sorted(self._pieces.items()):
            tables = []
            for start, length in pieces:
                self._file.seek(start)
                tables.append(pa.ipc.open_stream(self._file.read(length)).read_all())
            yield pa.concat_tables(tables)

    def _write(self) -> None:
        import pyarrow as pa

        for hour, tables in self._waiting.items():
            start = self._file.tell()
            table = pa.concat_tables(tables).combine_chunks()
            with pa.ipc.new_stream(self._file, table.schema) as writer:
                writer.write_table(table)
            self._pieces[hour].append((start, self._file.tell() - start))
        self._waiting.clear()
        self._bytes = 0


def row_numbers(table: "pa.Table", bounds: Sequence[int]) -> list[int]:
    """Return for each of `bounds` how many rows of an ordered table have an earlier time."""
    import numpy as np

    return [int(number) for number in np.searchsorted(times(table), list(bounds))]
