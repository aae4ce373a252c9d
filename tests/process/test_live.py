"""The live screen: what it shows at which size, what it leaves behind, and whom it holds up."""

import fcntl
import logging
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mexc_trio.errors import ExchangeError
from mexc_trio.exchange.messages import Data
from mexc_trio.record.collector import Collector
from mexc_trio.record.opening import open_recording
from mexc_trio.record.recording import Recording
from mexc_trio.rows import Channel, Row
from mexc_trio.screen.live import show_screen
from mexc_trio.screen.picture import Picture, Sampler, SymbolPicture, with_sizes
from mexc_trio.screen.screen import draw, sparkline
from mexc_trio.screen.terminal import open_screen
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget
from tests.support.running import BTC, DEADLINE, Program, environment, running
from tools.exchange import open_exchange

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


# The picture as text.


def symbol(name: str = BTC, **changes: Any) -> SymbolPicture:
    """Return a picture of a symbol."""
    one = SymbolPicture(
        symbol=name, price="77524.1", rates=(0.5, 20.0, 1234.5), rate=1255.0,
        history=[0.0, 10.0, 80.0], delay=0.02, backlog=12, gaps=3, errors=4, stopped=False,
        size=42_400,
    )  # fmt: skip
    return attrs.evolve(one, **changes)


def picture(*symbols: SymbolPicture, **changes: Any) -> Picture:
    """Return a picture of symbols."""
    whole = Picture(
        symbols=symbols or [symbol()], seconds=3723.0, store="store mexc-data", away=None,
        backlog=12, url="wss://contract.mexc.com/edge", connected=len(symbols) or 1,
    )  # fmt: skip
    return attrs.evolve(whole, **changes)


def text(shown: Picture, width: int, height: int, log: Sequence[str] = ()) -> list[str]:
    """Return the lines of the screen at a size."""
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere, record=True, width=width, height=height)
        console.print(draw(shown, log, width, height))
        return [line.rstrip() for line in console.export_text().splitlines()]


FULL = """\
running   01:02:03, 1 symbol
exchange  wss://contract.mexc.com/edge  connected
store     mexc-data  answers

symbol       price  ticker/s  deal/s  depth/s  last minute    delay  backlog  gaps  errors      disk
BTC_USDT   77524.1       0.5    20.0    1,234            █    20 ms       12     3       4   42.4 kB
"""


def test_everything_is_shown_where_there_is_room() -> None:
    """At 100 signs there are all columns, the exchange, the store and the time."""
    assert text(picture(), 100, 30) == FULL.splitlines()


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (80, "symbol price rows/s minute delay backlog gaps errors disk"),
        (72, "symbol price rows/s last minute delay backlog gaps errors"),
        (64, "symbol price rows/s last minute delay backlog gaps"),
        (56, "symbol price rows/s delay backlog gaps"),
        (40, "symbol price rows/s delay"),
        (30, "symbol price rows/s"),
    ],
)
def test_a_narrow_terminal_has_fewer_columns(width: int, titles: str) -> None:
    """What matters least goes first, and no column is ever cut."""
    assert text(picture(), width, 20)[4].split() == titles.split()


def test_a_server_has_no_column_for_the_disk() -> None:
    """Its files are somewhere else."""
    titles = text(picture(symbol(size=None)), 140, 20)[4]
    assert "depth/s" in titles
    assert "disk" not in titles


def test_more_symbols_than_fit() -> None:
    """The busiest of the last minute are shown, in their order, and the others are counted."""
    symbols = [symbol(f"S{n}_USDT", history=[float(n % 7)]) for n in range(30)]
    lines = text(picture(*symbols), 100, 15)
    names = [line.split()[0] for line in lines[5:]]
    assert names == [*(f"S{n}_USDT" for n in (5, 6, 12, 13, 19, 20, 26, 27)), "and", "all"]
    assert lines[-2].strip() == "and 22 more"
    assert len(lines) == 15


def test_the_last_line_is_the_sum() -> None:
    """Of several symbols there is a line for all together, with the rows of other tables."""
    lines = text(picture(symbol(), symbol("ETH_USDT"), backlog=999), 110, 30)
    sums = re.sub("[▁-█]", "", lines[-1]).split()
    assert sums == ["all", "1.0", "40.0", "2,469", "999", "6", "8", "84.8", "kB"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"away": 75.0}, "store     mexc-data  away for 00:01:15, 12 rows wait"),
        ({"connected": 0}, "exchange  wss://contract.mexc.com/edge  not connected"),
        ({"connected": 1}, "exchange  wss://contract.mexc.com/edge  connected for 1 of 2 symbols"),
    ],
)
def test_trouble_is_named(changes: dict[str, object], line: str) -> None:
    """A store that is away and connections that are lost are seen at once."""
    assert line in text(picture(symbol(), symbol("ETH_USDT"), **changes), 100, 30)


def test_a_long_address_is_cut_before_the_trouble_is() -> None:
    """What a narrow terminal must show of the exchange is whether it is there."""
    lines = text(picture(connected=0), 40, 20)
    assert lines[1] == "exchange  wss://contra...  not connected"


def test_a_symbol_that_was_stopped_says_so() -> None:
    """It is no longer expected to have connections or rows."""
    lines = text(picture(symbol(stopped=True), symbol("ETH_USDT"), connected=1), 100, 30)
    assert lines[0] == "running   01:02:03, 2 symbols, 1 stopped"
    assert lines[1].endswith("  connected")
    assert "stopped" in lines[5]


@pytest.mark.parametrize(
    ("delay", "shown"),
    [(None, "-"), (-0.25, "-250 ms"), (0.02, "20 ms"), (12.34, "12.3 s"), (75.0, "00:01:15")],
)
def test_the_delay_has_a_unit(delay: float | None, shown: str) -> None:
    """A delay below zero, of a clock that is wrong, is not hidden."""
    assert f" {shown} " in text(picture(symbol(delay=delay)), 100, 20)[5]


def test_the_log_takes_what_is_left() -> None:
    """The last lines of the log are at the bottom, harmless and without the date."""
    log = [f"2026-11-22 19:19:{n:02}.307 INFO  line {n} \x1b[2J" for n in range(60)]
    lines = text(picture(), 100, 20, log)
    assert lines[6] == ""
    assert lines[7:] == [f"19:19:{n} INFO  line {n} \\x1b[2J" for n in range(47, 60)]
    assert len(lines) == 20


@given(
    number=st.integers(1, 60),
    width=st.integers(1, 200),
    height=st.integers(1, 60),
    log=st.lists(st.text(), max_size=30),
    away=st.none() | st.floats(0, 1e7),
)
def test_it_fits_every_terminal(
    number: int, width: int, height: int, log: list[str], away: float | None
) -> None:
    """No size is too small; where it is not tiny, nothing stands outside."""
    symbols = [symbol(f"SYMBOL{n}_USDT") for n in range(number)]
    lines = text(picture(*symbols, away=away), width, height, log)
    assert max(map(len, lines)) <= width
    if height >= 10 and width >= 40:
        assert len(lines) <= height


# The line of bars.


def test_bars_grow_with_the_numbers() -> None:
    """Zero is a dot, the greatest a whole bar, the newest at the right."""
    assert sparkline([0, 1, 4, 8], 4, 4) == "·▂▅█"
    assert sparkline([0, 8], 6, 6) == "    ·█"
    assert sparkline([], 3, 3) == "   "


def test_fewer_signs_than_numbers_are_means() -> None:
    """A minute on twenty signs has three seconds on each."""
    assert sparkline([0, 0, 0, 2, 4, 6, 8, 8, 8], 3, 9) == "·▅█"


@given(st.lists(st.floats(0, 1e9), max_size=70), st.integers(1, 80))
def test_the_bars_have_their_width(numbers: list[float], width: int) -> None:
    """Whatever the numbers are, the columns stay where they are."""
    assert len(sparkline(numbers, width, 60)) == min(width, 60)


# The recorder as the picture has it.


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recording]:
    """Open a recording whose store is never asked."""

    class Silent:
        name, database, concurrency = "store mexc-data", "mexc_data", 1
        replicated, hosts, quorum = False, (), 0

        def query(self, sql: str) -> list[tuple[object, ...]]:
            """Know nothing."""
            return []

        def close(self) -> None:
            """Do nothing."""

    monkeypatch.setattr("mexc_trio.record.opening.open_store", lambda *_, **__: Silent())
    monkeypatch.setattr("mexc_trio.record.opening._make_ready", lambda *_, **__: None)
    # Nobody is asked for deals that were missed, so that a gap is written when it ends.
    settings = Settings(store=EmbeddedTarget(tmp_path), backfill=False)
    with open_recording(settings, [BTC]) as opened:
        yield opened


def receive(collector: Collector, channel: Channel | None, *rows: tuple[int, str, str]) -> None:
    """Hand a frame to a collector."""
    dead = sum(mt == "dl" for _, mt, _ in rows)
    collector.data(Data(BTC, channel, [Row(*row) for row in rows], dead, 0))


async def test_the_picture_has_what_was_received(recording: Recording) -> None:
    """Price, rates and delay are of the rows that came, whether they are stored yet or not."""
    sampler, (collector,) = Sampler(recording), recording.collectors
    first = sampler.sample(100.0, 1000.0)
    assert (first.connected, first.symbols[0].price, first.symbols[0].delay) == (0, "", None)
    receive(collector, "ticker", (999_000, "t", "1.10|1|1|1|0.00000001"))
    receive(collector, "deal", (999_400, "d", "1.2|5|1"), (999_500, "d", "1.30|5|1"))
    receive(collector, "depth", (999_750, "dp", "[[1,2]]|[]"))
    seen = sampler.sample(102.0, 1000.0)
    (one,) = seen.symbols
    assert (seen.connected, seen.backlog, one.backlog) == (1, 4, 4)
    assert (one.price, one.delay) == ("1.30", 0.25)
    assert (one.rates, one.rate, one.history) == ((0.5, 1.0, 0.5), 2.0, (2.0,))


async def test_a_dead_letter_is_no_price(recording: Recording) -> None:
    """What could not be read counts as a row, and is not taken for a price."""
    sampler, (collector,) = Sampler(recording), recording.collectors
    sampler.sample(100.0, 1000.0)
    receive(collector, "deal", (999_000, "d", "1.2|5|1"), (999_900, "dl", "{|}"))
    receive(collector, None, (999_900, "dl", "nonsense"))
    (one,) = sampler.sample(101.0, 1000.0).symbols
    assert (one.price, one.delay, one.rate) == ("1.2", 1.0, 3.0)
    receive(collector, "deal", (999_950, "dl", "{|}"))
    assert sampler.sample(102.0, 1000.0).symbols[0].price == ""


async def test_a_lost_connection_is_seen_until_rows_come_again(recording: Recording) -> None:
    """A symbol counts as connected while its rows come."""
    sampler, (collector,) = Sampler(recording), recording.collectors
    receive(collector, "deal", (1, "d", "1|1|1"))
    assert sampler.sample(1.0, 1.0).connected == 1
    collector.connection_lost(ExchangeError("gone"))
    lost = sampler.sample(2.0, 1.0)
    assert (lost.connected, lost.symbols[0].errors) == (0, 1)
    receive(collector, "deal", (2, "d", "1|1|1"))
    again = sampler.sample(3.0, 1.0)
    assert (again.connected, again.symbols[0].gaps) == (1, 1)


async def test_rates_are_of_the_last_seconds_and_the_line_of_a_minute(
    recording: Recording,
) -> None:
    """A burst is forgotten by the rates after five seconds, by the line after sixty."""
    sampler, (collector,) = Sampler(recording), recording.collectors
    sampler.sample(0.0, 1.0)
    receive(collector, "deal", (1, "d", "1|1|1"))
    rates = [sampler.sample(float(second), 1.0).symbols[0].rate for second in range(1, 8)]
    assert rates == [1.0, 0.5, pytest.approx(1 / 3), 0.25, 0.2, 0.0, 0.0]
    for second in range(8, 61):
        (one,) = sampler.sample(float(second), 1.0).symbols
    assert (len(one.history), sum(one.history)) == (60, 1.0)
    assert sum(sampler.sample(61.0, 1.0).symbols[0].history) == 0.0


async def test_the_files_of_the_embedded_store_are_weighed(
    recording: Recording, tmp_path: Path
) -> None:
    """Both files of a table count; one that is not there yet is no trouble."""
    picture = Sampler(recording).sample(0.0, 1.0)
    assert with_sizes(picture).symbols[0].size == 0
    table = tmp_path / "data" / "mexc_data" / "btc"
    table.mkdir(parents=True)
    (table / "data.bin").write_bytes(b"12345")
    (table / "index.mrk").write_bytes(b"123")
    assert with_sizes(picture).symbols[0].size == 8


# The terminal.


@attrs.define(eq=False)
class Terminal:
    """The far side of a terminal."""

    master: int
    slave: int
    received: str = ""

    def resize(self, columns: int, lines: int) -> None:
        """Give it a size."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def hang_up(self) -> None:
        """Close the window."""
        with open(os.devnull) as nowhere:
            os.dup2(nowhere.fileno(), self.master)

    def forgive(self) -> None:
        """Take what is still written after a hang-up."""
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self.slave)

    async def until(self, *parts: str) -> str:
        """Read until it has received some texts, one after the other; return all since then."""
        pattern = ".*?".join(map(re.escape, parts))
        with trio.move_on_after(DEADLINE):
            while not (match := re.search(pattern, self.received, re.DOTALL)):
                await trio.lowlevel.wait_readable(self.master)
                self.received += os.read(self.master, 65536).decode(errors="replace")
            before, self.received = self.received[: match.end()], self.received[match.end() :]
            return before
        raise AssertionError(f"{parts} did not come: {self.received[-3000:]}")


@contextmanager
def open_terminal(columns: int, lines: int) -> Iterator[Terminal]:
    """Make a terminal of a size."""
    master, slave = pty.openpty()
    try:
        terminal = Terminal(master, slave)
        terminal.resize(columns, lines)
        yield terminal
    finally:
        os.close(master)
        os.close(slave)


@contextmanager
def process_on(terminal: Terminal) -> Iterator[TextIO]:
    """Make a terminal this process's standard output and standard error."""
    with (
        pytest.MonkeyPatch.context() as patch,
        open(terminal.slave, "w", closefd=False) as file,
    ):
        patch.setenv("TERM", "xterm")
        patch.setattr(sys, "stdout", file)
        patch.setattr(sys, "stderr", file)
        yield file


async def test_what_others_write_waits_for_the_end() -> None:
    """Neither the log nor a block of statistics spoils the picture, and nothing of it is lost."""
    with open_terminal(80, 24) as terminal, process_on(terminal) as output:
        handler = logging.StreamHandler()
        logging.root.addHandler(handler)
        with open_screen() as screen:
            sys.stdout.write("a block of statistics\n")
            logging.getLogger("test").warning("a line of the log")
            screen.show(picture())
            during = await terminal.until("77524.1", "a line of the log")
            assert "a block" not in during
            screen.close()
            screen.close()
            logging.getLogger("test").warning("the end")
        logging.root.removeHandler(handler)
        assert handler.stream is output
        assert sys.stdout is output
        await terminal.until(LEAVE, "a line of the log", "a block of statistics", "the end")


async def test_a_log_that_goes_elsewhere_goes_on_there(tmp_path: Path) -> None:
    """Standard error in a file is the log as always, at once."""
    with (
        open_terminal(80, 24) as terminal,
        process_on(terminal),
        (tmp_path / "log.txt").open("w") as file,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "stderr", file)
        handler = logging.StreamHandler()
        logging.root.addHandler(handler)
        with open_screen():
            logging.getLogger("test").warning("a line of the log")
            assert (tmp_path / "log.txt").read_text() == "a line of the log\n"
        logging.root.removeHandler(handler)


async def test_a_terminal_that_is_gone_ends_the_picture_alone(
    recording: Recording, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever closes the window loses the screen; the recorder goes on, with blocks."""
    blocks = trio.Event()

    async def print_statistics(recording: Recording) -> None:
        blocks.set()

    monkeypatch.setattr("mexc_trio.screen.live.print_statistics", print_statistics)
    with open_terminal(80, 24) as terminal, process_on(terminal):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(show_screen, recording)
            await terminal.until(ENTER, BTC)
            terminal.hang_up()
            with trio.fail_after(DEADLINE):
                await blocks.wait()
        terminal.forgive()
    assert "no more live screen" in caplog.text


async def test_it_draws_stands_still_resizes_and_leaves_the_final_block(tmp_path: Path) -> None:
    """A terminal that takes nothing holds nobody up; at the end it has what it always has."""
    arguments = ["--store", "mexc-data", "--live", "--linger", "0.1"]
    # At this size one picture is more than the kernel keeps for whoever does not read.
    with open_terminal(400, 400) as terminal:
        async with open_exchange(rate=100) as exchange:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "mexc_trio", BTC, *arguments, "--url", exchange.url],
                cwd=tmp_path,
                env=environment(TERM="xterm-256color"),
                stdin=terminal.slave,
                stdout=terminal.slave,
                stderr=terminal.slave,
            )
            (tmp_path / "log.txt").touch()
            program = Program(process, tmp_path)
            try:
                await program.journaled(200)
                await terminal.until(ENTER, "running", BTC)
                terminal.resize(60, 15)
                process.send_signal(signal.SIGWINCH)
                await terminal.until("connected", "rows/s", BTC)
                process.send_signal(signal.SIGINT)
                await terminal.until(LEAVE, "Subscribed to", "SIGINT: stopping")
                final = await terminal.until(f"{BTC} STATISTICS (Final", "records/sec", "=" * 50)
                # The cursor may be given back only after the other screen was left.
                assert "\x1b" not in final[final.index("=") :]
                assert await program.ended() == 0
            finally:
                if process.poll() is None:
                    process.kill()
                    with trio.CancelScope(shield=True):
                        await process.wait()


async def test_without_a_terminal_there_are_blocks(tmp_path: Path) -> None:
    """Into a file or a pipe go the plain statistics, and the log says why."""
    async with (
        open_exchange(rate=100) as exchange,
        running(tmp_path, BTC, "--url", exchange.url, "--live", "--stats-interval", "0.5") as run,
    ):
        await run.until(lambda: "STATISTICS (Last" in run.output)
        assert await run.stop() == 0
    assert "STATISTICS (Final" in run.output
    assert "\x1b" not in run.output + run.log
    assert "standard output is no terminal" in run.log


def test_a_dumb_terminal_gets_blocks() -> None:
    """Where nothing can be drawn, nothing is."""
    code = "from mexc_trio.screen.terminal import drawable; raise SystemExit(drawable())"
    with open_terminal(80, 24) as terminal:
        for name, usable in (("dumb", 0), ("xterm", 1)):
            done = subprocess.run(
                [sys.executable, "-c", code], stdout=terminal.slave, env=environment(TERM=name)
            )
            assert done.returncode == usable
