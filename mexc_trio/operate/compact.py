"""The command `compact`: rewrites tables in large blocks, by itself or through a running recorder.

A recorder alone knows whether rows are on their way into its tables. So where one runs it is asked
to do it; otherwise the locks that recorders hold against each other are held here meanwhile.
"""

import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from mexc_trio.clickhouse import compaction, open_store
from mexc_trio.clickhouse.schema import Store, count, engines
from mexc_trio.clickhouse.tables import OF_ALL
from mexc_trio.errors import MexcTrioError, StoreError, StoreRejected, StoreUnavailable
from mexc_trio.journal import Journal, fact_of
from mexc_trio.locks import holder
from mexc_trio.operate.holding import held, journal_of, recorded_tables
from mexc_trio.output import say
from mexc_trio.record.compaction import ANSWER, Answer, Request
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget

log = logging.getLogger(__name__)


def compact(settings: Settings, symbols: Sequence[str]) -> int:
    """Rewrite the tables of some symbols, or of all if none is named; return the exit code.

    Raises:
        StoreLocked, JournalLocked: a recorder has begun meanwhile.
        StoreError: the store does not answer.
        MexcTrioError: the recorder that was asked has ended.
    """
    with closing(open_store(settings)) as store:
        path = journal_of(settings, store)
    pid = holder(path.with_suffix(".lock"))
    return _ask(path, pid, symbols) if pid is not None else _do(settings, symbols)


def _ask(journal: Path, pid: int, symbols: Sequence[str]) -> int:
    """Have a recorder do it, and tell what it does."""
    request = Request(secrets.token_hex(8), tuple(symbols))
    request.leave(journal)
    say(f"asking process {pid}, which records")
    said = 0
    try:
        while True:
            answer = Answer.read(fact_of(journal, ANSWER))
            if answer.id == request.id:
                for line in answer.done[said:]:
                    say(line)
                said = len(answer.done)
                if answer.ended:
                    break
            if holder(journal.with_suffix(".lock")) != pid:
                raise MexcTrioError(f"process {pid} has ended; the tables are whole, old or new")
            time.sleep(0.1)
    finally:
        request.take_back(journal)
    for line in answer.failed:
        log.error("%s", line)
    return 1 if answer.failed else 0


def _do(settings: Settings, symbols: Sequence[str]) -> int:
    with held(settings) as (store, journal, hold):
        names = [settings.for_symbol(one).table for one in symbols] or _compactable(store)
        hold(names)
        failed = False
        for name in names:
            try:
                if not isinstance(settings.store, EmbeddedTarget):
                    _check_ours(store, journal, name)
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


def _check_ours(store: Store, journal: Journal | None, table: str) -> None:
    """See that no recorder on another machine writes to a server's table: this one's did.

    Raises:
        StoreRejected: it was another, or rows are to be written first.
    """
    known = journal is not None and table in journal.file.names()
    expected = journal.queue(table).table_rows if journal is not None and known else None
    if expected is None:
        raise StoreRejected(
            f"table {table}: no journal here knows it; compact it where it is recorded, since rows "
            f"may be on their way into it (see --state-dir)"
        )
    if count(store, table) != expected:
        raise StoreRejected(
            f"table {table} has not the rows that the journal knows of; try again after: "
            f"mexc-trio drain"
        )


def _note_fingerprint(store: Store, journal: Journal | None, table: str) -> None:
    """Spare the next recorder the reading of a table that has just been read in full."""
    if journal is None or table not in journal.file.names():
        return
    if fingerprint := store.fingerprint(table):
        journal.queue(table).checked(fingerprint)
        journal.flush()
