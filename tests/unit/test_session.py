"""One connection in virtual time: pings, acknowledgements, silence, and whose frame is whose."""

import json
import logging
from collections.abc import Callable, Sequence

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from mexc_trio.channels import ALL
from mexc_trio.errors import ExchangeError, Loss
from mexc_trio.exchange import subscribing
from mexc_trio.exchange.session import PONG_TIMEOUT, Endpoint, SessionOptions, run_session
from mexc_trio.exchange.subscribing import ACK_TIMEOUT, DealMode
from tests.support.inmemory import URL, Line, Listener, dial_of, no_flush
from tools.exchange import Exchange
from tools.exchange.state import Unmerged
from tools.market import Channel

BTC, ETH, SOL = "BTC_USDT", "ETH_USDT", "SOL_USDT"
SENT: tuple[Channel, ...] = ("ticker", "deal", "depth.full")


def start(
    nursery: trio.Nursery, line: Line, *listeners: Listener, ping_interval: float = 15
) -> Callable[[], ExchangeError | None]:
    """Begin a session; the returned function says how it has ended, None while it has not."""
    ends: list[ExchangeError] = []

    async def run() -> None:
        try:
            await run_session(
                Endpoint(URL, dial_of(line)), listeners, SessionOptions(ping_interval, no_flush)
            )
        except ExchangeError as error:
            ends.append(error)

    nursery.start_soon(run)
    return lambda: ends[0] if ends else None


async def end_of(line: Line, *listeners: Listener, ping_interval: float = 15) -> tuple[str, float]:
    """Run a session to its end; return why it ended, and after how many seconds."""
    began = trio.current_time()
    with pytest.raises(ExchangeError) as caught:
        await run_session(
            Endpoint(URL, dial_of(line)), listeners, SessionOptions(ping_interval, no_flush)
        )
    return caught.value.reason, trio.current_time() - began


def times_of(exchange: Exchange, monkeypatch: pytest.MonkeyPatch, method: str) -> list[float]:
    """Note when requests of a method are received."""
    times: list[float] = []

    class Noting(list[tuple[int, str]]):
        def append(self, request: tuple[int, str]) -> None:
            if json.loads(request[1])["method"] == method:
                times.append(trio.current_time())
            super().append(request)

    monkeypatch.setattr(exchange, "requests", Noting())
    return times


async def keep_pushing(
    exchange: Exchange, symbol: str, *channels: Channel, every: float = 1.0
) -> None:
    """Be a market of some channels."""
    while True:
        for channel in channels:
            await exchange.push(symbol, channel)
        await trio.sleep(every)


# --- Pings ---


@pytest.mark.parametrize("interval", [0.5, 5.0, 15.0])
@pytest.mark.parametrize("busy", [False, True])
async def test_pings_keep_their_beat_whatever_else_flows(
    autojump_clock: MockClock,
    exchange: Exchange,
    line: Line,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    interval: float,
    busy: bool,
) -> None:
    """The exchange closes a socket without pings even while data flows on it."""
    times = times_of(exchange, monkeypatch, "ping")
    began = trio.current_time()
    ended = start(nursery, line, Listener(), ping_interval=interval)
    await exchange.subscribed(BTC)
    nursery.start_soon(lambda: keep_pushing(exchange, BTC, *SENT, every=0.3 if busy else 50))
    await trio.sleep(20 * interval)
    due = [began + n * interval for n in range(20)]
    assert times[:20] == pytest.approx(due, abs=0.01)
    assert ended() is None


async def test_a_missing_pong_ends_the_session(
    autojump_clock: MockClock, exchange: Exchange, line: Line
) -> None:
    """Ten seconds after the ping that nobody answered."""
    exchange.answer_pings = False
    reason, after = await end_of(line, Listener())
    assert reason == "no pong within 10 s"
    assert after == pytest.approx(PONG_TIMEOUT, abs=0.01)


@pytest.mark.parametrize("interval", [2.0, 15.0])
async def test_a_pong_that_goes_missing_later(
    autojump_clock: MockClock,
    exchange: Exchange,
    line: Line,
    nursery: trio.Nursery,
    interval: float,
) -> None:
    """It is the first unanswered ping that counts, however often more are sent."""
    ended = start(nursery, line, Listener(), ping_interval=interval)
    await exchange.subscribed(BTC)
    nursery.start_soon(lambda: keep_pushing_until(ended, exchange, *SENT))
    await trio.sleep(20 * interval + 1)
    exchange.answer_pings = False
    await trio.sleep(interval - 1 + PONG_TIMEOUT - 0.1)
    assert ended() is None
    await trio.sleep(0.2)
    assert str(ended()) == "no pong within 10 s"


async def test_two_pongs_and_a_client_id_are_harmless(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """They happen; the unknown frame counts as skipped."""
    exchange.market.oddities = 1.0
    listener = Listener()
    ended = start(nursery, line, listener)
    await exchange.subscribed(BTC)
    await trio.sleep(100)
    assert "silent" in str(ended()), "nothing else was wrong"
    assert listener.skips == 6  # pings at 0, 15, ... 75 seconds
    assert listener.rows == []


# --- Subscriptions ---


@pytest.mark.parametrize("symbols", [(BTC,), (BTC, ETH)])
async def test_subscriptions_are_confirmed_in_the_log(
    autojump_clock: MockClock,
    exchange: Exchange,
    line: Line,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    symbols: Sequence[str],
) -> None:
    """One line for each, as the user expects it; a single one for many on one connection."""
    caplog.set_level(logging.INFO)
    start(nursery, line, *map(Listener, symbols))
    await exchange.subscribed(symbols[-1])
    await trio.testing.wait_all_tasks_blocked()
    said = [r.getMessage() for r in caplog.records if r.name == subscribing.__name__]
    if len(symbols) == 1:
        methods = ("sub.ticker", "sub.deal", "sub.depth.full")
        assert said == [f"Subscribed to: {method} for {BTC}" for method in methods]
    else:
        assert said == ["Subscribed to: 2 of 2 symbols on one connection"]


@pytest.mark.parametrize(
    ("channel", "method"),
    [("ticker", "sub.ticker"), ("deal", "sub.deal"), ("depth.full", "sub.depth.full")],
)
async def test_a_missing_acknowledgement_ends_the_session(
    autojump_clock: MockClock, exchange: Exchange, line: Line, channel: Channel, method: str
) -> None:
    """Within ten seconds, whichever of the three it is."""
    exchange.withheld_acks.add(channel)
    reason, after = await end_of(line, Listener())
    assert reason == f"no acknowledgement of {method} for BTC_USDT within 10 s"
    assert after == pytest.approx(ACK_TIMEOUT, abs=0.01)
    asked = [text for _, text in exchange.requests if "sub.deal" in text]
    assert len(asked) == (2 if channel == "deal" else 1)  # perhaps it sends merged ones only


async def test_each_request_has_its_own_ten_seconds(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """Of two hundred symbols that subscribe one after the other, the first is not waited for last.

    And the last, whose turn comes after half a minute, is not too late for that.
    """
    listeners = [Listener(f"S{n}_USDT") for n in range(200)]
    ended = start(nursery, line, *listeners)
    await exchange.subscribed("S199_USDT")
    assert ended() is None
    assert trio.current_time() > 2 * ACK_TIMEOUT


async def test_the_first_of_many_requests_is_missed_first(
    autojump_clock: MockClock, exchange: Exchange, line: Line
) -> None:
    """While the others are still being sent."""
    exchange.withheld_acks.add("ticker")
    listeners = [Listener(f"S{n}_USDT") for n in range(200)]
    reason, after = await end_of(line, *listeners)
    assert reason == "no acknowledgement of sub.ticker for S0_USDT within 10 s"
    assert after == pytest.approx(ACK_TIMEOUT, abs=0.01)


@pytest.mark.parametrize("wording", ["Contract [{symbol}] not exists", "Contract doesn't exist!"])
async def test_unknown_contracts_leave_the_others_alone(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery, wording: str
) -> None:
    """Two are refused in turn, in words that may name nobody; the others are heard.

    Neither the connection nor anybody else is blamed, and the refused ones are asked for again
    after the pause that they wish, and heard as soon as the exchange knows them.
    """
    exchange.refusal = wording
    btc, nope, nope2, eth = map(Listener, (BTC, "NOPE_USDT", "NOPE2_USDT", ETH))
    ended = start(nursery, line, btc, nope, nope2, eth)
    await exchange.subscribed(ETH)
    nursery.start_soon(lambda: keep_pushing(exchange, BTC, *SENT, every=5))
    nursery.start_soon(lambda: keep_pushing(exchange, ETH, *SENT, every=5))
    await trio.sleep(590)
    assert ended() is None
    for one in (nope, nope2):
        assert one.refusals == [one.symbol] * 20
        assert (one.rows, one.silences) == ([], [])
    assert btc.refusals == eth.refusals == []
    assert btc.silences == eth.silences == []
    assert len(btc.rows) >= 340
    exchange.listing = attrs.evolve(exchange.listing, unknown=())
    await exchange.subscribed("NOPE_USDT")
    await exchange.push("NOPE_USDT", "deal")
    await nope.until_rows(1)


async def test_a_refusal_of_one_channel_leaves_the_other_symbols_alone(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """An exchange that wakes up may refuse one request, in no name, and grant the next ones."""
    exchange.withheld_acks.add("ticker")
    btc, eth = Listener(BTC), Listener(ETH)
    ended = start(nursery, line, btc, eth)
    await exchange.subscribed(BTC)
    await exchange.send(BTC, '{"channel":"rs.error","data":"Contract doesn\'t exist!","ts":1}')
    exchange.withheld_acks.clear()
    await exchange.subscribed(ETH)
    await trio.sleep(35)
    assert (btc.refusals, eth.refusals, ended()) == ([BTC], [], None)
    asked = [text for _, text in exchange.requests if BTC in text]
    assert len(asked) == 6, "all channels again"


@pytest.mark.parametrize(
    "text",
    ["Contract doesn't exist!", "Contract [XYZ_USDT] not exists", "Too many\\nrequests"],
)
async def test_any_other_refusal_ends_the_session_in_one_line(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery, text: str
) -> None:
    """No symbol is stopped for what is not said of it."""
    listener = Listener()
    ended = start(nursery, line, listener)
    await exchange.subscribed(BTC)
    await trio.testing.wait_all_tasks_blocked()
    await exchange.send(BTC, f'{{"channel":"rs.error","data":"{text}","ts":1}}')
    await trio.testing.wait_all_tasks_blocked()
    assert str(ended()) == "the exchange says: " + text.replace("\\n", " ")
    assert listener.refusals == []


# --- Silence ---


async def test_a_silent_channel_is_subscribed_again_and_then_given_up(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """A busy contract whose books stop while all else goes on: noticed within a minute."""
    listener = Listener()
    ended = start(nursery, line, listener)
    await exchange.subscribed(BTC)
    with trio.move_on_after(120):
        await keep_pushing(exchange, BTC, *SENT, every=0.5)
    nursery.start_soon(lambda: keep_pushing_until(ended, exchange, "ticker", "deal"))
    before = len(exchange.requests)
    await trio.sleep(40)
    assert [channel for channel, _ in listener.silences] == ["depth"]
    asked = [text for _, text in exchange.requests[before:] if "sub" in text]
    assert len(asked) == 1
    assert "sub.depth.full" in asked[0]
    assert ended() is None
    await trio.sleep(20)
    assert str(ended()).startswith("depth of BTC_USDT silent for ")
    assert str(ended()).endswith("and subscribing again did not help")


async def keep_pushing_until(
    ended: Callable[[], object], exchange: Exchange, *channels: Channel
) -> None:
    """Be a market of some channels for as long as somebody listens."""
    while ended() is None:
        for channel in channels:
            try:
                await exchange.push(BTC, channel)
            except LookupError:
                return
        await trio.sleep(0.5)


async def test_subscribing_again_that_helps_is_the_end_of_it(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """The connection stays."""
    listener = Listener()
    ended = start(nursery, line, listener)
    await exchange.subscribed(BTC)
    with trio.move_on_after(120):
        await keep_pushing(exchange, BTC, *SENT, every=0.5)
    nursery.start_soon(lambda: keep_pushing_until(ended, exchange, "ticker", "deal"))
    await exchange.until(lambda: sum("depth" in text for _, text in exchange.requests) == 2)
    nursery.start_soon(lambda: keep_pushing_until(ended, exchange, "depth.full"))
    await trio.sleep(200)
    assert ended() is None
    assert len(listener.silences) == 1


async def test_subscribing_again_has_to_be_acknowledged_too(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """Ten seconds, as at first."""
    ended = start(nursery, line, Listener())
    await exchange.subscribed(BTC)
    with trio.move_on_after(120):
        await keep_pushing(exchange, BTC, *SENT, every=0.5)
    exchange.withheld_acks.add("depth.full")
    nursery.start_soon(lambda: keep_pushing_until(ended, exchange, "ticker", "deal"))
    await exchange.until(lambda: sum("depth" in text for _, text in exchange.requests) == 2)
    await trio.sleep(ACK_TIMEOUT + 0.01)
    assert str(ended()) == "no acknowledgement of sub.depth.full for BTC_USDT within 10 s"


async def test_a_quiet_contract_is_no_false_alarm(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """A ticker in two seconds, a book in six, a deal in four minutes: for hours, on one line."""
    listener = Listener()
    ended = start(nursery, line, listener)
    await exchange.subscribed(BTC)
    nursery.start_soon(lambda: keep_pushing(exchange, BTC, "ticker", every=2))
    nursery.start_soon(lambda: keep_pushing(exchange, BTC, "depth.full", every=6))
    nursery.start_soon(lambda: keep_pushing(exchange, BTC, "deal", every=240))
    await trio.sleep(3600)
    assert (ended(), listener.silences) == (None, [])


async def test_channels_that_go_silent_together_cost_one_connection_together(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """When markets close, it is not one connection for each of them."""
    listeners = [Listener(f"S{n}_USDT") for n in range(8)]
    reasons = []
    with trio.move_on_after(4 * 3600):
        while True:
            reason, _ = await end_of(line, *listeners)
            assert "silent" in reason
            reasons.append(reason)
    assert 5 <= len(reasons) <= 8


# --- Whose frame is whose ---


async def test_frames_go_to_the_symbols_they_name(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """In their order, each to its own."""
    btc, eth = Listener(BTC), Listener(ETH)
    start(nursery, line, btc, eth)
    await exchange.subscribed(ETH)
    for _ in range(20):
        for symbol in (BTC, ETH):
            for channel in SENT:
                await exchange.push(symbol, channel, oddity=None)
    await eth.until_rows(len(exchange.rows(ETH)))
    assert btc.rows == exchange.rows(BTC)
    assert eth.rows == exchange.rows(ETH)


async def test_a_stopped_symbol_is_unsubscribed_and_the_others_go_on(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """What of its data is on the way is nobody else's, and its silence is no alarm."""
    btc, eth = Listener(BTC), Listener(ETH)
    ended = start(nursery, line, btc, eth)
    await exchange.subscribed(ETH)
    await exchange.push(ETH, "deal")
    eth.stopped = True
    await exchange.push(ETH, "deal")
    nursery.start_soon(lambda: keep_pushing(exchange, BTC, *SENT))
    await trio.sleep(300)
    assert exchange.symbols == [BTC]
    assert [text for _, text in exchange.requests if "unsub" in text] == [
        f'{{"method":"unsub.{channel}","param":{{"symbol":"{ETH}"}}}}' for channel in SENT
    ]
    assert (ended(), eth.silences) == (None, [])
    assert all(message.symbol == BTC for message in btc.messages)


async def test_a_symbol_that_stops_before_its_turn_is_not_subscribed(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """Its turn comes, and passes."""
    btc, eth, sol = Listener(BTC), Listener(ETH), Listener(SOL)
    start(nursery, line, btc, eth, sol)
    await exchange.until(lambda: bool(exchange.symbols))
    eth.stopped = True
    await exchange.subscribed(SOL)
    assert exchange.symbols == [BTC, SOL]


@pytest.mark.parametrize(
    "frame",
    ['{"symbol":"SOL_USDT","data":[],"channel":"push.deal","ts":5}',
     '{"symbol":"SOL_USDT","data":{"lastPrice":1},"channel":"push.ticker","ts":5}'],
)  # fmt: skip
async def test_a_frame_of_a_stranger_is_a_dead_letter_of_the_first(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery, frame: str
) -> None:
    """It is kept, and nothing of ours is missing because of it."""
    btc, eth = Listener(BTC), Listener(ETH)
    start(nursery, line, btc, eth)
    await exchange.subscribed(ETH)
    await exchange.send(ETH, frame)
    await btc.until_rows(1)
    assert btc.rows == [(5, "dl", frame)]
    assert (btc.messages[0].missed, eth.rows, eth.unread) == ((), [], 0)


async def test_a_broken_frame_goes_where_its_text_says(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """A frame cut off in the middle is ETH's dead letter if it speaks of ETH alone."""
    btc, eth = Listener(BTC), Listener(ETH)
    start(nursery, line, btc, eth)
    await exchange.subscribed(ETH)
    for frame in ('{"symbol":"ETH_USDT","data":[{"p":1,', b'{"symbol":"ETH_USDT","data":[{"p":1,'):
        await exchange.send(ETH, frame)
    await eth.until_rows(2)
    assert [row[1:] for row in eth.rows] == [("dl", '{"symbol":"ETH_USDT","data":[{"p":1,')] * 2
    assert eth.messages[0].missed == tuple(ALL)
    assert (btc.rows, btc.unread) == ([], 0)


async def test_a_broken_frame_that_says_nothing_is_everybodys_gap(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """Stored once, and noted by each symbol it may have been for."""
    listeners = [Listener(BTC), Listener(ETH), Listener(SOL)]
    start(nursery, line, *listeners)
    await exchange.subscribed(SOL)
    await exchange.send(SOL, '{"data":[{"p":1,')
    await listeners[0].until_rows(1)
    assert [len(one.rows) for one in listeners] == [1, 0, 0]
    assert listeners[0].messages[0].missed == tuple(ALL)
    assert [one.unread for one in listeners] == [0, 1, 1]


async def test_a_frame_without_a_symbol_is_the_only_symbols(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """Who records one symbol on a connection loses nothing if the exchange forgets to name it."""
    listener = Listener()
    start(nursery, line, listener)
    await exchange.subscribed(BTC)
    await exchange.send(BTC, '{"data":{"lastPrice":1.50},"channel":"push.ticker","ts":5}')
    await exchange.send(BTC, '{"data":[],"channel":"push.deal","ts":5}')
    await listener.until_rows(1)
    await trio.testing.wait_all_tasks_blocked()
    assert listener.rows == [(5, "t", "1.50||||")]
    assert listener.skips == 1


# --- Ends ---


async def test_a_close_says_its_code_and_words(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """In one line, whatever the words are."""
    ended = start(nursery, line, Listener())
    await exchange.subscribed(BTC)
    await exchange.close(1001, "going\naway")
    await trio.testing.wait_all_tasks_blocked()
    assert str(ended()) == "closed by the exchange: 1001 GOING_AWAY (going away)"


async def test_a_connection_that_breaks(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """Without a word from the other side."""
    ended = start(nursery, line, Listener())
    await exchange.subscribed(BTC)
    await exchange.drop()
    await trio.testing.wait_all_tasks_blocked()
    assert str(ended()) == "connection lost without a close frame"


@pytest.mark.parametrize(
    ("handshake", "reason", "after"),
    [
        ("close", f"{URL} hung up instead of answering the handshake", 0),
        ("stall", f"no connection to {URL} within 15 s", 15),
        ("garbage", f"{URL} does not speak WebSocket: ", 0),
        ("403", f"{URL} answers HTTP 403 instead of a WebSocket", 0),
        ("503", f"{URL} answers HTTP 503 instead of a WebSocket", 0),
    ],
)
async def test_a_handshake_that_fails(
    autojump_clock: MockClock,
    exchange: Exchange,
    line: Line,
    handshake: str,
    reason: str,
    after: float,
) -> None:
    """Each failure says which it is, and none takes longer than it must."""
    exchange.handshake = handshake  # type: ignore[assignment]
    why, seconds = await end_of(line, Listener())
    assert why.startswith(reason)
    assert "\n" not in why
    assert seconds == pytest.approx(after, abs=0.01)


async def test_a_machine_that_slept_gets_a_new_connection(
    autojump_clock: MockClock,
    exchange: Exchange,
    line: Line,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The wall clock has gone on, Trio's has not: the connection is surely lost."""
    base, began, slept = 1.7e9, trio.current_time(), 0.0
    monkeypatch.setattr(
        "mexc_trio.exchange.session.time.time", lambda: base + trio.current_time() - began + slept
    )
    ended = start(nursery, line, Listener())
    await exchange.subscribed(BTC)
    await trio.sleep(20)
    assert ended() is None
    slept = 3600.0
    await trio.sleep(6)
    error = ended()
    assert isinstance(error, ExchangeError)
    assert error.loss is Loss.CLOCK_JUMPED
    assert str(ended()) == "the clock jumped by 3600 s, as after a suspend"


@pytest.mark.parametrize("merged", [False, True])
async def test_deals_are_asked_for_one_by_one_or_merged(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery, merged: bool
) -> None:
    """Merged is what the exchange sends unless it is told otherwise."""
    deals = DealMode(merged)
    nursery.start_soon(
        lambda: run_session(
            Endpoint(URL, dial_of(line)), [Listener()], SessionOptions(15, no_flush, deals=deals)
        )
    )
    await exchange.subscribed(BTC)
    asked = [json.loads(text) for _, text in exchange.requests if "sub.deal" in text]
    assert [one["param"].get("compress") for one in asked] == [None if merged else False]
    assert exchange.opened[0].subscriptions[BTC]["deal"].merged is merged


@pytest.mark.parametrize("answer", ["refused", "ignored"])
async def test_merged_deals_are_better_than_none(
    autojump_clock: MockClock,
    exchange: Exchange,
    line: Line,
    nursery: trio.Nursery,
    answer: Unmerged,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An exchange that does not send all deals is asked once, and the log says so once."""
    exchange.unmerged_deals = answer
    btc, eth, sol, deals = Listener(BTC), Listener(ETH), Listener(SOL), DealMode()
    ends: list[ExchangeError] = []

    async def run(*listeners: Listener) -> None:
        try:
            await run_session(
                Endpoint(URL, dial_of(line)), listeners, SessionOptions(15, no_flush, deals=deals)
            )
        except ExchangeError as error:
            ends.append(error)

    nursery.start_soon(run, btc, eth)
    await exchange.subscribed(ETH)
    nursery.start_soon(run, sol)
    await exchange.subscribed(SOL)
    for symbol, listener in ((BTC, btc), (ETH, eth), (SOL, sol)):
        await exchange.push(symbol, "deal")
        await listener.until_rows(1)
    assert ends == []
    asked = [json.loads(text)["param"] for _, text in exchange.requests if "sub.deal" in text]
    assert [one.get("compress") for one in asked] == [False, None, None, None]
    assert caplog.text.count("the exchange refuses unmerged deals") == 1


async def test_what_one_read_brought_is_flushed_once(
    autojump_clock: MockClock, exchange: Exchange, line: Line, nursery: trio.Nursery
) -> None:
    """Promise 1 and its price: at the end of the read, with all the frames that came in it."""
    flushed: list[int] = []
    listener = Listener()

    def flush() -> None:
        flushed.append(len(listener.messages))

    nursery.start_soon(
        lambda: run_session(Endpoint(URL, dial_of(line)), [listener], SessionOptions(15, flush))
    )
    await exchange.subscribed(BTC)
    await trio.testing.wait_all_tasks_blocked()
    (connection,) = exchange.opened
    for n in range(1, 4):
        flushed.clear()
        frames = [exchange.market.frame(BTC, "deal") for _ in range(10)]
        await connection.send(frames)
        await trio.testing.wait_all_tasks_blocked()
        assert flushed == [10 * n]


async def test_a_cancelled_session_ends_at_once_and_says_nothing(
    autojump_clock: MockClock, exchange: Exchange, line: Line
) -> None:
    """Not even when an error of the connection comes at the same moment."""
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        ended = start(nursery, line, Listener())
        await exchange.subscribed(BTC)
        await exchange.drop()  # the session has not had a turn yet to notice
        nursery.cancel_scope.cancel()
    assert ended() is None
    assert trio.current_time() == pytest.approx(began, abs=0.01)


async def test_an_error_at_a_cancellation_is_not_heard(
    autojump_clock: MockClock, line: Line
) -> None:
    """Who stops the program hears of no error that comes at the same moment."""

    class Failing(Listener):
        def data(self, message: object) -> None:
            scope.cancel()
            raise ExchangeError("as it happens")

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: run_session(
                    Endpoint(URL, dial_of(line)), [Failing()], SessionOptions(15, no_flush)
                )
            )
            await line.exchange.subscribed(BTC)
            await line.exchange.push(BTC, "deal")
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_bug_is_no_error_of_the_exchange(
    autojump_clock: MockClock, line: Line, exchange: Exchange
) -> None:
    """It gets out as it is, with its traceback, instead of a reconnect."""

    class Buggy(Listener):
        def data(self, message: object) -> None:
            raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: run_session(
                    Endpoint(URL, dial_of(line)), [Buggy()], SessionOptions(15, no_flush)
                )
            )
            await exchange.subscribed(BTC)
            await exchange.push(BTC, "deal")
