"""The log: its forms, and a file that stays within bounds whatever happens to it."""

import json
import logging
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mexc_trio.rotation import RotatingOutput
from tests.support.running import environment


def log(code: str, cwd: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run code in a process that may set up logging as it likes."""
    start = (
        "import logging, os, sys; from pathlib import Path;"
        "from mexc_trio.logs import end_with, start_logging; log = logging.getLogger('mexc_trio');"
    )
    return subprocess.run(
        [sys.executable, "-c", start + code], cwd=cwd, env=environment(**variables),
        capture_output=True, text=True, check=True, timeout=60,
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
    assert inside[-1] == "<3>mexc-trio: error: g"
    if form == "text":
        assert inside[:4] == ["<7>DEBUG a", "<6>INFO  b", "<4>WARN  c", "<3>ERROR d"]
    assert not any(line.startswith("<") for line in log(code, tmp_path).stderr.splitlines())


def test_a_file_has_the_log_and_the_end(tmp_path: Path) -> None:
    """Why it ended is in the log as well; standard error has that one line."""
    code = "start_logging('info', file=Path('x.log')); log.info('hello'); end_with('no disk')"
    assert log(code, tmp_path).stderr == "mexc-trio: error: no disk\n"
    lines = (tmp_path / "x.log").read_text().splitlines()
    assert [line[23:] for line in lines] == [" INFO  hello", " ERROR no disk"]


def files(path: Path) -> dict[str, str]:
    """Return the files that a log has become."""
    return {one.name: one.read_text() for one in path.parent.iterdir()}


def test_it_is_begun_anew_when_it_has_grown(tmp_path: Path) -> None:
    """Months take as much space as the bound says, and the newest lines are there."""
    path = tmp_path / "x.log"
    with closing(RotatingOutput(path, largest=100, kept=2)) as output:
        for n in range(100):
            output.write(f"line {n:04}\n")  # ten bytes
            output.drain(5)
    found = files(path)
    assert found.keys() == {"x.log", "x.log.1", "x.log.2"}
    text = found["x.log.2"] + found["x.log.1"] + found["x.log"]
    assert text == "".join(f"line {n:04}\n" for n in range(70, 100))


def test_a_file_that_others_move_is_made_again(tmp_path: Path) -> None:
    """What logrotate does, and what `rm` does."""
    path = tmp_path / "x.log"
    with closing(RotatingOutput(path)) as output:
        output.write("one\n")
        assert output.drain(5)
        path.rename(tmp_path / "moved")
        output.write("two\n")
        assert output.drain(5)
        path.unlink()
        output.write("three\n")
    assert files(path) == {"moved": "one\n", "x.log": "three\n"}


def test_a_directory_that_goes_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It costs lines, which are counted, and one word on standard error."""
    path = tmp_path / "logs" / "x.log"
    path.parent.mkdir()
    with closing(RotatingOutput(path)) as output:
        shutil.rmtree(path.parent)
        for _ in range(3):
            output.write("lost\n")
            assert output.drain(5)
        path.parent.mkdir()
        output.write("found\n")
    assert files(path) == {"x.log": "(3 lines were dropped, which nobody took)\nfound\n"}
    assert capsys.readouterr().err == (
        f"log file {path}: No such file or directory; its lines are lost\n"
    )


def test_what_is_no_file_is_no_log_file(tmp_path: Path) -> None:
    """A pipe would have to be read, and a device cannot be begun anew."""
    os.mkfifo(tmp_path / "pipe")
    for path in (Path(os.devnull), tmp_path / "pipe"):
        with pytest.raises(OSError):  # noqa: PT011 - each has its own
            RotatingOutput(path)
    assert logging.root.handlers  # of the tests' own, untouched
