"""What Tab offers for a value: the words of a choice, and symbols that are recorded here."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

from mexc_trio.errors import MexcTrioError, UsageError
from mexc_trio.settings.sources import load
from mexc_trio.settings.targets import EmbeddedTarget
from mexc_trio.symbols import parse_symbol, table_name

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext

Completer: TypeAlias = "Callable[[CompletionContext], Sequence[str]]"

USUAL: Final = ("BTC_USDT", "ETH_USDT", "SOL_USDT")
"""Offered to whoever has recorded nothing yet."""


def words(*choices: str) -> Completer:
    """Return what offers these words."""
    return lambda context: choices


def symbols(context: "CompletionContext") -> Sequence[str]:
    """Offer the symbols of the settings and of the store's directory, in the case that is typed.

    No engine is started for that: a directory's tables are seen by their names.
    """
    texts = {key: raw for key in ("store", "config") if (raw := _typed(context, key))}
    found: dict[str, None] = {}
    with suppress(MexcTrioError, OSError):
        settings = load(texts)
        found |= dict.fromkeys((*settings.symbols, *settings.overrides))
        if isinstance(settings.store, EmbeddedTarget):
            tables = settings.store.directory / "data" / "mexc_data"
            names = map(_symbol, sorted(table.name for table in tables.iterdir()))
            found |= dict.fromkeys(filter(None, names))
    offered = list(found) or list(USUAL)
    return [one.lower() for one in offered] if context.incomplete.islower() else offered


def _typed(context: "CompletionContext", option: str) -> str | None:
    value = context.get(option)
    return value.raw if value else None


def _symbol(table: str) -> str:
    """Return the symbol that is recorded in a table of this name; empty if it is none's."""
    with suppress(UsageError):
        symbol = parse_symbol(table if "_" in table else f"{table}_usdt")
        if table_name(symbol) == table:
            return symbol
    return ""
