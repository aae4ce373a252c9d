"""Which symbols can be recorded.

What the user has named must do, or he is told before anything begins. What was found on the
exchange's list, nobody has chosen: a table that is another's, or a name that no table can have, is
that symbol's alone.
"""

import logging
from collections.abc import Callable, Sequence

from mexc_trio.errors import StoreError, UsageError
from mexc_trio.settings import SymbolSettings

log = logging.getLogger(__name__)

Check = Callable[[Sequence[SymbolSettings], Sequence[SymbolSettings]], None]
"""Raises UsageError or StoreError if, beside the first symbols, the second cannot be recorded."""


def admit(
    named: Sequence[SymbolSettings], found: Sequence[SymbolSettings], check: Check
) -> list[SymbolSettings]:
    """Return the symbols that can be recorded: all that are named, and those found that pass.

    Raises:
        UsageError, StoreError: one that is named does not pass.
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
            refuse(one.symbol, error)
        else:
            admitted.append(one)
    return admitted


def refuse(symbol: str, error: Exception) -> None:
    """Tell that a symbol on the list is not recorded, and why."""
    log.error("%s: is listed, and cannot be recorded: %s", symbol, error)
