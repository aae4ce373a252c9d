"""TLS in front of whatever a test serves, with a certificate of the test's own authority."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
import trustme


@asynccontextmanager
async def behind_tls(
    serve: Callable[[trio.SSLStream[trio.SocketStream]], Awaitable[None]], authority: trustme.CA
) -> AsyncIterator[int]:
    """Serve what comes over TLS; yields the port, of `localhost`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def shake_hands(stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            await secure.do_handshake()
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(stream)
        else:
            await serve(secure)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, shake_hands, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()
