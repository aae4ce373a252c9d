"""Calls of a store that take minutes, and need not be waited for when nobody wants their result."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

import trio

from mexc_trio.errors import StoreError

T = TypeVar("T")

STOP_AGAIN: Final = 0.2
"""Seconds until a statement that did not end is ended once more."""


async def interruptible(
    call: Callable[[], T], stop: Callable[[], None], limiter: trio.CapacityLimiter
) -> T:
    """Make a call in a thread; when cancelled, end it in the engine, and wait for that alone.

    `stop` ends the statements of `call`, which then raises; it may be called again and again.
    """
    ended = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def run() -> T:
        try:
            return call()
        finally:
            token.run_sync_soon(ended.set)

    # No cancellation comes between this and the thread, which sets the event in any case.
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        return await trio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=limiter)
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            while not ended.is_set():  # it may not have begun, or go on to the next statement
                with suppress(StoreError):
                    await trio.to_thread.run_sync(stop, limiter=limiter)
                with trio.move_on_after(STOP_AGAIN):
                    await ended.wait()
        raise
