"""The port on which a recorder answers: it opens it, says where it is, and takes it away.

Nothing that happens here reaches the recorder: a connection that fails is a line in the log, and
the end of the recorder ends every connection at once. The only module that knows hypercorn.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, cast

import attrs
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.live import ADDRESS, display_name
from mexc_trio.clickhouse.window import Window
from mexc_trio.errors import StoreError, UsageError
from mexc_trio.read.http import Interface
from mexc_trio.settings.address import Address

log = logging.getLogger(__name__)

STALLED: Final = 60.0
"""Seconds in which a client has to take a piece of an answer."""
IDLE: Final = 60.0
"""Seconds that a connection is kept for another request."""
CONNECTIONS: Final = 64


async def answer(store: EmbeddedStore, address: Address) -> None:
    """Answer statements about a store over HTTP until cancelled.

    Raises:
        UsageError: the address cannot be listened at.
    """
    try:
        window = await trio.to_thread.run_sync(Window, store)
    except StoreError as error:
        log.warning("SQL is not answered: %s", error)
        return
    application = Interface(window, display_name(store.directory), address.is_loopback)
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    except OSError as error:
        raise UsageError(
            f"--listen {address}: cannot listen there ({error.strerror or error})"
        ) from error
    port = listeners[0].socket.getsockname()[1]
    with _published(store.directory, f"http://{address.reachable(port)}"):
        log.info("answers SQL at http://%s (see --listen)", address.reachable(port))
        await _serve(listeners, application)


@contextmanager
def _published(directory: Path, url: str) -> Iterator[None]:
    """Say in the store's directory where it can be asked, for as long as it can."""
    path = directory / ADDRESS
    fresh = path.with_suffix(".new")
    try:
        fresh.write_text(url + "\n", "ascii")
        os.replace(fresh, path)
    except OSError as error:
        log.warning("%s cannot be written (%s): commands do not find %s", path, error.strerror, url)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()


async def _serve(listeners: list[trio.SocketListener], application: Interface) -> None:
    config = Config()
    config.accesslog = None
    config.errorlog = log
    config.h11_max_incomplete_size = 2**20  # a statement in a URL
    config.keep_alive_timeout = IDLE
    config.include_server_header = False
    context = WorkerContext(None)
    streams: set[_Stream] = set()

    async def handle(socket: trio.SocketStream) -> None:
        stream = _Stream(socket)
        if len(streams) >= CONNECTIONS:
            await trio.aclose_forcefully(socket)
            return
        streams.add(stream)
        try:
            await TCPServer(
                ASGIWrapper(cast("Any", application)),
                config,
                context,
                ConnectionState({}),
                cast("Any", stream),
            )
        except Exception:
            log.exception("a connection to the HTTP interface failed")
        finally:
            streams.discard(stream)
            await trio.aclose_forcefully(socket)

    async def let_go() -> None:
        # Hypercorn shields what it sends, so a client that takes nothing would hold the end up.
        try:
            await trio.sleep_forever()
        finally:
            for stream in streams:
                stream.abort()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_go)
        await trio.serve_listeners(handle, listeners)


@attrs.define(eq=False)
class _Stream:
    """A connection that does not wait for ever to send."""

    _socket_stream: trio.SocketStream
    _sending: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _aborted: bool = attrs.field(default=False, init=False)

    @property
    def socket(self) -> Any:
        """What hypercorn asks for the addresses."""
        return self._socket_stream.socket

    async def send_all(self, data: bytes) -> None:
        """Send; a client that takes it too slowly counts as gone."""
        if not self._aborted:
            with trio.move_on_after(STALLED) as self._sending:
                await self._socket_stream.send_all(data)
                return
        raise trio.BrokenResourceError("the client takes nothing")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive."""
        return bytes(await self._socket_stream.receive_some(max_bytes))

    async def send_eof(self) -> None:
        """Send the end."""
        await self._socket_stream.send_eof()

    async def aclose(self) -> None:
        """Close."""
        await self._socket_stream.aclose()

    def abort(self) -> None:
        """Send no more, not even what is on its way."""
        self._aborted = True
        self._sending.cancel()
