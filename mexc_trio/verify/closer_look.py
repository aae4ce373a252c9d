"""The closer look that `verify` takes at each symbol's table, beside the ledger of its gaps."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

import attrs

from mexc_trio.analysis.coverage import coverage
from mexc_trio.analysis.gaps import (
    GapSummary,
    LedgerGap,
    fills_sql,
    missed,
    of_one,
    recorded_symbols,
    starts_sql,
)
from mexc_trio.analysis.insertion_order import Source, read_order
from mexc_trio.analysis.row_counts import dealt, hours, only, shapes
from mexc_trio.analysis.survey import Survey, time_sql
from mexc_trio.clickhouse.schema import GAPS, Readable
from mexc_trio.clickhouse.tables import is_numbered
from mexc_trio.rows import CHANNELS, DEAD_LETTER, Channel
from mexc_trio.settings import Settings
from mexc_trio.spans import DAY, EARLIEST, now
from mexc_trio.verify.completeness import Completeness, Recorded
from mexc_trio.verify.findings import SymbolFacts

_SYMBOL: Final = re.compile(r"[A-Z0-9]+_[A-Z0-9]+")

Compare: TypeAlias = Callable[[str, Sequence[Recorded]], Sequence[Completeness]]
"""Compares with the exchange at a URL, as `completeness.compare` does."""


@attrs.frozen
class Look:
    """Looks at one symbol after the other."""

    settings: Settings
    store: Readable
    found: Mapping[str, Mapping[str, str]]
    gaps: GapSummary | None
    in_order: bool
    _symbols: Mapping[str, Sequence[str]] = attrs.field(init=False)

    @_symbols.default
    def _by_table(self) -> dict[str, list[str]]:
        """Return the symbols of the ledger and of the settings by their tables."""
        said = recorded_symbols(self.store, self.gaps) if self.gaps else []
        by_table: dict[str, list[str]] = {}
        for symbol in dict.fromkeys([*self.settings.overrides, *self.settings.symbols, *said]):
            if _SYMBOL.fullmatch(symbol):
                by_table.setdefault(self.settings.for_symbol(symbol).table, []).append(symbol)
        return by_table

    def at(self, table: Survey) -> SymbolFacts:
        """Look at the table of one symbol.

        Raises:
            StoreError: there was no answer.
        """
        if not table.rows:  # of some damaged tables not even none can be read
            return SymbolFacts(self._symbol(table.name), table.name, None, None, None, [], 0)
        ts = self._ts(table)
        possible = (EARLIEST, now() + DAY)
        counted = hours(self.store, table.source, ts, possible)
        source = table.source
        if impossible := sum(one.impossible for one in counted.values()):
            source = only(source, ts, possible)
        order = None
        if self.in_order:
            starts = {name: self._starts(table.name, name) for name in CHANNELS}
            rows = Source(source, ts, is_numbered(self.found[table.name]))
            order = read_order(self.store, rows, starts, self._fills(table.name))
        return SymbolFacts(
            self._symbol(table.name),
            table.name,
            coverage(
                {name: one.span for name, one in counted.items()},
                {name: one.rows for name, one in counted.items()},
                order.pauses if order else None,
                self._ledger(table.name),
            ),
            order.backwards if order else None,
            order.repeated if order else None,
            shapes(self.store, table.source) if table.by_key.get(DEAD_LETTER) else [],
            impossible,
        )

    def compared(
        self, looked_at: Sequence[SymbolFacts], tables: Sequence[Survey], compare: Compare
    ) -> list[SymbolFacts]:
        """Return what was found with the comparison of the deals beside it.

        Raises:
            StoreError: there was no answer from the store.
        """
        recorded = [
            Recorded(
                one.symbol,
                one.table,
                (one.coverage.start, one.coverage.end),
                partial(dealt, self.store, table.source, self._ts(table)),
                missed(self._ledger(one.table), "deal"),
            )
            for one, table in zip(looked_at, tables, strict=True)
            if one.coverage is not None
        ]
        done = {one.table: one for one in compare(self.settings.rest_url, recorded)}
        return [attrs.evolve(one, completeness=done.get(one.table)) for one in looked_at]

    def _ts(self, table: Survey) -> str:
        return time_sql("ts", self.found[table.name]["ts"])

    def _symbol(self, table: str) -> str:
        """Return whose table it is: as the ledger or the settings say, else by its name."""
        if table in self._symbols:
            return self._symbols[table][0]
        for symbol in (f"{table}_usdt".upper(), table.upper()):
            if _SYMBOL.fullmatch(symbol) and self.settings.for_symbol(symbol).table == table:
                return symbol
        return table

    def _names(self, table: str) -> list[str]:
        return [*self._symbols.get(table, [self._symbol(table)]), table]

    def _ledger(self, table: str) -> list[LedgerGap]:
        if self.gaps is None:
            return []
        return of_one(self.store, self.found[GAPS.name], self.gaps, self._names(table))

    def _fills(self, table: str) -> str:
        if self.gaps is None or not self.gaps.table.rows:
            return "SELECT toInt64(0)"
        return fills_sql(self.gaps, self._names(table))

    def _starts(self, table: str, channel: Channel) -> str:
        if self.gaps is None or not self.gaps.table.rows:
            return "SELECT toInt64(0)"
        return starts_sql(self.found[GAPS.name], self.gaps, self._names(table), channel)
