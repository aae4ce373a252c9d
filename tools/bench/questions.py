"""How soon a question is answered: a busy contract's table, with an index and without one."""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from mexc_trio.clickhouse import views
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import Store, prepare
from mexc_trio.clickhouse.tables import TableEngine, market_table
from tools.bench.report import Goal, Report, say
from tools.clickhouse import DATABASE

_BEGIN: Final = 1_788_307_200_000
"""Milliseconds since 1970, a midnight."""
_DAY: Final = 86_400_000
_LEVELS: Final = 20

_GOALS: Final = {"last price": 50, "last ten minutes": 50, "candles of the last day": 300}
_ASKED: Final = {
    "last price": "SELECT price FROM {0}_deals ORDER BY ts DESC LIMIT 1",
    "last ten minutes": "SELECT count(), avg(price) FROM {0}_deals WHERE ts >= {1}",
    "candles of the last day": "SELECT * FROM {0}_candles(interval = 60) WHERE ts >= {2}",
    "turnover of all days": "SELECT sum(price * volume) FROM {0}_deals",
}
"""The questions, as people type them; 1 and 2 are times before the last row."""


def questions(
    *,
    days: float = 30.0,
    rate: float = 10.0,
    repetitions: int = 5,
    engines: Sequence[TableEngine] = (TableEngine.MERGETREE, TableEngine.STRIPELOG),
) -> Report:
    """Milliseconds until a typed view has answered what people ask most.

    Args:
        days: what the table has.
        rate: rows a second of it.
        repetitions: times that each is asked; the first is not counted.
        engines: of the tables.
    """
    report = Report("questions", {"days": days, "rate": rate})
    rows = int(days * 86_400 * rate)
    with TemporaryDirectory(prefix="questions-") as directory:
        for engine in engines:
            with closing(EmbeddedStore(Path(directory) / engine)) as store:
                _fill(store, engine, rows, days)
                for name, sql in _ASKED.items():
                    figure = f"{engine}: {name}"
                    for repetition in range(repetitions + 1):
                        took = 1000 * _ask(store, sql, days)
                        if repetition:
                            bound = _GOALS.get(name) if engine is TableEngine.MERGETREE else None
                            goal = Goal(bound, at_least=False) if bound else None
                            report.note(figure, took, "ms", goal)
                    say(f"{figure}: {report.figures[figure].median:.1f} ms")
    report.remark(f"{rows:,} rows: 4 % tickers, 68 % deals, 28 % books of {_LEVELS} levels a side")
    report.remark("asked by the recorder's own user; a reader has one thread")
    return report


def _ask(store: Store, sql: str, days: float) -> float:
    """Return the seconds that an answer takes."""
    end = _BEGIN + int(days * _DAY)
    times = [f"fromUnixTimestamp64Milli({end - before})" for before in (600_000, _DAY)]
    began = time.perf_counter()
    store.query(sql.format(f"{DATABASE}.btc", *times))
    return time.perf_counter() - began


def _fill(store: Store, engine: TableEngine, rows: int, days: float) -> None:
    """Make the table and its views."""
    table = market_table("btc", engine)
    prepare(store, [table])
    views.create(store, ["btc"])

    def side(sign: str) -> str:
        level = f"concat('[', toString(65000 {sign} i), '.1,', toString(rand(i) % 10000), ']')"
        return f"arrayStringConcat(arrayMap(i -> {level}, range({_LEVELS})), ',')"

    deal = (
        "concat(toString(65000 + number % 100), '.1|', toString(number % 300 + 1), '|', "
        "toString(number % 2 + 1))"
    )
    book, ticker = f"concat({side('-')}, '|', {side('+')})", "'65000.1|65000|65001|9|0.00010000'"
    kind = "multiIf(number % 25 = 0, 't', number % 25 < 18, 'd', 'dp')"
    text = f"multiIf(number % 25 = 0, {ticker}, number % 25 < 18, {deal}, {book})"
    at = f"toInt64({_BEGIN} + number * {days * _DAY / rows!r})"
    numbered = engine is TableEngine.MERGETREE
    store.query(
        f"INSERT INTO {DATABASE}.btc (ts, mt, m{', n' if numbered else ''}) "
        f"SELECT fromUnixTimestamp64Milli({at}), {kind}, {text}{', number' if numbered else ''} "
        f"FROM numbers({rows}) "
        f"SETTINGS max_threads = 1, max_insert_threads = 1, max_block_size = 16384"
    )
