"""A server that sends anything: nothing is lost or out of order, memory is bounded, one reason."""

import itertools
import struct
import tracemalloc
from collections.abc import Iterable
from contextlib import suppress

import pytest
import trio
import trio.testing

from mexc_trio.errors import ExchangeError
from mexc_trio.exchange.peeling import AT_ONCE, LONGEST_ANSWER, Take
from mexc_trio.exchange.websocket import speak
from tests.support.peers import accept, frame
from tests.support.running import DEADLINE

URL = "ws://exchange/edge"


async def serve(stream: trio.abc.Stream, pieces: Iterable[bytes], *, hang_up: bool) -> None:
    """Be the server: accept, then send what it is to send."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await accept(stream)
        for piece in pieces:
            await stream.send_all(piece)
        if hang_up:
            await stream.aclose()


async def talk(stream: trio.abc.Stream, take: Take) -> None:
    """Be the recorder."""
    async with speak(stream, URL, trio.current_time() + DEADLINE) as socket:
        await socket.receive(take)


async def heard(pieces: Iterable[bytes], *, hang_up: bool = True) -> tuple[list[bytes], str]:
    """Send what a server may send; return the messages that came, and how it ended."""
    got: list[bytes] = []
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(theirs, pieces, hang_up=hang_up))
        with pytest.raises(ExchangeError) as caught, trio.fail_after(DEADLINE):
            await talk(ours, got.extend)
        nursery.cancel_scope.cancel()
    assert "\n" not in caught.value.reason
    return got, caught.value.reason


GOOD = [b"%d" % n for n in range(5)]
CUT = "connection lost without a close frame"


def around(middle: bytes) -> bytes:
    """Put good frames before and after."""
    return b"".join(map(frame, GOOD)) + middle + b"".join(map(frame, GOOD))


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
async def test_frames_in_any_pieces(step: int) -> None:
    """Control frames amid fragments, plain frames around them: the order is the wire's."""
    whole = around(
        frame(b"a", final=False) + frame(b"?", 9) + frame(b"b", 0, final=False)
        + frame(b"!", 10) + frame(b"c", 0) + frame(b"\x1f\x8b", 2)
    )  # fmt: skip
    got, reason = await heard(whole[at : at + step] for at in range(0, len(whole), step))
    assert got == [*GOOD, b"abc", b"\x1f\x8b", *GOOD]
    assert reason == CUT


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        (frame(b"x", reserved=4), "Reserved bit set unexpectedly"),
        (b"\x81\x81\0\0\0\0x", "client received unexpected masked frame"),
        (frame(b"\xff\xfe"), "codec can't decode"),
        (frame(b"x", 3), "Invalid opcode 0x3"),
        (frame(b"x", 0), "unexpected CONTINUATION"),
        (frame(b"x", 9, final=False), "fragment control frame"),
        (frame(b"x" * 126, 9), "Control frame with payload len > 125"),
        (b"\x81\x7e\x00\x01x", "2 bytes when 1 would have sufficed"),
        (b"\x81\x7f" + bytes(7) + b"\x01x", "8 bytes when 2 would have sufficed"),
        (b"\x81\x7f\xff" + bytes(7), "non-zero MSB"),
    ],
)
async def test_what_breaks_the_protocol(middle: bytes, reason: str) -> None:
    """What came before is kept, nothing after it is believed, and the log says what it was."""
    got, why = await heard([around(middle)], hang_up=False)
    assert got == GOOD
    assert why.startswith("the exchange does not keep to the protocol: ")
    assert reason in why


async def test_a_close_is_the_exchange_s_own() -> None:
    """Not taken for ours, whatever came before."""
    got, why = await heard([around(frame(b"\x03\xf4soon", 8))], hang_up=False)
    assert got == GOOD
    assert why == "closed by the exchange: 1012 SERVICE_RESTART (soon)"


async def test_a_million_empty_frames() -> None:
    """Each is a message; they come in order and are not collected."""
    got, reason = await heard(itertools.repeat(frame(b"") * 10_000, 100))
    assert (len(got), set(got), reason) == (1_000_000, {b""}, CUT)


async def test_the_longest_frame_and_one_that_is_longer() -> None:
    """64 MiB are taken, in bounded memory; of more the end is not waited for."""
    size = 64 * 1024 * 1024
    piece = b"x" * 65536
    head = b"\x81\x7f" + struct.pack("!Q", size)
    pieces = itertools.chain([head], itertools.repeat(piece, size // 65536))
    tracemalloc.start()
    got, reason = await heard(pieces)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [len(one) for one in got] == [size]
    assert reason == CUT
    assert most < 4 * size
    head = b"\x81\x7f" + struct.pack("!Q", 2**40)
    got, reason = await heard(
        itertools.chain([frame(b"good"), head], itertools.repeat(piece, 2000)), hang_up=False
    )
    assert got == [b"good"]
    assert reason == "the exchange sent a message of more than 67,108,864 bytes"


async def test_fragments_without_end() -> None:
    """They end when they are longer than any message."""
    more = frame(b"x" * 65536, 0, final=False)
    pieces = itertools.chain([frame(b"x", final=False)], itertools.repeat(more, 2000))
    got, reason = await heard(pieces, hang_up=False)
    assert got == []
    assert reason == "the exchange sent a message of more than 67,108,864 bytes"


async def test_a_read_of_many_messages_gives_others_their_turn() -> None:
    """Thirty thousand that hold nothing come in one read; nobody waits for all of them."""
    takes: list[int] = []
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(theirs, [frame(b"") * 30_000], hang_up=True))
        with pytest.raises(ExchangeError), trio.fail_after(DEADLINE):
            await talk(ours, lambda messages: takes.append(len(messages)))
    assert sum(takes) == 30_000
    assert max(takes) <= AT_ONCE


async def test_an_answer_to_the_handshake_without_end() -> None:
    """Its end is not waited for, nor is it kept."""

    async def answer(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.send_all(b"HTTP/1.1 302 Found\r\nContent-Length: 999999999\r\n\r\n")
            while True:
                await stream.send_all(bytes(LONGEST_ANSWER // 4))

    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, theirs)
        with (
            pytest.raises(ExchangeError, match="does not come to an end"),
            trio.fail_after(DEADLINE),
        ):
            await talk(ours, lambda messages: None)
        nursery.cancel_scope.cancel()
