"""A range of a table, added up by the engine in steps: minutes, unless others are asked for.

However many rows a day has, 1,440 lines come back, and a few more from the hours before it, which
tell the rhythm of the channels. Numbers are Decimals; one that does not fit is left out. Each
question raises StoreError where there is no answer.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

import attrs

from mexc_trio.analysis.row_counts import FITS, decimal, within
from mexc_trio.channels import ALL, OPTIONAL
from mexc_trio.clickhouse.schema import TIME, Readable, literal
from mexc_trio.clickhouse.tables import NUMBER
from mexc_trio.rows import DEAD_LETTER, DEAL, DEPTH, OPTIONAL_TYPES, TICKER, Channel
from mexc_trio.spans import MINUTE, Span, possible

_TYPES: Final[Mapping[Channel, str]] = {name: one.mt for name, one in ALL.items()}


@attrs.frozen
class Spread:
    """Best ask minus best bid of the books of one step that have both sides."""

    mean: Decimal
    low: Decimal
    high: Decimal


@attrs.frozen
class Price:
    """What was traded at in one step, by deals and by the tickers' last price.

    Or other numbers, of a channel that is recorded on request.
    """

    last: Decimal
    """The one with the newest time."""
    low: Decimal
    high: Decimal


@attrs.frozen
class Minute:
    """What one step has."""

    rows: Mapping[Channel, int]
    dead: int
    spans: Mapping[Channel, Span]
    """From a channel's first row to its last, in milliseconds since 1970."""
    text: int
    """Bytes of text, before compression."""
    price: Price | None
    spread: Spread | None
    numbers: Mapping[Channel, Price] = attrs.field(factory=dict)
    """The first number of the rows of channels that are recorded on request."""

    @property
    def total(self) -> int:
        """All rows."""
        return sum(self.rows.values()) + self.dead


@attrs.frozen
class Around:
    """A channel's first and last row, and those next to a range, in milliseconds since 1970."""

    span: Span
    before: int | None
    """Its last row before the range."""
    after: int | None
    """Its first row after the range."""


def around(store: Readable, source: str, span: Span) -> dict[Channel, Around]:
    """Return what each channel with rows has on both sides of a range. Impossible times are none.

    `source` is the SQL for the table, to stand behind FROM. The range is in milliseconds since
    1970.
    """
    found = store.query(
        f"SELECT toString(mt) AS k, min({TIME} AS at), max(at), countIf(at < {span[0]}), "
        f"maxIf(at, at < {span[0]}), countIf(at >= {span[1]}), minIf(at, at >= {span[1]}) "
        f"FROM {source} WHERE {within(possible())} GROUP BY k"
    )
    by_type = {str(line[0]): [int(value) for value in line[1:]] for line in found}
    return {
        name: Around((first, last), newest if earlier else None, oldest if later else None)
        for name, mt in _TYPES.items()
        if mt in by_type
        for first, last, earlier, newest, later, oldest in [by_type[mt]]
    }


def minutes(store: Readable, source: str, span: Span, step: int = MINUTE) -> dict[int, Minute]:
    """Add up a range's rows by steps of some milliseconds since 1970. Others as for `around`."""
    # Of each channel: how many rows, from when to when.
    channels = ", ".join(
        f"countIf(k = '{mt}'), minIf(at, k = '{mt}'), maxIf(at, k = '{mt}')"
        for mt in _TYPES.values()
    )
    spread, both = f"({decimal('ask')} - {decimal('bid')})", "bid != '' AND ask != ''"
    price = decimal("price")
    # Of each channel on request: how many numbers; the last, the lowest, the highest.
    others = "".join(
        f", countIf({there}), argMaxIf(other, at, {there}), "
        f"toString(minIf({number}, {there})), toString(maxIf({number}, {there}))"
        for number in [decimal("other")]
        for there in [f"k = '{mt}' AND other != ''" for mt in OPTIONAL_TYPES]
    )
    found = store.query(
        f"SELECT minute, {channels}, countIf(k = '{DEAD_LETTER}'), sum(long), "
        f"countIf(price != ''), argMaxIf(price, at, price != ''), "
        f"toString(minIf({price}, price != '')), toString(maxIf({price}, price != '')), "
        f"countIf({both}), toString(sumIf({spread}, {both})), "
        f"toString(minIf({spread}, {both})), toString(maxIf({spread}, {both})){others} "
        f"FROM (SELECT intDiv(at, {step}) AS minute, at, k, length(m) AS long, "
        f"if(k IN ('{TICKER}', '{DEAL}'), {_number('^', '[|]')}, '') AS price, "
        f"if(k = '{DEPTH}', {_number('^[[]', ',')}, '') AS bid, "
        f"if(k = '{DEPTH}', {_number('[|][[]', ',')}, '') AS ask, "
        f"if(k IN ({', '.join(map(literal, OPTIONAL_TYPES))}), "
        f"extract(m, {literal(f'^(-?{FITS[1:]}')}), '') AS other "
        f"FROM ({_rows(source, span)})) GROUP BY minute ORDER BY minute"
    )
    return {int(line[0]): _minute(line[1:]) for line in found}


def pauses(
    store: Readable, source: str, span: Span, step: int = MINUTE, *, numbered: bool = False
) -> dict[int, int]:
    """Return the longest pause that ended in each step, in milliseconds, by steps since 1970.

    A pause is the time from the newest row so far, whatever its channel, to the next that is newer.
    Arguments as for `around`, and whether each row bears its number. The store must be one of which
    `insertion_order.why_not` has nothing to say.
    """
    order, column = (f"ORDER BY {NUMBER} ", f", {NUMBER}") if numbered else ("", "")
    found = store.query(
        f"SELECT intDiv(at, {step}) AS minute, max(at - newest) FROM ("
        f"SELECT at, max(at) OVER ({order}ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) "
        f"AS newest "
        f"FROM ({_rows(source, span, column)}) WHERE k != '{DEAD_LETTER}') "
        f"WHERE newest > 0 AND at > newest GROUP BY minute ORDER BY minute "
        f"SETTINGS max_threads = 1"
    )
    return {int(minute): int(longest) for minute, longest in found}


def _rows(source: str, span: Span, more: str = "") -> str:
    return f"SELECT {TIME} AS at, toString(mt) AS k, m{more} FROM {source} WHERE {within(span)}"


def _number(before: str, after: str) -> str:
    """Return the SQL for the first number between two patterns; empty where there is none."""
    return f"extract(m, {literal(before + FITS + after)})"


def _minute(line: Sequence[int | str]) -> Minute:
    rows: dict[Channel, int] = {}
    spans: dict[Channel, Span] = {}
    for number, name in enumerate(_TYPES):
        count, first, last = map(int, line[3 * number : 3 * number + 3])
        rows[name] = count
        if count:
            spans[name] = (first, last)
    of_all = line[3 * len(_TYPES) :]
    dead, text, prices, last_price, low, high, books, total, least, most, *others = of_all
    numbers: dict[Channel, Price] = {}
    for number, name in enumerate(OPTIONAL):
        there, *values = others[4 * number : 4 * number + 4]
        if int(there):
            numbers[name] = Price(*map(Decimal, values))
    return Minute(
        rows,
        int(dead),
        spans,
        int(text),
        Price(Decimal(last_price), Decimal(low), Decimal(high)) if int(prices) else None,
        Spread(Decimal(total) / int(books), Decimal(least), Decimal(most)) if int(books) else None,
        numbers,
    )
