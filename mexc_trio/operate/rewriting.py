"""The commands `compact` and `convert`: tables are rewritten, whether a recorder runs or not.

A recorder alone knows whether rows are on their way into its tables. So where one runs it is asked
to do it; otherwise the locks that recorders hold against each other are held here meanwhile.
"""

import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import closing

from mexc_trio.clickhouse import compaction, open_store
from mexc_trio.clickhouse.conversion import convert as convert_table
from mexc_trio.clickhouse.schema import Store, engines
from mexc_trio.clickhouse.tables import SHARED_TABLES, TableEngine
from mexc_trio.errors import MexcTrioError, StoreError, StoreUnavailable
from mexc_trio.journal import Journal, fact_of
from mexc_trio.locks import holder
from mexc_trio.operate.exclusive import check_ours, journal_of, open_exclusively, recorded_tables
from mexc_trio.output import say
from mexc_trio.record.rewriting import ANSWER, RewritingProgress, RewritingRequest
from mexc_trio.settings import Settings

log = logging.getLogger(__name__)


def compact(settings: Settings, symbols: Sequence[str]) -> int:
    """Rewrite the tables of some symbols, or of all if none is named; return the exit code.

    Raises as `_ask_recorder` and `open_exclusively`.
    """
    asked = _ask_recorder(settings, symbols)
    return _compact_here(settings, symbols) if asked is None else asked


def _compact_here(settings: Settings, symbols: Sequence[str]) -> int:
    with open_exclusively(settings) as (store, journal, hold):
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
        if name not in SHARED_TABLES
        and kinds[name] == compaction.ENGINE
        and not compaction.is_leftover(name)
    ]


def _note_fingerprint(store: Store, journal: Journal | None, table: str) -> None:
    """Spare the next recorder the reading of a table that has just been read in full."""
    if journal is None or table not in journal.file.names():
        return
    if fingerprint := store.fingerprint(table):
        journal.queue(table).checked(fingerprint)
        journal.flush()


def _ask_recorder(
    settings: Settings, symbols: Sequence[str], engine: TableEngine | None = None
) -> int | None:
    """Have the recorder of a store rewrite tables, and tell what it does; return the exit code.

    None if no recorder runs. For `engine` see `RewritingRequest`. Raises StoreError if the store
    does not answer, MexcTrioError if the recorder that was asked has ended.
    """
    with closing(open_store(settings)) as store:
        journal = journal_of(settings, store)
    pid = holder(journal.with_suffix(".lock"))
    if pid is None:
        return None
    request = RewritingRequest(secrets.token_hex(8), tuple(symbols), engine)
    request.leave(journal)
    say(f"asking process {pid}, which records")
    said = 0
    try:
        while True:
            answer = RewritingProgress.read(fact_of(journal, ANSWER))
            if answer.id == request.id:
                for line in answer.done[said:]:
                    say(line)
                said = len(answer.done)
                if answer.ended:
                    break
            if holder(journal.with_suffix(".lock")) != pid:
                raise MexcTrioError(
                    f"process {pid} has ended; each table is whole, the old one or the new. Give "
                    f"the command again"
                )
            time.sleep(0.1)
    finally:
        request.take_back(journal)
    for line in answer.failed:
        log.error("%s", line)
    return 1 if answer.failed else 0


def convert(settings: Settings, symbols: Sequence[str]) -> int:
    """Move the tables of symbols to the engine that the settings name; return the exit code.

    Raises as `_ask_recorder` and `open_exclusively`, and StoreError if the store refuses.
    """
    engine = TableEngine(settings.engine)
    asked = _ask_recorder(settings, symbols, engine)
    if asked is not None:
        return asked
    with open_exclusively(settings) as (store, journal, hold):
        tables = [settings.for_symbol(symbol).table for symbol in symbols]
        hold(tables)
        for table in tables:
            check_ours(settings, store, journal, table, "convert")
            if journal is not None and table in journal.file.names():
                # Whatever happens, the next recorder looks anew at what it finds.
                queue = journal.queue(table)
                queue.base = None
                queue.checked("")
                journal.flush()
            done = convert_table(store, table, engine, settings.min_free)
            say(f"table {table}: {f'is a {engine} already' if done is None else done}")
    return 0
