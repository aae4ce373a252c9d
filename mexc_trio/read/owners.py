"""Which tables are ours, whose they are, and under which names the ledger of gaps knows them."""

from collections.abc import Iterable, Mapping, Sequence

import attrs

from mexc_trio.clickhouse.schema import Readable, columns, has_database
from mexc_trio.clickhouse.suitability import can_be_read
from mexc_trio.clickhouse.tables import SHARED_TABLES, market_table
from mexc_trio.errors import StoreRejected, TableMissing
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


def recorded_columns(store: Readable) -> dict[str, dict[str, str]]:
    """Return what `columns` does, but for tables that only seem to be ours.

    Raises StoreRejected if there is no database, so that nothing was recorded.
    """
    try:
        found = columns(store)
        there = bool(found) or has_database(store)
    except TableMissing:  # a reader of a server says so at once
        there = False
    if not there:
        raise StoreRejected(
            f"{store.name} has no database {store.database}: nothing was recorded there"
        )
    return {name: types for name, types in found.items() if not _only_seems_ours(name, types)}


def _only_seems_ours(name: str, types: Mapping[str, str]) -> bool:
    table = SHARED_TABLES.get(name) or market_table(name)
    return types.keys() >= set(table.column_names) and not can_be_read(table.columns, types)
