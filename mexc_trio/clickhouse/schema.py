"""The tables, and the SQL about them that the embedded engine and a server share."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

from mexc_trio.clickhouse.suitability import (
    NUMBERED,
    REPLICATED,
    table_engine,
    why_unsuitable,
)
from mexc_trio.clickhouse.tables import (
    SHARED_TABLES,
    WIDE,
    Numbering,
    Table,
    TableEngine,
)
from mexc_trio.errors import ForeignTable, StoreRejected, TableMissing
from mexc_trio.rows import RowTuple
from mexc_trio.spans import Span


class Readable(Protocol):
    """What can be asked: a `Store`, or a `Reader`.

    Every function that is given one raises StoreError as `query` does. Their texts tell only of
    errors that have another cause.
    """

    @property
    def name(self) -> str:
        """What the user knows it by, without secrets."""

    @property
    def database(self) -> str:
        """The database that holds the tables."""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows, if it has any.

        Raises StoreUnavailable if it may work later, TableMissing if the table or database is not
        there, StoreRejected if it will not work without a change by the user.
        """

    def rows_before_error(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement that may fail in the middle, and return the rows that came before."""


class Store(Readable, Protocol):
    """A ClickHouse engine, embedded or a server. Every call blocks: call it in a thread.

    Calls may come from several threads at once, up to `concurrency`. The answers that stand here
    are those of a single server.
    """

    @property
    def concurrency(self) -> int:
        """How many calls may run at the same time."""

    @property
    def one_thread(self) -> bool:
        """Whether commands have one thread for a statement that does not ask for more."""
        return False

    @property
    def replicated(self) -> bool:
        """Whether its tables have replicas, whose hosts `--store` names."""

    @property
    def quorum(self) -> int:
        """How many replicas must have rows that are acknowledged; 0 for one."""

    @property
    def hosts(self) -> "Sequence[Store]":
        """Each of its hosts as a store by itself; none if it is one server."""
        return ()

    def one_host(self) -> AbstractContextManager[None]:
        """Have calls fail, in this task, that would be answered by another host than before."""
        return nullcontext()

    def leave(self) -> None:
        """Turn to the next host, if there are several."""

    def append(
        self, table: Table, rows: Sequence[RowTuple], numbering: Numbering | None = None
    ) -> None:
        """Insert rows in their order. After any error some may be stored and some not.

        Without rows it is only seen whether some could be inserted. `numbering` is for a table of
        numbered rows. Raises StoreError as `query`.
        """

    def server_start_id(self) -> str:
        """Return what stays the same for as long as the engine runs, and only so long.

        Of a server it is the second of its start, from its uptime, so it may be off by one. An
        embedded engine has a value of its own for each start.
        """

    def fingerprint(self, table: str) -> str:
        """Sync a table's files to the disk and return a text that changes when they do.

        Empty where the files are the server's. A table that still has its fingerprint has lost
        nothing, whatever happened to the machine.
        """
        return ""

    def truncate_index(self, table: str, drop: int) -> str:
        """Cut the index of a table that cannot be opened back to what can be read.

        `drop` more of its last INSERTs are cut off as well. Returns where the old index is kept;
        empty if there is nothing to cut, or the files are the server's.
        """
        return ""

    def inserts(self, table: str) -> int:
        """Return about how many INSERTs a table has had, small ones; may read a column of it."""

    def close(self) -> None:
        """Let go of connections, files and locks."""


def quoted(name: str) -> str:
    """Return an identifier as SQL."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(text: str) -> str:
    """Return a string as SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def qualified(store: Readable, table: str) -> str:
    """Return `database`.`table` as SQL."""
    return f"{quoted(store.database)}.{quoted(table)}"


def milliseconds(column: str) -> str:
    """Return the SQL of a time column in milliseconds."""
    return f"toUnixTimestamp64Milli({quoted(column)})"


TIME: Final = milliseconds("ts")
"""The SQL of a row's time in milliseconds."""


def within(span: Span) -> str:
    """Return the SQL for a row's being in a span, in milliseconds since 1970."""
    return f"{TIME} >= {span[0]} AND {TIME} < {span[1]}"


def prepare(store: Store, tables: Sequence[Table]) -> list[str]:
    """Create what is missing of the database and the tables; return the names of new tables.

    Raises ForeignTable if one of that name is not what it must be, see `suitability`, StoreRejected
    without the right to create.
    """
    present = columns(store, views=True, tables=[table.name for table in tables])
    absent = [table for table in tables if table.name not in present]
    # All that can be wrong is looked for before anything is created.
    kinds = engines(store, list(present)) if present else {}
    for table in tables:
        if table.name not in present:
            continue
        # A table that is narrow stays so; whoever would have it wide looks.
        needed = [column for column in table.columns if column not in WIDE]
        reason = why_unsuitable(
            needed, present[table.name], kinds.get(table.name, ""),
            shared=table.name in SHARED_TABLES, replicated=store.replicated,
        )  # fmt: skip
        if reason:
            raise ForeignTable(
                f"table {store.database}.{table.name} at {store.name} {reason}: it is not one of "
                f"ours; rename it, or give the symbol another table in settings.ini"
            )
    if absent and not has_database(store):
        store.query(f"CREATE DATABASE IF NOT EXISTS {quoted(store.database)}")
    for table in absent:
        name = qualified(store, table.name)
        kind = table.definition(of_ours=store.one_thread)
        if store.replicated:
            kind = table.replicated(store.database)
        store.query(f"CREATE TABLE IF NOT EXISTS {name} {kind}")
    return [table.name for table in absent]


def engines(store: Readable, tables: Sequence[str]) -> dict[str, str]:
    """Return the engines of those of some tables, at least one, that are there.

    A MergeTree's is given with all that belongs to it: keys and settings.
    """
    names = ", ".join(map(literal, tables))
    sql = (
        f"SELECT name, if(engine IN ('{NUMBERED}', '{REPLICATED}'), engine_full, engine) "
        f"FROM system.tables WHERE database = {literal(store.database)} AND name IN ({names})"
    )
    return dict(store.query(sql))


def engine_of(store: Readable, table: str) -> TableEngine:
    """Return how a table of a symbol keeps its rows; TableMissing if it is not there."""
    found = engines(store, [table])
    if not found:
        raise TableMissing(f"{store.name} has no table {table}")
    return table_engine(found[table])


def has_database(store: Readable) -> bool:
    """Return whether the database is there."""
    name = literal(store.database)
    return bool(store.query(f"SELECT 1 FROM system.databases WHERE name = {name}"))


def columns(
    store: Readable, *, views: bool = False, tables: Sequence[str] | None = None
) -> dict[str, dict[str, str]]:
    """Return the tables of the database with their columns and types.

    Views are among them if `views`. With `tables` only those: of a thousand, one costs a tenth.
    """
    database = literal(store.database)
    found: dict[str, dict[str, str]] = {}
    sql = f"SELECT table, name, type FROM system.columns WHERE database = {database}"
    if not views:
        sql += (
            f" AND table NOT IN (SELECT name FROM system.tables WHERE database = {database} "
            f"AND engine = 'View')"
        )
    if tables is not None:
        sql += f" AND table IN ({', '.join(map(literal, tables)) or 'NULL'})"
    for table, name, type_ in store.query(sql):
        found.setdefault(table, {})[name] = type_
    return found


def count(store: Readable, table: str) -> int:
    """Return the number of rows that the table claims to have, which proves nothing.

    From the engine's metadata where it tells: `SELECT count()` of a StripeLog reads a column, and
    fails on a damaged one. Raises TableMissing if there is no such table.
    """
    name = qualified(store, table)
    known = _of_system_tables(store, "total_rows", table).get(table)
    if known is None:
        # Loads the index, without which the engine does not know. A loaded one it would copy.
        store.query(f"SELECT 1 FROM {name} LIMIT 0")
        known = _of_system_tables(store, "total_rows", table).get(table)
    # It never knows those of a view.
    return int(store.query(f"SELECT count() FROM {name}")[0][0]) if known is None else known


def inserting(store: Readable, table: str) -> bool:
    """Return whether an INSERT into a table is running, or its exchange, whoever sent it.

    A client sends its rows after the server has begun the statement, and a statement stays in the
    list until its rows are in the table. So what is neither in the list nor in the table will
    never be. A StripeLog table is locked meanwhile, which has the same effect, so a user without
    the right to look is no worse off; a table of another engine, made by hand, is not.
    """
    statements = [
        f"startsWith(query, {literal(f'{what} {qualified(store, table)} ')})"
        for what in ("INSERT INTO", "EXCHANGE TABLES")
    ]
    sql = f"SELECT count() FROM system.processes WHERE {' OR '.join(statements)}"
    try:
        return bool(int(store.query(sql)[0][0]))
    except StoreRejected:
        return False


def known_sizes(store: Readable) -> dict[str, int | None]:
    """Return the bytes that each table of the database takes."""
    return _of_system_tables(store, "total_bytes")


def _of_system_tables(store: Readable, column: str, table: str = "") -> dict[str, int | None]:
    one = f"AND name = {literal(table)}" if table else ""
    where = f"WHERE database = {literal(store.database)} {one}"
    sql = f"SELECT name, {column} FROM system.tables {where}"
    return {str(name): None if n is None else int(n) for name, n in store.query(sql)}
