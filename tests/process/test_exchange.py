"""The simulated exchange against a real WebSocket client: protocol, truth and misbehaviour."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
import math
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection

from tests.support.client import BTC, ask, client, receive, subscribe, wrapped
from tests.support.running import DEADLINE
from tools.contract import decimal_text
from tools.exchange import Exchange, Fault, Handshake, open_exchange, read_frames
from tools.market import CHANNELS, MIX, ODDITIES, Channel, Market, Row, truth

ROOT = Path(__file__).parents[2]
HANDSHAKE = (
    b"GET %s HTTP/1.1\r\nHost: exchange\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@contextlib.asynccontextmanager
async def memory_client(exchange: Exchange) -> AsyncIterator[WebSocketConnection]:
    """Connect without a socket, so that trio's clock may jump."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exchange.serve_stream, theirs)
        async with wrapped(ours) as websocket:
            yield websocket


async def answer_to_handshake(exchange: Exchange, path: str = "/edge") -> bytes:
    """Ask for a WebSocket and return all bytes until the exchange closes."""
    stream = await trio.open_tcp_stream("127.0.0.1", exchange.port)
    async with stream:
        with contextlib.suppress(trio.BrokenResourceError):  # it may close before it reads
            await stream.send_all(HANDSHAKE % path.encode())
            return b"".join([part async for part in stream])
        return b""


# --- Requests and replies ---


async def test_acknowledgement_names_channel_but_no_symbol(exchange: Exchange) -> None:
    """As captured: integer ts, and nothing says which contract was meant."""
    async with client(exchange, None) as websocket:
        for channel in CHANNELS:
            await ask(websocket, f"sub.{channel}", symbol=BTC)
            reply = await receive(websocket)
            assert isinstance(reply.pop("ts"), int)
            assert reply == {"channel": f"rs.sub.{channel}", "data": "success"}


async def test_repeated_subscription_is_acknowledged_but_not_doubled(exchange: Exchange) -> None:
    """A recorder may subscribe again without getting everything twice."""
    async with client(exchange) as websocket:
        await ask(websocket, "sub.deal", symbol=BTC)
        assert (await receive(websocket))["channel"] == "rs.sub.deal"
        first, second = await exchange.push(BTC, "deal"), await exchange.push(BTC, "deal")
        assert await websocket.get_message() == first.frame
        assert await websocket.get_message() == second.frame


async def test_unsubscription_is_not_confirmed(exchange: Exchange) -> None:
    """The next thing heard after unsub is the pong, and nobody is left to push to."""
    async with client(exchange) as websocket:
        await ask(websocket, "unsub.deal", symbol=BTC)
        await ask(websocket, "ping")
        assert (await receive(websocket))["channel"] == "pong"
        with pytest.raises(LookupError):
            await exchange.push(BTC, "deal")


@pytest.mark.parametrize("symbol", ["NOPE_USDT", "btc_usdt", "BTCUSDT", "A_B_C"])
async def test_unknown_contract_is_an_error_that_names_it(exchange: Exchange, symbol: str) -> None:
    """Contracts that do not exist, and texts that are no contract."""
    async with client(exchange, None) as websocket:
        await ask(websocket, "sub.deal", symbol=symbol)
        reply = await receive(websocket)
        assert (reply["channel"], reply["data"]) == ("rs.error", f"Contract [{symbol}] not exists")


async def test_explicit_list_of_contracts() -> None:
    """With a list of contracts every other one is unknown."""
    async with open_exchange(contracts=[BTC]) as exchange, client(exchange) as websocket:
        await ask(websocket, "sub.deal", symbol="ETH_USDT")
        assert (await receive(websocket))["channel"] == "rs.error"


@pytest.mark.parametrize(
    "request_text",
    [
        "no json",
        "[]",
        '"ping"',
        '{"method":7}',
        '{"method":"sub.deal"}',
        '{"method":"sub.deal","param":{"symbol":7}}',
        '{"method":"sub.kline","param":{"symbol":"BTC_USDT"}}',
    ],
)
async def test_what_is_not_understood_is_not_answered(
    exchange: Exchange, request_text: str
) -> None:
    """Not even with an error: the next reply is the one to the ping."""
    async with client(exchange, None) as websocket:
        await websocket.send_message(request_text)
        await ask(websocket, "ping")
        assert (await receive(websocket))["channel"] == "pong"


async def test_pong_carries_milliseconds_twice() -> None:
    """Once as data and once as ts, by the injected clock."""
    opened = open_exchange(clock=lambda: 1789498336785)
    async with opened as exchange, client(exchange, None) as websocket:
        await ask(websocket, "ping")
        text = await websocket.get_message()
        assert text == '{"channel":"pong","data":1789498336785,"ts":1789498336785}'


async def test_one_ping_may_be_answered_by_two_pongs_and_a_client_id() -> None:
    """The stray frames that were captured, here with every ping."""
    async with open_exchange(oddities=1) as exchange, client(exchange, None) as websocket:
        await ask(websocket, "ping")
        channels = [(await receive(websocket))["channel"] for _ in range(3)]
        assert channels == ["pong", "pong", "clientId"]


async def test_depth_has_as_many_levels_as_asked_for(exchange: Exchange) -> None:
    """The limit of sub.depth.full, 20 where there is none."""
    async with client(exchange) as websocket:
        await exchange.push(BTC, "depth.full")
        assert len((await receive(websocket))["data"]["bids"]) == 20
        await ask(websocket, "sub.depth.full", symbol=BTC, limit=5)
        await receive(websocket)
        await exchange.push(BTC, "depth.full")
        data = (await receive(websocket))["data"]
        assert (len(data["asks"]), len(data["bids"])) == (5, 5)


async def test_several_symbols_share_one_connection(exchange: Exchange) -> None:
    """The real socket carried all contracts at once."""
    async with client(exchange) as websocket:
        await subscribe(websocket, "ETH_USDT")
        await exchange.subscribed("ETH_USDT")
        assert exchange.symbols == [BTC, "ETH_USDT"]
        await exchange.push("ETH_USDT", "ticker")
        received = [await receive(websocket) for _ in range(4)]
        assert received[-1]["symbol"] == "ETH_USDT"


async def test_other_paths_are_not_found(exchange: Exchange) -> None:
    """Only /edge is the exchange."""
    assert (await answer_to_handshake(exchange, "/ws")).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    "noise",
    [
        b"",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS: somebody typed wss://
        b"GET / HTTP/1.1\r\nHost: exchange\r\n\r\n",
        b"\r\n\r\n",
        HANDSHAKE % b"/edge" + b"\xff\xff\xff\xff",
    ],
)
async def test_noise_on_the_port_does_no_harm(exchange: Exchange, noise: bytes) -> None:
    """Whatever arrives, others are served."""
    async with await trio.open_tcp_stream("127.0.0.1", exchange.port) as stream:
        if noise:
            await stream.send_all(noise)
        await stream.send_eof()
        with contextlib.suppress(trio.BrokenResourceError):
            async for _ in stream:
                pass
    async with client(exchange):
        assert exchange.connections == 1


# --- Streams in memory, under a clock that jumps ---


async def test_connection_without_pings_is_told_and_closed(
    exchange: Exchange, autojump_clock: trio.testing.MockClock
) -> None:
    """Sixty seconds after the last ping, WebSocket pongs notwithstanding."""
    async with memory_client(exchange) as websocket:
        await trio.sleep(50)
        await ask(websocket, "ping")
        assert (await receive(websocket))["channel"] == "pong"
        reply = await receive(websocket)
        assert trio.current_time() == pytest.approx(50 + 60)
        assert reply["channel"] == "rs.error"
        assert reply["data"] == "more than 60 seconds no response, close the channel"
        with pytest.raises(ConnectionClosed):
            await websocket.get_message()


async def test_automatic_frames_come_at_the_rate_and_in_the_mix(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The rate is in frames a second for each symbol, spread over the channels."""
    async with open_exchange(rate=100, ping_limit=1000) as exchange:
        async with memory_client(exchange) as websocket:
            for symbol in (BTC, "ETH_USDT"):
                await subscribe(websocket, symbol)
            with trio.move_on_after(20):
                while True:
                    await websocket.get_message()
        for symbol in (BTC, "ETH_USDT"):
            records = exchange.sent(symbol)
            assert len(records) == pytest.approx(2000, rel=0.01)
            for channel, share in MIX.items():
                frames = sum(record.channel == channel for record in records)
                assert frames == pytest.approx(share * 2000, rel=0.5)


async def test_channels_that_are_not_subscribed_are_not_sent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One channel comes at its own share of the rate."""
    async with open_exchange(rate=100) as exchange, memory_client(exchange) as websocket:
        await ask(websocket, "sub.ticker", symbol=BTC)
        with trio.move_on_after(20):
            while True:
                await websocket.get_message()
        assert len(exchange.sent(BTC)) == pytest.approx(80, rel=0.4)
        assert {record.channel for record in exchange.sent(BTC)} == {"ticker"}


async def test_silence_of_one_channel_leaves_the_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Pings are answered meanwhile; resuming brings the channel back."""
    async with open_exchange(rate=100) as exchange, memory_client(exchange) as websocket:
        exchange.silence(channel="deal")
        await subscribe(websocket, BTC)
        channels = set()
        with trio.move_on_after(10):
            while True:
                channels.add((await receive(websocket))["channel"])
        assert {"push.ticker", "push.depth.full"} < channels
        assert "push.deal" not in channels
        exchange.resume()
        while (await receive(websocket))["channel"] != "push.deal":
            pass


async def test_complete_silence_still_answers_pings(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The half-dead connection that a recorder must notice by itself."""
    async with open_exchange(rate=100) as exchange, memory_client(exchange) as websocket:
        exchange.silence()
        await subscribe(websocket, BTC)
        await trio.sleep(30)
        await ask(websocket, "ping")
        channels = [(await receive(websocket))["channel"] for _ in range(4)]
        assert channels == [*(f"rs.sub.{channel}" for channel in CHANNELS), "pong"]


async def test_slow_client_is_not_queued_for(autojump_clock: trio.testing.MockClock) -> None:
    """A client that stops reading stops the frames, so that memory does not grow."""
    async with open_exchange(rate=100, ping_limit=1000) as exchange:
        ours, theirs = trio.testing.lockstep_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exchange.serve_stream, theirs)
            async with wrapped(ours) as websocket:
                await ask(websocket, "sub.deal", symbol=BTC)
                await trio.sleep(600)
                # What trio-websocket takes in by itself, and then no more.
                assert len(exchange.sent(BTC)) <= 10
                # After 1000 seconds without a ping it is closed, unread frames or not.
                await trio.sleep(500)
                assert exchange.connections == 0


# --- Truth ---


def push(channel: str, data: str, ts: str | None = "1700000000000") -> str:
    """Write a frame by hand."""
    end = "" if ts is None else f',"ts":{ts}'
    return f'{{"symbol":"A_USDT","data":{data},"channel":"push.{channel}"{end}}}'


DEAD = push("deal", '{"p":1,"T":1,"t":5}')
NEWER = push("funding.rate", '{"rate":0.001}')


@pytest.mark.parametrize(
    ("frame", "rows"),
    [
        # One object in place of an array; its own t counts, not the envelope's ts.
        (push("deal", '{"p":39766.5,"v":32,"T":2,"t":7}'), [(7, "d", "39766.5|32|2")]),
        # Newest first on the wire, oldest first in the table.
        (
            push("deal", '[{"p":77526,"v":208,"T":1,"t":9},{"p":77525.90,"v":5,"T":2,"t":8}]'),
            [(8, "d", "77525.90|5|2"), (9, "d", "77526|208|1")],
        ),
        (push("deal", '{"p":9.75E+4,"v":1e0,"T":1,"t":7}'), [(7, "d", "97500|1|1")]),
        (push("deal", '{"p":1.5036E-6,"v":1,"T":1,"t":7}'), [(7, "d", "0.0000015036|1|1")]),
        (
            push("deal", '{"p":25329.000000000000000000000000000000,"v":1,"T":1,"t":7}'),
            [(7, "d", "25329.000000000000000000000000000000|1|1")],
        ),
        (
            push("depth.full", '{"asks":[[0.080550,48,1],[0.08039,1]],"bids":[],"version":1}', "6"),
            [(6, "dp", "|[0.080550,48],[0.08039,1]")],
        ),
        (
            push("ticker", '{"lastPrice":14.022,"fundingRate":-0.000012,"timestamp":5}', None),
            [(5, "t", "14.022||||-0.00001200")],
        ),
        (
            push("ticker", '{"lastPrice":1,"holdVol":5.46E2,"fundingRate":-1.2E-5}', "6"),
            [(6, "t", "1|||546|-0.00001200")],
        ),
        (DEAD, [(1700000000000, "dl", DEAD)]),
        (NEWER, [(1700000000000, "fr", "0.001")]),
        ('{"channel":"rs.sub.deal","data":"success","ts":1}', []),
        ('{"channel":"push.deal","data":[{"p"', None),
        (push("deal", '[{"p":1,"v":1,"T":1,"t":7},{"p":1}]'), None),
        (
            gzip.compress(push("deal", '{"p":1,"v":2,"T":1,"t":7}').encode(), mtime=0),
            [(7, "d", "1|2|1")],
        ),
        (b"\x00\x01", None),
    ],
)
def test_truth_of_odd_frames(frame: str | bytes, rows: list[Row] | None) -> None:
    """The rows of frames written by hand, digit for digit; None where they are not promised."""
    assert truth(frame) == rows


def test_truth_cuts_dead_letters_to_five_hundred_characters() -> None:
    """A dead letter of a long message is its beginning."""
    frame = push("kline", f'"{"x" * 1000}"')
    assert truth(frame) == [(1700000000000, "dl", frame[:500])]


@pytest.mark.parametrize(
    ("channel", "oddity"), [(channel, name) for channel in CHANNELS for name in ODDITIES[channel]]
)
def test_every_oddity_has_known_rows(channel: Channel, oddity: str) -> None:
    """Oddities are odd but sound: each frame is JSON and none is a dead letter."""
    market = Market(seed=3)
    for _ in range(20):
        rows = truth(market.frame("1000BONK_USDT", channel, oddity=oddity))
        assert rows
        assert {mt for _, mt, _ in rows} == {{"ticker": "t", "deal": "d"}.get(channel, "dp")}


def test_no_two_rows_of_a_symbol_are_equal() -> None:
    """Even when the clock stands still: times grow from frame to frame and within one."""
    market = Market(seed=2, oddities=0.5, clock=lambda: 1_700_000_000_000)
    times = []
    for _ in range(2000):
        for ts, _, _ in truth(market.frame(BTC, market.draw_channel(BTC))) or ():
            times.append(ts)
    assert len(times) > 2000
    assert times == sorted(set(times))


def test_same_seed_same_market() -> None:
    """A symbol's frames depend on the seed and on nothing else, other symbols included."""

    def frames(seed: int, *others: str) -> list[str]:
        market = Market(seed, oddities=0.3, clock=lambda: 1_700_000_000_000)
        result = []
        for _ in range(50):
            for other in others:
                market.frame(other, "deal")
            result.append(market.frame(BTC, market.draw_channel(BTC)))
        return result

    assert frames(7) == frames(7, "ETH_USDT")
    assert frames(7) != frames(8)


@pytest.mark.parametrize(
    ("units", "decimals", "text"),
    [
        (775260, 1, "77526"),
        (775259, 1, "77525.9"),
        (15036, 10, "0.0000015036"),
        (-12, 6, "-0.000012"),
        (0, 6, "0"),
        (100, 0, "100"),
    ],
)
def test_decimal_text(units: int, decimals: int, text: str) -> None:
    """Plain digits without trailing zeros."""
    assert decimal_text(units, decimals) == text


async def test_records_are_what_was_received(exchange: Exchange) -> None:
    """Frame for frame, in order, with numbers and rows."""
    async with client(exchange) as websocket:
        for channel in CHANNELS:
            await exchange.push(BTC, channel)
        await exchange.send(BTC, DEAD)
        received = [await websocket.get_message() for _ in range(4)]
    records = exchange.sent(BTC)
    assert [record.frame for record in records] == received
    assert [record.n for record in records] == [1, 2, 3, 4]
    assert all(record.completed and record.connection == 1 for record in records)
    assert exchange.rows(BTC) == [row for record in records for row in record.rows or []]
    assert exchange.rows(BTC)[-1] == (1700000000000, "dl", DEAD)


async def test_two_subscribers_never_share_a_row(exchange: Exchange) -> None:
    """Each connection gets frames of its own, so that the rows tell the connections apart."""
    async with client(exchange) as one, client(exchange) as other:
        await exchange.push(BTC, "deal")
        assert await one.get_message() != await other.get_message()
    rows = exchange.rows(BTC)
    assert len(rows) == len(set(rows))


async def test_log_has_the_line_before_the_frame_is_sent() -> None:
    """What a client has received is in the log, rows and all; noise is there in base64."""
    log = io.StringIO()
    async with open_exchange(log=log, keep=False) as exchange, client(exchange) as websocket:
        record = await exchange.push(BTC, "deal")
        await exchange.send(BTC, b"\xff")
        await websocket.get_message()
        deal, noise = (json.loads(line) for line in log.getvalue().splitlines())
        assert deal == {
            "n": 1,
            "connection": 1,
            "symbol": BTC,
            "channel": "deal",
            "frame": record.frame,
            "rows": [list(row) for row in record.rows or []],
        }
        assert (noise["frame"], noise["base64"], noise["rows"]) == (None, "/w==", None)
        assert exchange.sent(BTC) == []


# --- Misbehaviour ---


@pytest.mark.parametrize("reset", [True, False])
async def test_drop_closes_without_a_close_frame(exchange: Exchange, reset: bool) -> None:
    """All connections break; new ones are welcome."""
    async with client(exchange) as one, client(exchange) as other:
        await exchange.drop(reset=reset)
        assert exchange.connections == 0
        for websocket in (one, other):
            with pytest.raises(ConnectionClosed) as closed:
                await websocket.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1006
    async with client(exchange):
        assert exchange.accepted == 3


async def test_drop_by_reset_resets(exchange: Exchange) -> None:
    """The client's socket sees a reset, and by a plain close an orderly end."""
    for reset in (True, False):
        stream = await trio.open_tcp_stream("127.0.0.1", exchange.port)
        async with stream:
            await stream.send_all(HANDSHAKE % b"/edge")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
            await exchange.until(lambda: exchange.connections == 1)
            await exchange.drop(reset=reset)
            if reset:
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
            else:
                assert await stream.receive_some() == b""


async def test_close_sends_a_close_frame(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code and the reason arrive."""
    monkeypatch.setattr("tools.exchange.connection.CLOSE_SECONDS", math.inf)
    async with client(exchange) as websocket:
        with trio.fail_after(DEADLINE):
            await exchange.close(1001, "maintenance")  # the client's answer is heard
        assert exchange.connections == 0
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.get_message()
        assert closed.value.reason is not None
        assert (closed.value.reason.code, closed.value.reason.reason) == (1001, "maintenance")


async def test_unanswered_pings_and_withheld_acknowledgements(exchange: Exchange) -> None:
    """Requests take effect without a reply."""
    exchange.answer_pings = False
    exchange.withheld_acks |= {"deal"}
    async with client(exchange, None) as websocket:
        await ask(websocket, "ping")
        await subscribe(websocket, BTC)
        await exchange.subscribed(BTC)
        record = await exchange.push(BTC, "deal")
        channels = [(await receive(websocket))["channel"] for _ in range(2)]
        assert channels == ["rs.sub.ticker", "rs.sub.depth.full"]
        assert await websocket.get_message() == record.frame
    assert exchange.requests[0] == (1, '{"method": "ping"}')


async def test_refused_connections(exchange: Exchange) -> None:
    """The port is closed, open connections stay, and the port is the same afterwards."""
    async with client(exchange) as websocket:
        await exchange.stop_listening()
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", exchange.port)
        record = await exchange.push(BTC, "deal")
        assert await websocket.get_message() == record.frame
        await exchange.listen()
        async with client(exchange):
            assert exchange.connections == 2


@pytest.mark.parametrize(
    ("handshake", "beginning"),
    [
        ("close", b""),
        ("garbage", b"\x15\x03\x01"),
        ("403", b"HTTP/1.1 403 "),
        ("503", b"HTTP/1.1 503 "),
    ],
)
async def test_failed_handshakes(
    exchange: Exchange, handshake: Handshake, beginning: bytes
) -> None:
    """Each ends with the connection; later ones are served again."""
    exchange.handshake = handshake
    answer = await answer_to_handshake(exchange)
    assert answer.startswith(beginning)
    assert bool(answer) == bool(beginning)
    assert (b"<html>" in answer) == handshake.isdigit()
    exchange.handshake = "accept"
    async with client(exchange):
        assert (exchange.connections, exchange.accepted) == (1, 2)


async def test_stalled_handshake_is_never_answered(exchange: Exchange) -> None:
    """TCP is accepted and nothing ever comes; later connections are served again."""
    exchange.handshake = "stall"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_to_handshake, exchange)
        await exchange.until(lambda: exchange.accepted == 1)
        exchange.handshake = "accept"
        async with client(exchange):
            assert exchange.connections == 1
        nursery.cancel_scope.cancel()


async def test_bytes_one_by_one() -> None:
    """Frames and handshake arrive whole although every byte travels alone."""
    async with open_exchange(split_bytes=True) as exchange, client(exchange) as websocket:
        record = await exchange.push(BTC, "depth.full")
        assert await websocket.get_message() == record.frame


@pytest.mark.parametrize("kind", ["brokenjson", "binary", "gzip", "huge"])
async def test_odd_payload_faults(exchange: Exchange, kind: str) -> None:
    """Each is sent once to each subscribed symbol, in its kind of frame."""
    async with client(exchange) as websocket:
        await Fault.parse(f"{kind}@0").strike(exchange)
        (record,) = exchange.sent(BTC)
        assert await websocket.get_message() == record.frame
        assert isinstance(record.frame, bytes) == (kind in ("binary", "gzip"))
        assert (record.rows is None) == (kind in ("brokenjson", "binary"))
        assert (len(record.frame) > 2**21) == (kind == "huge")


async def test_fault_ends_after_its_duration(
    exchange: Exchange, autojump_clock: trio.testing.MockClock
) -> None:
    """It strikes at its second and is over after its duration."""
    async with trio.open_nursery() as nursery:
        for text in ("nopong@5:10", "noack/deal@6:2", "stall@20:1"):
            nursery.start_soon(Fault.parse(text).strike, exchange)
        await trio.sleep(7)
        assert not exchange.answer_pings
        assert exchange.withheld_acks == {"deal"}
        await trio.sleep(13.5)
        assert exchange.answer_pings
        assert not exchange.withheld_acks
        assert exchange.handshake == "stall"
    assert exchange.handshake == "accept"


@pytest.mark.parametrize("text", ["drop", "drop@", "drop@x", "what@5", "silent/x@5", "drop/deal@5"])
def test_bad_fault_is_named(text: str) -> None:
    """The message carries what was typed."""
    with pytest.raises(ValueError, match=text.split("@")[0].split("/")[0]):
        Fault.parse(text)


# --- Replay ---


async def test_replay_sends_lines_in_order_with_unknown_rows(
    exchange: Exchange, tmp_path: Path
) -> None:
    """The text of the file goes out unchanged, to those who subscribed."""
    lines = [push("deal", f'{{"p":{i}.0,"v":1,"T":1,"t":{i}}}') for i in range(1, 200)]
    path = tmp_path / "frames.jsonl"
    path.write_text("\n".join(lines) + "\n")
    async with client(exchange, "A_USDT") as websocket, trio.open_nursery() as nursery:
        nursery.start_soon(exchange.replay, read_frames(path))
        assert [await websocket.get_message() for _ in lines] == lines
    assert exchange.rows("A_USDT") == []
    assert all(record.rows is None for record in exchange.sent("A_USDT"))


def test_replay_file_with_a_bad_line(tmp_path: Path) -> None:
    """The error names the line."""
    path = tmp_path / "frames.jsonl"
    path.write_text(NEWER + '\n\n{"channel":"pong"}\n')
    with pytest.raises(ValueError, match="line 3"):
        read_frames(path)


# --- The program ---


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the program on a free port until the block ends; gives its URL."""
    command = [sys.executable, "-W", "error", "-m", "tools.exchange", "--port", "0", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("Simulated exchange on ws://127.0.0.1:")
            yield process, line.split()[-1]
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_program_sends_logs_and_stops(tmp_path: Path, number: signal.Signals) -> None:
    """One line when it accepts, a log of what it sent, and a summary when it is stopped."""
    log = tmp_path / "log.jsonl"
    with program("--rate", "500", "--oddities", "0.3", "--log", str(log)) as (process, url):
        port = int(url.split(":")[-1].removesuffix("/edge"))
        async with wrapped(await trio.open_tcp_stream("127.0.0.1", port)) as websocket:
            await subscribe(websocket, BTC)
            messages = [await websocket.get_message() for _ in range(300)]
            process.send_signal(number)
            with contextlib.suppress(ConnectionClosed):
                while True:
                    messages.append(await websocket.get_message())
        output, errors = await trio.to_thread.run_sync(process.communicate)
        assert process.returncode == 0, errors
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    pushed = [message for message in messages if "rs.sub" not in str(message)]
    assert pushed == [entry["frame"] for entry in logged][: len(pushed)]
    assert all(entry["rows"] for entry in logged)
    assert output.startswith(f"Sent {len(logged):,} frames over 1 connections in ")


def test_program_says_when_the_port_is_taken(tmp_path: Path) -> None:
    """One line on stderr that says what to do, exit code 2, no traceback; the log is kept."""
    log = tmp_path / "log.jsonl"
    with program("--log", str(log)) as (_, url):
        port = url.split(":")[-1].removesuffix("/edge")
        log.write_text("what the first one sent\n")
        command = [sys.executable, "-m", "tools.exchange", "--port", port, "--log", str(log)]
        second = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert second.returncode == 2
    assert second.stdout == ""
    assert second.stderr.count("\n") == 1
    assert port in second.stderr
    assert log.read_text() == "what the first one sent\n"


def test_program_names_a_bad_fault() -> None:
    """A typing error is found before anything listens."""
    command = [sys.executable, "-m", "tools.exchange", "--fault", "dorp@5"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert outcome.returncode == 2
    assert "dorp" in outcome.stderr
    assert outcome.stdout == ""


def test_merged_deals_are_the_same_trades() -> None:
    """Neighbours at one price and of one direction are one deal, of the volume of all."""
    alone, merged = (
        Market(seed=3, clock=itertools.count(10**12).__next__),
        Market(seed=3, clock=itertools.count(10**12).__next__),
    )
    fewer = 0
    for _ in range(200):
        ours = json.loads(alone.frame(BTC, "deal", oddity="batch"))["data"]
        theirs = json.loads(merged.frame(BTC, "deal", oddity="batch", merged=True))["data"]
        fewer += len(ours) - len(theirs)
        assert sum(deal["v"] for deal in ours) == sum(deal["v"] for deal in theirs)
        assert theirs == [
            deal | {"v": whole["v"]}
            for deal, whole in zip(
                [one for n, one in enumerate(ours) if n == 0 or not same(ours[n - 1], one)],
                theirs,
                strict=True,
            )
        ]
    assert fewer > 100


def same(one: dict[str, int], other: dict[str, int]) -> bool:
    """Whether two deals are merged."""
    return (one["p"], one["T"]) == (other["p"], other["T"])
