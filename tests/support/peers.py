"""What a test serves in the exchange's place: WebSocket frames, TLS, or what it likes."""

import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request


@asynccontextmanager
async def listening(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """Serve what comes on loopback; yields the port."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def trusted_authority(directory: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Make an authority that is trusted as the system's are."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(directory / "ca.pem"))
    return authority


@asynccontextmanager
async def behind_tls(
    serve: Callable[[trio.SSLStream[trio.SocketStream]], Awaitable[None]], authority: trustme.CA
) -> AsyncIterator[int]:
    """Serve what comes over TLS, with a certificate for `localhost`; yields the port."""
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

    async with listening(shake_hands) as port:
        yield port


async def accept(stream: trio.abc.Stream, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """Answer a WebSocket's handshake, with these headers besides."""
    protocol = WSConnection(ConnectionType.SERVER)
    accepted = False
    while not accepted:
        protocol.receive_data(bytes(await stream.receive_some()))
        accepted = any(isinstance(event, Request) for event in protocol.events())
    await stream.send_all(protocol.send(AcceptConnection(extra_headers=[*headers])))


def frame(
    payload: bytes = b"",
    opcode: int = 1,
    *,
    final: bool = True,
    reserved: int = 0,
    masked: bool = False,
    length: str = "shortest",
) -> bytes:
    """Write a WebSocket frame, right or wrong."""
    first = final << 7 | reserved << 4 | opcode
    size, mask = len(payload), masked << 7
    if length == "shortest":
        length = "short" if size < 126 else "two" if size < 65536 else "eight"
    if length == "short":
        head = struct.pack("!BB", first, mask | size & 127)
    elif length == "two":
        head = struct.pack("!BBH", first, mask | 126, size & 0xFFFF)
    else:
        head = struct.pack("!BBQ", first, mask | 127, size)
    return head + (b"\0\0\0\0" if masked else b"") + payload
