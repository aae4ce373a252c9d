"""What a table holds, counted: rows by hour, dead letters by their shape, deals by minute.

What asks the store raises StoreError where there is no answer.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

import attrs

from mexc_trio.channels import BY_TYPE
from mexc_trio.clickhouse.schema import TIME, Readable, literal, within
from mexc_trio.rows import CHANNELS, DEAD_LETTER, DEAL, Channel
from mexc_trio.spans import HOUR, MINUTE, Span

SHAPES: Final = 5
"""How many of the commonest shapes of dead letters are told."""
SHAPE_LENGTH: Final = 60
"""Characters of a shape."""
MOST_DEAD_LETTERS: Final = 100_000
"""Dead letters of a table that are looked at for their shape."""

FITS: Final = r"([0-9]{1,15}(?:\.[0-9]{1,18})?)0*"
"""Digits of which Decimal(38, 18) keeps each one, with room to add up a minute's; zeros at the end
do not count. The conversion would cut others without a word."""


@attrs.frozen
class Hours:
    """The rows of one channel."""

    rows: Mapping[int, int]
    """By hour, counted from 1970; hours without rows are left out."""
    span: Span | None
    """From the oldest to the newest, in milliseconds since 1970; None without rows."""
    impossible: int
    """Rows with a time that no row can have, long ago or still to come; not counted."""


@attrs.frozen
class Shape:
    """Dead letters that look the same but for their numbers."""

    text: str
    """How they begin, each number replaced by `#`."""
    letters: int


@attrs.frozen
class DealtMinute:
    """The deals of one minute. Exact."""

    volume: Decimal
    """In contracts."""
    high: Decimal
    low: Decimal
    inexact: bool
    """A number among them has too many digits to be counted with the others."""


def hours(store: Readable, source: str, span: Span) -> dict[Channel, Hours]:
    """Count a table's rows by channel and hour.

    `source` is the SQL for the table, to stand behind FROM. Times outside the span, in milliseconds
    since 1970, are the exchange's mistakes.
    """
    hour = f"if({within(span)}, intDiv({TIME}, {HOUR}), -1)"
    found = store.query(
        f"SELECT toString(mt) AS k, {hour} AS hour, count(), min({TIME}), max({TIME}) "
        f"FROM {source} WHERE mt != '{DEAD_LETTER}' GROUP BY k, hour ORDER BY k, hour"
    )
    lines: dict[Channel, list[list[int]]] = {name: [] for name in CHANNELS}
    for mt, *numbers in found:
        channel = BY_TYPE.get(mt, "")
        if channel in lines:  # else it is on request, or the type of a table made by hand
            lines[channel].append([int(number) for number in numbers])
    return {name: _hours(of_channel) for name, of_channel in lines.items()}


def _hours(lines: Sequence[Sequence[int]]) -> Hours:
    sound = [line for line in lines if line[0] >= 0]
    return Hours(
        {hour: n for hour, n, _, _ in sound},
        (min(line[2] for line in sound), max(line[3] for line in sound)) if sound else None,
        sum(line[1] for line in lines if line[0] < 0),
    )


def only(source: str, span: Span) -> str:
    """Return the SQL for the rows of a source that are in a span, to stand behind FROM."""
    return f"(SELECT * FROM {source} WHERE {within(span)})"


def shapes(store: Readable, source: str) -> list[Shape]:
    """Return the commonest shapes among a table's first `MOST_DEAD_LETTERS` dead letters."""
    found = store.query(
        f"SELECT substringUTF8(replaceRegexpAll(m, '[0-9]+', '#'), 1, {SHAPE_LENGTH}) AS shape, "
        f"count() AS n FROM (SELECT m FROM {source} WHERE mt = '{DEAD_LETTER}' "
        f"LIMIT {MOST_DEAD_LETTERS}) GROUP BY shape ORDER BY n DESC, shape LIMIT {SHAPES}"
    )
    return [Shape(str(text), int(n)) for text, n in found]


def dealt(store: Readable, source: str, span: Span) -> dict[int, DealtMinute]:
    """Add up the deals of each minute, without rounding; by minutes counted from 1970.

    Arguments as for `hours`; only deals in the span count.
    """
    price, volume = (f"extract(f[{i}], {literal(f'^{FITS}$')})" for i in (1, 2))
    found = store.query(
        f"SELECT minute, toString(sum({decimal('v')})), toString(max({decimal('p')})), "
        f"toString(min({decimal('p')})), countIf(p = '' OR v = '') "
        f"FROM (SELECT minute, {price} AS p, {volume} AS v FROM ("
        f"SELECT intDiv({TIME}, {MINUTE}) AS minute, splitByChar('|', m) AS f FROM {source} "
        f"WHERE mt = '{DEAL}' AND {within(span)})) "
        f"GROUP BY minute ORDER BY minute"
    )
    return {
        int(minute): DealtMinute(Decimal(v), Decimal(high), Decimal(low), bool(int(odd)))
        for minute, v, high, low, odd in found
    }


def decimal(text: str) -> str:
    """Return the SQL of a text that matches `FITS`, or is empty, as a number."""
    return f"toDecimal128(if({text} = '', '0', {text}), 18)"
