"""The client of the REST interface against a real one, with everything that goes wrong there."""

import contextlib
import gc
import logging
import math
import threading
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import ClassVar, TypeVar, cast

import msgspec
import pytest
import trio
import trio.testing

from mexc_trio.exchange import contracts as contracts_module
from mexc_trio.exchange import terms as terms_module
from mexc_trio.exchange.contracts import contracts_of, list_contracts
from mexc_trio.exchange.rate_limiter import RateLimiter
from mexc_trio.exchange.rest import (
    MOST_BYTES,
    REQUEST_INTERVAL,
    Client,
    RequestLimits,
    RestError,
    in_thread_if_long,
    open_client,
)
from mexc_trio.exchange.terms import ask_terms
from tests.support.peers import behind_tls, trusted_authority
from tests.support.running import DEADLINE
from tools.exchange import Exchange, Rest, Trouble, believable, open_exchange

T = TypeVar("T")
SYMBOLS = ["BTC_USDT", "BTC_USDC", "BTC_USD", "1000000MOG_USDT"]


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    """Run an exchange that lists a few contracts."""
    async with open_exchange(contracts=SYMBOLS, rest_port=0) as running:
        yield running


async def test_a_long_answer_that_is_no_answer_is_let_go() -> None:
    """Garbage is looked for rarely, and by then there could be gigabytes of such answers."""

    class Answer:
        pass

    def fail(answer: Answer) -> None:
        raise ValueError

    gc.disable()
    try:
        answer = Answer()
        there = weakref.ref(answer)
        with contextlib.suppress(ValueError):
            await in_thread_if_long(MOST_BYTES, fail, answer)
        del answer
        with trio.fail_after(DEADLINE):
            while there() is not None:
                await trio.lowlevel.checkpoint()
    finally:
        gc.enable()


async def test_a_private_authority_vouches_for_rest_too(
    rest: Rest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom the socket trusts is trusted here; who is trusted by nobody is told, and why."""
    authority = trusted_authority(tmp_path, monkeypatch)
    async with behind_tls(rest.serve_stream, authority) as port:
        url = f"https://localhost:{port}"
        with monkeypatch.context() as patched:
            patched.delenv("SSL_CERT_FILE")
            async with open_client(url) as client:
                with pytest.raises(RestError, match="certificate verify failed"):
                    await contracts_of(client)
        async with open_client(url) as client:
            assert len(await contracts_of(client)) == len(SYMBOLS)


async def test_no_redirect_leads_away_from_tls(
    rest: Rest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever answers for the exchange does not have us ask the programs of our own network."""
    authority = trusted_authority(tmp_path, monkeypatch)

    async def elsewhere(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await stream.receive_some(65536)
        head = f"Location: {rest.url}/api/v1/contract/detail\r\n"
        await stream.send_all(answer(b"", "302 Found", head))
        await stream.aclose()

    async with behind_tls(elsewhere, authority) as port:
        url = f"https://localhost:{port}"
        async with open_client(url) as client:
            with pytest.raises(RestError, match=f"^{url} redirects to {rest.url}.*not followed$"):
                await contracts_of(client)


async def test_contracts_are_listed(exchange: Exchange, client: Client) -> None:
    """The list has symbol, quote and state; sizes are read for the table of contracts."""
    exchange.list_contract("ETH_USDT", state=4)
    listed = await contracts_of(client)
    assert [(one.symbol, one.quote, one.state) for one in listed] == [
        ("BTC_USDT", "USDT", 0),
        ("BTC_USDC", "USDC", 0),
        ("BTC_USD", "USD", 0),
        ("1000000MOG_USDT", "USDT", 0),
        ("ETH_USDT", "USDT", 4),
    ]


@pytest.mark.parametrize(
    ("trouble", "text", "first"),
    [
        ("throttled", "says: Requests are too frequent, please try again later (code 510)", 5),
        ("html", "answers HTTP 403: a firewall keeps us out", 60),
        ("error", "answers HTTP 500; is --rest-url right?", 1),
        ("broken", "answers what is no JSON of its kind: Input data was truncated", 1),
        ("hangup", "peer closed connection", 1),
    ],
)
async def test_what_is_no_answer_is_one_error(
    rest: Rest, client: Client, trouble: Trouble, text: str, first: float
) -> None:
    """Each says in a line what happened and how long to stay away; the next request works."""
    rest.trouble = trouble
    with pytest.raises(RestError) as caught:
        await contracts_of(client)
    assert text in str(caught.value)
    assert rest.url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.first == first
    rest.trouble = "none"
    assert len(await contracts_of(client)) == len(SYMBOLS)


async def answering(nursery: trio.Nursery, data: bytes) -> str:
    """Answer every request with these bytes; return the URL."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(data)
        await stream.aclose()

    listeners = await nursery.start(trio.serve_tcp, serve, 0)
    return f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"


def answer(body: bytes, status: str = "200 OK", head: str = "") -> bytes:
    """Return an HTTP answer."""
    length = f"Content-Length: {len(body)}\r\n"
    return f"HTTP/1.1 {status}\r\n{length}{head}Connection: close\r\n\r\n".encode() + body


def listing(data: bytes) -> bytes:
    """Return an answer that calls itself a success."""
    return answer(b'{"success":true,"code":0,"data":' + data + b"}")


DEEP = b"[" * 100_000 + b"]" * 100_000
ODD_ANSWERS = {
    "nothing": b"",
    "another protocol": b"SSH-2.0-OpenSSH\r\n",
    "endless header": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 3_000_000 + b"\r\n\r\n",
    "broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "half": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}",
    "a redirect to itself": answer(b"", "301 M", "Location: /api/v1/contract/detail\r\n"),
    "a redirect to nowhere": answer(b"", "301 M", "Location: ftp://x/y\r\n"),
    "empty": answer(b""),
    "a page": answer(b"<html><body>Welcome</body></html>"),
    "no gzip": answer(b"{}", head="Content-Encoding: gzip\r\n"),
    "ten megabytes of blanks": answer(b" " * 10_000_000),
    "no object": answer(b"[]"),
    "no data": answer(b'{"success":true}'),
    "one object": listing(b'{"symbol":"BTC_USDT"}'),
    "foreign": listing(b'[1,"a",null,{"symbol":5},{"symbol":"x"},[[]]]'),
    "no UTF-8": listing(b'[{"symbol":"\xff\xfe"}]'),
    "deep": listing(DEEP),
    "deep inside": listing(b'[{"symbol":"BTC_USDT","x":' + DEEP + b"}]"),
    "control signs": answer(b'{"success":false,"code":7,"message":"\\u001b[2J\\nhi\\u0000"}'),
    "a code of 400 digits": answer(b'{"success":false,"code":' + b"1" * 400 + b"}"),
    "a message of 10 MB": answer(
        b'{"success":false,"code":510,"message":"' + b"x" * 10_000_000 + b'"}'
    ),
}


@pytest.mark.parametrize("what", ODD_ANSWERS)
async def test_whatever_answers_is_one_line(
    what: str, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """Another program, a page, a broken or malicious list: bounded, printable, and no traceback."""
    async with open_client(await answering(nursery, ODD_ANSWERS[what])) as client:
        with pytest.raises(RestError) as caught:
            await contracts_of(client)
    said = [str(caught.value), *caplog.messages]
    assert all(text.isprintable() and len(text) <= 400 for text in said)


async def test_packed_answers_that_are_no_answer_are_let_go(nursery: trio.Nursery) -> None:
    """As `in_thread_if_long` does, through all that a client does with one."""
    size = 4 * 2**20
    url = await answering(nursery, answer(b"x" * size, head="Content-Encoding: gzip\r\n"))
    gc.disable()
    tracemalloc.start()
    try:
        async with open_client(url, rate_limiter=RateLimiter(0.0)) as client:
            for _ in range(3):
                with contextlib.suppress(RestError):
                    await contracts_of(client)
            with trio.fail_after(DEADLINE):
                while tracemalloc.get_traced_memory()[0] > size:
                    await trio.lowlevel.checkpoint()
    finally:
        tracemalloc.stop()
        gc.enable()


async def test_unknown_contract_is_the_exchanges_word(client: Client) -> None:
    """Code 1001 comes as HTTP 200, and is an error all the same."""
    with pytest.raises(RestError, match=r"says: contract not exists \(code 1001\)"):
        await client.get("detail", symbol="NOPE_USDT")


async def test_interface_that_is_down_and_comes_back(rest: Rest, client: Client) -> None:
    """Neither a refused connection nor the dead one in the pool does lasting harm."""
    await contracts_of(client)
    await rest.go_down()
    with pytest.raises(RestError, match="all attempts to connect"):
        await contracts_of(client)
    await rest.come_back()
    assert len(await contracts_of(client)) == len(SYMBOLS)


@pytest.mark.parametrize("url", ["https://127.0.0.1:{port}", "http://nosuchhost.invalid"])
async def test_addresses_where_nobody_answers(rest: Rest, url: str) -> None:
    """TLS where there is none, and a name that nobody has."""
    async with open_client(url.format(port=rest.door.port)) as client:
        with pytest.raises(RestError):
            await contracts_of(client)


async def test_slow_answer_is_not_waited_for(rest: Rest) -> None:
    """The bound is on the whole request."""
    rest.delay = 60
    async with open_client(rest.url, limits=RequestLimits(0.1)) as client:
        with (
            trio.fail_after(DEADLINE),
            pytest.raises(RestError, match=r"did not answer within 0.1 s"),
        ):
            await contracts_of(client)


async def test_answer_without_an_end_is_left(rest: Rest) -> None:
    """Memory is bounded, and the connection closed at once."""
    rest.trouble = "endless"
    async with open_client(rest.url, limits=RequestLimits(size=2**20)) as client:
        with pytest.raises(RestError, match="an answer of more than 1 MiB"):
            await contracts_of(client)


async def test_packed_answer_is_bounded_unpacked(exchange: Exchange, rest: Rest) -> None:
    """A small answer must not unpack to a huge one."""
    for symbol in believable(1200):
        exchange.list_contract(symbol)
    async with open_client(rest.url, limits=RequestLimits(size=2**20)) as client:
        with pytest.raises(RestError, match="an answer of more than 1 MiB"):
            await contracts_of(client)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (listing(b"[" + b"0," * 3_000_000 + b"0]"), "an answer of more than 500,000 parts"),
        (listing(b"[" + b"{}," * 30_000 + b"{}]"), "lists 30,001 contracts; that cannot be"),
    ],
)
async def test_a_list_of_crumbs_is_not_decoded(
    body: bytes, text: str, nursery: trio.Nursery
) -> None:
    """Six megabytes of numbers would become half a gigabyte of objects, in one long step."""
    async with open_client(await answering(nursery, body)) as client:
        with pytest.raises(RestError, match=text):
            await contracts_of(client)


@pytest.mark.parametrize("ask", ["contracts", "terms"])
async def test_frames_are_received_while_a_long_list_is_read(
    ask: str, exchange: Exchange, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step of reading waits here until something else has had its turn meanwhile."""
    symbols = believable(400)
    for symbol in symbols:
        exchange.list_contract(symbol)
    turn = threading.Event()

    def patient(function: Callable[..., T]) -> Callable[..., T]:
        def step(*args: object) -> T:
            turn.clear()
            assert turn.wait(DEADLINE), "nothing else goes on"
            return function(*args)

        return step

    steps = ((Client, "_unpacked"), (Client, "_data"), (contracts_module, "_contracts"),
             (terms_module, "_listed"))  # fmt: skip
    for place, name in steps:
        monkeypatch.setattr(place, name, patient(getattr(place, name)))
    async with trio.open_nursery() as others:

        @others.start_soon
        async def receive() -> None:
            while True:
                turn.set()
                await trio.sleep(0.001)

        if ask == "contracts":
            assert len(await contracts_of(client)) >= 400
        else:
            assert len(await ask_terms(client, symbols)) == 400
        others.cancel_scope.cancel()


async def test_requests_keep_their_pace(rest: Rest) -> None:
    """However many ask at once, four requests a second leave the program."""
    began = trio.current_time()
    async with open_client(rest.url) as client, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(contracts_of, client)
    # Each leaves at its time, and may arrive at any later one.
    arrivals = [time - began for time, _ in rest.requests]
    assert len(arrivals) == 4
    assert arrivals[-1] >= 3 * REQUEST_INTERVAL


async def test_entries_that_are_not_understood_are_left_out(
    exchange: Exchange, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """One odd entry must not hide a thousand good ones; the log tells."""
    exchange.list_contract("btc_usdt")
    assert [one.symbol for one in await contracts_of(client)] == SYMBOLS
    assert "lists 1 contracts that are not understood, such as" in caplog.text
    await contracts_of(client)
    assert len(caplog.messages) == 1, "the same is not said at each refresh"


@pytest.mark.parametrize(
    ("scale", "size"),
    [(b"1e300", b"1e999"), (b"3000000000", b'"-Infinity"'), (b'"NaN"', b"[]"), (b"-3e9", b"{}")],
)
async def test_terms_that_cannot_be_are_unknown(
    client: Client, monkeypatch: pytest.MonkeyPatch, scale: bytes, size: bytes
) -> None:
    """A number that its column does not hold would keep the terms of all contracts from theirs."""
    entry = b'{"symbol":"BTC_USDT","priceScale":%b,"state":%b,"contractSize":%b,"volScale":3}'

    async def get(*_: object, **__: object) -> msgspec.Raw:
        return msgspec.Raw(entry % (scale, scale, size))

    monkeypatch.setattr(Client, "get", get)
    (terms,) = await ask_terms(client, ["BTC_USDT"])
    assert (terms.price_scale, terms.state, terms.volume_scale) == (-1, -1, 3)
    assert math.isnan(terms.contract_size)


async def test_empty_list_is_no_list(exchange: Exchange, client: Client) -> None:
    """Else a fault of the exchange would end all recordings."""
    for symbol in SYMBOLS:
        exchange.delist(symbol)
    with pytest.raises(RestError, match="lists no contract at all"):
        await contracts_of(client)


async def test_cancelled_request_leaves_nothing_open(rest: Rest, client: Client) -> None:
    """Ctrl-C ends a request at once; a connection left open would be an error of the test run."""
    rest.delay = 60
    async with trio.open_nursery() as nursery:
        nursery.start_soon(contracts_of, client)
        with trio.fail_after(DEADLINE):
            while not rest.requests:
                await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()


async def test_listing_insists_with_a_line_for_each_failure(
    rest: Rest, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """The first list that works is returned; the library's own chatter stays out of the log."""
    caplog.set_level(logging.INFO)
    rest.trouble = "error"
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def recover() -> None:
            with trio.fail_after(DEADLINE):
                while not caplog.records:
                    await trio.testing.wait_all_tasks_blocked(0.01)
            rest.trouble = "none"

        assert len(await list_contracts(client)) == len(SYMBOLS)
    (line,) = caplog.messages
    assert line.startswith(f"no list of contracts: {rest.url} answers HTTP 500;")
    assert line.endswith(("asking again in 1 s", "asking again in 2 s"))


async def test_pauses_grow_and_stay_bounded(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """A firewall is left alone longer and longer, up to a quarter of an hour or so."""

    class Blocked:
        attempts = 0
        url = "http://exchange"
        not_understood: ClassVar[set[str]] = set()

        async def get(self, path: str) -> msgspec.Raw:
            self.attempts += 1
            if self.attempts > 8:
                return msgspec.Raw(b'[{"symbol":"BTC_USDT"}]')
            raise RestError("HTTP 403", 60.0, 900.0)

    before = trio.current_time()
    await list_contracts(cast("Client", Blocked()))
    pauses = [60, 120, 240, 480, 900, 900, 900, 900]
    assert sum(pauses) <= trio.current_time() - before <= 1.5 * sum(pauses)
    assert len(caplog.messages) == len(pauses)
