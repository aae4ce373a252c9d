"""The symbols that share connections, how those are made, and how more symbols come meanwhile.

Each line is a connection of its own and fails alone, as does each symbol.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial

import attrs
import trio

from mexc_trio.exchange.connection import Connection, Way
from mexc_trio.record import watch
from mexc_trio.record.collector import Collector
from mexc_trio.record.lines import Lines
from mexc_trio.record.recording import Recording
from mexc_trio.record.sharing import TOGETHER, groups_of, measured, share
from mexc_trio.record.stats import final_report
from mexc_trio.settings.routes import Route
from mexc_trio.supervise import supervise

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Group:
    """The symbols of one connection; of several lines, of a connection for each."""

    _recording: Recording
    collectors: list[Collector]
    """At least one. Those that join are added."""
    most: int
    """So many may share it; with 1 nobody ever joins."""
    _connections: list[Connection] = attrs.field(factory=list, init=False)
    """One for each line; none before the group runs."""
    _symbols: trio.Nursery | None = attrs.field(default=None, init=False)

    @property
    def living(self) -> list[Collector]:
        """Those of the symbols that are recorded."""
        return [one for one in self.collectors if not one.stopped]

    async def run(self) -> None:
        """Record until all symbols are stopped."""
        settings, renewing = self._recording.settings, trio.Lock()
        of_symbols = [self._lines_of(one) for one in self.collectors]
        self._connections = [
            Connection(
                self._ways(line),
                [lines.feeds[line] for lines in of_symbols],
                settings.ping_interval,
                self._recording.journal.outbox.flush_if_unlocked,
                self._recording.rate_limiter,
                self._recording.deals,
                f"line {line + 1}" if settings.lines > 1 else "",
                renewing,
            )
            for line in range(settings.lines)
        ]
        who = self.collectors[0].symbol if self.most == 1 else "several symbols"
        async with trio.open_nursery() as nursery:
            for line, connection in enumerate(self._connections):
                name = f"{who}: connection of line {line + 1}"
                nursery.start_soon(supervise, name, connection.run, partial(self._broken, line))
            async with trio.open_nursery() as symbols:
                for collector in self.collectors:
                    symbols.start_soon(self._record_symbol, collector)
                self._symbols = symbols
            nursery.cancel_scope.cancel()

    def join(self, collector: Collector) -> bool:
        """Take in one more, if there is room and the group runs; return whether."""
        living = self.living
        if self._symbols is None or not 0 < len(living) < self.most:
            return False
        self.collectors[:] = [*living, collector]
        for connection, feed in zip(
            self._connections, self._lines_of(collector).feeds, strict=True
        ):
            connection.join(feed)
        self._symbols.start_soon(self._record_symbol, collector)
        return True

    def renew(self, why: str) -> None:
        """Make the connections anew, by the symbols' routes as they are now, then break the old."""
        for line, connection in enumerate(self._connections):
            connection.renew(self._ways(line), why)

    def _ways(self, line: int) -> list[Way]:
        one = (self.living or self.collectors)[0]
        return self._recording.ways(line, one, throttled=self.most > 1)

    def _lines_of(self, collector: Collector) -> Lines:
        recording, settings = self._recording, self._recording.settings
        lines = Lines(collector, settings.lines, settings.ping_interval, recording.deals)
        recording.lines[collector.symbol] = lines
        return lines

    def _broken(self, line: int, error: Exception) -> None:
        for collector in self.collectors:
            for feed in list(self._recording.lines[collector.symbol].feeds):
                if feed.name == str(line + 1):
                    feed.broken(error)

    async def _record_symbol(self, collector: Collector) -> None:
        await collector.run()
        # It was stopped by its errors. If it was the last one, the program's end says the same.
        others = any(not other.stopped for other in self._recording.collectors)
        if others and not collector.has_successor:
            recording = self._recording
            watch.show(final_report([recording.stats_of(collector)], recording.seconds))


@attrs.define(eq=False)
class Groups:
    """All groups. Only symbols with the same routes share a connection."""

    _recording: Recording
    _all: list[Group] = attrs.field(factory=list, init=False)

    def assign(self, collectors: Sequence[Collector]) -> list[Group]:
        """Let symbols join others, or be in new groups; return those, which are to be run."""
        by_route: defaultdict[tuple[Route, ...], list[Collector]] = defaultdict(list)
        for collector in collectors:
            by_route[collector.settings.route].append(collector)
        rates = measured(self._recording)
        new: list[Group] = []
        self._all = [group for group in self._all if group.living]
        for route, those in by_route.items():
            groups = [group for group in self._all if group.living[0].settings.route == route]
            new += self._assigned(groups, those, rates)
        self._all += new
        return new

    def reroute(self, routes: Mapping[Collector, tuple[Route, ...]], why: str) -> set[Collector]:
        """Let groups of which all symbols get the same other routes go on by those, without a gap.

        `routes` are those of the symbols that get others, `why` a few words about it. Returns the
        symbols that go on; of the others the neighbours stay where they are.
        """
        rerouted: set[Collector] = set()
        for group in self._all:
            living = group.living
            new = {routes.get(one) for one in living}
            if len(new) == 1 and (route := new.pop()) is not None:
                for one in living:
                    one.settings = attrs.evolve(one.settings, route=route)
                group.renew(why)
                rerouted.update(living)
        return rerouted

    def _assigned(
        self, groups: Sequence[Group], those: Sequence[Collector], rates: Mapping[str, float]
    ) -> list[Group]:
        named = {one.symbol: one for one in those}
        size = self._recording.settings.symbols_per_connection
        others = sum(len(group.living) for group in groups)
        alone, together = share(list(named), rates, size, others)
        # Those that share fill up what there is.
        left = [
            symbol
            for symbols in together
            for symbol in symbols
            if not any(group.join(named[symbol]) for group in groups)
        ]
        most = size or TOGETHER
        new = [Group(self._recording, [named[symbol]], 1) for symbol in alone]
        new += [
            Group(self._recording, [named[symbol] for symbol in some], most)
            for some in groups_of(left, most)
        ]
        if len(alone) + len(left) > 1:
            text = "connections: %d for %d symbols; %d have one of their own"
            log.info(text, len(new), len(alone) + len(left), len(alone))
        return new
