"""A range of a table, added up by the engine in steps: minutes, unless others are asked for.

However many rows a day has, 1,440 lines come back, and a few more from the hours before it, which
tell the rhythm of the channels. Numbers are Decimals; one that does not fit is left out. Each
question raises StoreError where there is no answer.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final, TypeAlias

import attrs

from mexc_trio.analysis.row_counts import FITS, decimal
from mexc_trio.channels import ALL, OPTIONAL
from mexc_trio.clickhouse.schema import TIME, Readable, literal, within
from mexc_trio.clickhouse.tables import NUMBER
from mexc_trio.rows import DEAD_LETTER, DEAL, DEPTH, OPTIONAL_TYPES, TICKER, Channel
from mexc_trio.spans import MINUTE, Span, possible

_TYPES: Final[Mapping[Channel, str]] = {name: one.mt for name, one in ALL.items()}
_Values: TypeAlias = Sequence[int | str]


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
    """Add up a range's rows by steps of some milliseconds; the other arguments as for `around`."""
    number, ask, bid = decimal("number"), decimal("ask"), decimal("bid")
    spread, both = f"({ask} - {bid})", "bid != '' AND ask != ''"
    found = store.query(
        f"SELECT intDiv(at, {step}) AS step, k, (count(), min(at), max(at), sum(length(m))), "
        f"(countIf(number != ''), maxIf(at, number != ''), argMaxIf(number, at, number != ''), "
        f"toString(minIf({number}, number != '')), toString(maxIf({number}, number != ''))), "
        f"(countIf({both}), toString(sumIf({spread}, {both})), "
        f"toString(minIf({spread}, {both})), toString(maxIf({spread}, {both}))) "
        f"FROM (SELECT at, k, m, multiIf(k IN ('{TICKER}', '{DEAL}'), {_number('^', '[|]')}, "
        f"k IN ({', '.join(map(literal, OPTIONAL_TYPES))}), "
        f"extract(m, {literal(f'^(-?{FITS[1:]}')}), '') AS number, "
        f"if(k = '{DEPTH}', {_number('^[[]', ',')}, '') AS bid, "
        f"if(k = '{DEPTH}', {_number('[|][[]', ',')}, '') AS ask "
        f"FROM ({_rows(source, span)})) GROUP BY step, k ORDER BY step, k"
    )
    by_type: dict[int, dict[str, Sequence[_Values]]] = {}
    for number_of_step, mt, *values in found:
        by_type.setdefault(int(number_of_step), {})[str(mt)] = values
    return {number: _minute(values) for number, values in by_type.items()}


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


def _minute(by_type: Mapping[str, Sequence[_Values]]) -> Minute:
    """Return one step from what `minutes` asks for: its rows, their numbers and the spreads."""
    rows = {mt: [int(value) for value in of_rows] for mt, (of_rows, _, _) in by_type.items()}
    numbers = {
        mt: (int(newest), Price(*map(Decimal, values)))
        for mt, (_, (there, newest, *values), _) in by_type.items()
        if int(there)
    }
    price = spread = None
    if traded := [numbers[mt] for mt in (TICKER, DEAL) if mt in numbers]:
        _, last = max(traded, key=lambda one: one[0])
        lows, highs = zip(*((one.low, one.high) for _, one in traded), strict=True)
        price = Price(last.last, min(lows), max(highs))
    if DEPTH in by_type and int((books := by_type[DEPTH][2])[0]):
        total, least, most = map(Decimal, books[1:])
        spread = Spread(total / int(books[0]), least, most)
    return Minute(
        {name: rows[mt][0] if mt in rows else 0 for name, mt in _TYPES.items()},
        rows[DEAD_LETTER][0] if DEAD_LETTER in rows else 0,
        {name: (rows[mt][1], rows[mt][2]) for name, mt in _TYPES.items() if mt in rows},
        sum(text for _, _, _, text in rows.values()),
        price,
        spread,
        {name: numbers[ALL[name].mt][1] for name in OPTIONAL if ALL[name].mt in numbers},
    )
