"""Work at the end of each turn: done before anything is waited for, and its error is heard."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from mexc_trio.journal.turn import at_end_of_each_turn


async def test_what_tasks_of_a_turn_did_is_dealt_with_together_before_any_wait() -> None:
    """Promise 1 rests on this: nothing that a turn brought waits for the network or for time."""
    waiting, dealt_with = list[int](), list[list[int]]()

    def act() -> None:
        if waiting:
            dealt_with.append(waiting.copy())
            waiting.clear()

    async def bring(number: int) -> None:
        waiting.append(number)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(at_end_of_each_turn, act)
        await wait_all_tasks_blocked()
        for number in range(3):
            nursery.start_soon(bring, number)
        await trio.lowlevel.checkpoint()  # they are started in the turn that begins now
        await trio.lowlevel.checkpoint()
        assert [sorted(together) for together in dealt_with] == [[0, 1, 2]]
        nursery.cancel_scope.cancel()


async def test_an_error_ends_the_task_at_once_and_the_work(autojump_clock: MockClock) -> None:
    """A full disk is heard when it is met, although the program was about to wait for long."""
    calls = 0

    def act() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError("no space")

    async def fail() -> None:
        with pytest.raises(OSError, match="no space"):
            await at_end_of_each_turn(act)
        failed.append(trio.current_time())

    failed: list[float] = []
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        for _ in range(10):
            await trio.sleep(1)
    assert calls == 3
    assert len(failed) == 1
    assert failed[0] - began <= 3


async def test_nothing_is_done_any_more_after_a_cancellation() -> None:
    """The journal is closed after its task has ended, and nobody writes to it then."""
    calls = 0

    def act() -> None:
        nonlocal calls
        calls += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(at_end_of_each_turn, act)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    before = calls
    assert before
    await wait_all_tasks_blocked()
    assert calls == before
