"""The exchange as tests see it: what it was asked, what it sent, what it shall do next."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Final, TextIO

import attrs
import trio
from trio_websocket import ConnectionClosed

from tools.exchange.connection import Connection, Wire
from tools.exchange.door import HOST, Door, bind
from tools.exchange.handshakes import fail_handshake
from tools.exchange.listing import ON, Listing, believable
from tools.exchange.records import Record, Records
from tools.exchange.replay import replay
from tools.exchange.rest import Rest
from tools.exchange.serving import PATH, serve_websocket
from tools.exchange.shared import send_shared_deals
from tools.exchange.state import State
from tools.exchange.tape import ids_of
from tools.market import CHANNELS, Channel, Market, Row, truth, wall_clock_ms

_FEW: Final = 12
"""Contracts that are listed when nobody says which."""


@attrs.define(eq=False)
class Exchange(State):
    """The exchange. Get one from ``open_exchange``; its methods are for tests and faults.

    ``rest`` is the REST interface, None without one. For all else that may be looked at or changed
    at any time see ``State``.
    """

    rest: Rest | None = attrs.field(default=None, init=False)
    door: Door = attrs.field(init=False)

    # --- What a test asks ---

    @property
    def port(self) -> int:
        """The TCP port of the socket."""
        return self.door.port

    @property
    def url(self) -> str:
        """The address for the recorder's ``--url``."""
        return f"ws://{HOST}:{self.port}{PATH}"

    @property
    def connections(self) -> int:
        """How many WebSocket connections are open."""
        return len(self.opened)

    @property
    def frames(self) -> int:
        """How many push frames were sent, each counted once for each subscriber."""
        return self.records.count

    def sent(self, symbol: str) -> list[Record]:
        """List the records of a symbol's frames, in the order of sending."""
        return self.records.of(symbol)

    def rows(self, symbol: str) -> list[Row]:
        """List the rows a recorder must store for a symbol, in the order of sending.

        Frames whose rows are unknown contribute nothing; the records tell which these are.
        """
        return [row for record in self.records.of(symbol) for row in record.rows or ()]

    # --- What a test tells it to send ---

    async def push(self, symbol: str, channel: Channel, *, oddity: str | None = "") -> Record:
        """Send each subscriber of a channel a generated frame of its own, now, silenced or not.

        ``oddity`` is one of ``market.ODDITIES``; None leaves it to chance. Returns the record of
        the first subscriber's frame. LookupError says that nobody is subscribed.
        """
        records = []
        for connection in self.subscribers(symbol, channel):
            terms = connection.subscriptions[symbol][channel]
            frame = self.market.frame(symbol, channel, **terms._asdict(), oddity=oddity)
            records.append(self.records.add(connection.number, symbol, channel, frame))
            await self.transmit(connection, records[-1:])
        if not records:
            raise LookupError(f"nobody is subscribed to {channel} of {symbol}")
        return records[0]

    async def send(self, symbol: str, frame: str | bytes) -> Record:
        """Send a frame of any content to each connection with a subscription of the symbol.

        Text goes out as a text frame, bytes as a binary one. Returns the first subscriber's
        record; LookupError says that nobody is subscribed.
        """
        records: dict[Connection, Record] = {}

        async def send(connection: Connection) -> None:
            again = bool(records)
            record = self.records.add(connection.number, symbol, None, frame, again=again)
            records[connection] = record
            await self.transmit(connection, [record])

        subscribers = self.subscribers(symbol)
        if not subscribers:
            raise LookupError(f"nobody is subscribed to {symbol}")
        # At once: while one connection takes a long frame, the next must not get later deals first.
        async with trio.open_nursery() as nursery:
            for connection in subscribers:
                nursery.start_soon(send, connection)
        return records[subscribers[0]]

    async def replay(
        self, frames: Sequence[tuple[str, str, str]], *, rate: float = 0.0, loop: bool = False
    ) -> None:
        """Send given frames, triples of symbol, channel and text, to their subscribers.

        A symbol's frames begin when all its channels are subscribed, go out in their order at
        ``rate`` frames a second (0 is as fast as they are taken), and wait while nobody is
        subscribed.
        """
        await replay(self, frames, rate=rate, loop=loop)

    # --- Misbehaviour ---

    async def drop(self, *those: Connection, reset: bool = True) -> None:
        """Break connections, all if none are given, without a close frame.

        By TCP reset or by a plain close.
        """
        doomed = those or list(self.opened)
        for connection in doomed:
            await connection.wire.abort(reset=reset)
        await self.until(lambda: not any(one in self.opened for one in doomed))

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Close all connections with a close frame."""
        async with trio.open_nursery() as nursery:
            for connection in self.opened:
                nursery.start_soon(connection.close, code, reason)

    def silence(self, symbol: str | None = None, channel: Channel | None = None) -> None:
        """Send no automatic frames of a symbol and channel, None being all; pings are answered."""
        self.silenced.add((symbol, channel))

    def resume(self, symbol: str | None = None, channel: Channel | None = None) -> None:
        """End the silence of the same arguments; without arguments end every silence."""
        if symbol is None and channel is None:
            self.silenced.clear()
        self.silenced.discard((symbol, channel))

    async def stop_listening(self) -> None:
        """Refuse new TCP connections; open ones stay."""
        await self.door.close()

    async def listen(self) -> None:
        """Accept TCP connections again after ``stop_listening``, on the same port."""
        await self.door.open()

    def list_contract(self, symbol: str, state: int = ON) -> None:
        """List a new contract, or change the state of one."""
        self.listing.add(symbol, state)

    def delist(self, symbol: str) -> None:
        """Take a contract off the list; nothing is sent of it any more, and nobody is told."""
        self.listing.remove(symbol)
        for connection in self.subscribers(symbol):
            for channel in CHANNELS:
                connection.unsubscribe(symbol, channel)

    def trade_unheard(self, symbol: str) -> list[Row]:
        """Let a contract be dealt in, as it is while nobody listens: only REST tells of it.

        Returns the deals, oldest first.
        """
        frame = self.market.frame(symbol, "deal", oddity="")
        rows = truth(frame) or []
        self.tape.add(symbol, rows, ids_of(frame))
        return rows

    # --- Connections ---

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection until it ends.

        Any byte stream will do, such as one end of ``trio.testing.memory_stream_pair()``.
        """
        self.accepted = number = self.accepted + 1
        self.notify()
        wire = Wire(stream, self.split_bytes)
        async with wire:
            try:
                if self.handshake == "accept":
                    await serve_websocket(self, number, wire)
                else:
                    await fail_handshake(wire, self.handshake)
            except* (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed):
                pass  # the client left, or a fault broke the connection: both are daily life


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
    rest_port: int | None = None,
    shared: bool = False,
    loss: float = 0.0,
    delays: Sequence[float] = (),
) -> AsyncIterator[Exchange]:
    """Run an exchange on 127.0.0.1 for as long as the block runs.

    ``rate`` is in frames a second for each subscribed symbol, 0 for none but those that are
    pushed by hand. ``seed``, ``oddities`` and ``clock`` are the ``Market``'s. ``ping_limit`` is
    in seconds. ``contracts`` are the symbols that exist, None for every well-formed one;
    ``unknown`` are patterns of symbols that do not. ``log`` takes one line of JSON for each
    frame. ``keep`` False keeps neither records nor requests in memory. ``rest_port`` adds the REST
    interface on that port, 0 being a free one; it lists ``contracts``, or a few if they are None.
    ``shared`` sends the same deals to all connections of a symbol, ``loss`` is the share of them
    that does not reach one of several, and ``delays`` are the seconds by which the frames of
    connections are late, in turn.

    Raises OSError when the port is taken.
    """
    listeners = await bind(port)
    rest_listeners = []
    if rest_port is not None:
        try:
            rest_listeners = await bind(rest_port)
        except OSError:
            await listeners[0].aclose()
            raise
    listed = believable(_FEW) if contracts is None else contracts
    exchange = Exchange(
        Market(seed, oddities, clock),
        rate=rate,
        ping_limit=ping_limit,
        listing=Listing(dict.fromkeys(listed, ON), contracts is not None, unknown),
        split_bytes=split_bytes,
        shared=shared,
        loss=loss,
        delays=delays,
        records=Records(log, keep),
    )
    async with trio.open_nursery() as nursery:
        exchange.door = Door(nursery, exchange.serve_stream, listeners)
        await exchange.door.open()
        if rest_listeners:
            # Only then, because reading every deal again costs as much as writing it.
            exchange.records.listeners.append(exchange.tape.listen)
            exchange.rest = rest = Rest(exchange, keep)
            rest.door = Door(nursery, rest.serve_stream, rest_listeners)
            await rest.door.open()
        if shared and rate:
            nursery.start_soon(send_shared_deals, exchange)
        yield exchange
        nursery.cancel_scope.cancel()
