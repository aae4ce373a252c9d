"""The SQL of what people take out of a store: typed columns of a symbol's rows, in a range of time.

A range is of milliseconds, its end not included. Only the rows are read that a table had at some
moment, its prefix, so that a recorder may go on meanwhile.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from mexc_trio.channels import ALL
from mexc_trio.clickhouse import view_sql
from mexc_trio.clickhouse.numbered import end_of
from mexc_trio.clickhouse.recorded_terms import RecordedTerms, read_terms, sql
from mexc_trio.clickhouse.schema import (
    count,
    literal,
    milliseconds,
    qualified,
    quoted,
    within,
)
from mexc_trio.clickhouse.tables import GAPS, MARKET_COLUMNS, NUMBER, is_numbered, is_wide
from mexc_trio.clickhouse.view_sql import DECIMALS, EXACT, FLOATS, TEXTS
from mexc_trio.errors import StoreRejected, UsageError
from mexc_trio.read.owners import recorded_columns
from mexc_trio.read.reading import Reader
from mexc_trio.rows import DEAL

TYPES: Final = {**{one.view: one.mt for one in ALL.values()}, "candles": DEAL}
"""The type of the rows that each kind is made of."""
NUMBERS: Final = {"float": FLOATS, "exact": DECIMALS, "text": TEXTS}
"""What numbers are, by the word for it."""
DEEPEST: Final = 20
"""Levels of a side of a recorded book."""
FOREVER: Final = 253_402_300_800_000
"""Milliseconds: the year 10000."""

# One thread returns a StripeLog table's rows in the order of insertion.
IN_ORDER: Final = "SETTINGS max_threads = 1"
"""What stands at the end of a SELECT whose rows are wanted in the order of receipt."""

AMOUNTS: Final = {
    "tickers": ("hold_volume",),
    "deals": ("volume",),
    "depths": (
        "bid_amounts", "ask_amounts", "best_bid_amount", "best_ask_amount",
        *(f"{side}_amount_{n}" for side in ("bid", "ask") for n in range(1, DEEPEST + 1)),
    ),
    "candles": ("volume", "buy_volume"),
}  # fmt: skip
"""The columns of each kind that count contracts, unless coins are wanted."""


@attrs.frozen
class Prefix:
    """The rows that one table of the store had at some moment."""

    reader: Reader
    table: str
    length: int
    """How many rows; where they bear numbers, all those with a lower one."""
    numbered: bool = False
    wide: bool = False

    def between(self, start: int, end: int, types: Sequence[str] = ()) -> str:
        """Return the SQL for the rows of a range, to stand behind FROM.

        It is in milliseconds since 1970, its end not part of it. Without types of rows it is all.
        """
        bounds = within((start, end))
        if types:
            bounds += f" AND mt IN ({', '.join(map(literal, types))})"
        source = qualified(self.reader, self.table)
        names = "ts, mt, m, rt, id" if self.wide else "ts, mt, m"
        if self.numbered:  # where an index tells which rows need not be read
            wanted = f"SELECT {names}, {NUMBER} FROM {source}"
            return f"({wanted} WHERE {NUMBER} < {self.length} AND {bounds} ORDER BY {NUMBER})"
        table = f"(SELECT {names} FROM {source} LIMIT {self.length})"
        return f"(SELECT {names} FROM {table} WHERE {bounds})"

    def gaps_between(self, start: int, end: int, symbols: Sequence[str]) -> str:
        """Return the SELECT of the ledger's gaps that touch a range; of all symbols if none."""
        begin, stop = milliseconds("from"), milliseconds("to")
        names = ", ".join(map(quoted, GAP_COLUMNS))
        rows = f"(SELECT {names} FROM {qualified(self.reader, self.table)} LIMIT {self.length})"
        select = f"SELECT * FROM {rows} WHERE {begin} < {end} AND {stop} >= {start}"
        if symbols:
            select += f" AND symbol IN ({', '.join(map(literal, symbols))})"
        return select


GAP_COLUMNS: Final = ("from", "to", *(n for n in GAPS.column_names if n not in ("from", "to")))
"""The ledger's columns; when a gap began is the first, which orders them."""


@attrs.frozen(kw_only=True)
class Typed:
    """One kind of typed rows, and how they are wanted."""

    kind: str
    """A key of `TYPES`."""
    symbol: str
    numbers: str = "float"
    """A key of `NUMBERS`."""
    interval: int = 60
    """Seconds of a candle."""
    flat: bool = False
    """Whether the levels of a book are columns, `bid_price_1` and so on, and not arrays."""
    wide: bool = False
    """Whether there are columns of the receipt, in all kinds but candles."""
    coins: Sequence[RecordedTerms] | None = None
    """What makes coins of contracts; None for amounts in contracts."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns, in their order."""
        ts, *others = view_sql.COLUMNS[self.kind]
        if self.flat:
            others = [*_flat(), *(name for name in others if name in ("mid", "spread"))]
        more = view_sql.RECEIPT if self.wide and self.kind != "candles" else ()
        return (ts, "symbol", *others, *more)

    @property
    def types(self) -> tuple[str, ...]:
        """The types of the rows that it is made of."""
        return (TYPES[self.kind],)

    def select(self, rows: str, prefix: Prefix) -> str:
        """Return the SELECT of the columns.

        `rows` is the SQL for the rows, to stand behind FROM, and the prefix where they are from.
        """
        select = view_sql.definitions(
            rows, NUMBERS[self.numbers], numbered=prefix.numbered, wide=prefix.wide
        )[self.kind]
        select = select.replace("{interval:UInt32}", str(self.interval))
        computed = {"symbol": literal(self.symbol), "side": "CAST(side, 'Nullable(String)')"}
        computed |= _flat()
        if self.coins is not None:
            computed |= {
                name: self._in_coins(computed.get(name, name)) for name in AMOUNTS[self.kind]
            }
        parts = (f"{computed.get(name, name)} AS {name}" for name in self.names)
        return f"SELECT {', '.join(parts)} FROM ({select})"

    def _in_coins(self, amount: str) -> str:
        """Return the SQL of an amount, or of an array of them, times the contract's size."""
        assert self.coins is not None  # noqa: S101 - see the caller
        exact = self.numbers == "exact"
        size = sql(self.coins, "contract_size", "ts", EXACT if exact else FLOATS)

        def times(one: str) -> str:
            if exact:  # in 256 bits, where every product has room
                product = f"toDecimal256({one}, 18) * {size}"
                return f"accurateCastOrNull({product}, 'Decimal(38, 18)')"
            return f"{one} * {size}"

        if not amount.endswith("_amounts"):
            return times(amount)
        return f"arrayMap(one -> assumeNotNull({times('one')}), {amount})"


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


def find(reader: Reader, symbol: str, table: str) -> Prefix:
    """Look at the table of a symbol; UsageError without one, StoreRejected if it is not ours."""
    found = recorded_columns(reader)
    types = found.get(table)
    if types is None:
        ours = (name for name, others in found.items() if others.keys() >= MARKET_COLUMNS)
        raise not_recorded(reader, symbol, table, ours)
    if not types.keys() >= MARKET_COLUMNS:
        raise StoreRejected(f"table {table} at {reader.name} is not one of ours")
    numbered = is_numbered(types)
    length = end_of(reader, table) if numbered else count(reader, table)
    return Prefix(reader, table, length, numbered, is_wide(types))


def not_recorded(reader: Reader, symbol: str, table: str, ours: Iterable[str]) -> UsageError:
    """Return the error for a symbol without a table, with the tables of others."""
    there = ", ".join(sorted(ours)[:20])
    text = f"{symbol} was not recorded in {reader.name}: there is no table {table}"
    return UsageError(f"{text}; there are {there}" if there else text)


def find_terms(reader: Reader, symbol: str, table: str) -> list[RecordedTerms]:
    """Return what makes coins of a symbol's contracts; UsageError if that is not known."""
    terms = read_terms(reader, [table]).get(table, [])
    if not any(math.isfinite(one.contract_size) for one in terms):
        raise UsageError(
            f"{symbol}: how much a contract is was not written down in {reader.name}, so there are "
            f"no amounts in coins; a recorder that reaches --rest-url does it"
        )
    return terms


def find_gaps(reader: Reader) -> Prefix:
    """Look at the ledger of gaps; StoreRejected without one."""
    if GAPS.name not in recorded_columns(reader):
        raise StoreRejected(f"{reader.name} has no table {GAPS.name}")
    return Prefix(reader, GAPS.name, count(reader, GAPS.name))
