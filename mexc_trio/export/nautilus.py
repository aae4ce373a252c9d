"""Deals and books as files of a nautilus_trader catalog.

The catalog is a directory; an instrument is a symbol with `.MEXC` behind it. Deals become trade
ticks, books become order book deltas (see `books`): a snapshot first, then changes, the last of
each book marked. Numbers are whole multiples of 10^-16 in 128 bits, made of the exchange's digits,
so they are exact. Volumes are in contracts. The package itself is not needed.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from mexc_trio.errors import UsageError
from mexc_trio.export.books import Books
from mexc_trio.export.source import Plan, Source
from mexc_trio.files import whole_file
from mexc_trio.progress import Progress
from mexc_trio.rows import DEAL

if TYPE_CHECKING:
    import pyarrow as pa

DECIMALS: Final = 16
"""Digits after the point that the format holds."""
_ROWS: Final = 131_072
_DIRECTORIES: Final = {"deals": "trade_tick", "depths": "order_book_delta"}
_ACTIONS: Final = {"add": 1, "update": 2, "delete": 3, "clear": 4}
_SNAPSHOT: Final = 32
_LAST: Final = 128


@attrs.frozen
class _Facts:
    """What is to be known of rows before they are written."""

    first: int
    last: int
    """Milliseconds."""
    price_decimals: int
    size_decimals: int


def export_catalog(
    source: Source, plan: Plan, start: int, end: int, gaps: Sequence[int], bar: Progress
) -> Path:
    """Write one kind of one symbol; return the file.

    Raises:
        UsageError: the catalog has such rows of that time already, or the format cannot hold them.
        StoreError: there was no answer.
    """
    request = source.request
    facts = _facts(source, start, end)
    if max(facts.price_decimals, facts.size_decimals) > DECIMALS:
        raise UsageError(f"{request.symbol} has numbers with more decimals than {DECIMALS}")
    instrument = f"{request.symbol}.MEXC"
    directory = request.out / "data" / _DIRECTORIES[request.kinds[0]] / instrument
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the directory {directory}: {error.strerror}") from error
    latency = request.latency or 0
    first, last = facts.first + latency, facts.last + latency
    path = directory / f"{_time(first)}_{_time(last)}.parquet"
    _refuse_overlap(path, replace=request.force)
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
        _write(file, _schema(request.kinds[0], metadata), rows(tables, latency, gaps, bar))
    return path


def _facts(source: Source, start: int, end: int) -> _Facts:
    """Look at the rows' times and digits."""

    def decimals(before: str, after: str) -> str:
        found = f"extractAll(m, '{before}[0-9]+\\\\.([0-9]*[1-9])0*{after}')"
        return f"max(arrayMax(arrayPushBack(arrayMap(d -> length(d), {found}), 0)))"

    deals = source.request.kinds == ("deals",)
    price = decimals("^", "\\\\|") if deals else decimals("\\\\[", ",")
    size = decimals("\\\\|", "\\\\|") if deals else decimals(",", "[\\\\],]")
    answer = source.reader.query(
        f"SELECT min(at), max(at), {price}, {size} FROM ({source.rows(start, end)})"
    )
    return _Facts(*map(int, answer[0]))


def _refuse_overlap(path: Path, *, replace: bool) -> None:
    """Refuse rows of a time of which the catalog has some: it would give those twice."""
    first, _, last = path.stem.partition("_")
    for other in path.parent.glob("*_*.parquet"):
        begin, _, end = other.stem.partition("_")
        if begin <= last and first <= end and not (replace and other == path):
            raise UsageError(f"{other} has rows of that time already; remove it first")


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


def _rows(tables: "Iterator[pa.Table]", bar: Progress) -> Iterator[tuple[int, str, str]]:
    for table in tables:
        yield from zip(*(column.to_pylist() for column in table.columns[:3]), strict=True)
        bar(table.num_rows)


def _trades(
    tables: "Iterator[pa.Table]", latency: int, gaps: Sequence[int], bar: Progress
) -> Iterator[tuple[Any, ...]]:
    for number, (ts, mt, m) in enumerate(_rows(tables, bar)):
        if mt == DEAL:
            price, volume, direction = m.split("|")
            # The narrow row has no number of a deal; this one is unique in the file.
            name = f"{ts}-{number}"
            yield (_fixed(price), _fixed(volume), int(direction), name, *_times(ts, latency))


def _deltas(
    tables: "Iterator[pa.Table]", latency: int, gaps: Sequence[int], bar: Progress
) -> Iterator[tuple[Any, ...]]:
    books = Books(gaps)
    nothing = _fixed("0")
    for sequence, (ts, _, m) in enumerate(_rows(tables, bar), start=1):
        for at in books.gaps_before(ts):
            flags = _SNAPSHOT | _LAST
            yield (4, 0, nothing, nothing, 0, flags, sequence, *_times(at, latency))
        changes = list(books.become(m))
        for number, change in enumerate(changes, start=1):
            flags = _SNAPSHOT * change.snapshot | _LAST * (number == len(changes))
            side = 0 if change.action == "clear" else change.side + 1
            yield (
                _ACTIONS[change.action], side, _fixed(change.price), _fixed(change.amount), 0,
                flags, sequence, *_times(ts, latency),
            )  # fmt: skip


def _fixed(text: str) -> bytes:
    whole, _, fraction = text.partition(".")
    units = int(whole + fraction[:DECIMALS].ljust(DECIMALS, "0"))
    return units.to_bytes(16, "little", signed=True)


def _times(ts: int, latency: int) -> tuple[int, int]:
    return ts * 1_000_000, (ts + latency) * 1_000_000


def _time(ms: int) -> str:
    """Return a time as the catalog's names have it."""
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H-%M-%S}-{ms % 1000:03d}000000Z"
