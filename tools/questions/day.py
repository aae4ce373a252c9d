"""What people ask most, of a day of a busy contract: `python -m tools.questions`.

A day of rows is made and stored, asked in SQL through the views (`questions.sql`), and in pandas
with exported files; each answer is compared with one from the raw texts. None has a cast.
"""

import argparse
import contextlib
import functools
import io
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from mexc_trio.cli.main import main as program
from mexc_trio.clickhouse import views
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import prepare
from mexc_trio.clickhouse.tables import CONTRACTS, Numbering, TableEngine, market_table
from mexc_trio.read.reading import Reader, open_reader
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget
from tools.market import Row
from tools.questions import WrongAnswerError, rows_of, same
from tools.questions.by_numpy import ANSWERS, SIZE, Arrays
from tools.questions.by_pandas import PANDAS, Files, Frames
from tools.questions.statements import CAST, QUESTIONS

_START: Final = 1_788_307_200_000
"""Milliseconds: a midnight."""
_RATE: Final = 12.7
"""Rows a second of a busy contract: 4 % tickers, 69 % deals, 27 % books."""
_LEVELS: Final = 20
_BATCH: Final = 20_000
_SYMBOLS: Final = {"BTC_USDT": 775_209, "ETH_USDT": 23_845}
"""Each with its price in tenths."""


def _rows(price: int, hours: float, *, books: bool) -> Iterator[Row]:
    """Make the rows of a contract, in the order of time; no two of one millisecond."""
    chance = random.Random(price)
    draw = chance.random
    at, held, reference = 0, 546_882_118, price
    while True:
        at += 1 + int(chance.expovariate(_RATE / 1000))
        if at >= hours * 3_600_000:
            return
        price += int(draw() * 7) - 3
        price = min(max(price, reference * 9 // 10), reference * 11 // 10)
        kind = draw()
        if kind < 0.69 or not books:
            volume, side = 1 + int(300 * draw() ** 2), 1 + (draw() < 0.5)
            yield _START + at, "d", f"{_digits(price + side)}|{volume}|{side}"
        elif kind < 0.96:
            sides = (_side(draw, price, direction) for direction in (-1, 1))
            yield _START + at, "dp", "|".join(sides)
        else:
            held += int(draw() * 2001) - 1000
            prices = "|".join(_digits(price + more) for more in (0, 3, 5))
            yield _START + at, "t", f"{prices}|{held}|{draw() / 1000:.8f}"


def _side(draw: Callable[[], float], price: int, direction: int) -> str:
    levels = []
    for _ in range(_LEVELS):
        one = draw()
        price += direction * (1 + int(one * 3))
        levels.append(f"[{price // 10}.{price % 10},{1 + int(one * 90_000)}]")
    return ",".join(levels)


def _digits(tenths: int) -> str:
    return f"{tenths // 10}.{tenths % 10}"


def _fill(directory: Path, hours: float, engine: str) -> list[Arrays]:
    """Store a day of each symbol; return them as arrays."""
    found = []
    with closing(EmbeddedStore(directory)) as store:
        tables = [market_table(name, engine) for name in ("btc", "eth")]
        prepare(store, [*tables, CONTRACTS])
        contract = ("BTC_USDT", _START, "btc", SIZE, 0.1, 1.0, 1, 0, 0, "{}")
        store.append(CONTRACTS, [contract])
        views.create(store, tables)
        for table, (symbol, price) in zip(tables, _SYMBOLS.items(), strict=True):
            parts, number = [], 0
            made = _rows(price, hours, books=symbol == "BTC_USDT")
            while rows := [row for _, row in zip(range(_BATCH), made, strict=False)]:
                numbers = range(number, number + len(rows))
                numbering = Numbering(numbers, f"{symbol} {number}")
                store.append(table, rows, numbering if engine == TableEngine.MERGETREE else None)
                parts.append(Arrays.of(rows))
                number = numbers.stop
            print(f"{symbol}: {number:,} rows in {table.name} ({engine})")
            found.append(Arrays.together(parts))
    return found


def _export(directory: Path) -> Files:
    """Write the files of the questions as the program does it, without options."""
    files = []
    for symbol, kind in (
        ("BTC_USDT", "deals"), ("BTC_USDT", "depths"), ("BTC_USDT", "tickers"),
        ("ETH_USDT", "deals"),
    ):  # fmt: skip
        files.append(directory / f"{symbol}-{kind}.parquet")
        command = ["export", symbol, "--store", str(directory / "data"), "--kind", kind]
        with contextlib.redirect_stdout(io.StringIO()):
            code = program([*command, "--out", str(files[-1])])
        if code:
            raise SystemExit(code)
    return Files(*files)


def _rows_in_sql(reader: Reader, sql: str) -> list[tuple[Any, ...]]:
    return rows_of(reader.table(sql))


def _verdict(how: str, question: str, ask: Callable[[], Any], wanted: Any) -> bool:
    """Ask a question, print how soon it was answered, and return whether the answer is right."""
    began = time.perf_counter()
    answer = ask()
    took = time.perf_counter() - began
    if not isinstance(wanted, list) and isinstance(answer, list):
        ((answer,),) = answer  # of SQL: one value
    elif isinstance(wanted, list) and not isinstance(wanted[0], tuple) and len(answer) == 1:
        ((answer,),) = answer  # one array
    try:
        same(answer, wanted)
    except WrongAnswerError as error:
        print(f"{how:<6} {took:7.2f} s  WRONG {question}: {error}")
        return False
    print(f"{how:<6} {took:7.2f} s  right {question}")
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a day, ask, compare; return 0 if all answers are right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--engine", choices=list(TableEngine), default=TableEngine.STRIPELOG)
    options = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="questions-") as place:
        directory = Path(place)
        raw = _fill(directory / "data", options.hours, options.engine)
        wanted = {question: answer(*raw) for question, answer in ANSWERS.items()}
        verdicts = [not CAST.search(sql) for sql in QUESTIONS.values()]
        with open_reader(Settings(store=EmbeddedTarget(directory / "data"))) as reader:
            for question, sql in QUESTIONS.items():
                ask = functools.partial(_rows_in_sql, reader, sql)
                verdicts.append(_verdict("SQL", question, ask, wanted[question]))
        import pandas as pd

        frames = Frames.read(_export(directory), pd.read_parquet)
        for question, answer in PANDAS.items():
            ask = functools.partial(answer, frames)
            verdicts.append(_verdict("pandas", question, ask, wanted[question]))
    print(f"{sum(verdicts)} of {len(verdicts)} right, and no statement has a cast" if all(verdicts)
          else f"{len(verdicts) - sum(verdicts)} of {len(verdicts)} WRONG")  # fmt: skip
    return 0 if all(verdicts) else 1
