"""One symbol: its messages, its rows, its errors, its end."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import attrs
import trio

from mexc_trio.clickhouse.schema import RowTuple, market_table
from mexc_trio.errors import (
    ExchangeError,
    MexcTrioError,
    StoreError,
    TooManyErrors,
    UnknownContract,
    leaves,
)
from mexc_trio.exchange.liveness import Pulse
from mexc_trio.exchange.session import ClockJumped
from mexc_trio.exchange.wire import Data
from mexc_trio.journal import Queue
from mexc_trio.record.gaps import Ledger
from mexc_trio.record.stats import Counts
from mexc_trio.record.writer import AsyncStore, Writer
from mexc_trio.rows import CHANNELS, Cause, Channel
from mexc_trio.settings import SymbolSettings

log = logging.getLogger(__name__)

ERROR_WINDOW: Final = 600.0
"""Seconds within which `max_errors` errors stop a symbol."""


@attrs.define(eq=False)
class Collector:
    """Takes a symbol's messages from its connection into the journal; the writer goes on."""

    settings: SymbolSettings
    queue: Queue
    ledger: Ledger
    gate: AsyncStore
    counts: Counts = attrs.field(factory=Counts, init=False)
    pulses: Mapping[Channel, Pulse] = attrs.field(init=False)
    failure: MexcTrioError | None = attrs.field(default=None, init=False)
    """Why the symbol was stopped; None while it is recorded or when all were stopped."""
    ended: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when the nursery has ended, and nothing is written any more."""
    received: dict[Channel | None, int] = attrs.field(init=False)
    """Rows that came in this run, by channel; None has those of no channel."""
    frames: dict[Channel | None, int] = attrs.field(init=False)
    """Frames with rows that came in this run, in the same way."""
    dead: int = attrs.field(default=0, init=False)
    """Dead letters that came in this run."""
    heard: dict[Channel | None, float] = attrs.field(factory=dict, init=False)
    """When the last frame of each channel came, in Trio's time."""
    latest: dict[Channel | None, Data] = attrs.field(factory=dict, init=False)
    """The last frame of each channel that has had one."""
    _errors: deque[float] = attrs.field(factory=deque, init=False)
    # Where the queue ended when there was no connection yet, or none any more.
    _lost_at: int = attrs.field(init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    def __attrs_post_init__(self) -> None:
        self.pulses = {channel: Pulse(channel) for channel in CHANNELS}
        self.received = dict.fromkeys((*CHANNELS, None), 0)
        self.frames = dict.fromkeys((*CHANNELS, None), 0)
        self._lost_at = self.queue.end

    @property
    def symbol(self) -> str:
        """The symbol, as the exchange writes it."""
        return self.settings.symbol

    @property
    def stopped(self) -> bool:
        """Whether the symbol is recorded no longer, although the others may be."""
        return self._scope.cancel_called

    @property
    def connected(self) -> bool:
        """Whether rows have come on the connection that there is now."""
        return self.queue.end > self._lost_at

    async def run(self, receive: Callable[[], Awaitable[None]] | None = None) -> None:
        """Be the symbol's nursery until the symbol is stopped or everything is.

        Args:
            receive: the symbol's own connection; None where several symbols share one, which then
                runs beside their nurseries.
        """
        writer = Writer(
            market_table(self.settings.table),
            self.queue,
            self.gate,
            self.settings.linger,
            self._acknowledged,
            self.ledger.record,
        )
        try:
            with self._scope:
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(writer.run)
                        if receive is not None:
                            nursery.start_soon(receive)
                except* StoreError as group:
                    # Of the writer: what will not pass by itself. The connection's errors are
                    # counted, not raised, and the journal's are everybody's.
                    self.stop(next(e for e in leaves(group) if isinstance(e, StoreError)))
        finally:
            self.ledger.close()
            self.ended.set()

    def data(self, message: Data) -> None:
        """Put the rows of a frame in the journal."""
        if self.stopped:
            return
        channel = message.channel
        self.received[channel] += len(message.rows)
        self.frames[channel] += 1
        self.dead += message.dead
        self.heard[channel] = trio.current_time()
        self.latest[channel] = message
        self.ledger.received(message)
        self.queue.append(message.rows, message.version)

    def skipped(self) -> None:
        """Count a frame that holds nothing to record."""
        self.counts.skipped += 1

    def unreadable(self) -> None:
        """Open a gap: another symbol's dead letter may have been for this one."""
        if not self.stopped:
            self.ledger.unreadable()

    def silent(self, channel: Channel, seconds: float) -> None:
        """Open the gap of a channel that has gone silent."""
        log.warning("%s: %s silent for %.0f s; subscribing again", self.symbol, channel, seconds)
        self.ledger.lost(Cause.CHANNEL_SILENT, f"no {channel} for {seconds:.0f} s", channel)

    def connection_lost(self, error: ExchangeError) -> None:
        """Open the gap, count the error, and stop the symbol if it was one too many."""
        if self.stopped:
            return
        self._lost_at = self.queue.end
        cause = Cause.CLOCK_JUMPED if isinstance(error, ClockJumped) else Cause.CONNECTION_LOST
        self.ledger.lost(cause, error.reason)
        self.counts.errors += 1
        now = trio.current_time()
        self._errors.append(now)
        while self._errors[0] < now - ERROR_WINDOW:
            self._errors.popleft()
        if len(self._errors) >= self.settings.max_errors:
            self.stop(TooManyErrors(self.symbol, len(self._errors)))

    def refused(self, error: UnknownContract) -> None:
        """Stop: the exchange does not list the symbol."""
        if self.stopped:  # it says so once for each channel
            return
        self.counts.errors += 1
        self.stop(error)

    def stop(self, error: MexcTrioError) -> None:
        """Stop this symbol alone."""
        if self.stopped:
            return
        self.failure = error
        log.error("%s: %s; this symbol stops", self.symbol, error)
        self.ledger.stopped(Cause.SYMBOL_STOPPED, str(error))
        self._scope.cancel()

    def let_go(self, why: str) -> None:
        """Stop this symbol without a failure: the exchange does not list it any more."""
        refused = isinstance(self.failure, UnknownContract)
        if self.stopped and not refused:
            return
        log.info("%s: %s; it is recorded no longer", self.symbol, why)
        if refused:
            self.failure = None  # the socket said so before the list did
            return
        self.ledger.stopped(Cause.SYMBOL_STOPPED, why)
        self._scope.cancel()

    def successor(self) -> "Collector":
        """Return what goes on for this symbol after its end, counting on."""
        collector = Collector(self.settings, self.queue, self.ledger, self.gate)
        collector.counts = self.counts
        collector.received = self.received
        collector.frames = self.frames
        collector.dead = self.dead
        return collector

    def _acknowledged(self, rows: Sequence[RowTuple]) -> None:
        appended = self.counts.appended
        for row in rows:
            appended[str(row[1])] += 1
