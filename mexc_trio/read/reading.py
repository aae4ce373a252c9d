"""How a command reads a store, whether or not a recorder has it open.

`open_reader` finds the way: to the engine of a directory, started for the command if no recorder
has, or to a server.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mexc_trio.clickhouse import documents
from mexc_trio.clickhouse.engine import Engine
from mexc_trio.clickhouse.engine_config import COMMANDS
from mexc_trio.clickhouse.replicas import answering
from mexc_trio.clickhouse.server import Columns, Rows, ServerStore
from mexc_trio.errors import StoreUnavailable, UsageError
from mexc_trio.files import refuse_others
from mexc_trio.read import arrow
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget, ServerTarget

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

_TO_THE_END: Final[Mapping[str, object]] = {"cancel_http_readonly_queries_on_client_close": 1}


class Reader:
    """The read side of a store. It may write nothing, whatever its user may.

    Calls block; one at a time, a stream included. A statement that fails raises StoreError, of
    generators perhaps in the middle. One that finds that its engine is no more, since a recorder
    has ended or begun anew, is asked again of the engine that has the store now.
    """

    def __init__(self, find: Callable[[], ServerTarget], known_as: str = "") -> None:
        """`find` says where the store's engine answers now; it raises StoreError if none does."""
        self._find, self._known_as = find, known_as
        self._open(find())

    def _open(self, target: ServerTarget) -> None:
        self._store = ServerStore(target, 1, self._known_as)
        self._settings: dict[str, int | str] | None = None

    @property
    def name(self) -> str:
        """What the user knows the store by, without secrets."""
        return self._store.name

    @property
    def database(self) -> str:
        """The database that holds the tables; names without a database are looked up there."""
        return self._store.database

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows, all of them in memory.

        Values are clickhouse-driver's: ask for numbers and texts, since what it makes of times
        depends on where the server is.
        """
        return self._answer(sql)[0]

    def rows_before_error(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement that may fail in the middle, and return the rows that came before."""
        return self._store.rows_before_error(sql)

    def stream(self, sql: str, format: str) -> Generator[bytes, None, None]:  # noqa: A002
        """Run one statement and yield its answer as one document in a format of ClickHouse.

        Closing the generator ends the statement. That the server cannot make the format is a
        StoreError, too.
        """

        def begin() -> tuple[bytes, Generator[bytes, None, None]]:
            settings = {**_TO_THE_END, **self._query_settings()}
            pieces = documents.stream(self._store.target, self.name, sql, format, settings)
            return next(pieces, b""), pieces

        first, others = self._ask(begin)
        with closing(others):
            yield first
            yield from others

    def batches(self, sql: str) -> "Generator[pa.RecordBatch, None, None]":
        """Run a SELECT and yield its rows as batches of Arrow, at least one."""
        columns = [(row[0], row[1]) for row in self.query(f"DESCRIBE TABLE ({sql})")]
        with closing(self.stream(sql, arrow.ARROW_STREAM)) as pieces:
            yield from arrow.read(pieces, columns)

    def table(self, sql: str) -> "pa.Table":
        """Run a SELECT and return its rows, all of them in memory."""
        import pyarrow as pa

        with closing(self.batches(sql)) as batches:
            return pa.Table.from_batches(list(batches))

    def answer(self, sql: str) -> "pa.Table":
        """Run a statement that is no SELECT, such as SHOW TABLES, and return its rows."""
        return arrow.of_values(*self._answer(sql))

    def close(self) -> None:
        """Close the connection."""
        self._store.close()

    def _answer(self, sql: str) -> tuple[Rows, Columns]:
        return self._ask(lambda: self._store.answer(sql, self._query_settings()))

    def _ask(self, ask: Callable[[], T]) -> T:
        """Ask the engine; if another one has the store by now, ask that one."""
        try:
            return ask()
        except StoreUnavailable:
            target = self._find()
            if target == self._store.target:
                raise
            self.close()
            self._open(target)
            return ask()

    def _query_settings(self) -> dict[str, int | str]:
        if self._settings is None:
            found = self._store.query("SELECT value FROM system.settings WHERE name = 'readonly'")
            self._settings = {"session_timezone": "UTC"}
            if found[0][0] == "1":
                self._settings = {}  # he may change no setting; times are in the server's zone
            elif found[0][0] == "0":
                self._settings["readonly"] = 2
        return self._settings


@contextmanager
def open_reader(settings: Settings) -> Iterator[Reader]:
    """Open the store that the settings name for reading. Creates nothing.

    Raises UsageError if there is no store in that directory, StoreLocked if something else has the
    directory, and cannot be asked, StoreError if the engine does not open it.
    """
    with ExitStack() as stack:
        if isinstance(settings.store, EmbeddedTarget):
            refuse_no_store(settings.store.directory)
            engine = stack.enter_context(closing(Engine(settings.store.directory)))
            reader = Reader(lambda: engine.access().target(COMMANDS), engine.name)
        else:
            server = settings.store
            reader = Reader(lambda: answering(server))
        yield stack.enter_context(closing(reader))


def refuse_no_store(directory: Path) -> None:
    """Raise UsageError for a directory in which no store was ever made, or where none may be."""
    refuse_others(directory)
    if not directory.is_dir():
        raise UsageError(f"store {directory}: there is no such directory; see --store")
    if not (directory / "data").is_dir():
        raise UsageError(f"store {directory}: nothing was ever recorded there; see --store")
