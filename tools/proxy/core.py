"""The proxy as tests have it: it takes connections, passes bytes on, and strikes."""

import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from tools.clickhouse import free_port
from tools.proxy.connection import Connection, reset_on_close
from tools.proxy.faults import Armed, Direction, Fault, Kind

LOOPBACK = "127.0.0.1"
CHUNK = 65536


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
                reset_on_close(client)
                return
            async with server:
                await self._serve_both(Connection(client, server))

    async def _serve_both(self, connection: Connection) -> None:
        for direction in self._stalled:
            connection.gates[direction].shut("stall")
        self.connections.append(connection)
        self.history.append(connection)
        try:
            await connection.run(self._pump)
        finally:
            self.connections.remove(connection)
            for armed in self._armed:
                armed.forget(connection)

    async def _pump(self, connection: Connection, direction: Direction) -> None:
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
