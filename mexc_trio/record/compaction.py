"""Tables are rewritten in large blocks while they are recorded: when it is worth it, or asked for.

What comes meanwhile is received into the journal; the table's writer waits for its turn and writes
it afterwards. Nothing has to be told to the writer: the table has as many rows as before, and the
same.

The command `compact` asks by a file beside the journal, and the answer is a fact in the journal. So
neither needs a port, and what was asked of a recorder that died is done by the next.
"""

import json
import logging
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Final

import attrs
import trio
from trio_util import periodic

from mexc_trio.clickhouse.async_store import AsyncStore
from mexc_trio.clickhouse.compaction import ENGINE
from mexc_trio.clickhouse.schema import market_table
from mexc_trio.errors import StoreError, StoreRejected, StoreUnavailable, UsageError
from mexc_trio.files import write_own
from mexc_trio.journal import Queue
from mexc_trio.record.growth import INTERVAL, Growth
from mexc_trio.record.recording import Recording

log = logging.getLogger(__name__)

ANSWER: Final = "compaction"
"""What the journal calls what became of the last request, as `Answer` has it."""
LOOK: Final = 1.0
"""Seconds between two looks for a request."""
PATIENCE: Final = 60.0
"""Seconds to wait until it is certain what a table has."""


@attrs.frozen
class Request:
    """What somebody asks of a running recorder."""

    id: str
    symbols: tuple[str, ...]
    """Whose tables; all that are recorded if none."""

    def leave(self, journal: Path) -> None:
        """Put it where the recorder looks.

        Raises:
            UsageError: it cannot be written there.
        """
        place = _place(journal)
        try:
            write_own(place, json.dumps(attrs.asdict(self)))
        except OSError as error:
            raise UsageError(f"cannot write {place}: {error.strerror}") from error

    def take_back(self, journal: Path) -> None:
        """Ask for it no longer; what is under way goes on."""
        if _read(journal) == self:
            _place(journal).unlink(missing_ok=True)


@attrs.define
class Answer:
    """What has become of a request so far."""

    id: str = ""
    done: list[str] = attrs.field(factory=list)
    """A sentence for each table that was rewritten."""
    failed: list[str] = attrs.field(factory=list)
    """A sentence for each that was not."""
    ended: bool = False

    @classmethod
    def read(cls, fact: str) -> "Answer":
        """Return what a journal says."""
        return cls(**json.loads(fact)) if fact else cls()


def _place(journal: Path) -> Path:
    return journal.with_suffix(".compact")


def _read(journal: Path) -> Request | None:
    try:
        found = json.loads(_place(journal).read_text())
        return Request(str(found["id"]), tuple(map(str, found["symbols"])))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("what %s asks for cannot be read: %s", _place(journal), error)
        with suppress(OSError):
            _place(journal).unlink()
        return None


async def keep_compact(recording: Recording) -> None:
    """Rewrite tables: what is asked for, and what `growth` says. Runs until cancelled."""
    path, growth, next_look = recording.journal.path, Growth(recording), 0.0
    async with aclosing(periodic(LOOK)) as looks:
        async for elapsed, _ in looks:
            if (request := _read(path)) is not None:
                await _answer(recording, request)
                request.take_back(path)
            # Nothing is known of a table before its writer has compared it with the journal.
            if elapsed >= next_look and any(one.queue.verified for one in recording.collectors):
                next_look = elapsed + INTERVAL
                await _do_what_is_due(recording, growth)


async def _do_what_is_due(recording: Recording, growth: Growth) -> None:
    with suppress(StoreUnavailable):  # it has been said, and passes
        for queue in await growth.due():
            try:
                await compact(recording, queue)
            except StoreUnavailable:
                raise
            except StoreError as error:
                growth.failed(queue, error)


async def _answer(recording: Recording, request: Request) -> None:
    answer = Answer(request.id)

    def tell() -> None:
        recording.journal.remember(ANSWER, json.dumps(attrs.asdict(answer)))

    queues = {one.symbol: one.queue for one in recording.collectors}
    symbols = request.symbols
    if not symbols:
        kinds = await recording.store.engines([queue.name for queue in queues.values()])
        symbols = tuple(one for one, queue in queues.items() if kinds.get(queue.name) == ENGINE)
    for symbol in symbols:
        tell()
        if symbol not in queues:
            answer.failed.append(f"{symbol} is not recorded by this process")
            continue
        try:
            answer.done.append(await compact(recording, queues[symbol]))
        except StoreError as error:
            answer.failed.append(str(error))
            log.error("%s", error)
    answer.ended = True
    tell()


async def compact(recording: Recording, queue: Queue) -> str:
    """Rewrite the table of a queue; return what was done, in a sentence.

    Raises:
        StoreError: it was not done; see `clickhouse.compaction.compact`.
    """
    store, least_free = recording.store, recording.settings.min_free
    deadline = trio.current_time() + PATIENCE
    while True:
        async with queue.turn:
            if await _is_settled(store, queue):
                log.info("table %s: rewriting it; what comes waits in the journal", queue.name)
                done = await store.compact(queue.name, least_free)
                queue.inserts = 0
                said = f"table {queue.name}: {done}"
                log.info("%s", said)
                return said
        if trio.current_time() > deadline:
            raise StoreRejected(
                f"table {queue.name}: it is not certain what it has, so it is not compacted now"
            )
        await trio.sleep(LOOK)


async def _is_settled(store: AsyncStore, queue: Queue) -> bool:
    """Whether the table has what the journal says, and nothing is on its way there."""
    if not queue.verified:
        return False
    table = market_table(queue.name)
    await store.quiet(table)
    return await store.count(table) == queue.table_rows
