"""What the user sets, where it comes from, and how it is read."""

from mexc_trio.settings.definitions import SETTINGS, SYMBOL_SETTINGS, Settings
from mexc_trio.settings.symbol import SymbolSettings

__all__ = ["SETTINGS", "SYMBOL_SETTINGS", "Settings", "SymbolSettings"]
