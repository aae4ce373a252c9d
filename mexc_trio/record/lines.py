"""The lines of one symbol: what several connections bring goes to its collector as one stream.

With one line there is nothing to merge, and messages go straight on.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import attrs
import trio

from mexc_trio.errors import ExchangeError
from mexc_trio.exchange.feed import Subscriber
from mexc_trio.exchange.lines import LineSource, Merger
from mexc_trio.exchange.liveness import Liveness, keep_channels
from mexc_trio.exchange.messages import Data
from mexc_trio.exchange.session import PONG_TIMEOUT
from mexc_trio.exchange.subscribing import Deals
from mexc_trio.record.causes import SILENT_ELSEWHERE
from mexc_trio.record.collector import Collector
from mexc_trio.record.uncertain import UncertainTime
from mexc_trio.rows import Cause, Channel
from mexc_trio.spans import LATEST


class OneLine(Subscriber, Protocol):
    """A connection of one line, as `Lines` knows it."""

    name: str
    """Which line it is of."""
    liveness: dict[Channel, Liveness]
    source: LineSource | None
    """What the merger knows its present connection as; None before that has brought anything."""
    moved: trio.Event
    """Set when the symbol has moved from these connections to others. Replacements share it, and so
    do the lines."""

    @property
    def is_subscribed(self) -> bool:
        """Whether its connection has something of the symbol, acknowledged or not."""

    @property
    def is_replacement(self) -> bool:
        """Whether there is another connection that it is to replace."""

    def broken(self, error: Exception) -> None:
        """Go on without this line, which an error of this program has ended."""

    def replacement(self, moved: trio.Event | None = None) -> "OneLine":
        """Return the feed of a connection that is made beside this one's, to replace it.

        Args:
            moved: of the connections that it is one of; None for those of this one.
        """

    def has_moved(self, error: ExchangeError) -> None:
        """Hear no more: a replacement goes on, on another connection than the neighbours'."""

    def join(self, merger: Merger) -> None:
        """Have what comes from now on merged."""

    def leave_merger(self) -> None:
        """Hand on what comes as it comes."""


@attrs.define(eq=False)
class Lines:
    """All lines of one symbol."""

    collector: Collector
    number: int
    ping_interval: float
    deals: Deals = attrs.field(factory=Deals)
    merger: Merger | None = attrs.field(default=None, init=False)
    """What makes one stream of several; None while there is one connection."""
    feeds: list[OneLine] = attrs.field(factory=list, init=False)
    """One for each line, and for those that are about to replace one."""
    # Until then what a connection that was replaced has brought is remembered.
    _merges_until: float = attrs.field(default=math.inf, init=False)
    _uncertain: UncertainTime = attrs.field(factory=UncertainTime, init=False)

    def __attrs_post_init__(self) -> None:
        if self.number > 1:
            self.merger = Merger(self._window)
        for liveness in self.collector.liveness.values():
            liveness.connected(math.inf)  # what has not been asked for is not silent

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

    def leave(self, feed: OneLine) -> None:
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
                self.merger.know(tuple(fetched), now)
                fetched.clear()
            taken = self.merger.take(source, message, now)
        except Exception as error:  # noqa: BLE001 - whatever it is, this symbol fails alone
            self.collector.failed(error)
        else:
            self.store(taken)
            # Merged deals are not told afterwards, only those they are made of.
            if (span := self._uncertain.passed(source, message)) and not self.deals.merged:
                self.collector.ledger.note_uncertain(span)
            is_over = now >= self._merges_until and self.merger.passes_through
            if is_over and not self._uncertain.start:
                self.merger = None
                for feed in self.feeds:
                    feed.leave_merger()

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
        """Return the last deal before which none can be lacking that may yet be had."""
        if self.merger is None or message.channel != "deal":
            return LATEST
        return min(self.merger.deals_until(), self._uncertain.start or LATEST)

    def lost(self, source: LineSource | None, cause: Cause, detail: str) -> None:
        """Go on without a line, until its next connection."""
        if self.merger is not None and source is not None:
            self._uncertain.broken(source, self.merger.sources)
            self.store(self.merger.lost(source, (cause, detail)))

    def silent(self, source: LineSource, channel: Channel, detail: str) -> None:
        """Go on without a channel of a line, until its next message."""
        if self.merger is not None:
            self.store(self.merger.silent(source, channel, (Cause.CHANNEL_SILENT, detail)))
