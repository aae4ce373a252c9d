"""A command of the user's that is told of events, and what becomes of one that misbehaves."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import attrs
import psutil
import pytest
import trio

from mexc_trio.metrics import events
from mexc_trio.metrics.command import Command
from mexc_trio.metrics.events import tell_of_events
from mexc_trio.record.recording import Recording
from tests.support.running import DEADLINE

KEEP: Final = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read())"
"""A program that adds what it is told to a file."""


def keep(file: Path) -> tuple[str, ...]:
    """Return a command that keeps what it is told."""
    return (sys.executable, "-c", KEEP, str(file))


def told(file: Path) -> list[dict[str, Any]]:
    """Return what such a command has kept."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


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
    ("seconds", "words", "warning"),
    [
        (1, ("sh", "-c", "sleep 1000 & sleep 1000"), "took longer than 1 s and was killed"),
        (1, ("sh", "-c", "yes | cat"), "took longer than 1 s and was killed"),
        (1, ("sh", "-c", "yes >&2"), "took longer than 1 s and was killed"),
        (DEADLINE, ("sh", "-c", "echo no host >&2; exit 6"), "ended with 6: no host"),
        (DEADLINE, ("sh", "-c", "exec 0<&-; exit 3"), "ended with 3"),
        (DEADLINE, ("sh", "-c", r"printf '\033[2J\377' >&2; exit 1"), "ended with 1: [2J\ufffd"),
        (DEADLINE, ("/no/such/program",), "does not start: No such file or directory"),
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
    seconds: float, words: tuple[str, ...], warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it does ends in time, with all that it has started, and is told once."""
    command = Command()
    began = time.monotonic()
    await command.run(words, b"{}\n" * 3000, seconds)
    assert time.monotonic() - began < 60
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
            nursery.start_soon(tell_of_events, recording)
            await trio.testing.wait_all_tasks_blocked()
            recording.end = "it failed: the disk is full"
            nursery.cancel_scope.cancel()
        assert time.monotonic() - began < 60
    (event,) = told(tmp_path / "told")
    assert (event["event"], event["detail"]) == ("stopped", "it failed: the disk is full")
    assert event["host"] == os.uname().nodename
