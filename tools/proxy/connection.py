"""One client's connection through the proxy: both its ends, and what holds its bytes back."""

import socket
import struct
from collections.abc import Awaitable, Callable

import attrs
import trio

from tools.proxy.faults import Direction


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


def reset_on_close(stream: trio.SocketStream) -> None:
    """Have a stream end with a reset, if it is open."""
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
            reset_on_close(stream)
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

    async def run(self, pump: Callable[["Connection", Direction], Awaitable[None]]) -> None:
        """Pass bytes on until both directions have ended or the connection is cut."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                for direction in Direction:
                    nursery.start_soon(pump, self, direction)
