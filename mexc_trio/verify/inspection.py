"""What `verify` finds in each symbol's table, beside the ledger of its gaps."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import attrs

from mexc_trio.analysis.coverage import coverage
from mexc_trio.analysis.gaps import (
    NO_GAPS,
    GapSummary,
    LedgerGap,
    fills_sql,
    ledger_gaps,
    ledger_names,
    missed,
    starts_sql,
)
from mexc_trio.analysis.insertion_order import OrderedRows, read_order
from mexc_trio.analysis.row_counts import dealt, hours, only, shapes
from mexc_trio.analysis.survey import Survey
from mexc_trio.clickhouse.schema import Readable
from mexc_trio.clickhouse.tables import is_numbered
from mexc_trio.read.owners import Owners, find_owners
from mexc_trio.rows import CHANNELS, DEAD_LETTER
from mexc_trio.settings import Settings
from mexc_trio.spans import possible
from mexc_trio.verify.completeness import CheckedSymbol, Completeness
from mexc_trio.verify.findings import SymbolFacts

Compare: TypeAlias = Callable[[str, Sequence[CheckedSymbol]], Sequence[Completeness]]
"""Compares with the exchange at a URL, as `completeness.compare` does."""


@attrs.frozen
class Inspection:
    """Inspects one symbol after the other; StoreError where the store does not answer."""

    settings: Settings
    store: Readable
    found: Mapping[str, Mapping[str, str]]
    gaps: GapSummary | None
    in_order: bool
    _owners: Owners = attrs.field(init=False)

    @_owners.default
    def _find_owners(self) -> Owners:
        return find_owners(self.settings, ledger_names(self.store, self._source))

    def inspect(self, table: Survey) -> SymbolFacts:
        """Inspect the table of one symbol."""
        symbol = self._owners.symbol_of(table.name)
        if not table.rows:  # of some damaged tables not even none can be read
            return SymbolFacts(symbol, table.name)
        span = possible()
        counted = hours(self.store, table.source, span)
        source = table.source
        if impossible := sum(one.impossible for one in counted.values()):
            source = only(source, span)
        order = None
        if self.in_order:
            names = self._owners.names_of(table.name)
            starts = {name: starts_sql(self._source, names, name) for name in CHANNELS}
            rows = OrderedRows(source, is_numbered(self.found[table.name]))
            order = read_order(self.store, rows, starts, fills_sql(self._source, names))
        return SymbolFacts(
            symbol,
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

    def with_comparison(
        self, inspected: Sequence[SymbolFacts], tables: Sequence[Survey], compare: Compare
    ) -> list[SymbolFacts]:
        """Return what was found with the comparison of the deals beside it."""
        recorded = [
            CheckedSymbol(
                one.symbol,
                one.table,
                (one.coverage.start, one.coverage.end),
                partial(dealt, self.store, table.source),
                missed(self._ledger(one.table), "deal"),
            )
            for one, table in zip(inspected, tables, strict=True)
            if one.coverage is not None
        ]
        done = {one.table: one for one in compare(self.settings.rest_url, recorded)}
        return [attrs.evolve(one, completeness=done.get(one.table)) for one in inspected]

    @property
    def _source(self) -> str:
        """The SQL for the ledger of gaps, to stand behind FROM."""
        return self.gaps.table.source if self.gaps and self.gaps.table.rows else NO_GAPS

    def _ledger(self, table: str) -> list[LedgerGap]:
        return ledger_gaps(self.store, self._source, self._owners.names_of(table))
