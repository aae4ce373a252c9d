"""An embedded store that a recorder has open, by way of its HTTP interface."""

import http.client
import re
import secrets
from collections.abc import Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

import attrs

from mexc_trio.clickhouse.error_codes import error_of
from mexc_trio.errors import StoreError, StoreUnavailable

ADDRESS: Final = "http.url"
"""The file in the store's directory that says where its recorder answers."""
CONNECT: Final = 5.0
SILENCE: Final = 3700.0
"""Seconds; longer than a recorder lets a statement run."""

_PIECE: Final = 2**18


def display_name(directory: Path) -> str:
    """Return what the recorder of a store calls itself, so that no other is taken for it."""
    return "mexc-trio " + quote(str(directory.resolve()))


def find(directory: Path) -> "LiveStore | None":
    """Return the recorder that has a store open, if there is one that answers."""
    try:
        url = (directory / ADDRESS).read_text("ascii").strip()
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 0
    except (OSError, ValueError):
        return None
    # A recorder that was killed leaves its file, and another program may have the port by now.
    connection = http.client.HTTPConnection(host, port, timeout=CONNECT)
    try:
        connection.request("GET", "/ping")
        answer = connection.getresponse()
        answer.read()
        if answer.getheader("X-ClickHouse-Server-Display-Name") != display_name(directory):
            return None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return LiveStore(f"store {directory}", host, port)


@attrs.define(eq=False)
class LiveStore:
    """A recorder that answers statements."""

    name: str
    _host: str
    _port: int

    def stream(
        self, sql: str, default_format: str, settings: Mapping[str, str]
    ) -> Generator[bytes, None, None]:
        """Run a statement and yield the bytes of its answer.

        Closing the generator closes the connection, which ends the statement.

        Raises:
            StoreUnavailable: the recorder went away.
            StoreError: the statement failed.
        """
        connection = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT)
        query = urlencode({"default_format": default_format, **settings})
        try:
            connection.connect()
            connection.sock.settimeout(SILENCE)
            connection.request("POST", f"/?{query}", sql.encode("utf-8", "surrogateescape"))
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise _error(answer.read().decode("utf-8", "replace"), self.name)
            yield from self._pieces(answer)
        except (OSError, http.client.HTTPException) as error:
            raise StoreUnavailable(
                f"{self.name}: its recorder ended in the middle of the answer"
            ) from error
        finally:
            connection.close()

    def close(self) -> None:
        """Do nothing: each statement has a connection of its own."""

    def _pieces(self, answer: http.client.HTTPResponse) -> Generator[bytes, None, None]:
        """Yield the body. A statement that fails in the middle says so at its end."""
        tag = answer.getheader("X-ClickHouse-Exception-Tag", secrets.token_hex())
        mark = f"\r\n__exception__\r\n{tag}\r\n".encode()
        held = b""
        while piece := answer.read1(_PIECE):
            held += piece
            before, found, error = held.partition(mark)
            if found:
                if before:
                    yield before
                with suppress(OSError, http.client.HTTPException):
                    error += answer.read()
                raise _error(error.decode("utf-8", "replace"), self.name)
            # The mark may come in two pieces.
            if len(held) > len(mark):
                yield held[: -len(mark)]
                held = held[-len(mark) :]
        if held:
            yield held


def _error(text: str, name: str) -> StoreError:
    match = re.search(r"Code: (\d+)\.", text)
    return error_of(int(match[1]) if match else 0, text, name)
