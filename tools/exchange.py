"""A simulated MEXC futures exchange: its WebSocket protocol, its oddities, its misbehaviour.

As a program it stands in for ``wss://contract.mexc.com/edge``::

    python -m tools.exchange --port 8765
    mexc-trio BTC_USDT --url ws://127.0.0.1:8765/edge

In a test it runs in process and does what it is told at a precise moment::

    async with open_exchange() as exchange:
        ...                                       # connect a recorder to exchange.url
        await exchange.subscribed("BTC_USDT")
        await exchange.push("BTC_USDT", "deal")
        await exchange.drop()
        assert stored == exchange.rows("BTC_USDT")

It numbers every push frame it sends and knows the rows that a recorder must store for it, so that
what was stored can be held against what was sent. A record of a frame is made (and its line is in
the log file, handed to the operating system) before the first byte of the frame is sent. Whatever
a recorder received is therefore recorded here; the last frames of a connection that broke may be
recorded and not have arrived.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fnmatch
import functools
import gzip
import http
import itertools
import json
import math
import random
import re
import signal
import socket
import struct
import sys
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, TextIO

import attrs
import cyclopts
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from tools.market import CHANNELS, LEVELS, Channel, Market, Row, truth, wall_clock_ms

HOST: Final = "127.0.0.1"
PATH: Final = "/edge"
SYMBOL: Final = re.compile(r"[A-Z0-9]+_[A-Z0-9]+")

Handshake = Literal["accept", "close", "stall", "garbage", "403", "503"]
"""What a new connection meets: a working exchange, or one of its failures.

``close`` accepts TCP and closes at once, ``stall`` never answers, ``garbage`` answers with bytes
that are no HTTP, ``403`` and ``503`` answer with that HTTP status and a page of HTML, as the
exchange's firewall does.
"""

_HANDSHAKE_SECONDS: Final = 10
_CLOSE_SECONDS: Final = 2  # how long a client may take to answer a close frame
_BURST: Final = 64  # frames that are written at once when many are due; bounds the memory
_SHORTEST_SLEEP: Final = 0.002  # seconds; shorter sleeps cost more than they give


@attrs.define
class Record:
    """One push frame on its way to one connection.

    ``n`` counts all frames of the exchange, from 1. ``channel`` is None for frames that were
    handed to ``Exchange.send``. ``completed`` says that the frame was handed to the network in
    full, which is not yet that it arrived.
    """

    n: int
    connection: int
    symbol: str
    channel: str | None
    frame: str | bytes
    replayed: bool = False
    completed: bool = False

    @functools.cached_property
    def rows(self) -> list[Row] | None:
        """The rows that a recorder must store; None where they are unknown (see ``truth``)."""
        return None if self.replayed else truth(self.frame)

    def line(self) -> str:
        """Write the record as one line of JSON, as the log file has it."""
        text = self.frame if isinstance(self.frame, str) else None
        entry: dict[str, object] = {
            "n": self.n,
            "connection": self.connection,
            "symbol": self.symbol,
            "channel": self.channel,
            "frame": text,
            "rows": self.rows,
        }
        if isinstance(self.frame, bytes):
            entry["base64"] = base64.b64encode(self.frame).decode()
        return json.dumps(entry, ensure_ascii=False) + "\n"


@attrs.define(eq=False)
class _Wire(trio.abc.Stream):
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
        async with self.lock:
            await self.write(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes | bytearray = b""
        try:
            data = await self.stream.receive_some(max_bytes)
        finally:
            if not data:
                self.handshake.cancel()
        return data

    async def aclose(self) -> None:
        await self.stream.aclose()

    async def abort(self, *, reset: bool) -> None:
        """Close without a close frame; with a TCP reset where there is TCP."""
        if reset and isinstance(self.stream, trio.SocketStream):
            # Lingering for zero seconds is how a socket is told to reset when it is closed.
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(self.stream)


def _websocket_frame(payload: str | bytes) -> bytes:
    """Frame a message as a server does: unmasked, in one piece (RFC 6455, section 5.2)."""
    opcode, data = (0x1, payload.encode()) if isinstance(payload, str) else (0x2, payload)
    if len(data) < 126:
        header = struct.pack("!BB", 0x80 | opcode, len(data))
    elif len(data) < 0x10000:
        header = struct.pack("!BBH", 0x80 | opcode, 126, len(data))
    else:
        header = struct.pack("!BBQ", 0x80 | opcode, 127, len(data))
    return header + data


@attrs.define(eq=False)
class _Connection:
    """One accepted WebSocket and what it has subscribed to."""

    number: int
    socket: WebSocketConnection
    wire: _Wire
    patience: trio.CancelScope  # its deadline is when the missing ping ends the connection
    subscriptions: dict[str, dict[Channel, int]] = attrs.field(factory=dict)
    turns: deque[str] = attrs.field(factory=deque)  # the symbols, the next one first
    closing: trio.Event | None = None  # while the exchange closes it: set when that is done

    async def send(self, payloads: Sequence[str | bytes]) -> bool:
        """Send messages in one write; False if the connection is closed or closes meanwhile."""
        data = b"".join(map(_websocket_frame, payloads))
        try:
            async with self.wire.lock:
                if self.socket.closed is not None:  # nothing may follow a close frame
                    return False
                await self.wire.write(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def close(self, code: int, reason: str | None) -> None:
        """Close with a close frame, and wait a little for the answer."""
        self.closing = trio.Event()
        with trio.move_on_after(_CLOSE_SECONDS):
            await self.socket.aclose(code, reason)
        self.closing.set()

    def subscribe(self, symbol: str, channel: Channel, limit: int) -> None:
        """Add a subscription; a repeated one replaces itself."""
        if symbol not in self.subscriptions:
            self.subscriptions[symbol] = {}
            self.turns.append(symbol)
        self.subscriptions[symbol][channel] = limit

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


@attrs.define(eq=False)
class Exchange:
    """The exchange. Get one from ``open_exchange``; its methods are for tests and faults.

    These attributes may be changed at any time:

    - ``handshake``: what new connections meet;
    - ``answer_pings``: False leaves application pings unanswered (connections that go on sending
      them stay open);
    - ``withheld_acks``: channels whose subscriptions work but are not acknowledged;
    - ``split_bytes``: True sends what new connections get in TCP segments of one byte.

    ``accepted`` counts TCP connections since the start, ``requests`` keeps what clients sent, as
    pairs of connection number and text (if ``keep``).
    """

    _nursery: trio.Nursery
    market: Market
    rate: float = 0.0
    ping_limit: float = 60.0
    contracts: Collection[str] | None = None
    unknown: Collection[str] = ("NOPE*",)
    split_bytes: bool = False
    log: TextIO | None = None
    keep: bool = True

    handshake: Handshake = attrs.field(default="accept", init=False)
    answer_pings: bool = attrs.field(default=True, init=False)
    withheld_acks: set[Channel] = attrs.field(factory=set, init=False)
    accepted: int = attrs.field(default=0, init=False)
    frames: int = attrs.field(default=0, init=False)
    requests: list[tuple[int, str]] = attrs.field(factory=list, init=False)
    port: int = attrs.field(default=0, init=False)

    _chance: random.Random = attrs.field(init=False)
    _connections: list[_Connection] = attrs.field(factory=list, init=False)
    _records: defaultdict[str, list[Record]] = attrs.field(init=False)
    _silenced: set[tuple[str | None, Channel | None]] = attrs.field(factory=set, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _listening: trio.CancelScope | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._chance = random.Random(self.market.seed)
        self._records = defaultdict(list)

    # --- What a test asks ---

    @property
    def url(self) -> str:
        """The address for the recorder's ``--url``."""
        return f"ws://{HOST}:{self.port}{PATH}"

    @property
    def symbols(self) -> list[str]:
        """The symbols that open connections have subscribed to."""
        return sorted({symbol for one in self._connections for symbol in one.subscriptions})

    @property
    def connections(self) -> int:
        """How many WebSocket connections are open."""
        return len(self._connections)

    def sent(self, symbol: str) -> list[Record]:
        """List the records of a symbol's frames, in the order of sending."""
        return list(self._records[symbol])

    def rows(self, symbol: str) -> list[Row]:
        """List the rows a recorder must store for a symbol, in the order of sending.

        Frames whose rows are unknown contribute nothing; the records tell which these are.
        """
        return [row for record in self._records[symbol] for row in record.rows or ()]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds.

        It is looked at whenever a connection is accepted, opened or closed, a request has been
        dealt with, or frames have been sent.
        """
        while not condition():
            await self._changed.wait()

    async def subscribed(self, symbol: str, channels: Collection[Channel] = CHANNELS) -> None:
        """Wait until an open connection is subscribed to all these channels of a symbol."""
        await self.until(
            lambda: any(
                set(channels) <= connection.subscriptions.get(symbol, {}).keys()
                for connection in self._connections
            )
        )

    # --- What a test tells it to send ---

    async def push(self, symbol: str, channel: Channel, *, oddity: str | None = "") -> Record:
        """Send each subscriber of a channel a generated frame of its own, now, silenced or not.

        ``oddity`` is one of ``market.ODDITIES``; None leaves it to chance. Returns the record of
        the first subscriber's frame. LookupError says that nobody is subscribed.
        """
        records = []
        for connection in self._subscribers(symbol, channel):
            limit = connection.subscriptions[symbol][channel]
            frame = self.market.frame(symbol, channel, limit=limit, oddity=oddity)
            records.append(self._record(connection, symbol, channel, frame))
            await self._transmit(connection, records[-1:])
        if not records:
            raise LookupError(f"nobody is subscribed to {channel} of {symbol}")
        return records[0]

    async def send(self, symbol: str, frame: str | bytes) -> Record:
        """Send a frame of any content to each connection with a subscription of the symbol.

        Text goes out as a text frame, bytes as a binary one. Returns the first subscriber's
        record; LookupError says that nobody is subscribed.
        """
        records = []
        for connection in self._subscribers(symbol):
            records.append(self._record(connection, symbol, None, frame))
            await self._transmit(connection, records[-1:])
        if not records:
            raise LookupError(f"nobody is subscribed to {symbol}")
        return records[0]

    async def replay(
        self, frames: Sequence[tuple[str, str, str]], *, rate: float = 0.0, loop: bool = False
    ) -> None:
        """Send given frames, triples of symbol, channel and text, to their subscribers.

        A symbol's frames begin when all its channels are subscribed, go out in their order at
        ``rate`` frames a second (0 is as fast as they are taken), and wait while nobody is
        subscribed.
        """
        by_symbol: dict[str, list[tuple[str, str]]] = {}
        for symbol, channel, frame in frames:
            by_symbol.setdefault(symbol, []).append((channel, frame))
        async with trio.open_nursery() as nursery:
            for symbol, texts in by_symbol.items():
                endless = itertools.cycle(texts) if loop else iter(texts)
                nursery.start_soon(self._replay_symbol, symbol, endless, rate)

    # --- Misbehaviour ---

    async def drop(self, *, reset: bool = True) -> None:
        """Break all connections without a close frame, by TCP reset or by a plain close."""
        doomed = list(self._connections)
        for connection in doomed:
            await connection.wire.abort(reset=reset)
        await self.until(lambda: not any(one in self._connections for one in doomed))

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Close all connections with a close frame."""
        async with trio.open_nursery() as nursery:
            for connection in self._connections:
                nursery.start_soon(connection.close, code, reason)

    def silence(self, symbol: str | None = None, channel: Channel | None = None) -> None:
        """Send no automatic frames of a symbol and channel, None being all; pings are answered."""
        self._silenced.add((symbol, channel))

    def resume(self, symbol: str | None = None, channel: Channel | None = None) -> None:
        """End the silence of the same arguments; without arguments end every silence."""
        if symbol is None and channel is None:
            self._silenced.clear()
        self._silenced.discard((symbol, channel))

    async def stop_listening(self) -> None:
        """Refuse new TCP connections; open ones stay."""
        if self._listening is not None:
            self._listening.cancel()
            await self.until(lambda: self._listening is None)

    async def listen(self) -> None:
        """Accept TCP connections again after ``stop_listening``, on the same port."""
        if self._listening is None:
            await self._nursery.start(self.accept, await _bind(self.port))

    # --- Connections ---

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection until it ends.

        Any byte stream will do, such as one end of ``trio.testing.memory_stream_pair()``.
        """
        self.accepted = number = self.accepted + 1
        self._notify()
        wire = _Wire(stream, self.split_bytes)
        async with wire:
            try:
                if self.handshake == "accept":
                    await self._serve_websocket(number, wire)
                else:
                    await self._fail_handshake(wire, self.handshake)
            except* (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed):
                pass  # the client left, or a fault broke the connection: both are daily life

    async def accept(
        self,
        listeners: list[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept and serve TCP connections until ``stop_listening``."""
        self.port = listeners[0].socket.getsockname()[1]
        try:
            with trio.CancelScope() as self._listening:
                await trio.serve_listeners(
                    self.serve_stream,
                    listeners,
                    handler_nursery=self._nursery,
                    task_status=task_status,
                )
        finally:
            self._listening = None
            self._notify()

    async def _fail_handshake(self, wire: _Wire, failure: Handshake) -> None:
        if failure == "close":
            return
        received = await wire.receive_some()  # the request
        if failure == "stall":
            while received:  # until the client gives up
                received = await wire.receive_some()
        elif failure == "garbage":
            await wire.send_all(b"\x15\x03\x01 this is no HTTP\r\n\r\n")
        else:
            status = http.HTTPStatus(int(failure))
            page = f"<html><body><h1>{status.phrase}</h1></body></html>"
            answer = (
                f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/html\r\n"
                f"Content-Length: {len(page)}\r\nConnection: close\r\n\r\n{page}"
            )
            await wire.send_all(answer.encode())

    async def _serve_websocket(self, number: int, wire: _Wire) -> None:
        async with trio.open_nursery() as nursery:
            websocket = None
            wire.handshake.deadline = trio.current_time() + _HANDSHAKE_SECONDS
            with wire.handshake:
                request = await wrap_server_stream(nursery, wire)
                if request.path == PATH:
                    websocket = await request.accept()
                else:
                    await request.reject(404)
            if websocket is None:
                nursery.cancel_scope.cancel()
                return
            patience = trio.CancelScope(deadline=trio.current_time() + self.ping_limit)
            connection = _Connection(number, websocket, wire, patience)
            self._connections.append(connection)
            self._notify()
            try:
                nursery.start_soon(self._watch_pings, connection)
                if self.rate:
                    nursery.start_soon(self._send_automatically, connection)
                while True:
                    await self._answer(connection, await websocket.get_message())
                    self._notify()
            except ConnectionClosed:
                pass
            finally:
                self._connections.remove(connection)
                self._notify()
            if connection.closing is not None:
                # trio-websocket's reader, which lives in this nursery, awaits the client's answer.
                await connection.closing.wait()
            nursery.cancel_scope.cancel()

    async def _watch_pings(self, connection: _Connection) -> None:
        """Close a connection that sent no application ping for too long.

        The exchange does so after 60 to 68 seconds, although data flows.
        """
        with connection.patience:
            await trio.sleep_forever()
        text = f"more than {self.ping_limit:g} seconds no response, close the channel"
        with trio.move_on_after(_CLOSE_SECONDS):  # a client that does not read is closed as well
            await connection.send([self._reply("rs.error", text)])
        await connection.close(1000, None)

    # --- Requests ---

    async def _answer(self, connection: _Connection, message: str | bytes) -> None:
        if self.keep:
            text = message if isinstance(message, str) else message.decode(errors="replace")
            self.requests.append((connection.number, text))
        try:
            request = json.loads(message)
            method = request["method"]
            if method == "ping":
                await self._answer_ping(connection)
                return
            action, _, name = method.partition(".")
            symbol = request["param"]["symbol"]
            limit = request["param"].get("limit", LEVELS)
        except (ValueError, LookupError, TypeError, AttributeError):
            return  # what it does not understand it does not answer
        channel = next((known for known in CHANNELS if known == name), None)
        if channel is None or action not in ("sub", "unsub") or not isinstance(symbol, str):
            return
        if action == "unsub":
            connection.unsubscribe(symbol, channel)  # without a confirmation
        elif not self._exists(symbol):
            error = f"Contract [{symbol}] not exists"
            await connection.send([self._reply("rs.error", error)])
        else:
            depth = limit if isinstance(limit, int) and 0 < limit < LEVELS else LEVELS
            # Who has heard the acknowledgement is subscribed; and as it queues for the wire at
            # once, no data of the new subscription goes before it.
            connection.subscribe(symbol, channel, depth)
            if channel not in self.withheld_acks:
                await connection.send([self._reply(f"rs.sub.{channel}", "success")])

    async def _answer_ping(self, connection: _Connection) -> None:
        connection.patience.deadline = trio.current_time() + self.ping_limit
        if not self.answer_pings:
            return
        pong = self._reply("pong", self.market.clock())
        replies = [pong]
        if self._chance.random() < self.market.oddities:
            replies.append(pong)  # two pongs may answer one ping
        if self._chance.random() < self.market.oddities:
            replies.append(self._reply("clientId", f"{self._chance.getrandbits(64):016x}"))
        await connection.send(replies)

    def _exists(self, symbol: str) -> bool:
        if self.contracts is not None and symbol not in self.contracts:
            return False
        if any(fnmatch.fnmatchcase(symbol, pattern) for pattern in self.unknown):
            return False
        return SYMBOL.fullmatch(symbol) is not None

    def _reply(self, channel: str, data: str | int) -> str:
        reply = {"channel": channel, "data": data, "ts": self.market.clock()}
        return json.dumps(reply, separators=(",", ":"))

    # --- Frames ---

    async def _send_automatically(self, connection: _Connection) -> None:
        """Send a connection its subscriptions' frames at the exchange's rate.

        One task advances all subscriptions of a connection by the time that has passed, in
        bursts where many frames are due. A client that does not read blocks it, and what was due
        meanwhile is forgotten but for one second's worth: nothing queues up.
        """
        owed, last = 0.0, trio.current_time()
        while True:
            pace = self.rate * len(connection.subscriptions)  # frames a second
            if not pace:
                await self.until(lambda: bool(connection.subscriptions))
                owed, last = 0.0, trio.current_time()
                continue
            now = trio.current_time()
            owed, last = min(owed + (now - last) * pace, max(pace, 1)), now
            count = min(int(owed), _BURST)
            if not count:
                await trio.sleep(max((1 - owed) / pace, _SHORTEST_SLEEP))
                continue
            owed -= count
            records = [self._draw(connection) for _ in range(count)]
            await self._transmit(connection, [record for record in records if record])

    def _draw(self, connection: _Connection) -> Record | None:
        """Make the next automatic frame; None when its channel is not subscribed or silenced."""
        symbol = connection.next_symbol()
        channel = self.market.draw_channel(symbol)
        limit = connection.subscriptions[symbol].get(channel)
        silences = {(symbol, channel), (symbol, None), (None, channel), (None, None)}
        if limit is None or not self._silenced.isdisjoint(silences):
            return None
        frame = self.market.frame(symbol, channel, limit=limit)
        return self._record(connection, symbol, channel, frame)

    async def _replay_symbol(
        self, symbol: str, texts: Iterable[tuple[str, str]], rate: float
    ) -> None:
        # Bursts of five milliseconds' worth keep high rates affordable.
        size = min(max(1, int(rate * 0.005)), _BURST) if rate else _BURST
        source = iter(texts)
        due = trio.current_time()
        while burst := list(itertools.islice(source, size)):
            await self.subscribed(symbol)
            due = max(due, trio.current_time() - 1)
            await trio.sleep_until(due)
            for connection in self._subscribers(symbol):
                records = [
                    self._record(connection, symbol, channel, frame, replayed=True)
                    for channel, frame in burst
                    if channel not in CHANNELS or channel in connection.subscriptions[symbol]
                ]
                await self._transmit(connection, records)
            due += len(burst) / rate if rate else 0

    def _subscribers(self, symbol: str, channel: Channel | None = None) -> list[_Connection]:
        return [
            connection
            for connection in self._connections
            if symbol in connection.subscriptions
            and (channel is None or channel in connection.subscriptions[symbol])
        ]

    def _record(
        self,
        connection: _Connection,
        symbol: str,
        channel: str | None,
        frame: str | bytes,
        *,
        replayed: bool = False,
    ) -> Record:
        self.frames += 1
        record = Record(self.frames, connection.number, symbol, channel, frame, replayed)
        if self.keep:
            self._records[symbol].append(record)
        if self.log is not None:
            self.log.write(record.line())
        return record

    async def _transmit(self, connection: _Connection, records: list[Record]) -> None:
        """Send recorded frames.

        Nothing is awaited between recording and the queue for the wire's lock, which is fair, so
        that records are in the order of the wire.
        """
        if not records:
            await trio.lowlevel.checkpoint()
            return
        if self.log is not None:
            self.log.flush()
        completed = await connection.send([record.frame for record in records])
        for record in records:
            record.completed = completed
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def _bind(port: int) -> list[trio.SocketListener]:
    return await trio.open_tcp_listeners(port, host=HOST)


@contextlib.asynccontextmanager
async def open_exchange(
    *,
    port: int = 0,
    rate: float = 0.0,
    seed: int = 1,
    oddities: float = 0.0,
    clock: Callable[[], int] = wall_clock_ms,
    ping_limit: float = 60.0,
    contracts: Collection[str] | None = None,
    unknown: Collection[str] = ("NOPE*",),
    split_bytes: bool = False,
    log: TextIO | None = None,
    keep: bool = True,
) -> AsyncIterator[Exchange]:
    """Run an exchange on 127.0.0.1 for as long as the block runs.

    ``rate`` is in frames a second for each subscribed symbol, 0 for none but those that are
    pushed by hand. ``seed``, ``oddities`` and ``clock`` are the ``Market``'s. ``ping_limit`` is
    in seconds. ``contracts`` are the symbols that exist, None for every well-formed one;
    ``unknown`` are patterns of symbols that do not. ``log`` takes one line of JSON for each
    frame. ``keep`` False keeps neither records nor requests in memory.

    Raises OSError when the port is taken.
    """
    listeners = await _bind(port)
    async with trio.open_nursery() as nursery:
        exchange = Exchange(
            nursery,
            Market(seed, oddities, clock),
            rate=rate,
            ping_limit=ping_limit,
            contracts=contracts,
            unknown=unknown,
            split_bytes=split_bytes,
            log=log,
            keep=keep,
        )
        await nursery.start(exchange.accept, listeners)
        yield exchange
        nursery.cancel_scope.cancel()


# --- The program ---------------------------------------------------------------------------------

_FAILED_HANDSHAKES: Final[dict[str, Handshake]] = {
    "hangup": "close",
    "stall": "stall",
    "garbage": "garbage",
    "http403": "403",
    "http503": "503",
}
_FAULTS: Final = {
    "drop": "break all connections by TCP reset",
    "close": "close all connections with a close frame",
    "silent": "send no data; pings are answered",
    "nopong": "do not answer pings",
    "noack": "do not acknowledge subscriptions",
    "refuse": "refuse new TCP connections",
    "hangup": "accept new TCP connections and close them at once",
    "stall": "accept new TCP connections and never answer their handshake",
    "garbage": "answer handshakes with bytes that are no HTTP",
    "http403": "answer handshakes with HTTP 403",
    "http503": "answer handshakes with HTTP 503",
    "brokenjson": "send each subscribed symbol a frame that is cut off in the middle",
    "binary": "send each subscribed symbol a binary frame of noise",
    "gzip": "send each subscribed symbol a gzip'd binary frame of deals",
    "huge": "send each subscribed symbol a frame of 2 MiB",
}


@attrs.frozen
class Fault:
    """One misbehaviour at a set time, in seconds after the start."""

    kind: str
    channel: Channel | None
    at: float
    duration: float

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read ``KIND[/CHANNEL]@SECONDS[:DURATION]``; ValueError says what is wrong with it."""
        number = r"(\d+(?:\.\d+)?)"
        match = re.fullmatch(rf"(\w+)(?:/([a-z.]+))?@{number}(?::{number})?", text)
        if match is None:
            raise ValueError(f"fault {text!r} is not of the form KIND[/CHANNEL]@SECONDS[:DURATION]")
        kind, name, at, duration = match.groups()
        if kind not in _FAULTS:
            raise ValueError(f"unknown fault {kind!r}; there are {', '.join(_FAULTS)}")
        channel = next((known for known in CHANNELS if known == name), None)
        if name is not None and (channel is None or kind not in ("silent", "noack")):
            raise ValueError(
                f"fault {text!r}: only silent and noack take one of the channels "
                f"{', '.join(CHANNELS)}"
            )
        return cls(kind, channel, float(at), float(duration) if duration else math.inf)

    async def strike(self, exchange: Exchange) -> None:
        """Wait for the time, misbehave, and stop misbehaving after the duration."""
        await trio.sleep(self.at)
        match self.kind:
            case "drop":
                await exchange.drop()
            case "close":
                await exchange.close()
            case "silent":
                exchange.silence(channel=self.channel)
                await trio.sleep(self.duration)
                exchange.resume(channel=self.channel)
            case "nopong":
                exchange.answer_pings = False
                await trio.sleep(self.duration)
                exchange.answer_pings = True
            case "noack":
                withheld = {self.channel} if self.channel else set(CHANNELS)
                exchange.withheld_acks |= withheld
                await trio.sleep(self.duration)
                exchange.withheld_acks -= withheld
            case "refuse":
                await exchange.stop_listening()
                await trio.sleep(self.duration)
                await exchange.listen()
            case "brokenjson" | "binary" | "gzip" | "huge":
                for symbol in exchange.symbols:
                    with contextlib.suppress(LookupError):  # it may have left by now
                        await exchange.send(symbol, self._payload(exchange, symbol))
            case _:
                exchange.handshake = _FAILED_HANDSHAKES[self.kind]
                await trio.sleep(self.duration)
                exchange.handshake = "accept"

    def _payload(self, exchange: Exchange, symbol: str) -> str | bytes:
        frame = exchange.market.frame(symbol, "deal", oddity="")
        if self.kind == "brokenjson":
            return frame[: len(frame) // 2]
        if self.kind == "binary":
            return bytes(range(256))
        if self.kind == "gzip":
            return gzip.compress(frame.encode())
        return frame[:-1] + " " * 2**21 + "}"  # still JSON, and its rows are known


def read_frames(path: Path) -> list[tuple[str, str, str]]:
    """Read a file of push frames, one JSON document a line, for ``Exchange.replay``.

    Returns triples of symbol, channel and the unchanged text. ValueError names the line that is
    no push frame.
    """
    frames = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            message = json.loads(line)
            symbol, channel = message["symbol"], message["channel"].removeprefix("push.")
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ValueError(f"{path}, line {number}: no push frame with a symbol") from None
        frames.append((symbol, channel, line))
    return frames


_Share = Annotated[float, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=0, lte=1))]
_Positive = Annotated[float, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=0))]
_Names = Annotated[list[str] | None, cyclopts.Parameter(negative="")]
_Flag = Annotated[bool, cyclopts.Parameter(negative="")]

app = cyclopts.App(
    name="python -m tools.exchange",
    help="A simulated MEXC futures exchange on ws://127.0.0.1:PORT/edge. Ctrl-C stops it.\n\n"
    "Faults for --fault:\n\n"
    + "\n".join(f"- {kind}: {meaning}" for kind, meaning in _FAULTS.items()),
    version_flags=[],
)


@app.default
def main(
    *,
    port: int = 8765,
    rate: _Positive = 12.7,
    seed: int = 1,
    oddities: _Share = 0.02,
    contract: _Names = None,
    unknown: _Names = None,
    ping_limit: _Positive = 60.0,
    split_bytes: _Flag = False,
    log: Path | None = None,
    replay: Path | None = None,
    replay_loop: _Flag = False,
    fault: _Names = None,
    duration: _Positive | None = None,
) -> int:
    """Parse the command line and run.

    Parameters
    ----------
    port
        TCP port on 127.0.0.1; 0 takes a free one.
    rate
        Frames a second for each subscribed symbol; 0 sends none (or, with --replay, sends as
        fast as they are taken).
    seed
        Makes prices, mix and oddities repeatable.
    oddities
        Share of frames, 0 to 1, with one of the exchange's oddities.
    contract
        A symbol that exists; repeat for more. Every well-formed one exists without.
    unknown
        A pattern of symbols that do not exist, NOPE* without; repeat for more.
    ping_limit
        Seconds without an application ping after which a connection is closed.
    split_bytes
        Send everything in TCP segments of one byte.
    log
        File that gets one line of JSON for each frame, before the frame is sent: n, connection,
        symbol, channel, frame, rows. A line that is there when the recorder was cut off need not
        have arrived; what arrived has a line.
    replay
        Send the frames of this file (one a line) in place of generated ones. Their rows are
        unknown (null in the log).
    replay_loop
        Begin the replay again after its end.
    fault
        KIND[/CHANNEL]@SECONDS[:DURATION], such as drop@5 or silent/deal@5:20; repeat for more.
        Without a duration it lasts. Only silent and noack take a channel.
    duration
        Seconds after which it stops by itself.

    """
    try:
        faults = [Fault.parse(text) for text in fault or []]
        frames = read_frames(replay) if replay else []
        # Not "w": a second exchange that finds the port taken must leave the first one's log alone.
        with log.open("a", encoding="utf-8") if log else contextlib.nullcontext() as file:
            opened = open_exchange(
                port=port,
                rate=0.0 if replay else rate,
                seed=seed,
                oddities=oddities,
                ping_limit=ping_limit,
                contracts=contract,
                unknown=unknown if unknown is not None else ("NOPE*",),
                split_bytes=split_bytes,
                log=file,
                keep=False,
            )
            player = functools.partial(Exchange.replay, frames=frames, rate=rate, loop=replay_loop)
            trio.run(_serve, opened, player, faults, duration)
    except (OSError, ValueError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = f"port {port} is taken; --port chooses another" if taken else error
        print(f"Simulated exchange: {reason}", file=sys.stderr)
        return 2
    return 0


async def _serve(
    opened: contextlib.AbstractAsyncContextManager[Exchange],
    player: Callable[[Exchange], Awaitable[None]],
    faults: list[Fault],
    duration: float | None,
) -> None:
    started = trio.current_time()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with opened as exchange, trio.open_nursery() as nursery:
            if exchange.log is not None and exchange.log.seekable():
                exchange.log.truncate(0)
            print(f"Simulated exchange on {exchange.url}", flush=True)
            nursery.start_soon(player, exchange)
            for fault in faults:
                nursery.start_soon(fault.strike, exchange)
            with trio.move_on_after(math.inf if duration is None else duration):
                await anext(signals)
            nursery.cancel_scope.cancel()
    seconds = trio.current_time() - started
    print(
        f"Sent {exchange.frames:,} frames over {exchange.accepted} connections in {seconds:.1f} s"
    )


if __name__ == "__main__":
    app()
