"""One rule of silence: what a recorder does not write down, `verify` does not call a fault.

A day of a symbol in virtual time: rare rows, lines that break one by one or all together, channels
that die, a program that is killed. What the table and the ledger then say is put to `verify`.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from mexc_trio.analysis.coverage import Coverage, Silence, coverage
from mexc_trio.analysis.gaps import LedgerGap
from mexc_trio.channels import ALL, BY_TYPE
from mexc_trio.errors import ExchangeError
from mexc_trio.exchange.heard import Heard
from mexc_trio.exchange.messages import Data
from mexc_trio.exchange.session import WATCH_INTERVAL
from mexc_trio.filled import Filled
from mexc_trio.journal import Journal, open_journal
from mexc_trio.record.collector import Collector
from mexc_trio.record.gaps import Ledger
from mexc_trio.record.lines import LineFeed, Lines
from mexc_trio.rhythm import PAUSE
from mexc_trio.rows import CHANNELS, Cause, Channel, Gap, Row
from mexc_trio.settings import SymbolSettings
from mexc_trio.spans import SECOND, Span
from tests.support.inmemory import MemoryStore, as_async

BTC = "BTC_USDT"
START = 1_789_498_000_000


@attrs.frozen
class World:
    """What a day is like."""

    seed: int
    lines: int = 2
    hours: float = 3.0
    pauses: Mapping[Channel, float] = attrs.field(
        factory=lambda: {"ticker": 25.0, "deal": 300.0, "depth": 60.0}
    )
    """Seconds between two rows of a channel, on average; now and then it is ten times as many."""
    breaks: float = 60.0
    """Seconds between two losses of each line, on average."""
    cuts: float = math.inf
    """The same of all lines together."""
    kills: float = math.inf
    """The same of the program."""


worlds = st.builds(
    World,
    seed=st.integers(0, 2**32),
    lines=st.integers(1, 3),
    pauses=st.fixed_dictionaries(
        {
            "ticker": st.sampled_from([10.0, 25.0, 60.0]),
            "deal": st.sampled_from([60.0, 300.0, 1200.0]),
            "depth": st.sampled_from([20.0, 60.0, 200.0]),
        }
    ),
    breaks=st.sampled_from([20.0, 60.0, 300.0, 3600.0]),
    cuts=st.sampled_from([300.0, 3600.0, math.inf]),
    kills=st.sampled_from([1800.0, math.inf]),
)


@attrs.define(eq=False)
class Day:
    """A day as it goes by; seconds are Trio's, and the exchange's clock goes with them."""

    world: World
    clock: MockClock
    chance: random.Random
    now: float = 0.0
    # When each channel has its next row, and each line its next loss, or connection if it is lost.
    _due: dict[Channel, float] = attrs.field(factory=dict)
    _turns: dict[str, float] = attrs.field(factory=dict)
    _version: int = 0

    def run(self, journal: Journal, until: float) -> None:
        """Let a program record until it is killed."""
        queue = journal.queue("btc")
        ledger = Ledger(BTC, queue, journal.queue("gaps"))
        ledger.program_started(Cause.PROGRAM_STOPPED, "killed")
        chosen = SymbolSettings(symbol=BTC, table="btc", max_errors=10**9, linger=1.0)
        collector = Collector(chosen, queue, ledger, as_async(MemoryStore()))
        feeds = Lines(collector, self.world.lines, 15.0).feeds
        cut = self.now + self.pause(self.world.cuts)
        self._turns = {feed.name: self.now + 1 for feed in feeds}
        self._due = {channel: self._next(channel) for channel in CHANNELS}
        watched = self.now
        while self.now < until:
            at = min(*self._due.values(), *self._turns.values(), cut, watched + WATCH_INTERVAL)
            self.clock.jump(at - self.now)
            self.now = at
            if at == cut:
                cut = at + self.pause(self.world.cuts)
                for feed in feeds:
                    self._lose(feed)
            for feed in feeds:
                if self._turns[feed.name] <= at:
                    self._turn(feed)
            if at >= watched + WATCH_INTERVAL:
                watched = at
                for feed in feeds:
                    self._watch(feed)
            for channel in CHANNELS:
                if self._due[channel] <= at:
                    self._due[channel] = self._next(channel)
                    self._bring(channel, feeds)

    def pause(self, mean: float) -> float:
        """Return some seconds."""
        return math.inf if math.isinf(mean) else self.chance.expovariate(1 / mean)

    def _next(self, channel: Channel) -> float:
        lull = 10 if self.chance.random() < 0.01 else 1
        return self.now + 0.01 + lull * self.pause(self.world.pauses[channel])

    def _bring(self, channel: Channel, feeds: Sequence[LineFeed]) -> None:
        ts = START + round(self.now * SECOND)
        self._version += 1
        row = Row(ts, ALL[channel].mt, f"{self._version}|1|1")
        for feed in feeds:
            if feed.is_subscribed:
                feed.liveness[channel].note_frame(self.now)
                feed.data(Data(BTC, channel, [row], version=self._version))

    def _turn(self, feed: LineFeed) -> None:
        if feed.is_subscribed:
            self._lose(feed)
            return
        for channel in CHANNELS:
            feed.liveness[channel].connected(self.now)
            feed.subscribed(channel, START + round(self.now * SECOND), Heard())
        self._turns[feed.name] = self.now + self.pause(self.world.breaks)

    def _lose(self, feed: LineFeed) -> None:
        if feed.is_subscribed:
            feed.connection_lost(ExchangeError("lost"))
            self._turns[feed.name] = self.now + 1 + self.pause(5.0)

    def _watch(self, feed: LineFeed) -> None:
        if not feed.is_subscribed:
            return
        for channel, liveness in feed.liveness.items():
            if liveness.give_up(self.now):
                self._lose(feed)
                return
            if liveness.subscribe_again(self.now):
                feed.silent(channel, liveness.silence(self.now))


@contextmanager
def recorded(world: World, directory: Path) -> Iterator[tuple[list[Row], list[Gap]]]:
    """Record a day; give the rows in the order of insertion, and the ledger."""
    clock = MockClock()
    day = Day(world, clock, random.Random(world.seed))
    found: list[tuple[list[Row], list[Gap]]] = []

    async def main() -> None:
        end = world.hours * 3600
        while day.now < end:
            with open_journal(directory / "journal.sqlite") as journal:
                day.run(journal, min(end, day.now + day.pause(world.kills)))
                journal.flush()
                rows = [Row(*row) for row in journal.queue("btc").head(10**9)]  # type: ignore[arg-type]
                gaps = [Gap(*row) for row in journal.queue("gaps").head(10**9)]  # type: ignore[arg-type]
                found[:] = [(rows, gaps)]
            day.clock.jump(3.0)
            day.now += 3.0

    trio.run(main, clock=clock)
    yield found[0]


def judged(rows: Sequence[Row], gaps: Sequence[Gap]) -> Coverage:
    """Return what `verify` says."""
    times: dict[Channel, list[int]] = {channel: [] for channel in CHANNELS}
    for row in rows:
        times[BY_TYPE[row.mt]].append(row.ts)
    pauses: dict[Channel, list[Span]] = {
        channel: [(a, b) for a, b in pairwise(those) if b - a > PAUSE[channel]]
        for channel, those in times.items()
    }
    spans = {name: (min(those), max(those)) if those else None for name, those in times.items()}
    ledger = []
    for gap in sorted(gaps, key=lambda gap: (gap.start, gap.end)):
        filled = Filled.of(gap.detail)
        since = filled.since(gap.start) if filled else None
        ledger.append(LedgerGap(gap.channel, gap.start, gap.end, gap.cause, since))
    found = coverage(spans, {name: {} for name in CHANNELS}, pauses, ledger)
    assert found is not None
    return found


@settings(max_examples=40, deadline=None)
@given(world=worlds)
def test_what_is_not_written_down_is_no_fault(
    tmp_path_factory: pytest.TempPathFactory, world: World
) -> None:
    """However rare rows are, and however lines, connections and programs come and go."""
    with recorded(world, tmp_path_factory.mktemp("day")) as (rows, gaps):
        assert judged(rows, gaps).unaccounted == []


def test_what_only_the_rows_show_is_written_down(tmp_path: Path) -> None:
    """Lines that break so often that none is called silent: the channel is, by its next row.

    `verify` would say the same of it, were it not written down.
    """
    usual = {"ticker": 2.0, "deal": 20.0, "depth": 2.0}
    world = World(seed=13, lines=3, hours=0.1, pauses=usual, breaks=25.0)
    with recorded(world, tmp_path) as (rows, gaps):
        (written,) = [gap for gap in gaps if gap.detail.endswith(" longer than is usual")]
        assert (written.channel, written.cause) == ("ticker", "channel silent")
        kept = [gap for gap in gaps if gap is not written]
        silence = Silence(("ticker",), written.start, written.end)
        assert judged(rows, kept).unaccounted == [silence]
