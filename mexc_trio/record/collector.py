"""One symbol: its messages, its rows, its errors, its end."""

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final

import attrs
import trio
from trio_util import RepeatedEvent

from mexc_trio.backoff import Backoff
from mexc_trio.channels import ALL
from mexc_trio.clickhouse.async_store import AsyncStore
from mexc_trio.errors import (
    ExchangeError,
    Loss,
    MexcTrioError,
    StoreError,
    TooManyErrors,
    UnknownContract,
)
from mexc_trio.exchange.liveness import Liveness, keep_channels
from mexc_trio.exchange.messages import Data
from mexc_trio.journal import Queue
from mexc_trio.record.causes import cause_of, detail_of
from mexc_trio.record.gaps import Ledger
from mexc_trio.record.known_contracts import Exists
from mexc_trio.record.stats import Counts
from mexc_trio.record.wide import table_of, widened
from mexc_trio.record.writer import Writer
from mexc_trio.rows import Cause, Channel, RowTuple
from mexc_trio.settings import SymbolSettings
from mexc_trio.spans import LATEST
from mexc_trio.supervise import supervise
from mexc_trio.texts import one_line

log = logging.getLogger(__name__)

ERROR_WINDOW: Final = 600.0
"""Seconds within which `max_errors` errors stop a symbol."""
FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 300.0
"""Seconds until a symbol that was refused, or whose messages broke the program, is heard again."""

DEAD_LETTER_PAUSE: Final = 60.0
"""Seconds between two lines of the log about dead letters of a symbol."""


@attrs.define(eq=False)
class Collector:
    """Takes a symbol's messages from its connection into the journal; the writer goes on."""

    settings: SymbolSettings
    queue: Queue
    ledger: Ledger
    store: AsyncStore
    exists: Exists | None = None
    """Asked when the exchange refuses a symbol of which nothing was ever recorded."""
    request_deals: "Callable[[Collector], None]" = lambda collector: None
    """Called when gaps in deals are pending, to be filled."""
    counts: Counts = attrs.field(factory=Counts, init=False)
    liveness: dict[Channel, Liveness] = attrs.field(init=False)
    failure: MexcTrioError | None = attrs.field(default=None, init=False)
    """Why the symbol was stopped; None while it is recorded or when all were stopped."""
    stopped: bool = attrs.field(default=False, init=False)
    """Whether it is recorded no longer; its scope, which knows, looks at the clock each time."""
    ended: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when the nursery has ended, and nothing is written any more."""
    received: dict[Channel | None, int] = attrs.field(init=False)
    """Rows that came in this run, by channel; None has those of no channel."""
    frames: dict[Channel | None, int] = attrs.field(init=False)
    """Frames with rows that came in this run, in the same way."""
    dead: int = attrs.field(default=0, init=False)
    """Dead letters that came in this run."""
    latest: dict[Channel | None, Data] = attrs.field(factory=dict, init=False)
    """The last frame of each channel that has had one."""
    _errors: deque[float] = attrs.field(factory=deque, init=False)
    # Where the queue ended when there was no connection yet, or none any more.
    _lost_at: int = attrs.field(init=False)
    writer: Writer | None = attrs.field(default=None, init=False)
    """What writes its rows; None until that has begun."""
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _pauses: Backoff = attrs.field(init=False)
    _refusals: RepeatedEvent = attrs.field(factory=RepeatedEvent, init=False)
    _refused_at: float = attrs.field(default=-math.inf, init=False)
    # Until then no more is said of dead letters.
    _quiet_until: float = attrs.field(default=-math.inf, init=False)
    # Until then its messages are not taken, because the last one broke the program.
    _ignored_until: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self.liveness = {channel: Liveness(channel) for channel in self.settings.channels}
        self.received, self.frames = (dict.fromkeys((*ALL, None), 0) for _ in range(2))
        self._lost_at = self.queue.end
        self._pauses = Backoff(FIRST_PAUSE, LONGEST_PAUSE)

    @property
    def symbol(self) -> str:
        """The symbol, as the exchange writes it."""
        return self.settings.symbol

    def heard(self, channel: Channel) -> float | None:
        """Return when the last frame of a channel came that was taken; None if none has."""
        return self.liveness[channel].heard if channel in self.latest else None

    @property
    def refusal(self) -> StoreError | None:
        """Why the store takes none of the rows, which wait in the journal; None while it does."""
        return self.writer.refusal if self.writer else None

    @property
    def connected(self) -> bool:
        """Whether rows have come on the connection that there is now."""
        return self.queue.end > self._lost_at

    async def run(self) -> None:
        """Be the symbol's nursery until the symbol is stopped or everything is."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(supervise, f"{self.symbol}: writer", self._write)
                    nursery.start_soon(supervise, f"{self.symbol}: check", self._check_refusals)
        finally:
            self.ledger.close()
            self.ended.set()

    def data(self, message: Data, until: int = LATEST) -> None:
        """Put the rows of a frame in the journal; `until` is what `Ledger.received` says."""
        if self.stopped or (self._ignored_until and trio.current_time() < self._ignored_until):
            return
        try:
            rows, channel = message.rows, message.channel
            self.received[channel] += len(rows)
            self.frames[channel] += 1
            if message.dead:
                self._log_dead_letter(message)
            self.latest[channel] = message
            kept = widened(message) if self.settings.wide else rows
            self.ledger.received(message, until)
            self.queue.append(kept, message.version)
            pending = self.ledger.pending
            if pending.gaps or pending.uncertain:
                self.request_deals(self)
        except MexcTrioError:
            raise  # of the journal: it is everybody's
        except Exception as error:  # noqa: BLE001 - whatever it is, this symbol fails alone
            self.failed(error)

    def _log_dead_letter(self, message: Data) -> None:
        self.dead += message.dead
        now = trio.current_time()
        if now >= self._quiet_until:
            self._quiet_until = now + DEAD_LETTER_PAUSE
            text = "%s: cannot be read, kept as a dead letter (%d in this run): %s"
            log.warning(text, self.symbol, self.dead, one_line(message.rows[-1].m, 200))

    def failed(self, error: Exception) -> None:
        """Hear nothing for a while: a message has met with an error of this program."""
        pause = self._pauses.next()
        self._ignored_until = trio.current_time() + pause
        text = "%s: an error of this program; not heard for %.0f s"
        log.error(text, self.symbol, pause, exc_info=error)
        self.broken(error)

    def broken(self, error: Exception) -> None:
        """Open the gap that an error of this program, or a shortage of the machine, has made."""
        if not self.stopped:
            self._lost_at = self.queue.end
            self.ledger.lost(Cause.PROGRAM_FAILED, detail_of(error))

    def connection_lost(self, error: ExchangeError) -> None:
        """Open the gap, count the error, and stop the symbol if it was one too many."""
        if self.stopped:
            return
        self._lost_at = self.queue.end
        self.ledger.lost(cause_of(error), error.reason)
        self.counts.errors += 1
        if error.loss is Loss.NO_RESOURCES:
            return  # it is waited out, and says nothing about the exchange
        now = trio.current_time()
        self._errors.append(now)
        while self._errors[0] < now - ERROR_WINDOW:
            self._errors.popleft()
        if len(self._errors) >= self.settings.max_errors:
            self.stop(TooManyErrors(self.symbol, len(self._errors)))

    def refused(self, error: UnknownContract) -> float:
        """Note that the exchange denies the symbol; return the seconds until it is asked again."""
        self.counts.errors += 1
        if trio.current_time() - self._refused_at > 2 * LONGEST_PAUSE:
            self._pauses.reset()
        pause = self._pauses.next()
        log.warning("%s: %s; asking again in %.0f s", self.symbol, error, pause)
        self._refused_at = trio.current_time()
        self._refusals.set()
        return pause

    def stop(self, error: MexcTrioError) -> None:
        """Stop this symbol alone."""
        if self.stopped:
            return
        self.failure = error
        log.error("%s: %s; this symbol stops", self.symbol, error)
        self._end(str(error))

    def let_go(self, why: str) -> None:
        """Stop this symbol without a failure: nobody lists it, or wants it, any more."""
        if self.stopped:
            return
        log.info("%s: %s; it is recorded no longer", self.symbol, why)
        self._end(why)

    def _end(self, why: str) -> None:
        self.ledger.stopped(Cause.SYMBOL_STOPPED, why)
        self.stopped = True
        self._scope.cancel()

    def adjust(self, settings: SymbolSettings) -> None:
        """Go on with other limits; the table, the channels and the routes stay."""
        was = self.settings
        self.settings = attrs.evolve(
            settings, table=was.table, channels=was.channels, route=was.route, wide=was.wide
        )
        if self.writer is not None:
            self.writer.linger = settings.linger

    def record_channels(self, channels: Sequence[Channel]) -> None:
        """Go on with other channels."""
        self.settings = attrs.evolve(self.settings, channels=tuple(channels))
        keep_channels(self.liveness, channels)
        for gone in self.latest.keys() - {*channels, None}:
            del self.latest[gone]
        self.ledger.record_channels(channels)

    def successor(self, settings: SymbolSettings) -> "Collector":
        """Return what goes on for this symbol after its end, counting on; the table stays."""
        self.ledger.record_channels(settings.channels)
        collector = Collector(
            settings, self.queue, self.ledger, self.store, self.exists, self.request_deals
        )
        collector.counts = self.counts
        collector.received = self.received
        collector.frames = self.frames
        collector.dead = self.dead
        return collector

    async def _write(self) -> None:
        parts = (table_of(self.settings), self.queue, self.store, self.settings.linger)
        self.writer = Writer(*parts, self._acknowledged, self.ledger.record)
        await self.writer.run()

    async def _check_refusals(self) -> None:
        """Stop a symbol that is refused, of which there is no row yet, and that no list has."""
        while self.exists is not None and not self.queue.end:
            await self._refusals.wait()
            if await self.exists(self.symbol) is False and not self.queue.end:
                self.stop(UnknownContract(self.symbol))

    def _acknowledged(self, rows: Sequence[RowTuple]) -> None:
        self.counts.appended.update(map(itemgetter(1), rows))
