"""The load generator's own process: an exchange that does nothing but send."""

import bisect
import itertools
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection as Pipe
from typing import Final

import attrs
import msgspec
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Event,
    Ping,
    Request,
    TextMessage,
)

from tools.bench.frames import pool, websocket_frame
from tools.bench.plan import HOST, Plan, Sent
from tools.bench.secure import Plain, Secure

_SUBSCRIPTIONS: Final = ("sub.ticker", "sub.deal", "sub.depth.full")
_BURST: Final = 64  # frames of one write


def generate(plan: Plan, pipe: Pipe, certificate: str) -> None:
    """Do what the plan says, and tell the other end of the pipe how it goes."""
    pool(plan.pool)
    trio.run(_Generator(plan, pipe, certificate).run)


class _Param(msgspec.Struct):
    symbol: str


class _Request(msgspec.Struct):
    method: str
    param: _Param | None = None


_decode = msgspec.json.Decoder(_Request).decode


@attrs.define(eq=False)
class _Client:
    """A connection, and which of the plan's frames go to it."""

    network: Plain | Secure
    times: "array[float]" = attrs.field(factory=lambda: array("d"))
    order: "array[int]" = attrs.field(factory=lambda: array("H"))
    bytes_sent: int = 0
    lock: trio.StrictFIFOLock = attrs.field(factory=trio.StrictFIFOLock)

    async def send(self, parts: Sequence[bytes]) -> None:
        """Send messages while holding the lock."""
        self.bytes_sent += sum(map(len, parts))
        await self.network.send(parts)


@attrs.define(eq=False)
class _Generator:
    plan: Plan
    pipe: Pipe
    certificate: str
    _indexes: dict[str, int] = attrs.field(init=False)
    _missing: set[tuple[str, str]] = attrs.field(init=False)  # subscriptions: symbol, method
    _clients: dict[int, _Client] = attrs.field(factory=dict, init=False)  # by symbol
    _ready: trio.Event = attrs.field(factory=trio.Event, init=False)
    _writers: list[Callable[[int], bytes]] = attrs.field(init=False)
    _turns: list[int] = attrs.field(init=False)
    _sent: Sent = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._indexes = {symbol: n for n, symbol in enumerate(self.plan.symbols)}
        self._missing = set(itertools.product(self.plan.symbols, _SUBSCRIPTIONS))
        prebuilt = not self.plan.rates
        self._writers = [
            pool(self.plan.pool).writer(symbol, prebuilt=prebuilt) for symbol in self.plan.symbols
        ]
        self._turns = [0] * len(self.plan.symbols)
        self._sent = Sent(array("d"), array("H"), array("Q"))

    async def run(self) -> None:
        times, order = self.plan.schedule()
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._serve, listeners)
            self.pipe.send(("port", listeners[0].socket.getsockname()[1]))
            await self._ready.wait()
            if self.plan.hold:
                self.pipe.send(("subscribed", True))
                await trio.to_thread.run_sync(self.pipe.recv)
            for at, symbol in zip(times, order, strict=True):
                client = self._clients[symbol]
                client.times.append(at)
                client.order.append(symbol)
            self.pipe.send(("began", time.monotonic()))
            began = trio.current_time()
            async with trio.open_nursery() as sending:
                for client in set(self._clients.values()):
                    sending.start_soon(self._send_all, client, began)
            # In a thread, because the parent may be busy, and more than fits a pipe's buffer waits.
            await trio.to_thread.run_sync(self.pipe.send, ("sent", self._sent))

    async def _send_all(self, client: _Client, began: float) -> None:
        # A receiver that leaves has all it wanted; one that was to store more will be found out.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._send(client, began)

    async def _send(self, client: _Client, began: float) -> None:
        """Send one connection its frames, each at its time or as soon after as it takes them."""
        sent, turns, writers = self._sent, self._turns, self._writers
        times, position = client.times, 0
        while position < len(times):
            await trio.sleep_until(began + times[position])
            due = bisect.bisect_right(times, trio.current_time() - began, position)
            end = min(max(due, position + 1), position + _BURST)
            symbols = client.order[position:end]
            parts = []
            for symbol in symbols:
                parts.append(writers[symbol](turns[symbol]))
                turns[symbol] += 1
            async with client.lock:
                carried = itertools.accumulate(map(len, parts), initial=client.bytes_sent)
                sent.offsets.extend(itertools.islice(carried, 1, None))
                sent.symbols.extend(symbols)
                sent.times.extend([time.monotonic()] * len(symbols))
                await client.send(parts)
            position = end

    async def _serve(self, stream: trio.SocketStream) -> None:
        secure = self.plan.scheme == "wss"
        client = _Client(Secure(stream, self.certificate) if secure else Plain(stream))
        protocol = WSConnection(ConnectionType.SERVER)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with stream:
                await client.network.shake_hands()
                while data := await client.network.receive():
                    protocol.receive_data(data)
                    for event in protocol.events():
                        async with client.lock:
                            await client.send([self._answer(client, protocol, event)])
                        if isinstance(event, CloseConnection):
                            return

    def _answer(self, client: _Client, protocol: WSConnection, event: Event) -> bytes:
        if isinstance(event, Request):
            return protocol.send(AcceptConnection())
        if isinstance(event, CloseConnection | Ping):
            return protocol.send(event.response())
        if not isinstance(event, TextMessage):
            return b""
        request = _decode(event.data)
        if request.param is None:
            return _reply("pong", int(time.time() * 1000))
        symbol = request.param.symbol
        self._clients[self._indexes[symbol]] = client
        self._missing.discard((symbol, request.method))
        if not self._missing:
            self._ready.set()
        return _reply(f"rs.{request.method}", "success")


def _reply(channel: str, data: int | str) -> bytes:
    reply = {"channel": channel, "data": data, "ts": int(time.time() * 1000)}
    return websocket_frame(msgspec.json.encode(reply))
