"""The log: its forms, and a file that stays within bounds whatever happens to it."""

import io
import logging
import math
import os
import shutil
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mexc_trio import logs
from mexc_trio.logs import RotatingOutput
from tests.support.running import DEADLINE


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


def test_what_is_lost_later_is_told_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once while it comes and goes; and anew after a time in which nothing was written at all."""
    path = tmp_path / "logs" / "x.log"
    path.parent.mkdir()
    told = f"log file {path}: No such file or directory; its lines are lost\n"
    with closing(RotatingOutput(path)) as output:
        for quiet, times in ((60.0, 1), (math.inf, 0), (0.0, 1)):
            monkeypatch.setattr(logs, "QUIET", quiet)
            shutil.rmtree(path.parent)
            for _ in range(2):
                output.write("lost\n")
                assert output.drain(DEADLINE)
            assert capsys.readouterr().err == told * times
            path.parent.mkdir()
            output.write("found\n")
            assert output.drain(DEADLINE)


def test_standard_error_that_takes_nothing_ends_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be on the disk that is full, too: the log goes on when there is room again."""
    path = tmp_path / "logs" / "x.log"
    path.parent.mkdir()
    reading, writing = os.pipe()
    os.close(reading)
    with closing(RotatingOutput(path)) as output:
        with (
            io.TextIOWrapper(io.FileIO(writing, "w"), write_through=True) as nobody,
            monkeypatch.context() as patch,
        ):
            patch.setattr(sys, "stderr", nobody)
            shutil.rmtree(path.parent)
            output.write("lost\n")
            assert output.drain(DEADLINE)
        path.parent.mkdir()
        output.write("found\n")
    assert path.read_text().endswith("found\n")


def test_a_link_that_takes_its_place_is_not_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever can write to a log's directory would else have us write into any file of ours."""
    log, other = tmp_path / "real" / "log.txt", tmp_path / "other"
    log.parent.mkdir()
    (tmp_path / "link").symlink_to(log)
    other.write_text("ours\n")
    with closing(RotatingOutput(tmp_path / "link")) as output:  # this link is the user's
        output.write("one\n")
        assert output.drain(DEADLINE)
        log.unlink()
        log.symlink_to(other)
        output.write("two\n")
        assert output.drain(DEADLINE)
        log.unlink()
        os.mkfifo(log)
        output.write("three\n")
        assert output.drain(DEADLINE)
        log.unlink()
        output.write("four\n")
        assert output.drain(DEADLINE)
        assert log.read_text().endswith("four\n")
    assert other.read_text() == "ours\n"
    assert "its lines are lost" in capsys.readouterr().err


def test_what_is_no_file_is_no_log_file(tmp_path: Path) -> None:
    """A pipe would have to be read, and a device cannot be begun anew."""
    os.mkfifo(tmp_path / "pipe")
    for path in (Path(os.devnull), tmp_path / "pipe"):
        with pytest.raises(OSError):  # noqa: PT011 - each has its own
            RotatingOutput(path)
    assert logging.root.handlers  # of the tests' own, untouched
