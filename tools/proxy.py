"""A TCP proxy that breaks connections at chosen bytes, for tests of what survives it.

In a test:

    async with open_proxy("127.0.0.1", server.tcp_port) as proxy:
        armed = proxy.arm(Fault(Direction.TO_SERVER, 100, Kind.CUT, pattern=b"INSERT"))
        ...                      # a client of proxy.port sends its INSERT
        await armed.fired.wait()

On the command line, until Ctrl-C:

    python -m tools.proxy --listen :9001 --to 127.0.0.1:9000 --fault cut:to-server:100:INSERT

All of the proxy belongs to Trio's thread; another thread calls `trio.from_thread.run_sync`.
"""

import argparse
import enum
import signal
import socket
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import attrs
import trio

from tools.clickhouse import free_port

LOOPBACK = "127.0.0.1"
CHUNK = 65536


class Direction(enum.Enum):
    """Which way bytes travel."""

    TO_SERVER = "to-server"
    TO_CLIENT = "to-client"

    @property
    def opposite(self) -> "Direction":
        """The other way."""
        return Direction.TO_CLIENT if self is Direction.TO_SERVER else Direction.TO_SERVER


class Kind(enum.Enum):
    """What a fault does to its connection."""

    CUT = "cut"  # both sides see a reset
    CLOSE = "close"  # both sides see an orderly end
    HALF_CLOSE = "half-close"  # this direction ends; the other goes on
    STALL = "stall"  # nothing moves any more, nothing ends, until resume()
    DELAY = "delay"  # this direction pauses for `seconds`, once
    SWALLOW = "swallow"  # the client's bytes go on, the answer to them does not arrive; then cut
    REFUSE = "refuse"  # this connection goes on; new ones are refused


@attrs.frozen
class Fault:
    r"""Something to go wrong once `after_bytes` more bytes have travelled in `direction`.

    Bytes count from the moment of arming, over all connections; with a `pattern`, from the end of
    its next appearance, on the connection where it appeared. Exactly the bytes up to the position
    are passed on before the fault strikes. Zero bytes without a pattern strikes when the next byte
    comes, before passing it on.

    `until` is for SWALLOW: the cut waits for an answer that ends with it (default: for any answer).
    `b"\x05"` is ClickHouse's word for a finished query, where progress reports may come before.
    """

    direction: Direction
    after_bytes: int = attrs.field(validator=attrs.validators.ge(0))
    kind: Kind
    pattern: bytes = b""
    seconds: float = 0.0
    until: bytes = b""


@attrs.define(eq=False)
class Armed:
    """A fault that waits for its position; `fired` is set once it has struck."""

    fault: Fault
    fired: trio.Event = attrs.field(init=False, factory=trio.Event)
    _remaining: int = attrs.field(init=False)
    _bound_to: "Connection | None" = attrs.field(init=False, default=None)
    # The last bytes of each connection, for a pattern that arrives in two pieces.
    _tails: "dict[Connection, bytes]" = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._remaining = self.fault.after_bytes

    def due(self, connection: "Connection", data: bytes) -> int | None:
        """Return the offset in `data` at which the fault strikes, None if not within it."""
        start = self._counting_from(connection, data)
        if start is None or start + self._remaining > len(data):
            return None
        return start + self._remaining

    def advance(self, connection: "Connection", data: bytes) -> None:
        """Take notice of bytes that are passed on without the fault striking within them."""
        start = self._counting_from(connection, data)
        if start is not None:
            if self.fault.pattern:
                self._bound_to = connection
            self._remaining -= len(data) - start
        elif self._bound_to is None:
            keep = len(self.fault.pattern) - 1
            tail = self._tails.get(connection, b"") + data
            self._tails[connection] = tail[-keep:] if keep else b""

    def forget(self, connection: "Connection") -> None:
        """Start over with the pattern if its connection ended before the position."""
        self._tails.pop(connection, None)
        if self._bound_to is connection:
            self._bound_to = None
            self._remaining = self.fault.after_bytes

    def _counting_from(self, connection: "Connection", data: bytes) -> int | None:
        """Return the offset in `data` from which bytes count, None if they do not count."""
        if not self.fault.pattern or self._bound_to is connection:
            return 0
        if self._bound_to is not None:
            return None
        tail = self._tails.get(connection, b"")
        found = (tail + data).find(self.fault.pattern)
        return None if found < 0 else found + len(self.fault.pattern) - len(tail)


@attrs.define(eq=False)
class _Gate:
    """Bytes of one direction pass while nobody keeps it shut."""

    _shut_by: set[str] = attrs.field(init=False, factory=set)
    _opened: trio.Event = attrs.field(init=False, factory=trio.Event)

    def shut(self, who: str) -> None:
        self._shut_by.add(who)

    def open(self, who: str) -> None:
        self._shut_by.discard(who)
        if not self._shut_by:
            self._opened.set()
            self._opened = trio.Event()

    async def wait(self) -> None:
        while self._shut_by:
            await self._opened.wait()


def _reset_on_close(stream: trio.SocketStream) -> None:
    if stream.socket.fileno() >= 0:
        # Lingering for zero seconds makes close() send RST in place of FIN.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _per_direction() -> dict[Direction, int]:
    return dict.fromkeys(Direction, 0)


@attrs.define(eq=False)
class Connection:
    """One client's connection through the proxy, with the bytes passed on in each direction."""

    client: trio.SocketStream
    server: trio.SocketStream
    passed: dict[Direction, int] = attrs.field(init=False, factory=_per_direction)
    # What a SWALLOW waits for before it cuts; None while answers are passed on.
    swallowing: bytes | None = attrs.field(init=False, default=None)
    swallowed: bytes = attrs.field(init=False, default=b"")
    gates: dict[Direction, _Gate] = attrs.field(
        init=False, factory=lambda: {direction: _Gate() for direction in Direction}
    )
    _scope: trio.CancelScope = attrs.field(init=False, factory=trio.CancelScope)
    _ended: set[Direction] = attrs.field(init=False, factory=set)

    def source(self, direction: Direction) -> trio.SocketStream:
        """Return the end that bytes of this direction come from."""
        return self.client if direction is Direction.TO_SERVER else self.server

    def sink(self, direction: Direction) -> trio.SocketStream:
        """Return the end that bytes of this direction go to."""
        return self.server if direction is Direction.TO_SERVER else self.client

    def reset(self) -> None:
        """End both sides with a reset. What a side had not yet read of its bytes may be lost."""
        for stream in (self.client, self.server):
            _reset_on_close(stream)
        self.close()

    def close(self) -> None:
        """End both sides in order; what was passed on before still arrives."""
        self.client.socket.close()
        self.server.socket.close()
        self._scope.cancel()

    def has_ended(self, direction: Direction) -> bool:
        """Whether the receiver of this direction was told that nothing more comes."""
        return direction in self._ended

    async def end(self, direction: Direction) -> None:
        """Tell the receiver of this direction, once, that nothing more comes."""
        if direction not in self._ended:
            self._ended.add(direction)
            await self.sink(direction).send_eof()

    async def run(self, proxy: "Proxy") -> None:
        """Pass bytes on until both directions have ended or the connection is cut."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                for direction in Direction:
                    nursery.start_soon(proxy.pump, self, direction)


@attrs.define(eq=False)
class Proxy:
    """The proxy's controls. `open_proxy` makes one and runs it.

    `connections` are the open ones, `history` all of them, `injected` counts what was done to them.
    Every chunk waits for `delay` seconds in either direction.
    """

    target_host: str
    target_port: int
    host: str = LOOPBACK
    port: int = attrs.field(factory=free_port)
    delay: float = 0.0
    connections: list[Connection] = attrs.field(init=False, factory=list)
    history: list[Connection] = attrs.field(init=False, factory=list)
    injected: Counter[Kind] = attrs.field(init=False, factory=Counter)
    _armed: list[Armed] = attrs.field(init=False, factory=list)
    _stalled: set[Direction] = attrs.field(init=False, factory=set)
    _listener: trio.SocketListener | None = attrs.field(init=False, default=None)
    _listening: trio.Event = attrs.field(init=False, factory=trio.Event)

    def arm(self, fault: Fault) -> Armed:
        """Let a fault happen, once, when its position is reached."""
        armed = Armed(fault)
        self._armed.append(armed)
        return armed

    def disarm(self) -> None:
        """Forget all faults that have not struck yet."""
        self._armed.clear()

    def cut(self) -> None:
        """Reset all open connections."""
        for connection in list(self.connections):
            self.injected[Kind.CUT] += 1
            connection.reset()

    def stall(self, *directions: Direction) -> None:
        """Pass nothing on, on open and new connections, until resume(). Default: either way."""
        self._stalled.update(directions or Direction)
        self.injected[Kind.STALL] += 1
        for connection in self.connections:
            for direction in self._stalled:
                connection.gates[direction].shut("stall")

    def resume(self) -> None:
        """End every stall, of whatever origin; what was held back is passed on now."""
        self._stalled.clear()
        for connection in self.connections:
            for gate in connection.gates.values():
                gate.open("stall")

    @property
    def refuse(self) -> bool:
        """Whether new connections are refused, as by a machine where nobody listens."""
        return self._listener is None

    @refuse.setter
    def refuse(self, value: bool) -> None:
        if value and self._listener is not None:
            self.injected[Kind.REFUSE] += 1
            self._listener.socket.close()
            self._listener = None
            self._listening = trio.Event()
        elif not value and self._listener is None:
            self.listen()

    def listen(self) -> None:
        """Take new connections on its port."""
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
            listener.listen()
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        self._listening.set()

    async def run(self) -> None:
        """Take and serve connections until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    await self._listening.wait()
                    if self._listener is None:
                        continue
                    try:
                        client = await self._listener.accept()
                    except trio.ClosedResourceError:
                        continue  # refuse was set meanwhile
                    nursery.start_soon(self._serve, client)
        finally:
            if self._listener is not None:
                self._listener.socket.close()

    async def _serve(self, client: trio.SocketStream) -> None:
        async with client:
            try:
                server = await trio.open_tcp_stream(self.target_host, self.target_port)
            except OSError:
                # A reset is the nearest thing to passing on that nobody listens there.
                _reset_on_close(client)
                return
            async with server:
                await self._serve_both(Connection(client, server))

    async def _serve_both(self, connection: Connection) -> None:
        for direction in self._stalled:
            connection.gates[direction].shut("stall")
        self.connections.append(connection)
        self.history.append(connection)
        try:
            await connection.run(self)
        finally:
            self.connections.remove(connection)
            for armed in self._armed:
                armed.forget(connection)

    async def pump(self, connection: Connection, direction: Direction) -> None:
        """Pass the bytes of one direction on, with the faults that are armed for it."""
        source = connection.source(direction)
        try:
            while data := await source.receive_some(CHUNK):
                if self.delay:
                    await trio.sleep(self.delay)
                while data:
                    data = await self._pass_up_to_fault(connection, direction, data)
            await connection.gates[direction].wait()
            await connection.end(direction)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # One side broke the connection: the other one gets to see that too.
            connection.reset()

    async def _pass_up_to_fault(
        self, connection: Connection, direction: Direction, data: bytes
    ) -> bytes:
        """Pass `data` on up to the first fault in it, if any; return what remains."""
        await connection.gates[direction].wait()
        offset, armed = len(data), None
        for candidate in self._armed:
            if candidate.fault.direction is not direction:
                continue
            due = candidate.due(connection, data)
            if due is not None and (due < offset or armed is None):
                offset, armed = due, candidate
        part, rest = data[:offset], data[offset:]
        if armed is None:
            self._advance(connection, direction, part)
            await self._pass(connection, direction, part)
            return rest
        self._armed.remove(armed)
        self._advance(connection, direction, part)
        # The answer may come quickly: it must not slip through before the fault has struck.
        answers = connection.gates[direction.opposite]
        answers.shut("fault")
        try:
            await self._pass(connection, direction, part)
            await self._strike(armed, connection)
        finally:
            answers.open("fault")
        if armed.fault.kind is Kind.DELAY:
            await trio.sleep(armed.fault.seconds)
        return rest

    def _advance(self, connection: Connection, direction: Direction, part: bytes) -> None:
        for armed in self._armed:
            if armed.fault.direction is direction:
                armed.advance(connection, part)

    async def _pass(self, connection: Connection, direction: Direction, part: bytes) -> None:
        if not part:
            return
        if direction is Direction.TO_CLIENT and connection.swallowing is not None:
            connection.swallowed += part
            if connection.swallowed.endswith(connection.swallowing):
                connection.reset()
        elif not connection.has_ended(direction):
            await connection.sink(direction).send_all(part)
            connection.passed[direction] += len(part)

    async def _strike(self, armed: Armed, connection: Connection) -> None:
        fault = armed.fault
        match fault.kind:
            case Kind.CUT:
                connection.reset()
            case Kind.CLOSE:
                connection.close()
            case Kind.HALF_CLOSE:
                await connection.end(fault.direction)
            case Kind.STALL:
                for gate in connection.gates.values():
                    gate.shut("stall")
            case Kind.SWALLOW:
                connection.swallowing = fault.until
            case Kind.REFUSE:
                self.refuse = True
            case Kind.DELAY:
                pass  # it is the pump that sleeps, once the answers may pass again
        if fault.kind is not Kind.REFUSE:  # which the setter has counted
            self.injected[fault.kind] += 1
        armed.fired.set()


@asynccontextmanager
async def open_proxy(
    target_host: str, target_port: int, *, host: str = LOOPBACK, port: int | None = None
) -> AsyncIterator[Proxy]:
    """Run a proxy in front of a server for as long as the block lasts."""
    proxy = Proxy(target_host, target_port, host, free_port() if port is None else port)
    proxy.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.run)
        try:
            yield proxy
        finally:
            nursery.cancel_scope.cancel()


@attrs.frozen
class _Address:
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
            raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
        return cls(host or LOOPBACK, int(port))


def parse_fault(text: str) -> Fault:
    """Read KIND[=SECONDS]:DIRECTION:BYTES[:PATTERN], as given on the command line."""
    try:
        kind, direction, count, *pattern = text.split(":", maxsplit=3)
        kind, _, seconds = kind.partition("=")
        return Fault(
            Direction(direction),
            int(count),
            Kind(kind),
            pattern="".join(pattern).encode(),
            seconds=float(seconds or 0),
        )
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not KIND[=SECONDS]:DIRECTION:BYTES[:PATTERN] ({error})"
        ) from None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.proxy", description="A TCP proxy with faults, until Ctrl-C."
    )
    parser.add_argument("--listen", type=_Address.parse, required=True, metavar="HOST:PORT")
    parser.add_argument("--to", type=_Address.parse, required=True, metavar="HOST:PORT")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that every chunk waits")
    parser.add_argument(
        "--fault",
        type=parse_fault,
        action="append",
        default=[],
        metavar="KIND[=SECONDS]:DIRECTION:BYTES[:PATTERN]",
        help=f"KIND: {', '.join(kind.value for kind in Kind)}; DIRECTION: to-server, to-client;"
        " BYTES that pass first, counted from PATTERN's end if there is one; may be repeated",
    )
    return parser.parse_args()


async def _announce(armed: Armed) -> None:
    await armed.fired.wait()
    fault = armed.fault
    print(f"{fault.kind.value} after {fault.after_bytes} bytes {fault.direction.value}", flush=True)


async def _run(arguments: argparse.Namespace) -> None:
    listen, to = arguments.listen, arguments.to
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_proxy(to.host, to.port, host=listen.host, port=listen.port) as proxy:
            proxy.delay = arguments.delay
            print(f"{listen.host}:{listen.port} -> {to.host}:{to.port}", flush=True)
            async with trio.open_nursery() as nursery:
                for fault in arguments.fault:
                    nursery.start_soon(_announce, proxy.arm(fault))
                async for _ in signals:
                    nursery.cancel_scope.cancel()
                    break
        for direction in Direction:
            total = sum(connection.passed[direction] for connection in proxy.history)
            print(f"{total} bytes {direction.value}, {len(proxy.history)} connections")


def main() -> int:
    """Run the proxy that the command line describes."""
    arguments = _arguments()
    try:
        trio.run(_run, arguments)
    except OSError as error:
        print(f"proxy: cannot listen on {arguments.listen.host}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
