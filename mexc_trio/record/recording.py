"""The parts of a recorder that is running, and what comes and goes among them."""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeAlias

import attrs

from mexc_trio.clickhouse.async_store import AsyncStore
from mexc_trio.clickhouse.tables import GAPS, TableEngine
from mexc_trio.errors import StoreError, StoreUnavailable
from mexc_trio.exchange.counters import LineCounters
from mexc_trio.exchange.rate_limiter import RateLimiter
from mexc_trio.exchange.route import connect
from mexc_trio.exchange.session import Endpoint
from mexc_trio.exchange.subscribing import SUBSCRIBE_PAUSE, DealMode
from mexc_trio.exchange.websocket import dial
from mexc_trio.journal import Journal, Queue
from mexc_trio.locks import TableLocks
from mexc_trio.record.admission import with_room
from mexc_trio.record.backfill import Backfill
from mexc_trio.record.collector import Collector
from mexc_trio.record.gaps import Ledger
from mexc_trio.record.known_contracts import KnownContracts
from mexc_trio.record.lines import Lines
from mexc_trio.record.stats import Counts, SymbolStats
from mexc_trio.record.wide import as_before, table_of
from mexc_trio.settings import Settings, SymbolSettings
from mexc_trio.settings.routes import Route
from mexc_trio.symbols import check_tables


@attrs.define(eq=False)
class Recording:
    """The parts of a recorder that is running."""

    settings: Settings
    journal: Journal
    store: AsyncStore
    leftovers: list[Queue]
    """Queues with rows of earlier runs whose tables are not recorded in this one."""
    locks: TableLocks
    gaps: Queue = attrs.field(init=False)
    """The ledger's."""
    collectors: list[Collector] = attrs.field(factory=list, init=False)
    backfill: Backfill = attrs.field(init=False)
    known_contracts: KnownContracts = attrs.field(init=False)
    rate_limiter: RateLimiter = attrs.field(factory=lambda: RateLimiter(SUBSCRIBE_PAUSE))
    line_counters: dict[tuple[str, str], LineCounters] = attrs.field(factory=dict)
    """What is counted of the connections, by line and route."""
    lines: dict[Collector, Lines] = attrs.field(factory=dict, init=False)
    """Of the symbols that have begun."""
    deals: DealMode = attrs.field(init=False)
    began: float = attrs.field(factory=time.monotonic)
    end: str = ""
    """How it ended, in a few words; empty while it goes on."""
    restore_terminal: Callable[[], None] = lambda: None
    """Ends what the terminal shows, for an end that comes at once; may be called twice."""

    def __attrs_post_init__(self) -> None:
        self.gaps = self.journal.queue(GAPS.name)
        self.deals = DealMode(self.settings.deals == "merged")
        self.backfill = Backfill(self.settings.rest_url)
        self.known_contracts = KnownContracts(self.settings.rest_url, self.settings.route[0])
        self._begin_counters(self.settings.route)

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.began

    @property
    def has_failed(self) -> bool:
        """Whether no symbol is recorded any more, and not only because all were delisted."""
        stopped = all(collector.stopped for collector in self.collectors)
        return stopped and any(collector.failure for collector in self.collectors)

    @property
    def backlog(self) -> int:
        """Rows that wait in the journal, of all tables."""
        return sum(queue.backlog for queue in self.journal.queues())

    def make_collector(self, settings: SymbolSettings) -> Collector:
        """Make the collector of a symbol whose table is held."""
        queue = self.journal.queue(settings.table)
        parts = settings.symbol, queue, self.gaps, settings.channels
        ledger = Ledger(*parts, fills=self.settings.backfills)
        collector = Collector(
            settings, queue, ledger, self.store, self._exists, self.backfill.request
        )
        self.collectors.append(collector)
        self._begin_counters(settings.route)
        return collector

    async def _exists(self, symbol: str) -> bool | None:
        """See `Exists`. For a symbol that was found, not named, somebody follows the list."""
        if symbol not in self.settings.symbols:
            return None
        return await self.known_contracts.has(symbol)

    async def add(self, symbol: str) -> Collector:
        """Make ready a symbol that comes, or comes back once it has ended, while recording.

        Raises UsageError if its table has a name that another symbol's table or view has,
        StoreLocked if another recorder has the table, StoreRejected if a table of that name is not
        ours, or cannot be made.
        """
        for before in self.collectors:
            if before.symbol == symbol:
                await before.ended.wait()  # it writes to the same table
                settings = self.settings.for_symbol(symbol)  # they may have changed meanwhile
                settings = attrs.evolve(settings, table=before.settings.table)
                (settings,) = await self.with_room([settings])
                collector = before.successor(settings)
                self.collectors[self.collectors.index(before)] = collector
                self.lines.pop(before, None)
                return collector
        settings = self.settings.for_symbol(symbol)
        tables = {collector.symbol: collector.settings.table for collector in self.collectors}
        check_tables({**tables, symbol: settings.table})
        self.locks.hold([settings.table])
        with suppress(StoreUnavailable):  # its writer waits for the store
            await self.store.prepare([table_of(settings)])
            (settings,) = await self.with_room([settings])
        return self.make_collector(settings)

    def has_leftover(self, table: str) -> bool:
        """Whether a table has rows of an earlier run, which are written before others may come."""
        return any(queue.name == table for queue in self.leftovers)

    async def with_room(self, chosen: Sequence[SymbolSettings]) -> list[SymbolSettings]:
        """Return settings with those of the channels that the tables have room for."""
        try:
            return with_room(chosen, await self.store.columns([one.table for one in chosen]))
        except StoreError:  # whoever writes to them meets that, too
            return [as_before(one, self.journal.queue(one.table)) for one in chosen]

    def withdraw(self, collector: Collector) -> None:
        """Take back a symbol that was added and has not begun."""
        self.collectors.remove(collector)
        self.locks.release([collector.settings.table])

    def endpoints(self, line: int, collector: Collector, *, throttled: bool) -> list[Endpoint]:
        """Return where a symbol's line reaches the exchange, in the order in which it tries that.

        Each line, of which 0 is the first, begins with a route of its own, as far as there are any.
        For `throttled` see `dial`.
        """
        routes = collector.settings.route
        first = line % len(routes)
        endpoints = []
        for route in (*routes[first:], *routes[:first]):
            dialling = partial(
                dial,
                throttled=throttled,
                connect=partial(connect, route),
                paused=self.journal.outbox.locked,
            )
            url = route.via or self.settings.url
            endpoints.append(Endpoint(url, dialling, self._counters(line, route)))
        return endpoints

    def _begin_counters(self, routes: Sequence[Route]) -> None:
        """Have counters before there is a connection, so that the first loss is seen as one."""
        for line in range(self.settings.lines):
            for route in routes:
                self._counters(line, route)

    def _counters(self, line: int, route: Route) -> LineCounters:
        key = str(line + 1), str(route)
        return self.line_counters.setdefault(key, LineCounters(*key))

    def stats_of(self, collector: Collector, before: Counts | None = None) -> SymbolStats:
        """Return what the statistics say of a symbol, since `before` or in all."""
        oldest = collector.queue.oldest_waiting()
        return SymbolStats(
            collector.symbol,
            collector.settings.table,
            collector.counts.since(before) if before else collector.counts,
            collector.queue.backlog,
            max(0.0, time.time() - oldest / 1000) if oldest else 0.0,
            collector.ledger.written.total(),
            (self.connected_lines(collector), self.settings.lines),
            collector.writer.engine if collector.writer else TableEngine.STRIPELOG,
        )

    def connected_lines(self, collector: Collector) -> int:
        """Return how many of a symbol's lines are connected."""
        lines = self.lines.get(collector)
        return 0 if lines is None or collector.stopped else lines.connected


Companion: TypeAlias = Callable[[Recording], Awaitable[None]]
"""Something that looks at a recorder, and that recording does without if it fails."""
