"""What runs beside a recording, for as long as that does."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias

import trio

from mexc_trio.record.recording import Recording
from mexc_trio.supervise import alone

Companion: TypeAlias = Callable[[Recording], Awaitable[None]]
"""Something that looks at a recorder, and that recording does without if it fails."""


@asynccontextmanager
async def beside(*tasks: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run tasks for as long as the block runs. An error of one ends all."""
    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(task)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def accompanied(recording: Recording, companions: Sequence[Companion]) -> AsyncIterator[None]:
    """Run companions for as long as the block runs. That one fails is nobody else's trouble."""
    async with beside(*(alone(one.__module__, partial(one, recording)) for one in companions)):
        yield
