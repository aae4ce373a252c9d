"""How small: a simulated hour of three symbols through the real writer, in virtual time."""

import math
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
from mexc_trio.clickhouse.rewriting import size_of
from mexc_trio.clickhouse.schema import Store, prepare, qualified
from mexc_trio.clickhouse.tables import Numbering, Table, TableEngine, is_wide, market_table
from mexc_trio.exchange.decoding import decode
from mexc_trio.exchange.messages import Data
from mexc_trio.journal import Queue, open_journal
from mexc_trio.record.wide import widened
from mexc_trio.record.writer import Writer
from mexc_trio.rows import RowTuple
from mexc_trio.settings.sources import load
from mexc_trio.symbols import table_name
from tools.bench.database import BOTH, StoreName, databases
from tools.bench.process import apart
from tools.bench.report import Goal, Report, say
from tools.market import Market

T = TypeVar("T")

RATES: Final = {"BTC_USDT": 12.7, "ETH_USDT": 10.0, "SOL_USDT": 8.0}
"""Rows a second."""
_BEGIN: Final = 1_790_000_000_000  # milliseconds since 1970
_DAY: Final = 86_400.0
_WAY: Final = 0.05
"""Seconds from the exchange's time to that of receipt, in the middle."""
_SINGLES: Final = 0.1  # of the simulated time, for one row an INSERT
_GOALS: Final = {
    TableEngine.STRIPELOG: (120, "a compaction"),
    TableEngine.MERGETREE: (110, "all merges"),
}
"""Megabytes a day at the most, once what makes a table small has been done."""


def storage(
    *,
    minutes: float = 60.0,
    repetitions: int = 1,
    linger: float = 1.0,
    stores: Sequence[StoreName] = BOTH,
    wide: bool = False,
) -> Report:
    """Megabytes a day of three symbols at the reference design's rates.

    Args:
        minutes: simulated time.
        repetitions: runs of each, with other markets; the figures hardly vary.
        linger: the recorder's --linger.
        stores: where the rows go.
        wide: measure what --wide costs a row, as well.
    """
    report = Report("storage", {"minutes": minutes, "linger": linger})
    goal = Goal(250, at_least=False)
    with databases(stores) as lender:
        for seed in range(repetitions):
            for name in stores:
                for case, engine, single, has_receipt in (
                    (name, TableEngine.STRIPELOG, False, False),
                    (f"{name}, one row an INSERT", TableEngine.STRIPELOG, True, False),
                    (f"{name}, mergetree", TableEngine.MERGETREE, False, False),
                    *([(f"{name}, --wide", TableEngine.STRIPELOG, False, True)] if wide else ()),
                ):
                    with lender.empty(name, []) as database:  # tables are made as the case is
                        place = lender.place(database)
                        volume = apart(
                            _simulate,
                            database.arguments[1],
                            place,
                            60 * minutes * (_SINGLES if single else 1),
                            None if single else linger,
                            seed,
                            engine,
                            wide=has_receipt,
                        )
                    say(f"storage {seed + 1}/{repetitions}: {case}: {volume.row:.1f} bytes a row")
                    report.note(f"{case}: rows an INSERT", volume.batch, "rows")
                    report.note(f"{case}: a row", volume.row, "bytes")
                    most, after = _GOALS[engine]
                    report.note(f"{case}: a row after {after}", volume.row_compacted, "bytes")
                    report.note(f"{case}: tables, a day", volume.day, "MB")
                    report.note(
                        f"{case}: tables after {after}, a day",
                        volume.day_compacted,
                        "MB",
                        Goal(most, at_least=False),
                    )
                    # Parts that were merged go from the disk minutes later, and here that is days.
                    if engine is TableEngine.STRIPELOG:
                        report.note(
                            f"{case}: whole volume, a day",
                            volume.day_whole,
                            "MB",
                            None if single else goal,
                        )
                report.ratio(f"{name}: a row", f"{name}, one row an INSERT: a row")
                report.ratio(f"{name}, mergetree: a row", f"{name}: a row")
                for what in ("a row", "a row after a compaction") if wide else ():
                    values = [
                        report.figures[f"{case}: {what}"].values[-1]
                        for case in (name, f"{name}, --wide")
                    ]
                    report.note(f"{name}: --wide, {what}", values[1] - values[0], "bytes more")
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
    def row_compacted(self) -> float:
        """The same after the tables were rewritten in large blocks, or merged."""
        return self.compacted_bytes / self.rows

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
        """Megabytes a day in the tables' files, after they were rewritten or merged."""
        return self.compacted_bytes * _DAY / self.seconds / 1e6


@attrs.define(eq=False)
class UnthreadedStore(AsyncStore):
    """The real one without its threads, which virtual time would not wait for."""

    made: int = attrs.field(default=0, init=False)

    async def append(
        self, table: Table, rows: Sequence[RowTuple], numbering: Numbering | None = None
    ) -> None:
        """Count the INSERT and do it."""
        self.made += 1
        await self.run(lambda: self.store.append(table, rows, numbering))

    async def run(self, call: Callable[[], T]) -> T:
        """Make a call."""
        await trio.lowlevel.checkpoint()
        return call()


def _simulate(
    url: str,
    place: Path,
    seconds: float,
    linger: float | None,
    seed: int,
    engine: TableEngine,
    *,
    wide: bool,
) -> Volume:
    """Record three symbols in virtual time; without a linger, one row an INSERT."""
    store = open_store(load({"store": url}, list(RATES), environ={}))
    tables = {symbol: market_table(table_name(symbol), engine, wide=wide) for symbol in RATES}
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
        table_bytes = sum(size_of(store, table.name) for table in tables.values())
        whole_bytes = _allocated(place) - before
        for table in tables.values():
            if engine is TableEngine.STRIPELOG:
                compact(store, table.name, 0)
            else:
                store.query(f"OPTIMIZE TABLE {qualified(store, table.name)} FINAL")
        compacted = sum(size_of(store, table.name) for table in tables.values())
        return Volume(rows, inserts, table_bytes, whole_bytes, compacted, seconds)


def _market_rows(symbol: str, seed: int) -> Iterator[tuple[float, Data]]:
    """Yield frames of a symbol for ever: seconds since the last one, and what it says."""
    chance, delay = Random(f"{seed} {symbol}"), Random(seed)  # the same market each time
    at = 0.0
    market = Market(seed=seed, clock=lambda: _BEGIN + int(1000 * at))
    while True:
        message = decode(market.frame(symbol, market.draw_channel(symbol)).encode(), 0)
        assert isinstance(message, Data)  # noqa: S101 - the market makes nothing else
        way = delay.lognormvariate(math.log(_WAY), 0.5)
        message.received = int(1e6 * (_BEGIN / 1000 + at + way))
        pause = chance.expovariate(RATES[symbol] / len(message.rows))
        at += pause
        yield pause, message


def _one_by_one(store: Store, tables: dict[str, Table], seconds: float, seed: int) -> int:
    rows = 0
    for symbol, table in tables.items():
        at = 0.0
        for pause, message in _market_rows(symbol, seed):
            at += pause
            if at > seconds:
                break
            for row in message.rows:
                store.append(table, [row])
            rows += len(message.rows)
    return rows


async def _record(
    store: Store, tables: dict[str, Table], seconds: float, linger: float, seed: int
) -> tuple[int, int]:
    """Return how many INSERTs were made, of how many rows."""
    async_store = UnthreadedStore(store)
    stored = 0

    def acknowledged(rows: Sequence[object]) -> None:
        nonlocal stored
        stored += len(rows)

    async def feed(symbol: str, queue: Queue) -> None:
        for pause, message in _market_rows(symbol, seed):
            await trio.sleep(pause)
            wide = is_wide(dict(tables[symbol].columns))
            queue.append(widened(message) if wide else message.rows, message.version)

    with TemporaryDirectory() as directory, open_journal(Path(directory) / "journal") as journal:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for symbol, table in tables.items():
                    queue = journal.queue(table.name)
                    writer = Writer(
                        table, queue, async_store, linger, acknowledged, lambda *_: None
                    )
                    nursery.start_soon(async_store.scheduler.run)
                    nursery.start_soon(writer.run)
                    nursery.start_soon(feed, symbol, queue)
        return async_store.made, stored


def _allocated(place: Path) -> int:
    """Return the bytes that a directory's files take on the disk."""
    found = [path.stat() for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum(512 * stat.st_blocks for stat in found)
