"""A store and its journal, held against recorders for what a command does to them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from mexc_trio.clickhouse import open_store
from mexc_trio.clickhouse.identity import identity_of
from mexc_trio.clickhouse.schema import Readable, Store, columns, count, engines
from mexc_trio.clickhouse.suitability import why_unsuitable
from mexc_trio.clickhouse.tables import SHARED_TABLES, market_table
from mexc_trio.errors import StoreRejected
from mexc_trio.journal import Journal, open_journal
from mexc_trio.journal.ownership import find_journal
from mexc_trio.locks import hold_tables
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget


@contextmanager
def open_exclusively(
    settings: Settings,
) -> Iterator[tuple[Store, Journal | None, Callable[[Sequence[str]], None]]]:
    """Open a store and its journal, and keep recorders out; lend also what locks tables.

    Raises StoreLocked or JournalLocked if a recorder runs, StoreError or JournalError if they do
    not open.
    """
    with ExitStack() as stack:
        store = stack.enter_context(closing(open_store(settings)))
        path = journal_of(settings, store)
        journal = stack.enter_context(open_journal(path)) if path.exists() else None
        names = {settings.store.identity}
        if not isinstance(settings.store, EmbeddedTarget):
            names.add(identity_of(store).here)
        locks = hold_tables(store.name, names, directories=settings.store.lock_directories)
        yield store, journal, stack.enter_context(locks).hold


def journal_of(settings: Settings, store: Readable) -> Path:
    """Return the file of a store's journal, which may be still to be made."""
    lasting = identity_of(store).lasting
    return find_journal(settings.journal_path, lasting, settings.store.identity).path


def recorded_tables(store: Readable) -> list[str]:
    """Return all tables that recorders write to, those of all symbols last."""
    found = columns(store)
    kinds = engines(store, list(found)) if found else {}
    market = [
        name
        for name in sorted(found)
        if not why_unsuitable(market_table(name).columns, found[name], kinds.get(name, ""))
    ]
    return [*market, *(name for name in found if name in SHARED_TABLES)]


def check_ours(
    settings: Settings, store: Store, journal: Journal | None, table: str, what: str
) -> None:
    """Check that no recorder on another machine writes to a server's table: this one's did.

    `what` is to be done with it, as in a sentence: `compact`. Raises StoreRejected if another one
    did, or rows are to be written first.
    """
    if isinstance(settings.store, EmbeddedTarget):
        return
    known = journal is not None and table in journal.file.names()
    expected = journal.queue(table).table_rows if journal is not None and known else None
    if expected is None:
        raise StoreRejected(
            f"table {table}: no journal here knows it; {what} it where it is recorded, since rows "
            f"may be on their way into it (see --state-dir)"
        )
    if count(store, table) != expected:
        raise StoreRejected(
            f"table {table} has not the rows that the journal knows of; try again after: "
            f"mexc-trio drain"
        )
