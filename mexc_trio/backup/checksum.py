"""A checksum of rows and their order, whatever store or file they come from.

Each column is hashed by itself: numbers as 64 bits, texts by their bytes, and their lengths apart
from those. The parts in which rows come leave no trace in it.
"""

import hashlib
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    import pyarrow as pa


@attrs.define
class Checksum:
    """Rows that were added so far."""

    rows: int = 0
    _hashes: list["hashlib._Hash"] = attrs.field(factory=list, init=False)

    def add(self, batch: "pa.RecordBatch") -> None:
        """Add rows: columns of whole numbers and of texts, without missing values."""
        if not self._hashes:
            self._hashes = [hashlib.sha256() for _ in range(2 * batch.num_columns)]
        self.rows += batch.num_rows
        for number, column in enumerate(batch.columns):
            lengths, content = _bytes_of(column)
            self._hashes[2 * number].update(lengths)
            self._hashes[2 * number + 1].update(content)

    def digest(self) -> str:
        """Return the checksum of the rows added so far; of no rows it is empty."""
        if not self.rows:
            return ""
        whole = hashlib.sha256(str(self.rows).encode())
        for part in self._hashes:
            whole.update(part.digest())
        return whole.hexdigest()


def _bytes_of(column: "pa.Array") -> tuple[bytes, memoryview | bytes]:
    """Return the lengths of a column's values (of numbers: nothing) and the values."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_integer(column.type):
        return b"", column.to_numpy(zero_copy_only=False).astype("<i8", casting="unsafe").tobytes()
    texts = column.cast(pa.binary())
    _, ends, content = texts.buffers()
    if not len(texts):
        return b"", b""
    offsets = np.frombuffer(ends, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    lengths = np.diff(offsets).astype("<i4").tobytes()
    return lengths, memoryview(content or b"")[offsets[0] : offsets[-1]]
