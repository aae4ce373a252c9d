"""TLS to the exchange: whom it trusts, and a stream that decrypts all that has come at once.

The exchange puts each message into a TLS record of its own, and Trio's `SSLStream` returns one
record a call, each with a turn of Trio's loop: 25 microseconds, where decrypting takes 3. Here one
call reads until nothing is left. OpenSSL does the work, through `ssl.MemoryBIO`, as in Trio's.
"""

import functools
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs
import trio

_RECORD: Final = 16384  # bytes that a record carries at the most
_READ: Final = 65536


def trusting() -> ssl.SSLContext:
    """Return what says who is trusted: the system's authorities, or those of SSL_CERT_FILE.

    Reading them takes a tenth of a second, so it is done again only when they have changed.
    """
    paths = ssl.get_default_verify_paths()
    changed = Path(paths.cafile).stat().st_mtime_ns if paths.cafile else 0
    return _read_authorities(paths.cafile, paths.capath, changed)


@functools.lru_cache(maxsize=1)
def _read_authorities(cafile: str | None, capath: str | None, changed: int) -> ssl.SSLContext:
    context = ssl.create_default_context()
    # Declined, as in TLS 1.3, in which nobody can ask for it: so sending never has to wait until
    # something was received.
    context.options |= ssl.OP_NO_RENEGOTIATION
    # The HTTP client would set it at its first request, and then the socket would speak otherwise.
    context.set_alpn_protocols(["http/1.1"])
    return context


async def open_tls(transport: trio.abc.Stream, host: str) -> "TlsStream":
    """Shake hands over a stream with whoever can prove to be `host`.

    Raises BrokenResourceError if the connection broke or what came is not TLS, `ssl.SSLError` if
    nobody vouches for the other side or there is no common ground; then the caller closes the
    stream.
    """
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trusting().wrap_bio(received, to_send, server_hostname=host)
    stream = TlsStream(transport, received, to_send, tls)
    await stream.shake_hands()
    return stream


@attrs.define(eq=False)
class TlsStream(trio.abc.Stream):
    """The client's end of TLS. One task may receive, and several may send.

    An end without the good-bye of TLS is an end like any other, as on the web: WebSocket has a
    good-bye of its own.
    """

    _transport: trio.abc.Stream
    _received: ssl.MemoryBIO
    _to_send: ssl.MemoryBIO
    _tls: ssl.SSLObject
    _sending: trio.StrictFIFOLock = attrs.field(factory=trio.StrictFIFOLock, init=False)
    # Whether there is nothing more to come; it may be told together with the last of what came.
    _is_over: bool = attrs.field(default=False, init=False)
    # What is wrong with what came, if that is why. OpenSSL tells it once.
    _failure: ssl.SSLError | None = attrs.field(default=None, init=False)
    # Whether something was sent in part, after which nothing that is sent can be understood.
    _is_cut: bool = attrs.field(default=False, init=False)

    async def shake_hands(self) -> None:
        """Agree on keys, and see who it is; see `open_tls`."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._send()
                await self._read()
            except ssl.SSLError:
                await self._send()  # why not
                raise
            else:
                await self._send()
                return

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return all that has come, `max_bytes` (65,536) of it at the most; nothing at the end.

        Raises BrokenResourceError if the connection broke, or what came is not TLS.
        """
        if self._received.pending or self._tls.pending() or self._is_over:
            await trio.lowlevel.checkpoint()
        else:
            await self._read()
        while (data := self._decrypt(max_bytes or _READ)) is None:
            await self._read()
        return data

    def _decrypt(self, most: int) -> bytes | None:
        """Return what has come as far as it is complete; None if that is nothing."""
        parts: list[bytes] = []
        try:
            while most > 0 and not self._is_over:
                part = self._tls.read(min(most, _RECORD))
                parts.append(part)
                most -= len(part)
                self._is_over = not part  # the other side said good-bye
        except ssl.SSLWantReadError:
            if not parts:
                return None
        except ssl.SSLEOFError:
            self._is_over = True
        except ssl.SSLError as error:
            self._is_over, self._failure = True, error
        if self._failure is not None and not parts:
            raise trio.BrokenResourceError from self._failure
        return b"".join(parts)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send; BrokenResourceError if the connection broke, or is over."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.write(view) :]
        except ssl.SSLError as error:  # after the other side's good-bye, or what is no TLS
            raise trio.BrokenResourceError from error
        await self._send()

    async def _send(self) -> None:
        """Send what OpenSSL wants to be sent, in the order in which it wanted it."""
        async with self._sending:
            if self._is_cut:
                raise trio.BrokenResourceError("what was sent before was cut off")
            self._is_cut = True
            await self._transport.send_all(self._to_send.read())
            self._is_cut = False

    async def _read(self) -> None:
        if self._to_send.pending:  # an answer to a change of keys, after what came before it
            with suppress(trio.BrokenResourceError):  # what has come already can be read still
                await self._send()
        data = await self._transport.receive_some(_READ)
        if data:
            self._received.write(data)
        else:
            self._received.write_eof()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until sending is possible."""
        await self._transport.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Say good-bye, without waiting for an answer, and close the stream below."""
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        try:
            await self._send()
        except trio.BrokenResourceError:
            pass
        finally:
            await self._transport.aclose()
