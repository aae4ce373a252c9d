"""All queues of a recorder, and when they are written; `mexc_trio.journal` tells the whole."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs
import trio

from mexc_trio.errors import JournalError
from mexc_trio.journal.file import JournalFile
from mexc_trio.journal.opening import open_file
from mexc_trio.journal.outbox import Outbox
from mexc_trio.journal.queue import Queue
from mexc_trio.spans import now

SYNC_INTERVAL: Final = 0.1
"""Seconds after which written rows are synced to the disk, if that was asked for."""

PURGE_INTERVAL: Final = 2.0
"""Seconds between two removals of rows that need not be kept."""

_PURGE_STEP: Final = 2000
"""Entries and pages that are worked on before other tasks have their turn: a few milliseconds."""


@attrs.define(eq=False)
class Journal:
    """An open journal. All calls come from Trio's thread: they are short."""

    file: JournalFile
    retention: float
    """Seconds for which acknowledged rows stay."""
    outbox: Outbox = attrs.field(init=False)
    """What is not yet written, of all queues."""
    _queues: dict[str, Queue] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.outbox = Outbox(self.file)

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    @property
    def damaged(self) -> Path | None:
        """Where a journal was put that could not be read at the start; None if all was well."""
        return self.file.damaged

    def queue(self, name: str) -> Queue:
        """Return the queue of a table, made if it is new."""
        if name not in self._queues:
            id_, state, end = self.file.table(name)
            self._queues[name] = Queue(
                name, state.acked, state.table_rows, end, state.engine, state.after_reboot,
                state.marks, id_, self.outbox,
            )  # fmt: skip
        return self._queues[name]

    def queues(self) -> list[Queue]:
        """Return the queues of all tables that the journal knows."""
        return [self.queue(name) for name in self.file.names()]

    def flush(self) -> None:
        """Write all that was collected; see `Outbox.flush`."""
        self.outbox.flush()

    async def keep_flushing(self) -> None:
        """Flush what comes with no read, at once. Runs until cancelled; raises as `flush`."""
        while True:
            await self.outbox.something_collected()
            self.flush()

    async def keep_syncing(self) -> None:
        """Sync the disk at most `SYNC_INTERVAL` after rows were written. Runs until cancelled."""
        while True:
            await self.outbox.something_written(SYNC_INTERVAL / 2)
            await trio.to_thread.run_sync(self.file.sync)

    async def keep_purging(self) -> None:
        """Remove what need not be kept, now and then. Runs until cancelled."""
        while True:
            await self.purge()
            await trio.sleep(PURGE_INTERVAL)

    async def purge(self) -> None:
        """Remove rows of verified tables that are acknowledged and older than the retention."""
        at = now()
        # A clock that was set back leaves rows of the future: they do not stay much longer, either.
        since, until = at - int(1000 * self.retention), at + int(1000 * self.retention)
        # What goes must be acknowledged in the file, too: it is flushed before each step.
        self.flush()
        for queue in list(self._queues.values()):
            while self.file.retention.sweep_again(queue.id, queue.removable, _PURGE_STEP):
                await trio.lowlevel.checkpoint()
                self.flush()
        while self.file.retention.sweep(self._removable(), since, until, _PURGE_STEP):
            await trio.lowlevel.checkpoint()
            self.flush()
        while self.file.retention.shrink(_PURGE_STEP):
            await trio.lowlevel.checkpoint()
        # The store is away. When it comes back, nobody should wait for this.
        if not all(queue.is_in_memory for queue in self._queues.values()):
            while self.file.prepare_to_read():
                await trio.lowlevel.checkpoint()

    def _removable(self) -> dict[int, int]:
        return {queue.id: queue.removable for queue in self._queues.values()}

    def hang_up(self) -> None:
        """Close the channels of the queues."""
        for queue in self._queues.values():
            queue.hang_up()

    def fact(self, name: str) -> str:
        """Return a remembered fact about the program, empty if there is none."""
        return self.file.fact(name)

    def remember(self, name: str, value: str) -> None:
        """Remember a fact about the program."""
        self.file.remember(name, value)


@contextmanager
def open_journal(path: Path, *, retention: float = 600.0) -> Iterator[Journal]:
    """Open a journal, made if it is missing; see `open_file`. What is left is written at the end.

    Raises:
        JournalLocked, JournalError, DiskFull: as `open_file`.
    """
    with open_file(path) as file:
        journal = Journal(file, retention)
        try:
            yield journal
        except BaseException:
            with suppress(JournalError):  # perhaps it is what brought us here
                journal.flush()
            raise
        else:
            journal.flush()
        finally:
            journal.hang_up()
