"""ClickHouse's types by their names, and values of them as Python has them.

The same SELECT gives the same Python values from every kind of store: int, Decimal (never by way
of a float), float, str, bool, date, datetime in UTC, list, tuple, dict and None.
"""

import re
from collections.abc import Callable
from datetime import UTC
from functools import lru_cache
from typing import Any

import attrs

Convert = Callable[[Any], Any]


@attrs.frozen
class Type:
    """A type: `Array(Nullable(Decimal(18, 8)))` is Array of one inner type."""

    name: str
    inner: tuple["Type", ...] = ()
    """What it is made of, without Nullable and LowCardinality."""
    names: tuple[str, ...] = ()
    """The elements' names, of a named Tuple."""
    arguments: str = ""
    """What stands in its brackets."""
    nullable: bool = False


_COMPOUND = frozenset({"Array", "Tuple", "Map", "Nested"})


@lru_cache(maxsize=1024)
def parse(text: str) -> Type:
    """Read the name of a type."""
    match = re.fullmatch(r"(\w+)(?:\((.*)\))?", text.strip(), re.DOTALL)
    if not match:
        return Type(text)
    name, arguments = match[1], match[2] or ""
    if name == "Nullable":
        return attrs.evolve(parse(arguments), nullable=True)
    if name in ("LowCardinality", "SimpleAggregateFunction"):
        return parse(_split(arguments)[-1])
    if name not in _COMPOUND:
        return Type(name, arguments=arguments)
    parts = _split(arguments)
    named = [re.fullmatch(r"(`(?:[^`\\]|\\.)+`|[A-Za-z_]\w*) (.+)", p, re.DOTALL) for p in parts]
    if name in ("Tuple", "Nested") and parts and all(named):
        found = [(m[1].strip("`"), m[2]) for m in named if m]
        return Type(name, tuple(parse(t) for _, t in found), tuple(n for n, _ in found), arguments)
    return Type(name, tuple(map(parse, parts)), (), arguments)


def _split(text: str) -> list[str]:
    """Split at the commas that are in no brackets and no quotes."""
    parts, depth, start = [], 0, 0
    for match in re.finditer(r"'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.)*`|[(),]", text):
        sign = match[0]
        depth += (sign == "(") - (sign == ")")
        if sign == "," and not depth:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return [*parts, text[start:].strip()] if text.strip() else []


def from_driver(type_: Type) -> Convert | None:
    """Return what makes Python's value of clickhouse-driver's, if they differ."""
    name = type_.name
    if name in ("DateTime", "DateTime64"):
        return lambda value: value if value is None else value.astimezone(UTC)
    if name in ("UUID", "IPv4", "IPv6"):
        return lambda value: value if value is None else str(value)
    inner = [from_driver(part) or _same for part in type_.inner]
    if name == "Array":
        return lambda items: [inner[0](item) for item in items]
    if name == "Tuple":
        return lambda items: tuple(
            convert(item) for convert, item in zip(inner, items, strict=True)
        )
    if name == "Map":
        return lambda items: {inner[0](key): inner[1](item) for key, item in items.items()}
    return None


def _same(value: Any) -> Any:
    return value
