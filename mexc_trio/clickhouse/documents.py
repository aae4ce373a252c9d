"""Whole answers in one of ClickHouse's formats, over HTTP.

The native protocol brings values; what CSV, Parquet or a table for people look like is the server's
business, which it does over HTTP only.
"""

import http.client
import re
import secrets
import ssl
from collections.abc import Generator, Mapping
from contextlib import closing, suppress
from typing import Final
from urllib.parse import urlencode

from mexc_trio.clickhouse.error_codes import error_of
from mexc_trio.errors import StoreError, StoreRejected, StoreUnavailable
from mexc_trio.settings.targets import ServerTarget

CONNECT: Final = 5.0
SILENCE: Final = 3700.0
"""Seconds; longer than most servers let a statement run."""

_PIECE: Final = 2**18
_LONGEST_ERROR: Final = 2**20
"""Bytes of an error's text that are looked at."""


def stream(
    target: ServerTarget, name: str, sql: str, default_format: str, settings: Mapping[str, object]
) -> Generator[bytes, None, None]:
    """Run a statement and yield the bytes of its answer; closing the generator ends it.

    `name` is what the user knows the server by, `default_format` the answer's unless the statement
    names one itself. Raises StoreUnavailable if the server cannot be reached, or went away,
    StoreError if TLS cannot be set up or the statement failed, perhaps in the middle of the answer.
    """
    try:
        connection = _connection(target)
    except OSError as error:  # certificates that are none
        raise StoreRejected(f"{name}: TLS cannot be set up ({error}); see --store") from error
    query = {"default_format": default_format, "database": target.database, **settings}
    user = {"X-ClickHouse-User": target.user, "X-ClickHouse-Key": target.password}
    headers = {key: value.encode() for key, value in user.items()}
    body = sql.encode("utf-8", "surrogateescape")
    try:
        try:
            connection.connect()
        except OSError as error:
            raise StoreUnavailable(
                f"{name} does not answer HTTP on port {target.http_port} ({error}); is it another "
                f"one? clickhouse://...?http_port=8123"
            ) from error
        connection.sock.settimeout(SILENCE)
        connection.request("POST", f"/?{urlencode(query)}", body, headers)
        # Closed by itself: the answer has the socket where the server is to close the connection.
        with closing(connection.getresponse()) as answer:
            if answer.status != http.client.OK:
                raise _error(answer.read(_LONGEST_ERROR).decode("utf-8", "replace"), name, target)
            yield from _pieces(answer, name, target)
    except (OSError, http.client.HTTPException) as error:
        raise StoreUnavailable(f"{name} went away in the middle of the answer") from error
    finally:
        connection.close()


def _connection(target: ServerTarget) -> http.client.HTTPConnection:
    if not target.secure:
        return http.client.HTTPConnection(target.host, target.http_port, timeout=CONNECT)
    options = target.options
    context = ssl.create_default_context(cafile=_text(options, "ca_certs"))
    if not options.get("verify", True):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate := _text(options, "certfile"):
        context.load_cert_chain(certificate, _text(options, "keyfile"))
    return http.client.HTTPSConnection(
        target.host, target.http_port, timeout=CONNECT, context=context
    )


def _text(options: Mapping[str, object], name: str) -> str | None:
    return str(options[name]) if name in options else None


def _pieces(
    answer: http.client.HTTPResponse, name: str, target: ServerTarget
) -> Generator[bytes, None, None]:
    """Yield the body. A statement that fails in the middle says so at its end."""
    tag = answer.getheader("X-ClickHouse-Exception-Tag", secrets.token_hex())
    mark = f"\r\n__exception__\r\n{tag}\r\n".encode()
    tail = b""
    while piece := answer.read1(_PIECE):
        tail += piece
        before, found, error = tail.partition(mark)
        if found:
            if before:
                yield before
            with suppress(OSError, http.client.HTTPException):
                error += answer.read(_LONGEST_ERROR)
            raise _error(error.decode("utf-8", "replace"), name, target)
        # The mark may come in two pieces.
        if len(tail) > len(mark):
            yield tail[: -len(mark)]
            tail = tail[-len(mark) :]
    if tail:
        yield tail


def _error(text: str, name: str, target: ServerTarget) -> StoreError:
    text = re.sub(r" \(version [^()]*\)", "", text)
    match = re.search(r"Code: (\d+)\.", text)
    code = int(match[1]) if match else 0
    return error_of(code, text, name, target.user)
