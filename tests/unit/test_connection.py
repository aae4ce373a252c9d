"""One session after the other: the pauses between them, what is logged, and when it ends."""

import math
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import NoReturn

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from mexc_trio.errors import ExchangeError, Loss
from mexc_trio.exchange import connection
from mexc_trio.exchange.connection import HEALTHY, Connection
from mexc_trio.exchange.counters import FRESH, LineCounters
from mexc_trio.exchange.messages import PING
from mexc_trio.exchange.peeling import Take
from mexc_trio.exchange.session import Endpoint, SessionOptions
from mexc_trio.exchange.websocket import CONNECT_TIMEOUT, Socket
from tests.support.inmemory import URL, Line, Listener, dial_of, no_flush
from tools.exchange import Exchange

BTC, ETH = "BTC_USDT", "ETH_USDT"


def connect(line: Line, *listeners: Listener) -> Connection:
    """Make the connection of some symbols."""
    return Connection([Endpoint(URL, dial_of(line))], listeners, SessionOptions(15, no_flush))


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """List what the connection logged."""
    return [r.getMessage() for r in caplog.records if r.name == connection.__name__]


async def test_reconnects_without_limit_and_further_and_further_apart(
    autojump_clock: MockClock, line: Line, nursery: trio.Nursery
) -> None:
    """An exchange that is away for a day is tried about every 45 seconds, and then found."""
    line.refusals = 1900
    listener = Listener(most_errors=10**6)
    nursery.start_soon(connect(line, listener).run)
    await line.exchange.subscribed(BTC)
    assert len(line.dialled) == 1901
    assert trio.current_time() > 20 * 3600
    pauses = [later - earlier for earlier, later in pairwise(line.dialled)]
    assert all(
        low <= pause <= 2 * low for pause, low in zip(pauses, [1, 2, 4, 8, 16], strict=False)
    )
    assert all(30 <= pause <= 60 for pause in pauses[5:])
    assert max(pauses) - min(pauses[5:]) > 20, "jitter"


async def test_the_next_way_is_taken_unless_the_last_one_has_proved_healthy(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """An endpoint that is dead costs an attempt, and not one after each loss of a good one."""
    dead, good = Line(nursery, exchange, refusals=10**6), line
    endpoints = [Endpoint(URL, dial_of(dead)), Endpoint(URL, dial_of(good))]
    nursery.start_soon(Connection(endpoints, [Listener()], SessionOptions(15, no_flush)).run)
    for lived, dials in [(HEALTHY + 1, (1, 1)), (HEALTHY + 1, (1, 2)), (5.0, (1, 3))]:
        await exchange.subscribed(BTC)
        assert (len(dead.dialled), len(good.dialled)) == dials
        await trio.sleep(lived)
        await exchange.drop()
    await exchange.subscribed(BTC)
    assert (len(dead.dialled), len(good.dialled)) == (2, 4)


class Quiet(Socket):
    """The socket of an exchange that answers pings and says nothing else."""

    def __init__(self) -> None:
        self._pings, self._pinged = trio.open_memory_channel[None](math.inf)

    async def send_message(self, message: str) -> None:
        """Answer it."""
        assert message == PING
        self._pings.send_nowait(None)

    async def receive(self, take: Take) -> NoReturn:
        """Give the pongs."""
        while True:
            await self._pinged.receive()
            take([b'{"channel":"pong","data":1764000000000}'])


class Replaceable(Listener):
    """A feed without channels, of which there may be two."""

    def replacement(self) -> Listener:  # type: ignore[override]
        """Return the same again."""
        return Replaceable(liveness={})


async def test_a_route_that_is_dead_from_the_start_is_warned_of_each_hour(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, nursery: trio.Nursery
) -> None:
    """And counted. The connection by the other route is not touched meanwhile."""
    dialled: dict[str, list[float]] = {"dead": [], "good": []}

    @asynccontextmanager
    async def nobody(url: str) -> AsyncIterator[Socket]:
        dialled["dead"].append(trio.current_time())
        raise ExchangeError(f"cannot connect to {url}")
        yield Quiet()  # which makes it a generator

    @asynccontextmanager
    async def quiet(url: str) -> AsyncIterator[Socket]:
        dialled["good"].append(trio.current_time())
        yield Quiet()

    dead, good = Endpoint("ws://dead/", nobody), Endpoint("ws://good/", quiet)
    feed = Replaceable(liveness={})
    nursery.start_soon(Connection([dead, good], [feed], SessionOptions(15, no_flush)).run)
    await trio.sleep(60)
    assert "cannot connect to ws://dead/; reconnecting" in logged(caplog)[0]
    for hour in range(1, 6):
        caplog.clear()
        await trio.sleep(3600 + CONNECT_TIMEOUT)
        warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert warnings == ["BTC_USDT: no new connection: cannot connect to ws://dead/"]
        assert dead.counters.losses == {Loss.NOT_CONNECTED: 1 + hour}
    assert all(3600 <= b - a < 3660 for a, b in pairwise(dialled["dead"][1:]))
    assert (len(dialled["good"]), good.counters.losses.total(), len(feed.errors)) == (1, 0, 1)


async def test_a_healthy_connection_resets_the_backoff_and_a_short_one_does_not(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Healthy is a minute: connections that break after seconds are tried less and less often."""
    monkeypatch.setattr(random, "random", lambda: 0.0)
    nursery.start_soon(connect(line, Listener()).run)
    lived = [5.0, 5.0, 5.0, HEALTHY - 1, HEALTHY + 1, 5.0]
    pauses = []
    for seconds in lived:
        await exchange.subscribed(BTC)
        await trio.sleep(seconds)
        dropped = trio.current_time()
        await exchange.drop()
        await exchange.subscribed(BTC)
        pauses.append(trio.current_time() - dropped)
    assert pauses == pytest.approx([1, 2, 4, 8, 1, 2])


async def test_a_handshake_that_hangs_is_given_up_and_tried_again(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """And is no sign of health, however long it takes."""
    exchange.handshake = "stall"
    listener = Listener()
    nursery.start_soon(connect(line, listener).run)
    await exchange.until(lambda: exchange.accepted == 8)
    pauses = [later - earlier - CONNECT_TIMEOUT for earlier, later in pairwise(line.dialled)]
    assert pauses[5] >= 30
    exchange.handshake = "accept"
    await exchange.subscribed(BTC)
    assert {error.reason for error in listener.errors} == {f"no connection to {URL} within 15 s"}


@pytest.mark.parametrize(
    ("handshake", "what"),
    [
        ("close", f"{URL} hung up instead of answering the handshake"),
        ("garbage", f"{URL} does not speak WebSocket: "),
        ("403", f"{URL} answers HTTP 403 instead of a WebSocket"),
        ("stall", f"no connection to {URL} within 15 s"),
    ],
)
async def test_each_end_is_one_line_that_says_what_happens_next(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture, handshake: str, what: str,
) -> None:  # fmt: skip
    """No traceback, no second line."""
    exchange.handshake = handshake  # type: ignore[assignment]
    nursery.start_soon(connect(line, Listener()).run)
    await exchange.until(lambda: exchange.accepted == 2)
    (record,) = [r for r in caplog.records if r.name == connection.__name__]
    text = record.getMessage()
    assert text.startswith(f"BTC_USDT: {what}")
    assert re.fullmatch(r"reconnecting in [12]\.\d s", text.split("; ")[-1])
    assert "\n" not in text
    assert record.exc_info is None


async def test_every_symbol_hears_of_the_end_of_its_connection(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Each counts it, one line of the log tells it."""
    btc, eth = Listener(BTC), Listener(ETH)
    nursery.start_soon(connect(line, btc, eth).run)
    await exchange.subscribed(ETH)
    await exchange.drop()
    await exchange.subscribed(ETH)
    assert [len(one.errors) for one in (btc, eth)] == [1, 1]
    (text,) = logged(caplog)
    assert text.startswith("2 symbols: connection lost without a close frame; reconnecting in ")


async def test_a_symbol_that_has_had_enough_is_left_out_of_the_next_connection(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """The others go on."""
    btc, eth = Listener(BTC), Listener(ETH, most_errors=1)
    nursery.start_soon(connect(line, btc, eth).run)
    await exchange.subscribed(ETH)
    await exchange.drop()
    await exchange.subscribed(BTC)
    await trio.testing.wait_all_tasks_blocked()
    assert exchange.symbols == [BTC]


async def test_nobody_left_is_the_end(
    autojump_clock: MockClock, exchange: Exchange, line: Line,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """When all symbols have stopped there is nothing to connect for, and the log says so."""
    line.refusals = 3
    await connect(line, Listener(most_errors=3), Listener(ETH, most_errors=2)).run()
    assert len(line.dialled) == 3
    assert [text.split("; ")[-1][:12] for text in logged(caplog)] == [
        "reconnecting", "reconnecting", "not reconnec",
    ]  # fmt: skip


async def test_an_unknown_contract_is_asked_for_again(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """On this connection and on the next one: it may be refused by mistake."""
    btc, nope = Listener(BTC), Listener("NOPE_USDT")
    nursery.start_soon(connect(line, btc, nope).run)
    await exchange.until(lambda: sum("NOPE" in text for _, text in exchange.requests) == 6)
    assert trio.current_time() == pytest.approx(line.dialled[-1] + 30, abs=1)
    await exchange.drop()
    await exchange.until(lambda: sum("NOPE" in text for _, text in exchange.requests) == 9)


async def test_what_ended_connections_is_counted_by_kind(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """A dashboard tells an exchange that cannot be reached from one that hangs up."""
    connection = connect(line, Listener())
    nursery.start_soon(connection.run)
    await exchange.subscribed(BTC)
    line.refusals = 3
    await exchange.drop()
    await exchange.subscribed(BTC)
    exchange.answer_pings = False
    await exchange.until(lambda: connection.endpoints[0].counters.losses[Loss.NO_PONG] == 1)
    assert connection.endpoints[0].counters.losses == {
        Loss.CLOSED: 1,
        Loss.NOT_CONNECTED: 3,
        Loss.NO_PONG: 1,
    }


async def test_the_exchanges_clock_is_compared_at_pongs(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """A machine whose clock is off gets to know it."""
    connection = connect(line, Listener())
    exchange.market.clock = lambda: int(time.time() * 1000) - 7000
    nursery.start_soon(connection.run)
    await exchange.subscribed(BTC)
    await exchange.until(lambda: connection.endpoints[0].counters.clock is not None)
    look = connection.endpoints[0].counters.clock
    assert look is not None
    assert look.offset == pytest.approx(7, abs=0.5)


async def test_a_quick_look_at_the_clock_is_kept_for_a_minute(autojump_clock: MockClock) -> None:
    """A slow answer says less, but better that than what was true long ago."""
    counters = LineCounters()
    counters.clock_seen(100.0, 107.0, 0.0)
    counters.clock_seen(100.0, 200.0, 5.0)
    assert counters.clock is not None
    assert counters.clock.offset == 7.0
    await trio.sleep(FRESH + 1)
    counters.clock_seen(100.0, 97.0, 2.0)
    assert counters.clock.offset == -2.0


async def test_one_that_joins_is_recorded_on_the_connection_that_there_is(
    autojump_clock: MockClock, line: Line, nursery: trio.Nursery
) -> None:
    """A new listing costs no connection, and its neighbours notice nothing."""
    btc, eth = Listener(BTC), Listener(ETH)
    counters = LineCounters()
    shared = Connection(
        [Endpoint(URL, dial_of(line), counters)], [btc], SessionOptions(15, no_flush)
    )
    nursery.start_soon(shared.run)
    await line.exchange.subscribed(BTC)
    shared.join(eth)
    for sessions in (1, 2):
        for symbol, listener in ((BTC, btc), (ETH, eth)):
            await line.exchange.subscribed(symbol)
            await line.exchange.push(symbol, "deal")
            await listener.until_rows(sessions)
        assert line.exchange.accepted == sessions
        assert counters.symbols == {BTC: 1, ETH: 1}
        assert len(btc.errors) == len(eth.errors) == sessions - 1
        if sessions == 1:
            await line.exchange.drop()
            await trio.sleep(5)


async def test_one_that_has_left_may_join_again(
    autojump_clock: MockClock, line: Line, nursery: trio.Nursery
) -> None:
    """Delisted and listed again at once: it is subscribed to, and the new listener has it all."""
    btc, before, after = Listener(BTC), Listener(ETH), Listener(ETH)
    shared = connect(line, btc, before)
    nursery.start_soon(shared.run)
    await line.exchange.subscribed(ETH)
    before.stopped = True
    shared.join(after)
    await trio.sleep(10)
    await line.exchange.subscribed(ETH)
    await line.exchange.push(ETH, "deal")
    await after.until_rows(1)
    assert not before.rows
    assert line.exchange.accepted == 1
