"""The lines of one symbol: what several connections bring goes to its collector as one stream.

With one line there is nothing to merge, and messages go straight on.
"""

import logging
import math
from collections.abc import Sequence
from itertools import takewhile

import attrs
import trio

from mexc_trio.errors import ExchangeError, UnknownContract
from mexc_trio.exchange.heard import Heard
from mexc_trio.exchange.lines import LineSource, Merger
from mexc_trio.exchange.liveness import Liveness, keep_channels
from mexc_trio.exchange.messages import Data
from mexc_trio.exchange.session import PONG_TIMEOUT
from mexc_trio.exchange.subscribing import DealMode
from mexc_trio.record.causes import SILENT_ELSEWHERE, cause_of, detail_of
from mexc_trio.record.collector import Collector
from mexc_trio.record.uncertain import UncertainTime
from mexc_trio.rows import Cause, Channel
from mexc_trio.spans import LATEST

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Lines:
    """All lines of one symbol."""

    collector: Collector
    number: int
    ping_interval: float
    deals: DealMode = attrs.field(factory=DealMode)
    merger: Merger | None = attrs.field(default=None, init=False)
    """What makes one stream of several; None while there is one connection."""
    feeds: "list[LineFeed]" = attrs.field(factory=list, init=False)
    """One for each line, and for those that are about to replace one."""
    # Until then what a connection that was replaced has brought is remembered.
    _merges_until: float = attrs.field(default=math.inf, init=False)
    _uncertain: UncertainTime = attrs.field(factory=UncertainTime, init=False)

    def __attrs_post_init__(self) -> None:
        if self.number > 1:
            self.merge()
        watched, moved = self.collector.liveness, trio.Event()
        for one in watched.values():
            one.connected(math.inf)  # what has not been asked for is not silent
        for line in range(self.number):
            liveness = watched if self.number == 1 else {name: Liveness(name) for name in watched}
            self.feeds.append(LineFeed(self, str(line + 1), moved, liveness))

    @property
    def connected(self) -> int:
        """How many lines are subscribed to something of the symbol."""
        return len({feed.name for feed in self.feeds if feed.is_subscribed})

    @property
    def _window(self) -> float:
        # What a stalled connection has kept back may come until its ping is overdue, or lag a bit.
        return self.ping_interval + PONG_TIMEOUT + 20.0

    def record_channels(self, channels: Sequence[Channel]) -> None:
        """Go on with other channels, for which the connections that there are ask in seconds."""
        for feed in self.feeds:
            keep_channels(feed.liveness, channels)
        if self.merger is not None:
            self.merger.keep(channels)
        if "deal" not in channels:
            self._uncertain = UncertainTime()
        self.collector.record_channels(channels)

    def merge(self) -> None:
        """Merge from now on: another connection is made beside one."""
        self._merges_until = math.inf
        if self.merger is None:
            self.merger = Merger(self._window)
            for feed in self.feeds:
                feed.join(self.merger)

    def leave(self, feed: "LineFeed") -> None:
        """Go on without a connection that was replaced, or that was to replace one."""
        self.feeds.remove(feed)
        if self.number == 1:
            self._merges_until = trio.current_time() + self._window

    def take(self, source: LineSource, message: Data) -> None:
        """Hand on what is new of a message."""
        if self.merger is None or self.collector.stopped:
            return
        now, fetched = trio.current_time(), self.collector.ledger.pending.last_deals.fetched
        try:
            if fetched:
                self.merger.know(fetched, now)
                fetched.clear()
            taken = self.merger.take(source, message, now)
        except Exception as error:  # noqa: BLE001 - whatever it is, this symbol fails alone
            self.collector.failed(error)
        else:
            self.store(taken)
            # Merged deals are not told afterwards, only those they are made of.
            if (span := self._uncertain.passed(source, message)) and not self.deals.merged:
                self.collector.ledger.note_uncertain(span)
            is_over = now >= self._merges_until and not self._uncertain.start
            if is_over and self.merger.passes_through:
                self.merger = None
                for feed in self.feeds:
                    feed.source = None

    def store(self, messages: Sequence[Data]) -> None:
        """Write down what was missed, and hand on what is to be stored."""
        if self.merger is None or self.collector.stopped:
            return
        if kept := self.merger.before_missed(messages):
            messages = [one for one in messages if one not in kept]
        for message in kept:
            self.collector.data(message, self._until(message))
        for channel, start, end, (cause, detail), is_uncertain in self.merger.missed:
            if is_uncertain and cause is not Cause.CHANNEL_SILENT:
                detail += SILENT_ELSEWHERE
            self.collector.ledger.note_missed(cause, detail, channel, start, end)
        self.merger.missed.clear()
        now = trio.current_time()
        for message in messages:
            if liveness := self.collector.liveness.get(message.channel or ""):
                liveness.note_frame(now)
            self.collector.data(message, self._until(message))

    def _until(self, message: Data) -> int:
        """Return the time before which no line, and no answer, can bring another deal."""
        if self.merger is None or message.channel != "deal":
            return LATEST
        return min(self.merger.deals_until(), self._uncertain.start or LATEST)

    def lost(self, source: LineSource | None, cause: Cause, detail: str) -> None:
        """Go on without a line, until its next connection."""
        if self.merger is not None and source is not None:
            self._uncertain.broken(source, self.merger.sources)
            self.store(self.merger.lost(source, (cause, detail)))


@attrs.define(eq=False)
class LineFeed:
    """One line of a symbol: a feed for its connections, one after the other."""

    lines: Lines
    name: str
    """Which line it is."""
    moved: trio.Event
    """Set when the symbol has moved to other connections. Lines and their replacements share it."""
    liveness: dict[Channel, Liveness]
    source: LineSource | None = attrs.field(default=None, init=False)
    """What the merger knows its present connection as; None before that has brought anything."""
    symbol: str = attrs.field(init=False)
    """As the exchange writes it."""
    _is_retired: bool = attrs.field(default=False, init=False)
    _collector: Collector = attrs.field(init=False)
    # What the exchange has confirmed on its present connection, by its clock, until when that is
    # heard, and what has been silent since.
    _confirmed: dict[Channel, int] = attrs.field(factory=dict, init=False)
    _heard: Heard = attrs.field(factory=Heard, init=False)
    _silent: set[Channel] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._collector = self.lines.collector
        self.symbol = self._collector.symbol

    @property
    def is_subscribed(self) -> bool:
        """Whether its connection has something of the symbol, acknowledged or not."""
        return bool(self._confirmed) or (self.source is not None and bool(self.source.receives))

    @property
    def predecessors(self) -> "list[LineFeed]":
        """The connections of the same line that were there before, which it is to replace."""
        older = takewhile(lambda one: one is not self, self.lines.feeds)
        return [one for one in older if one.name == self.name]

    @property
    def stopped(self) -> bool:
        """Whether the symbol is recorded no longer, or on other connections."""
        return self._is_retired or self._collector.stopped

    def subscribed(self, channel: Channel, since: int, heard: Heard) -> None:
        """Note that the line has a channel from now on."""
        if self._is_retired:
            return
        self._confirmed[channel], self._heard = since, heard
        if (merger := self.lines.merger) is None:
            return
        if not merger.is_received(channel):
            self._collector.liveness[channel].connected(trio.current_time())
        source = self._joined(merger)
        source.heard = heard
        merger.subscribed(source, channel, since)
        self.lines.store(())

    def data(self, message: Data) -> None:
        """Hand on the rows of a frame, as far as no other line has brought them."""
        if self._is_retired:
            return
        if (merger := self.lines.merger) is None:
            self._collector.data(message)
        else:
            self.lines.take(self._joined(merger), message)

    def skipped(self) -> None:
        """Count a frame that holds nothing to record."""
        self._collector.counts.skipped += 1

    def unreadable(self) -> None:
        """Open a gap: another symbol's dead letter may have been for this one."""
        if not self.stopped:
            self._collector.ledger.unreadable()

    def silent(self, channel: Channel, seconds: float) -> None:
        """Note that a channel of this line has gone silent."""
        self._silent.add(channel)
        why, who = (Cause.CHANNEL_SILENT, f"no {channel} for {seconds:.0f} s"), self.symbol
        if self.source is None or (merger := self.lines.merger) is None:
            self._collector.ledger.lost(*why, channel)
        else:
            who += f", line {self.name}"
            self.lines.store(merger.silent(self.source, channel, why))
        log.warning("%s: %s silent for %.0f s; subscribing again", who, channel, seconds)

    def refused(self, error: UnknownContract) -> float:
        """Open a gap, unless another line has the symbol; see `Collector.refused`."""
        if not self._others_have:
            self._collector.ledger.lost(Cause.REFUSED, error.reason)
        return self._collector.refused(error)

    def connection_lost(self, error: ExchangeError) -> None:
        """Count the error; without another line open a gap, and stop if it was one too many."""
        if self._is_retired:
            return
        self._lose_connection(cause_of(error), error.reason)
        if not self._others_have:
            self._collector.connection_lost(error)
        elif not self.stopped:
            self._collector.counts.covered += 1

    def broken(self, error: Exception) -> None:
        """Go on without this line, which an error of this program has ended."""
        self._lose_connection(Cause.PROGRAM_FAILED, detail_of(error))
        if not self._others_have:
            self._collector.broken(error)

    def replacement(self, moved: trio.Event | None = None) -> "LineFeed":
        """Return the feed, with its `moved`, of a connection that is to replace this one's."""
        self.lines.merge()
        moved = self.moved if moved is None else moved
        replacement = LineFeed(self.lines, self.name, moved, self.liveness)
        self.lines.feeds.append(replacement)
        return replacement

    def has_taken_over(self) -> bool:
        """Whether nothing is lost when the connections that it is to replace are broken."""
        merger, source, old = self.lines.merger, self.source, self.predecessors
        if merger is None or source is None:
            return not old  # it has joined meanwhile
        return all(one.source is None or merger.covers(source, one.source) for one in old)

    def retire(self, error: ExchangeError) -> None:
        """Go on without this connection, and hear no more of it, even if others are still on it."""
        if not self._is_retired:
            self._lose_connection(Cause.CONNECTION_LOST, error.reason)
            self.lines.leave(self)
            self._is_retired = True

    def join(self, merger: Merger) -> None:
        """Have what comes from now on merged."""
        if self._confirmed:
            source = self._joined(merger)
            for channel in self._silent & self.liveness.keys():
                merger.silent(source, channel)
            for channel in self._confirmed.keys() & self.liveness.keys():
                last = self._collector.ledger.last(channel)
                merger.subscribed(source, channel, self._confirmed[channel], last)

    @property
    def _others_have(self) -> bool:
        """Whether another line has something of the symbol."""
        return any(one.is_subscribed for one in self.lines.feeds if one is not self)

    def _joined(self, merger: Merger) -> LineSource:
        if self.source is None:
            self.source = merger.join(self.name, self._heard)
        return self.source

    def _lose_connection(self, cause: Cause, detail: str) -> None:
        source, self.source, self._heard = self.source, None, Heard()
        self._confirmed.clear()
        self._silent.clear()
        if not self.stopped:
            self.lines.lost(source, cause, detail)
