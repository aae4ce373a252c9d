"""A TCP port that can be closed and opened again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

HOST: Final = "127.0.0.1"


async def bind(port: int) -> list[trio.SocketListener]:
    """Take a port, 0 being a free one; OSError says that it is taken."""
    return await trio.open_tcp_listeners(port, host=HOST)


@attrs.define(eq=False)
class Door:
    """Accepts connections on a port of this machine, at first on the given listeners."""

    _nursery: trio.Nursery
    _serve: Callable[[trio.SocketStream], Awaitable[object]]
    _listeners: list[trio.SocketListener]
    _listening: trio.CancelScope | None = attrs.field(default=None, init=False)
    _closed: trio.Event = attrs.field(factory=trio.Event, init=False)
    port: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.port = self._listeners[0].socket.getsockname()[1]

    async def open(self) -> None:
        """Accept connections, unless it does so already."""
        if self._listening is None:
            listeners = self._listeners or await bind(self.port)
            self._listeners = []
            await self._nursery.start(self._accept, listeners)

    async def close(self) -> None:
        """Refuse new connections; those that were accepted stay."""
        if self._listening is not None:
            self._listening.cancel()
            await self._closed.wait()

    async def _accept(
        self,
        listeners: list[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self._closed = trio.Event()
        try:
            with trio.CancelScope() as self._listening:
                await trio.serve_listeners(
                    self._serve, listeners, handler_nursery=self._nursery, task_status=task_status
                )
        finally:
            self._listening = None
            self._closed.set()
