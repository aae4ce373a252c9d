"""One connection to the exchange, from its handshake to its end. The only user of trio-websocket.

Whatever ends it leaves as one `ExchangeError` whose reason says which: a handshake that hangs, a
missing acknowledgement or pong, a silent channel, a close.
"""

import logging
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, NoReturn, Protocol
from urllib.parse import urlsplit

import attrs
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from mexc_trio import wire
from mexc_trio.errors import ExchangeError, MexcTrioError, UnknownContract, leaves
from mexc_trio.liveness import Pulse
from mexc_trio.rows import CHANNELS, Channel

log = logging.getLogger(__name__)
# It logs every frame at DEBUG, even if nobody wants to see it.
logging.getLogger("trio-websocket").setLevel(logging.INFO)

CONNECT_TIMEOUT: Final = 15.0
"""Seconds for the connection and the handshake."""
DISCONNECT_TIMEOUT: Final = 2.0
"""Seconds that a dead peer may take to say good-bye."""
ACK_TIMEOUT: Final = 10.0
"""Seconds in which a subscription is to be acknowledged."""
PONG_TIMEOUT: Final = 10.0
"""Seconds in which a ping is to be answered."""
SUBSCRIBE_PAUSE: Final = 0.15
"""Seconds between the subscriptions of two symbols: 20 requests a second were fine (measured)."""
WATCH_INTERVAL: Final = 5.0
"""Seconds between two looks at the silence of the channels."""
CLOCK_JUMP: Final = 10.0
"""Seconds by which the wall clock may run ahead of Trio's before the machine must have slept."""

# Frames that wait in memory between the socket's reader and our loop, and bytes of one read: twice
# the throughput of the library's defaults (measured).
_QUEUE_SIZE: Final = 256
_BUFFER_SIZE: Final = 65536
# The library's default of 1 MiB would close the connection at a larger frame.
_MAX_FRAME: Final = 64 * 1024 * 1024

Dial = Callable[[str], AbstractAsyncContextManager[WebSocketConnection]]


class Feed(Protocol):
    """Where a symbol's messages go."""

    @property
    def symbol(self) -> str:
        """The contract, as the exchange writes it."""

    @property
    def pulses(self) -> Mapping[Channel, Pulse]:
        """The rhythm of each channel."""

    def data(self, message: wire.Data) -> None:
        """Take the rows of a frame."""

    def skipped(self) -> None:
        """Count a frame that holds nothing to record."""

    def silent(self, channel: Channel, seconds: float) -> None:
        """Note that a channel has been silent for longer than is usual for it."""

    def refused(self, error: UnknownContract) -> None:
        """Stop: the exchange does not list the symbol."""


@asynccontextmanager
async def dial(url: str) -> AsyncIterator[WebSocketConnection]:
    """Open the connection and, at the end, close it within `DISCONNECT_TIMEOUT`.

    The stream is opened here and not by the library, which leaves it open when a connection ends
    without a close frame or a handshake fails: in months of reconnects that would be many.
    """
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    with trio.fail_after(CONNECT_TIMEOUT):
        stream = await _open_stream(url)
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(CONNECT_TIMEOUT):
                socket = await wrap_client_stream(
                    nursery,
                    stream,
                    parts.netloc.rpartition("@")[2],
                    path,
                    message_queue_size=_QUEUE_SIZE,
                    max_message_size=_MAX_FRAME,
                    receive_buffer_size=_BUFFER_SIZE,
                )
            try:
                yield socket
            finally:
                with trio.move_on_after(DISCONNECT_TIMEOUT):
                    await socket.aclose()
                nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


async def _open_stream(url: str) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "ws":
        return await trio.open_tcp_stream(host, parts.port or 80)
    stream = await trio.open_ssl_over_tcp_stream(host, parts.port or 443, https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def converse(
    url: str, feeds: Sequence[Feed], ping_interval: float, dial: Dial = dial
) -> NoReturn:
    """Connect, subscribe to all channels of the feeds' symbols and hand on what comes.

    Args:
        url: the exchange's socket.
        feeds: one for each symbol on this connection.
        ping_interval: seconds between pings.
        dial: opens the connection.

    Raises:
        ExchangeError: the connection could not be made or has ended.
    """
    try:
        async with dial(url) as socket, trio.open_nursery() as nursery:
            session = _Session(socket, {feed.symbol: feed for feed in feeds}, ping_interval)
            nursery.start_soon(session.subscribe)
            nursery.start_soon(session.heartbeat)
            nursery.start_soon(session.watch)
            await session.receive()
    except Exception as error:
        raise _translated(error, url) from error
    raise AssertionError("receive() never returns")  # pragma: no cover


@attrs.define(eq=False)
class _Session:
    _socket: WebSocketConnection
    _feeds: Mapping[str, Feed]
    _ping_interval: float
    # Who waits for an acknowledgement, oldest first: the exchange answers in the order of the
    # requests and does not say for which symbol.
    _unacknowledged: dict[Channel, deque[str]] = attrs.field(
        factory=lambda: {channel: deque() for channel in CHANNELS}
    )
    _all_acknowledged: trio.Event = attrs.field(factory=trio.Event)
    _pong: trio.Event = attrs.field(factory=trio.Event)

    async def subscribe(self) -> None:
        """Subscribe to everything and see it acknowledged."""
        began = trio.current_time()
        for number, feed in enumerate(self._feeds.values()):
            for pulse in feed.pulses.values():
                pulse.connected(began + number * SUBSCRIBE_PAUSE)
        for number, symbol in enumerate(self._feeds):
            if number:
                await trio.sleep(SUBSCRIBE_PAUSE)
            for channel in CHANNELS:
                await self._ask(symbol, channel)
        with trio.move_on_after(ACK_TIMEOUT):
            await self._all_acknowledged.wait()
            return
        for channel, symbols in self._unacknowledged.items():
            if symbols:
                raise ExchangeError(
                    f"no acknowledgement of {wire.method(channel)} for {symbols[0]} "
                    f"within {ACK_TIMEOUT:g} s"
                )

    async def heartbeat(self) -> None:
        """Ping, and insist on the answer."""
        wall, steady = time.time(), trio.current_time()
        while True:
            self._pong = trio.Event()
            await self._socket.send_message(wire.PING)
            timeout = min(PONG_TIMEOUT, self._ping_interval)
            with trio.move_on_after(timeout) as scope:
                await self._pong.wait()
            if scope.cancelled_caught:
                raise ExchangeError(f"no pong within {timeout:g} s")
            await trio.sleep(max(0, self._ping_interval - (trio.current_time() - steady)))
            # A machine that slept has lost the connection, and would learn it minutes later.
            slept = (time.time() - wall) - (trio.current_time() - steady)
            wall, steady = time.time(), trio.current_time()
            if slept > CLOCK_JUMP:
                raise ClockJumped(slept)

    async def watch(self) -> None:
        """Answer silence of a channel: subscribe again, then give the connection up."""
        while True:
            await trio.sleep(WATCH_INTERVAL)
            now = trio.current_time()
            for symbol, feed in self._feeds.items():
                for channel, pulse in feed.pulses.items():
                    if pulse.give_up(now):
                        raise ExchangeError(
                            f"{channel} of {symbol} silent for {pulse.silence(now):.0f} s, "
                            f"and subscribing again did not help"
                        )
                    if pulse.subscribe_again(now):
                        feed.silent(channel, pulse.silence(now))
                        await self._ask(symbol, channel)

    async def receive(self) -> NoReturn:
        """Decode every frame and hand it to its symbol's feed."""
        get_message = self._socket.get_message
        feeds = self._feeds
        now_ms = time.time
        decode = wire.decode
        while True:
            frame = await get_message()
            received = int(now_ms() * 1000)
            message = decode(frame, received)
            if isinstance(message, wire.Data):
                feed = feeds.get(message.symbol)
                if feed is None:
                    feed, message = self._astray(frame, message, received)
                if message.rows:
                    if message.channel is not None:
                        feed.pulses[message.channel].beat(trio.current_time())
                    feed.data(message)
                else:
                    feed.skipped()
            else:
                self._answered(message)

    def _astray(
        self, frame: str | bytes, message: wire.Data, received: int
    ) -> tuple[Feed, wire.Data]:
        """Choose a feed for a push that names none of our symbols: nothing is thrown away."""
        feed = next(iter(self._feeds.values()))
        if not message.symbol and len(self._feeds) == 1:
            return feed, message
        return feed, wire.dead_letter(frame, message.symbol, received)

    def _answered(self, message: wire.Ack | wire.Pong | wire.Refusal | wire.Skipped) -> None:
        match message:
            case wire.Pong():
                self._pong.set()
            case wire.Ack(channel):
                if self._unacknowledged[channel]:
                    symbol = self._unacknowledged[channel].popleft()
                    log.info("Subscribed to: %s for %s", wire.method(channel), symbol)
                self._look_for_all()
            case wire.Refusal(text):
                unknown = message.unknown_contract
                if unknown is None:
                    raise ExchangeError(f"the exchange says: {text[:200]}")
                self._refuse(unknown)
            case wire.Skipped():
                next(iter(self._feeds.values())).skipped()

    def _refuse(self, symbol: str) -> None:
        """Take a symbol that does not exist off this connection."""
        if not symbol:  # the wording of the documentation names none: it is the oldest request
            waiting = [symbols[0] for symbols in self._unacknowledged.values() if symbols]
            symbol = waiting[0] if waiting else next(iter(self._feeds))
        for symbols in self._unacknowledged.values():
            if symbol in symbols:
                symbols.remove(symbol)
        if symbol in self._feeds:
            self._feeds[symbol].refused(UnknownContract(symbol))
        self._look_for_all()

    def _look_for_all(self) -> None:
        if not any(self._unacknowledged.values()):
            self._all_acknowledged.set()

    async def _ask(self, symbol: str, channel: Channel) -> None:
        self._unacknowledged[channel].append(symbol)
        await self._socket.send_message(wire.subscribe(symbol, channel))


class ClockJumped(ExchangeError):  # noqa: N818 - as its siblings in mexc_trio.errors
    """The machine slept, or its clock was set forward; the connection is renewed."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the clock jumped by {seconds:.0f} s, as after a suspend")


def _translated(error: Exception, url: str) -> Exception:
    """Return the one error that says why the connection ended."""
    found = leaves(error)
    for kind in (MexcTrioError, ConnectionClosed, HandshakeError):
        # Ours first; then a close, whose group may hold several complaints about one end.
        for leaf in found:
            if isinstance(leaf, kind):
                return (
                    leaf if isinstance(leaf, MexcTrioError) else ExchangeError(_reason(leaf, url))
                )
    for leaf in found:
        if isinstance(leaf, _NETWORK):
            return ExchangeError(_reason(leaf, url))
    return error


_NETWORK: Final = (
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
    ssl.SSLError,
    # What a server that is none answers to the handshake.
    LocalProtocolError,
    RemoteProtocolError,
)


def _reason(error: BaseException, url: str) -> str:
    match error:
        case ConnectionClosed():
            closed = error.reason
            if closed is None:
                return "connection lost"
            said = f" ({closed.reason})" if closed.reason else ""
            # 1006 is no code on the wire: the connection ended without a close frame.
            return (
                "connection lost without a close frame"
                if closed.code == 1006
                else f"closed by the exchange: {closed.code} {closed.name}{said}"
            )
        case trio.TooSlowError():
            return f"no connection to {url} within {CONNECT_TIMEOUT:g} s"
        case ConnectionRejected():
            return f"{url} answers HTTP {error.status_code} instead of a WebSocket"
        case HandshakeError():
            cause = error.__cause__
            what = f"{cause}" if cause else f"{error}"
            return f"cannot connect to {url}: {_one_line(what) or type(cause or error).__name__}"
        case LocalProtocolError() | RemoteProtocolError():
            return f"{url} does not speak WebSocket: {_one_line(str(error))}"
        case ssl.SSLError():
            return f"TLS with {url} failed: {_one_line(str(error))}"
        case _:
            return _one_line(str(error)) or type(error).__name__


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
