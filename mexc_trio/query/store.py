"""Reading in Python: what is recorded, as tables of Arrow.

    >>> from mexc_trio import open_store                                          # doctest: +SKIP
    >>> with open_store("./mexc-data") as store:                                  # doctest: +SKIP
    ...     deals = store.deals("BTC_USDT", "2026-11-21", "2026-11-22").to_pandas()

`pyarrow.Table` is what comes back: `.to_pandas()`, `polars.from_arrow(...)`, and duckdb reads it
by its name. Everything is in memory; `mexc-trio export` writes more than that has room for.
"""

import re
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias

import attrs

from mexc_trio.channels import ALL
from mexc_trio.clickhouse.schema import literal, qualified
from mexc_trio.clickhouse.tables import CONTRACTS
from mexc_trio.errors import UsageError
from mexc_trio.parquet import need_arrow
from mexc_trio.query.hints import hinting
from mexc_trio.read.arrow import in_order
from mexc_trio.read.reading import Reader, open_reader
from mexc_trio.read.selecting import FOREVER, IN_ORDER, Typed, find, find_gaps, find_terms
from mexc_trio.settings import Settings
from mexc_trio.settings.sources import load
from mexc_trio.symbols import parse_symbol
from mexc_trio.times import Time, parse_time

if TYPE_CHECKING:
    import pyarrow as pa

Numbers: TypeAlias = Literal["float", "exact", "text"]
"""The nearest double, exact Decimals, or the exchange's own digits."""
Amounts: TypeAlias = Literal["contracts", "coins"]
"""Contracts, as the exchange counts, or those times the contract's size."""

# They stand for themselves: no SELECT can be made of them, which Arrow would take.
_NO_SELECT: Final = re.compile(r"\s*(SHOW|DESC|DESCRIBE|EXISTS|EXPLAIN)\b", re.IGNORECASE)


def open_store(store: str | Path | None = None) -> "RecordedStore":
    """Open what a recorder has written, or is writing, for reading.

    Args:
        store: as `--store` has it: the directory, or `clickhouse://user:password@host:9000/...`.
            None for what the environment, settings.ini and the default say, as for any command.

    Raises:
        UsageError: there is no store, or pyarrow is not installed.
        StoreError: it cannot be opened.
    """
    need_arrow()
    return RecordedStore(load({} if store is None else {"store": str(store)}))


@attrs.define(eq=False, init=False)
class RecordedStore:
    """A store, open for reading until `close`, or the end of its `with` block.

    Where no recorder runs, it has an engine of its own in the directory until then. One call at a
    time. Ranges have an end that is not part of them; rows are in the order of time, those of one
    millisecond in the order of receipt. Columns are those of the typed views, and `symbol`.

    Every method raises UsageError for what was asked wrongly and StoreError for what went wrong.
    """

    _settings: Settings
    _reader: Reader
    _close: "weakref.finalize[[], RecordedStore]"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        stack = ExitStack()
        self._reader = stack.enter_context(open_reader(self._settings))
        # In a notebook few close anything.
        self._close = weakref.finalize(self, stack.close)

    def deals(
        self,
        symbol: str,
        start: Time | None = None,
        end: Time | None = None,
        *,
        numbers: Numbers = "float",
        amounts: Amounts = "contracts",
    ) -> "pa.Table":
        """Return deals: ts, symbol, price, volume (contracts), side (the taker's)."""
        return self._typed("deals", symbol, start, end, numbers, amounts)

    def tickers(
        self,
        symbol: str,
        start: Time | None = None,
        end: Time | None = None,
        *,
        numbers: Numbers = "float",
        amounts: Amounts = "contracts",
    ) -> "pa.Table":
        """Return tickers: last, fair and index price, open contracts, funding rate."""
        return self._typed("tickers", symbol, start, end, numbers, amounts)

    def depths(
        self,
        symbol: str,
        start: Time | None = None,
        end: Time | None = None,
        *,
        numbers: Numbers = "float",
        amounts: Amounts = "contracts",
        flat: bool = False,
    ) -> "pa.Table":
        """Return books: lists of prices and amounts, best first, and the best levels.

        If `flat`, columns `bid_price_1`, `bid_amount_1` ... `ask_amount_20` in place of lists.
        """
        return self._typed("depths", symbol, start, end, numbers, amounts, flat=flat)

    def channel(
        self,
        symbol: str,
        name: str,
        start: Time | None = None,
        end: Time | None = None,
        *,
        numbers: Numbers = "float",
    ) -> "pa.Table":
        """Return the rows of any channel, also of those that are recorded on request.

        `name` is as `--channels` has it: `funding`, `index`, `fair` ...
        """
        if name not in ALL:
            raise UsageError(f"channel {name!r}: choose from {', '.join(ALL)}")
        return self._typed(ALL[name].view, symbol, start, end, numbers, "contracts")

    def candles(
        self,
        symbol: str,
        start: Time | None = None,
        end: Time | None = None,
        *,
        seconds: int = 60,
        numbers: Numbers = "float",
        amounts: Amounts = "contracts",
    ) -> "pa.Table":
        """Return candles of the deals; those that begin in the range, whole."""
        step = seconds * 1000
        if step <= 0:
            raise UsageError(f"candles of {seconds} seconds: a candle takes one or more")
        first, last = (-(-bound // step) * step for bound in _range(start, end))
        return self._typed("candles", symbol, first, last, numbers, amounts, seconds=seconds)

    def gaps(
        self, symbol: str | None = None, start: Time | None = None, end: Time | None = None
    ) -> "pa.Table":
        """Return the gaps that touch a range, of one symbol or of all, as the ledger has them."""
        symbols = [] if symbol is None else [parse_symbol(symbol)]
        reader = self._ready()
        gaps = find_gaps(reader).gaps_between(*_range(start, end), symbols)
        return reader.table(f"{gaps} ORDER BY `from`, symbol, channel")

    def contracts(self, symbol: str | None = None) -> "pa.Table":
        """Return what the exchange said of contracts, a row for each change; of one or of all.

        Contract size, steps of price and volume, their decimals, state; the rest as JSON.
        """
        where = f"WHERE symbol = {literal(parse_symbol(symbol))}" if symbol else ""
        reader = self._ready()
        return reader.table(
            f"SELECT * FROM {qualified(reader, CONTRACTS.name)} {where} ORDER BY symbol, as_of"
        )

    def sql(self, statement: str) -> "pa.Table":
        """Return the answer to one statement, as `mexc-trio sql` takes it. Times are in UTC."""
        reader = self._ready()
        with hinting(statement, reader, self._settings):
            if _NO_SELECT.match(statement):
                return reader.answer(statement)
            # A comment may be what it ends with.
            return reader.table(f"{statement.rstrip().removesuffix(';')}\n")

    def close(self) -> None:
        """Let the store go."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<RecordedStore: {self._reader.name}>"

    def _typed(
        self,
        kind: str,
        symbol: str,
        start: Time | None,
        end: Time | None,
        numbers: Numbers,
        amounts: Amounts,
        *,
        seconds: int = 60,
        flat: bool = False,
    ) -> "pa.Table":
        symbol = parse_symbol(symbol)
        if numbers not in ("float", "exact", "text"):
            raise UsageError(f"numbers={numbers!r}: choose from float, exact, text")
        if amounts not in ("contracts", "coins") or (amounts, numbers) == ("coins", "text"):
            raise UsageError(f"amounts={amounts!r}: choose from contracts, and coins, not as text")
        bounds, table = _range(start, end), self._settings.for_symbol(symbol).table
        reader = self._ready()
        prefix = find(reader, symbol, table)
        typed = Typed(
            kind=kind, symbol=symbol, numbers=numbers, interval=seconds, flat=flat,
            wide=prefix.wide,
            coins=find_terms(reader, symbol, table) if amounts == "coins" else None,
        )  # fmt: skip
        rows = prefix.between(*bounds, typed.types)
        return in_order(reader.table(f"{typed.select(rows, prefix)} {IN_ORDER}"))

    def _ready(self) -> Reader:
        if not self._close.alive:
            raise UsageError(f"{self._reader.name} was closed; open it again with open_store")
        return self._reader


def _range(start: Time | None, end: Time | None) -> tuple[int, int]:
    first = 0 if start is None else parse_time(start)
    last = FOREVER if end is None else parse_time(end)
    if first >= last:
        raise UsageError(f"a range from {start} to {end} is empty: its end is not part of it")
    return first, last
