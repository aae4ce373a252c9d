"""An eye on the free space of the disk: a word in time, and an end while there is still room."""

import logging
import shutil
import time
from contextlib import aclosing
from pathlib import Path
from typing import Final

import attrs
from trio_util import periodic

from mexc_trio.errors import DiskFull
from mexc_trio.files import bytes_of
from mexc_trio.journal.database import wal
from mexc_trio.locks import who_locks
from mexc_trio.record.recording import Recording

log = logging.getLogger(__name__)

INTERVAL: Final = 2.0
"""Seconds between two checks of the free space."""
HOUR: Final = 3600.0
LOG_MOST: Final = 64 * 2**20
"""Bytes of the journal's log: its usual size is a quarter of this."""
KNOWN: Final = 60.0
"""Seconds over which the space must have been watched before a rate is worth telling."""


@attrs.define
class FreeSpace:
    """The free space of one disk over time, in bytes and seconds."""

    _before: tuple[float, int] | None = attrs.field(default=None, init=False)
    """When and how much it was, between one and two hours ago or at the start."""
    _later: tuple[float, int] | None = attrs.field(default=None, init=False)
    _told: float | None = attrs.field(default=None, init=False)

    def check(self, free: int, least: int, now: float, place: object) -> None:
        """Note how many bytes are free; say so if that is less than twice the least.

        `now` is seconds of a steady clock, `place` whose disk it is, for the words. Raises DiskFull
        if it is less than the least.
        """
        if free < least:
            raise DiskFull(
                f"only {free >> 20} MiB are free at {place}, the bound is {least >> 20} MiB: "
                f"recording stops; free some space, or lower --min-free-mib, and start again"
            )
        if self._before is None or self._later is None:
            self._before = self._later = (now, free)
        elif now - self._later[0] >= HOUR:
            self._before, self._later = self._later, (now, free)
        if free >= 2 * least:
            self._told = None
        elif self._told is None or now - self._told >= HOUR:
            self._told = now
            log.warning(
                "only %d MiB are free at %s, and recording stops at %d MiB%s",
                free >> 20, place, least >> 20, self._time_left(free - least, free, now),
            )  # fmt: skip

    def _time_left(self, left: int, free: int, now: float) -> str:
        assert self._before is not None  # noqa: S101 - it was checked before
        since, then = self._before
        used = then - free
        if now - since < KNOWN or used <= 0:
            return ""
        hours = left * (now - since) / used / HOUR
        return f", in about {hours:.1f} hours at the present rate"


@attrs.define
class WalSize:
    """The size of the journal's write-ahead log over time.

    SQLite writes it from the beginning again when nobody reads what is in it. Another program that
    has begun to read the journal, and does not end, has it grow by all that is received.
    """

    _told: float | None = attrs.field(default=None, init=False)

    def check(self, journal: Path, now: float) -> None:
        """Say so when it has grown, once an hour; `now` is seconds of a steady clock."""
        size = bytes_of(wal(journal))
        if size < LOG_MOST:
            self._told = None
        elif self._told is None or now - self._told >= HOUR:
            self._told = now
            reader = who_locks([journal.with_name(journal.name + "-shm")], "READ")
            log.warning(
                "the log of journal %s has %d MiB and grows while %s reads it: end that",
                journal, size >> 20, reader,
            )  # fmt: skip


async def keep_checking(recording: Recording) -> None:
    """Stop while there is still room for what has to be written on the way out.

    Raises DiskFull if less than `min_free_mib` is free, JournalError if the journal was removed.
    """
    space, wal_size, path = FreeSpace(), WalSize(), recording.journal.path
    async with aclosing(periodic(INTERVAL)) as ticks:
        async for _ in ticks:
            recording.journal.file.check_in_place()  # first: without its directory there is no disk
            free, least = shutil.disk_usage(path.parent).free, recording.settings.min_free
            space.check(free, least, time.monotonic(), path.parent)
            wal_size.check(path, time.monotonic())
