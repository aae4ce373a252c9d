"""Output that nobody waits for: what is dropped, what is told, and how it ends."""

import io
import os
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mexc_trio.export.formats import Piped
from mexc_trio.output import SteadyOutput, say

Pipe = tuple[int, io.TextIOWrapper]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Lend a pipe: the end to read from, and the file to write to."""
    reading, writing = os.pipe()
    with open(writing, "w", encoding="latin-1") as file:
        yield reading, file
    os.close(reading)


def read_all(fd: int) -> str:
    """Read until nobody writes any more."""
    parts = []
    while part := os.read(fd, 1 << 16):
        parts.append(part)
    return b"".join(parts).decode("latin-1")


def fill(fd: int) -> None:
    """Leave a pipe no room."""
    os.set_blocking(fd, False)
    with suppress(BlockingIOError):
        while True:
            os.write(fd, b"." * 4096)
    os.set_blocking(fd, True)


def test_everything_is_written_in_order(pipe: Pipe) -> None:
    """Where the file takes what is written, nothing is lost."""
    output = SteadyOutput(pipe[1], "text")
    for n in range(100):
        print(n, file=output)
    output.end()
    pipe[1].close()
    assert read_all(pipe[0]) == "".join(f"{n}\n" for n in range(100))


def test_nobody_waits_for_a_pipe_that_is_not_read(pipe: Pipe) -> None:
    """Promise 6: writing goes on in bounded memory; what is lost is told."""
    fill(pipe[1].fileno())
    output = SteadyOutput(pipe[1], "text", most=10_000)
    began = time.monotonic()
    for n in range(100_000):
        output.write(f"line {n}\n")
    output.end(0.1)
    took = time.monotonic() - began
    assert took < 5
    assert not output.idle
    os.set_blocking(pipe[0], False)
    taken = b""
    while not output.drain(0.01):
        taken += os.read(pipe[0], 1 << 20)
    os.set_blocking(pipe[0], True)
    pipe[1].close()
    rest = taken.decode() + read_all(pipe[0])
    assert len(rest) < 200_000  # what the pipe holds, and what waited
    assert "lines were dropped, which nobody took)\n" in rest
    assert rest.endswith("line 99999\n")


def test_a_sign_that_the_terminal_lacks_is_an_escape(pipe: Pipe) -> None:
    """Promise 6: an arrow ends no recording in a Latin-1 locale."""
    output = SteadyOutput(pipe[1], "text")
    output.write("7 → btc é\n")
    output.end()
    pipe[1].close()
    assert read_all(pipe[0]) == "7 \\u2192 btc é\n"


def test_a_reader_that_has_gone_is_told_once(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    """Promise 6: a closed pipe costs output and nothing else."""
    output = SteadyOutput(pipe[1], "statistics on standard output")
    reading = os.dup(pipe[0])
    os.dup2(os.open(os.devnull, os.O_RDONLY), pipe[0])
    os.close(reading)
    for _ in range(3):
        output.write("text\n")
        output.drain(5)
    output.end()
    assert caplog.messages == ["no more statistics on standard output: Broken pipe"]


def test_a_full_disk_costs_what_it_cannot_take(caplog: pytest.LogCaptureFixture) -> None:
    """Promise 6: a disk that is full for a while under a log ends nothing."""
    with open("/dev/full", "w", encoding="utf-8") as full:
        output = SteadyOutput(full, "log")
        output.write("text\n")
        assert output.drain(5)
        output.write("text\n")
        output.end()
    assert output.idle
    assert not caplog.messages


def test_what_is_said_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """A server's table may have any name."""
    say("table \x1b[2Jb\ntc: 1 row → gone")
    assert capsys.readouterr().out == "table \\x1b[2Jb\\ntc: 1 row → gone\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_an_export_moves_no_cursor_either(terminal: bool) -> None:
    """A dead letter in a terminal is shown; in a pipe each byte stays as it is."""

    class Out(io.BytesIO):
        def isatty(self) -> bool:
            return terminal

    out, line = Out(), b"1,dl,\x1b[2J\xc2\x9b\xe2\x82\xac\xff\n"
    assert Piped(out).write(line) == len(line)
    assert out.getvalue() == (b"1,dl,\\x1b[2J\\x9b\xe2\x82\xac\xff\n" if terminal else line)
