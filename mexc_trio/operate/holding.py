"""A store and its journal, held against recorders for what a command does to them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from mexc_trio.clickhouse import open_store
from mexc_trio.clickhouse.identity import identity_of
from mexc_trio.clickhouse.schema import (
    Readable,
    Store,
    columns,
    engines,
    market_table,
)
from mexc_trio.clickhouse.suitability import why_unsuitable
from mexc_trio.clickhouse.tables import OF_ALL
from mexc_trio.journal import Journal, open_journal
from mexc_trio.journal.finding import choose
from mexc_trio.locks import hold_tables
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget


@contextmanager
def held(
    settings: Settings,
) -> Iterator[tuple[Store, Journal | None, Callable[[Sequence[str]], None]]]:
    """Open store and journal against recorders; give also what holds tables against others.

    Raises:
        StoreLocked, JournalLocked: a recorder runs.
        StoreError, JournalError: they do not open.
    """
    with ExitStack() as stack:
        store = stack.enter_context(closing(open_store(settings)))
        path = journal_of(settings, store)
        journal = stack.enter_context(open_journal(path)) if path.exists() else None
        names = {settings.store.identity}
        if not isinstance(settings.store, EmbeddedTarget):
            names.add(identity_of(store).here)
        yield store, journal, stack.enter_context(hold_tables(store.name, names)).hold


def journal_of(settings: Settings, store: Readable) -> Path:
    """Return the file of a store's journal, which may be still to be made.

    Raises:
        StoreError: the store did not answer.
    """
    lasting = identity_of(store).lasting
    return choose(settings.journal_path, lasting, settings.store.identity).path


def recorded_tables(store: Readable) -> list[str]:
    """Return all tables that recorders write to, those of all symbols last."""
    found = columns(store) or {}
    kinds = engines(store, list(found)) if found else {}
    market = [
        name
        for name in sorted(found)
        if not why_unsuitable(market_table(name).columns, found[name], kinds.get(name, ""))
    ]
    return [*market, *(name for name in found if name in OF_ALL)]
