"""The exchange and the store without sockets and threads, so that Trio's clock may jump."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import cast

import attrs
import trio
import trio.testing

from mexc_trio.clickhouse.async_store import AsyncStore
from mexc_trio.clickhouse.repair import Soundness
from mexc_trio.clickhouse.scheduler import Backlogged
from mexc_trio.clickhouse.tables import Numbering, Table, TableEngine
from mexc_trio.errors import ExchangeError, StoreError, TableMissing, UnknownContract
from mexc_trio.exchange.heard import Heard
from mexc_trio.exchange.liveness import Liveness
from mexc_trio.exchange.messages import Data
from mexc_trio.exchange.session import Dial
from mexc_trio.exchange.websocket import CONNECT_TIMEOUT, Socket, speak
from mexc_trio.rows import CHANNELS, Channel, RowTuple
from tools.exchange import Exchange

URL = "ws://exchange/edge"


@attrs.define(eq=False)
class Line:
    """The way to an exchange in the same process."""

    nursery: trio.Nursery
    exchange: Exchange
    dialled: list[float] = attrs.field(factory=list)
    """When it was dialled, on Trio's clock."""
    refusals: int = 0
    """How many of the next calls meet nobody."""

    @asynccontextmanager
    async def dial(self, url: str) -> AsyncIterator[Socket]:
        """Do what `mexc_trio.exchange.websocket.dial` does, over memory."""
        now = trio.current_time()
        self.dialled.append(now)
        if self.refusals:
            self.refusals -= 1
            raise ExchangeError(f"cannot connect to {url}: Connection refused")
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self.exchange.serve_stream, theirs)
        async with speak(ours, url, now + CONNECT_TIMEOUT) as socket:
            yield socket


@attrs.define(eq=False)
class Listener:
    """A feed that keeps what it hears; also a subscriber of a connection."""

    symbol: str = "BTC_USDT"
    most_errors: int = 1000
    stopped: bool = False
    messages: list[Data] = attrs.field(factory=list)
    confirmed: list[Channel] = attrs.field(factory=list)
    skips: int = 0
    unread: int = 0
    silences: list[tuple[Channel, float]] = attrs.field(factory=list)
    refusals: list[str] = attrs.field(factory=list)
    errors: list[ExchangeError] = attrs.field(factory=list)
    liveness: Mapping[Channel, Liveness] = attrs.field(
        factory=lambda: {channel: Liveness(channel) for channel in CHANNELS}
    )
    changed: trio.Event = attrs.field(factory=trio.Event)

    @property
    def rows(self) -> list[tuple[int, str, str]]:
        """All rows it was given, in their order."""
        return [(*row,) for message in self.messages for row in message.rows]

    async def until_rows(self, n: int) -> None:
        """Wait until it was given that many rows."""
        with trio.fail_after(600):
            while len(self.rows) < n:
                await self.changed.wait()

    def _notify(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def data(self, message: Data) -> None:
        """Keep the rows of a frame."""
        self.messages.append(message)
        self._notify()

    def subscribed(self, channel: Channel, since: int, heard: Heard) -> None:
        """Keep what was confirmed."""
        self.confirmed.append(channel)

    def skipped(self) -> None:
        """Count a frame."""
        self.skips += 1

    def unreadable(self) -> None:
        """Count a frame that may have been for it."""
        self.unread += 1

    def silent(self, channel: Channel, seconds: float) -> None:
        """Keep what was said of a silence."""
        self.silences.append((channel, seconds))

    def refused(self, error: UnknownContract) -> float:
        """Keep it; ask again after half a minute."""
        self.refusals.append(self.symbol)
        return 30.0

    def replacement(self) -> None:
        """Be of one connection at a time."""

    def has_taken_over(self) -> bool:
        """Never replace anybody."""
        return False

    def retire(self, error: ExchangeError) -> None:
        """Never be replaced."""

    def connection_lost(self, error: ExchangeError) -> None:
        """Keep the error; stop after too many."""
        self.errors.append(error)
        self.stopped = self.stopped or len(self.errors) >= self.most_errors


def as_async(store: object) -> AsyncStore:
    """Return what stands for an `AsyncStore` as one."""
    return cast("AsyncStore", store)


@attrs.define(eq=False)
class MemoryStore:
    """A store that keeps rows in lists, and fails when it is told to."""

    tables: dict[str, list[RowTuple]] = attrs.field(factory=dict)
    inserts: list[tuple[float, str, int]] = attrs.field(factory=list)
    """When rows were inserted on Trio's clock, in which table, how many."""
    failure: Exception | None = None
    """What every INSERT raises instead."""
    away_since: float | None = None
    name: str = "memory"
    writers: int = 0

    async def scheduled(self, wait: float, queue: Backlogged) -> None:
        """Let each table go when it is due."""
        await trio.sleep(wait)

    async def append(
        self, table: Table, rows: Sequence[RowTuple], numbering: Numbering | None = None
    ) -> None:
        """Insert rows."""
        assert numbering is None
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        self.inserts.append((trio.current_time(), table.name, len(rows)))
        self.tables[table.name] += rows

    async def count(self, table: Table) -> int:
        """Count a table's rows."""
        await trio.lowlevel.checkpoint()
        if table.name not in self.tables:
            raise TableMissing(table.name)
        return len(self.tables[table.name])

    def say_refused(self, table: Table, error: StoreError) -> None:
        """The writer keeps it."""

    async def prepare(self, tables: Sequence[Table]) -> list[str]:
        """Create what is missing."""
        await trio.lowlevel.checkpoint()
        new = [table.name for table in tables if table.name not in self.tables]
        self.tables |= {name: [] for name in new}
        return new

    async def engine(self, table: Table) -> TableEngine:
        """Keep rows in the order of insertion."""
        return TableEngine.STRIPELOG

    async def until_conclusive(self, table: Table) -> None:
        """No INSERT goes on without us."""
        await trio.lowlevel.checkpoint()

    def one_host(self) -> AbstractContextManager[None]:
        """There is one."""
        return nullcontext()

    async def fingerprint(self, table: Table) -> str:
        """Say what the table looks like from outside."""
        await trio.lowlevel.checkpoint()
        return f"{len(self.tables[table.name])}"

    async def server_start_id(self) -> str:
        """Name the store's one life."""
        await trio.lowlevel.checkpoint()
        return "memory"

    async def make_sound(self, table: Table) -> Soundness:
        """Memory does not rot."""
        await trio.lowlevel.checkpoint()
        return Soundness(len(self.tables[table.name]), "", "")

    async def present_rows(self, table: Table, rows: Sequence[RowTuple]) -> set[RowTuple]:
        """Return which of some rows a table has."""
        await trio.lowlevel.checkpoint()
        return set(rows).intersection(self.tables[table.name])

    async def put_aside(self, table: Table) -> str:
        """Begin a table anew."""
        await trio.lowlevel.checkpoint()
        self.tables[table.name] = []
        return "aside"

    async def rows_at(self, table: Table, first: int, n: int) -> list[RowTuple]:
        """Return rows by their number."""
        await trio.lowlevel.checkpoint()
        return self.tables[table.name][first : first + n]

    async def newest(self, table: Table) -> int | None:
        """Return the newest time in a table."""
        await trio.lowlevel.checkpoint()
        return max((cast("int", row[0]) for row in self.tables[table.name]), default=None)

    async def available(self) -> None:
        """It always is."""
        await trio.lowlevel.checkpoint()


def dial_of(line: Line) -> Dial:
    """Return the line's dial as sessions take it (and see that it is one)."""
    return line.dial


def no_flush() -> None:
    """Write nothing at the end of a read: nobody has a journal."""
