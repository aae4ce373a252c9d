"""The log's forms, in a process that sets up logging as the program does."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.disks import fill, mounted
from tests.support.running import BTC, DEADLINE, environment, running
from tools.exchange import open_exchange


def log(code: str, cwd: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run code in a process that may set up logging as it likes."""
    start = (
        "import logging, os, sys; from pathlib import Path;"
        "from mexc_trio.logs import end_with, start_logging; log = logging.getLogger('mexc_trio');"
    )
    return subprocess.run(
        [sys.executable, "-c", start + code], cwd=cwd, env=environment(**variables),
        capture_output=True, text=True, check=True, timeout=DEADLINE,
    )  # fmt: skip


def test_json_is_an_object_a_line(tmp_path: Path) -> None:
    """Programs read it without guessing: time in UTC, level, logger, message, traceback."""
    code = (
        "start_logging('info', 'json'); log.warning('%s', 'two\\nlines \\x1b[2J \\u2192');"
        "log.error('bug', exc_info=ValueError('odd'))"
    )
    first, second = map(json.loads, log(code, tmp_path, TZ="Asia/Tokyo").stderr.splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning", "logger": "mexc_trio", "message": "two\nlines \x1b[2J \u2192",
    }  # fmt: skip
    assert (second["level"], second["message"]) == ("error", "bug")
    assert second["exception"] == "ValueError: odd"


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_systems_journal_is_told_priorities(tmp_path: Path, form: str) -> None:
    """Where standard error is systemd's journal, and nowhere else; it has times of its own."""
    code = (
        "end = os.fstat(2); here = f'{end.st_dev}:{end.st_ino}';"
        "os.environ['JOURNAL_STREAM'] = here if sys.argv[1:] else '1:1';"
        f"start_logging('debug', '{form}'); log.debug('a'); log.info('b'); log.warning('c');"
        "log.error('d', exc_info=ValueError('e\\nf')); end_with('g')"
    )
    inside = log(f"sys.argv.append('x');{code}", tmp_path).stderr.splitlines()
    assert [line[:3] for line in inside[:4]] == ["<7>", "<6>", "<4>", "<3>"]
    assert all(line.startswith("<3>") for line in inside[4:])
    if form == "text":
        assert inside[-1] == "<3>mexc-trio: error: g"
        assert inside[:4] == ["<7>DEBUG a", "<6>INFO  b", "<4>WARN  c", "<3>ERROR d"]
    assert not any(line.startswith("<") for line in log(code, tmp_path).stderr.splitlines())


def test_a_file_has_the_log_and_the_end(tmp_path: Path) -> None:
    """Why it ended is in the log as well; standard error has that one line."""
    code = "start_logging('info', file=Path('x.log')); log.info('hello'); end_with('no disk')"
    assert log(code, tmp_path).stderr == "mexc-trio: error: no disk\n"
    lines = (tmp_path / "x.log").read_text().splitlines()
    assert [line[23:] for line in lines] == [" INFO  hello", " ERROR no disk"]


@pytest.mark.parametrize("room", [0, 10], ids=["no byte", "ten bytes"])
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_full_disk_under_a_log_file(tmp_path: Path, form: str, room: int) -> None:
    """One line says it; when there is room again the log goes on, and has what is missing.

    What a disk does that is full, the kernel does for a file that may not grow: it takes what there
    is room for, and no more.
    """
    code = (
        "from resource import *; from mexc_trio.output import drain, steady_stderr;"
        f"start_logging('info', '{form}', Path('x.log')); log.info('before'); drain(9);"
        f"most = os.stat('x.log').st_size + {room}; hard = getrlimit(RLIMIT_FSIZE)[1];"
        "setrlimit(RLIMIT_FSIZE, (most, hard)); [(log.info('lost'), drain(9)) for _ in range(3)];"
        "setrlimit(RLIMIT_FSIZE, (hard, hard)); log.info('after'); end_with('no disk')"
    )
    said = log(code, tmp_path).stderr.splitlines()
    assert said[0] == f"log file {tmp_path / 'x.log'}: File too large; its lines are lost"
    assert len(said) == 2
    before, *torn, note, after, end = (tmp_path / "x.log").read_text().splitlines()
    assert "before" in before
    assert [len(part) for part in torn] == ([room] if room else [])
    assert "3 lines of this log were dropped" in note
    assert "after" in after
    if form == "text":
        assert note[23:].startswith(" WARN  3 lines")
        assert end[23:] == " ERROR no disk"
        assert said[1] == "mexc-trio: error: no disk"
    else:
        assert [json.loads(line)["level"] for line in (note, after, end)] == [
            "warning", "info", "error",
        ]  # fmt: skip
        assert json.loads(said[1])["message"] == "no disk"


async def test_a_disk_that_is_full_for_a_while_under_the_log_of_a_recorder(tmp_path: Path) -> None:
    """Promise 6: it costs lines of the log and nothing else; then whole lines follow."""
    path = tmp_path / "logs" / "x.log"
    told = f"log file {path}: No space left on device; its lines are lost\n"
    (tmp_path / "settings.ini").write_text("[mexc-trio]\n")
    async with open_exchange(rate=100.0) as exchange:
        options = ("--url", exchange.url, "--log-file", str(path), "--log-format", "json")
        with mounted(path.parent, "-t", "tmpfs", "-o", "size=64k", "none"):
            ballast = fill(path.parent, 4096)
            async with running(tmp_path, BTC, *options) as program:
                await program.journaled(1)

                def logs_and_tells() -> bool:
                    program.process.send_signal(signal.SIGHUP)
                    return told in program.log

                def logs_again() -> bool:
                    program.process.send_signal(signal.SIGHUP)
                    return b"settings read again" in path.read_bytes()[full:]

                await program.until(logs_and_tells)
                full = path.stat().st_size  # and there it ends, in the middle of a line
                before = len(exchange.rows(BTC))
                await program.journaled(before + 100)
                assert path.stat().st_size == full
                ballast.unlink()
                await program.until(logs_again)
                assert await program.stop() == 0
                assert program.log == told
            lines = path.read_bytes()
    cut = lines[:full].rpartition(b"\n")[0].splitlines()
    note, *after = lines[full:].removeprefix(b"\n").splitlines()
    assert "were dropped" in json.loads(note)["message"]
    assert all(json.loads(line)["message"] for line in (*cut, *after))
