"""The lines of one symbol: what several connections bring goes to its collector as one stream.

With one line there is nothing to merge, and messages go straight on.
"""

import logging
import math
from collections.abc import Sequence

import attrs
import trio

from mexc_trio.errors import ExchangeError, UnknownContract
from mexc_trio.exchange.lines import LineSource, Merger
from mexc_trio.exchange.liveness import Pulse, keep_rhythms
from mexc_trio.exchange.messages import Data
from mexc_trio.exchange.session import PONG_TIMEOUT
from mexc_trio.exchange.subscribing import Deals
from mexc_trio.record.causes import SILENT_ELSEWHERE, cause_of, detail_of
from mexc_trio.record.collector import Collector
from mexc_trio.record.doubts import Doubts
from mexc_trio.rows import Cause, Channel
from mexc_trio.spans import LATEST

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Lines:
    """All lines of one symbol."""

    collector: Collector
    number: int
    ping_interval: float
    deals: Deals = attrs.field(factory=Deals)
    merger: Merger | None = attrs.field(default=None, init=False)
    """What makes one stream of several; None while there is one connection."""
    feeds: "list[LineFeed]" = attrs.field(init=False)
    """One for each line, and for those that are about to replace one."""
    # Until then what a connection that was replaced has brought is remembered.
    _merges_until: float = attrs.field(default=math.inf, init=False)
    # Why a line was lost last, for gaps that are found because of it.
    _why: tuple[Cause, str] = attrs.field(default=(Cause.CONNECTION_LOST, ""), init=False)
    _doubts: Doubts = attrs.field(factory=Doubts, init=False)

    def __attrs_post_init__(self) -> None:
        if self.number > 1:
            self.merger = Merger(self._window)
        self.feeds = [LineFeed(self, str(line + 1)) for line in range(self.number)]
        for pulse in self.collector.pulses.values():
            pulse.connected(math.inf)  # what has not been asked for is not silent

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
            keep_rhythms(feed.pulses, channels)
        if self.merger is not None:
            self.merger.keep(channels)
        if "deal" not in channels:
            self._doubts = Doubts()
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
        for one in self.feeds:
            one.forget(feed)
        if self.number == 1:
            self._merges_until = trio.current_time() + self._window

    def take(self, source: LineSource, message: Data) -> None:
        """Hand on what is new of a message."""
        if self.merger is None or self.collector.stopped:
            return
        now, fetched = trio.current_time(), self.collector.ledger.pending.known.fetched
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
            if (span := self._doubts.passed(source, message)) and not self.deals.merged:
                self.collector.ledger.doubt(span)
            is_over = now >= self._merges_until and self.merger.passes_through
            if is_over and not self._doubts.start:
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
        for channel, start, end in self.merger.missed:
            cause, detail = self._why
            if cause is not Cause.CHANNEL_SILENT and self.merger.is_silent(channel):
                detail += SILENT_ELSEWHERE
            self.collector.ledger.note_missed(cause, detail, channel, start, end)
        self.merger.missed.clear()
        now = trio.current_time()
        for message in messages:
            if pulse := self.collector.pulses.get(message.channel or ""):
                pulse.beat(now)
            self.collector.data(message, self._until(message))

    def _until(self, message: Data) -> int:
        """Return the last deal before which none can be lacking that may yet be had."""
        if self.merger is None or message.channel != "deal":
            return LATEST
        return min(self.merger.deals_until(), self._doubts.start or LATEST)

    def lost(self, source: LineSource | None, cause: Cause, detail: str) -> None:
        """Go on without a line, until its next connection."""
        self._why = cause, detail
        if self.merger is not None and source is not None:
            self._doubts.broken(source, self.merger.sources)
            self.store(self.merger.lost(source))

    def silent(self, source: LineSource, channel: Channel, detail: str) -> None:
        """Go on without a channel of a line, until its next message."""
        self._why = Cause.CHANNEL_SILENT, detail
        if self.merger is not None:
            self.store(self.merger.silent(source, channel))


@attrs.define(eq=False)
class LineFeed:
    """One line of a symbol: a feed for its connections, one after the other."""

    _lines: Lines
    name: str
    pulses: dict[Channel, Pulse] = attrs.field(init=False)
    is_subscribed: bool = attrs.field(default=False, init=False)
    """Whether its connection is subscribed to something of the symbol."""
    _before: "LineFeed | None" = None
    """Who is to be replaced."""
    _collector: Collector = attrs.field(init=False)
    # What the exchange has confirmed on its present connection, and what has been silent since.
    _confirmed: set[Channel] = attrs.field(factory=set, init=False)
    _silent: set[Channel] = attrs.field(factory=set, init=False)
    # What the merger knows its present connection as; None before its first acknowledgement.
    _source: LineSource | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._collector = self._lines.collector
        pulses = self._collector.pulses
        if self._before is not None:
            self.pulses = self._before.pulses
        elif self._lines.number == 1:
            self.pulses = pulses
        else:
            self.pulses = {channel: Pulse(channel) for channel in pulses}

    @property
    def symbol(self) -> str:
        """The symbol, as the exchange writes it."""
        return self._collector.symbol

    @property
    def stopped(self) -> bool:
        """Whether the symbol is recorded no longer."""
        return self._collector.stopped

    def subscribed(self, channel: Channel) -> None:
        """Note that the line has a channel from now on."""
        self.is_subscribed = True
        self._confirmed.add(channel)
        if (merger := self._lines.merger) is None:
            return
        if not merger.is_had(channel):
            self._collector.pulses[channel].connected(trio.current_time())
        merger.subscribed(self._joined(merger), channel)

    def data(self, message: Data) -> None:
        """Hand on the rows of a frame, as far as no other line has brought them."""
        merger = self._lines.merger
        if merger is None:
            self._collector.data(message)
        else:
            self._lines.take(self._joined(merger), message)

    def skipped(self) -> None:
        """Count a frame that holds nothing to record."""
        self._collector.skipped()

    def unreadable(self) -> None:
        """Open a gap: another symbol's dead letter may have been for this one."""
        self._collector.unreadable()

    def silent(self, channel: Channel, seconds: float) -> None:
        """Note that a channel of this line has gone silent."""
        self._silent.add(channel)
        if self._source is None:
            self._collector.silent(channel, seconds)
            return
        text = "%s, line %s: %s silent for %.0f s; subscribing again"
        log.warning(text, self.symbol, self.name, channel, seconds)
        self._lines.silent(self._source, channel, f"no {channel} for {seconds:.0f} s")

    def refused(self, error: UnknownContract) -> float:
        """Note that the exchange does not know the symbol; return the seconds until it is asked."""
        return self._collector.refused(error, covered=self._others_have)

    def connection_lost(self, error: ExchangeError) -> None:
        """Count the error; without another line open a gap, and stop if it was one too many."""
        self._leave(cause_of(error), error.reason)
        self._collector.connection_lost(error, covered=self._others_have)

    def broken(self, error: Exception) -> None:
        """Go on without this line, which an error of this program has ended."""
        self._leave(Cause.PROGRAM_FAILED, detail_of(error))
        if not self._others_have:
            self._collector.broken(error)

    def heir(self) -> "LineFeed":
        """Return the feed of a connection that is made beside this one's, to replace it."""
        self._lines.merge()
        heir = LineFeed(self._lines, self.name, self)
        self._lines.feeds.append(heir)
        return heir

    def has_taken_over(self) -> bool:
        """Whether nothing is lost when the connection that is to be replaced is broken."""
        merger, source = self._lines.merger, self._source
        if self._before is None:
            return True  # it has joined meanwhile
        if merger is None or source is None:
            return False
        old = self._before._source  # noqa: SLF001 - one of us
        return old is None or merger.covers(source, old)

    def replaced(self, error: ExchangeError) -> None:
        """Go on without this connection."""
        self._leave(Cause.CONNECTION_LOST, error.reason)
        self._lines.leave(self)

    def forget(self, before: "LineFeed") -> None:
        """Note that who was to be replaced has gone."""
        if self._before is before:
            self._before = None

    def join(self, merger: Merger) -> None:
        """Have what comes from now on merged."""
        if self.is_subscribed:
            source = self._joined(merger)
            for channel in self._silent & self.pulses.keys():
                merger.silent(source, channel)
            for channel in self._confirmed & self.pulses.keys():
                merger.subscribed(source, channel)

    def leave_merger(self) -> None:
        """Hand on what comes as it comes."""
        self._source = None

    @property
    def _others_have(self) -> bool:
        """Whether another line has something of the symbol."""
        return any(one.is_subscribed for one in self._lines.feeds if one is not self)

    def _joined(self, merger: Merger) -> LineSource:
        if self._source is None:
            self._source = merger.join(self.name)
        return self._source

    def _leave(self, cause: Cause, detail: str) -> None:
        source, self._source, self.is_subscribed = self._source, None, False
        self._confirmed.clear()
        self._silent.clear()
        if not self.stopped:
            self._lines.lost(source, cause, detail)
