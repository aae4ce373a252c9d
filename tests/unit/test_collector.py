"""One symbol, from the wire to the store, in virtual time: real journal, memory on both ends."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from mexc_trio.channels import USUAL
from mexc_trio.errors import (
    ExchangeError,
    JournalError,
    Loss,
    StoreRejected,
    TooManyErrors,
    UnknownContract,
)
from mexc_trio.exchange.connection import Connection
from mexc_trio.exchange.messages import Data
from mexc_trio.exchange.session import Endpoint, SessionOptions
from mexc_trio.journal import Journal, open_journal
from mexc_trio.record.collector import (
    DEAD_LETTER_PAUSE,
    ERROR_WINDOW,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Collector,
)
from mexc_trio.record.gaps import Ledger
from mexc_trio.record.lines import Lines
from mexc_trio.rows import CHANNELS, Gap, Row
from mexc_trio.settings import SymbolSettings
from tests.support.inmemory import URL, Line, MemoryStore, as_async, dial_of
from tools.exchange import Exchange, open_exchange
from tools.market import CHANNELS as WIRE_CHANNELS
from tools.market import ODDITIES, OPTIONAL

BTC = "BTC_USDT"


@attrs.define(eq=False)
class Rig:
    """A collector with everything around it."""

    exchange: Exchange
    line: Line
    journal: Journal
    store: MemoryStore
    nursery: trio.Nursery

    def collector(
        self, symbol: str = BTC, linger: float = 1.0, max_errors: int = 100,
        channels: tuple[str, ...] = USUAL,
    ) -> Collector:  # fmt: skip
        """Make a symbol's collector."""
        table = symbol.partition("_")[0].lower()
        queue = self.journal.queue(table)
        settings = SymbolSettings(
            symbol=symbol, table=table, max_errors=max_errors, linger=linger, channels=channels
        )
        ledger = Ledger(symbol, queue, self.journal.queue("gaps"), channels)
        return Collector(settings, queue, ledger, as_async(self.store))

    def start(self, *collectors: Collector) -> None:
        """Record, as the recorder does: alone on a connection, or several beside it."""
        feeds = [Lines(one, 1, 15).feeds[0] for one in collectors]
        connection = Connection(
            [Endpoint(URL, dial_of(self.line))], feeds, SessionOptions(15, self.journal.flush)
        )
        self.nursery.start_soon(connection.run)
        for collector in collectors:
            self.nursery.start_soon(collector.run)

    def gaps(self) -> list[Gap]:
        """List the gaps in the ledger."""
        return [Gap(*row) for row in self.journal.queue("gaps").head(1000)]  # type: ignore[arg-type]


@asynccontextmanager
async def rigged(directory: Path) -> AsyncIterator[Rig]:
    """Set it all up; leaving cancels what is running, and waits for it."""
    store = MemoryStore()
    with open_journal(directory / "journal.sqlite") as journal:
        async with open_exchange() as exchange, trio.open_nursery() as services:
            services.start_soon(journal.keep_flushing)
            async with trio.open_nursery() as exchanges, trio.open_nursery() as nursery:
                yield Rig(exchange, Line(exchanges, exchange), journal, store, nursery)
                nursery.cancel_scope.cancel()
                exchanges.cancel_scope.cancel()
            services.cancel_scope.cancel()


async def test_dead_letters_are_a_line_of_the_log_a_minute(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An exchange that has changed its messages fills the table, and not the log as well."""
    async with rigged(tmp_path) as rig:
        rig.start(rig.collector())
        await rig.exchange.subscribed(BTC)
        for _ in range(3):
            for _ in range(5):
                await rig.exchange.send(BTC, '{"channel":"push.deal","symbol":"BTC_USDT","data":7}')
            await trio.sleep(DEAD_LETTER_PAUSE + 1)
    told = [text for text in caplog.messages if "kept as a dead letter" in text]
    assert [text.partition("(")[2].partition(" ")[0] for text in told] == ["1", "6", "11"]


async def test_what_is_sent_is_stored_to_the_last_digit_and_in_order(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """All oddities of the exchange, and the counters count what is stored and nothing else."""
    async with rigged(tmp_path) as rig:
        collector = rig.collector()
        rig.start(collector)
        await rig.exchange.subscribed(BTC)
        for channel in WIRE_CHANNELS:
            for oddity in ("", *ODDITIES[channel]):
                await rig.exchange.push(BTC, channel, oddity=oddity)
        await rig.exchange.send(BTC, '{"channel":"push.new","symbol":"BTC_USDT","ts":5}')
        await rig.exchange.send(BTC, '{"channel":"stranger"}')
        await trio.sleep(0.5)
        assert collector.counts.total == 0, "nothing is stored yet"
        await trio.sleep(1)
        stored = rig.store.tables["btc"]
        expected = rig.exchange.rows(BTC)
        assert [tuple(row) for row in stored] == expected
        for mt in ("t", "d", "dp", "dl"):
            assert collector.counts.appended[mt] == sum(row[1] == mt for row in expected)
        assert collector.counts.appended["dl"] == 1
        assert collector.counts.skipped == 1
        assert rig.gaps() == []


async def test_a_table_begins_with_the_first_row_that_waits_for_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Not when the store answers: if the table is lost, its gap leaves out no row of it."""
    async with rigged(tmp_path) as rig:
        collector = rig.collector()
        at = 1_000
        collector.data(Data(BTC, "deal", [Row(at, "d", "109170|12|2")]))
        rig.start(collector)
        await trio.sleep(5)
        assert rig.store.tables["btc"]
        assert rig.journal.queue("btc").began == at


@pytest.mark.parametrize("linger", [0.0, 1.0, 30.0])
async def test_a_row_waits_for_company_as_long_as_it_is_told_and_no_longer(
    autojump_clock: MockClock, tmp_path: Path, linger: float
) -> None:
    """Rows that come meanwhile share its INSERT; with no linger it is inserted at once."""
    async with rigged(tmp_path) as rig:
        rig.start(rig.collector(linger=linger))
        await rig.exchange.subscribed(BTC)
        for _ in range(3):
            await trio.sleep(32)
            del rig.store.inserts[:]
            began = trio.current_time()
            await rig.exchange.push(BTC, "ticker")
            if linger:
                await trio.sleep(linger / 2)
                await rig.exchange.push(BTC, "ticker")
            await trio.sleep(linger + 0.01)
            ((at, table, rows),) = rig.store.inserts
            assert at - began == pytest.approx(linger, abs=1e-6)
            assert (table, rows) == ("btc", 2 if linger else 1)
            await rig.exchange.push(BTC, "deal")
            await rig.exchange.push(BTC, "depth.full")


async def test_stopping_writes_what_is_left(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Cancelled in the middle of its linger, a row is stored before the end."""
    async with rigged(tmp_path) as rig:
        collector = rig.collector(linger=30.0)
        rig.start(collector)
        await rig.exchange.subscribed(BTC)
        await rig.exchange.push(BTC, "deal", oddity="batch")
        await trio.sleep(1)
        assert rig.store.inserts == []
        expected = rig.exchange.rows(BTC)
        store, began = rig.store, trio.current_time()
    assert [tuple(row) for row in store.tables["btc"]] == expected
    assert collector.counts.total == len(expected)
    assert collector.failure is None
    assert trio.current_time() - began < 1


async def test_too_many_errors_stop_one_symbol_and_only_it(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it has is written, its end is in the ledger, and the other one records on."""
    async with rigged(tmp_path) as rig:
        btc, eth = rig.collector(max_errors=3, linger=5), rig.collector("ETH_USDT", linger=5)
        rig.start(btc, eth)
        for n in range(3):
            await rig.exchange.subscribed("ETH_USDT")
            for symbol in (BTC, "ETH_USDT"):
                for channel in WIRE_CHANNELS:
                    await rig.exchange.push(symbol, channel)
            await trio.sleep(0.1)
            assert btc.stopped is False, n
            await rig.exchange.drop()
            await trio.testing.wait_all_tasks_blocked()
        assert isinstance(btc.failure, TooManyErrors)
        assert btc.counts.errors == 3
        await rig.exchange.subscribed("ETH_USDT")
        assert rig.exchange.symbols == ["ETH_USDT"]
        await rig.exchange.push("ETH_USDT", "deal")
        await trio.sleep(6)
        assert [tuple(row) for row in rig.store.tables["btc"]] == rig.exchange.rows(BTC)
        assert [tuple(row) for row in rig.store.tables["eth"]] == rig.exchange.rows("ETH_USDT")
        assert eth.failure is None
        ends = [gap for gap in rig.gaps() if gap.symbol == BTC][-3:]
        last = {row[1]: row[0] for row in rig.store.tables["btc"]}
        assert {gap.channel: gap.start for gap in ends} == {
            "ticker": last["t"], "deal": last["d"], "depth": last["dp"],
        }  # fmt: skip
        assert {gap.cause for gap in ends} == {"connection lost"}
        errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
        assert errors == ["BTC_USDT: 3 errors of BTC_USDT within ten minutes; this symbol stops"]


async def test_errors_are_forgotten_after_ten_minutes(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """An error now and then, for months, is no reason to stop."""
    async with rigged(tmp_path) as rig:
        collector = rig.collector(max_errors=3)
        for _ in range(50):
            collector.connection_lost(ExchangeError("why"))
            collector.connection_lost(ExchangeError("why"))
            assert not collector.stopped
            await trio.sleep(ERROR_WINDOW + 1)
        assert collector.counts.errors == 100
        for _ in range(3):
            collector.connection_lost(ExchangeError("why"))
        assert collector.stopped


async def test_a_misspelt_symbol_is_told_in_one_line(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The exchange refuses it, its list lacks it, and nothing was ever recorded: it stops."""

    async def exists(symbol: str) -> bool:
        return symbol == BTC

    async with rigged(tmp_path) as rig:
        btc, nope = rig.collector(), rig.collector("NOPE_USDT")
        nope.exists = exists
        rig.start(btc, nope)
        await rig.exchange.subscribed(BTC)
        await trio.sleep(5)
        assert isinstance(nope.failure, UnknownContract)
        assert nope.counts.errors == 1
        assert btc.failure is None
        errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
        assert errors == ["NOPE_USDT: the exchange knows no contract NOPE_USDT; this symbol stops"]


@pytest.mark.parametrize("listed", [True, None])
async def test_a_symbol_that_is_refused_is_never_lost(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture, listed: bool | None
) -> None:
    """Whether the list has it or cannot be had, it is asked for again, in minutes at the most.

    The gap begins where the program began to listen, and ends when the exchange knows it again.
    """

    async def exists(symbol: str) -> bool | None:
        return listed

    async with rigged(tmp_path) as rig:
        collector = rig.collector("NOPE_USDT", linger=0)
        collector.exists = exists
        rig.start(collector)
        await trio.sleep(3600)
        assert not collector.stopped
        asked = sum("sub.deal" in text for _, text in rig.exchange.requests)
        assert 3600 / LONGEST_PAUSE < asked < 25
        assert rig.gaps() == []
        rig.exchange.listing = attrs.evolve(rig.exchange.listing, unknown=())
        with trio.fail_after(LONGEST_PAUSE + 1):
            await rig.exchange.subscribed("NOPE_USDT")
        for channel in WIRE_CHANNELS:
            await rig.exchange.push("NOPE_USDT", channel)
        await trio.sleep(1)
        assert len(rig.store.tables["nope"]) >= 3
        assert [gap.cause for gap in rig.gaps()] == ["subscription refused"] * 3
        assert caplog.records[0].getMessage() == (
            "NOPE_USDT: the exchange knows no contract NOPE_USDT; asking again in 5 s"
        )


async def test_a_symbol_with_history_is_asked_for_whatever_the_list_says(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """A list that breaks off ends no recording."""

    async def exists(symbol: str) -> bool:
        raise AssertionError("nobody needs to ask")

    async with rigged(tmp_path) as rig:
        collector = rig.collector(linger=0)
        collector.exists = exists
        rig.start(collector)
        await rig.exchange.subscribed(BTC)
        await rig.exchange.push(BTC, "deal")
        await trio.sleep(1)
        rig.exchange.listing = attrs.evolve(rig.exchange.listing, unknown=("BTC*",))
        await rig.exchange.drop()
        await trio.sleep(1000)
        assert not collector.stopped
        rig.exchange.listing = attrs.evolve(rig.exchange.listing, unknown=())
        await rig.exchange.subscribed(BTC)


@pytest.mark.parametrize("shared", [False, True])
async def test_a_message_that_breaks_the_program_is_one_symbols_trouble(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, shared: bool,
) -> None:  # fmt: skip
    """The traceback is in the log, the gap in the ledger, and the next messages are recorded."""
    async with rigged(tmp_path) as rig:
        btc, eth = rig.collector(linger=0), rig.collector("ETH_USDT", linger=0)
        if shared:
            rig.start(btc, eth)
        else:
            rig.start(btc)
            rig.start(eth)
        await rig.exchange.subscribed("ETH_USDT")
        await rig.exchange.subscribed(BTC)

        def fail(ledger: Ledger, message: Data, until: int) -> None:
            if ledger is btc.ledger:
                raise ZeroDivisionError
            received(ledger, message, until)

        received = Ledger.received
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "received", fail)
            await rig.exchange.push(BTC, "deal")
            await rig.exchange.push("ETH_USDT", "deal")
            await trio.sleep(1)
        assert rig.store.tables["btc"] == []
        assert [tuple(row) for row in rig.store.tables["eth"]] == rig.exchange.rows("ETH_USDT")
        assert [r.exc_info is not None for r in caplog.records] == [True]
        await trio.sleep(FIRST_PAUSE)
        before = len(rig.exchange.rows(BTC))
        for channel in WIRE_CHANNELS:
            await rig.exchange.push(BTC, channel)
        await trio.sleep(1)
        assert [tuple(row) for row in rig.store.tables["btc"]] == rig.exchange.rows(BTC)[before:]
        assert {(gap.symbol, gap.cause) for gap in rig.gaps()} == {(BTC, "program failed")}
        assert (rig.exchange.accepted, btc.stopped) == (1 if shared else 2, False)


async def test_a_bug_in_the_writer_does_not_stop_receiving(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is started again and writes what has come meanwhile: no row is lost and no gap is made."""
    async with rigged(tmp_path) as rig:
        rig.start(rig.collector(linger=0))
        await rig.exchange.subscribed(BTC)
        rig.store.failure = ZeroDivisionError()
        await rig.exchange.push(BTC, "deal", oddity="batch")
        await trio.sleep(0.1)
        await rig.exchange.push(BTC, "depth.full")
        rig.store.failure = None
        await trio.sleep(2)
        assert [tuple(row) for row in rig.store.tables["btc"]] == rig.exchange.rows(BTC)
        assert rig.gaps() == []
        assert [r.exc_info is not None for r in caplog.records] == [True]


async def test_a_shortage_of_files_or_threads_is_waited_out(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Other programs may have taken them for a while: no symbol stops, and no traceback is seen."""
    async with rigged(tmp_path) as rig:
        collector = rig.collector(linger=0, max_errors=2)
        rig.start(collector)
        await rig.exchange.subscribed(BTC)
        rig.store.failure = RuntimeError("can't start new thread")
        for _ in range(10):
            collector.connection_lost(ExchangeError("too many files", Loss.NO_RESOURCES))
        await rig.exchange.push(BTC, "deal", oddity="batch")
        await trio.sleep(30)
        rig.store.failure = None
        await trio.sleep(60)
        assert not collector.stopped
        assert [tuple(row) for row in rig.store.tables["btc"]] == rig.exchange.rows(BTC)
        told = "BTC_USDT: writer: no more threads to be had; trying again in 1 s"
        assert told in caplog.messages
        assert all(record.exc_info is None for record in caplog.records)


async def test_a_store_that_refuses_holds_the_writer_and_not_the_receiver(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Promise 3: whatever the store says, receiving goes on; the rows come when it takes them."""
    async with rigged(tmp_path) as rig:
        collector = rig.collector()
        rig.start(collector)
        await rig.exchange.subscribed(BTC)
        rig.store.failure = StoreRejected("no right to INSERT")
        await rig.exchange.push(BTC, "ticker")
        await trio.sleep(2)
        assert collector.refusal is rig.store.failure
        await rig.exchange.push(BTC, "ticker")
        await trio.sleep(1)
        assert not collector.stopped
        assert rig.exchange.connections == 1
        assert collector.queue.backlog == 2
        rig.store.failure = None
        await trio.sleep(10)
        assert collector.refusal is None
        assert [tuple(row) for row in rig.store.tables["btc"]] == rig.exchange.rows(BTC)
        assert rig.gaps() == []


async def test_a_symbol_that_was_stopped_hears_nothing_more(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """A late message of a shared connection finds nobody at home."""
    async with rigged(tmp_path) as rig:
        collector = rig.collector()
        rig.start(collector)
        await rig.exchange.subscribed(BTC)
        collector.stop(StoreRejected("why"))
        collector.connection_lost(ExchangeError("why"))
        Lines(collector, 1, 15).feeds[0].unreadable()
        assert collector.counts.errors == 0
        assert [gap.cause for gap in rig.gaps()] == ["symbol stopped"] * 3


async def test_a_journal_that_fails_is_everybodys_end(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no symbol's own error: it gets out, so that the program stops with a clear message."""

    def fail(*args: object) -> None:
        raise JournalError("the disk")

    async def record() -> None:
        async with rigged(tmp_path) as rig:
            collector = rig.collector()
            rig.start(collector)
            await rig.exchange.subscribed(BTC)
            monkeypatch.setattr(type(rig.journal.outbox), "appended", fail)
            await rig.exchange.push(BTC, "ticker")
            await trio.sleep(32)

    with pytest.RaisesGroup(JournalError, flatten_subgroups=True):
        await record()


async def test_gaps_of_a_life(autojump_clock: MockClock, tmp_path: Path) -> None:
    """A lost connection, a suspend and a bad frame, each in the ledger between its two rows."""
    async with rigged(tmp_path) as rig:
        collector = rig.collector(linger=0)
        rig.start(collector)

        async def once() -> dict[str, int]:
            await rig.exchange.subscribed(BTC)
            for channel in WIRE_CHANNELS:
                await rig.exchange.push(BTC, channel)
            await trio.sleep(0.1)
            return {str(row[1]): int(row[0]) for row in rig.store.tables["btc"]}

        first = await once()
        await rig.exchange.drop()
        second = await once()
        collector.connection_lost(ExchangeError("the clock jumped", Loss.CLOCK_JUMPED))
        third = await once()
        await rig.exchange.send(BTC, "not JSON")
        fourth = await once()
        found = {(gap.cause, gap.channel): (gap.start, gap.end) for gap in rig.gaps()}
        for cause, before, after in (
            ("connection lost", first, second),
            ("clock jumped", second, third),
            ("decode errors", third, fourth),
        ):
            for channel, mt in zip(CHANNELS, ("t", "d", "dp"), strict=True):
                assert found[cause, channel] == (before[mt], after[mt])
        assert len(found) == 9
        versions = [gap for gap in rig.gaps() if gap.channel == "depth"]
        assert all(0 < gap.version_before < gap.version_after for gap in versions)


async def test_a_gap_that_is_open_at_the_end_is_written(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Ctrl-C while the exchange is away: the ledger has it, even if this was the last run."""
    async with rigged(tmp_path) as rig:
        rig.start(rig.collector(linger=0))
        await rig.exchange.subscribed(BTC)
        for channel in WIRE_CHANNELS:
            await rig.exchange.push(BTC, channel)
        await trio.sleep(1)
        last = {str(row[1]): int(row[0]) for row in rig.store.tables["btc"]}
        rig.line.refusals = 1000
        await rig.exchange.drop()
        await trio.sleep(30)
    with open_journal(tmp_path / "journal.sqlite") as journal:
        gaps = [Gap(*row) for row in journal.queue("gaps").head(10)]  # type: ignore[arg-type]
    assert [(gap.channel, gap.start, gap.cause) for gap in gaps] == [
        ("ticker", last["t"], "connection lost"),
        ("deal", last["d"], "connection lost"),
        ("depth", last["dp"], "connection lost"),
    ]


async def test_a_silent_channel_is_a_gap_from_its_last_row_to_its_next(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And a line of the log that says what is done about it."""
    async with rigged(tmp_path) as rig:
        rig.start(rig.collector(linger=0))
        await rig.exchange.subscribed(BTC)
        for n in range(200):
            for channel in WIRE_CHANNELS if n < 100 else WIRE_CHANNELS[:2]:
                await rig.exchange.push(BTC, channel)
            await trio.sleep(0.4)
        last = max(int(row[0]) for row in rig.store.tables["btc"] if row[1] == "dp")
        assert rig.gaps() == []
        await rig.exchange.push(BTC, "depth.full")
        await trio.sleep(1)
        (gap,) = rig.gaps()
        assert (gap.symbol, gap.channel, gap.cause) == (BTC, "depth", "channel silent")
        assert gap.start == last
        assert (gap.end, "dp") in [(row[0], row[1]) for row in rig.store.tables["btc"][-1:]]
        (warning,) = [r.getMessage() for r in caplog.records if "silent" in r.getMessage()]
        assert warning.startswith("BTC_USDT: depth silent for 3")
        assert warning.endswith("; subscribing again")


async def test_channels_are_what_was_chosen(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Only those are subscribed to, recorded and missed; of each symbol its own, on one line."""
    async with rigged(tmp_path) as rig:
        btc = rig.collector(linger=0, channels=("deal", "funding", "index", "fair"))
        eth = rig.collector("ETH_USDT", linger=0, channels=("ticker",))
        rig.start(btc, eth)
        await rig.exchange.subscribed(BTC, ["deal", *OPTIONAL])
        await rig.exchange.subscribed("ETH_USDT", ["ticker"])
        asked = [text for _, text in rig.exchange.requests if '"sub.' in text]
        assert len(asked) == 5
        for channel in ("deal", *OPTIONAL):
            await rig.exchange.push(BTC, channel)
        await rig.exchange.push("ETH_USDT", "ticker")
        # A frame of a channel that nobody asked for, as one that was on its way.
        ticker = rig.exchange.market.frame(BTC, "ticker", oddity="")
        before = btc.counts.skipped
        await rig.exchange.send(BTC, ticker)
        await trio.sleep(1)
        stored = [tuple(row) for row in rig.store.tables["btc"]]
        assert stored == [row for row in rig.exchange.rows(BTC) if row[1] != "t"]
        assert {row[1] for row in stored} == {"d", "fr", "ip", "fp"}
        assert btc.counts.skipped == before + 1
        await rig.exchange.drop()
        await rig.exchange.subscribed(BTC, ["deal", *OPTIONAL])
        for channel in ("deal", *OPTIONAL):
            await rig.exchange.push(BTC, channel)
        await trio.sleep(1)
        lost = sorted(gap.channel for gap in rig.gaps() if gap.symbol == BTC)
        assert lost == ["deal", "fair", "funding", "index"]
        assert btc.counts.appended["fr"] == 2
