"""The log: its forms, and a file that stays within bounds whatever happens to it."""

import logging
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from mexc_trio.rotation import RotatingOutput


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
