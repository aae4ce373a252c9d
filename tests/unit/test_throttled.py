"""Reading at common moments: nothing is lost, late by more than a moment, or slower in a flood."""

import trio
from trio.testing import MockClock, memory_stream_pair

from mexc_trio.exchange.throttled import READS_PER_SECOND, Throttled

PAUSE = 1 / READS_PER_SECOND


async def test_what_comes_in_a_moment_is_read_together(autojump_clock: MockClock) -> None:
    """A thousand messages a second are fifty reads, complete and in order."""
    exchange, ours = memory_stream_pair()
    stream, reads = Throttled(ours), list[tuple[float, bytes]]()

    async def read() -> None:
        while data := await stream.receive_some(65536):
            reads.append((trio.current_time(), bytes(data)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for n in range(2000):
            await exchange.send_all(b"%6d" % n)
            await trio.sleep(0.001)
        await exchange.aclose()
    assert b"".join(data for _, data in reads) == b"".join(b"%6d" % n for n in range(2000))
    assert READS_PER_SECOND < len(reads) <= 2 * READS_PER_SECOND + 2


async def test_connections_are_read_at_the_same_moments(autojump_clock: MockClock) -> None:
    """So that all their messages share what a turn of the program costs."""
    moments: list[float] = []

    async def read(stream: Throttled) -> None:
        while await stream.receive_some(65536):
            moments.append(round(trio.current_time() / PAUSE, 6))

    async with trio.open_nursery() as nursery:
        pairs = [memory_stream_pair() for _ in range(20)]
        for exchange, ours in pairs:
            await exchange.send_all(b"x")
            nursery.start_soon(read, Throttled(ours))
            await trio.sleep(0.0003)
        await trio.sleep(1)
        for exchange, _ in pairs:
            await exchange.aclose()
    assert len(moments) == 20
    assert all(moment == int(moment) for moment in moments)
    assert len(set(moments)) <= 2


async def test_a_message_after_silence_is_read_at_once(autojump_clock: MockClock) -> None:
    """Only a connection that was just read is left alone for a moment."""
    exchange, ours = memory_stream_pair()
    stream = Throttled(ours)
    async with trio.open_nursery() as nursery:

        async def send_later() -> None:
            await trio.sleep(5.0037)
            await exchange.send_all(b"late")

        nursery.start_soon(send_later)
        began = trio.current_time()
        assert await stream.receive_some() == b"late"
        assert trio.current_time() - began < 5.0038


async def test_a_flood_is_read_without_a_pause(autojump_clock: MockClock) -> None:
    """Bursts beyond what fits a read a moment are taken as fast as they come."""
    exchange, ours = memory_stream_pair()
    stream = Throttled(ours)
    await exchange.send_all(b"x" * (10 << 20))
    began, received = trio.current_time(), 0
    while received < 10 << 20:
        received += len(await stream.receive_some(65536))
    assert trio.current_time() - began <= PAUSE
