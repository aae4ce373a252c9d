"""A row as one line of CSV or JSON, put together by the engine from exact texts.

The engine has formats of its own for this, but how those write times, numbers and missing values
depends on settings, which a reader may not be allowed to change.
"""

from collections.abc import Sequence
from typing import Final

_TIMES: Final = frozenset({"ts"})
_WORDS: Final = frozenset({"side", "mt"})
_TEXTS: Final = frozenset({"m"})
_LEVELS: Final = frozenset({"bids", "asks"})
_COMMA: Final = ", ',', "
# All other columns are numbers.


def line(form: str, names: Sequence[str]) -> str:
    """Return the SQL for a line with these columns of the typed views, or of a table.

    Args:
        form: csv or jsonl.
        names: the columns; they must be there under these names.
    """
    if form == "csv":
        return f"concat({_COMMA.join(map(_csv, names))})"
    fields = (f"'\"{name}\":', {_json(name)}" for name in names)
    return f"concat('{{', {_COMMA.join(fields)}, '}}')"


def _csv(name: str) -> str:
    if name in _TIMES:
        return _time(name)
    if name in _LEVELS:
        return f"'\"', {_levels(name)}, '\"'"
    if name in _TEXTS:
        return f"'\"', replaceAll({name}, '\"', '\"\"'), '\"'"
    return f"ifNull(toString({name}), '')"


def _json(name: str) -> str:
    if name in _TIMES:
        return f"'\"', {_time(name)}, '\"'"
    if name in _LEVELS:
        return _levels(name)
    if name in _TEXTS:
        return f"toJSONString({name})"
    if name in _WORDS:
        return f"ifNull(concat('\"', toString({name}), '\"'), 'null')"
    return f"ifNull(toString({name}), 'null')"


def _time(name: str) -> str:
    """Return a time as ISO 8601 in UTC, to the millisecond."""
    milliseconds = f"leftPad(toString(toUnixTimestamp64Milli({name}) % 1000), 3, '0')"
    return f"formatDateTime({name}, '%Y-%m-%dT%H:%i:%S', 'UTC'), '.', {milliseconds}, 'Z'"


def _levels(name: str) -> str:
    """Return a side of the book as a JSON array of [price, amount]."""
    level = "concat('[', {}, ',', {}, ']')".format(
        *(f"ifNull(toString(l.{part}), 'null')" for part in ("price", "amount"))
    )
    return f"'[', arrayStringConcat(arrayMap(l -> {level}, {name}), ','), ']'"
