"""Tasks that fail alone."""

import errno
import logging
from functools import partial
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from mexc_trio.errors import DiskFull, UsageError, out_of_resources
from mexc_trio.supervise import LONGEST_PAUSE, supervise


async def test_a_task_that_ends_has_ended(autojump_clock: MockClock) -> None:
    """It is not started again."""
    starts: list[float] = []

    async def task() -> None:
        starts.append(trio.current_time())

    await supervise("task", task)
    assert len(starts) == 1


async def test_a_bug_is_told_with_its_traceback_and_started_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Later and later, up to a minute; whoever wants to hears of each."""
    starts: list[float] = []
    heard: list[Exception] = []

    async def task() -> None:
        starts.append(trio.current_time())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            if len(starts) < 10:
                raise ZeroDivisionError
            nursery.cancel_scope.cancel()

    await supervise("statistics", task, heard.append)
    assert [b - a for a, b in pairwise(starts)] == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])
    assert len(heard) == 9
    assert isinstance(heard[0], ZeroDivisionError)
    assert {r.levelno for r in caplog.records} == {logging.ERROR}
    assert all(r.exc_info for r in caplog.records)
    assert caplog.messages[0] == "statistics: an error of this program; starting again in 1 s"


async def test_what_can_be_told_in_a_line_is_told_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A port that is taken for a day is one line, without a traceback."""
    starts: list[float] = []

    async def task() -> None:
        starts.append(trio.current_time())
        raise UsageError("port 8123 is taken")

    with trio.move_on_after(86400):
        await supervise("HTTP", task)
    assert len(starts) > 86400 / LONGEST_PAUSE
    assert caplog.messages == ["HTTP: port 8123 is taken; trying again in 1 s"]
    assert caplog.records[0].exc_info is None


async def test_the_journal_is_everybodys() -> None:
    """Without it nothing can be kept: its error ends the others too."""

    async def task() -> None:
        raise DiskFull("only 3 MiB are free")

    with pytest.RaisesGroup(DiskFull, flatten_subgroups=True):
        await supervise("disk", task)


async def test_a_cancelled_task_is_not_started_again(autojump_clock: MockClock) -> None:
    """Not even if it fails while it is being cancelled; what it says then is still in the log."""
    starts = 0

    async def fail_at_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError

    async def task() -> None:
        nonlocal starts
        starts += 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_at_the_end)

    with trio.move_on_after(1) as scope:
        await supervise("task", task)
    assert (scope.cancelled_caught, starts) == (True, 1)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "too many open files"),
        (OSError(errno.ENFILE, "Too many open files in system"), "too many open files"),
        (RuntimeError("can't start new thread"), "no more threads to be had"),
        (OSError(errno.ECONNREFUSED, "Connection refused"), ""),
        (RuntimeError("something else"), ""),
    ],
)
async def test_a_shortage_is_told_from_a_bug(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, error: Exception, text: str
) -> None:
    """However deep it lies: as the cause of another error, or in a group."""
    outer = OSError("all attempts to connect failed")
    outer.__cause__ = ExceptionGroup("", [ExceptionGroup("", [error])])
    assert out_of_resources(error) == out_of_resources(outer) == text

    async def task(error: Exception) -> None:
        raise error

    with trio.move_on_after(0.5):
        await supervise("connection", partial(task, error))
    (record,) = caplog.records
    assert (record.exc_info is None) == bool(text)
