"""The exchange's side may break: what was received is stored, and each gap is written down.

Only what needs real processes and sockets; what takes patience is tested with virtual time.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio

from tests.support.faults import (
    SYMBOL,
    TALLY,
    Recorder,
    chance,
    compare,
    compare_gaps,
    repetitions,
    stored,
    stored_gaps,
    until,
)
from tests.support.faults import Exchange as ExchangeLog
from tools.clickhouse import ClickHouseServer
from tools.exchange import Exchange, open_exchange
from tools.proxy import Direction, open_proxy

IMPATIENT: Final = {
    "mexc_trio.exchange.session.PONG_TIMEOUT": 3.0,
    "mexc_trio.exchange.subscribing.ACK_TIMEOUT": 3.0,
}
"""Seconds of what takes ten otherwise, as unit tests know."""


def subscriptions(recorder: Recorder) -> int:
    """Return how many connections were subscribed to everything."""
    return recorder.said().count(f"Subscribed to: sub.depth.full for {SYMBOL}")


@asynccontextmanager
async def exchanging(
    directory: Path, server: ClickHouseServer, **options: Any
) -> AsyncIterator[tuple[Exchange, Recorder]]:
    """Run an exchange here, and a recorder as a process; compare everything at the end."""
    log = ExchangeLog(directory / "exchange")
    log.directory.mkdir()
    options = {"rate": 300.0, **options}
    with log.log.open("w", encoding="utf-8") as file:
        async with open_exchange(log=file, keep=False, **options) as exchange:
            recorder = Recorder(
                directory / "recorder", exchange.url, server.url, constants=IMPATIENT
            )
            try:
                yield exchange, recorder
                before = recorder.acked()
                await until("rows are stored", lambda: recorder.acked() > before + 50)
                await trio.to_thread.run_sync(recorder.stop)
            except BaseException:
                print(recorder.said()[-6000:])
                raise
            finally:
                if recorder.is_running:
                    recorder.kill()
    found = compare(log.connections(), stored(recorder, server))
    compare_gaps(found.segments, stored_gaps(recorder, server))


async def listens(recorder: Recorder, before: int) -> None:
    """Wait until more connections are subscribed than had been before, and rows are stored.

    On a crowded machine a connection may be lost by itself, so that they are not counted further.
    """
    await until("it listens", lambda: subscriptions(recorder) > before)
    acked = recorder.acked()
    await until("rows are stored", lambda: recorder.acked() > acked + 20)


async def test_connection_cut(tmp_path: Path, server: ClickHouseServer) -> None:
    """Each cut is a gap from the last row before to the first after, and a new connection."""
    instants = chance("exchange-cut")
    async with exchanging(tmp_path, server) as (exchange, recorder):
        recorder.start()
        await listens(recorder, 0)
        for _ in range(repetitions(3)):
            await trio.sleep(instants.uniform(0, 0.3))
            before = subscriptions(recorder)
            match instants.choice(("reset", "end", "close frame")):
                case "reset":
                    await exchange.drop(reset=True)
                case "end":
                    await exchange.drop(reset=False)
                case _:
                    await exchange.close()
            TALLY.fault("connection to the exchange cut or closed")
            await listens(recorder, before)


async def test_no_acknowledgement_and_no_pong(tmp_path: Path, server: ClickHouseServer) -> None:
    """Either ends the connection although data flows, and the next one does better."""
    async with exchanging(tmp_path, server) as (exchange, recorder):
        exchange.withheld_acks |= {"deal"}
        recorder.start("--ping-interval", "1")
        # Deals are first asked for once more, in the plain way.
        await until("it is noticed", lambda: "no acknowledgement" in recorder.said())
        exchange.withheld_acks.clear()
        await listens(recorder, 1)
        said, before = recorder.said().count("no pong"), subscriptions(recorder)
        exchange.answer_pings = False
        await until("it is noticed", lambda: recorder.said().count("no pong") > said)
        exchange.answer_pings = True
        await listens(recorder, before)
        TALLY.fault("exchange without acknowledgement")
        TALLY.fault("exchange without pong")


async def test_half_open_connection(tmp_path: Path, server: ClickHouseServer) -> None:
    """Nothing arrives any more and nothing ends, as after a router lost its table."""
    directions = chance("half-open").choice((1, 2))
    async with exchanging(tmp_path, server) as (exchange, recorder):
        async with open_proxy("127.0.0.1", exchange.port) as proxy:
            recorder.url = exchange.url.replace(f":{exchange.port}/", f":{proxy.port}/")
            recorder.start("--ping-interval", "1")
            await listens(recorder, 0)
            said, before = recorder.said().count("no pong"), subscriptions(recorder)
            for connection in proxy.connections:
                for direction in list(Direction)[-directions:]:
                    connection.gates[direction].shut("test")
            await until("it is noticed", lambda: recorder.said().count("no pong") > said)
            await listens(recorder, before)
            TALLY.fault("half-open connection to the exchange")
            recorder.kill()
        recorder.url = exchange.url
        before = subscriptions(recorder)
        recorder.start()
        await listens(recorder, before)


async def test_frames_split_at_every_byte(tmp_path: Path, server: ClickHouseServer) -> None:
    """Every byte in a segment of its own changes nothing, with all of the exchange's oddities."""
    options = {"rate": 20, "oddities": 0.3, "split_bytes": True}  # a thousand segments a frame
    async with exchanging(tmp_path, server, **options) as (_, recorder):
        recorder.start()
        await until("rows are stored", lambda: recorder.acked() > 60)
        TALLY.fault("frames split at every byte", recorder.acked())
