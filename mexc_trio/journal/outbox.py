"""What was collected and is not yet written: the queues put it here, and the journal writes it."""

from typing import Final, Protocol

import attrs
import trio

from mexc_trio.journal.file import JournalFile, State, Stored
from mexc_trio.spans import now

GROUP: Final = 64
"""Frames that are collected at the most before they are written."""


class Collecting(Protocol):
    """A queue, as far as its writing is concerned."""

    name: str

    def pending(self, at: int) -> Stored:
        """Return what was collected, as the file takes it."""

    def state(self) -> State:
        """Return what is remembered, as the file takes it."""

    def written(self, at: int) -> None:
        """Hear that what was collected is in the file, and since when."""


@attrs.define(eq=False)
class Outbox:
    """What all queues of a journal have to be written."""

    file: JournalFile
    touched: list[Collecting] = attrs.field(factory=list, init=False)
    """Queues with rows that are not yet written."""
    remembered: int = attrs.field(default=0, init=False)
    """How many rows the queues keep in memory besides."""
    _changed: dict[str, Collecting] = attrs.field(factory=dict, init=False)
    _frames: int = attrs.field(default=0, init=False)
    # Rings when something was collected that belongs to no read, or written that is not synced.
    _collected: trio.Event = attrs.field(factory=trio.Event, init=False)
    _written: trio.Event = attrs.field(factory=trio.Event, init=False)

    def collected(self) -> None:
        """Note that there is something to write that comes with no read."""
        self._collected.set()

    def appended(self) -> None:
        """Note that a frame is complete; write a full group."""
        self._frames += 1
        if self._frames >= GROUP:
            self.flush()

    def changed(self, queue: Collecting) -> None:
        """Note that what is remembered of a table changed.

        It may be written later: a restart finds it out again from the table's count.
        """
        self._changed[queue.name] = queue
        self.collected()

    def flush(self) -> None:
        """Write all that was collected, in one transaction.

        Raises:
            DiskFull: no space.
            JournalError: any other failure.
        """
        if not self.touched and not self._changed:
            return
        at = now()
        # If this fails, all stays collected in memory as it was, and the caller hears of it.
        self.file.write(
            [queue.pending(at) for queue in self.touched],
            [queue.state() for queue in self._changed.values()],
        )
        for queue in self.touched:
            queue.written(at)
        self.touched.clear()
        self._changed.clear()
        self._frames = 0
        self._written.set()

    async def something_collected(self) -> None:
        """Wait until something was collected that comes with no read."""
        await self._collected.wait()
        self._collected = trio.Event()

    async def something_written(self, delay: float) -> None:
        """Wait until something was written since the last time, and then as many seconds more."""
        await self._written.wait()
        await trio.sleep(delay)
        self._written = trio.Event()
