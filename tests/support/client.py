"""A WebSocket client for tests of the simulated exchange: a library's, and none of the recorder."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

from tools.exchange import Exchange
from tools.market import CHANNELS

BTC = "BTC_USDT"


@contextlib.asynccontextmanager
async def wrapped(stream: trio.abc.Stream) -> AsyncIterator[WebSocketConnection]:
    """Speak WebSocket over any stream to the exchange, and close the stream in every case.

    trio-websocket's own ``open_websocket_url`` leaves the stream open when the other side ends a
    connection without a close frame, which is what half of these tests are about.
    """
    async with stream, trio.open_nursery() as nursery:
        connection = await wrap_client_stream(
            nursery,
            cast("trio.SocketStream", stream),  # it asks for a socket but uses any stream
            "exchange",
            "/edge",
            max_message_size=4 * 2**20,
        )
        yield connection
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def client(
    exchange: Exchange, symbol: str | None = BTC
) -> AsyncIterator[WebSocketConnection]:
    """Connect as a recorder would, and subscribe to a symbol unless it is None."""
    stream = await trio.open_tcp_stream("127.0.0.1", exchange.port)
    async with wrapped(stream) as websocket:
        if symbol is not None:
            await subscribe(websocket, symbol)
            for _ in CHANNELS:
                await websocket.get_message()
        yield websocket


async def ask(websocket: WebSocketConnection, method: str, **param: object) -> None:
    """Send a request."""
    request: dict[str, object] = {"method": method}
    if param:
        request["param"] = param
    await websocket.send_message(json.dumps(request))


async def subscribe(websocket: WebSocketConnection, symbol: str) -> None:
    """Ask for the three channels of a symbol."""
    for channel in CHANNELS:
        await ask(websocket, f"sub.{channel}", symbol=symbol)


async def receive(websocket: WebSocketConnection) -> Any:  # a JSON document has no narrower type
    """Receive and parse a text frame."""
    message = await websocket.get_message()
    assert isinstance(message, str)
    return json.loads(message)
