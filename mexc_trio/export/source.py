"""Rows out of a store for an export: counted first, then read in the order of time.

A first pass over the times alone tells how many rows there are, and how far out of order; the
second reads the rows. See `order` for how those are put in order.

Both passes read the rows that the table had at the start, so a recorder may go on meanwhile.
"""

from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Final

import attrs

from mexc_trio.clickhouse import view_sql
from mexc_trio.clickhouse.schema import columns, count, literal, milliseconds, qualified
from mexc_trio.clickhouse.view_sql import DECIMALS, FLOATS, TEXTS
from mexc_trio.errors import StoreRejected, UsageError
from mexc_trio.export.lines import line
from mexc_trio.export.order import HOUR, by_hour, held_back
from mexc_trio.export.request import BACKTESTS, Request
from mexc_trio.read.reading import Reader
from mexc_trio.rows import DEAL, DEPTH, TICKER

if TYPE_CHECKING:
    import pyarrow as pa

LATE: Final = 600_000
"""Milliseconds that a row may come late for rows to be held back in memory."""

_TYPES: Final = {"deals": DEAL, "tickers": TICKER, "depths": DEPTH, "candles": DEAL}

# One thread returns a StripeLog table's rows in the order of insertion.
_IN_ORDER: Final = "SETTINGS max_threads = 1"
RAW: Final = ("ts", "symbol", "mt", "m")
"""The columns of the kind `raw`."""
DEEPEST: Final = 20
"""Levels of a side of a recorded book."""
NUMBERS: Final = {"float": FLOATS, "exact": DECIMALS, "text": TEXTS}
"""What an export's numbers are, by the option's word."""
LINES: Final = ("csv", "jsonl")
"""The formats of one line a row."""


@attrs.frozen
class Plan:
    """What a first pass over the times showed."""

    hours: Mapping[int, int]
    """Rows of the range by hour, the hour's start in milliseconds."""
    lateness: int
    """The most milliseconds by which a row's time is before an earlier row's."""

    @property
    def rows(self) -> int:
        """Rows of the range."""
        return sum(self.hours.values())

    def between(self, start: int, end: int) -> int:
        """Return how many rows the hours of a range have."""
        return sum(rows for hour, rows in self.hours.items() if start <= hour < end)


@attrs.frozen
class Source:
    """The rows of one table that an export is made of."""

    reader: Reader
    request: Request
    table: str
    ts_type: str
    prefix: int
    """Rows that the table had at the start."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the export."""
        kind = self.request.kinds[0]
        if kind not in view_sql.COLUMNS:
            return RAW
        ts, *others = view_sql.COLUMNS[kind]
        if self.request.flat:
            others = [*_flat(), *(name for name in others if name in ("mid", "spread"))]
        return (ts, "symbol", *others)

    def plan(self, start: int, end: int) -> Plan:
        """Read the times of a range.

        Raises:
            StoreError: there was no answer, or an error.
        """
        import numpy as np

        hours: Counter[int] = Counter()
        newest, lateness = 0, 0
        times = milliseconds("ts", self.ts_type)
        sql = f"SELECT {times} AS ts FROM {self._rows(start, end)} {_IN_ORDER}"
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
        return Plan(dict(sorted(hours.items())), lateness)

    def tables(self, plan: Plan, start: int, end: int) -> "Generator[pa.Table, None, None]":
        """Yield the rows of a range in the order of their first column, which is a time.

        Raises:
            StoreError: there was no answer, or an error.
        """
        late = 0 if self.request.kinds == ("candles",) else plan.lateness
        with closing(self.reader.batches(self._select(start, end))) as batches:
            if late <= LATE:
                yield from held_back(batches, late)
            else:
                yield from by_hour(batches, self.request.directory)

    def rows(self, start: int, end: int) -> str:
        """Return the SELECT of the rows of a range: milliseconds, message type, message."""
        times = milliseconds("ts", self.ts_type)
        rows = self._rows(start, end)
        return f"SELECT {times} AS at, CAST(mt, 'String') AS type, m FROM {rows}"

    def _rows(self, start: int, end: int) -> str:
        """Return the SQL for the table's rows of the range, to stand behind FROM."""
        bounds = f"{milliseconds('ts', self.ts_type)} >= {start}"
        bounds += f" AND {milliseconds('ts', self.ts_type)} < {end}"
        types = [literal(_TYPES[kind]) for kind in self.request.kinds if kind in _TYPES]
        wanted = f" AND mt IN ({', '.join(types)})" if types else ""
        table = f"(SELECT ts, mt, m FROM {qualified(self.reader, self.table)} LIMIT {self.prefix})"
        return f"(SELECT ts, mt, m FROM {table} WHERE {bounds}{wanted})"

    def _select(self, start: int, end: int) -> str:
        """Return the SELECT of what the request's format is made of; see `formats`."""
        rows, request = self._rows(start, end), self.request
        kind = request.kinds[0]
        if request.format in BACKTESTS:
            return f"{self.rows(start, end)} {_IN_ORDER}"
        if kind == "raw":
            times = f"fromUnixTimestamp64Milli({milliseconds('ts', self.ts_type)})"
            select = f"SELECT {times} AS ts, CAST(mt, 'String') AS mt, m FROM {rows}"
        else:
            select = view_sql.definitions(rows, self.ts_type, NUMBERS[request.numbers])[kind]
            select = select.replace("{interval:UInt32}", str(request.interval // 1000))
        computed = {"symbol": literal(request.symbol), "side": "CAST(side, 'Nullable(String)')"}
        computed |= _flat()
        columns_ = (f"{computed.get(name, name)} AS {name}" for name in self.names)
        select = f"SELECT {', '.join(columns_)} FROM ({select})"
        if request.format in LINES:
            text = line(request.format, self.names, numbers=request.numbers)
            select = f"SELECT toUnixTimestamp64Milli(ts) AS at, {text} AS line FROM ({select})"
        return f"{select} {_IN_ORDER}"


def _flat() -> dict[str, str]:
    """Return the columns of single levels and their SQL, level by level."""
    return {
        f"{side}_{what}_{n}": (
            f"if(length({side}_{what}s) >= {n}, toNullable({side}_{what}s[{n}]), NULL)"
        )
        for n in range(1, DEEPEST + 1)
        for side in ("bid", "ask")
        for what in ("price", "amount")
    }


def find(reader: Reader, request: Request, table: str) -> Source:
    """Look at the table of the symbol.

    Raises:
        UsageError: nothing was recorded under that name.
        StoreRejected: the table is not one of ours.
    """
    found = columns(reader)
    if found is None:
        raise StoreRejected(f"{reader.name} has no database {reader.database}")
    types = found.get(table)
    if types is None:
        others = sorted(name for name, cols in found.items() if {"ts", "mt", "m"} <= cols.keys())
        raise UsageError(
            f"{request.symbol} was not recorded in {reader.name}: there is no table {table}"
            + (f"; there are {', '.join(others[:20])}" if others else "")
        )
    if not {"ts", "mt", "m"} <= types.keys():
        raise StoreRejected(f"table {table} at {reader.name} is not one of ours")
    return Source(reader, request, table, types["ts"], count(reader, table))
