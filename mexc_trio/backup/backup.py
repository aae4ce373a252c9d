"""`mexc-trio backup`: tables into files, row for row and in their order."""

import logging
import os
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec

from mexc_trio.backup.checksum import Checksum, Types, select_rows
from mexc_trio.backup.manifest import (
    MANIFEST,
    Manifest,
    SavedTable,
    check_file,
    names_a_file,
    table_of,
)
from mexc_trio.clickhouse.compaction import is_leftover
from mexc_trio.clickhouse.schema import columns, count
from mexc_trio.clickhouse.tables import SHARED_TABLES, is_wide
from mexc_trio.errors import UsageError
from mexc_trio.files import whole_directory
from mexc_trio.output import say
from mexc_trio.parquet import need_arrow, open_parquet
from mexc_trio.progress import Progress, progress
from mexc_trio.read.reading import Reader, open_reader
from mexc_trio.settings import Settings
from mexc_trio.texts import size

log = logging.getLogger(__name__)


def backup(settings: Settings, symbols: Sequence[str], out: Path) -> int:
    """Write the tables of these symbols (without any, all) into a new directory; return 0.

    While a recorder goes on, what it adds after the start is left out. If the backup fails there is
    no such directory, and a MexcTrioError says why.
    """
    need_arrow()
    with open_reader(settings) as reader, whole_directory(out) as directory:
        tables = _choose(reader, settings, symbols)
        counts = {table: count(reader, table) for table in tables}
        entries = []
        with progress(f"backup of {reader.name}", sum(counts.values())) as bar:
            for table, types in tables.items():
                only = symbols if table in SHARED_TABLES else ()
                wide = is_wide(types)
                wanted = table_of(table, wide=wide).column_names
                sql = select_rows(reader, table, types, wanted, str(counts[table]), only)
                entry = _write(reader, sql, table, directory, bar)
                entries.append(msgspec.structs.replace(entry, wide=wide))
        for entry in entries:
            check_file(directory, entry)
        manifest = Manifest(
            taken=datetime.now(UTC).isoformat(timespec="seconds"), store=reader.name, tables=entries
        )
        with (directory / MANIFEST).open("wb") as file:
            file.write(manifest.encode())
            _sync(file)
    for entry in entries:
        say(f"{entry.table}: {entry.rows:,} rows")
    taken = size(sum(file.stat().st_size for file in out.iterdir()))
    say(f"{out}: {sum(entry.rows for entry in entries):,} rows, {taken}, checked")
    return 0


def _choose(reader: Reader, settings: Settings, symbols: Sequence[str]) -> dict[str, Types]:
    found = columns(reader)
    ours = {
        name: types
        for name, types in found.items()
        if set(table_of(name).column_names) <= types.keys()
    }
    if symbols:
        wanted = {symbol: settings.for_symbol(symbol).table for symbol in symbols}
        for symbol, table in wanted.items():
            if table not in ours:
                raise UsageError(f"{symbol} was not recorded in {reader.name}: no table {table}")
        names = [*wanted.values(), *(SHARED_TABLES.keys() & ours.keys())]
    else:
        names = sorted(name for name in ours if not is_leftover(name))
        for name in sorted(ours.keys() - set(names)):
            log.warning(
                "table %s was left by a repair, a rewriting or a restore, and is not in the backup",
                name,
            )
    if not names:
        raise UsageError(f"{reader.name} has no tables to back up")
    for name in names:
        if not names_a_file(name):
            raise UsageError(
                f"{reader.name} has a table {name!r}, as no file is named; say symbols"
            )
    return {name: ours[name] for name in names}


def _write(reader: Reader, sql: str, table: str, directory: Path, bar: Progress) -> SavedTable:
    import pyarrow as pa

    checksum = Checksum()
    path = directory / f"{table}.parquet"
    with path.open("xb") as file:
        with open_parquet(file) as write, closing(reader.batches(sql)) as batches:
            for batch in batches:
                checksum.add(batch)
                write(pa.Table.from_batches([batch]))
                bar(batch.num_rows)
        _sync(file)
    return SavedTable(table, checksum.rows, checksum.digest())


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
