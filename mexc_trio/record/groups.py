"""The symbols of each connection, and how more of them come while recording."""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import attrs

from mexc_trio.record.collector import Collector
from mexc_trio.record.recording import Recording
from mexc_trio.record.sharing import TOGETHER, groups_of, measured, share
from mexc_trio.settings.routes import Route

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Group:
    """The symbols of one connection."""

    collectors: list[Collector]
    """At least one. Those that join are added."""
    most: int
    """So many may share it; with 1 nobody ever joins."""
    take_in: Callable[[Collector], None] | None = attrs.field(default=None, init=False)
    """Begins to record one more; None while the group does not run."""
    renew: Callable[[str], None] = attrs.field(default=lambda why: None, init=False)
    """Makes the connections anew, for a reason, by the symbols' routes as they are then. The old
    ones are broken afterwards."""

    @property
    def living(self) -> list[Collector]:
        """Those of the symbols that are recorded."""
        return [one for one in self.collectors if not one.stopped]

    def join(self, collector: Collector) -> bool:
        """Take in one more, if there is room and the group has not ended; return whether."""
        living = self.living
        if self.take_in is None or not 0 < len(living) < self.most:
            return False
        self.collectors[:] = [*living, collector]
        self.take_in(collector)
        return True


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

        Returns the symbols that go on; of the others the neighbours stay where they are.
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
        new = [Group([named[symbol]], 1) for symbol in alone]
        new += [Group([named[symbol] for symbol in some], most) for some in groups_of(left, most)]
        if len(alone) + len(left) > 1:
            text = "connections: %d for %d symbols; %d have one of their own"
            log.info(text, len(new), len(alone) + len(left), len(alone))
        return new
