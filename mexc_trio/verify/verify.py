"""The command `verify`: what is stored, how much, how big, and is it sound.

`gather` asks the store and the journal for the facts, which `verdict` turns into text. The exit
code is 1 if anything is wrong: a table that cannot be read in full or is missing, rows that are
there twice or out of order, a silence that no gap in the ledger accounts for, deals that the
exchange's candles have and the store has not. Known gaps and dead letters are not wrong.
"""

import logging
import os
import shutil
import sys
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import attrs

from mexc_trio.analysis.gaps import read_gaps
from mexc_trio.analysis.insertion_order import why_not
from mexc_trio.analysis.survey import Size, Survey, sizes, survey
from mexc_trio.clickhouse.compaction import is_leftover
from mexc_trio.clickhouse.engine_config import DATABASE
from mexc_trio.clickhouse.identity import identity_of
from mexc_trio.clickhouse.repair import PUT_ASIDE
from mexc_trio.clickhouse.schema import Readable
from mexc_trio.clickhouse.stripelog import needs_repair
from mexc_trio.clickhouse.tables import GAPS, MARKET_COLUMNS, Table
from mexc_trio.errors import JournalError, JournalLocked, StoreRejected, TableMissing
from mexc_trio.files import bytes_of
from mexc_trio.journal import open_journal
from mexc_trio.journal.ownership import find_journal
from mexc_trio.read.owners import recorded_columns
from mexc_trio.read.reading import open_reader, refuse_no_store
from mexc_trio.settings import Settings
from mexc_trio.verify.facts import Disk, Facts, JournalFacts, as_json
from mexc_trio.verify.findings import SymbolFacts
from mexc_trio.verify.inspection import Compare, Inspection
from mexc_trio.verify.verdict import report

log = logging.getLogger(__name__)


def verify(
    settings: Settings,
    symbols: tuple[str, ...],
    *,
    json: bool = False,
    compare: Compare | None = None,
) -> int:
    """Print what is stored of the symbols, or of all if none is named; return the exit code.

    `json` is for machines; `compare` compares with the exchange, None if nobody wants that. Raises
    a MexcTrioError if the store cannot be opened, or went away.
    """
    facts = gather(settings, symbols, compare)
    sys.stdout.write((as_json(facts) if json else report(facts)) + "\n")
    return 1 if facts.problems else 0


def gather(settings: Settings, symbols: Sequence[str], compare: Compare | None = None) -> Facts:
    """Ask the store and the journal for everything, and the exchange if that is wanted.

    Raises a MexcTrioError if the store cannot be opened, or went away.
    """
    directory = settings.store.directory
    if directory is not None:
        refuse_no_store(directory)
    to_repair = _to_repair(directory)
    with open_reader(settings) as store:
        found = recorded_columns(store)
        names, missing = _choose(settings, symbols, found)
        known = sizes(store, directory)
        log.info("reading all of %s at %s", ", ".join(names) or "nothing", store.name)
        tables = [
            survey(store, Table(name, tuple(found[name].items())), "mt", ("ts", "ts"), directory)
            for name in names
        ]
        tables = [_repaired(table) if table.name in to_repair else table for table in tables]
        gaps = (
            read_gaps(store, found[GAPS.name], [*symbols, *names] if symbols else [], directory)
            if GAPS.name in found
            else None
        )
        not_in_order = why_not(store) if names else ""
        inspection = Inspection(settings, store, found, gaps, in_order=not not_in_order)
        inspected = [inspection.inspect(table) for table in tables]
        if compare is not None:
            inspected = inspection.with_comparison(inspected, tables, compare)
        identity = identity_of(store).lasting
        chosen = find_journal(settings.journal_path, identity, settings.store.identity)
        return Facts(
            store=store.name,
            database=store.database,
            tables=tables,
            gaps=gaps,
            missing=missing,
            put_aside=[*filter(PUT_ASIDE.fullmatch, sorted(found)), *_damaged_files(directory)],
            sizes=known,
            volume=_volume(directory, known),
            journal=_journal_facts(chosen.path),
            symbols=inspected,
            not_in_order=not_in_order,
            disk=_disk(store, directory, known, tables, inspected),
            other_journals=[one for one in chosen.others if one.backlog],
        )


def _to_repair(directory: Path | None) -> Container[str]:
    """Return the tables whose index is cut to what can be read when the store is opened."""
    if directory is None:
        return ()
    tables = (directory / "data" / DATABASE).glob("*")
    return {table.name for table in tables if needs_repair(table)}


def _repaired(table: Survey) -> Survey:
    if table.damage:
        return table
    text = "its index was damaged, and has been cut to what can be read; rows behind that are lost"
    return attrs.evolve(table, counted=None, damage=text)


def _damaged_files(directory: Path | None) -> list[str]:
    """Return the files that were kept as they were when a table was repaired."""
    return sorted(str(path) for path in (directory / "damaged").glob("*")) if directory else []


def _choose(
    settings: Settings, symbols: Sequence[str], found: Mapping[str, Mapping[str, str]]
) -> tuple[list[str], list[str]]:
    """Return the symbols' tables, and a sentence for each that should be there and is not."""
    ours = [name for name in sorted(found) if found[name].keys() >= MARKET_COLUMNS]
    if not symbols:
        return [name for name in ours if not is_leftover(name)], []
    names, missing = [], []
    for symbol in symbols:
        name = settings.for_symbol(symbol).table
        if name in ours:
            names.append(name)
        elif name in found:
            lacking = ", ".join(sorted(MARKET_COLUMNS - found[name].keys()))
            missing.append(f"{symbol}: table {name} has no column {lacking}: it is not one of ours")
        else:
            missing.append(f"{symbol} has no table {name}: it was never recorded here")
    return names, missing


def _disk(
    store: Readable,
    directory: Path | None,
    known: Mapping[str, Size],
    tables: Sequence[Survey],
    inspected: Sequence[SymbolFacts],
) -> Disk:
    a_day = {
        table.name: known[table.name].total / table.rows * one.coverage.rows_a_day
        for table, one in zip(tables, inspected, strict=True)
        if one.coverage is not None and table.name in known and table.rows
    }
    if directory is not None:
        return Disk(shutil.disk_usage(directory).free, a_day)
    try:
        free = store.query("SELECT min(free_space) FROM system.disks")[0][0]
    except (StoreRejected, TableMissing):  # not every server has it, and not every user may
        return Disk(None, a_day)
    return Disk(int(free), a_day)


def _volume(directory: Path | None, known: Mapping[str, Size]) -> int | None:
    if directory is None:
        return sum(size.total for size in known.values()) if known else None
    # Tables are reached by links, which os.walk does not follow: nothing counts twice.
    paths = (Path(place, name) for place, _, names in os.walk(directory) for name in names)
    return bytes_of(*(path for path in paths if not path.is_symlink()))


def _journal_facts(path: Path) -> JournalFacts | None:
    if not path.exists():  # and it is not for us to make one
        return None
    try:
        with open_journal(path) as journal:
            waiting = {queue.name: queue.backlog for queue in journal.queues() if queue.backlog}
            aside = journal.file.damaged
    except JournalLocked as error:
        return JournalFacts(path, {}, str(error).split(";")[0], "")
    except JournalError as error:
        return JournalFacts(path, {}, "", str(error))
    damage = f"the journal {path} could not be read and is kept as {aside}" if aside else ""
    return JournalFacts(path, waiting, "", damage)
