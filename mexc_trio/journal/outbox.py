"""What was collected and is not yet written: the queues put it here, and the journal writes it."""

from contextlib import suppress
from typing import Final, Protocol

import attrs
import trio
from trio_util import AsyncBool

from mexc_trio.errors import JournalBusy
from mexc_trio.journal.entries import Stored, TableState
from mexc_trio.journal.file import JournalFile
from mexc_trio.spans import now

GROUP: Final = 256
"""Frames that are collected at the most before they are written."""


RETRY: Final = 0.1
"""Seconds until it is tried again whether a file that another program had locked still is."""


class Collecting(Protocol):
    """A queue, as far as its writing is concerned."""

    name: str

    def unwritten(self, at: int) -> Stored:
        """Return what was collected, as the file takes it."""

    def state(self) -> TableState:
        """Return what is remembered, as the file takes it."""

    def written(self, at: int) -> None:
        """Hear that what was collected is in the file, and since when."""


@attrs.define(eq=False)
class Outbox:
    """What all queues of a journal have to be written."""

    file: JournalFile
    group: int = GROUP
    unwritten: list[Collecting] = attrs.field(factory=list, init=False)
    """Queues with rows that are not yet written."""
    in_memory: int = attrs.field(default=0, init=False)
    """How many rows the queues keep in memory besides."""
    locked: AsyncBool = attrs.field(factory=AsyncBool, init=False)
    """Whether another program has the file locked, as far as is known."""
    _changed: dict[str, Collecting] = attrs.field(factory=dict, init=False)
    _frames: int = attrs.field(default=0, init=False)
    # Set when something was collected that comes with no read, and when something was written.
    _collected: trio.Event = attrs.field(factory=trio.Event, init=False)
    _written: trio.Event = attrs.field(factory=trio.Event, init=False)

    def collected(self) -> None:
        """Note that there is something to write that comes with no read."""
        self._collected.set()

    def appended(self) -> None:
        """Note that a frame is complete; write a full group, if nobody has the file locked."""
        self._frames += 1
        if self._frames >= self.group:
            self.flush_if_unlocked()

    def changed(self, queue: Collecting) -> None:
        """Note that what is remembered of a table changed.

        It may be written later: after a restart the table's count tells the same again.
        """
        self._changed[queue.name] = queue
        self.collected()

    def flush(self) -> None:
        """Write all that was collected, in one transaction, or nothing if that fails.

        Raises DiskFull without space, JournalBusy if another program has the file locked,
        JournalError for any other failure.
        """
        if not self.unwritten and not self._changed:
            return
        at = now()
        # If this fails, all stays collected in memory as it was, and the caller hears of it.
        try:
            self.file.write(
                [queue.unwritten(at) for queue in self.unwritten],
                [queue.state() for queue in self._changed.values()],
            )
        except JournalBusy:
            self.locked.value = True
            self.collected()
            raise
        self.locked.value = False
        for queue in self.unwritten:
            queue.written(at)
        self.unwritten.clear()
        self._changed.clear()
        self._frames = 0
        self._written.set()

    def flush_if_unlocked(self) -> None:
        """Do as `flush` does; where the file is locked, leave it to `Journal.keep_flushing`.

        What is not written is little: nobody reads from the exchange while `locked`.
        """
        if not self.locked.value:
            with suppress(JournalBusy):
                self.flush()

    async def something_collected(self) -> None:
        """Wait until something was collected that comes with no read."""
        await self._collected.wait()
        self._collected = trio.Event()

    async def something_written(self, delay: float) -> None:
        """Wait until something was written since the last time, and then as many seconds more."""
        await self._written.wait()
        await trio.sleep(delay)
        self._written = trio.Event()
