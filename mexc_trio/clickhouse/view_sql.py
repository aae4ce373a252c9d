"""The SELECTs of the typed views: a table's texts as columns that can be computed with.

What a number becomes is a choice, `NumberSql`, and the columns are the same with each:

- `FLOATS`: Float64, the double that is nearest to the text. What people compute with.
- `EXACT`: Decimal(76, 18), which has room for the product of any two of them; the engine checks no
  product of Decimals, and in 38 digits that of a price and an amount turns into another number
  without a word.
- `DECIMALS`: Decimal(38, 18), which files can hold and every tool reads.
- `TEXTS`: the exchange's own digits.

What the exchange did not send is NULL, and so is what is no number or, exact, does not fit: 18
digits before the point and 18 after it, zeros at the end not counted. A side of a book with such a
number in it has no levels. Nothing is rounded but to the nearest Float64.
"""

from collections.abc import Callable, Mapping
from typing import Final

import attrs

from mexc_trio.channels import ALL, OPTIONAL_VIEWS
from mexc_trio.clickhouse.schema import TIME, literal
from mexc_trio.clickhouse.tables import NUMBER

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "tickers": ("ts", "last_price", "fair_price", "index_price", "hold_volume", "funding_rate"),
    "deals": ("ts", "price", "volume", "side"),
    "depths": (
        "ts", "bid_prices", "bid_amounts", "ask_prices", "ask_amounts", "best_bid",
        "best_bid_amount", "best_ask", "best_ask_amount", "mid", "spread",
    ),
    "candles": ("ts", "open", "high", "low", "close", "volume", "buy_volume", "deals"),
    **{view: ("ts", *ALL[name].numbers.values()) for view, name in OPTIONAL_VIEWS.items()},
}  # fmt: skip
"""The columns of each view, in their order."""

RECEIPT: Final = ("received", "id")
"""The columns that views of wide tables have besides, candles excepted."""
RECEIPT_SQL: Final = ", nullIf(rt, toDateTime64(0, 6)) AS received, nullIf(id, 0) AS id"
"""What they are in a table."""

LEVELS: Final = ("bid_prices", "bid_amounts", "ask_prices", "ask_amounts")
"""The columns of a book that are arrays, best level first."""

# The conversion to Decimal drops digits that do not fit, and takes `-` for 0, without a word. So a
# text is converted only if it matches one of these.
_FITS: Final = r"-?[0-9]{1,18}(\.[0-9]{1,18}0*)?"
_LEVEL: Final = rf"\[{_FITS},{_FITS}\]"
_SIDE_FITS: Final = rf"^({_LEVEL}(,{_LEVEL})*)?$"

_NEEDS_ONE_THREAD: Final = (
    "candles are read by one thread, for deals of one millisecond to keep their order, and this "
    "user's profile (readonly = 1) does not let the view see to that: give it max_threads = 1"
)


@attrs.frozen
class NumberSql:
    """What the numbers of a view are. Each function is given SQL and returns SQL."""

    number: Callable[[str], str]
    """A text as a number, or NULL."""
    levels: Callable[[str], str]
    """One side of a book as an array of pairs."""
    half: Callable[[str], str]
    total: Callable[[str], str]
    """The aggregate function of a sum, such as `sum(volume)`, in the numbers' own type."""
    shown: Callable[[str], str] = str
    """What was computed, as it is given out."""


FLOATS: Final = NumberSql(
    number=lambda text: f"toFloat64OrNull({text})",
    levels=lambda side: f"JSONExtract(concat('[', {side}, ']'), 'Array(Tuple(Float64, Float64))')",
    half=lambda number: f"({number}) / 2",
    total=str,
)


def _decimal(bits: int, digits: int, shown: Callable[[str], str] = str) -> NumberSql:
    type_ = f"Decimal({digits}, 18)"

    def number(text: str) -> str:
        fits = f"match({text}, {literal(f'^{_FITS}$')})"
        return f"if({fits}, toDecimal{bits}OrNull({text}, 18), NULL)"

    def levels(side: str) -> str:
        fitting = f"if(match({side}, {literal(_SIDE_FITS)}), translate({side}, '[]', '()'), '')"
        return f"CAST(concat('[', {fitting}, ']'), 'Array(Tuple({type_}, {type_}))')"

    return NumberSql(
        number=number,
        levels=levels,
        half=lambda number: f"({number}) * toDecimal{bits}('0.5', 1)",
        # Added up in 256 bits, where a volume has room for more deals than there will ever be.
        total=lambda function: f"accurateCastOrNull({function}, {literal(type_)})",
        shown=shown,
    )


EXACT: Final = _decimal(256, 76)
DECIMALS: Final = _decimal(128, 38)
_COMPUTED_TEXTS: Final = _decimal(256, 76, lambda number: f"toString({number})")
TEXTS: Final = attrs.evolve(
    _COMPUTED_TEXTS,
    number=lambda text: f"nullIf({text}, '')",
    levels=lambda side: (
        f"arrayMap(l -> (l[1], l[2]), extractAllGroupsVertical({side}, "
        + literal(r"\[([^\[\],]*),([^\[\],]*)")
        + "))"
    ),
)


def definitions(
    source: str,
    numbers: NumberSql = FLOATS,
    *,
    numbered: bool = False,
    wide: bool = False,
    more: str = "",
) -> dict[str, str]:
    """Return the SELECT of each view, by its name in `COLUMNS`.

    `source` is the SQL for a table's rows, to stand behind FROM. `numbers` says what their texts
    become. Rows that are `numbered` bear their numbers. If the table is `wide`, the columns of the
    receipt come behind the others. `more` is the SQL of columns that come last, made of a row's
    `ts`, in all but candles.
    """
    # In the same SELECT: through one more around it the engine finds the last row of an indexed
    # table by reading them all (measured: seven times as long).
    more = (RECEIPT_SQL if wide else "") + more
    of_numbers = {"tickers": "ticker", **OPTIONAL_VIEWS}
    return {
        "deals": _deals(source, numbers, more),
        "depths": _depths(source, numbers, more),
        "candles": _candles(source, numbers, numbered=numbered),
        **{
            view: _numbers(view, ALL[name].mt, source, numbers, more)
            for view, name in of_numbers.items()
        },
    }


def _numbers(view: str, mt: str, source: str, numbers: NumberSql, more: str) -> str:
    """Return the SELECT of rows that are numbers and nothing else."""
    columns = (
        f"{numbers.number(f'f[{n}]')} AS {name}"
        for n, name in enumerate(COLUMNS[view][1:], start=1)
    )
    return (
        f"WITH splitByChar('|', m) AS f SELECT ts, {', '.join(columns)}{more} "
        f"FROM {source} WHERE mt = '{mt}'"
    )


def _deals(source: str, numbers: NumberSql, more: str) -> str:
    return (
        f"WITH splitByChar('|', m) AS f SELECT ts, {numbers.number('f[1]')} AS price, "
        f"{numbers.number('f[2]')} AS volume, "
        f"CAST(multiIf(f[3] = '1', 'buy', f[3] = '2', 'sell', NULL), "
        f"'Nullable(Enum8(\\'buy\\' = 1, \\'sell\\' = 2))') AS side{more} "
        f"FROM {source} WHERE mt = 'd'"
    )


def _depths(source: str, numbers: NumberSql, more: str) -> str:
    # The best levels are cut from the text, for a query that wants no more than those.
    def price(side: str) -> str:
        return f"substring({side}, 2, position({side}, ',') - 2)"

    def amount(side: str) -> str:
        comma, end = f"position({side}, ',')", f"position({side}, ']')"
        return f"substring({side}, {comma} + 1, greatest({end} - {comma} - 1, 0))"

    compute = _COMPUTED_TEXTS if numbers is TEXTS else numbers
    bid, ask = (compute.number(price(side)) for side in ("b", "a"))
    return (
        f"WITH position(m, '|') AS bar, substring(m, 1, bar - 1) AS b, substring(m, bar + 1) AS a, "
        f"{numbers.levels('b')} AS bids, {numbers.levels('a')} AS asks "
        f"SELECT ts, tupleElement(bids, 1) AS bid_prices, "
        f"tupleElement(bids, 2) AS bid_amounts, tupleElement(asks, 1) AS ask_prices, "
        f"tupleElement(asks, 2) AS ask_amounts, "
        f"{numbers.number(price('b'))} AS best_bid, {numbers.number(amount('b'))} "
        f"AS best_bid_amount, {numbers.number(price('a'))} AS best_ask, "
        f"{numbers.number(amount('a'))} AS best_ask_amount, "
        f"{numbers.shown(compute.half(f'{bid} + {ask}'))} AS mid, "
        f"{numbers.shown(f'{ask} - {bid}')} AS spread{more} "
        f"FROM {source} WHERE mt = 'dp'"
    )


def _candles(source: str, numbers: NumberSql, *, numbered: bool) -> str:
    # Deals of one millisecond are told apart by their number, in the order of insertion. If they do
    # not bear it, that is what one thread reads. A profile with readonly = 1 makes the engine
    # ignore a view's settings without a word (measured), hence the question whether it took this.
    single = f"throwIf(getSetting('max_threads') != 1, {literal(_NEEDS_ONE_THREAD)}) = 0"
    column, number, where = ("", "rowNumberInAllBlocks()", f"{single} SETTINGS max_threads = 1")
    if numbered:
        column, number, where = f", {NUMBER} AS number", "number", "1"
    # One number of time and row, which is compared twice as fast as the two.
    order = f"toInt128({TIME}) * {2**48} + {number}"
    compute = _COMPUTED_TEXTS if numbers is TEXTS else numbers
    deals = (
        f"SELECT ts AS at, {compute.number('f[1]')} AS p, {compute.number('f[2]')} AS v, "
        f"f[3] AS direction, {order} AS n FROM (SELECT ts, splitByChar('|', m) AS f{column} "
        f"FROM {source} WHERE mt = 'd') WHERE {where}"
    )
    # Through this the engine sees which times a WHERE on `ts` wants, and where it has an index of
    # them reads no others; through a division of the milliseconds it does not (measured).
    start = "toStartOfInterval(at, toIntervalMillisecond(toInt64({interval:UInt32}) * 1000))"
    exact = "v" if numbers is FLOATS else "toDecimal256(v, 18)"
    columns = {
        "open": "argMin(p, n)",
        "high": "max(p)",
        "low": "min(p)",
        "close": "argMax(p, n)",
        "volume": compute.total(f"sum({exact})"),
        "buy_volume": compute.total(f"sum(if(direction = '1', {exact}, 0))"),  # 0 without any
    }
    shown = ", ".join(f"{numbers.shown(sql)} AS {name}" for name, sql in columns.items())
    return f"SELECT {start} AS ts, {shown}, count() AS deals FROM ({deals}) GROUP BY ts ORDER BY ts"
