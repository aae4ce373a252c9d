"""What a recorder says about itself to machines, and that nobody who asks can do it harm."""

import json
import logging
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock, open_stream_to_socket_listener

from mexc_trio import channels
from mexc_trio.clickhouse.insert_counters import Outcome
from mexc_trio.errors import Loss, StoreRejected
from mexc_trio.exchange.messages import Data
from mexc_trio.metrics import endpoints, page
from mexc_trio.metrics.endpoints import NAMED, readiness
from mexc_trio.metrics.page import render
from mexc_trio.metrics.server import (
    AT_ONCE,
    LONGEST_HEAD,
    PATIENCE,
    WAITING,
    GetPage,
    Response,
    serve,
)
from mexc_trio.metrics.snapshot import Snapshot, SymbolState, take_snapshot
from mexc_trio.record.recording import Recording
from mexc_trio.rows import Cause, Row
from mexc_trio.settings.address import Address
from tools.metrics_cost import Steps, recorder

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(recording: Recording) -> Samples:
    """Return the samples of the page, read as Prometheus would."""
    text = (await render(await take_snapshot(recording), recording.collectors)).decode()
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples, f"twice: {key}"
            samples[key] = sample.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    """Return one sample."""
    return samples[f"mexc_trio_{name}", frozenset(labels.items())]


# The page.


async def test_every_counter_is_there_from_the_start(recording: Recording) -> None:
    """An alert on a rate sees the first event only if there was a zero before it."""
    samples = await scrape(recording)
    for cause in Cause:
        assert value(samples, "gaps_total", cause=cause) == 0
        assert value(samples, "gap_seconds_total", cause=cause) == 0
    for outcome in Outcome:
        assert value(samples, "inserts_total", outcome=outcome) == 0
    for loss in Loss:
        assert value(samples, "reconnects_total", line="1", route="direct", reason=loss) == 0
    for state in SymbolState:
        assert value(samples, "symbols", state=state) == (
            3 if state is SymbolState.RECORDING else 0
        )
    for channel in (*channels.ALL, "other"):
        assert value(samples, "frames_total", channel=channel) == (channel in channels.USUAL) * 3
    assert value(samples, "dead_letters_total") == 0
    assert value(samples, "insert_seconds_count") == 0


async def test_the_page_says_what_came_and_what_waits(recording: Recording) -> None:
    """Its numbers are the recorder's own, read when they are asked for."""
    rows = [Row(1, "d", "1|2|1"), Row(2, "dl", "?")]
    recording.collectors[1].liveness["deal"].note_frame(trio.current_time())
    recording.collectors[1].data(Data("S1_USDT", "deal", rows, 1, 0, ("deal",)))
    recording.collectors[1].data(Data("S1_USDT", "deal", rows[:1], 0, 0))  # closes the gap
    samples = await scrape(recording)
    assert value(samples, "frames_total", channel="deal") == 5
    assert value(samples, "rows_total", channel="deal") == 6
    assert value(samples, "symbol_rows_total", symbol="S1_USDT", channel="deal") == 4
    assert value(samples, "dead_letters_total") == 1
    assert value(samples, "gaps_total", cause="decode errors") == 1
    assert value(samples, "symbol_gaps_total", symbol="S1_USDT") == 1
    assert value(samples, "backlog_rows") == 13  # one of them is the gap
    assert value(samples, "symbol_backlog_rows", symbol="S0_USDT") == 3
    last = value(samples, "last_frame_timestamp_seconds", channel="deal")
    assert last == pytest.approx(time.time(), abs=60)
    assert value(samples, "journal_bytes") > 1000
    assert value(samples, "disk_free_bytes") > value(samples, "disk_bound_bytes") > 0


async def test_a_channel_on_request_is_counted_as_the_others(recording: Recording) -> None:
    """Whoever records that alone is not told that nothing comes."""
    collector = recording.collectors[1]
    collector.record_channels(("deal", "funding"))
    collector.liveness["funding"].note_frame(trio.current_time())
    row = Row(time.time_ns() // 1_000_000 - 2000, "fr", "0.0001")
    collector.data(Data("S1_USDT", "funding", [row], 0, 0))
    samples = await scrape(recording)
    assert value(samples, "recorded_channels") == 3 + 2 + 3
    for name in ("frames_total", "rows_total"):
        assert value(samples, name, channel="funding") == 1
    assert value(samples, "symbol_rows_total", symbol="S1_USDT", channel="funding") == 1
    last = value(samples, "last_frame_timestamp_seconds", channel="funding")
    assert last == pytest.approx(time.time(), abs=5)
    assert value(samples, "exchange_delay_max_seconds", channel="funding") > 1
    assert value(samples, "stored_rows_total", type="fr") == 0


async def test_inserts_are_a_histogram(recording: Recording) -> None:
    """Each bucket counts those of the smaller ones, too; Prometheus takes it for a histogram."""
    counters = recording.store.insert_counters
    for seconds in (0.0005, 0.0005, 0.3, 100.0):
        counters.note(10, seconds, None)
    counters.note(1, 0.1, StoreRejected("no"))
    samples = await scrape(recording)
    assert value(samples, "insert_seconds_bucket", le="0.001") == 2
    assert value(samples, "insert_seconds_bucket", le="0.25") == 3
    assert value(samples, "insert_seconds_bucket", le="0.5") == 4
    assert value(samples, "insert_seconds_bucket", le="+Inf") == 5
    assert value(samples, "insert_seconds_count") == 5
    assert value(samples, "inserts_total", outcome="refused") == 1


async def test_a_scrape_of_many_symbols_lets_others_have_their_turn(tmp_path: Path) -> None:
    """No piece of it has more than a hundred symbols: about a millisecond of everybody's time."""
    with recorder(tmp_path, 1200) as recording:
        steps = Steps(trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(steps)
        await render(await take_snapshot(recording), recording.collectors)
        trio.lowlevel.remove_instrument(steps)
    assert len(steps.taken) > 1200 / page.PIECE * 5


# What is ready.


async def test_what_is_not_ready_is_named(recording: Recording, autojump_clock: MockClock) -> None:
    """A symbol is ready while each channel's silence is shorter than what is usual for it."""
    for collector in recording.collectors:
        for liveness in collector.liveness.values():
            liveness.connected(trio.current_time())
    assert (await take_snapshot(recording)).ready
    recording.collectors[2].stop(StoreRejected("no such table"))
    recording.collectors[1].let_go("nobody wants it")
    await trio.sleep(61)  # tickers come every few seconds
    found = await take_snapshot(recording)
    assert not found.ready
    assert found.troubled == {
        "S0_USDT": "no ticker for 61 s",
        "S2_USDT": "no such table",
    }
    assert found.silent == {"ticker": 1}
    said = readiness(found)
    assert said.status == 503
    assert json.loads(said.body)["not_ready"] == found.troubled
    samples = await scrape(recording)
    assert value(samples, "symbol_ready", symbol="S0_USDT") == 0
    assert ("mexc_trio_symbol_ready", frozenset({("symbol", "S1_USDT")})) not in samples
    assert value(samples, "symbols", state="left") == 1


async def test_a_store_that_is_away_is_not_ready(recording: Recording) -> None:
    """Although recording goes on: somebody should look after it."""
    recording.store.away_since = time.time() - 90
    found = await take_snapshot(recording)
    assert found.troubled == {}
    assert json.loads(readiness(found).body)["store"]["away_seconds"] == pytest.approx(90, abs=5)
    assert readiness(found).status == 503


async def test_many_that_are_not_ready_are_counted(tmp_path: Path) -> None:
    """An answer that nobody can read helps nobody."""
    with recorder(tmp_path, NAMED + 7) as recording:
        for collector in recording.collectors:
            collector.stop(StoreRejected("no such table"))
        said = json.loads(readiness(await take_snapshot(recording)).body)
    assert len(said["not_ready"]) == NAMED
    assert said["more_not_ready"] == 7


# The server.


async def pages(path: str) -> Response | None:
    """Have one page."""
    return Response(b"here\n") if path == "/page" else None


@pytest.fixture
async def listener(nursery: trio.Nursery) -> trio.SocketListener:
    """Serve it on loopback."""
    return await serving(nursery)


async def serving(
    nursery: trio.Nursery, patience: float = PATIENCE, shown: GetPage = pages
) -> trio.SocketListener:
    """Serve pages on loopback from here on."""
    (listener,) = listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(lambda: serve(listeners, shown, local=True, patience=patience))
    return listener


async def ask(listener: trio.SocketListener, request: bytes) -> bytes:
    """Send a request and return all that is answered."""
    async with await open_stream_to_socket_listener(listener) as stream:
        await stream.send_all(request)
        answer = b""
        while piece := await stream.receive_some():
            answer += piece
        return answer


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (b"GET /page HTTP/1.1\r\n\r\n", b"200 OK", b"here\n"),
        (b"GET /page?x=1 HTTP/1.0\r\nHost: 127.0.0.1:9\r\n\r\n", b"200 OK", b"here\n"),
        (b"GET http://[::1]/page HTTP/1.1\r\nHost:[::1]:9\r\n\r\n", b"200 OK", b"here\n"),
        (b"HEAD /page HTTP/1.1\r\nhost: LOCALHOST\r\n\r\n", b"200 OK", b""),
        (b"GET /else HTTP/1.1\r\n\r\n", b"404 Not Found", None),
        (b"GET //[ HTTP/1.1\r\n\r\n", b"404 Not Found", None),
        (b"POST /page HTTP/1.1\r\n\r\n", b"405 Method Not Allowed", None),
        (b"GET /page HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"403 Forbidden", None),
        (b"GET /page HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n", b"403 Forbidden", None),
        (b"\x16\x03\x01 TLS\r\n\r\n", b"400 Bad Request", None),
        (b"x" * (LONGEST_HEAD + 1), b"400 Bad Request", None),
    ],
)
async def test_requests(
    listener: trio.SocketListener, request_: bytes, status: bytes, body: bytes | None
) -> None:
    """Whatever is sent is answered in one way."""
    answer = await ask(listener, request_)
    head, said = answer.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert body is None or said == body


async def test_requests_that_hang_are_let_go(nursery: trio.Nursery) -> None:
    """Whoever says nothing costs nobody else an answer, and is closed after a while."""
    listener = await serving(nursery, patience=600)
    async with AsyncExitStack() as open_:
        hanging = []
        for _ in range(2 * WAITING):
            stream = await open_stream_to_socket_listener(listener)
            hanging.append(await open_.enter_async_context(stream))
            await stream.send_all(b"GET /page HT")
        with trio.fail_after(60):
            assert b"here" in await ask(listener, b"GET /page HTTP/1.1\r\n\r\n")
            await until_closed(hanging[0])
    async with await open_stream_to_socket_listener(await serving(nursery, 0.1)) as stream:
        await until_closed(stream)


async def until_closed(stream: trio.SocketStream) -> None:
    """Wait until the other end has closed, whether it has read all or not."""
    with suppress(trio.BrokenResourceError):
        assert await stream.receive_some() == b""


async def test_more_requests_than_are_answered_at_once(nursery: trio.Nursery) -> None:
    """What costs something is bounded."""

    async def endless(path: str) -> Response | None:
        await trio.sleep_forever()
        raise AssertionError

    listener = await serving(nursery, shown=endless)
    head = b"GET /page HTTP/1.1\r\n\r\n"
    async with AsyncExitStack() as open_:
        for _ in range(AT_ONCE):
            stream = await open_stream_to_socket_listener(listener)
            await (await open_.enter_async_context(stream)).send_all(head)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert b" 503 " in await ask(listener, head)


async def test_who_takes_no_answer_keeps_nobody_from_his(nursery: trio.Nursery) -> None:
    """A large page does not fit between two programs; whoever leaves it there is let go."""

    async def large(path: str) -> Response | None:
        return Response(bytes(16 << 20) if path == "/large" else b"here")

    listener = await serving(nursery, 600, large)
    async with AsyncExitStack() as open_:
        hanging = []
        for _ in range(AT_ONCE + 4):
            stream = await open_stream_to_socket_listener(listener)
            hanging.append(await open_.enter_async_context(stream))
            await stream.send_all(b"GET /large HTTP/1.1\r\n\r\n")
            await stream.receive_some(1)
        with trio.fail_after(60):
            assert b"here" in await ask(listener, b"GET / HTTP/1.1\r\n\r\n")
            assert len(await ask(listener, b"GET /large HTTP/1.1\r\n\r\n")) > 16 << 20
            await until_let_go(hanging[0])


async def until_let_go(stream: trio.SocketStream) -> None:
    """Take what was sent until the other end has closed, and see that it was not all."""
    taken = 0
    with suppress(trio.BrokenResourceError):
        while piece := await stream.receive_some():
            taken += len(piece)
    assert taken < 16 << 20


async def test_a_page_that_fails_is_one_answer_less(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in a page ends no recording; its traceback is in the log."""

    async def broken(path: str) -> Response | None:
        if path == "/broken":
            raise LookupError(path)
        return Response(b"here")

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(lambda: serve(listeners, broken, local=True))
    assert await ask(listeners[0], b"GET /broken HTTP/1.1\r\n\r\n") == b""
    assert b"here" in await ask(listeners[0], b"GET / HTTP/1.1\r\n\r\n")
    assert "LookupError: /broken" in caplog.text


async def test_a_port_that_is_taken_is_a_warning_and_tried_again(
    recording: Recording, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """Recording does not depend on who else listens; the file says where, as long as it is true."""
    caplog.set_level(logging.INFO)
    (taken,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = taken.socket.getsockname()[1]
    recording.settings = attrs.evolve(recording.settings, metrics=Address("127.0.0.1", port))
    path = recording.settings.state_directory / endpoints.FILE
    async with trio.open_nursery() as nursery:
        nursery.start_soon(endpoints.serve_endpoints, recording)
        await trio.sleep(3 * endpoints.TRY_AGAIN + 1)
        (said,) = [record.getMessage() for record in caplog.records]
        assert said.startswith(f"no metrics at 127.0.0.1:{port}: ")
        assert not path.exists()
        await taken.aclose()
        await trio.sleep(endpoints.TRY_AGAIN + 1)
        assert path.read_text() == f"http://127.0.0.1:{port}/metrics\n"
        nursery.cancel_scope.cancel()
    assert not path.exists()


async def test_a_thousand_looks_within_a_second_are_one(
    recording: Recording, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """So that no number of scrapes takes the recorder's time."""
    looks = []

    async def counted(recording: Recording) -> Snapshot:
        looks.append(1)
        return await take_snapshot(recording)

    monkeypatch.setattr(endpoints, "take_snapshot", counted)
    found = endpoints.Pages(recording)
    async with trio.open_nursery() as nursery:
        for path in ["/metrics", "/ready"] * 500:
            nursery.start_soon(found.get, path)
    assert len(looks) == 1
