"""A ClickHouse server over the native protocol."""

import logging
import queue
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeAlias

import attrs

from mexc_trio.clickhouse.driver import (
    SEND_RECEIVE_TIMEOUT,
    DriverClient,
    Error,
    LogicalError,
    ServerException,
    TypeMismatchError,
    calls_of_the_driver,
)
from mexc_trio.clickhouse.error_codes import error_of
from mexc_trio.clickhouse.index_memory import inserts_of
from mexc_trio.clickhouse.schema import Store, qualified, quoted
from mexc_trio.clickhouse.tables import NUMBER, Numbering, Table
from mexc_trio.errors import StoreError, StoreRejected, StoreUnavailable
from mexc_trio.rows import RowTuple
from mexc_trio.settings.targets import ServerTarget
from mexc_trio.texts import one_line

log = logging.getLogger(__name__)

Rows: TypeAlias = list[tuple[Any, ...]]
Columns: TypeAlias = list[tuple[str, str]]
"""Names and types of an answer's columns."""

MINIMUM_VERSION: Final = (24, 3)
"""The oldest that is tried: it had long-term support when this program was written."""

INSERT_SETTINGS: Final = {"async_insert": 0, "max_insert_threads": 1}
"""An acknowledged row must be in the table, for its count() to resolve an INSERT that nobody heard
of, and rows must keep their order. Servers from 26.2 on buffer INSERTs unless told not to."""

_OTHER_SWITCH: Final = (26, 2)
"""The version from which on it is another setting that lets an INSERT be recognised."""


@attrs.define(eq=False)
class ServerStore(Store):
    """A server, or a cluster behind one, through a few kept connections.

    A client of clickhouse-driver serves one thread at a time, so each call borrows one and gives it
    back; after an error the connection is closed, and the next call opens it anew.
    """

    target: ServerTarget
    concurrency: int = 4
    known_as: str = ""
    """What the user knows it by, if not by host and port."""
    replicated: bool = attrs.field(default=False, kw_only=True)
    _idle: "queue.LifoQueue[tuple[int, DriverClient]]" = attrs.field(
        factory=queue.LifoQueue, init=False
    )
    """Open connections, and the index of the host that each leads to."""
    # All that may be connected, since Ctrl-C may come between a client's use and its return.
    _clients: set[DriverClient] = attrs.field(factory=set, init=False)

    @property
    def name(self) -> str:
        """What the user knows it by: host and port, if nothing else."""
        return self.known_as or f"ClickHouse at {self.target.host}:{self.target.port}"

    @property
    def quorum(self) -> int:
        return self.target.quorum

    def leave(self) -> None:
        """See `Store.leave`."""

    @property
    def database(self) -> str:
        """The database that holds the tables."""
        return self.target.database

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with self._client() as client:
            answer = client.execute(sql)
        return list(answer) if isinstance(answer, list) else []

    def rows_before_error(self, sql: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        with suppress(StoreError), self._client() as client:
            rows.extend(client.execute_iter(sql))  # what came before an error is kept
        return rows

    def append(
        self, table: Table, rows: Sequence[RowTuple], numbering: Numbering | None = None
    ) -> None:
        """See `Store.append`. Columns, because that is three times as fast as rows."""
        names, columns = list(table.column_names), list(zip(*rows, strict=True))
        settings: dict[str, int | str] = {**INSERT_SETTINGS, **self._insert_quorum}
        with self._client() as client:
            if numbering is not None:
                names.append(NUMBER)
                columns += [tuple(numbering.numbers)] if columns else []
                settings |= {"insert_deduplicate": 1, "insert_deduplication_token": numbering.token}
                if client.connection.server_info.version_tuple() >= _OTHER_SWITCH:
                    settings["deduplicate_insert"] = "enable"
            client.execute(
                f"INSERT INTO {qualified(self, table.name)} ({', '.join(map(quoted, names))}) "
                f"VALUES",
                columns,
                columnar=True,
                settings=settings,
            )

    @property
    def _insert_quorum(self) -> dict[str, int]:
        # The server gives up before we do, or nobody heard what became of it.
        wait = 1000 * (SEND_RECEIVE_TIMEOUT - 2)
        settings = {"insert_quorum": self.quorum, "insert_quorum_timeout": wait}
        return settings if self.quorum else {}

    def answer(self, sql: str, settings: Mapping[str, int | str]) -> tuple[Rows, Columns]:
        """Run a statement with our database as the default; return rows, and names and types."""
        with self._client() as client:
            # The driver takes the name from here for the next connection, so without quotes.
            client.execute(f"USE {self.database}")
            rows, columns = client.execute(sql, with_column_types=True, settings=dict(settings))
        return rows, columns

    def server_start_id(self) -> str:
        return str(self.query("SELECT toUnixTimestamp(now()) - uptime()")[0][0])

    def inserts(self, table: str) -> int:
        return inserts_of(self, qualified(self, table))

    def close(self) -> None:
        """Close all connections. No call is under way any more, or it was interrupted."""
        while self._clients:
            self._clients.pop().disconnect()

    def _close_idle(self) -> None:
        """Close the connections that no call is using."""
        while True:
            try:
                self._drop(self._idle.get_nowait()[1])
            except queue.Empty:
                return

    def _drop(self, client: DriverClient) -> None:
        client.disconnect()
        self._clients.discard(client)

    @contextmanager
    def _client(self) -> Iterator[DriverClient]:
        index = self._host_index()
        client = self._idle_client(index) or DriverClient(self._target_of(index))
        self._clients.add(client)
        try:
            if not client.connection.connected:
                client.connection.connect()
                self._check_version(client.connection.server_info.version_tuple())
                self._check_identity(client)
                self._connected(index)
            line = client.connection.socket
            try:
                yield client
            except ServerException:
                self._check_again(client, line)
                raise
            self._check_again(client, line)
        except BaseException as error:
            self._drop(client)
            mapped = self._mapped(error)
            if mapped is None:
                raise
            if isinstance(mapped, StoreUnavailable):
                self._failed(index)
                self._close_idle()  # the others are likely to be as dead
            raise mapped from error
        self._idle.put((index, client))

    def _idle_client(self, index: int) -> DriverClient | None:
        while True:
            try:
                found, client = self._idle.get_nowait()
            except queue.Empty:
                return None
            if found == index:
                return client
            self._drop(client)  # it leads to a host that was left meanwhile

    def _host_index(self) -> int:
        """Return what stands for the host that connections go to now."""
        return 0

    def _connected(self, index: int) -> None:
        """Note that a host has answered."""

    def _failed(self, index: int) -> None:
        """Note that a host does not answer, or not as it should."""

    def _check_version(self, version: tuple[int, ...]) -> None:
        if version < MINIMUM_VERSION:
            found, least = (".".join(map(str, one)) for one in (version, MINIMUM_VERSION))
            raise StoreRejected(f"{self.name} is ClickHouse {found}, too old: it takes {least}")

    def _check_identity(self, client: DriverClient) -> None:
        question, answer = self.target.known_by
        if question and client.execute(question) != [(answer,)]:
            raise StoreUnavailable(f"{self.name}: something else answers at its port")

    def _check_again(self, client: DriverClient, line: object) -> None:
        """Check who answered, if the driver has made the connection anew by itself meanwhile."""
        if client.connection.socket is not line:
            self._check_identity(client)

    def _target_of(self, index: int) -> ServerTarget:
        """Return where a connection to a host goes."""
        return self.target

    def _mapped(self, error: BaseException) -> Exception | None:
        """Return what the server or the driver says as one of our errors; None for any other."""
        if isinstance(error, ServerException):
            return error_of(error.code, error.message, self.name, self.target.user)
        text = one_line(str(error).strip() or type(error).__name__, 300)
        if isinstance(error, (TypeMismatchError, LogicalError)):
            return StoreRejected(f"{self.name}: the rows do not fit their table: {text}")
        # The driver does not map what a server causes that closes in the middle of an answer.
        if isinstance(error, (Error, OSError, EOFError)):
            return StoreUnavailable(f"{self.name} cannot be reached: {text}")
        calls = calls_of_the_driver(error)
        if isinstance(error, KeyError) and "create_datetime_column" in calls:
            how = "pip install --upgrade pytz"
            return StoreRejected(f"{self.name}: its time zone {text} is unknown here; {how}")
        # Reading an answer it may raise anything: at an error's text that is no UTF-8, say. Raised
        # elsewhere, it is a bug of ours, and no outage to wait for.
        if isinstance(error, Exception) and any(call.startswith("receive_") for call in calls):
            log.debug("%s", self.name, exc_info=error)
            return StoreUnavailable(f"{self.name} answers what cannot be understood: {text}")
        return None
