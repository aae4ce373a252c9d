"""The ClickHouse engine in this process. The only module that knows chDB."""

import json
import re
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import attrs

from mexc_trio.errors import StoreError, StoreRejected, UsageError
from mexc_trio.locks import hold_file
from mexc_trio.store.schema import RowTuple, Table, error_of, qualified, quoted

DATABASE: Final = "mexc_data"

# The embedded engine is never older than these; see `insert_settings`.
_INSERT_SETTINGS: Final = "SETTINGS async_insert = 0, max_insert_threads = 1"

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
            self._session = session(str(self.directory))
        except RuntimeError as error:
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
        return [tuple(json.loads(line)) for line in answer.splitlines()]

    def append(self, table: Table, rows: Sequence[RowTuple]) -> None:
        """See `Store.append`. As text in the statement: for small batches nothing is faster."""
        names = ", ".join(quoted(name) for name in table.column_names)
        times = [type_.startswith("DateTime64") for _, type_ in table.columns]
        lines = [
            "\t".join(
                f"{value[:-3]}.{value[-3:]}" if is_time else value
                for value, is_time in zip(_texts(row), times, strict=True)
            )
            for row in rows
        ]
        self._run(
            f"INSERT INTO {qualified(self, table.name)} ({names}) "
            f"{_INSERT_SETTINGS} FORMAT TSV\n" + "\n".join(lines) + "\n",
            "TSV",
        )

    def incarnation(self) -> str:
        """See `Store.incarnation`."""
        return self._incarnation

    def close(self) -> None:
        """Close the engine and let the directory go."""
        with self._lock:
            self._session.close()

    def _run(self, sql: str, output: str) -> Any:
        try:
            return self._session.query(sql, output)
        except RuntimeError as error:
            match = re.match(r"\s*Code: (\d+)\.", str(error))
            raise error_of(int(match[1]) if match else 0, str(error), self.name) from error


def _texts(row: RowTuple) -> list[str]:
    """Return the values as TSV fields; a time has at least four digits, so it can be cut."""
    return [
        value.translate(_SPECIAL) if isinstance(value, str) else f"{value:04d}" for value in row
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
