"""What somebody may have meant whose statement the engine did not take."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Final

from mexc_trio.errors import StoreError, StoreRejected, TableMissing, UsageError
from mexc_trio.read.reading import Reader
from mexc_trio.settings import Settings
from mexc_trio.symbols import parse_symbol

_UNKNOWN_TABLE: Final = 60
_NO_PARAMETER: Final = frozenset({51, 456})  # a view that needs one seems to have no columns
_CANDLES: Final = re.compile(r"\b\w+_candles(_exact)?\b", re.IGNORECASE)
_UNKNOWN: Final = re.compile(r"[Uu]nknown table expression identifier '([^']+)'")


@contextmanager
def hinting(statement: str, reader: Reader, settings: Settings) -> Iterator[None]:
    """Have the error of a statement that the engine did not take end with what may be meant."""
    try:
        yield
    except (StoreRejected, TableMissing) as error:
        if meant := _hint(error, statement, reader, settings):
            raise StoreRejected(f"{error}; {meant}") from error
        raise


def _hint(error: StoreError, statement: str, reader: Reader, settings: Settings) -> str:
    candles = _CANDLES.search(statement)
    if error.code in _NO_PARAMETER and candles:
        return f"candles are told their length in seconds: {candles[0]}(interval = 60)"
    unknown = _UNKNOWN.search(str(error))
    if error.code != _UNKNOWN_TABLE or unknown is None or "Maybe you meant" in str(error):
        return ""
    name = unknown[1].rpartition(".")[2]
    try:
        there = [str(name) for (name,) in reader.query("SHOW TABLES")]
    except StoreError:
        return ""
    try:
        table = settings.for_symbol(parse_symbol(name)).table
        if table in there:
            return f"{name.upper()} is in table {table}, and its deals in {table}_deals"
    except UsageError:
        pass
    close = get_close_matches(name.lower(), there, 3, cutoff=0.7)
    # `deals` stands for the deals of something.
    close += [table for table in there if table.endswith(f"_{name.lower()}")][:3]
    if close:
        return f"did you mean {' or '.join(dict.fromkeys(close))}?"
    return "SHOW TABLES says what there is"
