"""Deals and books as files of a nautilus_trader catalog.

The catalog is a directory; an instrument is a symbol with `.MEXC` behind it. Deals become trade
ticks, books become order book deltas (see `books`): a snapshot first, then changes, the last of
each book marked, and a clear at the end of a file where books are missing. `ts_init` is when the
local machine knew of it, see `local_time`; it never goes back, from one file to the next either,
because a catalog is read in its order. Numbers are whole multiples of 10^-16 in 128 bits, made of
the exchange's digits, so they are exact. Volumes are in contracts. Trades have the exchange's
numbers, and so have books, where tables are wide. The package itself is not needed.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from mexc_trio.errors import UsageError
from mexc_trio.export import local_time
from mexc_trio.export.books import Books, in_units
from mexc_trio.export.local_time import LocalClock
from mexc_trio.export.source import ExportSource, Plan
from mexc_trio.files import make_directory, whole_file
from mexc_trio.progress import Progress
from mexc_trio.read.selecting import IN_ORDER
from mexc_trio.rows import DEAL
from mexc_trio.spans import LATEST, Span

if TYPE_CHECKING:
    import pyarrow as pa

DECIMALS: Final = 16
"""Digits after the point that the format holds."""
_ROWS: Final = 131_072
_DIRECTORIES: Final = {"deals": "trade_tick", "depths": "order_book_delta"}
_ACTIONS: Final = {"add": 1, "update": 2, "delete": 3, "clear": 4}
_SNAPSHOT: Final = 32
_LAST: Final = 128
_MS: Final = 1_000_000
_SECOND: Final = 1_000_000_000
"""Nanoseconds."""


@attrs.frozen
class _Facts:
    """What is to be known of rows before they are written."""

    events: Span
    """Milliseconds: of the first and the last."""
    known: Span
    """Nanoseconds: when those that were known first and last were known."""
    price_decimals: int
    size_decimals: int


def export_catalog(
    source: ExportSource, plan: Plan, start: int, end: int, gaps: Sequence[int], bar: Progress
) -> Path:
    """Write one kind of one symbol; return the file.

    Raises UsageError if the catalog has such rows of that time already, or the format cannot hold
    them, StoreError where the store gives no answer.
    """
    request = source.request
    facts = _facts(source, start, end)
    if max(facts.price_decimals, facts.size_decimals) > DECIMALS:
        raise UsageError(f"{request.symbol} has numbers with more decimals than {DECIMALS}")
    instrument = f"{request.symbol}.MEXC"
    directory = request.out / "data" / _DIRECTORIES[request.kinds[0]] / instrument
    make_directory(directory)
    others = [_File.of(path) for path in directory.glob("*_*.parquet")]
    earlier = [other.known[1] for other in others if other.events[1] < facts.events[0]]
    # Rows of two files are never known at the same time, so that one file comes after the other.
    earliest = max(earlier, default=-1) + 1
    known = max(earliest, facts.known[0]), max(earliest, facts.known[1])
    if request.kinds == ("depths",):
        # The first gap that begins there clears the book, which none after it can.
        missing = [at + 1 for at in gaps if at >= facts.events[1]][:1]
        cleared = [LocalClock(request.latency, known[1]).after(at) for at in missing]
        known = known[0], max([known[1], *cleared])
    path = directory / f"{_time(known[0])}_{_time(known[1])}.parquet"
    for other in others:
        if not (request.force and other.path == path):
            _refuse_overlap(other, facts.events, known)
    metadata = {
        "instrument_id": instrument,
        "price_precision": str(facts.price_decimals),
        "size_precision": str(facts.size_decimals),
    }
    rows = _trades if request.kinds == ("deals",) else _deltas
    with (
        whole_file(path, replace=request.force) as file,
        closing(source.tables(plan, start, end)) as tables,
    ):
        local = LocalClock(request.latency, earliest)
        _write(file, _schema(request.kinds[0], metadata), rows(tables, local, gaps, bar))
    return path


def _facts(source: ExportSource, start: int, end: int) -> _Facts:
    """Look at the rows' times and digits."""

    def decimals(before: str, after: str) -> str:
        found = f"extractAll(m, '{before}[0-9]+\\\\.([0-9]*[1-9])0*{after}')"
        return f"max(arrayMax(arrayPushBack(arrayMap(d -> length(d), {found}), 0)))"

    deals = source.request.kinds == ("deals",)
    price = decimals("^", "\\\\|") if deals else decimals("\\\\[", ",")
    size = decimals("\\\\|", "\\\\|") if deals else decimals(",", "[\\\\],]")
    local = local_time.sql(source.request.latency)
    ((*numbers, price_decimals, size_decimals),) = source.reader.query(
        f"SELECT min(at), max(at), argMin({local}, at), max({local}), {price}, {size} "
        f"FROM ({source.rows(start, end)}) {IN_ORDER}"
    )
    first, last, known_first, known_last = map(int, numbers)
    return _Facts((first, last), (known_first, known_last), price_decimals, size_decimals)


@attrs.frozen
class _File:
    """A file of the catalog that is there, with its spans as `_Facts` has them."""

    path: Path
    events: Span
    known: Span

    @classmethod
    def of(cls, path: Path) -> "_File":
        """Look at a file: its name says when rows were known, its columns when they happened.

        Raises UsageError if it is none of a catalog.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            begin, end = (_nanoseconds(text) for text in path.stem.split("_"))
            about = pq.read_metadata(path)
            column = about.schema.names.index("ts_event")
            found = [
                about.row_group(group).column(column).statistics
                for group in range(about.num_row_groups)
            ]
            events = min(one.min for one in found) // _MS, max(one.max for one in found) // _MS
        except (ValueError, OSError, pa.ArrowException, AttributeError) as error:
            raise UsageError(f"{path} is no file of a catalog; take it away") from error
        return cls(path, events, (begin, end))


def _refuse_overlap(other: _File, events: Span, known: Span) -> None:
    """Refuse rows of a time of which the catalog has some: it would give those twice."""
    if other.events[0] <= events[1] and events[0] <= other.events[1]:
        raise UsageError(f"{other.path} has rows of that time already; remove it first")
    if other.events[0] > events[1] and other.known[0] <= known[1]:
        raise UsageError(
            f"{other.path} has later rows that were received before the last of these; remove it, "
            f"and export the earlier ones first"
        )


def _schema(kind: str, metadata: dict[str, str]) -> "pa.Schema":
    import pyarrow as pa

    number = pa.binary(16)
    columns = {
        "deals": {
            "price": number, "size": number, "aggressor_side": pa.uint8(), "trade_id": pa.string(),
        },
        "depths": {
            "action": pa.uint8(), "side": pa.uint8(), "price": number, "size": number,
            "order_id": pa.uint64(), "flags": pa.uint8(), "sequence": pa.uint64(),
        },
    }[kind]  # fmt: skip
    columns |= {"ts_event": pa.uint64(), "ts_init": pa.uint64()}
    fields = [pa.field(name, type_, nullable=False) for name, type_ in columns.items()]
    return pa.schema(fields, metadata)


def _write(file: Any, schema: "pa.Schema", rows: Iterator[tuple[Any, ...]]) -> None:
    from itertools import islice

    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while some := list(islice(rows, _ROWS)):
            columns = zip(*some, strict=True)
            arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _rows(tables: "Iterator[pa.Table]", bar: Progress) -> Iterator[tuple[int, str, str, int, int]]:
    for table in tables:
        yield from zip(*(column.to_pylist() for column in table.columns), strict=True)
        bar(table.num_rows)


def _trades(
    tables: "Iterator[pa.Table]", local: LocalClock, gaps: Sequence[int], bar: Progress
) -> Iterator[tuple[Any, ...]]:
    for number, (ts, mt, m, received, id_) in enumerate(_rows(tables, bar)):
        if mt == DEAL:
            price, volume, direction = m.split("|")
            # A row without the exchange's number has one that is unique in the file.
            name = str(id_) if id_ else f"{ts}-{number}"
            times = ts * _MS, local.of(ts, received)
            yield (_fixed(price), _fixed(volume), int(direction), name, *times)


def _deltas(
    tables: "Iterator[pa.Table]", local: LocalClock, gaps: Sequence[int], bar: Progress
) -> Iterator[tuple[Any, ...]]:
    books = Books(gaps)
    nothing, sequence = _fixed("0"), 0

    def clears(ts: int, sequence: int) -> Iterator[tuple[Any, ...]]:
        for at in books.gaps_before(ts):
            flags = _SNAPSHOT | _LAST
            yield (4, 0, nothing, nothing, 0, flags, sequence, at * _MS, local.after(at))

    for number, (ts, _, m, received, version) in enumerate(_rows(tables, bar), start=1):
        sequence = version or number
        yield from clears(ts, sequence)
        times = ts * _MS, local.of(ts, received)
        changes = list(books.become(m))
        for number, change in enumerate(changes, start=1):
            flags = _SNAPSHOT * change.snapshot | _LAST * (number == len(changes))
            side = 0 if change.action == "clear" else change.side + 1
            yield (
                _ACTIONS[change.action], side, _fixed(change.price), _fixed(change.amount), 0,
                flags, sequence, *times,
            )  # fmt: skip
    yield from clears(LATEST, sequence)


def _fixed(text: str) -> bytes:
    return in_units(text, DECIMALS).to_bytes(16, "little", signed=True)


def _time(ns: int) -> str:
    """Return a time as the catalog's names have it."""
    moment = datetime.fromtimestamp(ns // _SECOND, UTC)
    return f"{moment:%Y-%m-%dT%H-%M-%S}-{ns % _SECOND:09d}Z"


def _nanoseconds(name: str) -> int:
    """Return what `_time` was given; ValueError if it is no such time."""
    seconds, _, fraction = name.removesuffix("Z").rpartition("-")
    moment = datetime.strptime(seconds, "%Y-%m-%dT%H-%M-%S").replace(tzinfo=UTC)
    return int(moment.timestamp()) * _SECOND + int(fraction)
