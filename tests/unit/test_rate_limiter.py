"""Turns in virtual time: what the exchange counts by address leaves at an even pace."""

import json
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from mexc_trio.exchange.connection import Connection
from mexc_trio.exchange.rate_limiter import RateLimiter
from mexc_trio.exchange.session import Endpoint, SessionOptions
from mexc_trio.exchange.subscribing import SUBSCRIBE_PAUSE
from tests.support.inmemory import URL, Line, Listener, dial_of, no_flush
from tools.exchange import open_exchange


async def test_turns_are_apart_however_many_wait(autojump_clock: MockClock) -> None:
    """The first is free, each other one an interval later, in the order of asking."""
    rate_limiter = RateLimiter(0.5)
    began = trio.current_time()
    turns: list[tuple[int, float]] = []

    async def take(number: int) -> None:
        await rate_limiter.acquire()
        turns.append((number, trio.current_time() - began))

    for number in range(3):
        await take(number)
    await trio.sleep(10)
    async with trio.open_nursery() as nursery:
        for number in range(3, 6):
            nursery.start_soon(take, number)
            await trio.testing.wait_all_tasks_blocked()
    assert [number for number, _ in turns] == [0, 1, 2, 3, 4, 5]
    assert [time for _, time in turns] == pytest.approx([0, 0.5, 1.0, 11.0, 11.5, 12.0])


async def test_connections_share_one_pace(autojump_clock: MockClock) -> None:
    """A hundred symbols on many connections are dialled and subscribed one after the other.

    What has not had its turn yet is not taken for silent.
    """
    async with open_exchange() as exchange, trio.open_nursery() as nursery:
        line = Line(nursery, exchange)
        rate_limiter = RateLimiter(SUBSCRIBE_PAUSE)
        times: list[float] = []

        class Noting(list[tuple[int, str]]):
            def append(self, request: tuple[int, str]) -> None:
                if json.loads(request[1])["method"] == "sub.deal":
                    times.append(trio.current_time())

        exchange.requests = Noting()
        listeners = [Listener(f"A{number}_USDT") for number in range(100)]
        for first in range(0, 100, 5):
            group = listeners[first : first + 5]
            nursery.start_soon(
                Connection(
                    [Endpoint(URL, dial_of(line))],
                    group,
                    SessionOptions(15, no_flush, rate_limiter),
                ).run
            )
        await exchange.until(lambda: len(exchange.symbols) == 100)
        await trio.testing.wait_all_tasks_blocked()
        assert times[-1] - times[0] == pytest.approx(99 * SUBSCRIBE_PAUSE, rel=0.05)
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert min(pauses) > SUBSCRIBE_PAUSE - 0.01
        assert not any(listener.silences or listener.errors for listener in listeners)
        nursery.cancel_scope.cancel()
