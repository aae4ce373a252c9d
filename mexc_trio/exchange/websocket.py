"""A WebSocket to the exchange, closed in every case, whose every failure is one `ExchangeError`.

The only user of trio-websocket. Nurseries hand on errors in groups, and one end of a connection
makes several of them: here they become the one that says which end it was.
"""

import logging
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, NoReturn, Protocol, cast
from urllib.parse import urlsplit

import attrs
import trio
from h11 import ProtocolError
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    wrap_client_stream,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from mexc_trio.errors import ExchangeError, Loss, MexcTrioError, leaves, out_of_resources
from mexc_trio.exchange.unhurried import Unhurried
from mexc_trio.texts import one_line

# It logs every frame at DEBUG, even if nobody wants to see it.
logging.getLogger("trio-websocket").setLevel(logging.INFO)

CONNECT_TIMEOUT: Final = 15.0
"""Seconds for the look-up of the name, the connection, TLS and the handshake together."""
DISCONNECT_TIMEOUT: Final = 2.0
"""Seconds that a dead peer may take to say good-bye."""

# Bytes of one read. The library's default is a sixteenth of it, and as many more turns.
_BUFFER_SIZE: Final = 65536
# The library's default of 1 MiB would close the connection at a larger frame.
_MAX_FRAME: Final = 64 * 1024 * 1024


class Socket(Protocol):
    """An open WebSocket."""

    async def receive(self, handle: Callable[[str | bytes], None]) -> NoReturn:
        """Hand every frame on: text, or the bytes of a binary one. Ends with an error only."""

    async def send_message(self, message: str, /) -> None:
        """Send a text frame."""


@asynccontextmanager
async def dial(url: str, *, unhurried: bool = False) -> AsyncIterator[Socket]:
    """Open a WebSocket, and close it at the end of the block.

    Args:
        url: the exchange's socket.
        unhurried: read it a hundred times a second at the most; see `Unhurried`.

    Raises:
        ExchangeError: it could not be opened within `CONNECT_TIMEOUT`, or has ended.
    """
    deadline = trio.current_time() + CONNECT_TIMEOUT
    with _one_error(url):
        with trio.fail_at(deadline):
            stream = await _connect(url, unhurried=unhurried)
        async with speak(stream, url, deadline) as socket:
            yield socket


@asynccontextmanager
async def speak(stream: trio.abc.Stream, url: str, deadline: float) -> AsyncIterator[Socket]:
    """Open a WebSocket on a stream, and close both at the end of the block.

    The stream is made by the caller and closed here. The library would leave its own open when a
    handshake fails or a connection ends without a close frame: in months of reconnects, many.

    Args:
        stream: any stream to the exchange.
        url: what the exchange is asked for.
        deadline: when the handshake is to be done, on Trio's clock.

    Raises:
        ExchangeError: as in `dial`.
    """
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with _one_error(url):
            async with trio.open_nursery() as nursery:
                reader = _Reader(nursery, url)
                with trio.fail_at(deadline):
                    socket = await wrap_client_stream(
                        cast("trio.Nursery", reader),
                        cast("trio.SocketStream", stream),  # any stream will do
                        parts.netloc.rpartition("@")[2],
                        path,
                        max_message_size=_MAX_FRAME,
                        receive_buffer_size=_BUFFER_SIZE,
                    )
                reader.answered = True
                try:
                    yield _Direct(socket)
                finally:
                    with trio.move_on_after(DISCONNECT_TIMEOUT):
                        await socket.aclose()
                    nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


@attrs.define(eq=False)
class _Direct:
    """The library's connection, with frames handled where they are parsed.

    The library puts each frame into a memory channel, which costs two forced turns of Trio's wheel
    and two switches of tasks: 8.5 of the 38 microseconds that a frame took from the socket to the
    table. Handling a frame never waits, so nothing is lost by doing it in the library's reader: it
    reads no more before it is done.
    """

    connection: WebSocketConnection
    handle: Callable[[str | bytes], None] | None = None
    aclose: Callable[[], Awaitable[None]] = attrs.field(init=False)
    """Close the channel in whose place this stands."""

    async def receive(self, handle: Callable[[str | bytes], None]) -> NoReturn:
        self.handle = handle
        # The library offers no other way in. The channel is still what tells us of the end.
        channel = self.connection._send_channel  # noqa: SLF001
        self.aclose = channel.aclose
        self.connection._send_channel = cast("trio.MemorySendChannel[str | bytes]", self)  # noqa: SLF001
        try:
            while True:
                handle(await self.connection.get_message())  # what came before the line above
        finally:
            self.handle = None

    async def send(self, frame: str | bytes) -> None:
        """Take a frame in place of the channel."""
        if self.handle is None:
            return
        try:
            self.handle(frame)
        except KeyError as error:
            raise RuntimeError("a frame broke its handler") from error  # the reader eats KeyError

    async def send_message(self, message: str) -> None:
        await self.connection.send_message(message)


@attrs.define
class _Reader:
    """Stands in for the nursery in which the library starts its reader.

    The reader ends quietly when the exchange hangs up before it has answered the handshake, and
    nobody tells `wrap_client_stream`, which would wait for ever.
    """

    nursery: trio.Nursery
    url: str
    answered: bool = False

    def start_soon(self, read: Callable[..., Awaitable[None]], *args: Any) -> None:
        self.nursery.start_soon(self._run, read, *args)

    async def _run(self, read: Callable[..., Awaitable[None]], *args: Any) -> None:
        await read(*args)
        if not self.answered:
            raise ExchangeError(f"{self.url} hung up instead of answering the handshake")


async def _connect(url: str, *, unhurried: bool) -> trio.abc.Stream:
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme == "wss"
    try:
        tcp = await trio.open_tcp_stream(host, parts.port or (443 if secure else 80))
    except OSError as error:
        raise ExchangeError(f"cannot connect to {url}: {_why(error)}", _loss(error)) from error
    # Below TLS, which would give one message of the exchange at a time.
    transport = Unhurried(tcp) if unhurried else tcp
    if not secure:
        return transport
    try:
        stream = trio.SSLStream(
            transport, ssl.create_default_context(), server_hostname=host, https_compatible=True
        )
        await stream.do_handshake()
    except (trio.BrokenResourceError, OSError) as error:
        await trio.aclose_forcefully(tcp)
        why = _why(error.__cause__ or error)
        raise ExchangeError(f"TLS with {url} failed: {why}", _loss(error)) from error
    except BaseException:
        await trio.aclose_forcefully(tcp)
        raise
    return stream


_ENDS: Final = (
    MexcTrioError,
    ConnectionRejected,
    ConnectionClosed,
    # What the library thinks of a server that is none.
    LocalProtocolError,
    RemoteProtocolError,
    ProtocolError,  # what it fails with when it tells a server that is none that it is none
    trio.TooSlowError,
)


@contextmanager
def _one_error(url: str) -> Iterator[None]:
    """Replace whatever ended the connection by the one error that says why.

    What is no end of a connection, such as a cancellation, goes on without it.
    """
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
        raise ExchangeError(_reason(first, url), loss) from error


def _reason(error: BaseException, url: str) -> str:
    match error:
        case ConnectionClosed():
            closed = error.reason
            # 1006 is no code on the wire: the connection ended without a close frame.
            if closed is None or closed.code == 1006:
                return "connection lost without a close frame"
            said = f" ({one_line(closed.reason)})" if closed.reason else ""
            return f"closed by the exchange: {closed.code} {closed.name}{said}"
        case ConnectionRejected():
            return f"{url} answers HTTP {error.status_code} instead of a WebSocket"
        case trio.TooSlowError():
            return f"no connection to {url} within {CONNECT_TIMEOUT:g} s"
        case _:
            return f"{url} does not speak WebSocket: {one_line(str(error))}"


def _loss(error: BaseException) -> Loss:
    return Loss.NO_RESOURCES if out_of_resources(error) else Loss.NOT_CONNECTED


def _why(error: BaseException) -> str:
    """Return the operating system's words for why there is no connection."""
    # Trio tries every address of a name, and groups what it met.
    cause = leaves(error.__cause__)[0] if error.__cause__ else error
    text = (cause.strerror if isinstance(cause, OSError) else None) or str(cause)
    # "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"
    return one_line(re.sub(r" \(_ssl\.c:\d+\)", "", text)) or type(cause).__name__
