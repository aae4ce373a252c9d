"""The ledger of gaps as an export, beside the rows that it is about."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Final

import attrs

from mexc_trio.clickhouse.schema import literal, milliseconds, qualified
from mexc_trio.clickhouse.tables import GAPS
from mexc_trio.export.lines import line
from mexc_trio.export.source import LINES, ExportSource, Plan
from mexc_trio.read.owners import recorded_columns
from mexc_trio.read.selecting import GAP_COLUMNS
from mexc_trio.spans import HOUR

if TYPE_CHECKING:
    import pyarrow as pa

_START: Final = milliseconds("from")


@attrs.frozen
class GapSource(ExportSource):
    """The gaps of some symbols; of all if there are none."""

    symbols: Sequence[str] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The ledger's columns; when a gap began is the first, which orders them."""
        return GAP_COLUMNS

    def plan(self, start: int, end: int) -> Plan:
        """See `ExportSource.plan`."""
        found = self.reader.query(
            f"SELECT intDiv({_START}, {HOUR}) * {HOUR} AS hour, count() "
            f"FROM ({self._gaps(start, end)}) GROUP BY hour ORDER BY hour"
        )
        return Plan({int(hour): int(rows) for hour, rows in found}, 0)

    def tables(self, plan: Plan, start: int, end: int) -> "Generator[pa.Table, None, None]":
        """See `ExportSource.tables`."""
        import pyarrow as pa

        select = f"{self._gaps(start, end)} ORDER BY {_START}, symbol, channel"
        if self.request.format in LINES:
            text = line(self.request.format, self.names, numbers=self.request.numbers)
            select = f"SELECT {_START} AS at, {text} AS line FROM ({select})"
        with closing(self.reader.batches(select)) as batches:
            for batch in batches:
                yield pa.Table.from_batches([batch])

    def _gaps(self, start: int, end: int) -> str:
        return self.prefix.gaps_between(start, end, [s for s in self.symbols if s])


def clearable(gaps: Iterable[int], end: int) -> list[int]:
    """Return those after whose beginning there is time, before an end, to clear the book."""
    return [start for start in gaps if start < end - 1]


def book_gaps(source: ExportSource) -> list[int]:
    """Return when gaps in the books of a source's symbol begin, in order, in milliseconds."""
    reader = source.reader
    if GAPS.name not in recorded_columns(reader):
        return []
    names = ", ".join(map(literal, (source.request.symbol, source.prefix.table)))
    found = reader.query(
        f"SELECT DISTINCT {_START} AS start "
        f"FROM {qualified(reader, GAPS.name)} WHERE symbol IN ({names}) "
        f"AND channel IN ('depth', 'all') ORDER BY start"
    )
    return [int(start) for (start,) in found]
