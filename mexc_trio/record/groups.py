"""The symbols that share connections, how those are made, and how more symbols come meanwhile.

Each line is a connection of its own and fails alone, as does each symbol. One whose routes become
others than its neighbours' moves to another group: it is heard on both until the new connections
have all that the old ones have, and leaves those then. A route that does not work costs nothing.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import attrs
import trio
from trio_util import wait_any

from mexc_trio.errors import ExchangeError, Loss
from mexc_trio.exchange.connection import POLL, TAKE_OVER, WARM_UP, Connection
from mexc_trio.exchange.session import Endpoint, SessionOptions
from mexc_trio.record import watch
from mexc_trio.record.collector import Collector
from mexc_trio.record.lines import LineFeed, Lines
from mexc_trio.record.recording import Recording
from mexc_trio.record.sharing import TOGETHER, alone, measured
from mexc_trio.record.stats import statistics
from mexc_trio.record.wide import table_of
from mexc_trio.settings.routes import Route
from mexc_trio.supervise import supervise

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Group:
    """The symbols of one connection; of several lines, of a connection for each."""

    _recording: Recording
    _everybody: trio.Nursery
    """Where the symbols run, which may outlive the group."""
    collectors: list[Collector]
    """At least one. Those that join are added."""
    most: int
    """So many may share it; with 1 nobody ever joins."""
    _connections: list[Connection] = attrs.field(factory=list, init=False)
    """One for each line; none before the group runs."""
    _first: Collector = attrs.field(init=False)
    # Waits for the end of each symbol here; None before the group has connections.
    _symbols: trio.Nursery | None = attrs.field(default=None, init=False)
    # One of the feeds of each symbol here.
    _feeds: set[LineFeed] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._first = self.collectors[0]

    @property
    def living(self) -> list[Collector]:
        """Those of the symbols that are recorded."""
        return [one for one in self.collectors if not one.stopped]

    async def run(self) -> None:
        """Have connections until all symbols are stopped or have moved to others."""
        settings, renewing, collectors = self._recording.settings, trio.Lock(), [*self.collectors]
        of_symbols = [self._feeds_of(one) for one in collectors]
        if any(feeds[0].predecessors for feeds in of_symbols):
            await trio.sleep(WARM_UP)
        options = SessionOptions(
            settings.ping_interval,
            self._recording.journal.outbox.flush_if_unlocked,
            self._recording.rate_limiter,
            self._recording.deals,
        )
        self._connections = [
            Connection(
                self._endpoints(line),
                [feeds[line] for feeds in of_symbols],
                options,
                f"line {line + 1}" if settings.lines > 1 else "",
                renewing,
            )
            for line in range(settings.lines)
        ]
        who = collectors[0].symbol if self.most == 1 else "several symbols"
        async with trio.open_nursery() as nursery:
            for line, connection in enumerate(self._connections):
                name = f"{who}: connection of line {line + 1}"
                nursery.start_soon(supervise, name, connection.run, partial(self._broken, line))
            async with trio.open_nursery() as symbols:
                for feeds in of_symbols:
                    symbols.start_soon(self._until_gone, feeds[0])
                self._symbols = symbols
            nursery.cancel_scope.cancel()

    def join(self, collector: Collector) -> bool:
        """Take in one more, if there is room and the group runs; return whether."""
        living = self.living
        if self._symbols is None or not 0 < len(living) < self.most:
            return False
        self.collectors[:] = [*living, collector]
        feeds = self._feeds_of(collector)
        self._symbols.start_soon(self._until_gone, feeds[0])
        self._symbols.start_soon(self._connect, feeds, WARM_UP if feeds[0].predecessors else 0.0)
        return True

    async def _until_gone(self, feed: LineFeed) -> None:
        await until_gone(feed.lines, feed.moved)
        self._feeds.discard(feed)

    async def _connect(self, feeds: Sequence[LineFeed], after: float) -> None:
        await trio.sleep(after)
        for connection, feed in zip(self._connections, feeds, strict=True):
            connection.join(feed)

    def renew(self, why: str) -> None:
        """Make the connections anew, by the symbols' routes as they are now, then break the old."""
        for line, connection in enumerate(self._connections):
            connection.renew(self._endpoints(line), why)

    def _endpoints(self, line: int) -> list[Endpoint]:
        one = next(iter(self.living), self._first)
        return self._recording.endpoints(line, one, throttled=self.most > 1)

    def _feeds_of(self, collector: Collector) -> list[LineFeed]:
        """Return a feed for each line of a symbol that begins, or that moves to here."""
        recording, settings = self._recording, self._recording.settings
        if (lines := recording.lines.get(collector)) is not None:
            feeds = replacements_of(lines)
        else:
            lines = Lines(collector, settings.lines, settings.ping_interval, recording.deals)
            feeds = [*lines.feeds]
            recording.lines[collector] = lines
            self._everybody.start_soon(self._record_symbol, collector)
        self._feeds.add(feeds[0])
        return feeds

    def _broken(self, line: int, error: Exception) -> None:
        for one in self._feeds:
            for feed in list(one.lines.feeds):
                if feed.name == str(line + 1) and feed.moved is one.moved:
                    feed.broken(error)

    async def _record_symbol(self, collector: Collector) -> None:
        await collector.run()
        # It was stopped by its errors. If it was the last one, the program's end says the same.
        if any(not other.stopped for other in self._recording.collectors):
            stats = [self._recording.stats_of(collector)]
            watch.show(statistics(stats, self._recording.seconds, final=True))


@attrs.define(eq=False)
class Groups:
    """All groups. Only symbols with the same routes share a connection."""

    _recording: Recording
    _nursery: trio.Nursery
    """Of all symbols and their connections."""
    _all: list[Group] = attrs.field(factory=list, init=False)

    def begin(self, collectors: Sequence[Collector]) -> None:
        """Start the nurseries of symbols that are new, and the connections of all.

        Their views come later.
        """
        # Before they join a group, which gives them lines.
        new = [one for one in collectors if one not in self._recording.lines]
        by_route: defaultdict[tuple[Route, ...], list[Collector]] = defaultdict(list)
        for collector in collectors:
            by_route[collector.settings.route].append(collector)
        rates = measured(self._recording)
        self._all = [group for group in self._all if group.living]
        for route, those in by_route.items():
            groups = [group for group in self._all if group.living[0].settings.route == route]
            for group in self._new_groups(groups, those, rates):
                self._all.append(group)
                self._nursery.start_soon(self._run, group)
        self.make_views(new)

    def make_views(self, collectors: Sequence[Collector]) -> None:
        """Make the views that the tables of symbols lack."""
        tables = [table_of(one.settings) for one in collectors]
        create = partial(self._recording.store.create_views, tables)
        self._nursery.start_soon(supervise, "views", create)

    async def _run(self, group: Group) -> None:
        """Record the symbols of a group; when no symbol at all is left, end everything."""
        await group.run()
        if self._recording.has_failed:
            self._nursery.cancel_scope.cancel()  # there may be a list to follow still

    def reroute(self, routes: Mapping[Collector, tuple[Route, ...]], why: str) -> list[Collector]:
        """Give symbols other routes, without a gap; `why` is a few words about it, for the log.

        A group whose symbols all get the same ones makes its connections anew. Where some do, those
        leave the group and are returned: when they are begun again, they move to another one.
        """
        moving: list[Collector] = []
        for one, route in routes.items():
            one.settings = attrs.evolve(one.settings, route=route)
        for group in self._all:
            living = group.living
            changed = [one for one in living if one in routes]
            if changed and len({routes.get(one) for one in living}) == 1:
                group.renew(why)
            elif changed:
                group.collectors[:] = [one for one in living if one not in routes]
                moving += changed
        return moving

    def _new_groups(
        self, groups: Sequence[Group], those: Sequence[Collector], rates: Mapping[str, float]
    ) -> list[Group]:
        """Let symbols join groups, and return new ones for those that do not."""
        size = self._recording.settings.symbols_per_connection
        others = sum(len(group.living) for group in groups)
        apart = alone([one.symbol for one in those], rates, size, others)
        # Those that share fill up what there is.
        left = [
            one
            for one in those
            if one.symbol not in apart and not any(group.join(one) for group in groups)
        ]
        most, parts = size or TOGETHER, (self._recording, self._nursery)
        new = [Group(*parts, [one], 1) for one in those if one.symbol in apart]
        new += [
            Group(*parts, left[first : first + most], most) for first in range(0, len(left), most)
        ]
        if (number := len(apart) + len(left)) > 1:
            text = "connections: %d for %d symbols; %d have one of their own"
            log.info(text, len(new), number, len(apart))
        return new


_MOVED: Final = "it has other routes than its neighbours"


def replacements_of(lines: Lines) -> list[LineFeed]:
    """Return a feed for each line, for connections that a symbol moves to."""
    moved = trio.Event()
    present = {feed.name: feed for feed in reversed(lines.feeds)}
    return [present[str(line + 1)].replacement(moved) for line in range(lines.number)]


async def until_gone(lines: Lines, moved: trio.Event) -> None:
    """Wait until a symbol has ended, or moved from these connections to others.

    If it has moved to these, it leaves the others meanwhile.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_take_over, lines, moved)
        await wait_any(lines.collector.ended.wait, moved.wait)
        nursery.cancel_scope.cancel()


async def _take_over(lines: Lines, moved: trio.Event) -> None:
    """Let a symbol leave the connections that it has beside these, line by line."""
    # Not those that it moves to even later, because its routes were changed again meanwhile.
    places = [place for place, feed in enumerate(lines.feeds) if feed.moved is moved]
    left = {feed.moved for feed in lines.feeds[: min(places, default=0)]}
    if not left:
        return

    def here(name: str) -> list[LineFeed]:
        return [feed for feed in lines.feeds if feed.name == name and feed.moved is moved]

    def is_heard(name: str) -> bool:
        return any(feed.is_subscribed for feed in here(name))

    def has_all(name: str) -> bool:
        return any(feed.has_taken_over() for feed in here(name))

    for name in [feed.name for feed in lines.feeds if feed.moved is moved]:
        await _until(partial(is_heard, name))  # however long that takes: it is heard on the others
        with trio.move_on_after(TAKE_OVER):
            await _until(partial(has_all, name))
        for feed in list(lines.feeds):
            if feed.name == name and feed.moved in left:
                feed.retire(ExchangeError(_MOVED, Loss.RENEWED))
    log.info("%s: new connections have replaced the old ones: %s", lines.collector.symbol, _MOVED)
    for event in left:
        event.set()


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what it looks at is no event
        await trio.sleep(POLL)
