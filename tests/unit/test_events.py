"""A command of the user's is told what somebody should know, and recording never waits for it."""

import json
import shutil
import time
from pathlib import Path

import attrs
import trio
from trio.testing import MockClock

from mexc_trio.errors import StoreRejected
from mexc_trio.metrics.events import PAUSE, Events
from mexc_trio.record.recording import Recording
from tools.metrics_cost import recorder


def connect(recording: Recording) -> None:
    """Have every channel begin to be silent now."""
    for collector in recording.collectors:
        for liveness in collector.liveness.values():
            liveness.connected(trio.current_time())


async def seen(events: Events) -> list[tuple[str, bool, list[str]]]:
    """Look once; return kind, whether it is over, and symbols."""
    lines = [json.loads(line) for line in await events.check()]
    return [(line["event"], line["over"], line["symbols"]) for line in lines]


async def test_while_all_is_well_nothing_is_told(recording: Recording) -> None:
    """The disk is large, the store answers, every symbol has data."""
    assert await seen(Events(recording)) == []


async def test_an_outage_is_told_once_it_is_long_and_again_when_it_is_over(
    recording: Recording, autojump_clock: MockClock
) -> None:
    """Short ones pass; one that comes back at once waits until the minute is over."""
    looks = Events(recording)
    recording.store.away_since = time.time() - 299
    assert await seen(looks) == []
    recording.store.away_since = time.time() - 301
    assert await seen(looks) == [("store away", False, [])]
    assert await seen(looks) == []
    recording.store.away_since = None
    assert await seen(looks) == []  # it has just been told of
    await trio.sleep(PAUSE)
    assert ("store away", True, []) in await seen(looks)
    assert ("store away", True, []) not in await seen(looks)


async def test_symbols_without_data_are_one_event(
    recording: Recording, autojump_clock: MockClock
) -> None:
    """All symbols of an exchange that is away come together, and who stops is named."""
    looks = Events(recording)
    connect(recording)
    await trio.sleep(61)  # tickers come every few seconds
    assert await seen(looks) == []
    await trio.sleep(299)
    assert await seen(looks) == []
    await trio.sleep(2)
    recording.collectors[0].stop(StoreRejected("no such table"))
    assert await seen(looks) == [
        ("symbol stopped", False, ["S0_USDT"]),
        ("gap", False, ["S1_USDT", "S2_USDT"]),
    ]
    assert await seen(looks) == []
    connect(recording)
    await trio.sleep(1)
    assert await seen(looks) == []  # it has just been told of
    await trio.sleep(PAUSE - 40)
    connect(recording)
    await trio.sleep(40)
    assert await seen(looks) == [("gap", True, ["S1_USDT", "S2_USDT"])]


async def test_the_time_in_which_the_program_did_not_run_is_part_of_a_gap(tmp_path: Path) -> None:
    """A recorder that comes back after an hour and has no data yet tells so at once."""
    with recorder(tmp_path, 1, age=3600.0):
        pass
    with recorder(tmp_path, 1, age=None) as recording:
        assert await seen(Events(recording)) == [("gap", False, ["S0_USDT"])]


async def test_a_disk_that_fills_is_told_before_it_is_full(recording: Recording) -> None:
    """At twice the bound, as in the log."""
    free = shutil.disk_usage(recording.journal.path.parent).free
    recording.settings = attrs.evolve(recording.settings, min_free_mib=(free >> 20) * 2 // 3)
    assert await seen(Events(recording)) == [("disk low", False, [])]
