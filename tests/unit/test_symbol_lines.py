"""Two lines of a symbol, in virtual time: one stream is stored, and a gap is what both lacked."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from mexc_trio.channels import ALL
from mexc_trio.errors import ExchangeError
from mexc_trio.exchange import connection as connection_module
from mexc_trio.exchange.connection import WARM_UP, Connection
from mexc_trio.exchange.heard import Heard
from mexc_trio.exchange.messages import Data
from mexc_trio.exchange.session import Endpoint, SessionOptions
from mexc_trio.journal import Journal, open_journal
from mexc_trio.record.causes import SILENT_ELSEWHERE
from mexc_trio.record.collector import Collector
from mexc_trio.record.gaps import Ledger
from mexc_trio.record.groups import replacements_of, until_gone
from mexc_trio.record.lines import LineFeed, Lines
from mexc_trio.rows import CHANNELS, Channel, Gap, Row
from mexc_trio.settings import SymbolSettings
from tests.support.inmemory import URL, Line, MemoryStore, as_async, dial_of
from tools.exchange import Exchange, open_exchange
from tools.market import wall_clock_ms

BTC = "BTC_USDT"
GO_BACK = 50.0


@attrs.define(eq=False)
class Rig:
    """A symbol with its lines, and an exchange whose deals all of them get."""

    exchange: Exchange
    lines: Lines
    journal: Journal
    store: MemoryStore
    connections: list[Connection]
    exchanges: trio.Nursery
    """Where the exchange's ends of connections run."""
    dead: Line
    """The own way of the last line, where it has one that nobody answers on."""

    @property
    def collector(self) -> Collector:
        """The symbol."""
        return self.lines.collector

    def gaps(self) -> list[Gap]:
        """List the gaps in the ledger."""
        return gaps_in(self.journal)

    async def gaps_of_all_channels(self) -> list[Gap]:
        """Wait until each channel has a gap that has ended: a ticker may take longer than ten."""
        with trio.fail_after(1000):
            while {gap.channel for gap in self.gaps()} != set(CHANNELS):
                await trio.sleep(1)
        return self.gaps()

    def deals(self) -> set[tuple[int, str, str]]:
        """Return the deals that were sent."""
        return {row for row in self.exchange.rows(BTC) if row[1] == "d"}

    async def has_each_deal_once(self) -> None:
        """Let the exchange be silent, and what it sent be heard; then compare."""
        self.exchange.silence()
        await trio.sleep(1)
        deals = [tuple(row) for row in self.store.tables["btc"] if row[1] == "d"]
        assert len(deals) == len(set(deals))
        assert set(deals) == self.deals()

    async def connected(self, number: int) -> None:
        """Wait until so many lines are subscribed to everything."""
        await self.exchange.until(
            lambda: (
                sum(len(one.subscriptions.get(BTC, ())) == 3 for one in self.exchange.opened)
                == number
            )
        )


def gaps_in(journal: Journal) -> list[Gap]:
    """List the gaps in the ledger."""
    return [Gap(*row) for row in journal.queue("gaps").head(1000)]  # type: ignore[arg-type]


def collector_of(
    journal: Journal, store: MemoryStore, max_errors: int = 100, *, fills: bool = False
) -> Collector:
    """Make the symbol's collector."""
    queue = journal.queue("btc")
    ledger = Ledger(BTC, queue, journal.queue("gaps"), fills=fills)
    settings = SymbolSettings(symbol=BTC, table="btc", max_errors=max_errors, linger=0.1)
    return Collector(settings, queue, ledger, as_async(store))


@asynccontextmanager
async def rigged(
    directory: Path,
    number: int = 2,
    max_errors: int = 100,
    rate: float = 5,
    *,
    last_is_dead: bool = False,
) -> AsyncIterator[Rig]:
    """Set it all up; leaving cancels what is running, and waits for it."""
    store = MemoryStore()
    with open_journal(directory / "journal.sqlite") as journal:
        began, start = wall_clock_ms(), trio.current_time()

        def clock() -> int:
            return began + int((trio.current_time() - start) * 1000)

        async with (
            open_exchange(rate=rate, shared=True, clock=clock) as exchange,
            trio.open_nursery() as services,
        ):
            services.start_soon(journal.keep_flushing)
            async with trio.open_nursery() as exchanges, trio.open_nursery() as nursery:
                lines = Lines(collector_of(journal, store, max_errors), number, 15)
                nursery.start_soon(lines.collector.run)
                connections = []
                dead = Line(exchanges, exchange, refusals=10**6)
                for feed in [*lines.feeds]:
                    endpoints = [Endpoint(URL, dial_of(Line(exchanges, exchange)))]
                    if last_is_dead and feed is lines.feeds[-1]:
                        endpoints.insert(0, Endpoint(URL, dial_of(dead)))
                    connection = Connection(
                        endpoints,
                        [feed],
                        SessionOptions(15, journal.flush),
                        name=feed.name,
                        go_back=GO_BACK,
                    )
                    nursery.start_soon(connection.run)
                    connections.append(connection)
                yield Rig(exchange, lines, journal, store, connections, exchanges, dead)
                nursery.cancel_scope.cancel()
                exchanges.cancel_scope.cancel()
            services.cancel_scope.cancel()


async def test_the_loss_of_one_line_leaves_no_gap(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Every deal is stored once, the books go on, and the loss is counted and nothing else."""
    async with rigged(tmp_path) as rig:
        await rig.connected(2)
        for number in range(10):
            await trio.sleep(3)
            await rig.exchange.drop(rig.exchange.opened[number % 2])
            await rig.connected(2)
        await rig.has_each_deal_once()
        assert len(rig.deals()) > 300
        assert rig.gaps() == []
        assert (rig.collector.counts.covered, rig.collector.counts.errors) == (10, 0)
        assert rig.lines.connected == 2


async def test_the_books_of_one_line_alone_are_stored(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """As many as with one line: they are sampled for each connection.

    With fewer, a pause of one line now and then lets the other lead for a while.
    """
    async with rigged(tmp_path, rate=20) as rig:
        await rig.connected(2)
        await trio.sleep(60)
        rig.exchange.silence()
        await trio.sleep(1)
        stored = sum(row[1] == "dp" for row in rig.store.tables["btc"])
        sent = Counter(
            record.connection for record in rig.exchange.sent(BTC) if record.channel == "depth.full"
        )
        assert len(sent) == 2
        assert any(abs(stored - number) <= 3 for number in sent.values())


async def test_the_loss_of_both_lines_is_a_gap_in_every_channel(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """From the last row that either brought to the first that either brings again."""
    async with rigged(tmp_path) as rig:
        await rig.connected(2)
        await trio.sleep(5)
        await rig.exchange.drop()
        await rig.connected(2)
        gaps = await rig.gaps_of_all_channels()
        assert sorted(gap.channel for gap in gaps) == ["deal", "depth", "ticker"]
        assert {gap.cause for gap in gaps} == {"connection lost"}
        assert (rig.collector.counts.covered, rig.collector.counts.errors) == (1, 1)
        rows = [tuple(row) for row in rig.store.tables["btc"]]
        (deal,) = [gap for gap in gaps if gap.channel == "deal"]
        at = [row[0] for row in rows if row[1] == "d"]
        assert deal.start in at
        assert deal.end == at[at.index(deal.start) + 1]


async def test_what_a_line_lacked_after_the_other_was_lost_is_a_gap_with_both_ends(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """A line that is found dead late: the other one has been back for a while by then."""
    async with rigged(tmp_path) as rig:
        await rig.connected(2)
        await trio.sleep(5)
        first, second = rig.exchange.opened
        await rig.exchange.drop(second)
        first.late.clear()
        first.delay = 10_000.0  # from here on nothing comes of it, and it is not known to be dead
        await trio.sleep(5)
        await rig.exchange.until(lambda: len(rig.exchange.opened) == 2)
        await trio.sleep(1)
        assert rig.gaps() == []
        await rig.exchange.drop(first)
        gaps = {gap.channel: gap for gap in await rig.gaps_of_all_channels()}
        assert all(gap.end - gap.start > 500 for gap in gaps.values())
        assert gaps["deal"].end - gaps["deal"].start < 5000


async def test_errors_of_one_line_do_not_stop_a_symbol(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """A route that is dead from the start, or cut again and again, is no reason to stop."""
    async with rigged(tmp_path, max_errors=3) as rig:
        for _ in range(6):
            await rig.connected(2)
            await trio.sleep(1)
            await rig.exchange.drop(rig.exchange.opened[0])
        assert not rig.collector.stopped


async def test_a_silent_channel_of_one_line_is_no_gap(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The other has it."""
    async with rigged(tmp_path) as rig:
        await rig.connected(2)
        await trio.sleep(30)
        dead, _ = rig.exchange.opened
        dead.unsubscribe(BTC, "deal")
        await rig.connected(2)  # it has been subscribed again
        await trio.sleep(10)
        assert rig.gaps() == []
        deals = [tuple(row) for row in rig.store.tables["btc"] if row[1] == "d"]
        assert len(deals) == len(set(deals))


async def test_a_gap_says_if_another_line_was_there_and_silent(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Perhaps there was nothing to bring: only its next message shows that it has the channel."""
    async with rigged(tmp_path, rate=0) as rig:
        await rig.connected(2)
        for _ in range(2):
            await rig.exchange.push(BTC, "ticker")
            await trio.sleep(1)
        silent, lost = rig.lines.feeds
        silent.silent("ticker", 63.0)
        assert rig.gaps() == []
        lost.connection_lost(ExchangeError("it broke"))
        await rig.exchange.push(BTC, "ticker")
        await trio.sleep(1)
        (gap,) = rig.gaps()
        assert (gap.channel, gap.cause) == ("ticker", "connection lost")
        assert gap.detail == f"it broke{SILENT_ELSEWHERE}"


async def test_what_a_silent_line_had_kept_does_not_end_the_gap_that_begins_after_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The leader is lost, the other has been silent: its last ticker is stored, and then a gap."""
    async with rigged(tmp_path, rate=0) as rig:
        await rig.connected(2)
        rig.exchange.silence()
        leader, silent = rig.lines.feeds
        at = wall_clock_ms()

        def ticker(seconds: int) -> Data:
            row = Row(at + 1000 * seconds, "t", f"{seconds}||||")
            return Data(BTC, "ticker", [row])

        for seconds in (1, 2):
            leader.data(ticker(seconds))
            silent.data(ticker(seconds))
        silent.data(ticker(3))
        silent.silent("ticker", 63.0)
        leader.connection_lost(ExchangeError("it broke"))
        silent.data(ticker(90))
        await trio.sleep(1)
        stored = [int(row[0]) - at for row in rig.store.tables["btc"]]
        assert stored == [1000, 2000, 3000, 90000]
        spans = [(gap.start - at, gap.end - at) for gap in rig.gaps() if gap.channel == "ticker"]
        assert spans == [(3000, 90000)]


@pytest.mark.parametrize("number", [1, 2])
async def test_one_line_goes_through_no_merger(
    autojump_clock: MockClock, tmp_path: Path, number: int
) -> None:
    """What one line costs does not depend on what two need."""
    async with rigged(tmp_path, number) as rig:
        await rig.connected(number)
        assert (rig.lines.merger is None) == (number == 1)


async def test_a_planned_reconnect_of_the_only_line_leaves_no_gap(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The new connection is made before the old one is broken, and their streams are one."""
    async with rigged(tmp_path, 1) as rig:
        await rig.connected(1)
        (connection,) = rig.connections
        for number in range(1, 8):
            await trio.sleep(3)
            connection.renew(connection.endpoints, "its routes were changed")
            await rig.exchange.until(lambda n=number: rig.exchange.accepted == n + 1)  # type: ignore[misc]
            await rig.connected(2)
            await rig.connected(1)
        await rig.has_each_deal_once()
        times = [row[0] for row in rig.store.tables["btc"] if row[1] == "dp"]
        assert times == sorted(set(times))
        assert rig.gaps() == []
        assert rig.collector.counts.errors == rig.collector.counts.covered == 0
        assert rig.lines.connected == 1
        rig.exchange.resume()
        await trio.sleep(60)
        assert rig.lines.merger is None, "one line again costs what one line costs"


@pytest.mark.parametrize("number", [1, 2])
async def test_other_channels_are_recorded_on_the_connections_that_there_are(
    autojump_clock: MockClock, tmp_path: Path, number: int
) -> None:
    """What stays has no gap, what is new begins, and what comes back has one since it went."""
    async with rigged(tmp_path, number) as rig:
        await rig.connected(number)
        await trio.sleep(3)
        rig.lines.record_channels(("deal", "funding"))
        rig.lines.record_channels(("depth", "deal", "funding"))
        wanted = {"depth.full": 1, "deal": 1, "funding.rate": 1}
        await rig.exchange.until(
            lambda: all(
                one.subscriptions[BTC].keys() == wanted.keys() for one in rig.exchange.opened
            )
        )
        await trio.sleep(3)
        await rig.has_each_deal_once()
        assert rig.exchange.accepted == number
        assert [(gap.channel, gap.cause) for gap in rig.gaps()] == [("depth", "symbol stopped")]
        before = len(rig.store.tables["btc"])
        await rig.exchange.push(BTC, "funding.rate")
        await trio.sleep(1)
        assert [row[1] for row in rig.store.tables["btc"][before:]] == ["fr"]
        await rig.exchange.drop()
        await trio.sleep(60)
        rig.exchange.resume()
        await trio.sleep(20)
        assert {gap.channel for gap in rig.gaps()} == {"depth", "deal"}, "of funding nothing came"
        assert rig.collector.liveness.keys() == {"depth", "deal", "funding"}


async def test_a_channel_that_stays_silent_costs_the_others_nothing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Subscribing again does not help, so the connection is replaced, and not broken first."""
    async with rigged(tmp_path, 1) as rig:
        await rig.connected(1)
        await trio.sleep(60)
        rig.exchange.silence(channel="deal")
        await rig.exchange.until(lambda: rig.exchange.accepted == 2)
        await rig.connected(2)
        await rig.connected(1)
        rig.exchange.resume(channel="deal")
        await trio.sleep(5)
        await rig.has_each_deal_once()
        (gap,) = rig.gaps()
        assert (gap.channel, gap.cause) == ("deal", "channel silent")


async def test_a_new_connection_that_cannot_be_made_leaves_the_old_one_alone(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """It is tried again until it can, and nothing is missed meanwhile."""
    async with rigged(tmp_path, 1) as rig:
        await rig.connected(1)
        (connection,) = rig.connections
        await trio.sleep(3)
        rig.exchange.handshake = "503"
        connection.renew(connection.endpoints, "its routes were changed")
        await rig.exchange.until(lambda: rig.exchange.accepted == 4)
        rig.exchange.handshake = "accept"
        await rig.connected(2)
        await rig.connected(1)
        await rig.has_each_deal_once()
        assert rig.gaps() == []


async def test_what_was_fetched_and_comes_late_by_a_line_is_stored_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The exchange's list may have a deal before a line that lags has brought it."""
    async with rigged(tmp_path) as rig:
        await rig.connected(2)
        ledger, (feed, _) = rig.collector.ledger, rig.lines.feeds
        ledger.fills = True
        await trio.sleep(5)
        rig.exchange.silence()
        await trio.sleep(1)
        known = [(row, 0) for row in map(Row._make, rig.store.tables["btc"]) if row.mt == "d"]
        last = known[-1][0].ts
        late, after = Row(last + 1000, "d", "1|2|1"), Row(last + 2000, "d", "1|3|1")
        feed.data(Data(BTC, "deal", [after], ids=[8]))
        ledger.note_uncertain((last, after.ts))
        assert ledger.fill([*known[-5:], (late, 7), (after, 8)]) == 1
        feed.data(Data(BTC, "deal", [late], ids=[7]))
        await trio.sleep(1)
        stored = [tuple(row) for row in rig.store.tables["btc"]]
        assert stored.count(tuple(late)) == stored.count(tuple(after)) == 1


async def test_a_line_whose_own_route_is_dead_tries_it_now_and_then(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on by another's, says so at each try, and goes back without a gap once it can."""
    async with rigged(tmp_path, rate=2, last_is_dead=True) as rig:
        await rig.connected(2)
        assert len(rig.dead.dialled) == 1
        while not all(rig.collector.received[channel] for channel in CHANNELS):
            await trio.sleep(1)  # a ticker may take longer than ten
        at_the_start = rig.gaps()  # when the other line had not begun either
        caplog.clear()
        await trio.sleep(2.5 * GO_BACK)
        said = [
            record.getMessage()
            for record in caplog.records
            if record.name == connection_module.__name__ and record.levelname == "WARNING"
        ]
        assert len(said) == 2
        assert all("no new connection: cannot connect" in line for line in said)
        assert rig.lines.connected == 2
        rig.dead.refusals = 0
        await trio.sleep(GO_BACK)
        assert len(rig.dead.dialled) == 4
        assert rig.lines.connected == 2
        await trio.sleep(1.5 * GO_BACK)
        assert len(rig.dead.dialled) == 4, "it stays there"
        await rig.has_each_deal_once()
        assert rig.gaps() == at_the_start


async def test_an_old_connection_that_breaks_while_it_is_replaced_is_a_gap_and_no_more(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The new one goes on, or is made as after any loss."""
    async with rigged(tmp_path, 1) as rig:
        await rig.connected(1)
        (connection,) = rig.connections
        await trio.sleep(3)
        rig.exchange.handshake = "stall"
        connection.renew(connection.endpoints, "its routes were changed")
        await rig.exchange.until(lambda: rig.exchange.accepted == 2)
        await rig.exchange.drop()
        rig.exchange.handshake = "accept"
        await rig.connected(1)
        await rig.gaps_of_all_channels()
        assert rig.collector.counts.errors >= 1
        rig.exchange.silence()
        await trio.sleep(1)
        deals = [tuple(row) for row in rig.store.tables["btc"] if row[1] == "d"]
        assert set(deals) == rig.deals()


@attrs.define(eq=False)
class Hand:
    """A symbol with its lines, fed by hand."""

    journal: Journal
    lines: Lines
    began: int = attrs.field(factory=wall_clock_ms)

    def message(self, channel: Channel) -> Data:
        """Return a message of now."""
        ts = self.now()
        return Data(BTC, channel, [Row(ts, ALL[channel].mt, f"{ts}|1|1")], version=ts)

    def bring_all(self, feed: LineFeed) -> None:
        """Have a line bring a message of each channel."""
        for channel in CHANNELS:
            feed.data(self.message(channel))

    def now(self) -> int:
        """Return the exchange's time."""
        return self.began + round(trio.current_time() * 1000)

    def subscribe(self, feed: LineFeed) -> Heard:
        """Let a line's subscriptions be confirmed; return until when its connection is heard."""
        heard = Heard()
        heard.note(self.now(), trio.current_time())
        for channel in CHANNELS:
            feed.subscribed(channel, self.now(), heard)
        return heard

    def gaps(self) -> list[Gap]:
        """List the gaps in the ledger."""
        return gaps_in(self.journal)


@contextmanager
def by_hand(directory: Path, number: int, *, fills: bool = False) -> Iterator[Hand]:
    """Open a journal for it."""
    with open_journal(directory / "journal.sqlite") as journal:
        lines = Lines(collector_of(journal, MemoryStore(), fills=fills), number, 15)
        yield Hand(journal, lines)


async def test_a_renewal_without_a_deal_afterwards_leaves_nothing_uncertain_for_ever(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The one connection is replaced while a contract is quiet: hours later all is certain."""
    with by_hand(tmp_path, 1, fills=True) as hand:
        (old,), queue = hand.lines.feeds, hand.journal.queue("btc")
        ledger = hand.lines.collector.ledger
        hand.subscribe(old)
        replacement = old.replacement()
        old.data(hand.message("deal"))
        hand.subscribe(replacement)
        replacement.data(hand.message("ticker"))
        old.retire(ExchangeError("renewed"))
        for _ in range(100):
            await trio.sleep(1)
            replacement.data(hand.message("ticker"))
        for _ in range(2):
            await trio.sleep(3600)
            replacement.data(hand.message("deal"))
        assert hand.lines.merger is None
        assert ledger.pending.uncertain is not None  # what it may have lost is asked for once
        last = replacement.replacement()
        await trio.sleep(3600)
        replacement.data(hand.message("deal"))
        assert queue.marks is not None
        assert queue.marks().uncertain_since == ledger.pending.uncertain.start
        ledger.give_up()
        await trio.sleep(1)
        replacement.data(hand.message("deal"))
        assert queue.marks().uncertain_since == 0
        assert last in hand.lines.feeds


async def test_a_line_that_is_heard_before_it_is_acknowledged_has_what_it_brings(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The other is lost, and that leaves a gap only in what the one has not brought yet."""
    with by_hand(tmp_path, 2) as hand:
        first, second = hand.lines.feeds
        hand.subscribe(first)
        hand.bring_all(first)
        await trio.sleep(1)
        second.data(hand.message("ticker"))
        assert second.is_subscribed
        await trio.sleep(1)
        first.data(hand.message("deal"))
        first.connection_lost(ExchangeError("it broke"))
        await trio.sleep(1)
        hand.bring_all(second)
        assert {gap.channel for gap in hand.gaps()} == {"deal", "depth"}
        assert hand.lines.collector.counts.covered == 1


async def test_a_connection_that_hung_before_it_was_replaced_is_a_gap(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Nothing came of it since another was to be made: it is known until when it was heard."""
    with by_hand(tmp_path, 1) as hand:
        (old,) = hand.lines.feeds
        hand.subscribe(old)
        hand.bring_all(old)
        hung = hand.now()
        await trio.sleep(8)
        replacement = old.replacement()
        await trio.sleep(2)
        hand.subscribe(replacement)
        replacement.data(hand.message("ticker"))
        assert not replacement.has_taken_over()
        old.retire(ExchangeError("renewed"))
        hand.bring_all(replacement)
        spans = {gap.channel: (gap.start - hung, gap.end - hung) for gap in hand.gaps()}
        assert spans == dict.fromkeys(CHANNELS, (0, 10_000))


async def test_a_quiet_symbol_has_no_gap_when_its_connection_is_replaced(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Nothing of it came in hours; other symbols, or pongs, show that both connections lived."""
    with by_hand(tmp_path, 1, fills=True) as hand:
        (old,) = hand.lines.feeds
        heard = hand.subscribe(old)
        hand.bring_all(old)
        for _ in range(5000):
            await trio.sleep(1)
            heard.note(hand.now(), trio.current_time())
        replacement = old.replacement()
        await trio.sleep(2)
        hand.subscribe(replacement)
        assert not replacement.has_taken_over()
        await trio.sleep(1)
        heard.note(hand.now(), trio.current_time())
        assert replacement.has_taken_over()
        old.retire(ExchangeError("renewed"))
        await trio.sleep(500)
        hand.bring_all(replacement)
        assert [gap for gap in hand.gaps() if gap.cause == "connection lost"] == []


async def test_a_second_replacement_replaces_the_first_one_once_that_has_taken_over(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Who was to be replaced has gone: then all that the first one has is to be had as well."""
    with by_hand(tmp_path, 1) as hand:
        (old,) = hand.lines.feeds
        heard = hand.subscribe(old)
        hand.bring_all(old)
        first, second = (old.replacement(trio.Event()) for _ in range(2))
        await trio.sleep(2)
        heard_of_first = hand.subscribe(first)
        second.data(hand.message("ticker"))
        await trio.sleep(1)
        for one in (heard, heard_of_first):
            one.note(hand.now(), trio.current_time())
        assert first.has_taken_over()
        assert not second.has_taken_over()
        old.retire(ExchangeError("it has other routes"))
        assert not second.has_taken_over()
        hand.subscribe(second)
        await trio.sleep(1)
        heard_of_first.note(hand.now(), trio.current_time())
        assert second.has_taken_over()
        first.retire(ExchangeError("it has other routes"))
        hand.bring_all(second)
        assert hand.gaps() == []


@pytest.mark.parametrize("order", ["as they came", "the other way round"])
@pytest.mark.parametrize("first_is_heard", [True, False])
async def test_a_symbol_that_is_moved_twice_within_seconds_has_no_gap_and_ends_where_it_belongs(
    autojump_clock: MockClock, tmp_path: Path, order: str, first_is_heard: bool
) -> None:
    """Whoever is heard first, and even if nobody waits yet when the second move begins."""
    async with rigged(tmp_path, 1) as rig, trio.open_nursery() as nursery:
        await rig.connected(1)
        await trio.sleep(3)
        moves = [replacements_of(rig.lines), replacements_of(rig.lines)]
        for feeds in moves if order == "as they came" else reversed(moves):
            line = Line(rig.exchanges, rig.exchange)
            line.refusals = 0 if feeds is moves[1] or first_is_heard else 10**6
            await trio.sleep(WARM_UP)
            other = Connection(
                [Endpoint(URL, dial_of(line))], feeds, SessionOptions(15, rig.journal.flush)
            )
            nursery.start_soon(other.run)
            nursery.start_soon(until_gone, rig.lines, feeds[0].moved)
        await trio.sleep(60)
        assert rig.lines.feeds == moves[1]
        assert [one.moved.is_set() for one in (moves[0][0], moves[1][0])] == [True, False]
        await rig.has_each_deal_once()
        assert rig.gaps() == []
        assert rig.collector.counts.errors == 0
        nursery.cancel_scope.cancel()


async def test_a_symbol_moves_to_another_connection_once_that_has_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """For as long as nobody answers there, it is heard where it was; then there, without a gap."""
    async with rigged(tmp_path, 1) as rig:
        await rig.connected(1)
        await trio.sleep(3)
        feeds = replacements_of(rig.lines)
        rig.dead.refusals = 4
        await trio.sleep(WARM_UP)
        other = Connection(
            [Endpoint(URL, dial_of(rig.dead))], feeds, SessionOptions(15, rig.journal.flush)
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.run)
            nursery.start_soon(until_gone, rig.lines, feeds[0].moved)
            await trio.sleep(5)
            assert len(rig.dead.dialled) > 1
            (old,) = rig.exchange.opened
            assert old.subscriptions[BTC]
            await rig.exchange.until(lambda: rig.exchange.accepted == 2)
            await rig.exchange.until(lambda: not old.subscriptions.get(BTC))
            assert rig.lines.feeds == feeds
            await trio.sleep(5)
            await rig.has_each_deal_once()
            assert rig.gaps() == []
            assert rig.collector.counts.errors == 0
            nursery.cancel_scope.cancel()
