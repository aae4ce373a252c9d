"""clickhouse-driver as it is used here: quick at small INSERTs. The only module that knows it.

With 1,200 tables a recorder makes 150 INSERTs a second of a few rows each. As the library makes one
it pings, sends the statement, awaits the columns' types, and sends the rows and their end. Here a
connection that has just answered is not asked whether it lives, and columns are packed at once. The
types are awaited each time, although they are known: see `inserting` in `schema`.
"""

import functools
import logging
import math
import os
import re
import struct
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

# Or the library makes a table of all days of four centuries, twice, when it is imported: a third of
# what the start of a command takes, and 30 MB. With any value it looks up a day when one is read.
os.environ["CLICKHOUSE_DRIVER_LASY_DATE_LUT"] = "lazy"
from clickhouse_driver import Client
from clickhouse_driver.block import BlockInfo, ColumnOrientedBlock
from clickhouse_driver.errors import Error, LogicalError, ServerException, TypeMismatchError
from clickhouse_driver.protocol import ClientPacketTypes
from clickhouse_driver.result import QueryInfo
from clickhouse_driver.varint import write_varint
from clickhouse_driver.writer import write_binary_str

from mexc_trio.settings.targets import ServerTarget

# It logs a traceback for each connection that fails, which in an outage is one every few seconds.
# What was wrong is in the error.
logging.getLogger("clickhouse_driver").setLevel(logging.ERROR)

__all__ = [
    "DriverClient",
    "Error",
    "LogicalError",
    "ServerException",
    "TypeMismatchError",
    "calls_of_the_driver",
]

# Seconds. Each bounds one wait on the socket, so no call hangs: an INSERT that nobody answers
# ends after SEND_RECEIVE_TIMEOUT with an unknown outcome, which the writer then looks up.
CONNECT_TIMEOUT: Final = 5
SEND_RECEIVE_TIMEOUT: Final = 10
SYNC_REQUEST_TIMEOUT: Final = 5

FRESH: Final = 1.0
"""Seconds for which a connection that has answered is used again without asking whether it lives.
If it does not, the statement fails, where the library would have connected anew; no row of an
INSERT is sent before the server has answered it."""

REVISION: Final = 54_450
"""The revision of the native protocol that is spoken, of the year 2021. From the next one on, a
server adds all its counters to the answer of each INSERT, and the library waits for them and
takes them apart: half of the processor time of a small INSERT, for what nobody looks at."""

_Writer = Callable[[Sequence[Any], Any], None]
_ENUM: Final = re.compile(r"Enum8\((?:'\w+' = \d+(?:, )?)+\)")
_INTEGERS: Final = re.compile(r"DateTime64\(.*\)|U?Int64")


@functools.cache
def _writer(type_: str) -> _Writer | None:
    """Return what writes a column of a type as it is sent; None for one that the library writes.

    The library looks at each value twice: twice the processor time of an INSERT of many rows.
    """
    if type_ == "String":
        return lambda items, out: out.write_strings(items, encoding="utf-8")
    if _INTEGERS.fullmatch(type_):
        code = "Q" if type_.startswith("U") else "q"
        return lambda items, out: out.write(struct.pack(f"<{len(items)}{code}", *items))
    if _ENUM.fullmatch(type_):
        codes = {name: int(code) for name, code in re.findall(r"'(\w+)' = (\d+)", type_)}
        return lambda items, out: out.write(bytes(map(codes.__getitem__, items)))
    return None


class DriverClient(Client):  # type: ignore[misc] # the library has no types
    """A connection to a server, for one thread at a time."""

    def __init__(self, target: ServerTarget) -> None:
        """See `ServerTarget`."""
        options: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT,
            "send_receive_timeout": SEND_RECEIVE_TIMEOUT,
            "sync_request_timeout": SYNC_REQUEST_TIMEOUT,
            **target.options,
        }
        super().__init__(
            host=target.host,
            port=target.port,
            user=target.user,
            password=target.password,
            secure=target.secure,
            client_name="mexc-trio",
            client_revision=REVISION,
            # No default database: ours may have to be created first.
            database="",
            **options,
        )
        self._answered_at = -math.inf

    def execute(self, query: str, *arguments: Any, **options: Any) -> Any:
        """Run a statement and return its answer."""
        answer = super().execute(query, *arguments, **options)
        self._answered_at = time.monotonic()
        return answer

    def establish_connection(self, settings: Mapping[str, int | str] | None) -> None:
        """Have a connection that works; the library calls it before each statement."""
        if self.connection.connected and time.monotonic() - self._answered_at < FRESH:
            self.make_query_settings(settings)
            self.connection.check_query_execution()
            self.last_query = QueryInfo()
        else:
            super().establish_connection(settings)

    def send_data(self, sample_block: Any, data: Sequence[Any], **options: Any) -> int:
        """Send an INSERT's rows and their end; the library calls it."""
        names, types = zip(*sample_block.columns_with_types, strict=True)
        writers = [writer for type_ in types if (writer := _writer(type_)) is not None]
        sizes = {len(items) for items in data}
        is_plain = len(writers) == len(types) == len(data) and len(sizes) == 1
        if not is_plain or not options.get("columnar") or self.connection.compression:
            return int(super().send_data(sample_block, data, **options))
        connection, out, (number,) = self.connection, self.connection.fout, sizes
        write_varint(ClientPacketTypes.DATA, out)
        write_binary_str("", out)
        BlockInfo().write(out)
        write_varint(len(types), out)
        write_varint(number, out)
        for name, type_, write, items in zip(names, types, writers, data, strict=True):
            write_binary_str(name, out)
            write_binary_str(type_, out)
            try:
                write(items, out)
            except (KeyError, TypeError, struct.error) as error:
                raise TypeMismatchError(f"a value of {name} is no {type_}: {error}") from error
        connection.send_data(ColumnOrientedBlock())  # which sends the rows as well
        return number


def calls_of_the_driver(error: BaseException) -> set[str]:
    """Return the functions of the driver that an error has come through."""
    return {
        frame.f_code.co_name
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").startswith("clickhouse_driver.")
    }
