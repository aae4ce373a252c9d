"""A terminal, a pipe, a locale or a launcher that misbehaves ends no recording."""

import fcntl
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from tests.support.running import BTC, DEADLINE, Program, environment, running
from tools.exchange import Exchange, open_exchange

RATE = 400.0
"""Messages a second; a block of statistics comes ten times a second."""
OFTEN = ("--stats-interval", "0.1", "--linger", "0.2")


@asynccontextmanager
async def on_terminal(
    directory: Path, exchange: Exchange, *options: str
) -> AsyncIterator[tuple[Program, int]]:
    """Record on a terminal of 120 by 40 signs; give the program and the terminal's other end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "mexc_trio", BTC, "--url", exchange.url, *OFTEN, *options],
        cwd=directory,
        env=environment(TERM="xterm"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    (directory / "log.txt").touch()
    try:
        yield Program(process, directory), ours
    finally:
        if process.poll() is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
        with suppress(OSError):
            os.close(ours)


async def read(fd: int) -> None:
    """Take what comes from a terminal, as its window does, until cancelled or it is gone."""
    os.set_blocking(fd, False)
    while True:
        await trio.lowlevel.wait_readable(fd)
        try:
            if not os.read(fd, 1 << 16):
                return
        except BlockingIOError:
            continue
        except OSError:
            return


@pytest.mark.parametrize(
    ("options", "number"),
    [((), signal.SIGHUP), (("--live",), signal.SIGTERM)],
    ids=["blocks", "live"],
)
async def test_a_terminal_that_stands_still(
    tmp_path: Path, options: Sequence[str], number: int
) -> None:
    """Promises 5 and 6: after Ctrl-S all is recorded, and a signal still ends the program."""
    async with (
        open_exchange(rate=RATE) as exchange,
        on_terminal(tmp_path, exchange, *options) as (program, terminal),
        trio.open_nursery() as nursery,
    ):
        window = trio.CancelScope()

        async def look() -> None:
            with window:
                await read(terminal)

        nursery.start_soon(look)
        await program.journaled(300)
        window.cancel()  # nobody looks any more, and the terminal fills
        os.write(terminal, b"\x13")  # Ctrl-S
        await program.journaled(1200)
        began = trio.current_time()
        assert await program.stop(number) == 0
        assert trio.current_time() - began < 60


def unread() -> int:
    """Open a pipe that somebody holds and nobody reads: `| less`, a log collector that hangs."""
    ours, theirs = os.pipe()
    os.set_inheritable(ours, True)  # by the program itself, so that it stays open as long
    if sys.platform == "linux":
        fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)  # the sooner it is full
    return theirs


def gone() -> int:
    """Open a pipe whose reader has gone: `| head`, a log collector that has died."""
    ours, theirs = os.pipe()
    os.close(ours)
    return theirs


def full() -> int:
    """Open a file on a disk that is full."""
    return os.open("/dev/full", os.O_WRONLY)


def window() -> int:
    """Open a terminal whose window is never looked at, as over a hung SSH."""
    ours, theirs = pty.openpty()
    os.set_inheritable(ours, True)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    return theirs


Opened = Callable[[], int]


@pytest.mark.parametrize(
    ("output", "errors", "options"),
    [
        (unread, unread, ()),
        (unread, unread, ("--live", "--log-format", "json")),
        (gone, gone, ()),
        (full, full, ()),
        (window, unread, ("--live",)),
        (window, full, ("--live",)),
        (window, gone, ("--live",)),
        (gone, window, ()),
        (window, window, ("--live", "--log-file", "the.log")),
    ],
)
async def test_output_that_is_not_taken(
    tmp_path: Path, output: Opened, errors: Opened, options: Sequence[str]
) -> None:
    """Promises 5 and 6: all is recorded, and SIGTERM ends the program within its bound."""
    async with open_exchange(rate=RATE) as exchange:
        ends = output(), errors()
        process = await trio.lowlevel.open_process(
            [
                sys.executable, "-m", "mexc_trio", BTC, "--url", exchange.url, *OFTEN,
                "--log-level", "debug", *options,
            ],
            cwd=tmp_path,
            env=environment(TERM="xterm"),
            stdin=subprocess.DEVNULL,
            stdout=ends[0],
            stderr=ends[1],
            close_fds=False,
        )  # fmt: skip
        for end in ends:
            os.close(end)
        (tmp_path / "log.txt").touch()
        program = Program(process, tmp_path)
        try:
            await program.journaled(600)
            began = trio.current_time()
            assert await program.stop(signal.SIGTERM) == 0
            assert trio.current_time() - began < 60
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
async def test_closed_descriptors(tmp_path: Path, closed: str) -> None:
    """Promise 6: a launcher that closed standard streams gets a recording all the same."""
    async with open_exchange(rate=RATE) as exchange:
        command = f'exec "$0" -m mexc_trio {BTC} --url {exchange.url} --duration 1 '
        options = "--stats-interval 0.5 "
        with trio.fail_after(DEADLINE):
            ended = await trio.run_process(
                ["/bin/sh", "-c", command + options + closed, sys.executable],
                cwd=tmp_path,
                env=environment(),
                check=False,
                capture_stderr=closed in ("<&-", ">&-"),
                capture_stdout=closed in ("<&-", "2>&-"),
            )
    assert ended.returncode == 0
    assert b"Traceback" not in (ended.stderr or b"")
    assert (tmp_path / "mexc-data" / "journal.sqlite").exists()


async def test_a_locale_without_arrows(tmp_path: Path) -> None:
    """Promise 6: what the terminal cannot show is shown as an escape."""
    async with (
        open_exchange(rate=RATE) as exchange,
        running(
            tmp_path, BTC, "--url", exchange.url, "--duration", "1",
            variables={"PYTHONIOENCODING": "latin-1"}, forked=False,
        ) as program,
    ):  # fmt: skip
        assert await program.ended() == 0
        assert "\\u2192 btc/data.bin" in program.output


AS_PROCESS_1 = ("unshare", "--user", "--map-root-user", "--pid", "--fork")


@pytest.fixture(params=["any process", "process 1"])
def launcher(request: pytest.FixtureRequest) -> Sequence[str]:
    """Return how to start a program, for one thing as process 1 of a container is."""
    if request.param == "any process":
        return ()
    probe = [*AS_PROCESS_1, "true"]
    if (
        shutil.which("unshare") is None
        or subprocess.run(probe, stderr=subprocess.DEVNULL).returncode
    ):
        pytest.skip("this machine lets nobody make process 1")
    return AS_PROCESS_1


@pytest.mark.parametrize("moment", ["mexc_trio.output", "cyclopts"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_in_the_first_moment_has_a_word(
    tmp_path: Path, launcher: Sequence[str], number: int, moment: str
) -> None:
    """Promise 5: whoever is ended before anything began says so, as process 1 too.

    From the program's first import on, that is: before that, Python is starting.
    """
    code = (
        "import builtins, os, sys\n"
        "real = builtins.__import__\n"
        "def strike(name, *rest):\n"
        f"    if name == {moment!r}:\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = strike\n"
        "from mexc_trio.__main__ import main\n"
        "sys.exit(main())\n"
    )
    ended = await trio.run_process(
        [*launcher, sys.executable, "-c", code], cwd=tmp_path, env=environment(), check=False,
        capture_stderr=True,
    )  # fmt: skip
    assert ended.returncode == (130 if number == signal.SIGINT else 143)
    name = signal.Signals(number).name
    assert ended.stderr.decode() == f"mexc-trio: error: ended by {name}\n"


async def test_what_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    """A recorder under nohup goes on when its terminal is closed."""
    ignoring = "trap '' HUP; exec \"$0\""
    async with open_exchange(rate=RATE) as exchange:
        with (tmp_path / "log.txt").open("w") as log, (tmp_path / "output.txt").open("w") as out:
            process = await trio.lowlevel.open_process(
                ["/bin/sh", "-c", f"{ignoring} -m mexc_trio {BTC} --url {exchange.url}",
                 sys.executable],
                cwd=tmp_path, env=environment(), stdout=out, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        program = Program(process, tmp_path)
        try:
            await program.journaled(100)
            process.send_signal(signal.SIGHUP)
            await program.journaled(600)
            assert await program.stop(signal.SIGTERM) == 0
        finally:
            if process.poll() is None:
                process.kill()
