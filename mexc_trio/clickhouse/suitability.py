"""Whether a table that somebody else may have made can be written to exactly.

A type that does not take our values would refuse every INSERT. And an INSERT of unknown outcome is
resolved by the table's rows: by their number and the last ones in the order of insertion, or, in a
MergeTree, by the number that each row bears. Other engines keep neither: they merge, forward or
forget.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from mexc_trio.clickhouse.tables import NUMBER, TableEngine, is_numbered
from mexc_trio.rows import MESSAGE_TYPES

ENGINES: Final = frozenset({"StripeLog", "Log", "TinyLog"})
"""Engines of which the rows can be counted, and read in the order of insertion."""
NUMBERED: Final = "MergeTree"
"""The engine whose rows are found again by their numbers."""
REPLICATED: Final = "ReplicatedMergeTree"
"""The same, of which several hosts keep replicas."""

_WHY_NOT: Final = {
    "Distributed": "which passes rows on, later or never: name the table that it stands for",
    "Buffer": "whose rows are in memory alone until it passes them on: name the table behind it",
    "Memory": "whose rows go with the server",
    "Null": "which keeps nothing",
    "View": "which is no table",
    "MaterializedView": "which is no table: name the one that it writes to",
}
_TEXTS: Final = frozenset({"String", "LowCardinality(String)"})
_WINDOWS: Final = {
    NUMBERED: "non_replicated_deduplication_window",
    REPLICATED: "replicated_deduplication_window",
}


def is_tree(engine: str) -> bool:
    """Whether an engine's rows are found again by their numbers, replicated or not."""
    return engine.startswith((NUMBERED, REPLICATED))


def table_engine(engine: str) -> TableEngine:
    """Return which `TableEngine` an engine is, of which the text is as `schema.engines` has it."""
    return TableEngine.MERGETREE if is_tree(engine) else TableEngine.STRIPELOG


def why_unsuitable(
    columns: Sequence[tuple[str, str]],
    found: Mapping[str, str],
    engine: str,
    *,
    shared: bool = False,
    replicated: bool = False,
) -> str:
    """Return why rows with these columns cannot be written into a table exactly; empty if they can.

    `found` has the table's columns with their types, and `engine` its engine, of a MergeTree with
    all that belongs to it; empty if that is not known. A table `shared` by all symbols has rows
    that are found again by what they say. A `replicated` one is to be kept by several hosts.
    """
    missing = [name for name, _ in columns if name not in found]
    if missing:
        return f"has no column {', '.join(missing)}"
    for name, type_ in columns:
        if not _takes(found[name], type_):
            return f"has {found[name]} for column {name}, which must be {type_}"
    kind = re.split(r"\W", engine, maxsplit=1)[0]
    if replicated and kind and kind != REPLICATED:
        return (
            f"is a {kind}, of which each host would have rows of its own: where --store names "
            f"several hosts, it takes a {REPLICATED}"
        )
    if kind == REPLICATED and shared:
        return ""
    if is_tree(kind):
        return _why_no_numbers(found, engine, kind)
    if kind and kind not in ENGINES:
        return f"is a {kind}, {_WHY_NOT.get(kind, _ANOTHER)}"
    return ""


_ANOTHER: Final = "whose rows cannot be counted and found again exactly"


def _why_no_numbers(found: Mapping[str, str], engine: str, kind: str) -> str:
    if not is_numbered(found):
        return f"is a {kind} without a column {NUMBER} UInt64, by which its rows are found again"
    setting = _WINDOWS[kind]
    window = re.search(rf"\b{setting} = '?(\d+)", engine)
    # Replicas know an INSERT again unless they are told not to.
    if (window is None and kind == NUMBERED) or (window is not None and not int(window[1])):
        return (
            f"is a {kind} that does not know an INSERT again, for which ALTER TABLE ... MODIFY "
            f"SETTING {setting} = 1000"
        )
    return ""


def can_be_read(columns: Sequence[tuple[str, str]], found: Mapping[str, str]) -> bool:
    """Whether a table has these columns, each of a type that can be read as one of ours.

    A server may have a table of somebody else's with a name of ours, and names of columns, too.
    """
    kinds = {"DateTime64": ("DateTime64",), "Enum8": _LIKE_TEXT, "String": _LIKE_TEXT}
    return all(
        found.get(name, "").startswith(kinds.get(type_.split("(")[0], _LIKE_NUMBERS))
        for name, type_ in columns
    )


_LIKE_TEXT: Final = ("String", "Enum", "LowCardinality(String)", "FixedString")
_LIKE_NUMBERS: Final = ("Int", "UInt", "Float")


def _takes(found: str, type_: str) -> bool:
    """Whether a column of one type takes the values of another one."""
    if type_.startswith("DateTime64"):  # it may name a time zone
        return found == type_ or found.startswith(type_.rstrip(")") + ",")
    if type_.startswith("Enum8"):
        # Tables that are older than an optional channel have no room for it, and are good.
        return found in _TEXTS or (
            found.startswith("Enum") and all(f"'{name}' = " in found for name in MESSAGE_TYPES)
        )
    return found in _TEXTS if type_ == "String" else found == type_
