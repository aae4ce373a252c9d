"""A WebSocket to the exchange, closed in every case, by the only user of trio-websocket.

Nurseries hand on errors in groups, and one end of a connection makes several of them: here they
become the one `ExchangeError` that says which end it was.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final, NoReturn, cast
from urllib.parse import urlsplit

import attrs
import trio
from h11 import ProtocolError
from trio_util import AsyncBool
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    wrap_client_stream,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from mexc_trio.errors import ExchangeError, Loss, MexcTrioError, leaves, loss_of, reason_of
from mexc_trio.exchange.frames import LONGEST
from mexc_trio.exchange.peeling import PeelingStream, Take
from mexc_trio.exchange.throttled import Throttled
from mexc_trio.exchange.tls import open_tls
from mexc_trio.texts import one_line

CONNECT_TIMEOUT: Final = 15.0
"""Seconds for the look-up of the name, the connection, TLS and the handshake together."""
DISCONNECT_TIMEOUT: Final = 2.0
"""Seconds that a dead peer may take to say good-bye."""

# Bytes of one read: as many frames as the journal writes at once. The library's default is a
# twenty-fourth of it, and as many more turns; from 128 KiB on each read's memory is mapped anew.
_BUFFER_SIZE: Final = 98304

Connect = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Connects to a port of a host, by whatever way. Raises OSError or ExchangeError."""


@attrs.define(eq=False)
class Socket:
    """An open WebSocket, of which the library sees what is not peeled off."""

    _connection: WebSocketConnection
    _stream: PeelingStream

    async def receive(self, take: Take) -> NoReturn:
        """Hand on the messages of each read, texts and binary ones alike, as their bytes.

        Nothing is read before this is called. It ends with an error only; what comes after that is
        not heard.
        """
        self._stream.listen(take)
        try:
            while True:  # what the library has put together
                message = await self._connection.get_message()
                take([message.encode() if isinstance(message, str) else message])
        finally:
            self._stream.listen(_ignore)

    async def send_message(self, message: str) -> None:
        """Send a text frame."""
        await self._connection.send_message(message)


def _ignore(messages: Sequence[bytes]) -> None:
    """Take messages that nobody waits for."""


@asynccontextmanager
async def dial(
    url: str,
    *,
    throttled: bool = False,
    connect: Connect = trio.open_tcp_stream,
    paused: AsyncBool | None = None,
) -> AsyncIterator[Socket]:
    """Open a WebSocket, over TLS if the URL says so, and close it at the end of the block.

    `throttled` reads it fifty times a second at the most. While `paused` is true nothing is
    dialled or read, since what came could not be kept. Raises ExchangeError if it cannot be opened
    within `CONNECT_TIMEOUT`, or has ended.
    """
    if paused is not None:
        await paused.wait_value(False)
    deadline = trio.current_time() + CONNECT_TIMEOUT
    with _one_error(url), trio.fail_at(deadline):
        stream = await _connect(url, connect, throttled=throttled)
    async with speak(stream, url, deadline, paused) as socket:
        yield socket


@asynccontextmanager
async def speak(
    stream: trio.abc.Stream, url: str, deadline: float, paused: AsyncBool | None = None
) -> AsyncIterator[Socket]:
    """Open a WebSocket on a stream, and close both at the end of the block; see `dial`.

    The handshake is to be done at the deadline, by Trio's clock.

    The stream is made by the caller and closed here. The library would leave its own open when a
    handshake fails or a connection ends without a close frame: in months of reconnects, many.
    """
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    peeling = PeelingStream(stream, url, paused or AsyncBool())
    try:
        with _one_error(url, peeling):
            async with trio.open_nursery() as nursery:
                with trio.fail_at(deadline):
                    connection = await wrap_client_stream(
                        nursery,
                        cast("trio.SocketStream", peeling),  # any stream will do
                        parts.netloc.rpartition("@")[2],
                        path,
                        max_message_size=LONGEST,
                        receive_buffer_size=_BUFFER_SIZE,
                    )
                try:
                    yield Socket(connection, peeling)
                finally:
                    peeling.listen(_ignore)  # the library waits for the other side's good-bye
                    with trio.move_on_after(DISCONNECT_TIMEOUT):
                        await connection.aclose()
                    nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


async def _connect(url: str, connect: Connect, *, throttled: bool) -> trio.abc.Stream:
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme == "wss"
    try:
        transport = await connect(host, parts.port or (443 if secure else 80))
    except OSError as error:
        raise ExchangeError(
            f"cannot connect to {url}: {reason_of(error)}", loss_of(error)
        ) from error
    # Below TLS, so that what has gathered is decrypted together.
    stream = Throttled(transport) if throttled else transport
    if not secure:
        return stream
    try:
        return await open_tls(stream, host)
    except BaseException as error:
        await trio.aclose_forcefully(transport)
        if isinstance(error, (trio.BrokenResourceError, OSError)):
            why = f"TLS with {url} failed: {reason_of(error)}"
            raise ExchangeError(why, loss_of(error)) from error
        raise


_ENDS: Final = (
    MexcTrioError,
    ConnectionRejected,
    ConnectionClosed,
    # Of something that is no WebSocket server.
    LocalProtocolError,
    RemoteProtocolError,
    ProtocolError,  # raised while the library tells such a one what is wrong
    trio.TooSlowError,
)


@contextmanager
def _one_error(url: str, stream: PeelingStream | None = None) -> Iterator[None]:
    """Replace what ended the connection, but no cancellation, by the one error that says why."""
    try:
        yield
    except BaseException as error:
        group = error if isinstance(error, BaseExceptionGroup) else BaseExceptionGroup("", [error])
        ends, rest = group.split(_ENDS)
        if ends is None:
            raise
        if rest is not None:
            raise rest from None
        found = leaves(ends)
        # Ours say most; a close makes several complaints about one end.
        first = next(leaf for kind in _ENDS for leaf in found if isinstance(leaf, kind))
        if isinstance(first, MexcTrioError):
            raise first from None
        loss = Loss.CLOSED if isinstance(first, ConnectionClosed) else Loss.NOT_CONNECTED
        raise ExchangeError(_reason(first, url, stream), loss) from error


def _reason(error: BaseException, url: str, stream: PeelingStream | None) -> str:
    match error:
        case ConnectionClosed():
            closed = error.reason
            # 1006 is no code on the wire: the connection ended without a close frame.
            if closed is None or closed.code == 1006:
                return "connection lost without a close frame"
            said = one_line(closed.reason) if closed.reason else ""
            if closed.code == 1009:  # it is the library that says so; what we send is short
                return f"the exchange sent a message of more than {LONGEST:,} bytes"
            if stream is not None and not stream.said_goodbye:  # so there was none to answer
                return f"the exchange does not keep to the protocol: {said or closed.name}"
            return f"closed by the exchange: {closed.code} {closed.name}{said and f' ({said})'}"
        case ConnectionRejected():
            elsewhere = dict(error.headers or ()).get(b"location", b"").decode("latin-1")
            if elsewhere and 300 <= error.status_code < 400:
                return f"{url} redirects to {one_line(elsewhere)}; give that as --url"
            return f"{url} answers HTTP {error.status_code} instead of a WebSocket"
        case trio.TooSlowError():
            return f"no connection to {url} within {CONNECT_TIMEOUT:g} s"
        case _:
            return f"{url} does not speak WebSocket: {one_line(str(_complaint(error)))}"


def _complaint(error: BaseException) -> BaseException:
    """Return what the library wanted to complain about when it failed to tell the other side."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, RemoteProtocolError):
        found = found.__context__
    return found or error
