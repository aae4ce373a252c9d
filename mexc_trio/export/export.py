"""`mexc-trio export`: recorded rows of one symbol as files for research."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from mexc_trio.errors import StoreRejected, UsageError
from mexc_trio.export.formats import need_arrow, open_writer
from mexc_trio.export.ledger import Part, read_ledger
from mexc_trio.export.order import HOUR, row_numbers
from mexc_trio.export.progress import Progress, progress
from mexc_trio.export.request import DAY, Request, time_name
from mexc_trio.export.source import Plan, Source, find
from mexc_trio.files import refuse_existing, whole_file
from mexc_trio.read.reading import open_reader
from mexc_trio.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

_FOREVER: Final = 253_402_300_800_000  # the year 10000


def export(settings: Settings, request: Request) -> int:
    """Write the request's file, or its days' files; return the exit code.

    Raises:
        MexcTrioError: it could not be done. A file that is not whole has no final name.
    """
    need_arrow()
    if not request.by_day:
        refuse_existing(request.out, replace=request.force)
    start, end = _bounds(request)
    with open_reader(settings) as reader:
        source = find(reader, request, settings.for_symbol(request.symbol).table)
        plan = source.plan(start, end)
        if not plan.rows:
            raise UsageError(_nothing(source))
        if request.by_day:
            _export_days(source, plan, start, end)
        else:
            part = Part(None, start, end, plan.rows)
            with progress(_what(request), plan.rows) as bar:
                for _ in _write(source, plan, [part], lambda part: request.force, bar):
                    pass
            size = _size(request.out)
            _say(f"{request.out}: {_what(request)} from {plan.rows:,} rows, {size}")
    return 0


def _bounds(request: Request) -> tuple[int, int]:
    """Return the range in milliseconds; of candles, those that begin in it, whole."""
    start = request.start or 0
    end = _FOREVER if request.end is None else request.end
    if request.kinds == ("candles",):
        step = request.interval
        start, end = -(-start // step) * step, -(-end // step) * step
    return start, end


def _export_days(source: Source, plan: Plan, start: int, end: int) -> None:
    """Write the days that are missing or have got more rows since they were written.

    So a run that was interrupted is resumed, and the same command every night brings a directory
    up to date.
    """
    request = source.request
    try:
        request.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the directory {request.out}: {error.strerror}") from error
    ledger = read_ledger(request)
    parts = [
        Part(day, max(start, day), min(end, day + DAY), plan.between(day, day + DAY))
        for day in sorted({hour // DAY * DAY for hour in plan.hours})
    ]
    todo = [part for part in parts if request.force or not ledger.has(part)]

    def may_replace(part: Part) -> bool:
        return request.force or ledger.knows(part)

    for part in todo:
        refuse_existing(request.file_of(part.day), replace=may_replace(part))
    rows = sum(part.rows for part in todo)
    with progress(_what(request), rows) as bar:
        for run in _runs(todo):
            for part in _write(source, plan, run, may_replace, bar):
                ledger.add(part)
    complete = len(parts) - len(todo)
    _say(
        f"{request.out}: {len(todo)} days of {_what(request)} from {rows:,} rows"
        + (f"; {complete} were complete" if complete else "")
    )


def _write(
    source: Source,
    plan: Plan,
    run: Sequence[Part],
    may_replace: Callable[[Part], bool],
    bar: Progress,
) -> Iterator[Part]:
    """Write one file a part, for parts that lie one behind the other; yield each that is whole."""
    request = source.request
    with closing(source.tables(plan, run[0].start, run[-1].end)) as tables:
        for part, slices in groupby(_cut(tables, run), key=lambda pair: pair[0]):
            with whole_file(request.file_of(part.day), replace=may_replace(part)) as file:
                _write_file(source, part, file, (table for _, table in slices), bar)
            yield part


def _write_file(
    source: Source, part: Part, file: BinaryIO, tables: "Iterable[pa.Table]", bar: Progress
) -> None:
    request, rows = source.request, 0
    writer = open_writer(request, file)
    try:
        for table in tables:
            writer.write(table)
            rows += table.num_rows
            bar(table.num_rows)
        if rows != part.rows and request.kinds != ("candles",):
            raise StoreRejected(
                f"table {source.table} at {source.reader.name} had {part.rows} rows for "
                f"{request.file_of(part.day)} and gave {rows}; was it replaced meanwhile?"
            )
        writer.close()
    except BaseException:
        writer.abandon()
        raise


def _cut(tables: "Iterator[pa.Table]", run: Sequence[Part]) -> "Iterator[tuple[Part, pa.Table]]":
    """Cut tables, which are in the order of time, where one part ends and another begins."""
    for table in tables:
        first = 0
        for part, end in zip(run, row_numbers(table, [p.end for p in run]), strict=True):
            if end > first:
                yield part, table.slice(first, end - first)
                first = end


def _runs(parts: Sequence[Part]) -> list[list[Part]]:
    """Group parts that are neighbours, to be read in one go."""
    runs: list[list[Part]] = []
    for part in parts:
        if runs and runs[-1][-1].end == part.start:
            runs[-1].append(part)
        else:
            runs.append([part])
    return runs


def _nothing(source: Source) -> str:
    """Return the error for a range without rows."""
    request, whole = source.request, source.plan(0, _FOREVER)
    text = f"{_what(request)} of {source.reader.name}: there are none"
    if not whole.rows:
        return text
    first, last = min(whole.hours), max(whole.hours) + HOUR
    return f"{text} in that range, only between {time_name(first)} and {time_name(last)}"


def _what(request: Request) -> str:
    return f"{request.symbol} {' and '.join(request.kinds)}"


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size:,} bytes"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
