"""What a store's directory may hold, for whoever gets one from somebody else.

A directory holds more than rows: definitions that its engine obeys, of which some are programs that
it runs, even by itself, and files that it writes to, of which each may be a link to a file of ours.
So only such definitions are let in as this program makes, whatever else there is to know of SQL:
what is forbidden could be spelt in too many ways. And no link that leads out of the directory.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from mexc_trio.errors import StoreRejected

_EMPTY: Final = (
    "engine/*.d", "access", "named_collections", "user_scripts", "user_defined", "workload",
    "dynamic_user_defined_executable_functions",
)  # fmt: skip
"""Directories in which the engine would find what it obeys, users among it, and has nothing of
ours."""
_PLACES: Final = (
    "engine", "data", "data/*", "metadata", "metadata/*", "metadata_dropped", "store", "store/*",
    "store/*/*",
)  # fmt: skip
"""Directories in which definitions are, and files that the engine writes to."""
_TOP: Final = frozenset(
    {"data", "damaged", "engine", "flags", "metadata", "metadata_dropped", "status", "store", "tmp"}
)
"""What the engine knows of the directory itself; what else lies there is nobody's business."""

_LONGEST: Final = 2**18
"""Signs of a definition: ours have some thousands."""

# No quotation mark, sign of a comment or backslash outside of a text: what is read here is what the
# engine reads. Brackets four deep, as in the key of a MergeTree.
_PLAIN: Final = r"(?:[\w, .=]|-(?=\d)|'[\w /:.+\-]*')"


def _brackets(depth: int) -> str:
    inner = f"(?:{_PLAIN}|{_brackets(depth - 1)})" if depth else _PLAIN
    return rf"\({inner}*\)"


_TYPE: Final = rf"\w+(?:{_brackets(3)})?"
_COLUMN: Final = rf"    (?:`\w+` {_TYPE}(?: CODEC{_brackets(1)})?|INDEX \w+ \w+ TYPE \w[\w ()]*),?"
_COLUMNS: Final = rf"\n\((?:\n{_COLUMN})+\n\)"
_KEY: Final = rf"(?:\w+{_brackets(4)}|\w+|\([\w, `]+\)|tuple\(\))"
_TTL: Final = r"TTL toDateTime\(ts\) \+ toIntervalHour\(\d+\) RECOMPRESS CODEC\(ZSTD\(\d+\)\)"
_TREE: Final = (
    rf"MergeTree(?:\n(?:PARTITION BY|PRIMARY KEY|ORDER BY) {_KEY})*(?:\n{_TTL})?"
    rf"(?:\nSETTINGS (?:[\w, =]|'ZSTD\(\d+\)')+)?"
)
_COMMENT: Final = r"(?:\nCOMMENT '[^'\\\n]*')?"
_UUID: Final = r"_ UUID '[0-9a-f-]{36}'"
_OURS: Final = re.compile(
    rf"ATTACH DATABASE {_UUID}\nENGINE = (?:Atomic|Ordinary)\s*"
    rf"|ATTACH TABLE {_UUID}{_COLUMNS}\nENGINE = (?:StripeLog|TinyLog|Log|Memory|Null|{_TREE})"
    rf"{_COMMENT}\s*"
    # With the rights of whoever asks, unless something else stands before AS.
    rf"|ATTACH VIEW {_UUID}(?:{_COLUMNS})?{_COMMENT}\nAS (?:SELECT|WITH)\s(?s:.*)",
    re.ASCII,
)


def refuse_strange_files(directory: Path, name: str) -> None:
    """Refuse, by StoreRejected, a directory with what no recorder makes and its engine obeys."""
    for path, what in _strange_files(directory):
        raise StoreRejected(
            f"{name}: {path} {what}; take it away, or have what others have recorded from their "
            f"backup, by mexc-trio restore"
        )


def _strange_files(directory: Path) -> Iterator[tuple[str, str]]:
    for place in _EMPTY:
        for path in directory.glob(f"{place}/*"):
            yield str(path), "could have the engine run a program"
    top = os.path.realpath(directory)
    # Of 1,200 symbols there are thirteen thousand files, so not by Path's slower means, nor twice.
    places = {os.path.realpath(one) for name in _PLACES for one in directory.glob(name)}
    for place in (top, *places):
        with suppress(OSError), os.scandir(place) as entries:  # else the engine cannot read it
            for entry in entries:
                if place == top and entry.name not in _TOP:
                    continue
                if entry.is_symlink() and not _leads_into(entry.path, top):
                    yield entry.path, "is a link that leads out of the directory"
                if entry.name.endswith((".sql", ".sql.tmp_drop")) and not _is_ours(entry.path):
                    what = "is no definition of ours, and could have the engine run a program"
                    yield entry.path, what


def _leads_into(link: str, top: str) -> bool:
    return os.path.commonpath((os.path.realpath(link), top)) == top


def _is_ours(path: str) -> bool:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            text = file.read(_LONGEST + 1).decode("utf-8", "replace")
    except OSError:  # nor can the engine
        return True
    if len(text) > _LONGEST:
        return False
    return not text or _OURS.fullmatch(text) is not None  # an empty one it removes


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would have us wait
