"""Doors to the exchange that are no exchange's: each costs its own symbol, and nobody else a row.

One recorder has a good symbol, and one for each kind of hostility by a route of its own. What
single frames can do is tried in `test_hostile_frames.py`.
"""

import gzip
import itertools
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import trio

from tests.support.faults import TALLY, compare, opened, recording, stored, stored_gaps
from tests.support.peers import accept

Frames = Callable[[], AsyncGenerator[bytes, None]]
Hostility = Callable[[trio.SocketStream], Awaitable[None]]

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
MIB = 1 << 20


async def endless_headers(stream: trio.SocketStream) -> None:
    """Answer with headers that never end."""
    await stream.send_all(SWITCHING)
    while True:
        await stream.send_all(b"X-More: " + b"x" * 65000 + b"\r\n")


async def dripping_headers(stream: trio.SocketStream) -> None:
    """Answer a byte at a time."""
    for byte in itertools.cycle(SWITCHING):
        await stream.send_all(bytes([byte]))
        await trio.sleep(0.05)


async def silence(stream: trio.SocketStream) -> None:
    """Take the connection and say nothing."""
    await trio.sleep_forever()


async def endless_redirect(stream: trio.SocketStream) -> None:
    """Point to where it is already, with a body that never ends."""
    head = b"HTTP/1.1 302 Found\r\nLocation: /edge\r\nContent-Length: 99999999999\r\n\r\n"
    await stream.send_all(head)
    while True:
        await stream.send_all(bytes(65536))


async def send(stream: trio.SocketStream, frames: Frames) -> None:
    """Be a WebSocket server that listens to nothing and sends these frames."""
    await accept(stream)
    async with aclosing(frames()) as pieces:
        async for piece in pieces:
            await stream.send_all(piece)
    await trio.sleep_forever()


async def nothing() -> AsyncGenerator[bytes, None]:
    """Acknowledge no subscription."""
    return
    yield b""


async def pings() -> AsyncGenerator[bytes, None]:
    """Ask for pongs and read none of them."""
    while True:
        yield (b"\x89\x7d" + bytes(125)) * 500


async def empty_messages() -> AsyncGenerator[bytes, None]:
    """Send messages that hold nothing, of which one read brings as many as it may."""
    while True:
        yield b"\x81\x00" * 32768
        await trio.sleep(5)


async def giants() -> AsyncGenerator[bytes, None]:
    """Send messages of the greatest size."""
    while True:
        yield b"\x81\x7f" + struct.pack("!Q", 64 * MIB)
        for _ in range(64):
            yield b"x" * MIB
        await trio.sleep(5)


async def bombs() -> AsyncGenerator[bytes, None]:
    """Send what unpacks to a thousand times its size."""
    bomb = gzip.compress(bytes(100 * MIB))
    while True:
        yield b"\x82\x7f" + struct.pack("!Q", len(bomb)) + bomb
        await trio.sleep(5)


async def fragments() -> AsyncGenerator[bytes, None]:
    """Send a message that never ends."""
    yield b"\x01\x01x"
    while True:
        yield b"\x00\x7f" + struct.pack("!Q", MIB) + b"x" * MIB


HOSTILE: dict[str, Hostility] = {
    "HEADERS_USDT": endless_headers,
    "DRIPS_USDT": dripping_headers,
    "SILENCE_USDT": silence,
    "REDIRECT_USDT": endless_redirect,
    "NOTHING_USDT": partial(send, frames=nothing),
    "PINGS_USDT": partial(send, frames=pings),
    "EMPTY_USDT": partial(send, frames=empty_messages),
    "GIANTS_USDT": partial(send, frames=giants),
    "BOMBS_USDT": partial(send, frames=bombs),
    "FRAGMENTS_USDT": partial(send, frames=fragments),
}


@asynccontextmanager
async def doors() -> AsyncIterator[dict[str, str]]:
    """Open all of them; give the URL of each symbol's."""

    async def serve(hostility: Hostility, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await hostility(stream)

    urls = {}
    async with trio.open_nursery() as nursery:
        for symbol, hostility in HOSTILE.items():
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            urls[symbol] = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/edge"
            nursery.start_soon(trio.serve_listeners, partial(serve, hostility), [listener])
        yield urls
        nursery.cancel_scope.cancel()


async def test_hostile_doors_cost_their_own_symbol_alone(tmp_path: Path) -> None:
    """Promise 6: of the good symbol nothing is missing, memory is bounded, the log is readable."""
    # A rate that leaves the processor time enough for all of them, on a small machine too.
    with recording(tmp_path, exchange=("--rate", "100", "--oddities", "0")) as (exchange, recorder):
        async with doors() as urls:
            sections = [f"[{symbol}]\nroute = direct via {url}\n" for symbol, url in urls.items()]
            recorder.directory.mkdir()
            (recorder.directory / "settings.ini").write_text("[mexc-trio]\n" + "".join(sections))
            recorder.symbols = ("BTC_USDT", *urls)

            def record() -> None:
                recorder.start()
                recorder.stores(300)
                assert recorder.run_for(6)
                recorder.stores(300)
                memory = recorder.memory()
                assert memory < 700 * MIB, f"{memory // MIB} MiB"
                recorder.stop()

            await trio.to_thread.run_sync(record)
        said = recorder.said()
        assert "Traceback" not in said
        assert len(said.splitlines()) < 400
        with opened(recorder, None):
            found = compare(exchange.connections(), stored(recorder, None))
            gaps = stored_gaps(recorder, None)
        assert len(found.segments) == 1
        assert found.rows == recorder.acked()
        assert [gap for gap in gaps if gap.symbol == "BTC_USDT"] == []
        TALLY.fault("hostile door", len(HOSTILE))
