"""A row as one line of CSV or JSON, put together by the engine from exact texts.

The engine has formats of its own for this, but how those write times, numbers and missing values
depends on settings, which a reader may not be allowed to change.
"""

from collections.abc import Sequence
from typing import Final

from mexc_trio.clickhouse.schema import quoted
from mexc_trio.clickhouse.view_sql import LEVELS

_TIMES: Final = frozenset({"ts", "from", "to"})
_WORDS: Final = frozenset({"symbol", "side", "mt", "channel", "cause"})
_TEXTS: Final = frozenset({"m", "detail"})
_COUNTS: Final = frozenset({"deals", "version_before", "version_after", "id"})
_RECEIVED: Final = "received"
_COMMA: Final = ", ',', "
# All other columns are numbers.


def line(form: str, names: Sequence[str], *, numbers: str) -> str:
    """Return the SQL for a line with these columns of the typed views, or of a table.

    `form` is csv or jsonl. `numbers` is `text` where JSON is to have numbers as texts.
    """
    if form == "csv":
        return f"concat({_COMMA.join(map(_csv, names))})"
    fields = (f"'\"{name}\":', {_json(name, as_texts=numbers == 'text')}" for name in names)
    return f"concat('{{', {_COMMA.join(fields)}, '}}')"


def _csv(name: str) -> str:
    column = quoted(name)
    if name in _TIMES:
        return _time(column)
    if name == _RECEIVED:
        return f"ifNull({_fine_time(column)}, '')"
    if name in LEVELS:
        return f"'\"', {_array(column)}, '\"'"
    if name in _TEXTS:
        return f"'\"', replaceAll({column}, '\"', '\"\"'), '\"'"
    return f"ifNull(toString({column}), '')"


def _json(name: str, *, as_texts: bool) -> str:
    column = quoted(name)
    if name in _TIMES:
        return f"'\"', {_time(column)}, '\"'"
    if name == _RECEIVED:
        return f"ifNull(concat('\"', {_fine_time(column)}, '\"'), 'null')"
    if name in LEVELS:
        return _array(column, '"' if as_texts else "")
    if name in _TEXTS:
        return f"toJSONString({column})"
    if name in _WORDS or (as_texts and name not in _COUNTS):
        return f"ifNull(concat('\"', toString({column}), '\"'), 'null')"
    return f"ifNull(toString({column}), 'null')"


def _time(column: str) -> str:
    """Return a time as ISO 8601 in UTC, to the millisecond."""
    milliseconds = f"leftPad(toString(toUnixTimestamp64Milli({column}) % 1000), 3, '0')"
    return f"formatDateTime({column}, '%Y-%m-%dT%H:%i:%S', 'UTC'), '.', {milliseconds}, 'Z'"


def _fine_time(column: str) -> str:
    """Return a time to the microsecond, or NULL."""
    fraction = f"leftPad(toString(toUnixTimestamp64Micro({column}) % 1000000), 6, '0')"
    return f"concat(formatDateTime({column}, '%Y-%m-%dT%H:%i:%S', 'UTC'), '.', {fraction}, 'Z')"


def _array(column: str, quote: str = "") -> str:
    """Return prices or amounts of a side of the book as a JSON array."""
    number = f"concat('{quote}', toString(n), '{quote}')" if quote else "toString(n)"
    return f"'[', arrayStringConcat(arrayMap(n -> {number}, {column}), ','), ']'"
