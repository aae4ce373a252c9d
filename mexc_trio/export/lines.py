"""A row as one line of CSV or JSON, put together by the engine from exact texts.

The engine has formats of its own for this, but how those write times, numbers and missing values
depends on settings, which a reader may not be allowed to change.
"""

from collections.abc import Sequence
from typing import Final

from mexc_trio.clickhouse.view_sql import LEVELS

_TIMES: Final = frozenset({"ts"})
_WORDS: Final = frozenset({"side", "mt"})
_TEXTS: Final = frozenset({"m"})
_COMMA: Final = ", ',', "
# All other columns are numbers.


def line(form: str, names: Sequence[str], *, numbers: str) -> str:
    """Return the SQL for a line with these columns of the typed views, or of a table.

    Args:
        form: csv or jsonl.
        names: the columns; they must be there under these names.
        numbers: `text` where JSON is to have numbers as texts.
    """
    if form == "csv":
        return f"concat({_COMMA.join(map(_csv, names))})"
    fields = (f"'\"{name}\":', {_json(name, quoted=numbers == 'text')}" for name in names)
    return f"concat('{{', {_COMMA.join(fields)}, '}}')"


def _csv(name: str) -> str:
    if name in _TIMES:
        return _time(name)
    if name in LEVELS:
        return f"'\"', {_array(name)}, '\"'"
    if name in _TEXTS:
        return f"'\"', replaceAll({name}, '\"', '\"\"'), '\"'"
    return f"ifNull(toString({name}), '')"


def _json(name: str, *, quoted: bool) -> str:
    if name in _TIMES:
        return f"'\"', {_time(name)}, '\"'"
    if name in LEVELS:
        return _array(name, '"' if quoted else "")
    if name in _TEXTS:
        return f"toJSONString({name})"
    if name in _WORDS or (quoted and name != "deals"):
        return f"ifNull(concat('\"', toString({name}), '\"'), 'null')"
    return f"ifNull(toString({name}), 'null')"


def _time(name: str) -> str:
    """Return a time as ISO 8601 in UTC, to the millisecond."""
    milliseconds = f"leftPad(toString(toUnixTimestamp64Milli({name}) % 1000), 3, '0')"
    return f"formatDateTime({name}, '%Y-%m-%dT%H:%i:%S', 'UTC'), '.', {milliseconds}, 'Z'"


def _array(name: str, quote: str = "") -> str:
    """Return prices or amounts of a side of the book as a JSON array."""
    number = f"concat('{quote}', toString(n), '{quote}')" if quote else "toString(n)"
    return f"'[', arrayStringConcat(arrayMap(n -> {number}, {name}), ','), ']'"
