"""Rows out of a store for an export: counted first, then read in the order of time.

A first pass over the times tells how many rows there are, and how far they are out of order. The
second reads the rows; see `time_order` for how those are put in order. Both read the rows that the
table had at the start, so a recorder may go on meanwhile.
"""

import zlib
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Final

import attrs

from mexc_trio.clickhouse.recorded_terms import RecordedTerms, read_terms
from mexc_trio.clickhouse.schema import TIME, literal
from mexc_trio.clickhouse.view_sql import RECEIPT, RECEIPT_SQL
from mexc_trio.export import local_time
from mexc_trio.export.lines import line
from mexc_trio.export.request import BACKTESTS, ExportRequest
from mexc_trio.export.time_order import by_hour, reordered
from mexc_trio.read.reading import Reader
from mexc_trio.read.selecting import IN_ORDER, TYPES, Prefix, Typed, find, find_terms
from mexc_trio.spans import DAY, EARLIEST, HOUR, LATEST

if TYPE_CHECKING:
    import pyarrow as pa

LATE: Final = 600_000
"""Milliseconds that a row may come late for rows to be held back in memory."""

RAW: Final = ("ts", "symbol", "mt", "m")
"""The columns of the kind `raw`."""
LINES: Final = ("csv", "jsonl")
"""The formats of one line a row."""


@attrs.frozen
class Plan:
    """What a first pass over the times showed."""

    hours: Mapping[int, int]
    """Rows of the range by hour, the hour's start in milliseconds."""
    lateness: int
    """The most milliseconds by which a row's time is before an earlier row's."""
    checksums: Mapping[int, int] = attrs.field(factory=dict)
    """Of the times of each day's rows, in the order of receipt; by the day's start."""

    @property
    def rows(self) -> int:
        """Rows of the range."""
        return sum(self.hours.values())

    def between(self, start: int, end: int) -> int:
        """Return how many rows the hours of a range have."""
        return sum(rows for hour, rows in self.hours.items() if start <= hour < end)


@attrs.frozen
class ExportSource:
    """The rows of one table that an export is made of.

    What asks the store raises StoreError where there is no answer, or an error.
    """

    prefix: Prefix
    request: ExportRequest
    terms: Sequence[RecordedTerms] = ()
    """What is known of the contract."""

    @property
    def reader(self) -> Reader:
        """The store."""
        return self.prefix.reader

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the export."""
        if self.request.kinds[0] in TYPES:
            return self._typed.names
        return (*RAW, *RECEIPT) if self.prefix.wide else RAW

    def plan(self, start: int, end: int) -> Plan:
        """Read the times of a range."""
        import numpy as np

        hours: Counter[int] = Counter()
        checksums: Counter[int] = Counter()
        newest, lateness = 0, 0
        sql = f"SELECT {TIME} AS at FROM {self._rows(start, end)} {IN_ORDER}"
        with closing(self.reader.batches(sql)) as batches:
            for batch in batches:
                if not batch.num_rows:
                    continue
                ts = batch.column(0).to_numpy(zero_copy_only=False)
                highest = np.maximum(np.maximum.accumulate(ts), newest)
                lateness = max(lateness, int((highest - ts).max()))
                newest = int(highest[-1])
                for hour, rows in zip(*np.unique(ts // HOUR, return_counts=True), strict=True):
                    hours[int(hour) * HOUR] += int(rows)
                for day in np.unique(of_day := ts // DAY * DAY).tolist():
                    checksums[day] = zlib.crc32(ts[of_day == day].tobytes(), checksums[day])
        return Plan(dict(sorted(hours.items())), lateness, checksums)

    def tables(self, plan: Plan, start: int, end: int) -> "Generator[pa.Table, None, None]":
        """Yield the rows of a range in the order of their first column, which is a time."""
        late = 0 if self.request.kinds == ("candles",) else plan.lateness
        with closing(self.reader.batches(self._select(start, end))) as batches:
            if late <= LATE:
                yield from reordered(batches, late)
            else:
                yield from by_hour(batches, self.request.directory)

    def rows(self, start: int, end: int) -> str:
        """Return the SELECT of the rows of a range: milliseconds, message type, message.

        Then the time of receipt in microseconds and the exchange's number of a deal or a book, each
        0 where it is not known.
        """
        receipt = "toInt64(0) AS received, toUInt64(0) AS id"
        if self.prefix.wide:
            receipt = "toUnixTimestamp64Micro(rt) AS received, id"
        columns = f"{TIME} AS at, CAST(mt, 'String') AS type, m, {receipt}"
        return f"SELECT {columns} FROM {self._rows(start, end)}"

    def known_by_day(self, start: int, end: int) -> Mapping[int, int]:
        """Return when the local machine knew of all rows that a range has of each day.

        In nanoseconds, by the day's start in milliseconds; nothing where that was not recorded.
        """
        if not self.prefix.wide:
            return {}
        known = local_time.sql(None)
        rows = self.rows(max(start, EARLIEST), min(end, LATEST))
        found = self.reader.query(
            f"SELECT intDiv(at, {DAY}) * {DAY} AS day, max({known}) FROM ({rows}) GROUP BY day"
        )
        return {int(day): int(latest) for day, latest in found}

    @property
    def _typed(self) -> Typed:
        request = self.request
        return Typed(
            kind=request.kinds[0], symbol=request.symbol, numbers=request.numbers,
            interval=request.interval // 1000, flat=request.flat, wide=self.prefix.wide,
            coins=self.terms if request.amounts == "coins" else None,
        )  # fmt: skip

    def _rows(self, start: int, end: int) -> str:
        """Return the SQL for the table's rows of the range, to stand behind FROM."""
        types = [TYPES[kind] for kind in self.request.kinds if kind in TYPES]
        return self.prefix.between(start, end, types)

    def _select(self, start: int, end: int) -> str:
        """Return the SELECT of what the request's format is made of; see `formats`."""
        rows, request = self._rows(start, end), self.request
        if request.format in BACKTESTS:
            return f"{self.rows(start, end)} {IN_ORDER}"
        if request.kinds[0] == "raw":
            times = f"fromUnixTimestamp64Milli({TIME})"
            symbol = f"{literal(request.symbol)} AS symbol"
            more = RECEIPT_SQL if self.prefix.wide else ""
            select = (
                f"SELECT {times} AS ts, {symbol}, CAST(mt, 'String') AS mt, m{more} FROM {rows}"
            )
        else:
            select = self._typed.select(rows, self.prefix)
        if request.format in LINES:
            text = line(request.format, self.names, numbers=request.numbers)
            select = f"SELECT toUnixTimestamp64Milli(ts) AS at, {text} AS line FROM ({select})"
        return f"{select} {IN_ORDER}"


def find_source(reader: Reader, request: ExportRequest, table: str) -> ExportSource:
    """Look at the table of the request's symbol.

    Raises UsageError if nothing was recorded under that name, or it is not known how much one
    contract is, StoreRejected if the table is not one of ours.
    """
    prefix = find(reader, request.symbol, table)
    if request.amounts == "coins":
        return ExportSource(prefix, request, find_terms(reader, request.symbol, table))
    if request.format in BACKTESTS:
        return ExportSource(prefix, request, read_terms(reader, [table]).get(table, ()))
    return ExportSource(prefix, request)
