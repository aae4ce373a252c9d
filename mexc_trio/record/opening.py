"""Makes the parts of a recorder ready before anything is received.

What is wrong with the user's settings is found here, before anything is left behind: no table on a
server whose journal cannot be written, no journal beside a store that does not answer.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from mexc_trio.clickhouse import open_store
from mexc_trio.clickhouse.async_store import AsyncStore
from mexc_trio.clickhouse.identity import NOBODY, Identity, identity_of
from mexc_trio.clickhouse.preparing import prepare_all
from mexc_trio.clickhouse.schema import Store, columns
from mexc_trio.clickhouse.tables import GAPS, Table
from mexc_trio.errors import ForeignTable, StoreError, StoreRejected, StoreUnavailable, UsageError
from mexc_trio.files import refuse_others
from mexc_trio.journal import Journal, open_journal
from mexc_trio.journal.ownership import SPELT, STORE, OtherJournal, find_journal
from mexc_trio.locks import hold_tables
from mexc_trio.record.admission import admit, with_room
from mexc_trio.record.recording import Recording
from mexc_trio.record.remembered import write_pending
from mexc_trio.record.wide import as_before, table_of
from mexc_trio.settings import Settings, SymbolSettings
from mexc_trio.settings.targets import EmbeddedTarget
from mexc_trio.symbols import check_tables

log = logging.getLogger(__name__)


@contextmanager
def open_recording(settings: Settings, symbols: Sequence[str]) -> Iterator[Recording]:
    """Open store and journal and make ready all that is recorded. Blocks.

    Raises UsageError for what is set and cannot work (no access, no rights, a table that is not
    ours), StoreLocked or JournalLocked if another recorder has the directory or a table, StoreError
    or JournalError if they do not open.
    """
    wanted = [settings.for_symbol(symbol) for symbol in symbols]
    with ExitStack() as stack:
        _check_state_directory(settings.journal_path)
        store = _open_store(settings)
        stack.callback(store.close)
        identity = _identity(store)
        found = find_journal(settings.journal_path, identity.lasting, settings.store.identity)
        first_start = not found.path.exists()
        # A server by its name too, for those who start while it is away.
        names = {settings.store.identity}
        if identity.here and not isinstance(settings.store, EmbeddedTarget):
            names.add(identity.here)
        locks = stack.enter_context(
            hold_tables(store.name, names, directories=settings.store.lock_directories)
        )

        def check(beside: Sequence[SymbolSettings], new: Sequence[SymbolSettings]) -> None:
            check_tables({one.symbol: one.table for one in (*beside, *new)})
            new_tables = [one.table for one in new]
            tables = [*map(table_of, new), GAPS]
            listed = any(one.symbol not in settings.symbols for one in new)
            _make_ready(settings, store, tables, first_start=first_start, found=listed)
            locks.hold(new_tables)

        chosen = admit(
            [one for one in wanted if one.symbol in settings.symbols],
            [one for one in wanted if one.symbol not in settings.symbols],
            check,
        )
        journal = stack.enter_context(open_journal(found.path, retention=settings.retention))
        if journal.file.damaged:
            log.error(
                "the journal was damaged and is kept as %s; a new one is begun",
                journal.file.damaged,
            )
        _claim(journal, settings, identity if identity.lasting else _identity(store))
        for other in found.others:
            _log_backlog(other)
        try:
            there = columns(store, tables=[one.table for one in chosen])
        except StoreError:  # it has been said
            chosen = [as_before(one, journal.queue(one.table)) for one in chosen]
        else:
            chosen = with_room(chosen, there)
        waiting = [queue for queue in journal.queues() if queue.backlog]
        for queue in waiting:
            log.info("table %s: %d rows of an earlier run to write", queue.name, queue.backlog)
        recorded = {GAPS.name, *(one.table for one in chosen)}
        leftovers = [queue for queue in waiting if queue.name not in recorded]
        recording = Recording(settings, journal, AsyncStore(store), leftovers, locks)
        for queue in journal.queues():
            if queue.name not in recorded:
                write_pending(queue, recording.gaps)
        for one in chosen:
            recording.make_collector(one)
        yield recording


def has_journal(settings: Settings) -> bool:
    """Return whether an earlier run has left a journal; tell of those of other stores. Blocks.

    Raises UsageError, StoreLocked or StoreError if the store does not open.
    """
    usual = settings.journal_path
    refuse_others(usual.parent)
    if usual.exists() or not any(usual.parent.glob("journal*.sqlite")):
        return usual.exists()
    with closing(_open_store(settings)) as store:
        found = find_journal(usual, _identity(store).lasting, settings.store.identity)
    for other in found.others:
        _log_backlog(other)
    return found.path.exists()


def _identity(store: Store) -> Identity:
    try:
        return identity_of(store)
    except StoreError:
        return NOBODY  # what is wrong with it is said by whoever needs it


def _claim(journal: Journal, settings: Settings, identity: Identity) -> None:
    """Write into the journal whose rows it has."""
    before, spelt = journal.file.fact(SPELT), settings.store.identity
    if before not in ("", spelt):
        log.warning("journal %s, of %s, is that of %s, too", journal.path, before, spelt)
    journal.file.remember(SPELT, spelt)
    if identity.lasting:
        journal.file.remember(STORE, identity.lasting)


def _log_backlog(journal: OtherJournal) -> None:
    """Tell of rows in a journal of another store, which this run does not write."""
    if journal.backlog:
        log.warning(
            "%d rows wait in %s for %s; write them with: mexc-trio drain --store ...",
            journal.backlog, journal.path, journal.whose,
        )  # fmt: skip


def _open_store(settings: Settings) -> Store:
    try:
        return open_store(settings, readers=True)
    except StoreRejected as error:
        raise UsageError(str(error)) from error


def _make_ready(
    settings: Settings, store: Store, tables: Sequence[Table], *, first_start: bool, found: bool
) -> None:
    try:
        prepare_all(store, tables)
        if first_start and not isinstance(settings.store, EmbeddedTarget):
            for table in tables:
                store.append(table, [])  # no row, but it takes the right to insert
    except StoreUnavailable as error:
        # A store that was written to before may be away. One that was never reached may be a
        # misspelt host, which nobody wants to learn days later.
        if first_start:
            raise UsageError(
                f"{error}. At the first start the store must work; check --store"
            ) from error
        log.warning("%s; recording goes on into the journal", error)
    except StoreError as error:
        # The same for what it refuses: a right or a table that somebody has changed. The writers
        # of the tables concerned say it again, and the others go on. But rows of a symbol that
        # nobody has chosen are not to wait for a table that was never its own.
        if first_start or (found and isinstance(error, ForeignTable)):
            raise UsageError(str(error)) from error
        log.warning("%s; recording goes on into the journal", error)


def _check_state_directory(journal: Path) -> None:
    """Check that a journal can be kept there, before anything else is touched."""
    directory = journal.parent
    refuse_others(directory)
    if journal.exists():
        return
    # Where the directory is missing, it can be made in the one above it.
    place = next(place for place in (directory, *directory.absolute().parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise UsageError(
            f"state directory {directory}: no file can be made in {place} ({error.strerror}); "
            f"give --state-dir or --store another path"
        ) from error
