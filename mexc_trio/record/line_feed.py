"""One line of one symbol: what its connection brings, and what befalls it."""

import logging
from itertools import takewhile

import attrs
import trio

from mexc_trio.errors import ExchangeError, UnknownContract
from mexc_trio.exchange.heard import Heard
from mexc_trio.exchange.lines import LineSource, Merger
from mexc_trio.exchange.liveness import Liveness
from mexc_trio.exchange.messages import Data
from mexc_trio.exchange.subscribing import Deals
from mexc_trio.record.causes import cause_of, detail_of
from mexc_trio.record.collector import Collector
from mexc_trio.record.lines import Lines, OneLine
from mexc_trio.rows import Cause, Channel

log = logging.getLogger(__name__)


def new_lines(
    collector: Collector, number: int, ping_interval: float, deals: Deals | None = None
) -> "tuple[Lines, list[LineFeed]]":
    """Return the lines of a symbol, and a feed for each."""
    lines = Lines(collector, number, ping_interval, deals or Deals())
    moved = trio.Event()
    feeds = [LineFeed(lines, str(line + 1), moved) for line in range(number)]
    lines.feeds += feeds
    return lines, feeds


@attrs.define(eq=False)
class LineFeed:
    """One line of a symbol: a feed for its connections, one after the other."""

    _lines: Lines
    name: str
    moved: trio.Event
    """See `OneLine`."""
    liveness: dict[Channel, Liveness] = attrs.field(init=False)
    source: LineSource | None = attrs.field(default=None, init=False)
    """See `OneLine`."""
    # Whether it is to be heard no more, although others are on its connection.
    _has_left: bool = attrs.field(default=False, init=False)
    _collector: Collector = attrs.field(init=False)
    # What the exchange has confirmed on its present connection, by its clock, until when that is
    # heard, and what has been silent since.
    _confirmed: dict[Channel, int] = attrs.field(factory=dict, init=False)
    _heard: Heard = attrs.field(factory=Heard, init=False)
    _silent: set[Channel] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._collector = self._lines.collector
        liveness = self._collector.liveness
        if before := self._before:
            self.liveness = before[0].liveness
        elif self._lines.number == 1:
            self.liveness = liveness
        else:
            self.liveness = {channel: Liveness(channel) for channel in liveness}

    @property
    def is_subscribed(self) -> bool:
        """Whether its connection has something of the symbol, acknowledged or not."""
        return bool(self._confirmed) or (self.source is not None and bool(self.source.receives))

    @property
    def is_replacement(self) -> bool:
        """Whether there is another connection that it is to replace."""
        return bool(self._before)

    @property
    def symbol(self) -> str:
        """The symbol, as the exchange writes it."""
        return self._collector.symbol

    @property
    def stopped(self) -> bool:
        """Whether the symbol is recorded no longer, or on other connections."""
        return self._has_left or self._collector.stopped

    def subscribed(self, channel: Channel, since: int, heard: Heard) -> None:
        """Note that the line has a channel from now on."""
        if self._has_left:
            return
        self._confirmed[channel], self._heard = since, heard
        if (merger := self._lines.merger) is None:
            return
        if not merger.is_received(channel):
            self._collector.liveness[channel].connected(trio.current_time())
        source = self._joined(merger)
        source.heard = heard
        merger.subscribed(source, channel, since)
        self._lines.store(())

    def data(self, message: Data) -> None:
        """Hand on the rows of a frame, as far as no other line has brought them."""
        merger = self._lines.merger
        if self._has_left:
            return
        if merger is None:
            self._collector.data(message)
        else:
            self._lines.take(self._joined(merger), message)

    def skipped(self) -> None:
        """Count a frame that holds nothing to record."""
        self._collector.skipped()

    def unreadable(self) -> None:
        """Open a gap: another symbol's dead letter may have been for this one."""
        if not self._has_left:
            self._collector.unreadable()

    def silent(self, channel: Channel, seconds: float) -> None:
        """Note that a channel of this line has gone silent."""
        self._silent.add(channel)
        if self.source is None:
            self._collector.silent(channel, seconds)
            return
        text = "%s, line %s: %s silent for %.0f s; subscribing again"
        log.warning(text, self.symbol, self.name, channel, seconds)
        self._lines.silent(self.source, channel, f"no {channel} for {seconds:.0f} s")

    def refused(self, error: UnknownContract) -> float:
        """Note that the exchange does not know the symbol; return the seconds until it is asked."""
        return self._collector.refused(error, covered=self._others_have)

    def connection_lost(self, error: ExchangeError) -> None:
        """Count the error; without another line open a gap, and stop if it was one too many."""
        if self._has_left:
            return
        self._leave(cause_of(error), error.reason)
        self._collector.connection_lost(error, covered=self._others_have)

    def broken(self, error: Exception) -> None:
        """Go on without this line, which an error of this program has ended."""
        self._leave(Cause.PROGRAM_FAILED, detail_of(error))
        if not self._others_have:
            self._collector.broken(error)

    def replacement(self, moved: trio.Event | None = None) -> "LineFeed":
        """See `OneLine`."""
        self._lines.merge()
        replacement = LineFeed(self._lines, self.name, self.moved if moved is None else moved)
        self._lines.feeds.append(replacement)
        return replacement

    def has_taken_over(self) -> bool:
        """Whether nothing is lost when the connections that it is to replace are broken."""
        merger, source, old = self._lines.merger, self.source, self._before
        if not old:
            return True  # it has joined meanwhile
        if merger is None or source is None:
            return False
        return all(one.source is None or merger.covers(source, one.source) for one in old)

    def retire(self, error: ExchangeError) -> None:
        """Go on without this connection."""
        if self._has_left:
            return
        self._leave(Cause.CONNECTION_LOST, error.reason)
        self._lines.leave(self)

    def has_moved(self, error: ExchangeError) -> None:
        """Hear no more: a replacement goes on, on another connection than the neighbours'."""
        self.retire(error)
        self._has_left = True

    def join(self, merger: Merger) -> None:
        """Have what comes from now on merged."""
        if self._confirmed:
            source = self._joined(merger)
            for channel in self._silent & self.liveness.keys():
                merger.silent(source, channel)
            for channel in self._confirmed.keys() & self.liveness.keys():
                last = self._collector.ledger.last(channel)
                merger.subscribed(source, channel, self._confirmed[channel], last)

    def leave_merger(self) -> None:
        """Hand on what comes as it comes."""
        self.source = None

    @property
    def _before(self) -> list[OneLine]:
        """The connections of the same line that have been there for longer."""
        older = takewhile(lambda one: one is not self, self._lines.feeds)
        return [one for one in older if one.name == self.name]

    @property
    def _others_have(self) -> bool:
        """Whether another line has something of the symbol."""
        return any(one.is_subscribed for one in self._lines.feeds if one is not self)

    def _joined(self, merger: Merger) -> LineSource:
        if self.source is None:
            self.source = merger.join(self.name, self._heard)
        return self.source

    def _leave(self, cause: Cause, detail: str) -> None:
        source, self.source, self._heard = self.source, None, Heard()
        self._confirmed.clear()
        self._silent.clear()
        if not self.stopped:
            self._lines.lost(source, cause, detail)
