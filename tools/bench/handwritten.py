"""What a capable user would write instead of this program, to be fast and nothing else.

asyncio, websockets, typed msgspec decoding with numbers as floats, and columnar INSERTs of whole
batches by clickhouse-driver in a thread. No journal, no reconnects, no gaps, no liveness, no dead
letters: what it has in memory is lost with it.
"""

import asyncio
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec
import websockets
from clickhouse_driver import Client

from mexc_trio.exchange import messages
from mexc_trio.rows import CHANNELS
from mexc_trio.symbols import table_name
from tools.bench.contenders import Outcome

_BATCH: Final = 1000  # rows
_LINGER: Final = 1.0  # seconds


class _Deal(msgspec.Struct):
    p: float
    v: float
    T: int
    t: int


class _Deals(msgspec.Struct, tag_field="channel", tag="push.deal"):
    data: list[_Deal]


class _Book(msgspec.Struct):
    bids: list[tuple[float, float, int]]
    asks: list[tuple[float, float, int]]


class _Depth(msgspec.Struct, tag_field="channel", tag="push.depth.full"):
    data: _Book
    ts: int


class _Prices(msgspec.Struct):
    lastPrice: float  # noqa: N815 - the exchange's names
    fairPrice: float  # noqa: N815
    indexPrice: float  # noqa: N815
    holdVol: float  # noqa: N815
    fundingRate: float  # noqa: N815


class _Ticker(msgspec.Struct, tag_field="channel", tag="push.ticker"):
    data: _Prices
    ts: int


_decode = msgspec.json.Decoder(_Deals | _Depth | _Ticker).decode


class _Batch:
    """Columns that wait for their INSERT."""

    def __init__(self, client: Client, table: str) -> None:
        self.client, self.insert = client, f"INSERT INTO {table} (ts, mt, m) VALUES"
        self.columns: tuple[list[int], list[str], list[str]] = ([], [], [])
        self.stored = 0

    def take(self) -> tuple[list[int], list[str], list[str]]:
        """Return the columns, and begin new ones."""
        columns, self.columns = self.columns, ([], [], [])
        return columns

    def store(self, columns: tuple[list[int], list[str], list[str]]) -> None:
        """INSERT; in a thread."""
        self.client.execute(self.insert, columns, columnar=True)
        self.stored += len(columns[0])


def handwritten(url: str, symbol: str, frames: int, server: dict[str, Any]) -> Outcome:
    """Record so many frames of a symbol."""
    return asyncio.run(_record(url, symbol, frames, server))


async def _record(url: str, symbol: str, frames: int, server: dict[str, Any]) -> Outcome:
    batch = _Batch(Client(**server), table_name(symbol))
    context = ssl.create_default_context() if url.startswith("wss") else None
    loop, inserting = asyncio.get_running_loop(), None
    with ThreadPoolExecutor(1) as thread:
        async with websockets.connect(url, ssl=context, compression=None, max_size=None) as socket:
            for channel in CHANNELS:
                await socket.send(messages.subscribe(symbol, channel))
            for _ in CHANNELS:
                await socket.recv()
            before, last = time.process_time(), time.monotonic()
            for _ in range(frames):
                _add(batch, _decode(await socket.recv(decode=False)))
                due = len(batch.columns[0]) >= _BATCH or time.monotonic() - last > _LINGER
                if due and (inserting is None or inserting.done()):
                    inserting = loop.run_in_executor(thread, batch.store, batch.take())
                    last = time.monotonic()
            if inserting is not None:
                await inserting
            batch.store(batch.take())
            return Outcome(time.monotonic(), time.process_time() - before, batch.stored)


def _add(batch: _Batch, message: _Deals | _Depth | _Ticker) -> None:
    ts, mt, m = batch.columns
    if isinstance(message, _Deals):
        for deal in message.data[::-1]:
            ts.append(deal.t)
            mt.append("d")
            m.append(f"{deal.p}|{deal.v}|{deal.T}")
        return
    ts.append(message.ts)
    if isinstance(message, _Depth):
        mt.append("dp")
        sides = (message.data.bids, message.data.asks)
        m.append("|".join(",".join(f"[{p},{v}]" for p, v, _ in side[:20]) for side in sides))
    else:
        data = message.data
        mt.append("t")
        m.append(
            f"{data.lastPrice}|{data.fairPrice}|{data.indexPrice}|{data.holdVol}|"
            f"{data.fundingRate:.8f}"
        )
