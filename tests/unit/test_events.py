"""A command of the user's is told what somebody should know, and recording never waits for it."""

import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import attrs
import psutil
import pytest
import trio
from trio.testing import MockClock

from mexc_trio.errors import StoreRejected
from mexc_trio.metrics import events
from mexc_trio.metrics.command import Command
from mexc_trio.metrics.events import PAUSE, Events, tell
from mexc_trio.record.recording import Recording
from tools.metrics_cost import recorder

KEEP: Final = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read())"
"""A program that adds what it is told to a file."""


def keep(file: Path) -> tuple[str, ...]:
    """Return a command that keeps what it is told."""
    return (sys.executable, "-c", KEEP, str(file))


def told(file: Path) -> list[dict[str, Any]]:
    """Return what such a command has kept."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
async def recording(tmp_path: Path) -> AsyncIterator[Recording]:
    """Make a recorder of three symbols, S0_USDT to S2_USDT, that have just had a frame each."""
    with recorder(tmp_path, 3) as made:
        yield made


def connect(recording: Recording) -> None:
    """Have every channel begin to be silent now."""
    for collector in recording.collectors:
        for pulse in collector.pulses.values():
            pulse.connected(trio.current_time())


async def seen(events: Events) -> list[tuple[str, bool, list[str]]]:
    """Look once; return kind, whether it is over, and symbols."""
    lines = [json.loads(line) for line in await events.look()]
    return [(line["event"], line["over"], line["symbols"]) for line in lines]


async def test_while_all_is_well_nothing_is_told(recording: Recording) -> None:
    """The disk is large, the store answers, every symbol has data."""
    assert await seen(Events(recording)) == []


async def test_an_outage_is_told_once_it_is_long_and_again_when_it_is_over(
    recording: Recording, autojump_clock: MockClock
) -> None:
    """Short ones pass; one that comes back at once waits until the minute is over."""
    looks = Events(recording)
    recording.gate.away_since = time.time() - 299
    assert await seen(looks) == []
    recording.gate.away_since = time.time() - 301
    assert await seen(looks) == [("store away", False, [])]
    assert await seen(looks) == []
    recording.gate.away_since = None
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


async def test_a_command_gets_the_line_and_none_of_our_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has our environment but for what is ours; a shell is one word away."""
    monkeypatch.setenv("MEXC_TRIO_PASSWORD", "hunter2")
    monkeypatch.setenv("OTHER", "there")
    await Command().run(("sh", "-c", f"cat > {tmp_path}/line; env > {tmp_path}/env"), b'{"a": 1}\n')
    assert (tmp_path / "line").read_text() == '{"a": 1}\n'
    assert "OTHER=there" in (tmp_path / "env").read_text()
    assert "hunter2" not in (tmp_path / "env").read_text()


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        (("sh", "-c", "sleep 1000 & sleep 1000"), "took longer than 1 s and was killed"),
        (("sh", "-c", "yes | cat"), "took longer than 1 s and was killed"),
        (("sh", "-c", "yes >&2"), "took longer than 1 s and was killed"),
        (("sh", "-c", "echo no host >&2; exit 6"), "ended with 6: no host"),
        (("sh", "-c", "exec 0<&-; exit 3"), "ended with 3"),
        (("sh", "-c", r"printf '\033[2J\377' >&2; exit 1"), "ended with 1: [2J\ufffd"),
        (("/no/such/program",), "does not start: No such file or directory"),
    ],
    ids=[
        "hangs",
        "floods its output",
        "floods its errors",
        "fails",
        "does not read",
        "odd",
        "gone",
    ],
)
async def test_a_command_in_trouble_is_one_warning(
    words: tuple[str, ...], warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it does ends in time, with all that it has started, and is told once."""
    command = Command()
    began = time.monotonic()
    await command.run(words, b"{}\n" * 3000, 1.0)
    assert time.monotonic() - began < 5
    assert [one.getMessage() for one in caplog.records] == [f"--on-event: {words[0]} {warning}"]
    assert not [one for one in psutil.Process().children(recursive=True) if one.name() == "sleep"]
    await command.run(("/no/such/program",), b"")
    assert len(caplog.records) == 1
    await command.run(("true",), b"")
    await command.run(("/no/such/program",), b"")
    assert len(caplog.records) == 2


async def test_the_end_is_told_and_does_not_wait_for_a_command_that_hangs(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last event comes while the program ends; who hangs then is killed."""
    monkeypatch.setattr(events, "LAST", 1.0)
    for words in (keep(tmp_path / "told"), ("sleep", "1000")):
        recording.settings = attrs.evolve(recording.settings, on_event=words)
        began = time.monotonic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell, recording)
            await trio.testing.wait_all_tasks_blocked()
            recording.end = "it failed: the disk is full"
            nursery.cancel_scope.cancel()
        assert time.monotonic() - began < 4
    (event,) = told(tmp_path / "told")
    assert (event["event"], event["detail"]) == ("stopped", "it failed: the disk is full")
    assert event["host"] == os.uname().nodename
