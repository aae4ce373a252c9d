"""Which symbols can be recorded.

If a symbol that the user has named cannot be recorded, the user is told before anything begins. A
symbol that was found on the exchange's list nobody has chosen: if its table is somebody else's, or
no table can have its name, that symbol alone is left out.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

import attrs

from mexc_trio.channels import without_room
from mexc_trio.clickhouse.tables import TableEngine, is_numbered, is_wide
from mexc_trio.errors import StoreError, UsageError
from mexc_trio.settings import SymbolSettings

log = logging.getLogger(__name__)

Check = Callable[[Sequence[SymbolSettings], Sequence[SymbolSettings]], None]
"""Raises UsageError or StoreError if, beside the first symbols, the second cannot be recorded."""


def admit(
    named: Sequence[SymbolSettings], found: Sequence[SymbolSettings], check: Check
) -> list[SymbolSettings]:
    """Return all symbols that are named, and those found that can be recorded.

    Raises UsageError or StoreError if one that is named cannot.
    """
    try:
        check((), [*named, *found])  # at once, since there may be a thousand
    except (UsageError, StoreError):
        if not found:
            raise
    else:
        return [*named, *found]
    check((), named)
    admitted = list(named)
    for one in found:
        try:
            check(admitted, [one])
        except (UsageError, StoreError) as error:
            log_left_out(one.symbol, error)
        else:
            admitted.append(one)
    return admitted


def log_left_out(symbol: str, error: Exception) -> None:
    """Tell that a symbol on the list is not recorded, and why."""
    log.error("%s: is listed, and cannot be recorded: %s", symbol, error)


def with_room(
    chosen: Sequence[SymbolSettings], found: Mapping[str, Mapping[str, str]]
) -> list[SymbolSettings]:
    """Return the symbols as their tables have room for: with those of their channels, wide or not.

    `found` has the columns and types of the tables, as far as they are known. A table that was made
    before a channel was known has no value for its rows, and the engine cannot add one.
    """
    admitted = []
    for one in chosen:
        types = found.get(one.table, {})
        lacking = without_room(types.get("mt", ""), one.channels)
        if lacking:
            engine = TableEngine.MERGETREE if is_numbered(types) else TableEngine.STRIPELOG
            log.warning(
                "%s: table %s is older than %s and has no room for it, so it is not recorded; "
                "mexc-trio convert %s --engine %s makes room, for the next start",
                one.symbol, one.table, ", ".join(lacking), one.symbol, engine,
            )  # fmt: skip
            left = tuple(name for name in one.channels if name not in lacking)
            one = attrs.evolve(one, channels=left)
        if types and one.wide != is_wide(types):
            if one.wide:
                log.warning(
                    "%s: table %s was made without --wide and stays as it is", one.symbol, one.table
                )
            one = attrs.evolve(one, wide=not one.wide)
        admitted.append(one)
    return admitted
