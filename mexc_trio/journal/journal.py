"""All queues of a recorder, and when they are written; `mexc_trio.journal` tells the whole."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs
import trio

from mexc_trio.errors import JournalBusy, JournalError
from mexc_trio.journal.file import JournalFile
from mexc_trio.journal.opening import open_file
from mexc_trio.journal.outbox import RETRY, Outbox
from mexc_trio.journal.queue import Queue
from mexc_trio.spans import now

log = logging.getLogger(__name__)

SYNC_INTERVAL: Final = 0.1
"""Seconds after which written rows are synced to the disk, if that was asked for."""

PURGE_INTERVAL: Final = 2.0
"""Seconds between two removals of rows that need not be kept."""

SAY_LOCKED: Final = 1.0
"""Seconds for which another program must have had the file locked for a line in the log."""

SAY_AGAIN: Final = 60.0
"""Seconds until the next such line."""

LAST_PATIENCE: Final = 1.0
"""Seconds that the last write waits for another program's lock."""

_PURGE_STEP: Final = 2000
"""Entries and pages that are worked on before other tasks have their turn: a few milliseconds."""


@attrs.define(eq=False)
class Journal:
    """An open journal. All calls come from Trio's thread: they are short."""

    file: JournalFile
    retention: float
    """Seconds for which acknowledged rows stay."""
    outbox: Outbox = attrs.field(init=False)
    _queues: dict[str, Queue] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.outbox = Outbox(self.file)

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    def queue(self, name: str) -> Queue:
        """Return the queue of a table, made if it is new."""
        if name not in self._queues:
            id_, state, end = self.file.table(name)
            self._queues[name] = Queue(*state, end, id_, self.outbox)
        return self._queues[name]

    def queues(self) -> list[Queue]:
        """Return the queues of all tables that the journal knows."""
        return [self.queue(name) for name in self.file.names()]

    def flush(self) -> None:
        """Write all that was collected; see `Outbox.flush`."""
        self.outbox.flush()

    async def keep_flushing(self) -> None:
        """Flush what comes with no read, at once, and what could not be written, when it can be.

        Runs until cancelled. Waits while the file is locked; raises DiskFull and JournalError as
        `Outbox.flush`.
        """
        while True:
            await self.outbox.something_collected()
            await self._flush_when_unlocked()

    async def _flush_when_unlocked(self) -> None:
        began = trio.current_time()
        say = began + SAY_LOCKED
        while True:
            try:
                self.flush()
                break
            except JournalBusy as error:
                if trio.current_time() >= say:
                    log.warning("%s; until then nothing is received", error)
                    say = trio.current_time() + SAY_AGAIN
            await trio.sleep(RETRY)
        if say != began + SAY_LOCKED:
            waited = trio.current_time() - began
            log.info("journal %s: unlocked after %.0f s", self.path, waited)

    async def keep_syncing(self) -> None:
        """Sync the disk at most `SYNC_INTERVAL` after rows were written. Runs until cancelled."""
        while True:
            await self.outbox.something_written(SYNC_INTERVAL / 2)
            await trio.to_thread.run_sync(self.file.sync)

    async def keep_purging(self) -> None:
        """Remove what need not be kept, now and then. Runs until cancelled."""
        while True:
            with suppress(JournalBusy):
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
        while self.file.retention.sweep(
            {queue.id: queue.removable for queue in self._queues.values()},
            since, until, _PURGE_STEP,
        ):  # fmt: skip
            await trio.lowlevel.checkpoint()
            self.flush()
        while self.file.retention.shrink(_PURGE_STEP):
            await trio.lowlevel.checkpoint()
        # The store is away. When it comes back, nobody should wait for this.
        if not all(queue.is_in_memory for queue in self._queues.values()):
            while self.file.prepare_to_read():
                await trio.lowlevel.checkpoint()

    def close_channels(self) -> None:
        """Close the channels of the queues."""
        for queue in self._queues.values():
            queue.close_channel()


@contextmanager
def open_journal(path: Path, *, retention: float = 600.0) -> Iterator[Journal]:
    """Open a journal, made if it is missing; at the end, write what is left.

    `retention` is in seconds. Raises as `open_file`.
    """
    with open_file(path) as file:
        file.wait_for_locks(0)  # nobody else runs meanwhile: see `keep_flushing`
        journal = Journal(file, retention)
        try:
            yield journal
        except BaseException:
            file.wait_for_locks(LAST_PATIENCE)
            with suppress(JournalError):  # perhaps it is what brought us here
                journal.flush()
            raise
        else:
            file.wait_for_locks(LAST_PATIENCE)
            try:
                journal.flush()
            except JournalBusy as error:
                text = f"{error}; what was received since is lost, and will be in gaps"
                raise JournalBusy(text) from error
        finally:
            journal.close_channels()
