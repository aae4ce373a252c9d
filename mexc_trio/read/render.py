"""ClickHouse's text formats, made of values as a reader gives them.

Byte for byte what ClickHouse itself writes, so that a script sees no difference between an
embedded store and a server. Only the tables for people are simpler than its own.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias

from mexc_trio.clickhouse.types import Type, parse
from mexc_trio.read.arrow import Columns

Rows: TypeAlias = Sequence[Sequence[Any]]
Line: TypeAlias = Callable[[Sequence[Any]], str]

NAMES: Final = (
    "TSV",
    "TSVWithNames",
    "CSV",
    "CSVWithNames",
    "JSONEachRow",
    "JSONCompactEachRow",
    "PrettyCompact",
    "Vertical",
)
PRETTY_ROWS: Final = 1000
"""Rows that a table for people shows; ClickHouse has the same bound."""


def can(name: str) -> bool:
    """Return whether a format can be made here."""
    return _canonical(name) in NAMES


def write(name: str, columns: Columns, blocks: Iterable[Rows]) -> Iterator[bytes]:
    """Yield the pieces of one document."""
    name = _canonical(name)
    types = [parse(type_) for _, type_ in columns]
    names = [name for name, _ in columns]
    if name == "PrettyCompact":
        yield from _pretty(names, types, blocks)
        return
    if name == "Vertical":
        yield from _vertical(names, types, blocks)
        return
    if name.startswith("TSV"):
        line = _joined(_tsv, types, "\t")
        header = "\t".join(_escaped(name) for name in names)
    elif name.startswith("CSV"):
        line = _joined(_csv, types, ",")
        header = ",".join(map(_csv_quoted, _csv_names(names, types)))
    else:
        line = _json_line(names if name == "JSONEachRow" else None, types)
        header = ""
    if name.endswith("WithNames"):
        yield _bytes(header + "\n")
    for rows in blocks:
        yield _bytes("".join(line(row) for row in rows))


def _canonical(name: str) -> str:
    return {"JSONLines": "JSONEachRow", "NDJSON": "JSONEachRow"}.get(
        name, name.replace("TabSeparated", "TSV")
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _joined(cell: Callable[[Any, Type], str], types: Sequence[Type], separator: str) -> Line:
    return lambda row: (
        separator.join([cell(value, t) for value, t in zip(row, types, strict=True)]) + "\n"
    )


def _plain(value: Any, type_: Type) -> str:
    """Return a value that is no compound, without quotes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, datetime):
        text = f"{value:%Y-%m-%d %H:%M:%S}"
        digits = int(type_.arguments.split(",")[0]) if type_.name == "DateTime64" else 0
        return f"{text}.{value.microsecond:06d}"[: len(text) + 1 + digits] if digits else text
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


def _float(value: float) -> str:
    if math.isnan(value) or math.isinf(value):
        return str(value)
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    mantissa = mantissa.removesuffix(".0")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


_ESCAPES: Final = str.maketrans(
    {
        "\\": "\\\\",
        "\t": "\\t",
        "\n": "\\n",
        "\r": "\\r",
        "\0": "\\0",
        "\b": "\\b",
        "\f": "\\f",
        "'": "\\'",
    }
)


_JSON_ESCAPES: Final = str.maketrans(
    {n: f"\\u{n:04X}" for n in range(32)}
    | {ord(c): f"\\{s}" for c, s in zip('\b\f\n\r\t"\\/', 'bfnrt"\\/', strict=True)}
)


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)


def _compound(value: Any, type_: Type) -> str:
    """Return an Array, Tuple or Map, or a part of one, as ClickHouse's literal."""
    if value is None:
        return "NULL"
    inner = type_.inner
    if type_.name == "Array":
        return "[" + ",".join(_compound(item, inner[0]) for item in value) + "]"
    if type_.name == "Tuple":
        parts = [_compound(item, t) for item, t in zip(value, inner, strict=True)]
        return "(" + ",".join(parts) + ")"
    if type_.name == "Map":
        pairs = value.items()
        parts = [f"{_compound(k, inner[0])}:{_compound(v, inner[1])}" for k, v in pairs]
        return "{" + ",".join(parts) + "}"
    text = _plain(value, type_)
    return text if _is_number(value) else f"'{_escaped(text)}'"


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float, Decimal))


def _is_compound(type_: Type) -> bool:
    return type_.name in ("Array", "Tuple", "Map")


def _tsv(value: Any, type_: Type) -> str:
    if value is None:
        return "\\N"
    if _is_compound(type_):
        return _compound(value, type_)
    return _escaped(_plain(value, type_)) if isinstance(value, str) else _plain(value, type_)


def _csv(value: Any, type_: Type) -> str:
    if value is None:
        return "\\N"
    if type_.name == "Tuple":
        # Its elements are columns of their own there.
        return ",".join(_csv(item, t) for item, t in zip(value, type_.inner, strict=True))
    text = _compound(value, type_) if _is_compound(type_) else _plain(value, type_)
    return text if _is_number(value) else _csv_quoted(text)


def _csv_quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _csv_names(names: Sequence[str], types: Sequence[Type]) -> Iterator[str]:
    for name, type_ in zip(names, types, strict=True):
        if type_.name == "Tuple":
            inner = type_.names or [str(n + 1) for n in range(len(type_.inner))]
            yield from _csv_names([f"{name}.{part}" for part in inner], type_.inner)
        else:
            yield name


def _json_line(names: Sequence[str] | None, types: Sequence[Type]) -> Line:
    keys = [json.dumps(name, ensure_ascii=False) + ":" for name in names] if names else None

    def line(row: Sequence[Any]) -> str:
        cells = [_json(value, t) for value, t in zip(row, types, strict=True)]
        if keys is None:
            return "[" + ", ".join(cells) + "]\n"
        return "{" + ",".join(k + c for k, c in zip(keys, cells, strict=True)) + "}\n"

    return line


def _json(value: Any, type_: Type) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "null"
    inner = type_.inner
    if type_.name == "Array":
        return "[" + ",".join(_json(item, inner[0]) for item in value) + "]"
    if type_.name == "Tuple":
        cells = [_json(item, t) for item, t in zip(value, inner, strict=True)]
        if type_.names:
            named = zip(type_.names, cells, strict=True)
            return "{" + ",".join(f"{json.dumps(k)}:{c}" for k, c in named) + "}"
        return "[" + ",".join(cells) + "]"
    if type_.name == "Map":
        pairs = [(_plain(k, inner[0]), _json(v, inner[1])) for k, v in value.items()]
        return "{" + ",".join(f"{json.dumps(k)}:{v}" for k, v in pairs) + "}"
    text = _plain(value, type_)
    if _is_number(value):
        return text
    return f'"{text.translate(_JSON_ESCAPES)}"'


# For people.


def _shown(value: Any, type_: Type) -> str:
    if value is None:
        return "ᴺᵁᴸᴸ"
    if _is_compound(type_):
        return _compound(value, type_)
    text = _plain(value, type_)
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def _first(blocks: Iterable[Rows]) -> tuple[list[Sequence[Any]], int]:
    """Return the rows that people are shown, and how many there are."""
    rows: list[Sequence[Any]] = []
    number = 0
    for block in blocks:
        rows += block[: max(0, PRETTY_ROWS - number)]
        number += len(block)
    return rows, number


def _pretty(names: Sequence[str], types: Sequence[Type], blocks: Iterable[Rows]) -> Iterator[bytes]:
    rows, number = _first(blocks)
    if not rows:
        return
    cells = [[_shown(v, t) for v, t in zip(row, types, strict=True)] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    right = [_is_number(value) and not isinstance(value, bool) for value in rows[0]]

    def bar(left: str, middle: str, end: str, titles: Sequence[str] | None) -> str:
        parts = []
        for n, width in enumerate(widths):
            title = titles[n] if titles else ""
            line = "─" * (width - len(title))
            parts.append(f"─{line}{title}─" if right[n] else f"─{title}{line}─")
        return left + middle.join(parts) + end + "\n"

    margin = len(str(len(rows))) + 2
    text = " " * margin + bar("┌", "┬", "┐", names)
    for n, row in enumerate(cells, 1):
        padded = [
            cell.rjust(width) if number_ else cell.ljust(width)
            for cell, width, number_ in zip(row, widths, right, strict=True)
        ]
        text += f"{n:>{margin - 2}}. │ " + " │ ".join(padded) + " │\n"
    text += " " * margin + bar("└", "┴", "┘", None)
    if number > len(rows):
        text += f"Showed {len(rows)} out of {number} rows.\n"
    yield _bytes(text)


def _vertical(
    names: Sequence[str], types: Sequence[Type], blocks: Iterable[Rows]
) -> Iterator[bytes]:
    width = max(map(len, names), default=0) + 1
    number = 0
    for block in blocks:
        text = ""
        for row in block:
            number += 1
            title = f"Row {number}:"
            text += ("" if number == 1 else "\n") + f"{title}\n{'─' * len(title)}\n"
            for name, value, t in zip(names, row, types, strict=True):
                cell = _plain(value, t) if isinstance(value, str) else _shown(value, t)
                text += f"{name + ':':<{width}} {cell}\n"
        yield _bytes(text)
