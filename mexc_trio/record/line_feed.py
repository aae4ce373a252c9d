"""One line of one symbol: what its connection brings, and what befalls it."""

import logging

import attrs
import trio

from mexc_trio.errors import ExchangeError, UnknownContract
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
    feeds = [LineFeed(lines, str(line + 1), None, moved) for line in range(number)]
    lines.feeds += feeds
    return lines, feeds


@attrs.define(eq=False)
class LineFeed:
    """One line of a symbol: a feed for its connections, one after the other."""

    _lines: Lines
    name: str
    liveness: dict[Channel, Liveness] = attrs.field(init=False)
    is_subscribed: bool = attrs.field(default=False, init=False)
    """Whether its connection is subscribed to something of the symbol."""
    _before: "LineFeed | None" = None
    """Who is to be replaced."""
    moved: trio.Event = attrs.field(factory=trio.Event)
    """See `OneLine`."""
    # Whether it is to be heard no more, although others are on its connection.
    _has_left: bool = attrs.field(default=False, init=False)
    _collector: Collector = attrs.field(init=False)
    # What the exchange has confirmed on its present connection, and what has been silent since.
    _confirmed: set[Channel] = attrs.field(factory=set, init=False)
    _silent: set[Channel] = attrs.field(factory=set, init=False)
    # What the merger knows its present connection as; None before its first acknowledgement.
    _source: LineSource | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._collector = self._lines.collector
        liveness = self._collector.liveness
        if self._before is not None:
            self.liveness = self._before.liveness
        elif self._lines.number == 1:
            self.liveness = liveness
        else:
            self.liveness = {channel: Liveness(channel) for channel in liveness}

    @property
    def is_replacement(self) -> bool:
        """Whether there is another connection that it is to replace."""
        return self._before is not None

    @property
    def symbol(self) -> str:
        """The symbol, as the exchange writes it."""
        return self._collector.symbol

    @property
    def stopped(self) -> bool:
        """Whether the symbol is recorded no longer, or on other connections."""
        return self._has_left or self._collector.stopped

    def subscribed(self, channel: Channel) -> None:
        """Note that the line has a channel from now on."""
        if self._has_left:
            return
        self.is_subscribed = True
        self._confirmed.add(channel)
        if (merger := self._lines.merger) is None:
            return
        if not merger.is_had(channel):
            self._collector.liveness[channel].connected(trio.current_time())
        merger.subscribed(self._joined(merger), channel)

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
        replacement = LineFeed(self._lines, self.name, self, self.moved if moved is None else moved)
        self._lines.feeds.append(replacement)
        return replacement

    def has_taken_over(self) -> bool:
        """Whether nothing is lost when the connection that is to be replaced is broken."""
        merger, source = self._lines.merger, self._source
        if self._before is None:
            return True  # it has joined meanwhile
        if merger is None or source is None:
            return False
        old = self._before._source  # noqa: SLF001 - one of us
        return old is None or merger.covers(source, old)

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

    def forget(self, before: OneLine) -> None:
        """Note that who was to be replaced has gone."""
        if self._before is before:
            self._before = None

    def join(self, merger: Merger) -> None:
        """Have what comes from now on merged."""
        if self.is_subscribed:
            source = self._joined(merger)
            for channel in self._silent & self.liveness.keys():
                merger.silent(source, channel)
            for channel in self._confirmed & self.liveness.keys():
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
