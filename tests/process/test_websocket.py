"""Real sockets: every way in which there is no connection, each told in one line, none leaking."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trustme

from mexc_trio.errors import ExchangeError, JournalError
from mexc_trio.exchange import websocket
from mexc_trio.exchange.websocket import Socket, dial
from tests.support.peers import accept, behind_tls, listening, trusted_authority
from tests.support.running import DEADLINE
from tools.exchange import Exchange
from tools.exchange.handshakes import Handshake

pytestmark = pytest.mark.usefixtures("no_socket_is_left_open")

HOST = "127.0.0.1"


async def first_frame(socket: Socket) -> bytes:
    """Wait for one message."""
    frames: list[bytes] = []
    with trio.CancelScope() as scope:

        def take(messages: Sequence[bytes]) -> None:
            frames.extend(messages)
            scope.cancel()

        await socket.receive(take)
    return frames[0]


async def reason_of(url: str) -> str:
    """Dial in vain, and return why."""

    async def talk() -> None:
        async with dial(url) as socket:
            await socket.receive(lambda frame: None)

    with pytest.raises(ExchangeError) as caught, trio.fail_after(DEADLINE):
        await talk()
    assert "\n" not in caught.value.reason
    return caught.value.reason


@pytest.mark.parametrize("throttled", [False, True])
async def test_a_conversation(exchange: Exchange, *, throttled: bool) -> None:
    """What is sent is answered, and leaving closes the connection properly."""
    async with dial(exchange.url, throttled=throttled) as socket:
        await socket.send_message('{"method":"ping"}')
        assert b'"channel":"pong"' in await first_frame(socket)
        assert exchange.connections == 1
    with trio.fail_after(DEADLINE):
        await exchange.until(lambda: exchange.connections == 0)


@pytest.mark.parametrize(
    ("handshake", "reason"),
    [
        ("close", "{} hung up instead of answering the handshake"),
        ("garbage", "{} does not speak WebSocket: "),
        ("403", "{} answers HTTP 403 instead of a WebSocket"),
        ("503", "{} answers HTTP 503 instead of a WebSocket"),
        ("stall", "no connection to {} within 0.2 s"),
    ],
)
async def test_a_handshake_that_fails(
    exchange: Exchange, handshake: Handshake, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each failure by its name; a second try works."""
    exchange.handshake = handshake
    with monkeypatch.context() as patch:
        if handshake == "stall":
            patch.setattr(websocket, "CONNECT_TIMEOUT", 0.2)
        assert (await reason_of(exchange.url)).startswith(reason.format(exchange.url))
    exchange.handshake = "accept"
    async with dial(exchange.url) as socket:
        await socket.send_message('{"method":"ping"}')


async def test_a_wrong_path_is_named(exchange: Exchange) -> None:
    """The answer's status says what is wrong with the URL."""
    url = exchange.url.replace("/edge", "/ws?x=1")
    assert await reason_of(url) == f"{url} answers HTTP 404 instead of a WebSocket"


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (
            b"HTTP/1.1 301 Moved Permanently\r\nLocation: wss://futures.example/edge\r\n",
            "{} redirects to wss://futures.example/edge; give that as --url",
        ),
        (
            b"HTTP/1.1 302 Found\r\nLocation: wss://evil.example/\xc2\x9b2J\r\n",
            "{} redirects to wss://evil.example/\xc2\\x9b2J; give that as --url",
        ),
        (b"HTTP/1.1 301 Moved Permanently\r\n", "{} answers HTTP 301 instead of a WebSocket"),
    ],
)
async def test_a_redirect_says_where_to(head: bytes, reason: str) -> None:
    """The exchange has moved its socket by a redirect before."""

    async def redirect(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(head + b"Content-Length: 0\r\n\r\n")

    async with listening(redirect) as port:
        url = f"ws://{HOST}:{port}/edge"
        assert await reason_of(url) == reason.format(url)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"\x81\x02\xff\xfe", "the exchange does not keep to the protocol: "),
        (b"\xc1\x02hi", "the exchange does not keep to the protocol: "),
        (b"\x83\x00", "the exchange does not keep to the protocol: "),
    ],
    ids=["no UTF-8", "compressed", "no such frame"],
)
async def test_a_close_that_is_ours_is_told_as_ours(frame: bytes, reason: str) -> None:
    """What we cannot read we end; the exchange has not closed anything then."""

    async def speak_badly(stream: trio.SocketStream) -> None:
        async with stream:
            await accept(stream)
            await stream.send_all(frame)
            await stream.receive_some()

    async with listening(speak_badly) as port:
        assert (await reason_of(f"ws://{HOST}:{port}/edge")).startswith(reason)


async def test_an_extension_that_nobody_asked_for() -> None:
    """It is named, instead of the library's state."""

    async def compress(stream: trio.SocketStream) -> None:
        async with stream:
            await accept(stream, [(b"Sec-WebSocket-Extensions", b"permessage-deflate")])
            await stream.receive_some()

    async with listening(compress) as port:
        reason = await reason_of(f"ws://{HOST}:{port}/edge")
    assert reason.endswith("does not speak WebSocket: unrecognized extension permessage-deflate")


async def test_nobody_listens(exchange: Exchange) -> None:
    """The operating system's word for it."""
    await exchange.stop_listening()
    reason = await reason_of(exchange.url)
    assert reason.startswith(f"cannot connect to {exchange.url}: ")
    assert reason.endswith("Connection refused")


async def test_an_unknown_host() -> None:
    """DNS is asked, and says no."""
    url = "ws://no-such-host.invalid/edge"
    reason = await reason_of(url)
    assert reason.startswith(f"cannot connect to {url}: ")
    assert len(reason) > len(f"cannot connect to {url}: ")
    assert "OSError" not in reason


@pytest.mark.parametrize("reset", [True, False])
async def test_a_connection_that_breaks(exchange: Exchange, reset: bool) -> None:
    """By a reset, or by a plain end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_drop_when_open, exchange, reset)
        assert await reason_of(exchange.url) == "connection lost without a close frame"


async def _drop_when_open(exchange: Exchange, reset: bool) -> None:
    await exchange.until(lambda: exchange.connections == 1)
    await exchange.drop(reset=reset)


async def test_a_close_frame(exchange: Exchange) -> None:
    """With its code, its name and its words."""

    async def close() -> None:
        await exchange.until(lambda: exchange.connections == 1)
        await exchange.close(1012, "back soon")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        assert await reason_of(exchange.url) == (
            "closed by the exchange: 1012 SERVICE_RESTART (back soon)"
        )


async def test_a_dead_peer_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who leaves waits a moment for the other side's good-bye, and not for ever."""
    monkeypatch.setattr(websocket, "DISCONNECT_TIMEOUT", 0.1)

    async def answer_and_fall_silent(stream: trio.SocketStream) -> None:
        await accept(stream)
        await trio.sleep_forever()

    async with listening(answer_and_fall_silent) as port:
        with trio.fail_after(DEADLINE):
            async with dial(f"ws://{HOST}:{port}/edge") as socket:
                await socket.send_message("hello")


async def test_errors_of_the_block_pass_as_they_are(exchange: Exchange) -> None:
    """The journal's are no errors of the exchange, and a bug is none of anybody's."""
    with pytest.raises(JournalError, match="disk"):
        async with dial(exchange.url):
            raise JournalError("disk")
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with dial(exchange.url), trio.open_nursery():
            raise ZeroDivisionError
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with dial(exchange.url):
            raise ExceptionGroup("", [ExchangeError("beside it"), ZeroDivisionError()])


async def test_an_error_beside_a_cancellation_is_not_heard(exchange: Exchange) -> None:
    """A group of both is the cancellation alone: who stops the program hears of no error."""
    with trio.CancelScope() as scope:
        async with dial(exchange.url) as socket:
            await exchange.until(lambda: exchange.connections == 1)
            await exchange.drop()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                try:
                    await first_frame(socket)
                finally:
                    scope.cancel()
    assert scope.cancelled_caught


async def test_a_cancelled_dial_leaves_nothing_behind(exchange: Exchange) -> None:
    """In the middle of the handshake, and in the middle of a conversation."""
    exchange.handshake = "stall"
    with trio.move_on_after(0.1) as scope:
        async with dial(exchange.url):
            pass
    assert scope.cancelled_caught
    exchange.handshake = "accept"
    with trio.move_on_after(0.1) as scope:
        async with dial(exchange.url) as socket:
            await first_frame(socket)
    assert scope.cancelled_caught


# --- TLS ---


async def test_tls_that_is_none(exchange: Exchange) -> None:
    """A plain server on a wss URL."""
    url = exchange.url.replace("ws://", "wss://")
    reason = await reason_of(url)
    assert reason.startswith(f"TLS with {url} failed: ")
    assert "BrokenResourceError" not in reason
    assert "_ssl.c" not in reason


async def test_tls_with_a_certificate_nobody_vouches_for(exchange: Exchange) -> None:
    """It is refused, and the log says that it is the certificate."""
    async with behind_tls(exchange.serve_stream, trustme.CA()) as port:
        url = f"wss://localhost:{port}/edge"
        assert (await reason_of(url)).startswith(f"TLS with {url} failed: ")
        assert "certificate verify failed" in await reason_of(url)


@pytest.mark.parametrize("throttled", [False, True])
async def test_tls(
    exchange: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, throttled: bool
) -> None:
    """With a certificate of the system's authorities, as the exchange has.

    A connection that is read fifty times a second still brings more messages than that: one
    read takes all that has come, each of them in a TLS record of its own.
    """
    authority = trusted_authority(tmp_path, monkeypatch)
    pongs, most, asked = 0, 0, 500
    async with (
        behind_tls(exchange.serve_stream, authority) as port,
        dial(f"wss://localhost:{port}/edge", throttled=throttled) as socket,
        trio.open_nursery() as nursery,
    ):

        def take(messages: Sequence[bytes]) -> None:
            nonlocal pongs, most
            pongs += sum(b'"channel":"pong"' in message for message in messages)
            most = max(most, len(messages))
            if pongs == asked:
                nursery.cancel_scope.cancel()

        async def ask() -> None:
            for _ in range(asked):
                await socket.send_message('{"method":"ping"}')

        nursery.start_soon(ask)
        await socket.receive(take)
    assert pongs == asked
    assert most > 1 or not throttled
