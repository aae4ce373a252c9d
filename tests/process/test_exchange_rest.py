"""The simulated exchange's REST interface: the real one's shapes, and figures that are true."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import WebSocketConnection

from mexc_trio.exchange.contracts import contracts_of
from mexc_trio.exchange.rest import Client, RestError, open_client
from tests.support import client as sockets
from tests.support.running import DEADLINE
from tools.exchange import SYMBOL, Exchange, Rest, believable, open_exchange
from tools.exchange.tape import MINUTE, MOST_CANDLES, Tape, double

ROOT = Path(__file__).parents[2]
BTC = "BTC_USDT"
START = 1_800_000_000_000  # a full minute, in milliseconds


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        """Return the milliseconds since 1970."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return the exchange's clock."""
    return Clock()


@pytest.fixture
async def exchange(clock: Clock) -> AsyncIterator[Exchange]:
    """Run an exchange that sends only what it is told to."""
    async with open_exchange(rest_port=0, clock=clock) as running:
        yield running


@pytest.fixture
async def socket(exchange: Exchange) -> AsyncIterator[WebSocketConnection]:
    """Subscribe to all of BTC_USDT."""
    async with sockets.client(exchange) as opened:
        yield opened


async def get(client: Client, path: str, **query: str | int) -> Any:  # as wide as JSON is
    """Ask, and keep the numbers as they are written."""
    data = await client.get(path, **query)
    return json.loads(bytes(data), parse_int=str, parse_float=str)


# --- The list of contracts ---


async def test_ping_is_answered_with_the_time(client: Client) -> None:
    """As its documentation says, in milliseconds."""
    assert await get(client, "ping") == str(START)


async def test_detail_is_a_list_or_one_object(exchange: Exchange, client: Client) -> None:
    """With a symbol it is one object; one that is not listed has code 1001."""
    listed = await get(client, "detail")
    assert [one["symbol"] for one in listed] == list(exchange.listing.states)
    assert await get(client, "detail", symbol=BTC) == listed[0]
    assert {"baseCoin", "quoteCoin", "settleCoin", "priceUnit", "maxVol"} <= listed[0].keys()
    with pytest.raises(RestError, match="code 1001"):
        await client.get("detail", symbol="ETH_BTC")


async def test_contracts_come_and_go(
    exchange: Exchange, client: Client, socket: WebSocketConnection
) -> None:
    """A delisted one vanishes: its data stop without a word, and it cannot be subscribed to."""
    exchange.list_contract("NEW_USDT", state=1)
    exchange.delist(BTC)
    states = {one["symbol"]: one["state"] for one in await get(client, "detail")}
    assert states["NEW_USDT"] == "1"
    assert BTC not in states
    with pytest.raises(LookupError):
        await exchange.push(BTC, "deal")
    await sockets.ask(socket, "sub.deal", symbol=BTC)
    assert (await sockets.receive(socket))["data"] == f"Contract [{BTC}] not exists"
    with pytest.raises(RestError, match="code 1001"):
        await client.get(f"deals/{BTC}")
    exchange.list_contract(BTC)
    await sockets.ask(socket, "sub.deal", symbol=BTC)
    assert (await sockets.receive(socket))["data"] == "success"


def test_believable_contracts() -> None:
    """Every name is one, none is there twice, most are in USDT, and the odd ones come early."""
    names = believable(1200)
    assert len(set(names)) == 1200
    assert all(SYMBOL.fullmatch(name) for name in names)
    quotes = [name.partition("_")[2] for name in names]
    assert quotes.count("USDT") > 1000
    assert min(quotes.count("USDC"), quotes.count("USD")) > 5
    assert {"1000BONK_USDT", "SKHYNIXSTOCK_USDT", "BTC_USD"} <= set(believable(12))


async def test_sizes_of_contracts_span_twelve_powers_of_ten(clock: Clock) -> None:
    """As the real ones do, some of them written with an exponent."""
    opened = open_exchange(rest_port=0, contracts=believable(300))
    async with opened as exchange:
        assert exchange.rest is not None
        async with open_client(exchange.rest.url) as client:
            sizes = [one["contractSize"] for one in await get(client, "detail")]
    assert min(map(Decimal, sizes)) == Decimal("1E-5")
    assert max(map(Decimal, sizes)) == Decimal("1E7")
    assert any("E" in size for size in sizes)


# --- Deals and candles ---


async def test_deals_are_the_newest_hundred_that_were_sent(
    exchange: Exchange, client: Client, socket: WebSocketConnection
) -> None:
    """Newest first, digit for digit, each once; what nobody heard is among them."""
    for _ in range(60):
        await exchange.push(BTC, "deal")
    exchange.trade_unheard(BTC)
    rows = [row for row in exchange.rows(BTC) if row[1] == "d"]
    assert len(rows) > 60
    deals = await get(client, f"deals/{BTC}")
    assert len(deals) <= 100
    assert [int(deal["t"]) for deal in deals] == sorted((int(d["t"]) for d in deals), reverse=True)
    texts = [(int(deal["t"]), "d", f"{deal['p']}|{deal['v']}|{deal['T']}") for deal in deals]
    unheard = [row for row in texts if row not in rows]
    assert unheard == texts[: len(unheard)]
    assert 0 < len(unheard) < 5
    heard = texts[len(unheard) :]
    assert heard == rows[::-1][: len(heard)]
    assert len(await get(client, f"deals/{BTC}", limit=7)) == 7


async def test_candles_add_up_to_the_deals(
    exchange: Exchange, client: Client, socket: WebSocketConnection, clock: Clock
) -> None:
    """Volume, turnover, first, last, highest and lowest of each minute are the sent deals' own."""
    for minute in (0, 1, 3):
        clock.now = START + minute * 60_000
        for _ in range(20):
            await exchange.push(BTC, "deal")
    clock.now = START + 4 * 60_000
    by_minute: dict[int, list[tuple[Decimal, Decimal]]] = {}
    for ts, mt, m in exchange.rows(BTC):
        if mt == "d":
            price, volume = m.split("|")[:2]
            deals = by_minute.setdefault(ts // 60_000 * 60, [])
            deals.append((Decimal(price), Decimal(volume)))
    columns = await get(client, f"kline/{BTC}", interval="Min1", start=START // 1000, end=2**31)
    times = [int(time) for time in columns["time"]]
    assert times == [START // 1000 + 60 * n for n in range(5)]
    close = None
    for number, time in enumerate(times):
        one = {name: Decimal(column[number]) for name, column in columns.items()}
        deals = by_minute.get(time, [])
        prices = [price for price, _ in deals] or [close or Decimal(0)]
        assert one["vol"] == sum(volume for _, volume in deals)
        assert one["amount"] == sum(price * volume for price, volume in deals) * Decimal("0.0001")
        assert (one["realOpen"], one["realClose"]) == (prices[0], prices[-1])
        assert (one["realHigh"], one["realLow"]) == (max(prices), min(prices))
        assert one["open"] == (prices[0] if close is None else close)
        assert one["high"] == max(one["open"], one["realHigh"])
        assert one["low"] == min(one["open"], one["realLow"])
        assert one["close"] == one["realClose"]
        close = one["close"]
    assert by_minute.keys() == {times[0], times[1], times[3]}


async def test_candles_of_a_range(
    exchange: Exchange, client: Client, socket: WebSocketConnection, clock: Clock
) -> None:
    """Both ends are included, and a candle opens where the one before it closed."""
    for minute in range(6):
        clock.now = START + minute * 60_000
        await exchange.push(BTC, "deal")
    start = START // 1000
    everything = await get(client, f"kline/{BTC}")
    some = await get(client, f"kline/{BTC}", start=start + 61, end=start + 240)
    assert len(everything["time"]) == 6
    assert some == {name: column[2:5] for name, column in everything.items()}
    with pytest.raises(RestError, match="code 600"):
        await client.get(f"kline/{BTC}", interval="Min7")


def test_candles_are_bounded() -> None:
    """A long run keeps two thousand minutes, and one answer has no more."""
    tape = Tape()
    for minute in range(MOST_CANDLES + 50):
        tape.add(BTC, [(minute * 60_000, "d", f"{minute}|1|1")])
    end = (MOST_CANDLES + 50) * MINUTE
    candles = tape.candles(BTC, 0, end)
    assert (len(candles), candles[0].time) == (MOST_CANDLES, 50 * MINUTE)
    newest = tape.candles(BTC, None, end)
    assert (len(newest), newest[-1].time) == (MOST_CANDLES, end)
    assert tape.candles("ETH_USDT", None, end) == []


def test_candle_opens_where_the_one_before_closed() -> None:
    """That price counts for its highest and lowest; the columns of the deals alone leave it out."""
    tape = Tape()
    deals = [(0, "100|1|1"), (60_000, "102|2|1"), (60_001, "103|1|2"), (120_000, "99|1|1")]
    tape.add(BTC, [(ts, "d", text) for ts, text in deals])
    columns = tape.columns(BTC, None, 3 * MINUTE)
    assert columns["open"] == ["100.0", "100.0", "103.0", "99.0"]
    assert columns["high"] == ["100.0", "103.0", "103.0", "99.0"]
    assert columns["low"] == ["100.0", "100.0", "99.0", "99.0"]
    assert columns["realLow"] == ["100.0", "102.0", "99.0", "99.0"]
    assert columns["realHigh"] == ["100.0", "103.0", "99.0", "99.0"]
    assert columns["vol"] == ["1.0", "3.0", "1.0", "0.0"]
    assert columns["amount"] == ["0.01", "0.0307", "0.0099", "0.0"]
    assert columns["time"] == ["0", "60", "120", "180"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("61062435.67181", "6.106243567181E7"),
        ("5587051", "5587051.0"),
        ("10000000", "1.0E7"),
        ("109573.90", "109573.9"),
        ("0.001", "0.001"),
        ("0.0000015036", "1.5036E-6"),
        ("0", "0.0"),
        ("123456789012345678", "1.234567890123457E17"),
    ],
)
def test_numbers_as_java_writes_them(number: str, text: str) -> None:
    """Always with a point, with an exponent from ten millions on and below a thousandth."""
    assert double(Decimal(number)) == text


async def test_order_book_as_it_stands(exchange: Exchange, client: Client) -> None:
    """It has as many levels as were asked for, and looking at it changes nothing."""
    async with open_exchange(clock=exchange.market.clock) as other:
        expected = other.market.frame(BTC, "depth.full", oddity="")
    book = await get(client, f"depth/{BTC}", limit=5)
    assert (len(book["asks"]), len(book["bids"])) == (5, 5)
    assert Decimal(book["asks"][0][0]) > Decimal(book["bids"][0][0])
    assert exchange.market.frame(BTC, "depth.full", oddity="") == expected


# --- Misbehaviour ---


async def test_more_than_the_limit_is_throttled(rest: Rest, client: Client) -> None:
    """By the exchange's own complaint in HTTP 200, and only for the second that has too many."""
    rest.most, answered, refused = 2, 0, ""
    with trio.fail_after(DEADLINE):
        while not refused:  # on a crowded machine a second may be over before the third request
            try:
                await client.get("ping")
                answered += 1
            except RestError as error:
                refused = str(error)
    assert "code 510" in refused
    assert answered >= 2


async def test_other_paths_are_not_found(rest: Rest) -> None:
    """Only the contracts' interface is here."""
    async with open_client(f"{rest.url}/other") as client:
        with pytest.raises(RestError, match="HTTP 404"):
            await client.get("ping")


@pytest.mark.parametrize("noise", [b"", b"\x16\x03\x01\x02\x00", b"GET /\r\n\r\n", b"\x00" * 99])
async def test_noise_does_no_harm(rest: Rest, client: Client, noise: bytes) -> None:
    """Whatever arrives, others are served."""
    async with await trio.open_tcp_stream("127.0.0.1", rest.door.port) as stream:
        if noise:
            await stream.send_all(noise)
        await stream.send_eof()
        async for _ in stream:
            pass
    await client.get("ping")


async def test_taken_rest_port_leaves_nothing_open(rest: Rest) -> None:
    """The error is the socket's, and the exchange's own port is free again."""
    with pytest.raises(OSError, match="in use"):
        async with open_exchange(rest_port=rest.door.port):
            pass


# --- The program ---


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the program on free ports until the block ends; gives the address of its REST."""
    command = [sys.executable, "-W", "error", "-m", "tools.exchange", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(2)]
            assert lines[1].startswith("Simulated REST on http://127.0.0.1:")
            yield process, lines[1].split()[-1]
        finally:
            process.kill()


async def test_program_lists_delists_and_fails_on_time() -> None:
    """What the command line orders happens at its second, on the REST port that it names."""
    faults = ("list/NEW_USDT@0", f"delist/{BTC}@0", "resthtml@0:0.5")
    arguments = [part for fault in faults for part in ("--fault", fault)]
    with program("--rest-port", "0", "--contracts", "30", *arguments) as (process, url):
        async with open_client(url) as client:
            with pytest.raises(RestError, match="HTTP 403"):
                await contracts_of(client)
            listed: set[str] = set()
            with trio.fail_after(DEADLINE):
                while not listed:
                    with contextlib.suppress(RestError):
                        listed = {one.symbol for one in await contracts_of(client)}
        assert len(listed) == 30
        assert "NEW_USDT" in listed
        assert BTC not in listed
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("restdown@1", "--rest-port"),
        ("list@1", "list takes a symbol"),
        ("delist/btc@1", "delist takes a symbol"),
    ],
)
def test_program_names_a_useless_fault(fault: str, text: str) -> None:
    """A typing error is found before anything listens."""
    command = [sys.executable, "-m", "tools.exchange", "--fault", fault]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert outcome.returncode == 2
    assert text in outcome.stderr
    assert outcome.stdout == ""
