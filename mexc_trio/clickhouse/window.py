"""Reading an embedded store that this process has open, while it goes on recording.

Each statement gets a connection of its own to the engine, on which `readonly = 1` is set, and
nothing that comes later can take that back. The engine keeps it within the limits that are set
beside it; a statement that needs more fails, and recording does not notice.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Final, TypeVar

import attrs

from mexc_trio.clickhouse.embedded import Connection, EmbeddedStore
from mexc_trio.clickhouse.schema import literal, quoted
from mexc_trio.clickhouse.statement import Rules, Statement
from mexc_trio.errors import StoreRejected
from mexc_trio.read import arrow, formats

T = TypeVar("T")

PIECE: Final = 2**18
"""Bytes to which small pieces are gathered: the engine gives one for each INSERT that it reads."""
PATIENCE: Final = 0.25
"""Seconds that a small piece waits for the next."""

_SPILLING: Final = (
    "max_bytes_before_external_sort",
    "max_bytes_ratio_before_external_sort",
    "max_bytes_before_external_group_by",
    "max_bytes_ratio_before_external_group_by",
)

_NONE: Final[Mapping[str, str]] = {}


@attrs.frozen
class Limits:
    """What one statement may use; 0 is as much as there is."""

    seconds: int = 3600
    memory: int = 2**30
    """Bytes that the engine works with."""
    document: int = 2**27
    """Bytes of an answer that is only had whole, such as JSON."""

    def settings(self) -> dict[str, str | int]:
        """Return them as the engine's settings."""
        # Within bounds of memory, or an error: sorting does not fill the recorder's disk.
        never_spill = dict.fromkeys(_SPILLING if self.memory else (), 0)
        return {
            **never_spill,
            "max_threads": 1,  # which also keeps the order of insertion
            "max_execution_time": self.seconds,
            "max_memory_usage": self.memory,
            "max_result_bytes": self.document,
            # Ten times slower with blocks as small as a recorder's.
            "output_format_parallel_formatting": 0,
            "output_format_arrow_parallel_encoding": 0,
            "session_timezone": "UTC",
        }


@attrs.define(eq=False)
class Window:
    """The engine of an open store, to look through."""

    store: EmbeddedStore
    limits: Limits = attrs.field(factory=Limits)
    _rules: Rules = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        with closing(self.store.connect()) as connection:
            self._rules = Rules.of_engine(lambda sql: _text(connection, sql))

    def answer(
        self,
        sql: str,
        default_format: str,
        *,
        database: str = "",
        parameters: Mapping[str, str] = _NONE,
        settings: Mapping[str, str] = _NONE,
    ) -> "Answer":
        """Make a statement ready to run, which `Answer.pieces` does. Blocks.

        Args:
            sql: one statement.
            default_format: the answer's format, unless the statement names one itself.
            database: for tables without one; the recorder's if empty.
            parameters: values of the statement's {name:Type} placeholders, escaped as in TSV.
            settings: the engine's, on top of the limits. The caller answers for them.

        Raises:
            StoreError: it is no statement, or may not run.
        """
        connection = self.store.connect()
        try:
            statement = self._rules.check(lambda text: _text(connection, text), sql, parameters)
            name = statement.format or default_format
            streamed = statement.is_select and formats.is_streamed(name)
            wanted: dict[str, str | int] = {**self.limits.settings(), **settings}
            if streamed:
                wanted["max_result_bytes"] = 0
            tag = f"mexc-trio {uuid.uuid4()}"
            wanted |= {"log_comment": tag, "readonly": 1}
            connection.run(f"USE {quoted(database or self.store.database)}")
            connection.run("SET " + ", ".join(f"{k} = {_value(v)}" for k, v in wanted.items()))
        except BaseException:
            connection.close()
            raise
        return Answer(name, statement, streamed, dict(parameters), self.store, connection, tag)


@attrs.define(eq=False)
class Answer:
    """One statement's answer. Its methods block; all but `cancel` are for one thread at a time."""

    format: str
    _statement: Statement
    _streamed: bool
    _parameters: dict[str, str]
    _store: EmbeddedStore
    _connection: Connection
    _tag: str
    _idle: threading.Event = attrs.field(factory=threading.Event, init=False)
    _cancelled: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._idle.set()

    def pieces(self) -> Generator[bytes, None, None]:
        """Run the statement and yield the bytes of one document.

        Raises:
            StoreError: it failed, or was cancelled.
        """
        if not self._streamed:
            yield self._whole(self._statement.sql, self.format)
        elif arrow.is_arrow(self.format):
            columns = self._columns()
            raw = self._raw(self._statement.without_format(), arrow.ARROW_STREAM)
            with closing(raw):
                yield from arrow.write(self.format, arrow.from_streams(raw, columns))
        else:
            with closing(self._raw(self._statement.sql, self.format)) as raw:
                yield from _gathered(formats.join(self.format, raw))

    def cancel(self) -> None:
        """End the statement if it is running, and wait until it has; for any thread."""
        self._cancelled = True
        while not self._idle.wait(0.02):
            # Again and again, because the engine may not have begun it yet.
            with closing(self._store.connect()) as other:
                other.run(f"KILL QUERY WHERE Settings['log_comment'] = {literal(self._tag)}")

    def close(self) -> None:
        """Let the connection go."""
        self._connection.close()

    def _raw(self, sql: str, name: str) -> Generator[bytes, None, None]:
        stream = self._call(lambda: self._connection.stream(sql, name, self._parameters))
        empty = True
        try:
            while (piece := self._call(lambda: next(stream, None))) is not None:
                empty = False
                yield piece
        finally:
            self._idle.clear()
            try:
                stream.close()
            finally:
                self._idle.set()
        # The engine makes no piece of no rows; the header is in the whole.
        if empty and (whole := self._whole(sql, name)):
            yield whole

    def _whole(self, sql: str, name: str) -> bytes:
        return self._call(lambda: self._connection.run(sql, name, self._parameters))

    def _columns(self) -> arrow.Columns:
        sql = f"DESCRIBE TABLE ({self._statement.without_format()})"
        rows = map(json.loads, self._whole(sql, "JSONCompactEachRow").splitlines())
        return [(row[0], row[1]) for row in rows]

    def _call(self, call: Callable[[], T]) -> T:
        self._idle.clear()
        try:
            if self._cancelled:
                raise StoreRejected("the query was cancelled")
            return call()
        finally:
            self._idle.set()


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    waiting = bytearray()
    since = 0.0  # the first is not kept waiting
    for piece in pieces:
        waiting += piece
        if len(waiting) >= PIECE or time.monotonic() - since > PATIENCE:
            yield bytes(waiting)
            waiting.clear()
            since = time.monotonic()
    if waiting:
        yield bytes(waiting)


def _text(connection: Connection, sql: str) -> str:
    return connection.run(sql, "TSVRaw").decode("utf-8", "surrogateescape")


def _value(value: str | int) -> str:
    return literal(value) if isinstance(value, str) else str(value)
