"""Wide tables: which symbols have one, and what their rows have besides the usual three values.

A table is wide or narrow for good, as it was made. So the setting tells how a new one is made, and
the table how its rows are written; while the store is away the journal remembers it.
"""

from typing import Final

import attrs

from mexc_trio.clickhouse.tables import SHARED_TABLES, Table, is_wide, market_table
from mexc_trio.exchange.backfill import Deal
from mexc_trio.exchange.messages import Data
from mexc_trio.journal import Queue
from mexc_trio.rows import RowTuple
from mexc_trio.settings import SymbolSettings

_COLUMNS: Final = "columns"
_WIDE: Final = "wide"


def table_of(settings: SymbolSettings) -> Table:
    """Return the table of a symbol as it is made."""
    return market_table(
        settings.table, settings.engine, wide=settings.wide, recorded=settings.channels
    )


def was_wide(queue: Queue) -> bool | None:
    """Return whether a table was wide when that was last known; None if it never was."""
    word = queue.recall(_COLUMNS)
    return word == _WIDE if word else None


def note_width(queue: Queue, table: Table) -> None:
    """Have the journal know what a symbol's table is, and give its rows as wide as that."""
    if table.name in SHARED_TABLES:
        return
    queue.width, wide = len(table.columns), is_wide(dict(table.columns))
    if wide != was_wide(queue):
        queue.note(_COLUMNS, _WIDE if wide else "narrow")


def as_before(one: SymbolSettings, queue: Queue) -> SymbolSettings:
    """Return a symbol with the width that its table had when the store last answered."""
    wide = was_wide(queue)
    return one if wide is None else attrs.evolve(one, wide=wide)


def widened(message: Data) -> list[RowTuple]:
    """Return a frame's rows with what wide tables have of them: time of receipt, and number."""
    rows, at = message.rows, message.received
    ids = [*message.ids] or [message.version] * (len(rows) - message.dead)
    ids += [0] * (len(rows) - len(ids))  # of the dead letters behind them
    return [(*row, at, id_) for row, id_ in zip(rows, ids, strict=True)]


def fetched(deal: Deal) -> RowTuple:
    """Return the row of a deal that was fetched afterwards: no frame of the socket had it."""
    row, id_ = deal
    return (*row, 0, id_) if id_ else row
