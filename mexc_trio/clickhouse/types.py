"""ClickHouse's types by their names."""

import re
from functools import lru_cache

import attrs


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
