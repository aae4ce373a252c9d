"""`mexc-trio export`: recorded rows as files for research."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import attrs

from mexc_trio.errors import StoreRejected, UsageError
from mexc_trio.export.formats import AddRows, Piped, open_writer
from mexc_trio.export.gaps import GapSource, book_gaps, clearable
from mexc_trio.export.nautilus import export_catalog
from mexc_trio.export.part import Part, days, read_ledger, whole
from mexc_trio.export.request import STANDARD_OUTPUT, ExportRequest
from mexc_trio.export.source import LINES, ExportSource, Plan, find_source
from mexc_trio.export.time_order import row_numbers
from mexc_trio.files import make_directory, refuse_existing, whole_file
from mexc_trio.output import say
from mexc_trio.parquet import need_arrow
from mexc_trio.progress import Progress, progress
from mexc_trio.read.reading import open_reader
from mexc_trio.read.selecting import FOREVER, find_gaps
from mexc_trio.settings import Settings
from mexc_trio.spans import EARLIEST, HOUR, LATEST
from mexc_trio.texts import number_of, size
from mexc_trio.times import time_name

if TYPE_CHECKING:
    import pyarrow as pa


def export(settings: Settings, requests: Sequence[ExportRequest]) -> int:
    """Write the requests' file, or their days' files; return the exit code.

    A file of several symbols has one after the other, each in the order of time. Raises a
    MexcTrioError if it could not be done; a file that is not whole has no final name.
    """
    need_arrow()
    first = requests[0]
    if first.out == STANDARD_OUTPUT:
        if sys.stdout.isatty() and first.format not in LINES:
            raise UsageError(f"{first.format} is nothing for a terminal; send it into a pipe")
    elif not first.by_day and first.format != "nautilus":
        for path in first.files_of(None):
            refuse_existing(path, replace=first.force)
    start, end = _bounds(first)
    with open_reader(settings) as reader:
        if first.kinds == ("gaps",):
            sources: list[ExportSource] = [
                GapSource(find_gaps(reader), first, symbols=[r.symbol for r in requests])
            ]
        else:
            if first.format == "nautilus":  # a file for each kind
                requests = [attrs.evolve(r, kinds=(kind,)) for r in requests for kind in r.kinds]
            sources = [
                find_source(reader, r, settings.for_symbol(r.symbol).table) for r in requests
            ]
            if not all(source.prefix.wide for source in sources):  # they may share a file
                sources = [
                    attrs.evolve(source, prefix=attrs.evolve(source.prefix, wide=False))
                    for source in sources
                ]
        plans = [(source, source.plan(start, end)) for source in sources]
        full = [(source, plan) for source, plan in plans if plan.rows]
        if not full:
            raise UsageError(_no_rows(sources[0]))
        if first.format == "nautilus":
            _export_catalog(full, start, end)
        elif first.by_day:
            for source, plan in full:
                _export_days(source, plan, start, end)
        else:
            _export_file(requests, full, start, end)
    return 0


def _export_catalog(full: Sequence[tuple[ExportSource, Plan]], start: int, end: int) -> None:
    """Add files to a catalog, one for each kind of each symbol."""
    with progress("catalog", sum(plan.rows for _, plan in full)) as bar:
        for source, plan in full:
            gaps = clearable(book_gaps(source), end)
            path = export_catalog(source, plan, start, end, gaps, bar)
            rows = number_of(plan.rows, "row")
            say(f"{path}: {_title([source.request])} from {rows}, {size(path.stat().st_size)}")


def _export_file(
    requests: Sequence[ExportRequest],
    full: Sequence[tuple[ExportSource, Plan]],
    start: int,
    end: int,
) -> None:
    """Write one file of all sources."""
    source, plan = full[0]
    request = source.request
    # The ledger is one source, whatever symbols it is asked about.
    of = requests if request.kinds == ("gaps",) else [source.request for source, _ in full]
    what = _title(of)
    total = sum(plan.rows for _, plan in full)
    with (
        progress(what, total) as bar,
        _output(request) as file,
        open_writer(source, whole(source, plan, start, end), file) as (write, about),
    ):
        for source, plan in full:
            with closing(source.tables(plan, start, end)) as tables:
                _copy(source, Part(None, start, end, plan.rows), tables, write, bar)
    _write_beside(request.files_of(None), about, replace=request.force)
    if request.out == STANDARD_OUTPUT:
        sys.stderr.write(f"{what} from {number_of(total, 'row')}\n")
    else:
        taken = size(request.out.stat().st_size)
        say(f"{request.out}: {what} from {number_of(total, 'row')}, {taken}")


@contextmanager
def _output(request: ExportRequest) -> "Iterator[BinaryIO]":
    """Open the file of a request without days."""
    if request.out == STANDARD_OUTPUT:
        yield Piped(sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        with whole_file(request.out, replace=request.force) as file:
            yield file


def _bounds(request: ExportRequest) -> tuple[int, int]:
    """Return the range in milliseconds; of candles, those that begin in it, whole."""
    start = request.start or 0
    end = FOREVER if request.end is None else request.end
    if request.kinds == ("candles",):
        step = request.interval
        start, end = -(-start // step) * step, -(-end // step) * step
    if request.format == "nautilus":  # whose nanoseconds hold no year 9999
        start, end = max(start, EARLIEST), min(end, LATEST)
    return start, end


def _export_days(source: ExportSource, plan: Plan, start: int, end: int) -> None:
    """Write the days that are missing, or of which the store says more than when they were written.

    So a run that was interrupted is resumed, and the same command every night brings a directory up
    to date. A day of which the store has no row any more keeps its file.
    """
    request = source.request
    make_directory(request.out)
    ledger = read_ledger(request)
    parts = days(source, plan, start, end)
    todo = [part for part in parts if request.force or not ledger.has(part)]

    def may_replace(part: Part) -> bool:
        return request.force or ledger.knows(part)

    for part in todo:
        for path in request.files_of(part.day):
            refuse_existing(path, replace=may_replace(part))
    ledger.begin(todo)
    rows = sum(part.rows for part in todo)
    with progress(_title([request]), rows) as bar:
        for run in _runs(todo):
            for part in _write(source, plan, run, may_replace, bar):
                ledger.add(part)
    complete = len(parts) - len(todo)
    say(
        f"{request.out}: {number_of(len(todo), 'day')} of {_title([request])} from "
        f"{number_of(rows, 'row')}" + (f"; {complete} were complete" if complete else "")
    )


def _write(
    source: ExportSource,
    plan: Plan,
    run: Sequence[Part],
    may_replace: Callable[[Part], bool],
    bar: Progress,
) -> Iterator[Part]:
    """Write one file a part, for parts that lie one behind the other; yield each that is whole."""
    request = source.request
    with closing(source.tables(plan, run[0].start, run[-1].end)) as tables:
        for part, slices in groupby(_cut(tables, run), key=lambda pair: pair[0]):
            with (
                whole_file(request.file_of(part.day), replace=may_replace(part)) as file,
                open_writer(source, part, file) as (write, about),
            ):
                _copy(source, part, (table for _, table in slices), write, bar)
            _write_beside(request.files_of(part.day), about, replace=may_replace(part))
            yield part


def _copy(
    source: ExportSource,
    part: Part,
    tables: "Iterable[pa.Table]",
    write: AddRows,
    bar: Progress,
) -> None:
    """Write a source's rows, and count them."""
    rows = 0
    for table in tables:
        write(table)
        rows += table.num_rows
        bar(table.num_rows)
    if rows != part.rows and source.request.kinds != ("candles",):
        raise StoreRejected(
            f"table {source.prefix.table} at {source.reader.name} had {part.rows} rows for "
            f"{source.request.file_of(part.day)} and gave {rows}; was it replaced meanwhile?"
        )


def _write_beside(files: Sequence[Path], about: Mapping[str, str], *, replace: bool) -> None:
    """Write what is to stand beside a file, as JSON."""
    if about and files[0] != STANDARD_OUTPUT:
        with whole_file(files[1], replace=replace) as file:
            file.write(json.dumps(about, indent=1).encode() + b"\n")


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


def _no_rows(source: ExportSource) -> str:
    """Return the error for a range without rows."""
    request, whole = source.request, source.plan(0, FOREVER)
    text = f"{_title([request])} of {source.reader.name}: there are none"
    if not whole.rows:
        return text
    first, last = min(whole.hours), max(whole.hours) + HOUR
    return f"{text} in that range, only between {time_name(first)} and {time_name(last)}"


def _title(requests: Sequence[ExportRequest]) -> str:
    """Say what is exported: of which symbols what."""
    symbols = ", ".join(request.symbol for request in requests[:3])
    if len(requests) > 3:
        symbols += f" and {len(requests) - 3} more"
    return f"{symbols} {' and '.join(requests[0].kinds)}".strip()
