"""Whether a table that somebody else may have made can be written to exactly.

A type that does not take our values would refuse every INSERT, for ever. And the writer settles an
INSERT of which it does not know the outcome by the table's rows: their number, and those at its end
in the order of insertion. Only engines that keep both have them; others merge, forward or forget.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from mexc_trio.rows import MESSAGE_TYPES

ENGINES: Final = frozenset({"StripeLog", "Log", "TinyLog"})
"""Engines of which the rows can be counted, and read in the order of insertion."""

_TEXTS: Final = frozenset({"String", "LowCardinality(String)"})


def why_unsuitable(
    columns: Sequence[tuple[str, str]], found: Mapping[str, str], engine: str
) -> str:
    """Return why rows cannot be written into a table exactly; empty if they can.

    Args:
        columns: what is to be written: names and types.
        found: the columns that the table has, with their types.
        engine: the table's engine; empty if that is not known.
    """
    missing = [name for name, _ in columns if name not in found]
    if missing:
        return f"has no column {', '.join(missing)}"
    for name, type_ in columns:
        if not _takes(found[name], type_):
            return f"has {found[name]} for column {name}, which must be {type_}"
    if engine and engine not in ENGINES:
        return f"is a {engine}, whose rows cannot be counted and found again exactly"
    return ""


def _takes(found: str, type_: str) -> bool:
    """Whether a column of one type takes the values of another one."""
    if type_.startswith("DateTime64"):
        # It may name a time zone. A server without the type has numbers there.
        return found in (type_, "Int64") or found.startswith(type_.rstrip(")") + ",")
    if type_.startswith("Enum8"):
        # Tables that are older than an optional channel have no room for it, and are good.
        return found in _TEXTS or (
            found.startswith("Enum") and all(f"'{name}' = " in found for name in MESSAGE_TYPES)
        )
    return found in _TEXTS if type_ == "String" else found == type_
