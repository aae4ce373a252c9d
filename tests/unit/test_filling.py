"""Asking for the deals of gaps: whose first, how often, and what anything but an answer costs."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

import mexc_trio.exchange.contracts  # noqa: F401 - takes a while, in which time would jump
from mexc_trio.exchange.decoding import decode
from mexc_trio.exchange.messages import Data
from mexc_trio.journal import Journal, open_journal
from mexc_trio.record import backfill
from mexc_trio.record.backfill import ATTEMPTS, LONGEST, Backfill
from mexc_trio.record.collector import Collector
from mexc_trio.record.gaps import Ledger
from mexc_trio.rows import Cause, Gap
from mexc_trio.settings import SymbolSettings
from mexc_trio.settings.routes import DIRECT, Route
from tests.support.inmemory import MemoryStore, as_async
from tools.exchange import Exchange, Rest, open_exchange
from tools.exchange.tape import ids_of
from tools.market import truth

BTC = "BTC_USDT"
SOON = 60.0
"""Seconds, more than are needed: on a busy machine time jumps while a thread starts."""


@pytest.fixture
def clock() -> MockClock:
    """Let time jump, but not while an answer is on its way through a socket."""
    return MockClock(autojump_threshold=0.01)


@attrs.define(eq=False)
class Rig:
    """Collectors beside a market; who listens hears all of it."""

    exchange: Exchange
    rest: Rest
    journal: Journal
    backfill: Backfill
    width: int = 3
    """Columns of the tables."""

    def collector(self, symbol: str = BTC, *routes: Route) -> Collector:
        """Make a symbol's collector."""
        name = symbol.lower()
        queue = self.journal.queue(name)
        queue.width = self.width
        settings = SymbolSettings(
            symbol=symbol, table=name, max_errors=100, linger=1.0, route=routes or (DIRECT,)
        )
        ledger = Ledger(symbol, queue, self.journal.queue("gaps"), fills=True)
        return Collector(
            settings, queue, ledger, as_async(MemoryStore()), request_deals=self.backfill.request
        )

    def deal(self, symbol: str = BTC, frames: int = 1) -> list[Data]:
        """Let a contract be dealt in."""
        made = []
        for _ in range(frames):
            frame = self.exchange.market.frame(symbol, "deal", oddity="")
            self.exchange.tape.add(symbol, truth(frame) or [], ids_of(frame))
            message = decode(frame.encode(), 0)
            assert isinstance(message, Data)
            made.append(message)
        return made

    def hear(self, collector: Collector, frames: int = 1) -> None:
        """Let a contract be dealt in, and its recorder hear it."""
        for message in self.deal(collector.symbol, frames):
            collector.data(message)

    def cut(self, collector: Collector, frames: int = 5) -> int:
        """Let it be dealt in unheard, and heard again; return how many deals were missed."""
        self.hear(collector, 3)
        collector.ledger.lost(Cause.CONNECTION_LOST, "cut", "deal")
        missed = sum(len(message.rows) for message in self.deal(collector.symbol, frames))
        self.hear(collector)
        return missed

    def gaps(self) -> list[Gap]:
        """List the ledger."""
        return [Gap(*row) for row in self.journal.queue("gaps").head(1000)]  # type: ignore[arg-type]

    async def written(self, number: int = 1, seconds: float = 1000) -> list[Gap]:
        """Wait until so many gaps are written; return them."""
        with trio.fail_after(seconds):
            while len(self.gaps()) < number:
                await trio.sleep(1)
        return self.gaps()

    def asked(self) -> list[str]:
        """List the symbols that were asked for."""
        return [target.rpartition("/")[2] for _, target in self.rest.requests]


@asynccontextmanager
async def rigged(directory: Path, symbols: Sequence[str] = (BTC, "ETH_USDT")) -> AsyncIterator[Rig]:
    """Set it all up."""
    with open_journal(directory / "journal.sqlite") as journal:
        async with (
            open_exchange(contracts=symbols, rest_port=0) as exchange,
            trio.open_nursery() as nursery,
        ):
            assert exchange.rest is not None
            filling = Backfill(exchange.rest.url)
            nursery.start_soon(filling.run)
            yield Rig(exchange, exchange.rest, journal, filling)
            nursery.cancel_scope.cancel()


@pytest.fixture
async def rig(clock: MockClock, tmp_path: Path) -> AsyncIterator[Rig]:
    """Return one."""
    async with rigged(tmp_path) as made:
        yield made


@pytest.mark.parametrize("ids", [True, False])
async def test_a_gap_is_filled_within_seconds(clock: MockClock, rig: Rig, *, ids: bool) -> None:
    """Everything that was missed is in the journal once, and the ledger says so."""
    rig.rest.ids = ids
    collector = rig.collector()
    missed = rig.cut(collector)
    (gap,) = await rig.written(seconds=SOON)
    assert gap.detail.startswith(f"cut; filled whole: {missed} deals from ")
    rows = collector.queue.head(1000)
    assert sorted(rows) == sorted(row for row, _ in rig.exchange.tape.deals(BTC, 1000))
    assert collector.received["deal"] == len(rows)
    assert rig.asked() == [BTC]


@pytest.mark.parametrize("ids", [True, False])
async def test_a_wide_table_has_the_numbers_of_deals_that_were_fetched(
    clock: MockClock, rig: Rig, *, ids: bool
) -> None:
    """As far as the answer has them; when the socket brought them nobody knows: it did not."""
    rig.rest.ids, rig.width = ids, 5
    collector = rig.collector()
    missed = rig.cut(collector)
    await rig.written()
    made = {(*row, 0, int(id_)) for row, id_ in rig.exchange.tape.deals(BTC, 1000)}
    rows = collector.queue.head(1000)[-missed:]
    assert set(rows) <= (made if ids else {(*row[:4], 0) for row in made})
    assert len({row[4] for row in rows}) == (missed if ids else 1)


@pytest.mark.parametrize(
    ("trouble", "why", "requests"),
    [
        ("throttled", "Requests are too frequent", ATTEMPTS),
        ("html", "the exchange could not be asked within 30 s", 1),
        ("error", "answers HTTP 500", ATTEMPTS),
        ("broken", "answers what is no JSON of its kind", ATTEMPTS),
        ("hangup", "peer closed connection", ATTEMPTS),
        ("endless", "an answer of more than 1 MiB", ATTEMPTS),
        ("long", "an answer of more than 1 MiB", ATTEMPTS),
        ("empty", "none of the deals that have come since", ATTEMPTS),
        ("foreign", "none of the deals that have come since", ATTEMPTS),
        ("slow", "did not answer within 10 s", ATTEMPTS),
        ("unknown", "contract not exists (code 1001)", 1),
    ],
)
async def test_what_is_no_answer_leaves_the_gap_as_it_is(
    clock: MockClock,
    rig: Rig,
    caplog: pytest.LogCaptureFixture,
    trouble: str,
    why: str,
    requests: int,
) -> None:
    """The row is written within minutes, one line says why, and nothing is stored."""
    rig.deal("ETH_USDT", 60)
    collector = rig.collector()
    rows = 0
    if trouble == "slow":
        rig.rest.delay = 3600
    elif trouble == "unknown":
        rig.exchange.delist(BTC)
    else:
        rig.rest.trouble = trouble  # type: ignore[assignment]
    if trouble == "html":
        rig.backfill.longest = 30.0  # less than a firewall is left alone
    rig.cut(collector)
    rows = collector.queue.end
    (gap,) = await rig.written(seconds=LONGEST + 20)
    assert gap.detail == "cut"
    assert collector.queue.end == rows
    assert len(rig.rest.requests) <= requests
    (line,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert line.getMessage().startswith("BTC_USDT: the gap in deals from ")
    assert why in line.getMessage()
    if trouble == "html":
        return  # it is left alone still
    # The next gap finds everything in order again.
    rig.rest.trouble, rig.rest.delay = "none", 0.0
    rig.exchange.list_contract(BTC)
    missed = rig.cut(collector)
    gaps = await rig.written(2)
    assert f"filled whole: {missed} deals" in gaps[1].detail


async def test_trouble_that_passes_is_waited_for(clock: MockClock, rig: Rig) -> None:
    """A throttle, and a list that lags behind the socket."""
    collector = rig.collector()
    rig.rest.trouble = "throttled"
    missed = rig.cut(collector)
    await trio.sleep(3)
    assert not rig.gaps()
    rig.rest.trouble = "none"
    (gap,) = await rig.written(seconds=30)
    assert f"filled whole: {missed} deals" in gap.detail
    rig.rest.trouble = "empty"
    missed = rig.cut(collector)
    await trio.sleep(2)
    rig.rest.trouble = "none"
    gaps = await rig.written(2, seconds=30)
    assert f"filled whole: {missed} deals" in gaps[1].detail


async def test_several_gaps_of_a_symbol_need_one_answer(clock: MockClock, rig: Rig) -> None:
    """As after a connection that breaks again and again."""
    collector = rig.collector()
    rig.rest.delay = 2
    missed = [rig.cut(collector, frames) for frames in (4, 1, 7)]
    gaps = await rig.written(3)
    assert [gap.detail.split()[3] for gap in gaps] == [str(one) for one in missed]
    assert len(rig.rest.requests) == 1


async def test_the_busiest_come_first_and_no_more_than_four_a_second(
    clock: MockClock, tmp_path: Path
) -> None:
    """Of a quiet contract nothing is lost meanwhile."""
    symbols = [f"S{number}_USDT" for number in range(7)]
    async with rigged(tmp_path, symbols) as rig:
        now = end = 1_789_498_000_000
        rig.exchange.market.clock = lambda: now
        rig.rest.most = 4
        collectors = [rig.collector(symbol) for symbol in symbols]
        for number, collector in enumerate(collectors):
            for ago in range(10, 0, -1):
                now = end - 1000 * ago * 4**number
                rig.hear(collector)
        now = end
        # All at once, as after an outage.
        for collector in reversed(collectors):
            rig.cut(collector)
        gaps = await rig.written(len(symbols))
        assert all("filled whole" in gap.detail for gap in gaps)
        assert rig.asked() == symbols
        times = [at for at, _ in rig.rest.requests]
        assert all(later - earlier > 0.249 for earlier, later in pairwise(times))


async def test_a_gap_that_no_answer_can_reach_is_not_asked_for(
    clock: MockClock, rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """A hundred deals have come since; nobody is troubled for nothing."""
    caplog.set_level(logging.INFO)
    rig.rest.trouble = "throttled"
    collector = rig.collector()
    rig.cut(collector)
    await trio.sleep(0.5)
    rig.hear(collector, 101)
    (gap,) = await rig.written(seconds=SOON)
    assert gap.detail == "cut"
    assert len(rig.rest.requests) == 1
    assert "not filled: 100 deals have come since" in caplog.text


async def test_a_symbol_is_asked_for_over_its_own_routes(clock: MockClock, rig: Rig) -> None:
    """When one does not work the next is taken, and others do not wait for it."""
    nobody = Route("http", "127.0.0.1", 9)
    broken, sound = (
        rig.collector(BTC, nobody, Route("from", "127.0.0.1")),
        rig.collector("ETH_USDT"),
    )
    rig.cut(broken)
    rig.cut(sound)
    gaps = await rig.written(2, seconds=SOON)
    assert all("filled whole" in gap.detail for gap in gaps)


async def test_a_stopped_symbol_is_filled_no_more(clock: MockClock, rig: Rig) -> None:
    """Its ledger has ended with what is known."""
    rig.rest.delay = 3
    collector = rig.collector()
    rig.cut(collector)
    await trio.sleep(1)
    collector.let_go("nobody wants it")
    rows = collector.queue.end
    await trio.sleep(backfill.TIMEOUT)
    assert collector.queue.end == rows
    told = sorted(gap.detail for gap in rig.gaps() if gap.channel == "deal")
    assert told == ["cut", "nobody wants it"]
