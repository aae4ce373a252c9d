"""`mexc-trio restore`: a backup's tables into a store, of either kind.

The rows go into a table of another name, are read back and compared, and only then does the table
get its name: what a restore that failed has done, nobody sees. With --append rows are added to a
table that has some, and there is no such way back.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import attrs

from mexc_trio.backup.checksum import Checksum, select_rows
from mexc_trio.backup.manifest import SavedTable, check_file, read_manifest, read_rows, table_of
from mexc_trio.clickhouse import open_store, views
from mexc_trio.clickhouse.compaction import RESTORING
from mexc_trio.clickhouse.identity import identity_of
from mexc_trio.clickhouse.numbered import end_of
from mexc_trio.clickhouse.replicas import refuse_replicas
from mexc_trio.clickhouse.schema import Store, columns, count, prepare, qualified
from mexc_trio.clickhouse.tables import SHARED_TABLES, Numbering, TableEngine, is_numbered
from mexc_trio.errors import FileError, StoreError, StoreRejected, UsageError
from mexc_trio.journal import Journal, open_journal
from mexc_trio.journal.ownership import find_journal
from mexc_trio.locks import hold_tables
from mexc_trio.output import say
from mexc_trio.parquet import need_arrow
from mexc_trio.progress import Progress, progress
from mexc_trio.read.reading import open_reader
from mexc_trio.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from mexc_trio.rows import RowTuple

log = logging.getLogger(__name__)

BATCH = 10_000
"""Rows of one INSERT."""


@attrs.frozen
class _Move:
    """A table that is restored, and the one that its rows go into first."""

    entry: SavedTable
    before: int
    """Rows that are there already."""

    @property
    def into(self) -> str:
        """The table that is filled: itself if it has rows, else one with another name."""
        return self.entry.table if self.before else self.entry.table + RESTORING


def restore(settings: Settings, symbols: Sequence[str], source: Path, *, append: bool) -> int:
    """Put the tables of these symbols (without any, all of the backup) into the store; return 0.

    Raises a MexcTrioError if it could not be done.
    """
    need_arrow()
    manifest = read_manifest(source)
    entries = _choose(settings, symbols, manifest.tables, source)
    for entry in entries:
        check_file(source, entry)
    with ExitStack() as kept_out:
        spelt, tables = settings.store.identity, [entry.table for entry in entries]
        with closing(open_store(settings)) as store:
            locks = hold_tables(spelt, [spelt], tables, settings.store.lock_directories)
            kept_out.enter_context(locks)
            # Before anything is changed: a recorder may have it open.
            journal = kept_out.enter_context(_hold_journal(settings, store))
            found = columns(store)
            for entry in entries:
                refuse_replicas(store, entry.table, "is not restored: restore to one server")
            moves = [
                _Move(entry, count(store, entry.table) if entry.table in found else 0)
                for entry in entries
            ]
            _refuse_rows(store, moves, append=append)
            with progress(f"restore into {store.name}", sum(e.rows for e in entries)) as bar:
                for move in moves:
                    name = move.entry.table
                    engine = (
                        TableEngine.STRIPELOG if name in SHARED_TABLES else settings.engine_of(name)
                    )
                    _fill(store, move, source, bar, engine, exists=name in found)
        for move in moves:
            _compare(settings, move)
        with closing(open_store(settings)) as store:
            for move in moves:
                _put_in_place(store, move)
            restored = [entry.table for entry in entries if entry.table not in SHARED_TABLES]
            views.create(store, [views.as_recorded(store, table) for table in restored])
            totals = {move.entry.table: count(store, move.entry.table) for move in moves}
            _note_in_journal(journal, totals)
            name = store.name
    for entry in entries:
        say(f"{entry.table}: {entry.rows:,} rows restored, {totals[entry.table]:,} there now")
    say(f"{name}: {sum(entry.rows for entry in entries):,} rows, compared one by one")
    return 0


def _choose(
    settings: Settings, symbols: Sequence[str], entries: Sequence[SavedTable], source: Path
) -> list[SavedTable]:
    if not symbols:
        return list(entries)
    wanted = {symbol: settings.for_symbol(symbol).table for symbol in symbols}
    known = {entry.table for entry in entries}
    for symbol, table in wanted.items():
        if table not in known:
            raise UsageError(f"{source} has no {symbol}; it has {', '.join(sorted(known))}")
    return [entry for entry in entries if entry.table in {*wanted.values(), *SHARED_TABLES}]


@contextmanager
def _hold_journal(settings: Settings, store: Store) -> Iterator[Journal | None]:
    """Give the journal of the recorder into this store, if there is one, held against it."""
    identity = identity_of(store).lasting
    path = find_journal(settings.journal_path, identity, settings.store.identity).path
    if not path.exists():
        yield None
        return
    with open_journal(path, retention=settings.retention) as journal:
        yield journal


def _refuse_rows(store: Store, moves: Sequence[_Move], *, append: bool) -> None:
    full = [f"{move.entry.table} ({move.before:,})" for move in moves if move.before]
    if full and not append:
        raise UsageError(
            f"{store.name} has rows already in {', '.join(full)}; --append adds the backup's rows "
            f"after them"
        )


def _fill(
    store: Store, move: _Move, source: Path, bar: Progress, engine: str, *, exists: bool
) -> None:
    """Insert a table's rows in their order; if it is missing, into one of that engine."""
    table = table_of(move.entry.table, wide=move.entry.wide)
    table = attrs.evolve(table, name=move.into, engine=TableEngine(engine))
    if not move.before:
        into = qualified(store, move.into)
        store.query(f"DROP TABLE IF EXISTS {into}")  # of a restore that was killed
        if exists:
            # It may have been made by hand, with types of its own.
            store.query(f"CREATE TABLE {into} AS {qualified(store, move.entry.table)}")
        else:
            prepare(store, [table])
    numbered = is_numbered(columns(store, tables=[move.into]).get(move.into, {}))
    number = end_of(store, move.into) if numbered else 0
    try:
        for batch in read_rows(source, move.entry):
            values = (
                _floats(move, column) if type_.startswith("Float") else column.to_pylist()
                for column, (_, type_) in zip(batch.columns, table.columns, strict=True)
            )
            rows: Iterator[RowTuple] = zip(*values, strict=True)
            while part := list(islice(rows, BATCH)):
                numbers = range(number, number + len(part))
                store.append(table, part, Numbering(numbers, uuid4().hex) if numbered else None)
                number += len(part)
                bar(len(part))
    except BaseException:
        _clean_up(store, move)
        raise


def _floats(move: _Move, column: "pa.Array") -> list[float]:
    try:
        return list(map(float, column.to_pylist()))
    except ValueError:
        raise FileError(f"{move.entry.file} has a text where a number belongs") from None


def _compare(settings: Settings, move: _Move) -> None:
    """Read the restored rows back; StoreRejected if they are not those of the backup."""
    found = Checksum()
    try:
        with open_reader(settings) as reader:
            types = columns(reader).get(move.into, {})
            wanted = table_of(move.entry.table, wide=move.entry.wide).column_names
            limit = f"{move.before}, {move.entry.rows + 1}"
            sql = select_rows(reader, move.into, types, wanted, limit)
            with closing(reader.batches(sql)) as batches:
                for batch in batches:
                    found.add(batch)
            name = reader.name
        if (found.rows, found.digest()) != (move.entry.rows, move.entry.checksum):
            raise StoreRejected(
                f"{name}: table {move.into} has not what was restored into it; does something "
                f"else write to it?"
            )
    except BaseException:
        with suppress(StoreError), closing(open_store(settings)) as store:
            _clean_up(store, move)
        raise


def _clean_up(store: Store, move: _Move) -> None:
    """Drop what nobody is to see. Rows that were appended stay, because nobody can tell them."""
    if move.before:
        log.error(
            "table %s had %d rows; those after them are of this restore", move.into, move.before
        )
        return
    with suppress(StoreError):
        store.query(f"DROP TABLE IF EXISTS {qualified(store, move.into)}")


def _put_in_place(store: Store, move: _Move) -> None:
    """Put a filled table in the place of the empty or missing one."""
    if move.before:
        return
    filled, final = qualified(store, move.into), qualified(store, move.entry.table)
    if move.entry.table not in columns(store):
        store.query(f"RENAME TABLE {filled} TO {final}")
        return
    if count(store, move.entry.table):
        _clean_up(store, move)
        raise StoreRejected(f"{store.name}: table {move.entry.table} has got rows meanwhile")
    empty = qualified(store, f"{move.entry.table}_empty")
    store.query(f"RENAME TABLE {final} TO {empty}, {filled} TO {final}, {empty} TO {filled}")
    store.query(f"DROP TABLE {filled}")


def _note_in_journal(journal: Journal | None, totals: dict[str, int]) -> None:
    """Tell a recorder's journal of rows that are in its tables now, so that it goes on after them.

    A journal that knows of more rows than the backup had gives the table those again that it still
    has; that is the recorder's own way after a table was lost, and nothing is to be told.
    """
    for queue in journal.queues() if journal else ():
        rows = totals.get(queue.name)
        if rows is None:
            continue
        queue.base = None  # rows of a backup are numbered as they come
        queue.checked("")
        if queue.table_rows is not None and queue.table_rows < rows:
            queue.move_head(queue.acked, rows)
