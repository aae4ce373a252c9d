"""TLS of our own reading against a real OpenSSL: records in any pieces, and every way to end."""

import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
import trustme

from mexc_trio.exchange import tls
from mexc_trio.exchange.tls import TlsStream, open_tls, trusting
from tests.support.peers import trusted_authority

HOST = "localhost"


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Vouch for the servers of a test."""
    return trusted_authority(tmp_path, monkeypatch)


@attrs.define(eq=False)
class Server:
    """The other end, by hand: what is encrypted need not be sent at once, or in one piece."""

    network: trio.abc.Stream
    tls: ssl.SSLObject
    received: ssl.MemoryBIO
    to_send: ssl.MemoryBIO

    async def shake_hands(self) -> None:
        """Be who the client wants to talk to."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                self.received.write(await self.network.receive_some())
            else:
                await self.flush()
                return

    async def flush(self) -> None:
        """Send what is there."""
        if data := self.to_send.read():
            await self.network.send_all(data)

    def record(self, data: bytes) -> bytes:
        """Return a TLS record."""
        self.tls.write(data)
        return self.to_send.read()

    async def heard(self) -> bytes:
        """Receive something."""
        while True:
            try:
                return self.tls.read()
            except ssl.SSLWantReadError:
                self.received.write(await self.network.receive_some())


@asynccontextmanager
async def connected(
    authority: trustme.CA, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> AsyncIterator[tuple[TlsStream, Server]]:
    """Give both ends of a connection over memory."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.maximum_version = version
    authority.issue_cert(HOST).configure_cert(context)
    ours, theirs = trio.testing.memory_stream_pair()
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = Server(
        theirs, context.wrap_bio(received, to_send, server_side=True), received, to_send
    )
    streams: list[TlsStream] = []

    async def dial() -> None:
        streams.append(await open_tls(ours, HOST))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.shake_hands)
        nursery.start_soon(dial)
    yield streams[0], server


async def until_end(stream: TlsStream) -> bytes:
    """Read everything."""
    got = b""
    while data := await stream.receive_some():
        got += data
    return got


async def test_all_records_that_have_come_are_one_read(authority: trustme.CA) -> None:
    """A hundred messages, a record each: one call brings them, and no more than was asked for."""
    async with connected(authority) as (stream, server):
        await server.network.send_all(b"".join(server.record(b"%03d" % n) for n in range(100)))
        assert await stream.receive_some() == b"".join(b"%03d" % n for n in range(100))
        await server.network.send_all(b"".join(server.record(b"%03d" % n) for n in range(100)))
        assert await stream.receive_some(10) == b"0000010020"
        assert len(await stream.receive_some()) == 290


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_records_in_any_pieces(authority: trustme.CA, version: ssl.TLSVersion) -> None:
    """Cut at every byte, or anywhere; short ones, long ones, and longer than a record can be."""
    chance = random.Random(1)
    async with connected(authority, version) as (stream, server):
        sent = b""
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                nonlocal sent
                for size in (1, 3, 500, 16384, 16385, 100_000):
                    data = chance.randbytes(size)
                    sent += data
                    whole = server.record(data)
                    step = 1 if size < 1000 else 997
                    for at in range(0, len(whole), step):
                        await server.network.send_all(whole[at : at + step])
                await server.network.aclose()

            nursery.start_soon(send)
            got = await until_end(stream)
        assert got == sent


async def end_in_a_record(server: Server) -> None:
    """Hang up in the middle."""
    await server.network.send_all(server.record(b"last") + server.record(b"cut off")[:-3])
    await server.network.aclose()


async def end_politely(server: Server) -> None:
    """Say good-bye as TLS has it."""
    data = server.record(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        server.tls.unwrap()
    await server.network.send_all(data + server.to_send.read())


async def end_without_a_word(server: Server) -> None:
    """Hang up between two records."""
    await server.network.send_all(server.record(b"last"))
    await server.network.aclose()


@pytest.mark.parametrize("end", [end_in_a_record, end_politely, end_without_a_word])
async def test_the_end(authority: trustme.CA, end: Callable[[Server], object]) -> None:
    """What came complete is read; then it is over, again and again."""
    async with connected(authority) as (stream, server):
        await end(server)  # type: ignore[misc]
        assert await stream.receive_some() == b"last"
        assert await stream.receive_some() == b""
        assert await stream.receive_some() == b""
        await stream.aclose()


async def test_what_is_no_tls_ends_it_after_what_came_before(authority: trustme.CA) -> None:
    """A record that was changed on the way, with the reason that OpenSSL gives."""
    async with connected(authority) as (stream, server):
        good, broken, more = (bytearray(server.record(text)) for text in (b"1", b"2", b"3"))
        broken[-1] ^= 1
        await server.network.send_all(good + broken + more)
        assert await stream.receive_some() == b"1"
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.receive_some()
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")


async def test_several_send_at_once(authority: trustme.CA) -> None:
    """Each message comes out whole."""
    async with connected(authority) as (stream, server):
        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(stream.send_all, b"%02d" % n * 20_000)
            got = b""
            while len(got) < 20 * 40_000:
                got += await server.heard()
        assert sorted(got[n : n + 40_000] for n in range(0, len(got), 40_000)) == [
            b"%02d" % n * 20_000 for n in range(20)
        ]


async def test_who_was_cancelled_while_sending_ends_sending(authority: trustme.CA) -> None:
    """Half a record may be out, and the other side could make nothing of the next."""
    async with connected(authority) as (stream, _):
        network = stream._transport  # noqa: SLF001 - to stop it
        assert isinstance(network, trio.StapledStream)
        network.send_stream.send_all_hook = trio.sleep_forever
        with trio.move_on_after(0.05) as scope:
            await stream.send_all(b"x")
        assert scope.cancelled_caught
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"y")
        await stream.aclose()


async def test_closing_says_good_bye_and_closes_what_is_below(authority: trustme.CA) -> None:
    """Even if it is closed by force."""
    async with connected(authority) as (stream, server):
        await stream.aclose()
        assert await server.heard() == b""
    async with connected(authority) as (stream, server):
        await trio.aclose_forcefully(stream)
        assert await server.network.receive_some() == b""


def test_authorities_are_read_once(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading them takes a tenth of a second; a new set is noticed all the same."""
    first = trusting()
    assert trusting() is first
    other = tmp_path / "other.pem"
    authority.cert_pem.write_to_path(str(other))
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    assert trusting() is not first
    assert tls.trusting() is trusting()
