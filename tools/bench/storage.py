"""How small: a simulated hour of three symbols through the real writer, in virtual time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

import attrs
import trio
from trio.testing import MockClock

from mexc_trio.clickhouse import open_store
from mexc_trio.clickhouse.async_store import AsyncStore
from mexc_trio.clickhouse.compaction import compact
from mexc_trio.clickhouse.schema import RowTuple, Store, Table, market_table, prepare
from mexc_trio.clickhouse.tables import Numbering
from mexc_trio.exchange.decoding import decode
from mexc_trio.exchange.messages import Data
from mexc_trio.journal import Queue, open_journal
from mexc_trio.record.writer import Writer
from mexc_trio.rows import Row
from mexc_trio.settings.sources import load
from mexc_trio.symbols import table_name
from tools.bench.database import BOTH, StoreName, databases
from tools.bench.process import apart
from tools.bench.report import Goal, Report, say
from tools.clickhouse import DATABASE
from tools.market import Market

T = TypeVar("T")

RATES: Final = {"BTC_USDT": 12.7, "ETH_USDT": 10.0, "SOL_USDT": 8.0}
"""Rows a second."""
_BEGIN: Final = 1_790_000_000_000  # milliseconds since 1970
_DAY: Final = 86_400.0
_SINGLES: Final = 0.1  # of the simulated time, for one row an INSERT


def storage(
    *,
    minutes: float = 60.0,
    repetitions: int = 1,
    linger: float = 1.0,
    stores: Sequence[StoreName] = BOTH,
) -> Report:
    """Megabytes a day of three symbols at the reference design's rates.

    Args:
        minutes: simulated time.
        repetitions: runs of each, with other markets; the figures hardly vary.
        linger: the recorder's --linger.
        stores: where the rows go.
    """
    report = Report("storage", {"minutes": minutes, "linger": linger})
    goal = Goal(250, at_least=False)
    with databases(stores) as lender:
        for seed in range(repetitions):
            for name in stores:
                for single in (False, True):
                    case = f"{name}, one row an INSERT" if single else name
                    with lender.empty(name, list(RATES)) as database:
                        place = lender.place(database)
                        volume = apart(
                            _simulate,
                            database.arguments[1],
                            place,
                            60 * minutes * (_SINGLES if single else 1),
                            None if single else linger,
                            seed,
                        )
                    say(f"storage {seed + 1}/{repetitions}: {case}: {volume.row:.1f} bytes a row")
                    report.note(f"{case}: rows an INSERT", volume.batch, "rows")
                    report.note(f"{case}: a row", volume.row, "bytes")
                    report.note(f"{case}: tables, a day", volume.day, "MB")
                    report.note(
                        f"{case}: tables after a compaction, a day",
                        volume.day_compacted,
                        "MB",
                        Goal(120, at_least=False),
                    )
                    report.note(
                        f"{case}: whole volume, a day",
                        volume.day_whole,
                        "MB",
                        None if single else goal,
                    )
                report.ratio(f"{name}: a row", f"{name}, one row an INSERT: a row")
    report.remark(
        f"symbols and rows a second: {', '.join(f'{s} {rate:g}' for s, rate in RATES.items())}"
    )
    report.remark("whole volume: what the engine's directory grew by, in blocks of the file system")
    report.remark(
        f"one row an INSERT was simulated for {_SINGLES:g} of the time; the journal, which keeps "
        "acknowledged rows for ten minutes by default, is not counted"
    )
    return report


@attrs.frozen
class Volume:
    """What was written, and what it takes."""

    rows: int
    inserts: int
    table_bytes: int
    whole_bytes: int
    compacted_bytes: int
    seconds: float

    @property
    def row(self) -> float:
        """Bytes a row, in the tables' files."""
        return self.table_bytes / self.rows

    @property
    def batch(self) -> float:
        """Rows an INSERT."""
        return self.rows / self.inserts

    @property
    def day(self) -> float:
        """Megabytes a day in the tables' files."""
        return self.table_bytes * _DAY / self.seconds / 1e6

    @property
    def day_whole(self) -> float:
        """Megabytes a day on the volume."""
        return self.whole_bytes * _DAY / self.seconds / 1e6

    @property
    def day_compacted(self) -> float:
        """Megabytes a day in the tables' files, after they were rewritten in large blocks."""
        return self.compacted_bytes * _DAY / self.seconds / 1e6


@attrs.define(eq=False)
class DirectGate(AsyncStore):
    """The real gate without its threads, which virtual time would not wait for."""

    made: int = attrs.field(default=0, init=False)

    async def append(
        self, table: Table, rows: Sequence[RowTuple], numbering: Numbering | None = None
    ) -> None:
        """Count the INSERT and do it."""
        self.made += 1
        await self._run(lambda: self.store.append(table, rows, numbering))

    async def _run(self, call: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return call()


def _simulate(url: str, place: Path, seconds: float, linger: float | None, seed: int) -> Volume:
    """Record three symbols in virtual time; without a linger, one row an INSERT."""
    store = open_store(load({"store": url}, list(RATES), environ={}))
    tables = {symbol: market_table(table_name(symbol)) for symbol in RATES}
    with ExitStack() as stack:
        stack.callback(store.close)
        prepare(store, list(tables.values()))
        before = _allocated(place)
        if linger is None:
            inserts = rows = _one_by_one(store, tables, seconds, seed)
        else:
            inserts, rows = trio.run(
                _record, store, tables, seconds, linger, seed,
                clock=MockClock(autojump_threshold=0),
            )  # fmt: skip
        table_bytes = sum(_size(place, table.name) for table in tables.values())
        whole_bytes = _allocated(place) - before
        for table in tables.values():
            compact(store, table.name, 0)
        compacted = sum(_size(place, table.name) for table in tables.values())
        return Volume(rows, inserts, table_bytes, whole_bytes, compacted, seconds)


def _market_rows(symbol: str, seed: int) -> Iterator[tuple[float, list[Row], int]]:
    """Yield frames of a symbol for ever: seconds since the last one, rows, version."""
    chance = Random(f"{seed} {symbol}")  # the same market each time
    at = 0.0
    market = Market(seed=seed, clock=lambda: _BEGIN + int(1000 * at))
    while True:
        message = decode(market.frame(symbol, market.draw_channel(symbol)).encode(), 0)
        assert isinstance(message, Data)  # noqa: S101 - the market makes nothing else
        pause = chance.expovariate(RATES[symbol] / len(message.rows))
        at += pause
        yield pause, message.rows, message.version


def _one_by_one(store: Store, tables: dict[str, Table], seconds: float, seed: int) -> int:
    rows = 0
    for symbol, table in tables.items():
        at = 0.0
        for pause, made, _ in _market_rows(symbol, seed):
            at += pause
            if at > seconds:
                break
            for row in made:
                store.append(table, [row])
            rows += len(made)
    return rows


async def _record(
    store: Store, tables: dict[str, Table], seconds: float, linger: float, seed: int
) -> tuple[int, int]:
    """Return how many INSERTs were made, of how many rows."""
    gate = DirectGate(store)
    stored = 0

    def acknowledged(rows: Sequence[object]) -> None:
        nonlocal stored
        stored += len(rows)

    async def feed(symbol: str, queue: Queue) -> None:
        for pause, rows, version in _market_rows(symbol, seed):
            await trio.sleep(pause)
            queue.append(rows, version)

    with TemporaryDirectory() as directory, open_journal(Path(directory) / "journal") as journal:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for symbol, table in tables.items():
                    queue = journal.queue(table.name)
                    writer = Writer(table, queue, gate, linger, acknowledged, lambda *_: None)
                    nursery.start_soon(gate.scheduler.run)
                    nursery.start_soon(writer.run)
                    nursery.start_soon(feed, symbol, queue)
        return gate.made, stored


def _allocated(place: Path) -> int:
    """Return the bytes that a directory's files take on the disk."""
    found = [path.stat() for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum(512 * stat.st_blocks for stat in found)


def _size(place: Path, table: str) -> int:
    """Return the bytes in a table's files; both engines have them at the same place."""
    directory = place / "data" / DATABASE / table
    return sum(path.stat().st_size for path in directory.resolve().iterdir())
