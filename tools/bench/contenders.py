"""What the recorder is measured against: nothing but receiving, and the reference design."""

import json
import os
import time
from typing import Any, Final, NamedTuple

import trio
import websocket
from clickhouse_driver import Client
from trio_websocket import open_websocket_url

from mexc_trio.exchange import messages
from mexc_trio.rows import CHANNELS
from mexc_trio.symbols import table_name

# With the library's defaults this loop is half as fast. The recorder reads as much at once; it has
# no queue.
QUEUE_SIZE: Final = 256
BUFFER_SIZE: Final = 98304


class Outcome(NamedTuple):
    """What became of a run."""

    end: float
    """When the last message was dealt with (`time.monotonic`)."""
    processor: float
    """Seconds of processor time, from the first message on."""
    rows: int
    """Rows that were stored."""


def bare_loop(url: str, symbol: str, frames: int) -> Outcome:
    """Receive with trio-websocket and do nothing else: what the library itself can do."""
    return trio.run(_bare_loop, url, symbol, frames)


async def _bare_loop(url: str, symbol: str, frames: int) -> Outcome:
    async with open_websocket_url(
        url, message_queue_size=QUEUE_SIZE, receive_buffer_size=BUFFER_SIZE
    ) as socket:
        for channel in CHANNELS:
            await socket.send_message(messages.subscribe(symbol, channel))
        for _ in CHANNELS:
            await socket.get_message()
        get_message = socket.get_message
        before = time.process_time()
        for _ in range(frames):
            await get_message()
        return Outcome(time.monotonic(), time.process_time() - before, 0)


# Seconds; the driver's own default is 300.
_TIMEOUT: Final = 10


def reference(url: str, symbol: str, frames: int, server: dict[str, Any]) -> Outcome:
    """Record as the reference design does: websocket-client, json, an INSERT for each message.

    It takes deal frames that are arrays, which the reference design itself cannot, so that it
    stores the same rows.
    """
    client = Client(**server, send_receive_timeout=_TIMEOUT)
    insert = f"INSERT INTO {table_name(symbol)} (ts, mt, m) VALUES"
    left, rows, before = frames, 0, 0.0
    outcome: list[Outcome] = []

    def on_open(socket: Any) -> None:
        for channel in CHANNELS:
            socket.send(messages.subscribe(symbol, channel))

    def on_message(socket: Any, text: str) -> None:
        nonlocal left, rows, before
        message = json.loads(text)
        made = _reference_rows(message)
        if not made:
            return
        before = before or time.process_time()
        client.execute(insert, made)
        rows += len(made)
        left -= 1
        if not left:
            outcome.append(Outcome(time.monotonic(), time.process_time() - before, rows))
            socket.close()

    application = websocket.WebSocketApp(url, on_open=on_open, on_message=on_message)
    # It takes neither the system's authorities nor those of SSL_CERT_FILE.
    application.run_forever(sslopt={"ca_certs": os.environ.get("SSL_CERT_FILE")})
    client.disconnect()
    return outcome[0]


def _reference_rows(message: dict[str, Any]) -> list[tuple[int, str, str]]:
    channel, data = message["channel"], message["data"]
    if channel == "push.ticker":
        fields = ("lastPrice", "fairPrice", "indexPrice", "holdVol")
        text = "|".join(str(data[field]) for field in fields)
        return [(message["ts"], "t", f"{text}|{data['fundingRate']:.8f}")]
    if channel == "push.deal":
        return [(deal["t"], "d", f"{deal['p']}|{deal['v']}|{deal['T']}") for deal in data[::-1]]
    if channel == "push.depth.full":
        sides = (data["bids"], data["asks"])
        text = "|".join(
            ",".join(f"[{level[0]},{level[1]}]" for level in side[:20]) for side in sides
        )
        return [(message["ts"], "dp", text)]
    return []
