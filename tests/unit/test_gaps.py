"""The ledger of gaps: which rows bound them, and that none is forgotten whatever dies."""

import itertools
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_trio.channels import ALL
from mexc_trio.exchange.messages import Data
from mexc_trio.journal import Journal, Queue, open_journal
from mexc_trio.journal.outbox import GROUP
from mexc_trio.record.gaps import Ledger
from mexc_trio.record.remembered import write_pending
from mexc_trio.rhythm import PATIENCE, RECORDER
from mexc_trio.rows import CHANNELS, Cause, Channel, Gap, Row, RowTuple
from mexc_trio.spans import LATEST

NOW = 1_789_498_322_165
BASE = 1_789_498_000_000
"""What the short times in these tests are counted from."""


class Clocks:
    """The machine's two clocks, in milliseconds."""

    wall = NOW
    steady = 0


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """Stop the clocks."""
    stopped = Clocks()
    monkeypatch.setattr("mexc_trio.spans.time.time", lambda: stopped.wall / 1000)
    monkeypatch.setattr("mexc_trio.spans.time.clock_gettime_ns", lambda _: stopped.steady * 10**6)
    return stopped


def full(ts: int) -> int:
    """Return the time that a short one stands for."""
    return BASE + ts if 0 < ts < 10**6 else ts


class Recorder:
    """A ledger beside the queues it writes to, used as a collector does."""

    def __init__(
        self, journal: Journal, *, fills: bool = False, channels: Sequence[Channel] = CHANNELS
    ) -> None:
        self.queue = journal.queue("btc")
        self.gaps = journal.queue("gaps")
        self.ledger = Ledger("BTC_USDT", self.queue, self.gaps, channels, fills=fills)

    def frame(
        self, channel: Channel | None, *times: int, version: int = 0, dead: int = 0,
        missed: Sequence[Channel] = (), until: int = 0,
    ) -> None:  # fmt: skip
        """Receive a frame with good rows at these times and then some dead letters."""
        rows = [Row(full(ts), ALL[channel].mt, f"{ts}") for ts in times] if channel else []
        rows += [Row(NOW, "dl", "?")] * dead
        message = Data("BTC_USDT", channel, rows, dead, version, tuple(missed))
        self.ledger.received(message, full(until) if until else LATEST)
        self.queue.append(message.rows, message.version)

    @property
    def written(self) -> list[Gap]:
        """The gaps in the ledger's queue, of all runs."""
        return [Gap(*row) for row in rows_of(self.gaps)]  # type: ignore[arg-type]


@contextmanager
def recorder_at(path: Path, *, fills: bool = False) -> Iterator[Recorder]:
    """Open a journal for one run."""
    with open_journal(path) as journal:
        yield Recorder(journal, fills=fills)


def rows_of(queue: Queue) -> list[RowTuple]:
    """Return all rows of a queue that was never acknowledged."""
    return queue.head(10**9)


@pytest.fixture
def journal_path(tmp_path: Path) -> Path:
    """Name a journal that several runs share."""
    return tmp_path / "journal.sqlite"


def gap(
    channel: str,
    start: int,
    end: int,
    cause: Cause,
    detail: str = "why",
    versions: tuple[int, int] = (0, 0),
) -> Gap:
    """Make the row that is expected."""
    return Gap("BTC_USDT", channel, full(start), full(end), cause.value, detail, *versions)


async def test_a_gap_lies_between_two_rows_of_its_channel(journal_path: Path) -> None:
    """Each channel has its own last row and its own first one, depth the books' versions, too."""
    with recorder_at(journal_path) as recorder:
        recorder.frame("deal", 10, 11)
        recorder.frame("ticker", 12)
        recorder.frame("depth", 13, version=100)
        recorder.ledger.lost(Cause.CONNECTION_LOST, "why")
        assert recorder.written == []
        recorder.frame("depth", 50, version=140)
        recorder.frame("deal", 51, 52)
        recorder.frame("deal", 60)
        assert recorder.written == [
            gap("depth", 13, 50, Cause.CONNECTION_LOST, versions=(100, 140)),
            gap("deal", 11, 51, Cause.CONNECTION_LOST),
        ]
        recorder.frame("ticker", 70)
        assert recorder.written[-1] == gap("ticker", 12, 70, Cause.CONNECTION_LOST)
        assert recorder.ledger.written.total() == 3


async def test_a_first_start_has_no_gap_but_a_failing_one_has(
    journal_path: Path, clocks: Clocks
) -> None:
    """Nothing was missed before anybody listened; from then on it was."""
    with recorder_at(journal_path) as recorder:
        recorder.ledger.program_started(Cause.PROGRAM_STOPPED, "why")
        recorder.frame("deal", NOW + 5)
        assert recorder.written == []
        recorder.ledger.lost(Cause.CONNECTION_LOST, "why")
        clocks.steady += 9
        recorder.frame("ticker", NOW + 9)
        assert recorder.written == [gap("ticker", NOW, NOW + 9, Cause.CONNECTION_LOST)]


@pytest.mark.parametrize("wall", [7 * 86_400_000, NOW - 20 * 86_400_000, NOW + 20 * 86_400_000])
async def test_a_first_start_before_the_clock_is_set(
    journal_path: Path, clocks: Clocks, wall: int
) -> None:
    """The gap is as long as the program has listened, whatever the machine's clock says meanwhile.

    It may never have been set, be weeks behind, or be ahead; before the first row or after it.
    """
    clocks.wall = wall
    with recorder_at(journal_path) as recorder:
        recorder.ledger.lost(Cause.CONNECTION_LOST, "why")
        clocks.steady += 60_000
        recorder.frame("ticker", NOW + 5)
        clocks.wall = NOW
        recorder.frame("deal", NOW + 5)
        assert recorder.written == [
            gap(name, NOW + 5 - 60_000, NOW + 5, Cause.CONNECTION_LOST)
            for name in ("ticker", "deal")
        ]


@pytest.mark.parametrize("impossible", [0, 1_789_498_322, 9_999_999_999_999])
async def test_an_impossible_time_neither_begins_nor_ends_a_gap(
    journal_path: Path, impossible: int
) -> None:
    """A deal of 1970 or 2286: the row is kept as it came, and our own clock bounds the gap."""
    with recorder_at(journal_path) as recorder:
        recorder.frame("deal", 10)
        recorder.ledger.lost(Cause.CONNECTION_LOST, "why")
        recorder.frame("deal", impossible)
        recorder.ledger.lost(Cause.CONNECTION_LOST, "why")
        recorder.frame("deal", NOW + 7)
        between = [gap("deal", 10, NOW, Cause.CONNECTION_LOST)]
        assert recorder.written == [*between, gap("deal", NOW, NOW + 7, Cause.CONNECTION_LOST)]
        assert [row[0] for row in rows_of(recorder.queue)][1] == impossible


async def test_a_gap_that_is_open_keeps_its_first_cause(journal_path: Path) -> None:
    """A connection that fails ten times in a row leaves one gap and not ten."""
    with recorder_at(journal_path) as recorder:
        recorder.frame("deal", 10)
        recorder.ledger.lost(Cause.CHANNEL_SILENT, "why", "deal")
        for _ in range(10):
            recorder.ledger.lost(Cause.CONNECTION_LOST, "later")
        recorder.frame("deal", 20)
        assert recorder.written == [gap("deal", 10, 20, Cause.CHANNEL_SILENT)]


async def test_one_silent_channel_is_one_gap(journal_path: Path) -> None:
    """The others were heard all the time."""
    with recorder_at(journal_path) as recorder:
        for channel in CHANNELS:
            recorder.frame(channel, 10)
        recorder.ledger.lost(Cause.CHANNEL_SILENT, "why", "depth")
        for channel in CHANNELS:
            recorder.frame(channel, 20, version=3)
        assert recorder.written == [gap("depth", 10, 20, Cause.CHANNEL_SILENT, versions=(0, 3))]


async def test_a_pause_that_nobody_has_told_of_is_a_gap_if_it_is_too_long(
    journal_path: Path,
) -> None:
    """By the rule that `verify` has, whatever lines and connections were like meanwhile."""
    least = int(PATIENCE["ticker"] * RECORDER)
    with recorder_at(journal_path) as recorder:
        recorder.frame("deal", 1000)
        recorder.frame("ticker", 1000 + least)
        recorder.frame("ticker", 0, 9 * 10**12)  # neither can be, and so they end no silence
        recorder.frame("ticker", 2001 + 8 * least)
        assert recorder.written == [
            gap("ticker", 1000 + least, 2001 + 8 * least, Cause.CHANNEL_SILENT,
                f"no ticker for {(1001 + 7 * least) / 1000:.0f} s, which is longer than is usual")
        ], "seven times the pause before it is"  # fmt: skip
        recorder.ledger.lost(Cause.CONNECTION_LOST, "why", "ticker")
        recorder.frame("ticker", 3000 + 90 * least)
        assert len(recorder.written) == 2, "the gap of the connection has told of it"
        recorder.frame("ticker", 3000 + 97 * least)
        assert len(recorder.written) == 2, "a silence before that was as long"


async def test_a_channel_that_is_recorded_again_has_a_gap_since_it_was_left(
    journal_path: Path,
) -> None:
    """Whether that is done by a reload or a restart; one that is new has none."""
    with recorder_at(journal_path) as recorder:
        recorder.frame("ticker", 10)
        recorder.frame("depth", 11, version=7)
        recorder.ledger.record_channels(["deal", "ticker"])
        recorder.ledger.record_channels(["deal", "ticker", "depth", "funding"])
        recorder.frame("depth", 50, version=9)
        recorder.frame("deal", 50)
        named = "the settings did not name this channel"
        again = gap("depth", 11, 50, Cause.SYMBOL_STOPPED, named, versions=(7, 9))
        assert recorder.written == [again]
        recorder.ledger.record_channels(["deal"])
        recorder.frame("deal", 60)
    with open_journal(journal_path) as journal:
        queue = journal.queue("btc")
        ledger = Ledger("BTC_USDT", queue, journal.queue("gaps"), ["deal"])
        message = Data("BTC_USDT", "deal", [Row(full(90), "d", "90")])
        ledger.received(message)
        queue.append(message.rows)
    with recorder_at(journal_path) as recorder:
        recorder.ledger.program_started(Cause.PROGRAM_STOPPED, "why")
        recorder.frame("ticker", 100)
        assert recorder.written[-1] == gap("ticker", 10, 100, Cause.PROGRAM_STOPPED)


DECODE = "a message could not be read; see the dead letters"


async def test_dead_letters_are_gaps_of_the_channels_they_may_have_been_for(
    journal_path: Path,
) -> None:
    """One gap for errors in a row; a dead letter that missed nothing is none."""
    with recorder_at(journal_path) as recorder:
        for channel in CHANNELS:
            recorder.frame(channel, 10)
        recorder.frame(None, dead=1)
        for channel in CHANNELS:
            recorder.frame(channel, 15)
        assert recorder.written == []
        for _ in range(3):
            recorder.frame("deal", dead=1, missed=["deal"])
        for channel in CHANNELS:
            recorder.frame(channel, 20)
        assert recorder.written == [gap("deal", 15, 20, Cause.DECODE_ERRORS, DECODE)]
        recorder.frame(None, dead=1, missed=CHANNELS)
        for channel in CHANNELS:
            recorder.frame(channel, 30)
        assert recorder.written[1:] == [
            gap(channel, 20, 30, Cause.DECODE_ERRORS, DECODE) for channel in CHANNELS
        ]


async def test_a_bad_deal_among_good_ones_may_be_older_than_they_are(journal_path: Path) -> None:
    """So its gap begins before its frame, and ends with the next one."""
    with recorder_at(journal_path) as recorder:
        recorder.frame("deal", 10)
        recorder.frame("deal", 20, 25, dead=1, missed=["deal"])
        recorder.frame("deal", 30)
        assert recorder.written == [gap("deal", 10, 30, Cause.DECODE_ERRORS, DECODE)]


async def test_an_unreadable_frame_on_a_shared_connection_is_everybodys_gap(
    journal_path: Path,
) -> None:
    """The dead letter is in another symbol's table, and the ledger says so."""
    with recorder_at(journal_path) as recorder:
        recorder.frame("deal", 10)
        recorder.ledger.unreadable()
        recorder.frame("deal", 20)
        (written,) = recorder.written
        assert written[:5] == ("BTC_USDT", "deal", full(10), full(20), "decode errors")
        assert "the others' dead letters" in written.detail


async def test_a_gap_never_ends_before_it_begins(journal_path: Path) -> None:
    """The exchange may greet a new connection with a book older than the last one."""
    with recorder_at(journal_path) as recorder:
        recorder.frame("depth", 100, version=7)
        recorder.ledger.lost(Cause.CONNECTION_LOST, "why")
        recorder.frame("depth", 90, version=6)
        recorder.ledger.record(Cause.TABLE_SHORTER, "why", full(50), full(40))
        assert recorder.written == [
            gap("depth", 100, 100, Cause.CONNECTION_LOST, versions=(7, 6)),
            gap("all", 50, 50, Cause.TABLE_SHORTER),
        ]


async def test_a_symbol_that_stops_writes_its_end(journal_path: Path) -> None:
    """No row will come to close the gap, so it is closed by the time of the stop, and once."""
    with recorder_at(journal_path) as recorder:
        recorder.frame("deal", 10)
        recorder.frame("depth", 11, version=4)
        recorder.ledger.stopped(Cause.SYMBOL_STOPPED, "why")
        recorder.ledger.close()
        assert recorder.written == [
            gap("ticker", NOW, NOW, Cause.SYMBOL_STOPPED),
            gap("deal", 10, NOW, Cause.SYMBOL_STOPPED),
            gap("depth", 11, NOW, Cause.SYMBOL_STOPPED, versions=(4, 0)),
        ]


async def test_a_program_that_stops_writes_what_is_open(journal_path: Path) -> None:
    """A gap that nobody would close otherwise, were this the last run; no gap where none is."""
    with recorder_at(journal_path) as recorder:
        recorder.frame("deal", 10)
        recorder.ledger.lost(Cause.CONNECTION_LOST, "why", "deal")
        recorder.ledger.close()
        assert recorder.written == [gap("deal", 10, NOW, Cause.CONNECTION_LOST)]
    with recorder_at(journal_path) as recorder:
        recorder.ledger.program_started(Cause.PROGRAM_STOPPED, "why")
        recorder.frame("deal", 70)
        assert recorder.written[-1] == gap("deal", 10, 70, Cause.PROGRAM_STOPPED)


async def test_the_next_start_writes_the_gap_since_the_last_row(journal_path: Path) -> None:
    """From what the journal remembers; a channel that never had a row since the last of any."""
    with recorder_at(journal_path) as recorder:
        recorder.frame("ticker", 10)
        recorder.frame("depth", 12, version=77)
    with recorder_at(journal_path) as recorder:
        recorder.ledger.program_started(Cause.PROGRAM_STOPPED, "why")
        for channel in CHANNELS:
            recorder.frame(channel, 50, version=90)
        assert recorder.written == [
            gap("ticker", 10, 50, Cause.PROGRAM_STOPPED, versions=(0, 90)),
            gap("deal", 12, 50, Cause.PROGRAM_STOPPED, versions=(0, 90)),
            gap("depth", 12, 50, Cause.PROGRAM_STOPPED, versions=(77, 90)),
        ]


@pytest.mark.parametrize("frames", [GROUP - 3, GROUP - 2, GROUP - 1, GROUP])
async def test_a_gap_and_the_row_that_ends_it_are_written_together(
    journal_path: Path, tmp_path: Path, frames: int
) -> None:
    """Wherever in a group of frames they come: a kill between the two would count it twice."""
    with open_journal(journal_path) as journal:
        recorder = Recorder(journal)
        recorder.frame("ticker", 1)
        journal.flush()
        recorder.ledger.lost(Cause.CONNECTION_LOST, "why")
        for n in range(frames):
            recorder.frame("deal", 2 + n)
        recorder.frame("ticker", 1000)
        killed = _copied(journal_path, tmp_path / "killed" / journal_path.name)
    with open_journal(killed) as journal:
        ended = {gap.channel for gap in Recorder(journal).written}
        rows = rows_of(journal.queue("btc"))
    assert ("deal" in ended) == ("d" in {row[1] for row in rows})
    assert ("ticker" in ended) == (full(1000) in {row[0] for row in rows})


SMALL_GROUP = 16
"""Frames that are collected before they are written."""

steps = st.lists(
    st.tuples(
        st.sampled_from(["frames"] * 4 + ["mixed", "bad", "lost", "acknowledge", "flush", "purge"]),
        st.sampled_from(CHANNELS),
        st.integers(1, SMALL_GROUP),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(runs=st.lists(steps, min_size=1, max_size=3))
def test_after_a_kill_the_next_start_recalls_the_last_row_of_each_channel(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[tuple[str, Channel, int]]]
) -> None:
    """Whatever had been written, acknowledged or purged by then, and however often it is killed."""
    trio.run(_kill_again_and_again, tmp_path_factory.mktemp("kills"), runs)


async def _kill_again_and_again(
    directory: Path, runs: Sequence[Sequence[tuple[str, Channel, int]]]
) -> None:
    path = directory / "journal.sqlite"
    clock = itertools.count(full(1000))
    rows: list[tuple[str, int]] = []
    for number, todo in enumerate([*runs, []]):
        with open_journal(path, retention=-1.0) as journal:
            journal.outbox.group = SMALL_GROUP
            recorder = Recorder(journal)
            # What was not written when the last run was killed, has never been received.
            del rows[recorder.queue.end :]
            # A gap and the row that ends it are received together, or not at all.
            assert all((ALL[gap.channel].mt, gap.end) in rows for gap in recorder.written)
            known = {mt: ts for mt, ts in rows if mt != "dl"}
            start = next(clock)
            recorder.ledger.program_started(Cause.PROGRAM_STOPPED, f"run {number}")
            for channel in CHANNELS:
                recorder.frame(channel, start, version=start if channel == "depth" else 0)
                rows.append((ALL[channel].mt, start))
            newest = max(known.values(), default=0)
            starts = [known.get(ALL[channel].mt, newest) for channel in CHANNELS]
            found = [gap for gap in recorder.written if gap.detail == f"run {number}"]
            assert [(gap.channel, gap.start) for gap in found] == (
                list(zip(CHANNELS, starts, strict=True)) if known else []
            )
            assert all(gap.end == start for gap in found)
            assert not found or found[-1].version_before == known.get("dp", 0)
            for what, channel, n in todo:
                match what:
                    case "frames":
                        for _ in range(n):
                            ts = next(clock)
                            recorder.frame(channel, ts, version=ts if channel == "depth" else 0)
                            rows.append((ALL[channel].mt, ts))
                    case "mixed":
                        ts = next(clock)
                        recorder.frame("deal", ts, dead=1, missed=["deal"])
                        rows += [("d", ts), ("dl", NOW)]
                    case "bad":
                        recorder.frame(channel, dead=1, missed=[channel])
                        rows.append(("dl", NOW))
                    case "lost":
                        recorder.ledger.lost(Cause.CONNECTION_LOST, "why")
                    case "acknowledge":
                        acked = min(recorder.queue.acked + n, recorder.queue.end)
                        recorder.queue.move_head(acked, acked)
                    case "flush":
                        journal.flush()
                    case "purge":
                        await journal.purge()
            assert all(gap.start <= gap.end for gap in recorder.written)
            # SIGKILL: what was written is in the kernel, and the rest is gone.
            path = _copied(path, directory / f"{number}" / path.name)


def _copied(path: Path, target: Path) -> Path:
    target.parent.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(path.with_name(path.name + suffix), target.with_name(target.name + suffix))
    return target


def told(*times: int) -> list[tuple[Row, int]]:
    """Return deals as the exchange tells them afterwards."""
    return [(Row(full(ts), "d", f"{ts}"), 0) for ts in times]


def with_a_held_gap(journal: Journal) -> Recorder:
    """Return a recorder that has missed deals, and tickers, between 100 and 200."""
    recorder = Recorder(journal, fills=True)
    recorder.frame("deal", 90, 100)
    recorder.frame("ticker", 100)
    recorder.ledger.lost(Cause.CONNECTION_LOST, "closed")
    recorder.frame("deal", 200)
    recorder.frame("ticker", 200)
    return recorder


def test_a_gap_in_deals_is_filled_before_it_is_written(journal_path: Path) -> None:
    """The row says how far; what is there already is not stored again, nor what is older."""
    with open_journal(journal_path) as journal:
        recorder = with_a_held_gap(journal)
        assert [gap.channel for gap in recorder.written] == ["ticker"]
        assert len(recorder.ledger.pending.gaps) == 1
        recorder.frame("deal", 210)
        assert recorder.ledger.fill(told(80, 90, 100, 110, 150, 200, 210, 220)) == 2
        assert rows_of(recorder.queue)[-2:] == [row for row, _ in told(110, 150)]
        (gap,) = recorder.written[1:]
        assert (gap.channel, gap.start, gap.end, gap.cause) == (
            "deal", full(100), full(200), Cause.CONNECTION_LOST
        )  # fmt: skip
        assert gap.detail == "closed; filled whole: 2 deals from 2026-09-15T18:46:40.110Z"
        # The next gap begins where the newest deal was, and not at one that was fetched.
        recorder.ledger.lost(Cause.CONNECTION_LOST, "again", "deal")
        recorder.frame("deal", 300)
        assert recorder.ledger.pending.gaps[0].start == full(210)
        assert recorder.ledger.fill(told(110, 150, 200, 210, 250, 300)) == 1
        assert recorder.written[2].detail.startswith("again; filled whole: 1 deal from ")


def test_an_answer_that_says_nothing_of_a_gap_leaves_it_held(journal_path: Path) -> None:
    """It is filled by a later one, or given up, and is a row in any case."""
    with open_journal(journal_path) as journal:
        recorder = with_a_held_gap(journal)
        assert recorder.ledger.fill(told(90, 100, 110)) == 0
        assert recorder.ledger.fill([]) == 0
        assert len(recorder.ledger.pending.gaps) == 1
        assert recorder.ledger.give_up(until=full(199)) == ([], None)
        assert len(recorder.ledger.give_up(until=full(200))[0]) == 1
        assert recorder.ledger.give_up() == ([], None)
        assert [gap.detail for gap in recorder.written] == ["closed", "closed"]
        assert recorder.ledger.fill(told(100, 150, 200)) == 0, "nothing is to be filled"


def test_the_last_row_of_a_channel_is_known_at_any_time(journal_path: Path) -> None:
    """A connection that is replaced hours after the start has had what came in those hours."""
    with recorder_at(journal_path) as recorder:
        assert recorder.ledger.last("deal") == 0
        recorder.frame("deal", 100, 200)
        recorder.frame("ticker", 300)
        assert recorder.ledger.last("deal") == full(200)
        recorder.ledger.record_channels(("ticker",))
        assert recorder.ledger.last("deal") == full(200)
    with recorder_at(journal_path) as recorder:
        assert recorder.ledger.last("ticker") == full(300)


def test_of_an_uncertain_time_only_deals_that_were_lacking_are_a_gap(journal_path: Path) -> None:
    """They stand behind later ones, and the ledger says why; to have looked is no row."""
    with recorder_at(journal_path, fills=True) as recorder:
        recorder.frame("deal", 90, 100, 130, 200)
        recorder.ledger.note_uncertain((full(100), full(130)))
        recorder.ledger.note_uncertain((full(130), full(200)))
        assert recorder.ledger.fill(told(90, 100, 110)) == 0, "older than what has come since"
        assert recorder.ledger.pending.wanted == 1
        assert recorder.ledger.fill(told(80, 90, 100, 110, 130, 150, 200, 220)) == 2
        assert rows_of(recorder.queue)[-2:] == [row for row, _ in told(110, 150)]
        assert recorder.ledger.pending.wanted == 0
        (written,) = recorder.written
        assert written[1:5] == ("deal", full(100), full(200), "connection lost")
        assert written.detail.endswith("; filled whole: 2 deals from 2026-09-15T18:46:40.110Z")
        recorder.frame("deal", 210, 220)
        recorder.ledger.note_uncertain((full(200), full(210)))
        assert recorder.ledger.fill(told(200, 210, 220)) == 0
        recorder.ledger.note_uncertain((full(200), full(210)))
        assert recorder.ledger.fill(told(220)) == 0, "it does not reach back so far"
        recorder.ledger.note_uncertain((full(200), full(210)))
        gaps, uncertain = recorder.ledger.give_up()
        assert not gaps
        assert uncertain is not None
        assert (uncertain.start, uncertain.end) == (full(200), full(210))
        assert recorder.ledger.pending.wanted == 0
        assert len(recorder.written) == 1


def test_deals_that_were_fetched_in_any_order_shorten_the_pauses_that_are_usual(
    journal_path: Path,
) -> None:
    """Those of uncertain time come last, and may be older than those of a gap."""
    with recorder_at(journal_path, fills=True) as recorder:
        recorder.frame("deal", 1_000)
        recorder.frame("deal", 201_000)
        recorder.ledger.note_uncertain((full(1_000), full(201_000)))
        recorder.frame("deal", 230_000)
        recorder.ledger.lost(Cause.CONNECTION_LOST, "closed", "deal")
        recorder.frame("deal", 240_000)
        every = (1_000, 101_000, 201_000, 230_000, 235_000, 240_000)
        assert recorder.ledger.fill(told(*every)) == 2
        recorder.frame("deal", BASE + 1_540_000)  # too long where no pause was long
        (silence,) = recorder.ledger.pending.gaps
        assert silence.cause == Cause.CHANNEL_SILENT


def test_a_symbol_that_ends_writes_what_it_holds(journal_path: Path) -> None:
    """Nobody fills it any more; the next run does not write it again."""
    with open_journal(journal_path) as journal:
        recorder = with_a_held_gap(journal)
        recorder.ledger.stopped(Cause.SYMBOL_STOPPED, "enough")
        journal.flush()
        channels = sorted(gap.channel for gap in recorder.written if gap.detail == "closed")
        assert channels == ["deal", "depth", "ticker"]
        written = len(recorder.written)
    with recorder_at(journal_path, fills=True) as recorder:
        assert recorder.ledger.pending.gaps == []
        assert len(recorder.written) == written


@pytest.mark.parametrize("fills", [True, False])
def test_a_held_gap_outlives_the_program(
    journal_path: Path, tmp_path: Path, *, fills: bool
) -> None:
    """Killed at any instant: it is held again from the row on that ended it, until it is written.

    Its row and the deals that fill it are there together or not at all.
    """
    killed = tmp_path / "killed"
    with open_journal(journal_path) as journal:
        recorder = with_a_held_gap(journal)
        journal.flush()
        shutil.copytree(tmp_path, killed, ignore=shutil.ignore_patterns("killed", "*.lock"))
        recorder.ledger.fill(told(100, 150, 200))
        journal.flush()
    with open_journal(killed / journal_path.name) as journal:
        recorder = Recorder(journal, fills=fills)
        assert len(recorder.ledger.pending.gaps) == fills
        recorder.ledger.program_started(Cause.PROGRAM_STOPPED, "killed")
        recorder.frame("deal", 400)
        deals = recorder.ledger.fill(told(90, 100, 150, 200, 300, 400))
        assert deals == (2 if fills else 0)
        recorder.ledger.close()
        gaps = [gap for gap in recorder.written if gap.channel == "deal"]
        assert [(gap.start, gap.end) for gap in gaps] == [
            (full(100), full(200)), (full(200), full(400))
        ]  # fmt: skip
        assert all("; filled whole: 1 deal from" in gap.detail for gap in gaps) == fills
    with recorder_at(journal_path, fills=True) as recorder:
        assert recorder.ledger.pending.gaps == [], "it was filled"
        # The last row is not the newest; the gap since begins at the newest all the same.
        recorder.ledger.program_started(Cause.PROGRAM_STOPPED, "stopped")
        recorder.frame("deal", 400)
        assert recorder.ledger.pending.gaps[0].start == full(200)
        assert recorder.ledger.fill(told(100, 150, 200, 300, 400)) == 1, "150 is known"


def test_what_an_earlier_version_remembers_is_read(journal_path: Path) -> None:
    """Its journal has the channels' last rows and nothing else."""
    with open_journal(journal_path) as journal:
        queue = journal.queue("btc")
        queue.stored_marks = msgspec.msgpack.encode({"deal": (full(100), 0), "gone": (1, 2)})
        ledger = Ledger("BTC_USDT", queue, journal.queue("gaps"))
        ledger.program_started(Cause.PROGRAM_STOPPED, "stopped")
        message = Data("BTC_USDT", "deal", [Row(full(200), "d", "7|1|1")])
        ledger.received(message)
        queue.append(message.rows)
        (gap,) = rows_of(journal.queue("gaps"))
        assert gap[1:4] == ("deal", full(100), full(200))


def test_a_held_gap_of_a_symbol_that_is_recorded_no_more_is_written(journal_path: Path) -> None:
    """By the next run or by drain, once."""
    with open_journal(journal_path) as journal:
        with_a_held_gap(journal)
    for _ in range(2):
        with open_journal(journal_path) as journal:
            write_pending(journal.queue("btc"), journal.queue("gaps"))
    with open_journal(journal_path) as journal:
        assert [row[1:4] for row in rows_of(journal.queue("gaps"))] == [
            ("ticker", full(100), full(200)), ("deal", full(100), full(200))
        ]  # fmt: skip
        recorder = Recorder(journal, fills=True)
        assert recorder.ledger.pending.gaps == []
        assert recorder.ledger.newest == full(200)


LAGGED = "why; a line lagged, or deals were being asked for"


def bring_with_a_lag(recorder: Recorder) -> None:
    """Bring a deal, and one by another line before which a line that lags may bring others."""
    recorder.frame("deal", 10)
    recorder.frame("deal", 90, until=10)


def test_a_kill_while_a_line_lags_leaves_a_gap_from_where_no_deal_is_lacking(
    journal_path: Path,
) -> None:
    """What was under way on it is lost; the rows of the other that are there do not hide that."""
    with recorder_at(journal_path) as recorder:
        bring_with_a_lag(recorder)
        recorder.frame("deal", 11, until=11)
        recorder.frame("deal", 95, until=11)
        recorder.frame("deal", 12, until=12)
    for _ in range(2):  # told once
        with recorder_at(journal_path) as recorder:
            recorder.ledger.program_started(Cause.PROGRAM_STOPPED, "why")
    with recorder_at(journal_path) as recorder:
        recorder.ledger.program_started(Cause.PROGRAM_STOPPED, "why")
        recorder.frame("deal", 200)
        recorder.frame("deal", 210)
        assert recorder.written == [
            gap("deal", 12, 95, Cause.PROGRAM_STOPPED, LAGGED),
            gap("deal", 95, 200, Cause.PROGRAM_STOPPED),
        ]
    with recorder_at(journal_path) as recorder:
        recorder.ledger.program_started(Cause.PROGRAM_STOPPED, "why")
        recorder.frame("deal", 300)
        assert recorder.written[2:] == [gap("deal", 210, 300, Cause.PROGRAM_STOPPED)]


def test_what_a_line_lagged_with_is_told_though_deals_are_recorded_no_more(
    journal_path: Path,
) -> None:
    """They may be recorded again in a year, and nothing else tells of it."""
    with recorder_at(journal_path) as recorder:
        bring_with_a_lag(recorder)
    for _ in range(2):  # told once
        with open_journal(journal_path) as journal:
            recorder = Recorder(journal, channels=("ticker",))
            recorder.ledger.program_started(Cause.PROGRAM_STOPPED, "why")
            assert recorder.written == [gap("deal", 10, 90, Cause.PROGRAM_STOPPED, LAGGED)]


def test_what_a_line_lagged_with_is_told_of_a_symbol_that_comes_with_a_later_list(
    journal_path: Path,
) -> None:
    """The start had no list, or one that lacked it."""
    with recorder_at(journal_path) as recorder:
        bring_with_a_lag(recorder)
    with recorder_at(journal_path) as recorder:
        recorder.ledger.listed(full(95), "why")
        recorder.frame("deal", 200)
        assert recorder.written == [
            gap("deal", 10, 90, Cause.NEWLY_LISTED, LAGGED),
            gap("deal", 90, 200, Cause.NEWLY_LISTED),
        ]


def test_what_a_line_lagged_with_is_not_forgotten_with_the_gaps_that_were_held(
    journal_path: Path,
) -> None:
    """A run without the symbol writes those; the next one with it tells of the rest."""
    with open_journal(journal_path) as journal:
        recorder = with_a_held_gap(journal)
        recorder.frame("deal", 300, until=250)
    with open_journal(journal_path) as journal:
        write_pending(journal.queue("btc"), journal.queue("gaps"))
    with recorder_at(journal_path) as recorder:
        recorder.ledger.program_started(Cause.PROGRAM_STOPPED, "why")
        assert recorder.written[-1] == gap("deal", 250, 300, Cause.PROGRAM_STOPPED, LAGGED)


def test_a_lag_that_is_over_leaves_no_gap(journal_path: Path) -> None:
    """The line has brought what it lagged with: the journal knows at once."""
    with recorder_at(journal_path) as recorder:
        bring_with_a_lag(recorder)
        recorder.frame("deal", 91, until=91)
    with recorder_at(journal_path) as recorder:
        recorder.ledger.program_started(Cause.PROGRAM_STOPPED, "why")
        recorder.frame("deal", 200)
        assert recorder.written == [gap("deal", 91, 200, Cause.PROGRAM_STOPPED)]


def test_a_symbol_that_stops_while_a_line_lags_writes_that(journal_path: Path) -> None:
    """Its successor has other lines, which do not bring it."""
    with recorder_at(journal_path) as recorder:
        bring_with_a_lag(recorder)
        recorder.ledger.stopped(Cause.SYMBOL_STOPPED, "why")
        assert recorder.written[0] == gap("deal", 10, 90, Cause.SYMBOL_STOPPED, LAGGED)


def test_after_a_kill_while_deals_are_asked_for_none_is_stored_twice(journal_path: Path) -> None:
    """The uncertain time is told, and not fetched: most of what is there of it is not known."""
    ticks = 13
    with open_journal(journal_path) as journal:
        recorder = Recorder(journal, fills=True)
        recorder.frame("deal", 1000)
        recorder.ledger.note_uncertain((full(1000), full(2000)))
        for second in range(2, 200):
            recorder.frame("deal", 1000 * second)
            for _ in range(ticks):
                recorder.frame("ticker", 1000 * second)
        journal.flush()
    with recorder_at(journal_path, fills=True) as recorder:
        recorder.ledger.program_started(Cause.PROGRAM_STOPPED, "why")
        recorder.frame("deal", 205_000)
        last = [
            (Row(full(1000 * second), "d", f"{1000 * second}"), 0) for second in range(106, 206)
        ]
        assert recorder.ledger.fill(last) == 5
        assert recorder.written == [
            gap("deal", 1000, 199_000, Cause.PROGRAM_STOPPED, LAGGED),
            gap("deal", 199_000, 205_000, Cause.PROGRAM_STOPPED,
                "why; filled whole: 5 deals from 2026-09-15T18:50:00.000Z"),
        ]  # fmt: skip
        deals = [row[0] for row in rows_of(recorder.queue) if row[1] == "d"]
        assert len(deals) == len(set(deals)) == 205
