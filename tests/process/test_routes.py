"""Routes to the exchange: through proxies, of our own and of Debian, and from an address."""

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import pytest
import trio

from mexc_trio.errors import ExchangeError, Loss
from mexc_trio.exchange import route as routes
from mexc_trio.exchange.contracts import contracts_of
from mexc_trio.exchange.rest import RestError, open_client
from mexc_trio.exchange.websocket import dial
from mexc_trio.settings.routes import Route, parse_routes
from tests.support.peers import listening
from tests.support.running import DEADLINE, Embedded, running
from tools.clickhouse import free_port
from tools.exchange import Exchange, open_exchange
from tools.forwarding import Forwarder, Kind, Trouble, open_forwarder
from tools.soak.lines import heard, last_deal

pytestmark = pytest.mark.usefixtures("no_socket_is_left_open")

HOST = "127.0.0.1"
USER, SECRET = "me", "s3cret"


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    """Run an exchange with its REST interface."""
    async with open_exchange(rest_port=0, contracts=["BTC_USDT"]) as running:
        yield running


@pytest.fixture(params=["socks5", "http"])
async def forwarder(request: pytest.FixtureRequest) -> AsyncIterator[Forwarder]:
    """Run a proxy of each kind, with a password."""
    kind: Kind = request.param
    async with open_forwarder(kind, user=USER, password=SECRET) as running:
        yield running


def route_of(text: str) -> Route:
    """Read one route."""
    (route,) = parse_routes(text)
    return route


async def pong(url: str, route: Route) -> bytes:
    """Ask the exchange for a pong by a route."""
    answers: list[bytes] = []
    async with dial(url, connect=partial(routes.connect, route)) as open_socket:
        await open_socket.send_message('{"method":"ping"}')
        with trio.CancelScope() as scope:

            def take(messages: Sequence[bytes]) -> None:
                answers.extend(messages)
                scope.cancel()

            await open_socket.receive(take)
    return answers[0]


async def reason_of(url: str, route: Route) -> str:
    """Dial in vain by a route, and return why."""
    with pytest.raises(ExchangeError) as caught, trio.fail_after(DEADLINE):
        await pong(url, route)
    assert caught.value.loss is Loss.NOT_CONNECTED
    assert SECRET not in caught.value.reason
    return caught.value.reason


async def test_through_a_proxy_with_a_password(exchange: Exchange, forwarder: Forwarder) -> None:
    """The proxy is given the exchange's name, not its address: it resolves it itself."""
    url = exchange.url.replace(HOST, "localhost")
    assert b'"pong"' in await pong(url, route_of(forwarder.url))
    assert forwarder.asked == [f"localhost:{exchange.port}"]


async def test_rest_takes_the_route_too(exchange: Exchange) -> None:
    """Through SOCKS; an HTTP proxy is asked for http:// without CONNECT, see the real one below."""
    assert exchange.rest is not None
    async with (
        open_forwarder("socks5", user=USER, password=SECRET) as forwarder,
        open_client(exchange.rest.url, route_of(forwarder.url)) as client,
    ):
        assert [one.symbol for one in await contracts_of(client)] == ["BTC_USDT"]
        assert len(forwarder.asked) == 1


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("refuse", "does not connect"),
        ("garbage", "proxy"),
        ("hangup", "proxy"),
    ],
)
async def test_what_a_proxy_does_instead_is_one_line(
    exchange: Exchange, forwarder: Forwarder, trouble: Trouble, said: str
) -> None:
    """It names the proxy, so that nobody looks for the fault at the exchange."""
    forwarder.trouble = trouble
    reason = await reason_of(exchange.url, route_of(forwarder.url))
    assert said in reason
    assert f"{forwarder.kind}://{HOST}:{forwarder.port}" in reason


async def test_a_wrong_password(exchange: Exchange, forwarder: Forwarder) -> None:
    """It is said to be refused, and neither password is shown."""
    route = route_of(forwarder.url)
    forwarder.password = SECRET[::-1]
    assert "does not connect" in await reason_of(exchange.url, route)


async def test_a_proxy_that_never_answers(
    exchange: Exchange, forwarder: Forwarder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up in time."""
    monkeypatch.setattr(routes, "PROXY_TIMEOUT", 0.3)
    forwarder.trouble = "stall"
    assert "does not answer within 0.3 s" in await reason_of(exchange.url, route_of(forwarder.url))


@pytest.mark.parametrize("kind", ["socks5", "http"])
async def test_a_proxy_that_is_down(exchange: Exchange, kind: str) -> None:
    """The system's own words say why."""
    reason = await reason_of(exchange.url, route_of(f"{kind}://{USER}:{SECRET}@{HOST}:9"))
    assert f"proxy {kind}://{HOST}:9 cannot be reached: " in reason
    assert reason.endswith("Connection refused")


async def test_an_exchange_that_a_proxy_does_not_reach(forwarder: Forwarder) -> None:
    """The proxy says so."""
    assert "does not connect" in await reason_of(f"ws://{HOST}:9/edge", route_of(forwarder.url))


async def test_a_proxy_that_dies_later(exchange: Exchange, forwarder: Forwarder) -> None:
    """It is an end of the connection like any other."""
    route = route_of(forwarder.url)

    async def talk() -> None:
        async with dial(exchange.url, connect=partial(routes.connect, route)) as open_socket:
            await forwarder.cut()
            await open_socket.receive(lambda messages: None)

    with pytest.raises(ExchangeError) as caught, trio.fail_after(DEADLINE):
        await talk()
    assert caught.value.loss is Loss.CLOSED


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
async def test_from_an_address_of_ours(exchange: Exchange) -> None:
    """The exchange sees it, for the socket and for REST."""
    seen: list[str] = []

    async def serve(stream: trio.SocketStream) -> None:
        seen.append(stream.socket.getpeername()[0])
        await stream.aclose()

    async with listening(serve) as port:
        route = route_of("from:127.0.0.2")
        await reason_of(f"ws://{HOST}:{port}/edge", route)
        with pytest.raises(RestError):
            async with open_client(f"http://{HOST}:{port}", route) as client:
                await contracts_of(client)
    assert seen == ["127.0.0.2", "127.0.0.2"]
    assert b'"pong"' in await pong(exchange.url, route)


async def test_from_an_address_that_is_not_ours(exchange: Exchange) -> None:
    """The system's own words say why not."""
    reason = await reason_of(exchange.url, route_of("from:203.0.113.7"))
    assert "203.0.113.7 is no address of this machine" in reason


# --- The whole program ---


def read(url: str) -> str:
    """Fetch a page of the recorder's."""
    with urlopen(url, timeout=DEADLINE) as answer:  # noqa: S310 - our own
        return bytes(answer.read()).decode()


@pytest.mark.parametrize("lines", [1, 2])
async def test_of_two_routes_one_is_dead_from_the_start(tmp_path: Path, lines: int) -> None:
    """Recording goes on by the other, a metric tells it, and no password is in the log."""
    symbols = ["BTC_USDT", "ETH_USDT"]
    async with (
        open_exchange(rate=50) as exchange,
        open_forwarder("socks5", user=USER, password=SECRET) as forwarder,
        running(
            tmp_path, *symbols, "--url", exchange.url, "--lines", str(lines),
            "--symbols-per-connection", "2", "--metrics", f"{HOST}:{free_port()}",
            "--route", f"http://{USER}:{SECRET}@{HOST}:9", "--route", forwarder.url,
        ) as program,
    ):  # fmt: skip
        with trio.fail_after(DEADLINE):
            await exchange.until(
                lambda: all(len(exchange.subscribers(one)) == lines for one in symbols)
            )
        await program.journaled(20, "btc")
        await program.journaled(20, "eth")
        assert f"proxy http://{HOST}:9 cannot be reached" in program.log
        assert "route = http://***@" in program.log
        assert SECRET not in program.log
        url = (tmp_path / "mexc-data" / "metrics.url").read_text().strip()
        page = await trio.to_thread.run_sync(read, url)
        lost = f'reconnects_total{{line="1",reason="not connected",route="http://***@{HOST}:9"}}'
        assert f"{lost} 0.0" not in page
        assert lost in page
        assert await program.stop() == 0
    assert len(forwarder.asked) >= lines


async def test_a_symbol_has_a_route_of_its_own(tmp_path: Path) -> None:
    """As with one process for each address; both are stored in full."""
    async with (
        open_exchange(rate=50) as exchange,
        open_forwarder("http") as forwarder,
    ):
        (tmp_path / "settings.ini").write_text(f"[ETH_USDT]\nroute = {forwarder.url}\n")
        arguments = ("BTC_USDT", "ETH_USDT", "--url", exchange.url)
        async with running(tmp_path, *arguments, "--symbols-per-connection", "10") as program:
            await program.until(lambda: min(len(exchange.rows(one)) for one in arguments[:2]) > 30)
            exchange.silence()
            await program.journaled(sum(len(exchange.rows(one)) for one in arguments[:2]))
            assert await program.stop() == 0
        assert exchange.accepted == 2
        assert len(forwarder.asked) == 1
        store = Embedded(tmp_path)
        with store.opened():
            for symbol in arguments[:2]:
                assert store.rows(symbol.removesuffix("_USDT").lower()) == exchange.rows(symbol)


# --- Proxies that others have written ---


@asynccontextmanager
async def started(*command: str, port: int) -> AsyncIterator[None]:
    """Run a proxy until it listens, and for as long as the block runs."""
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with trio.fail_after(DEADLINE):
            while True:
                try:
                    await (await trio.open_tcp_stream(HOST, port)).aclose()
                except OSError:
                    assert process.poll() is None
                    await trio.sleep(0.05)
                else:
                    break
        yield
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def both_work(exchange: Exchange, route: str, wrong: str) -> None:
    """See that socket and REST take a route, and that another password does not."""
    assert exchange.rest is not None
    assert b'"pong"' in await pong(exchange.url, route_of(route))
    async with open_client(exchange.rest.url, route_of(route)) as client:
        assert [one.symbol for one in await contracts_of(client)] == ["BTC_USDT"]
    assert "does not connect" in await reason_of(exchange.url, route_of(wrong))


@pytest.mark.skipif(shutil.which("microsocks") is None, reason="microsocks is not installed")
async def test_a_real_socks_server(exchange: Exchange) -> None:
    """Of Debian's package, with a password."""
    port = free_port()
    command = ("microsocks", "-i", HOST, "-p", str(port), "-u", USER, "-P", SECRET)
    async with started(*command, port=port):
        await both_work(
            exchange, f"socks5://{USER}:{SECRET}@{HOST}:{port}", f"socks5://x:y@{HOST}:{port}"
        )


@pytest.mark.skipif(shutil.which("tinyproxy") is None, reason="tinyproxy is not installed")
async def test_a_real_http_proxy(exchange: Exchange, tmp_path: Path) -> None:
    """Of Debian's package, with a password."""
    port = free_port()
    config = tmp_path / "tinyproxy.conf"
    config.write_text(f"Port {port}\nListen {HOST}\nBasicAuth {USER} {SECRET}\n")
    async with started("tinyproxy", "-d", "-c", str(config), port=port):
        await both_work(
            exchange, f"http://{USER}:{SECRET}@{HOST}:{port}", f"http://x:y@{HOST}:{port}"
        )


@pytest.mark.skipif(shutil.which("microsocks") is None, reason="microsocks is not installed")
@pytest.mark.parametrize("deals", ["all", "merged"])
async def test_a_real_proxy_dies_while_another_line_lives(tmp_path: Path, deals: str) -> None:
    """Its line takes the other's route; each deal is stored once, and nothing is a gap."""
    port = free_port()
    command = ("microsocks", "-i", HOST, "-p", str(port))
    arguments = ("--lines", "2", "--route", "direct", "--route", f"socks5://{HOST}:{port}")
    async with (
        open_exchange(rate=100, shared=True) as exchange,
        running(
            tmp_path, "BTC_USDT", "--url", exchange.url, "--deals", deals, *arguments
        ) as program,
    ):
        async with started(*command, port=port):
            await program.until(lambda: heard(exchange) == 2)
        await program.until(
            lambda: "line 2: connection lost" in program.log and heard(exchange) == 2
        )
        exchange.silence()
        await program.last_journaled(last_deal(exchange))
        assert await program.stop() == 0
        store = Embedded(tmp_path)
        with store.opened():
            stored = [row for row in store.rows("btc") if row[1] == "d"]
            assert store.select("channel", "gaps") == []
    assert len(stored) == len(set(stored)) > 20
    assert set(stored) == {row for row in exchange.rows("BTC_USDT") if row[1] == "d"}
