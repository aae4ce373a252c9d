"""One accepted connection: its byte stream, its frames on the wire, its subscriptions."""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs
import trio

if TYPE_CHECKING:
    from trio_websocket import WebSocketConnection

    from tools.market import Channel

CLOSE_SECONDS: Final = 2
"""How long a client may take to answer a close frame."""
_LATE: Final = 100_000  # writes that wait at the most; the oldest are lost
_LATE_PAUSE: Final = 0.002  # seconds


@attrs.define(eq=False)
class Wire(trio.abc.Stream):
    """A connection's byte stream, written to by trio-websocket and by the exchange itself.

    trio-websocket writes the handshake, pongs of the WebSocket kind and close frames; the
    exchange writes its own frames past it, many in one write, which is what makes thousands of
    frames a second affordable. Each write is whole frames and holds the lock, so that the two
    never mix. ``split`` writes every byte by itself. ``handshake`` is the scope of the handshake,
    which trio-websocket would go on waiting for when the client has left.
    """

    stream: trio.abc.Stream
    split: bool
    lock: trio.StrictFIFOLock = attrs.field(factory=trio.StrictFIFOLock)
    handshake: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write while holding the lock."""
        if self.split:
            for i in range(len(data)):
                await self.stream.send_all(data[i : i + 1])
        else:
            await self.stream.send_all(data)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write whole frames, not in the middle of others'."""
        async with self.lock:
            await self.write(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait as the stream does."""
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Read, and give the handshake up when the client has left."""
        data: bytes | bytearray = b""
        try:
            data = await self.stream.receive_some(max_bytes)
        finally:
            if not data:
                self.handshake.cancel()
        return data

    async def aclose(self) -> None:
        """Close the stream."""
        await self.stream.aclose()

    async def abort(self, *, reset: bool) -> None:
        """Close without a close frame; with a TCP reset where there is TCP."""
        if reset and isinstance(self.stream, trio.SocketStream):
            # Lingering for zero seconds is how a socket is told to reset when it is closed.
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(self.stream)


def websocket_frame(payload: str | bytes) -> bytes:
    """Frame a message as a server does: unmasked, in one piece (RFC 6455, section 5.2)."""
    opcode, data = (0x1, payload.encode()) if isinstance(payload, str) else (0x2, payload)
    if len(data) < 126:
        header = struct.pack("!BB", 0x80 | opcode, len(data))
    elif len(data) < 0x10000:
        header = struct.pack("!BBH", 0x80 | opcode, 126, len(data))
    else:
        header = struct.pack("!BBQ", 0x80 | opcode, 127, len(data))
    return header + data


class Subscription(NamedTuple):
    """How a channel is subscribed to."""

    limit: int
    merged: bool


@attrs.define(eq=False)
class Connection:
    """One accepted WebSocket and what it has subscribed to."""

    number: int
    socket: WebSocketConnection
    wire: Wire
    patience: trio.CancelScope  # its deadline is when the missing ping ends the connection
    subscriptions: dict[str, dict[Channel, Subscription]] = attrs.field(factory=dict)
    turns: deque[str] = attrs.field(factory=deque)  # the symbols, the next one first
    frames: int = 0  # that were handed to the network
    delay: float = 0.0  # seconds that frames are on their way
    late: deque[tuple[float, Sequence[str | bytes]]] = attrs.field(
        factory=lambda: deque(maxlen=_LATE)
    )
    closing: trio.Event | None = None  # while the exchange closes it: set when that is done

    async def send(self, payloads: Sequence[str | bytes]) -> bool:
        """Send messages in one write; False if the connection is closed or closes meanwhile."""
        data = b"".join(map(websocket_frame, payloads))
        try:
            async with self.wire.lock:
                if self.socket.closed is not None:  # nothing may follow a close frame
                    return False
                await self.wire.write(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def send_late(self) -> None:
        """Send what waits for its time, until cancelled."""
        while True:
            while self.late and self.late[0][0] <= trio.current_time():
                frames = self.late.popleft()[1]
                if await self.send(frames):
                    self.frames += len(frames)
            await trio.sleep(_LATE_PAUSE)

    async def close(self, code: int, reason: str | None) -> None:
        """Close with a close frame, and wait a little for the answer."""
        self.closing = trio.Event()
        with trio.move_on_after(CLOSE_SECONDS):
            await self.socket.aclose(code, reason)
        self.closing.set()

    def subscribe(self, symbol: str, channel: Channel, terms: Subscription) -> None:
        """Add a subscription; a repeated one replaces itself."""
        if symbol not in self.subscriptions:
            self.subscriptions[symbol] = {}
            self.turns.append(symbol)
        self.subscriptions[symbol][channel] = terms

    def unsubscribe(self, symbol: str, channel: Channel) -> None:
        """Remove a subscription, if there is one."""
        channels = self.subscriptions.get(symbol)
        if channels is None:
            return
        channels.pop(channel, None)
        if not channels:
            del self.subscriptions[symbol]
            self.turns.remove(symbol)

    def next_symbol(self) -> str:
        """Take turns among the subscribed symbols, so that each gets its full rate."""
        self.turns.rotate(-1)
        return self.turns[-1]
