"""Whose tables they are, and under which names the ledger of gaps knows them."""

from collections.abc import Iterable, Mapping, Sequence

import attrs

from mexc_trio.settings import Settings
from mexc_trio.symbols import is_symbol


@attrs.frozen
class Owners:
    """The symbols of a store's tables, as far as the settings and the ledger name them."""

    _settings: Settings
    _by_table: Mapping[str, Sequence[str]]

    def symbol_of(self, table: str) -> str:
        """Return whose table it is: as settings or ledger say, else by its name, or that name."""
        if table in self._by_table:
            return self._by_table[table][0]
        for symbol in (f"{table}_usdt".upper(), table.upper()):
            if is_symbol(symbol) and self._settings.for_symbol(symbol).table == table:
                return symbol
        return table

    def names_of(self, table: str) -> list[str]:
        """Return the names that its gaps may bear: a table's own where no symbol was recorded."""
        return [*self._by_table.get(table, [self.symbol_of(table)]), table]


def find_owners(settings: Settings, ledger: Iterable[str]) -> Owners:
    """Find out whose tables there are, by the settings and by the names in the ledger of gaps.

    Some of those may be tables' names.
    """
    by_table: dict[str, list[str]] = {}
    for symbol in dict.fromkeys([*settings.overrides, *settings.symbols, *ledger]):
        if is_symbol(symbol):
            by_table.setdefault(settings.for_symbol(symbol).table, []).append(symbol)
    return Owners(settings, by_table)
