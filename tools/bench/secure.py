"""TLS for the load generator: a certificate for this machine, and a record for each message.

That is how the exchange sends, and it matters: who reads one record at a time works on one message
at a time.
"""

import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import trio
import trustme

from tools.bench.plan import HOST


@contextmanager
def certificate() -> Iterator[str]:
    """Lend the file of a certificate whom all processes that are started meanwhile trust."""
    authority = trustme.CA()
    with TemporaryDirectory(prefix="mexc-trio-bench-") as directory:
        trusted, own = Path(directory) / "trusted.pem", Path(directory) / "own.pem"
        authority.cert_pem.write_to_path(str(trusted))
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(str(own))
        before = os.environ.get("SSL_CERT_FILE")
        os.environ["SSL_CERT_FILE"] = str(trusted)
        try:
            yield str(own)
        finally:
            if before is None:
                del os.environ["SSL_CERT_FILE"]
            else:
                os.environ["SSL_CERT_FILE"] = before


@attrs.define(eq=False)
class Plain:
    """A connection without TLS."""

    stream: trio.abc.Stream

    async def shake_hands(self) -> None:
        """Do nothing: there is nothing to agree on."""
        await trio.lowlevel.checkpoint()

    async def send(self, parts: Sequence[bytes]) -> None:
        """Send messages."""
        await self.stream.send_all(b"".join(parts))

    async def receive(self) -> bytes:
        """Receive something; nothing at the end."""
        return bytes(await self.stream.receive_some())


@attrs.define(eq=False)
class Secure:
    """The server's end of TLS, by way of memory, because one write is to hold many records."""

    stream: trio.abc.Stream
    certificate: str
    _received: ssl.MemoryBIO = attrs.field(factory=ssl.MemoryBIO, init=False)
    _to_send: ssl.MemoryBIO = attrs.field(factory=ssl.MemoryBIO, init=False)
    _tls: ssl.SSLObject = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate)
        self._tls = context.wrap_bio(self._received, self._to_send, server_side=True)

    async def shake_hands(self) -> None:
        """Agree on keys."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._read()
            else:
                await self._write()
                return

    async def send(self, parts: Sequence[bytes]) -> None:
        """Send messages, each in a record of its own.

        Raises:
            trio.BrokenResourceError: the other side has left.
        """
        try:
            for part in parts:
                self._tls.write(part)
        except ssl.SSLError as error:
            raise trio.BrokenResourceError from error
        await self._write()

    async def receive(self) -> bytes:
        """Receive something; nothing at the end."""
        while True:
            try:
                return self._tls.read(65536)
            except ssl.SSLWantReadError:
                await self._read()
            except ssl.SSLError:
                return b""

    async def _write(self) -> None:
        if data := self._to_send.read():
            await self.stream.send_all(data)

    async def _read(self) -> None:
        await self._write()
        if data := await self.stream.receive_some():
            self._received.write(data)
        else:
            self._received.write_eof()
