"""The log's forms, in a process that sets up logging as the program does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.running import DEADLINE, environment


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
