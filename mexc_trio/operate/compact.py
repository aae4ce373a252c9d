"""The command `compact`: rewrites tables in large blocks, by itself or through a running recorder.

A recorder alone knows whether rows are on their way into its tables. So where one runs it is asked
to do it; otherwise the locks that recorders hold against each other are held here meanwhile.
"""

import logging
from collections.abc import Sequence

from mexc_trio.clickhouse import compaction
from mexc_trio.clickhouse.schema import Store, engines
from mexc_trio.clickhouse.tables import OF_ALL
from mexc_trio.errors import StoreError, StoreUnavailable
from mexc_trio.journal import Journal
from mexc_trio.operate.asking import ask_recorder
from mexc_trio.operate.holding import check_ours, exclusive, recorded_tables
from mexc_trio.output import say
from mexc_trio.settings import Settings

log = logging.getLogger(__name__)


def compact(settings: Settings, symbols: Sequence[str]) -> int:
    """Rewrite the tables of some symbols, or of all if none is named; return the exit code.

    Raises as `ask_recorder` and `exclusive`.
    """
    asked = ask_recorder(settings, symbols)
    return _do(settings, symbols) if asked is None else asked


def _do(settings: Settings, symbols: Sequence[str]) -> int:
    with exclusive(settings) as (store, journal, hold):
        names = [settings.for_symbol(one).table for one in symbols] or _compactable(store)
        hold(names)
        failed = False
        for name in names:
            try:
                check_ours(settings, store, journal, name, "compact")
                done = compaction.compact(store, name, settings.min_free)
            except StoreUnavailable:
                raise
            except StoreError as error:
                log.error("%s", error)
                failed = True
                continue
            _note_fingerprint(store, journal, name)
            say(f"table {name}: {done}")
        if not names:
            say(f"{store.name}: nothing is there to compact")
    return 1 if failed else 0


def _compactable(store: Store) -> list[str]:
    names = recorded_tables(store)
    kinds = engines(store, names) if names else {}
    return [
        name
        for name in names
        if name not in OF_ALL
        and kinds[name] == compaction.ENGINE
        and not compaction.is_beside(name)
    ]


def _note_fingerprint(store: Store, journal: Journal | None, table: str) -> None:
    """Spare the next recorder the reading of a table that has just been read in full."""
    if journal is None or table not in journal.file.names():
        return
    if fingerprint := store.fingerprint(table):
        journal.queue(table).checked(fingerprint)
        journal.flush()
