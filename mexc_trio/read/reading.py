"""How a command reads a store, whether or not a recorder has it open.

`open_reader` finds the way: through a running recorder's HTTP interface if one holds the
directory, by opening the directory itself if nobody does, or over a server's native protocol.
Whoever calls it need not know which, and gets the same values and the same bytes from each.
"""

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from mexc_trio.clickhouse.live import LiveStore, find
from mexc_trio.clickhouse.types import from_json, parse
from mexc_trio.errors import StoreLocked, UsageError
from mexc_trio.read import arrow
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget

if TYPE_CHECKING:
    import pyarrow as pa

    from mexc_trio.clickhouse.window import Window

STARTING: Final = 5.0
"""Seconds that a recorder may hold its directory before it can be asked."""

_JSON: Final = "JSONCompactEachRowWithNamesAndTypes"
_EXACT: Final = {
    "output_format_json_quote_64bit_integers": "0",
    "output_format_json_quote_decimals": "1",
    "output_format_json_quote_denormals": "1",
    "output_format_json_named_tuples_as_objects": "0",
}


class Reader(Protocol):
    """The read side of a store. Calls block; one at a time, a stream included."""

    @property
    def name(self) -> str:
        """What the user knows the store by, without secrets."""

    @property
    def database(self) -> str:
        """The database that holds the tables; names without a database are looked up there."""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows, all of them in memory.

        Values are int, Decimal, float, str, bool, date, datetime in UTC, list, tuple, dict, None.

        Raises:
            StoreError: it failed.
        """

    def stream(self, sql: str, format: str) -> Generator[bytes, None, None]:  # noqa: A002
        """Run one statement and yield its answer as one document in a format of ClickHouse.

        Closing the generator ends the statement.

        Raises:
            StoreError: it failed, perhaps in the middle; or the store cannot make the format.
        """

    def batches(self, sql: str) -> "Generator[pa.RecordBatch, None, None]":
        """Run a SELECT and yield its rows as batches of Arrow, at least one.

        Raises:
            StoreError: it failed, perhaps in the middle.
        """


@contextmanager
def open_reader(settings: Settings) -> Iterator[Reader]:
    """Open the store that the settings name for reading. Creates nothing.

    Raises:
        UsageError: there is no store in that directory.
        StoreLocked: something else has the directory, and cannot be asked.
        StoreError: the engine does not open the directory.
    """
    if isinstance(settings.store, EmbeddedTarget):
        with closing(_embedded(settings.store.directory)) as reader:
            yield reader
    else:
        from mexc_trio.clickhouse.serverreader import ServerReader

        with closing(ServerReader(settings.store)) as server:
            yield server


def refuse_no_store(directory: Path) -> None:
    """Raise UsageError for a directory in which no store was ever made."""
    if not directory.is_dir():
        raise UsageError(f"store {directory}: there is no such directory; see --store")
    if not (directory / "data").is_dir():
        raise UsageError(f"store {directory}: nothing was ever recorded there; see --store")


def _embedded(directory: Path) -> "EngineReader":
    refuse_no_store(directory)
    deadline = time.monotonic() + STARTING
    while True:
        live = find(directory)
        if live is not None:
            return EngineReader(f"store {directory}", live)
        # Here because the engine takes most of a second to load.
        from mexc_trio.clickhouse.embedded import EmbeddedStore
        from mexc_trio.clickhouse.window import Limits, Window

        try:
            store = EmbeddedStore(directory)
        except StoreLocked as error:
            # A recorder that starts or ends, or another command, which is soon done.
            if time.monotonic() > deadline:
                raise StoreLocked(
                    f"{error}; or, if it is a recorder, let it answer: see --listen"
                ) from error
            time.sleep(0.1)
            continue
        # Nobody records meanwhile, so a statement may take its time and its memory.
        window = Window(store, Limits(seconds=0, memory=0, document=0))
        return EngineReader(store.name, OpenedStore(window))


class Source(Protocol):
    """An embedded engine, in this process or in a recorder's."""

    def stream(
        self, sql: str, default_format: str, settings: Mapping[str, str]
    ) -> Generator[bytes, None, None]:
        """Run a statement and yield the bytes of its answer."""

    def close(self) -> None:
        """Let go of it."""


@attrs.define(eq=False)
class OpenedStore:
    """A store that this process has opened."""

    _window: "Window"

    def stream(
        self, sql: str, default_format: str, settings: Mapping[str, str]
    ) -> Generator[bytes, None, None]:
        """See `Source.stream`."""
        with closing(self._window.answer(sql, default_format, settings=settings)) as answer:
            yield from answer.pieces()

    def close(self) -> None:
        """See `Source.close`."""
        self._window.store.close()


@attrs.define(eq=False)
class EngineReader:
    """A reader of an embedded store."""

    name: str
    _source: "OpenedStore | LiveStore"
    database: str = "mexc_data"

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """See `Reader.query`."""
        with closing(self._source.stream(sql, _JSON, _EXACT)) as pieces:
            # Not splitlines(), which also splits at characters that a text may hold.
            lines = b"".join(pieces).decode("utf-8", "surrogateescape").split("\n")
        if len(lines) < 3:
            return []
        converts = [from_json(parse(type_)) for type_ in json.loads(lines[1])]
        return [_row(converts, json.loads(line)) for line in lines[2:] if line]

    def stream(self, sql: str, format: str) -> Generator[bytes, None, None]:  # noqa: A002
        """See `Reader.stream`."""
        yield from self._source.stream(sql, format, {})

    def batches(self, sql: str) -> "Generator[pa.RecordBatch, None, None]":
        """See `Reader.batches`."""
        with closing(self._source.stream(sql, arrow.ARROW_STREAM, {})) as pieces:
            yield from arrow.read(pieces)

    def close(self) -> None:
        """Let go of the store."""
        self._source.close()


def _row(converts: list[Callable[[Any], Any] | None], values: list[Any]) -> tuple[Any, ...]:
    return tuple(
        convert(value) if convert else value
        for convert, value in zip(converts, values, strict=True)
    )
