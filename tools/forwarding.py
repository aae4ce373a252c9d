"""A SOCKS5 and an HTTP proxy (CONNECT) of one's own, which can refuse, stall and cut.

``open_forwarder`` runs one for as long as a block runs; ``python -m tools.forwarding`` as a
program. Written with the protocols' documents only (RFC 1928, 1929 and 9110), so that a mistake of
the recorder's library is not repeated here.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import signal
import struct
from collections.abc import AsyncIterator
from typing import Annotated, Final, Literal

import attrs
import cyclopts
import trio

Kind = Literal["socks5", "http"]
Trouble = Literal["none", "refuse", "stall", "garbage", "hangup"]
"""What new connections meet: ``refuse`` says no in the protocol's own way, ``stall`` never answers,
``garbage`` answers with other bytes, ``hangup`` closes."""

HOST: Final = "127.0.0.1"
_GARBAGE: Final = b"\xff\xfe\x00 220 mail.example.org ESMTP\r\n\r\n" * 20


class _RefusedError(Exception):
    """The client gets no connection, and has been told."""


@attrs.define(eq=False)
class Forwarder:
    """A proxy. These attributes may be changed at any time: ``trouble``, ``user``, ``password``.

    ``asked`` lists what clients wanted to be connected with, as ``host:port``.
    """

    kind: Kind
    user: str = ""
    password: str = ""
    trouble: Trouble = attrs.field(default="none", init=False)
    asked: list[str] = attrs.field(factory=list, init=False)
    port: int = attrs.field(default=0, init=False)
    _open: set[trio.abc.Stream] = attrs.field(factory=set, init=False)

    @property
    def url(self) -> str:
        """The route for the recorder, with user and password."""
        who = f"{self.user}:{self.password}@" if self.user else ""
        return f"{self.kind}://{who}{HOST}:{self.port}"

    async def cut(self) -> None:
        """Break all connections that it carries."""
        for stream in list(self._open):
            await trio.aclose_forcefully(stream)

    async def serve(self, client: trio.SocketStream) -> None:
        """Carry one connection until it ends."""
        self._open.add(client)
        try:
            async with client:
                await self._serve(_Reader(client))
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError, _RefusedError):
            pass  # one of the two ends has gone, or was never there
        finally:
            self._open.discard(client)

    async def _serve(self, client: _Reader) -> None:
        if self.trouble == "hangup":
            return
        if self.trouble == "stall":
            while await client.stream.receive_some():
                pass
            return
        if self.trouble == "garbage":
            await client.stream.receive_some()
            await client.stream.send_all(_GARBAGE)
            return
        host, port = await (self._socks(client) if self.kind == "socks5" else self._http(client))
        self.asked.append(f"{host}:{port}")
        try:
            server = await trio.open_tcp_stream(host, port)
        except OSError:
            await client.stream.send_all(self._answer(ok=False))
            raise
        async with server:
            await client.stream.send_all(self._answer(ok=True))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_carry, client.stream, server, client.rest, nursery)
                nursery.start_soon(_carry, server, client.stream, b"", nursery)

    def _answer(self, *, ok: bool) -> bytes:
        if self.kind == "http":
            status = b"200 Connection established" if ok else b"502 Bad Gateway"
            return b"HTTP/1.1 " + status + b"\r\n\r\n"
        return bytes([5, 0 if ok else 5, 0, 1]) + bytes(6)

    async def _socks(self, client: _Reader) -> tuple[str, int]:
        version, count = await client.exactly(2)
        methods = await client.exactly(count)
        wanted = 2 if self.user else 0
        if version != 5 or wanted not in methods:
            await client.stream.send_all(b"\x05\xff")
            raise _RefusedError
        await client.stream.send_all(bytes([5, wanted]))
        if wanted:
            _, length = await client.exactly(2)
            user = (await client.exactly(length)).decode()
            (length,) = await client.exactly(1)
            password = (await client.exactly(length)).decode()
            right = (user, password) == (self.user, self.password)
            await client.stream.send_all(bytes([1, 0 if right else 1]))
            if not right:
                raise _RefusedError
        _, _, _, kind = await client.exactly(4)
        if kind == 3:
            (length,) = await client.exactly(1)
            host = (await client.exactly(length)).decode()
        else:
            host = str(ipaddress.ip_address(await client.exactly(4 if kind == 1 else 16)))
        (port,) = struct.unpack("!H", await client.exactly(2))
        if self.trouble == "refuse":
            await client.stream.send_all(bytes([5, 2, 0, 1]) + bytes(6))  # not allowed by ruleset
            raise _RefusedError
        return host, port

    async def _http(self, client: _Reader) -> tuple[str, int]:
        head = (await client.until(b"\r\n\r\n")).decode("latin-1")
        method, target, *_ = head.split(" ", 2)
        secret = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        if self.user and f"Basic {secret}" not in head:
            await client.stream.send_all(
                b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                b"Proxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
            )
            raise _RefusedError
        if self.trouble == "refuse" or method != "CONNECT":
            await client.stream.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            raise _RefusedError
        host, _, port = target.rpartition(":")
        return host.strip("[]"), int(port)


@attrs.define
class _Reader:
    """Reads a stream in pieces of the protocol's own size."""

    stream: trio.SocketStream
    rest: bytes = b""

    async def _more(self) -> None:
        data = await self.stream.receive_some()
        if not data:
            raise _RefusedError
        self.rest += data

    async def exactly(self, count: int) -> bytes:
        while len(self.rest) < count:
            await self._more()
        data, self.rest = self.rest[:count], self.rest[count:]
        return data

    async def until(self, end: bytes) -> bytes:
        while end not in self.rest:
            await self._more()
        data, _, self.rest = self.rest.partition(end)
        return data


async def _carry(
    source: trio.abc.Stream, sink: trio.abc.Stream, first: bytes, nursery: trio.Nursery
) -> None:
    """Carry one direction; its end is that of both."""
    if first:
        await sink.send_all(first)
    while data := await source.receive_some(65536):
        await sink.send_all(data)
    nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def open_forwarder(
    kind: Kind, *, user: str = "", password: str = "", port: int = 0
) -> AsyncIterator[Forwarder]:
    """Run a proxy on 127.0.0.1 for as long as the block runs; port 0 takes a free one."""
    forwarder = Forwarder(kind, user, password)
    listeners = await trio.open_tcp_listeners(port, host=HOST)
    forwarder.port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, forwarder.serve, listeners)
        yield forwarder
        nursery.cancel_scope.cancel()


def main(
    kind: Kind = "socks5",
    *,
    port: int = 1080,
    user: str = "",
    password: str = "",
    trouble: Trouble = "none",
    cut_every: Annotated[
        float, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=0))
    ] = 0,
) -> None:
    """Run a SOCKS5 or HTTP (CONNECT) proxy on 127.0.0.1 that may misbehave. Ctrl-C stops it.

    Parameters
    ----------
    kind
        socks5 or http.
    port
        TCP port on 127.0.0.1; 0 takes a free one.
    user
        Whom it lets in; without it, everybody.
    password
        The password.
    trouble
        What connections meet.
    cut_every
        Seconds after which it breaks all that it carries, again and again; 0 is never.

    """

    async def run() -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with open_forwarder(kind, user=user, password=password, port=port) as forwarder:
                forwarder.trouble = trouble
                print(f"Proxy on {kind}://{HOST}:{forwarder.port}", flush=True)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_keep_cutting, forwarder, cut_every)
                    await anext(signals)
                    nursery.cancel_scope.cancel()

    trio.run(run)


async def _keep_cutting(forwarder: Forwarder, seconds: float) -> None:
    while seconds:
        await trio.sleep(seconds)
        await forwarder.cut()


if __name__ == "__main__":
    cyclopts.run(main)
