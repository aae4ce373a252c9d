"""The fault proxy itself: a fault test proves nothing if its fault does not strike as told."""

import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.peers import listening
from tests.support.running import DEADLINE
from tools.clickhouse import free_port
from tools.proxy import Direction, Fault, Kind, Proxy, open_proxy
from tools.proxy.program import parse_fault

TO_SERVER, TO_CLIENT = Direction.TO_SERVER, Direction.TO_CLIENT


@attrs.define
class Echo:
    """A server that sends everything back, and remembers what came and how it ended."""

    received: bytes = b""
    ends: list[str] = attrs.field(factory=list)
    ended: trio.Event = attrs.field(factory=trio.Event)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Echo one connection; note how it ended."""
        try:
            while data := await stream.receive_some():
                self.received += data
                await stream.send_all(data)
            self.ends.append("end")
        except trio.BrokenResourceError:
            self.ends.append("reset")
        self.ended.set()


@asynccontextmanager
async def echo_behind_proxy() -> AsyncIterator[tuple[Echo, Proxy]]:
    """Run an echo server and a proxy in front of it."""
    echo = Echo()
    async with listening(echo.serve) as port, open_proxy("127.0.0.1", port) as proxy:
        yield echo, proxy


async def connect(proxy: Proxy) -> trio.SocketStream:
    """Open a client's connection."""
    return await trio.open_tcp_stream("127.0.0.1", proxy.port)


async def read(stream: trio.SocketStream, count: int) -> bytes:
    """Read exactly so many bytes, fewer only at the end of the stream."""
    data = b""
    while len(data) < count and (more := await stream.receive_some(count - len(data))):
        data += more
    return data


async def nothing_happens() -> None:
    """Wait until nothing happens any more; what the kernel carries may take it a moment."""
    await wait_all_tasks_blocked(0.05)


async def test_passes_everything_on_and_counts_it() -> None:
    """Without a fault the proxy is invisible, for more bytes than any buffer holds, and ends."""
    payload = bytes(range(256)) * 20_000
    with trio.fail_after(DEADLINE):
        async with echo_behind_proxy() as (echo, proxy), await connect(proxy) as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send_all, payload)
                assert await read(client, len(payload)) == payload
            await client.send_eof()
            assert await client.receive_some() == b""
            assert echo.ends == ["end"]
            assert proxy.history[0].passed == {TO_SERVER: len(payload), TO_CLIENT: len(payload)}
            assert not proxy.injected


@pytest.mark.parametrize("position", [0, 1, 5, 9, 10])
async def test_cut_lets_exactly_the_bytes_before_it_through(position: int) -> None:
    """A test that cuts at byte N relies on the server having N bytes: not one fewer or more."""
    with trio.fail_after(DEADLINE):
        async with echo_behind_proxy() as (echo, proxy), await connect(proxy) as client:
            armed = proxy.arm(Fault(TO_SERVER, position, Kind.CUT))
            await client.send_all(b"0123456789")
            await armed.fired.wait()
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
            await echo.ended.wait()
            assert echo.received == b"0123456789"[:position]
            assert echo.ends == ["reset"]
            assert proxy.injected == {Kind.CUT: 1}


async def test_counting_starts_at_arming_and_spans_connections() -> None:
    """Bytes from before arming do not count, those of a second connection do."""
    with trio.fail_after(DEADLINE):
        async with echo_behind_proxy() as (echo, proxy):
            async with await connect(proxy) as first:
                await first.send_all(b"before")
                await read(first, 6)
                armed = proxy.arm(Fault(TO_SERVER, 8, Kind.CUT))
                await first.send_all(b"01234")
                await read(first, 5)
            async with await connect(proxy) as second:
                await second.send_all(b"567890")
                await armed.fired.wait()
                with pytest.raises(trio.BrokenResourceError):
                    await second.receive_some()
            await nothing_happens()
            assert echo.received == b"before01234567"


async def test_orderly_close_delivers_what_was_passed_on() -> None:
    """CLOSE looks like a peer that finished, not like a crash."""
    with trio.fail_after(DEADLINE):
        async with echo_behind_proxy() as (echo, proxy), await connect(proxy) as client:
            proxy.arm(Fault(TO_SERVER, 4, Kind.CLOSE))
            await client.send_all(b"0123")
            assert await client.receive_some() == b""
            await echo.ended.wait()
            assert echo.received == b"0123"


async def test_pattern_in_two_pieces_is_found() -> None:
    """A packet boundary inside the pattern must not hide it, and counting starts behind it."""
    with trio.fail_after(DEADLINE):
        async with echo_behind_proxy() as (echo, proxy), await connect(proxy) as client:
            armed = proxy.arm(Fault(TO_SERVER, 3, Kind.CUT, pattern=b"INSERT"))
            for piece in (b"SELECT 1; INS", b"ER", b"T in", b"to btc"):
                with suppress(trio.BrokenResourceError):  # the last piece may meet the reset
                    await client.send_all(piece)
                await nothing_happens()  # so that each piece travels by itself
            await armed.fired.wait()
            await echo.ended.wait()
            assert echo.received == b"SELECT 1; INSERT in"


async def test_pattern_counts_only_on_its_own_connection() -> None:
    """Another client's bytes do not bring the fault nearer, nor does it strike there."""
    with trio.fail_after(DEADLINE):
        async with (
            echo_behind_proxy() as (_, proxy),
            await connect(proxy) as inserter,
            await connect(proxy) as other,
        ):
            armed = proxy.arm(Fault(TO_SERVER, 4, Kind.CUT, pattern=b"INSERT"))
            await inserter.send_all(b"INSERT12")
            assert await read(inserter, 8) == b"INSERT12"
            await other.send_all(b"1234567890")
            assert await read(other, 10) == b"1234567890"
            assert not armed.fired.is_set()
            await inserter.send_all(b"34")
            await armed.fired.wait()


async def test_pattern_starts_over_when_its_connection_ends() -> None:
    """A fault armed for an INSERT strikes the retry if the first attempt went away by itself."""
    with trio.fail_after(DEADLINE):
        async with echo_behind_proxy() as (echo, proxy):
            armed = proxy.arm(Fault(TO_SERVER, 4, Kind.CUT, pattern=b"INSERT"))
            async with await connect(proxy) as first:
                await first.send_all(b"INSERT12")
                await read(first, 8)
                await first.send_eof()
                await first.receive_some()
            await nothing_happens()
            async with await connect(proxy) as second:
                await second.send_all(b"INSERT1234")
                await armed.fired.wait()
            await nothing_happens()
            assert echo.received == b"INSERT12INSERT1234"


async def test_swallow_hides_the_answer_but_not_the_question() -> None:
    """The server got and answered everything; the client hears of none of it, only the cut."""
    with trio.fail_after(DEADLINE):
        async with echo_behind_proxy() as (echo, proxy), await connect(proxy) as client:
            await client.send_all(b"hello")
            assert await read(client, 5) == b"hello"
            armed = proxy.arm(Fault(TO_SERVER, 0, Kind.SWALLOW, pattern=b"rows", until=b"\x05"))
            await client.send_all(b"rows")
            await armed.fired.wait()
            await client.send_all(b" and more\x05")
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
            assert echo.received == b"hellorows and more\x05"


async def test_stall_keeps_the_connection_open_and_resume_loses_nothing() -> None:
    """A stalled peer is silent, not gone; after resuming not one byte is missing."""
    with trio.fail_after(DEADLINE):
        async with echo_behind_proxy() as (echo, proxy), await connect(proxy) as client:
            armed = proxy.arm(Fault(TO_SERVER, 5, Kind.STALL))
            await client.send_all(b"0123456789")
            await armed.fired.wait()
            await nothing_happens()
            assert echo.received == b"01234"
            assert proxy.history[0].passed[TO_CLIENT] == 0
            proxy.resume()
            assert await read(client, 10) == b"0123456789"


async def test_stall_on_command_holds_new_connections_too() -> None:
    """A frozen server accepts connections (its kernel does) but never answers."""
    with trio.fail_after(DEADLINE):
        async with echo_behind_proxy() as (echo, proxy):
            proxy.stall(TO_CLIENT)
            async with await connect(proxy) as client:
                await client.send_all(b"anyone there?")
                await nothing_happens()
                assert echo.received == b"anyone there?"
                assert proxy.history[0].passed[TO_CLIENT] == 0
                proxy.resume()
                assert await read(client, 13) == b"anyone there?"


async def test_half_close_ends_one_direction_only() -> None:
    """The server sees the end of the questions, the client still gets the answers."""
    with trio.fail_after(DEADLINE):
        async with echo_behind_proxy() as (echo, proxy), await connect(proxy) as client:
            proxy.arm(Fault(TO_SERVER, 4, Kind.HALF_CLOSE))
            await client.send_all(b"0123456789")
            await echo.ended.wait()
            assert await read(client, 4) == b"0123"
            assert echo.received == b"0123"
            assert echo.ends == ["end"]


async def test_delay_holds_bytes_back_but_loses_none(autojump_clock: trio.abc.Clock) -> None:
    """A delay is a delay: the bytes come, that much later."""
    async with echo_behind_proxy() as (_, proxy), await connect(proxy) as client:
        proxy.arm(Fault(TO_SERVER, 4, Kind.DELAY, seconds=30))
        began = autojump_clock.current_time()
        await client.send_all(b"0123456789")
        assert await read(client, 10) == b"0123456789"
        assert autojump_clock.current_time() - began == pytest.approx(30, abs=1)


async def test_refuse_is_a_refusal_and_ends() -> None:
    """Clients must see their connection refused, and the same port again once it is over."""
    with trio.fail_after(DEADLINE):
        async with echo_behind_proxy() as (_, proxy), await connect(proxy) as old:
            await old.send_all(b"old")
            await read(old, 3)
            proxy.refuse = True
            with pytest.raises(OSError, match="all attempts to connect"):
                await connect(proxy)
            await old.send_all(b"still here")
            assert await read(old, 10) == b"still here"
            proxy.refuse = False
            async with await connect(proxy) as new:
                await new.send_all(b"new")
                assert await read(new, 3) == b"new"


async def test_cut_on_command_resets_every_connection() -> None:
    """`cut()` is the network going away for all clients at once; new ones may come."""
    with trio.fail_after(DEADLINE):
        async with (
            echo_behind_proxy() as (_, proxy),
            await connect(proxy) as one,
            await connect(proxy) as two,
        ):
            for client in (one, two):
                await client.send_all(b"x")
                await read(client, 1)
            proxy.cut()
            for client in (one, two):
                with pytest.raises(trio.BrokenResourceError):
                    await client.receive_some()
            assert proxy.injected == {Kind.CUT: 2}
            async with await connect(proxy) as three:
                await three.send_all(b"x")
                assert await read(three, 1) == b"x"


async def test_cut_from_another_thread() -> None:
    """Blocking clients live in threads; from there the controls must work, too."""
    with trio.fail_after(DEADLINE):
        async with echo_behind_proxy() as (_, proxy), await connect(proxy) as client:
            await client.send_all(b"x")
            await read(client, 1)
            await trio.to_thread.run_sync(trio.from_thread.run_sync, proxy.cut)
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()


async def test_faults_in_both_directions_at_once() -> None:
    """Each holds the other direction back while it strikes: that must not become a deadlock."""
    with trio.fail_after(DEADLINE):
        async with echo_behind_proxy() as (_, proxy), await connect(proxy) as client:
            for position in range(100):
                proxy.arm(Fault(TO_SERVER, position * 10, Kind.DELAY))
                proxy.arm(Fault(TO_CLIENT, position * 10, Kind.DELAY))
            await client.send_all(bytes(1000))
            assert await read(client, 1000) == bytes(1000)
            assert proxy.injected == {Kind.DELAY: 200}


async def test_absent_server_looks_like_one_that_went_away() -> None:
    """With nobody behind the proxy a client gets a reset, and the proxy lives on."""
    with trio.fail_after(DEADLINE):
        async with open_proxy("127.0.0.1", free_port()) as proxy:
            for _ in range(2):
                async with await connect(proxy) as client:
                    with pytest.raises(trio.BrokenResourceError):
                        await client.receive_some()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("cut:to-server:100", Fault(TO_SERVER, 100, Kind.CUT)),
        ("cut:to-server:0:INSERT", Fault(TO_SERVER, 0, Kind.CUT, pattern=b"INSERT")),
        ("swallow:to-server:5:a:b", Fault(TO_SERVER, 5, Kind.SWALLOW, pattern=b"a:b")),
        ("delay=0.5:to-client:7", Fault(TO_CLIENT, 7, Kind.DELAY, seconds=0.5)),
    ],
)
def test_faults_on_the_command_line(text: str, fault: Fault) -> None:
    """What the help text promises is what is read."""
    assert parse_fault(text) == fault


def test_command() -> None:
    """The command proxies until Ctrl-C, without a traceback, and explains a bad fault."""
    command = [sys.executable, "-m", "tools.proxy", "--to", f"127.0.0.1:{free_port()}"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [*command, "--listen", f"127.0.0.1:{free_port()}"],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert re.fullmatch(r"127.0.0.1:\d+ -> 127.0.0.1:\d+\n", process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (0, "")
    assert out == "0 bytes to-server, 0 connections\n0 bytes to-client, 0 connections\n"

    bad = subprocess.run(
        [*command, "--listen", ":1", "--fault", "explode:to-server:1"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert bad.returncode == 2
    assert "'explode' is not a valid Kind" in bad.stderr
