"""Tables are rewritten while they are recorded: in large blocks, or for another engine.

What comes meanwhile waits in the journal. After a compaction the table has as many rows as before,
and the same; one that has moved to another engine the writer compares anew.

A command asks for it by a file beside the journal, and the answer is a fact in the journal: neither
needs a port, and what was asked of a recorder that died is done by the next.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
import trio
from trio_util import periodic

from mexc_trio.clickhouse.async_store import AsyncStore
from mexc_trio.clickhouse.compaction import ENGINE
from mexc_trio.clickhouse.conversion import is_due
from mexc_trio.clickhouse.tables import TableEngine, market_table
from mexc_trio.errors import StoreError, StoreRejected, StoreUnavailable, UsageError
from mexc_trio.files import write_own
from mexc_trio.journal import Queue
from mexc_trio.record.growth import INTERVAL, Growth
from mexc_trio.record.recording import Recording

log = logging.getLogger(__name__)


ANSWER: Final = "rewriting"
"""What the journal calls what became of the last request, as `RewritingProgress` has it."""


class RewritingRequest(msgspec.Struct, frozen=True):
    """What somebody asks of a running recorder."""

    id: str
    symbols: tuple[str, ...]
    """Whose tables; all that are recorded if none."""
    engine: TableEngine | None = None
    """What they are moved to; if None they stay what they are, and are compacted."""

    def leave(self, journal: Path) -> None:
        """Put it where the recorder looks; UsageError if it cannot be written there."""
        place = _path(journal)
        try:
            write_own(place, msgspec.json.encode(self).decode())
        except OSError as error:
            raise UsageError(f"cannot write {place}: {error.strerror}") from error

    def take_back(self, journal: Path) -> None:
        """Ask for it no longer; what is under way goes on."""
        if RewritingRequest.found(journal) == self:
            _path(journal).unlink(missing_ok=True)

    @classmethod
    def found(cls, journal: Path) -> "RewritingRequest | None":
        """Return what is asked; what cannot be read is told, and thrown away."""
        try:
            return msgspec.json.decode(_path(journal).read_bytes(), type=cls)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            log.warning("what %s asks for cannot be read: %s", _path(journal), error)
            with suppress(OSError):
                _path(journal).unlink()
            return None


class RewritingProgress(msgspec.Struct):
    """What has become of a request so far."""

    id: str = ""
    done: list[str] = []
    """A sentence for each table that was rewritten."""
    failed: list[str] = []
    """A sentence for each that was not."""
    ended: bool = False

    @classmethod
    def read(cls, fact: str) -> "RewritingProgress":
        """Return what a journal says; what cannot be read says nothing."""
        try:
            return msgspec.json.decode(fact, type=cls)
        except (msgspec.DecodeError, RecursionError):
            return cls()


def _path(journal: Path) -> Path:
    # Not where recorders of before look, who know of compactions alone.
    return journal.with_suffix(".request")


POLL: Final = 1.0
"""Seconds between two polls for a request."""
PATIENCE: Final = 60.0
"""Seconds to wait until it is certain what a table has."""


async def keep_rewriting(recording: Recording) -> None:
    """Rewrite tables: what is asked for, and what `growth` says. Runs until cancelled."""
    path, growth, next_check = recording.journal.path, Growth(recording), 0.0
    async with aclosing(periodic(POLL)) as ticks:
        async for elapsed, _ in ticks:
            if (request := RewritingRequest.found(path)) is not None:
                await _rewrite_requested(recording, growth, request)
                request.take_back(path)
            # Nothing is known of a table before its writer has compared it with the journal.
            if elapsed >= next_check and any(one.queue.verified for one in recording.collectors):
                next_check = elapsed + INTERVAL
                await _rewrite_due(recording, growth)


async def _rewrite_due(recording: Recording, growth: Growth) -> None:
    with suppress(StoreUnavailable):  # it has been said, and passes
        for queue in await growth.due():
            try:
                await rewrite(recording, queue)
            except StoreUnavailable:
                raise
            except StoreError as error:
                growth.failed(queue, error)


async def _rewrite_requested(
    recording: Recording, growth: Growth, request: RewritingRequest
) -> None:
    answer = RewritingProgress(request.id)

    def note_progress() -> None:
        recording.journal.file.remember(ANSWER, msgspec.json.encode(answer).decode())

    queues = {one.symbol: one.queue for one in recording.collectors}
    symbols = request.symbols
    if not symbols:
        kinds = await recording.store.engines([queue.name for queue in queues.values()])
        symbols = tuple(one for one, queue in queues.items() if kinds.get(queue.name) == ENGINE)
    for symbol in symbols:
        note_progress()
        if symbol not in queues:
            answer.failed.append(f"{symbol} is not recorded by this process")
            continue
        try:
            if request.engine is not None:
                growth.forget(queues[symbol])
            answer.done.append(await rewrite(recording, queues[symbol], request.engine))
        except StoreError as error:
            answer.failed.append(str(error))
            log.error("%s", error)
    answer.ended = True
    note_progress()


async def rewrite(recording: Recording, queue: Queue, engine: TableEngine | None = None) -> str:
    """Rewrite the table of a queue, for another engine or, without one, in large blocks.

    Returns what was done, in a sentence. Raises StoreError if it was not done, or not to its end,
    see `clickhouse.compaction.compact` and `clickhouse.conversion.convert`.
    """
    store, table, least_free = recording.store, queue.name, recording.settings.min_free
    async with _in_sync(store, queue, "compacted" if engine is None else "moved"):
        if engine is None:
            log.info("table %s: rewriting it; what comes waits in the journal", table)
            done = str(await store.compact(table, least_free))
            queue.inserts = 0
        else:
            if await store.run(lambda: is_due(store.store, table, engine)):
                log.info("table %s: moving it to %s; what comes waits", table, engine)
                # Before anything happens: a recorder after a kill is to look anew at what it finds.
                queue.base, queue.verified = None, False
                queue.checked(queue.engine)
            done = str(await store.convert(table, engine, least_free) or f"is a {engine} already")
    said = f"table {table}: {done}"
    log.info("%s", said)
    return said


@asynccontextmanager
async def _in_sync(store: AsyncStore, queue: Queue, done: str) -> AsyncIterator[None]:
    """Run the block while the table has what the journal says, and nothing is on its way there."""
    deadline = trio.current_time() + PATIENCE
    while True:
        async with queue.write_lock:
            if queue.verified:
                table = market_table(queue.name)
                await store.until_conclusive(table)
                if await store.count(table) == queue.table_rows:
                    yield
                    return
        if trio.current_time() > deadline:
            raise StoreRejected(
                f"table {queue.name}: it is not certain what it has, so it is not {done} now"
            )
        await trio.sleep(POLL)
