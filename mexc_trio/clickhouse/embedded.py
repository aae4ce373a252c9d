"""The ClickHouse engine in this process. The only module that knows chDB."""

import hashlib
import json
import logging
import os
import re
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from mexc_trio.clickhouse import stripelog
from mexc_trio.clickhouse.error_codes import error_of
from mexc_trio.clickhouse.schema import RowTuple, Table, qualified, quoted
from mexc_trio.errors import StoreError, StoreRejected, UsageError
from mexc_trio.locks import hold_file
from mexc_trio.rows import Row

log = logging.getLogger(__name__)

DATABASE: Final = "mexc_data"

# The embedded engine is never older than these; see `insert_settings`.
_INSERT_SETTINGS: Final = "SETTINGS async_insert = 0, max_insert_threads = 1"

_NONE: Final[Mapping[str, str]] = {}

_SEALED: Final = 65536
"""Bytes at the end of each file that its seal covers."""

_SPECIAL: Final = {
    ord("\\"): "\\\\",
    ord("\t"): "\\t",
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    0: "\\0",
}


@attrs.define(eq=False)
class EmbeddedStore:
    """A directory with the engine's tables. One process at a time may open it.

    Calls are serialised: the engine inserts no faster from several threads.
    """

    directory: Path
    concurrency: int = attrs.field(default=1, init=False)
    database: str = attrs.field(default=DATABASE, init=False)
    _session: Any = attrs.field(init=False)
    _incarnation: str = attrs.field(factory=lambda: f"process {uuid.uuid4()}", init=False)
    _lock: ExitStack = attrs.field(factory=ExitStack, init=False)

    def __attrs_post_init__(self) -> None:
        session = _engine()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"store {self.directory}: no directory can be made there ({error.strerror}); "
                f"give --store another path"
            ) from error
        self._lock.enter_context(
            hold_file(self.directory / "store.lock", f"store {self.directory}")
        )
        try:
            self._mend_what_would_not_open()
            self._session = session(str(self.directory))
        except (RuntimeError, OSError) as error:
            self._lock.close()
            raise StoreError(
                f"store {self.directory}: the engine does not open it: {_first_line(error)}"
            ) from error

    @property
    def name(self) -> str:
        """The directory."""
        return f"store {self.directory}"

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """See `Store.query`."""
        answer = str(self._run(sql, "JSONCompactEachRow"))
        # Not splitlines(), which also splits at characters that a text may hold.
        return [tuple(json.loads(line)) for line in answer.split("\n") if line]

    def append(self, table: Table, rows: Sequence[RowTuple]) -> None:
        """See `Store.append`. As text in the statement: for small batches nothing is faster."""
        names = ", ".join(quoted(name) for name in table.column_names)
        self._run(
            f"INSERT INTO {qualified(self, table.name)} ({names}) "
            f"{_INSERT_SETTINGS} FORMAT TSV\n{_plain_tsv(table, rows) or _tsv(table, rows)}\n",
            "TSV",
        )

    def server_start_id(self) -> str:
        """See `Store.server_start_id`."""
        return self._incarnation

    def seal(self, table: str) -> str:
        """See `Store.seal`: sizes of the files and a hash of their ends."""
        place = self.directory / "data" / self.database / table
        seal = hashlib.sha256()
        try:
            for name in ("data.bin", "index.mrk", "sizes.json"):
                with (place / name).open("rb") as file:
                    os.fsync(file.fileno())
                    size = file.seek(0, os.SEEK_END)
                    file.seek(max(0, size - _SEALED))
                    seal.update(f"{name} {size} ".encode() + file.read())
        except OSError:
            return ""  # an empty table has no files yet
        return f"sealed {seal.hexdigest()}"

    def mend(self, table: str, drop: int) -> str:
        """See `Store.mend`."""
        place = (self.directory / "data" / self.database / table).resolve()
        name = qualified(self, table)
        self.query(f"DETACH TABLE {name} SYNC")
        try:
            kept = stripelog.mend(place, self.directory / "damaged", drop)
        except OSError as error:
            raise StoreError(f"{self.name}: {place}: {error.strerror}") from error
        finally:
            self.query(f"ATTACH TABLE {name}")
        return "" if kept is None else str(kept)

    def _mend_what_would_not_open(self) -> None:
        for table in (self.directory / "data" / self.database).glob("*"):
            if stripelog.needs_mending(table):
                kept = stripelog.mend(table.resolve(), self.directory / "damaged")
                log.error(
                    "table %s: its index is damaged and was cut to what can be read; kept as %s",
                    table.name, kept,
                )  # fmt: skip

    def close(self) -> None:
        """Close the engine and let the directory go."""
        with self._lock:
            self._session.close()

    def connect(self) -> "Connection":
        """Return another connection to the same engine, with settings of its own; costs 1 ms."""
        return Connection(_engine()(str(self.directory)), self.name)

    def _run(self, sql: str, output: str) -> Any:
        with _errors(self.name):
            return self._session.query(sql, output)


@attrs.define(eq=False)
class Connection:
    """A connection to an engine that this process has open, for one statement at a time."""

    _session: Any
    _name: str

    def run(self, sql: str, output: str = "TSV", parameters: Mapping[str, str] = _NONE) -> bytes:
        """Run a statement and return its whole answer in a format of ClickHouse."""
        with _errors(self._name):
            return bytes(self._session.query(sql, output, params=dict(parameters)).bytes())

    def stream(
        self, sql: str, output: str, parameters: Mapping[str, str]
    ) -> Generator[bytes, None, None]:
        """Run a SELECT and yield its answer piece by piece, each a document of its own.

        Closing the generator ends the statement, once the engine has finished with a piece.
        """
        with _errors(self._name):
            pieces = self._session.send_query(sql, output, params=dict(parameters))
            try:
                for piece in pieces:
                    yield bytes(piece.bytes())
            finally:
                pieces.close()

    def close(self) -> None:
        """Let the connection go; the engine stays open."""
        self._session.close()


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """Turn the engine's errors into ours."""
    try:
        yield
    except RuntimeError as error:
        match = re.search(r"Code: (\d+)\.", str(error))
        code, text = (int(match[1]), match.string[match.start() :]) if match else (0, str(error))
        raise error_of(code, text, name) from error


def _plain_tsv(table: Table, rows: Sequence[RowTuple]) -> str:
    """Return a symbol's rows as TSV if nothing in them needs escaping, else an empty string.

    Which is nearly always so, and takes a third of the time of looking at each value.
    """
    if len(table.columns) != len(Row._fields):
        return ""
    text = "\n".join([f"{ts // 1000:010d}.{ts % 1000:03d}\t{mt}\t{m}" for ts, mt, m in rows])  # type: ignore[operator]
    separators = text.count("\t") == 2 * len(rows) and text.count("\n") == len(rows) - 1
    return text if separators and not any(c in text for c in "\\\r\0") else ""


def _tsv(table: Table, rows: Sequence[RowTuple]) -> str:
    times = [type_.startswith("DateTime64") for _, type_ in table.columns]
    return "\n".join(
        "\t".join(
            f"{value[:-3]}.{value[-3:]}" if is_time else value
            for value, is_time in zip(_texts(row), times, strict=True)
        )
        for row in rows
    )


def _texts(row: RowTuple) -> list[str]:
    """Return the values as TSV fields. Only ten digits before the point are always a time."""
    return [
        value.translate(_SPECIAL) if isinstance(value, str) else f"{value:013d}" for value in row
    ]


def _engine() -> Any:
    try:
        from chdb.session import Session
    except ImportError as error:
        raise StoreRejected(
            "the embedded engine is not installed: pip install 'mexc-trio[embedded]', or point "
            "--store at a server (clickhouse://user@host/mexc_data)"
        ) from error
    return Session


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
