"""Reading from a ClickHouse server, so that it answers as an embedded store does.

Over the native protocol a server sends values, so documents are made of them here.
"""

import re
from collections.abc import Generator
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import attrs

from mexc_trio.clickhouse.schema import version_number
from mexc_trio.clickhouse.server import Block, ServerStore
from mexc_trio.clickhouse.types import Convert, from_driver, parse
from mexc_trio.errors import StoreRejected
from mexc_trio.read import arrow, render
from mexc_trio.settings.targets import ServerTarget

if TYPE_CHECKING:
    import pyarrow as pa

_SESSION_TIMEZONE: Final = (23, 6)
"""The first server that has the setting."""
_OWN_FORMAT: Final = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)


class ServerReader:
    """A reader of a server. It may write nothing, whatever its user may."""

    def __init__(self, target: ServerTarget) -> None:
        # The driver's other way of making times depends on where the server is.
        options: Any = {**target.options, "settings": {"use_client_time_zone": True}}
        self._store = ServerStore(attrs.evolve(target, options=options), 1)

    @property
    def name(self) -> str:
        """See `Reader.name`."""
        return self._store.name

    @property
    def database(self) -> str:
        """See `Reader.database`."""
        return self._store.database

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """See `Reader.query`."""
        with closing(self._blocks(sql)) as blocks:
            next(blocks)
            return [row for block in blocks for row in block]

    def stream(self, sql: str, format: str) -> Generator[bytes, None, None]:  # noqa: A002
        """See `Reader.stream`."""
        # The server hears nothing of formats, and drops the clause.
        own = _OWN_FORMAT.search(sql)
        name = own[1] if own else format
        if not arrow.is_arrow(name) and not render.can(name):
            raise StoreRejected(
                f"format {name} cannot be made of a server's answer; these can: "
                f"{', '.join([*render.NAMES, arrow.PARQUET, arrow.ARROW_STREAM])}"
            )
        with closing(self._blocks(sql)) as blocks:
            columns = next(blocks)
            if arrow.is_arrow(name):
                yield from arrow.write(name, arrow.from_rows(blocks, columns))
            else:
                yield from render.write(name, columns, blocks)

    def batches(self, sql: str) -> "Generator[pa.RecordBatch, None, None]":
        """See `Reader.batches`."""
        with closing(self._blocks(sql)) as blocks:
            columns = next(blocks)
            yield from arrow.from_rows(blocks, columns)

    def close(self) -> None:
        """Close the connection."""
        self._store.close()

    def _blocks(self, sql: str) -> Generator[Block, None, None]:
        """Yield the columns and then the rows, with the values that every reader has."""
        with closing(self._store.blocks(sql, self._settings)) as blocks:
            columns = next(blocks)
            yield columns
            converts = [from_driver(parse(type_)) for _, type_ in columns]
            plain = not any(converts)
            for block in blocks:
                yield block if plain else [_row(converts, row) for row in block]

    @cached_property
    def _settings(self) -> dict[str, int | str]:
        found = self._store.query(
            "SELECT version(), value FROM system.settings WHERE name = 'readonly'"
        )
        version, readonly = found[0]
        if readonly == "1":
            return {}  # a user who may change no setting; times are in the server's zone
        settings: dict[str, int | str] = {}
        if version_number(str(version)) >= _SESSION_TIMEZONE:
            settings["session_timezone"] = "UTC"
        if readonly == "0":
            settings["readonly"] = 2
        return settings


def _row(converts: list[Convert | None], row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        convert(value) if convert else value for convert, value in zip(converts, row, strict=True)
    )
