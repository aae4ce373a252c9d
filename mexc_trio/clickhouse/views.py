"""Typed views beside each symbol's table: the same rows as columns of exact numbers.

Beside `btc` stand `btc_tickers`, `btc_deals`, `btc_depths`, and `btc_candles(interval = 60)`, whose
parameter is the length of a candle in seconds. They store nothing: each query reads the table.

Prices and amounts are Decimal(38, 18), which holds every number the exchange was seen to send and
which Parquet, pandas, Polars and DuckDB read. Nothing is rounded and no number passes through a
float. What the exchange did not send is NULL, and so is a number that does not fit (18 digits
before the point and 18 after it, zeros at the end not counted): the table has its text.
"""

import logging
from collections.abc import Sequence
from typing import Final

from mexc_trio.clickhouse.schema import (
    Store,
    columns,
    literal,
    qualified,
)
from mexc_trio.errors import StoreError
from mexc_trio.symbols import VIEWS

log = logging.getLogger(__name__)


_MARK: Final = "mexc-trio views"
_COMMENT: Final = f"{_MARK} 1"
"""The comment of the views: ours, and in this definition. Change the number with the SQL."""

COLUMNS: Final = {
    "tickers": ("ts", "last_price", "fair_price", "index_price", "hold_volume", "funding_rate"),
    "deals": ("ts", "price", "volume", "side"),
    "depths": ("ts", "bids", "asks", "best_bid", "best_ask", "mid", "spread"),
    "candles": ("ts", "open", "high", "low", "close", "volume", "buy_volume", "deals"),
}
"""The columns of each view, in their order."""

NUMBER: Final = "Nullable(Decimal(38, 18))"
"""A price or an amount."""
_LEVELS: Final = f"Array(Tuple(price {NUMBER}, amount {NUMBER}))"

# The conversion functions of ClickHouse drop digits that do not fit, and take `-` for 0, without
# a word. So a text is converted only if it matches one of these.
_FITS: Final = r"-?[0-9]{1,18}(\.[0-9]{1,18}0*)?"
_RATE_FITS: Final = r"^-?[0-9]{1,10}(\.[0-9]{1,8}0*)?$"
_LEVEL: Final = rf"\[{_FITS},{_FITS}\]"
_SIDE_FITS: Final = rf"^({_LEVEL}(,{_LEVEL})*)?$"
_ANY_LEVEL: Final = r"\[([^\[\],]*),([^\[\],]*)[^\]]*\]"

_NEEDS_ONE_THREAD: Final = (
    "candles are read by one thread, for deals of one millisecond to keep their order, and this "
    "user's profile (readonly = 1) does not let the view see to that: give it max_threads = 1"
)


def create(store: Store, tables: Sequence[str]) -> list[str]:
    """Create the views of these tables that are missing; return the names of the new ones.

    Views are a convenience: what prevents them is logged in one line, and never raised. A view
    of an older definition is replaced; a table or view of somebody else's is left alone.
    """
    try:
        return _create(store, tables)
    except StoreError as error:
        log.warning("typed views beside the tables could not be created: %s", error)
        return []


def _create(store: Store, tables: Sequence[str]) -> list[str]:
    if not tables:
        return []
    database = literal(store.database)
    found = store.query(f"SELECT name, comment FROM system.tables WHERE database = {database}")
    comments = {str(name): str(comment) for name, comment in found}
    present = columns(store, tables=tables) or {}
    created: list[str] = []
    for table in tables:
        selects = definitions(qualified(store, table), present.get(table, {}).get("ts", ""))
        for view in VIEWS:
            name = f"{table}_{view}"
            comment = comments.get(name)
            if comment == _COMMENT:
                continue
            if comment is not None and not comment.startswith(_MARK):
                log.warning("%s: %s is not ours, so there is no such view", store.name, name)
                continue
            replace = "" if comment is None else "OR REPLACE "
            store.query(
                f"CREATE {replace}VIEW {qualified(store, name)} AS {selects[view]} "
                f"COMMENT {literal(_COMMENT)}"
            )
            created.append(name)
    return created


def definitions(source: str, ts_type: str) -> dict[str, str]:
    """Return the SELECT of each view, by its name in `symbols.VIEWS`.

    Args:
        source: the SQL for a table's rows, to stand behind FROM.
        ts_type: the type of their column `ts`; in a table made by hand that may be Int64.
    """
    ts = "ts" if ts_type.startswith("DateTime64") else "fromUnixTimestamp64Milli(ts)"
    return {
        "tickers": _tickers(source, ts),
        "deals": _deals(source, ts),
        "depths": _depths(source, ts),
        "candles": _candles(source, ts),
    }


def _tickers(source: str, ts: str) -> str:
    rate = f"if(match(f[5], {literal(_RATE_FITS)}), toDecimal64OrNull(f[5], 8), NULL)"
    return (
        f"WITH splitByChar('|', m) AS f SELECT {ts} AS ts, {_number('f[1]')} AS last_price, "
        f"{_number('f[2]')} AS fair_price, {_number('f[3]')} AS index_price, "
        f"{_number('f[4]')} AS hold_volume, {rate} AS funding_rate FROM {source} WHERE mt = 't'"
    )


def _deals(source: str, ts: str) -> str:
    return (
        f"WITH splitByChar('|', m) AS f SELECT {ts} AS ts, {_number('f[1]')} AS price, "
        f"{_number('f[2]')} AS volume, CAST(multiIf(f[3] = '1', 'buy', f[3] = '2', 'sell', NULL), "
        f"'Nullable(Enum8(\\'buy\\' = 1, \\'sell\\' = 2))') AS side FROM {source} WHERE mt = 'd'"
    )


def _depths(source: str, ts: str) -> str:
    # The best prices are cut from the text, for a query that wants no more than those.
    def best(side: str) -> str:
        return _number(f"substring({side}, 2, position({side}, ',') - 2)")

    return (
        f"WITH position(m, '|') AS bar, substring(m, 1, bar - 1) AS b, substring(m, bar + 1) AS a "
        f"SELECT {ts} AS ts, {_levels('b')} AS bids, {_levels('a')} AS asks, "
        f"{best('b')} AS best_bid, {best('a')} AS best_ask, "
        f"(best_bid + best_ask) * toDecimal128('0.5', 1) AS mid, best_ask - best_bid AS spread "
        f"FROM {source} WHERE mt = 'dp'"
    )


def _candles(source: str, ts: str) -> str:
    # Deals of one millisecond are told apart by their number, in the order of insertion: that is
    # what one thread reads. A profile with readonly = 1 makes the engine ignore a view's settings
    # without a word (measured), hence the question whether it took this one.
    single = f"throwIf(getSetting('max_threads') != 1, {literal(_NEEDS_ONE_THREAD)}) = 0"
    # One number of time and row, which is compared twice as fast as the two.
    order = f"toInt128(toUnixTimestamp64Milli({ts})) * {2**48} + rowNumberInAllBlocks()"
    numbered = (
        f"SELECT {ts} AS at, {_number('f[1]')} AS p, {_number('f[2]')} AS v, f[3] AS direction, "
        f"{order} AS n FROM (SELECT ts, splitByChar('|', m) AS f FROM {source} "
        f"WHERE mt = 'd') WHERE {single} SETTINGS max_threads = 1"
    )
    step = "toInt64({interval:UInt32}) * 1000"
    # Summed in 256 bits, where nothing overflows unseen.
    volume = "accurateCastOrNull(sum(toDecimal256(v, 18)), 'Decimal(38, 18)')"
    bought = "accurateCastOrNull(sumIf(toDecimal256(v, 18), direction = '1'), 'Decimal(38, 18)')"
    return (
        f"SELECT fromUnixTimestamp64Milli(intDiv(toUnixTimestamp64Milli(at), {step}) * {step}) "
        f"AS ts, argMin(p, n) AS open, max(p) AS high, min(p) AS low, "
        f"argMax(p, n) AS close, {volume} AS volume, {bought} AS buy_volume, "
        f"count() AS deals FROM ({numbered}) GROUP BY ts ORDER BY ts"
    )


def _number(text: str) -> str:
    return f"if(match({text}, {literal(f'^{_FITS}$')}), toDecimal128OrNull({text}, 18), NULL)"


def _levels(side: str) -> str:
    """Return one side of the book as an array: in one go if all of it fits, else one by one."""
    fits = f"match({side}, {literal(_SIDE_FITS)})"
    # Each half is given nothing where it is the other's turn, so that neither can fail.
    whole = f"CAST(concat('[', if({fits}, translate({side}, '[]', '()'), ''), ']'), '{_LEVELS}')"
    each = (
        f"CAST(arrayMap(l -> ({_number('l[1]')}, {_number('l[2]')}), extractAllGroupsVertical("
        f"if({fits}, '', {side}), {literal(_ANY_LEVEL)})), '{_LEVELS}')"
    )
    return f"arrayConcat({whole}, {each})"
