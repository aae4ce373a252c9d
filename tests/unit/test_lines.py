"""Several lines make one stream: nothing twice, nothing back, and missed only what nobody had."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs
import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from mexc_trio.exchange.heard import Heard
from mexc_trio.exchange.lines import LineSource, Merger
from mexc_trio.exchange.merging import LATE
from mexc_trio.exchange.messages import Data
from mexc_trio.exchange.missed import Missed
from mexc_trio.rows import CHANNELS, Cause, Channel, Row
from mexc_trio.spans import HOUR, LATEST

START = 1_764_000_000_000
WINDOW = 60.0


def deals(*times: int, ids: Sequence[int] | None = None, text: str = "1|2|1") -> Data:
    """Return deals of these times."""
    rows = [Row(START + at, "d", text) for at in times]
    numbers = [START + at for at in times] if ids is None else ids
    return Data("BTC_USDT", "deal", rows, 0, 0, (), numbers)


def book(version: int, at: int | None = None) -> Data:
    """Return a book."""
    ts = START + (version if at is None else at)
    return Data("BTC_USDT", "depth", [Row(ts, "dp", f"[{version},1]|")], 0, version)


def ticker(at: int) -> Data:
    """Return a ticker."""
    return Data("BTC_USDT", "ticker", [Row(START + at, "t", f"{at}||||")], 0, 0)


def dead(text: str, at: int = 0) -> Data:
    """Return a dead letter of no channel."""
    return Data("BTC_USDT", None, [Row(START + at, "dl", text)], 1, 0, CHANNELS)


def lines(count: int = 2) -> tuple[Merger, list[LineSource]]:
    """Return a merger with so many lines that are subscribed to everything."""
    merger = Merger(WINDOW)
    sources = [merger.join(str(number)) for number in range(count)]
    for source in sources:
        for channel in CHANNELS:
            merger.subscribed(source, channel)
    return merger, sources


def joined(merger: Merger, since: int = 0) -> LineSource:
    """Return one more line, which is subscribed to everything since then; 0 is not known."""
    source = merger.join()
    for channel in CHANNELS:
        merger.subscribed(source, channel, since)
    return source


# --- Deals ---


def test_a_deal_is_taken_from_whoever_brings_it_first() -> None:
    """However the lines cut their arrays, each deal comes out once."""
    merger, (a, b) = lines()
    assert merger.take(a, first := deals(1, 2), 0.0) == (first,)
    assert merger.take(b, deals(1, 2, 3), 0.1) == (deals(3),)
    assert merger.take(a, deals(3), 0.2) == ()


def test_equal_deals_with_ids_of_their_own_are_all_kept() -> None:
    """The id says which of them a line brings."""
    merger, (a, b) = lines()
    assert merger.take(a, two := deals(1, 1, ids=[7, 8]), 0.0) == (two,)
    assert merger.take(b, deals(1, ids=[8]), 0.0) == ()
    assert merger.take(b, deals(1, 1, ids=[9, 7]), 0.0) == (deals(1, ids=[9]),)


def test_equal_deals_without_ids_are_counted() -> None:
    """Two of one line stay two; the other line's are the same ones, as far as they go."""
    merger, (a, b) = lines()
    assert merger.take(a, two := deals(1, 1, ids=[]), 0.0) == (two,)
    assert merger.take(b, deals(1, ids=[]), 0.0) == ()
    assert merger.take(b, deals(1, 1, ids=[]), 0.0) == (deals(1, ids=[]),)


def test_what_lacks_ids_is_the_same_as_what_has_them() -> None:
    """Where one line has none: only what is more than known is new."""
    merger, (a, b) = lines()
    merger.take(a, deals(1, 1, 2, ids=[4, 5, 6]), 0.0)
    assert merger.take(b, deals(1, 1, 2, 3, ids=[]), 1.0) == (deals(3, ids=[]),)
    assert merger.take(a, deals(3), 2.0) == ()
    assert merger.take(a, later := deals(4), 2.0) == (later,)


def test_a_connection_made_anew_may_bring_again_what_the_last_one_brought() -> None:
    """Its deals without ids are counted from nothing."""
    merger, (a,) = lines(1)
    merger.take(a, deals(1, 2, ids=[]), 0.0)
    merger.lost(a)
    again = merger.join()
    assert merger.take(again, deals(2, 3, ids=[]), 1.0) == (deals(3, ids=[]),)


def test_a_deal_that_was_fetched_is_not_taken_from_a_line_that_brings_it_late() -> None:
    """Whether the exchange's list has its number or not; another one that is equal is taken."""
    merger, (a, _) = lines()
    row = deals(1).rows[0]
    merger.know([(row, START + 1)], 0.0)
    assert merger.take(a, deals(1), 0.1) == ()
    merger.know([(deals(2).rows[0], 0)], 0.2)
    assert merger.take(a, deals(2), 0.3) == ()
    assert merger.take(a, again := deals(1, ids=[7]), 0.4) == (again,)


def test_dead_letters_come_once_whatever_their_time() -> None:
    """The time of one may be that of receipt, which is another on each line."""
    merger, (a, b) = lines()
    assert merger.take(a, first := dead("{", 1), 0.0) == (first,)
    assert merger.take(b, dead("{", 5), 0.0) == ()
    mixed = Data("BTC_USDT", "deal", [*deals(1).rows, Row(0, "dl", "x")], 1, 0, ("deal",), [5])
    assert merger.take(a, mixed, 0.0) == (mixed,)
    (taken,) = merger.take(
        b, msgspec.structs.replace(mixed, rows=[*deals(2).rows, Row(0, "dl", "x")]), 0.0
    )
    assert (taken.rows, taken.dead, taken.missed) == (deals(2).rows, 0, ())


def test_memory_is_bounded_by_time() -> None:
    """What is older than two windows is forgotten, what is younger than one is known."""
    merger, (a, b) = lines()
    for second in range(1000):
        merger.take(a, deals(second), float(second))
        assert merger.take(b, deals(max(0, second - int(WINDOW))), float(second)) == ()
    assert len(merger._once._seen) + len(merger._once._before) <= 2 * WINDOW + 1  # noqa: SLF001


# --- Books and tickers ---


def test_one_line_leads_and_its_books_alone_are_stored() -> None:
    """Books are sampled for each connection: the union would be a doubled rate."""
    merger, (a, b) = lines()
    for version in range(1, 40, 2):
        assert merger.take(a, book(version), version / 10) == [book(version)]
        assert merger.take(b, book(version + 1), version / 10 + 0.05) == ()


def test_another_line_takes_over_at_once_with_what_it_holds() -> None:
    """From its first book that is newer than the last one stored; never back."""
    merger, (a, b) = lines()
    merger.take(a, book(5), 0.0)
    for version in (4, 6, 7):
        assert merger.take(b, book(version), 0.1) == ()
    assert merger.lost(a) == [book(6), book(7)]
    assert merger.missed == []
    assert merger.take(b, book(8), 0.2) == [book(8)]


def test_another_line_takes_over_from_a_leader_that_is_late() -> None:
    """It need not be known to be lost."""
    merger, (a, b) = lines()
    merger.take(a, ticker(1), 0.0)
    assert merger.take(b, ticker(2), 1.0) == ()
    assert merger.take(b, ticker(3), 1.1 + LATE) == [ticker(2), ticker(3)]
    assert merger.take(a, ticker(4), 2.0 + LATE) == ()


def test_a_line_that_has_brought_nothing_yet_does_not_lead() -> None:
    """What another brings meanwhile is not kept back, or it would end a gap that it is before."""
    merger, (a, _, c) = lines(3)
    merger.take(a, book(1), 0.0)
    merger.lost(a)
    assert merger.take(c, book(5), 1.0) == [book(5)]


def test_a_new_leader_waits_until_it_has_passed_the_last_one_stored() -> None:
    """It lags behind the line that it follows."""
    merger, (a, b) = lines()
    merger.take(a, book(10), 0.0)
    merger.lost(a)
    assert merger.take(b, book(9), 0.1) == ()
    assert merger.take(b, book(10), 0.2) == ()
    assert merger.take(b, book(11), 0.3) == [book(11)]


def test_the_last_book_again_on_the_first_connection_after_a_silence_is_stored() -> None:
    """As the exchange greets with: it shows that nothing has changed meanwhile."""
    merger, (a,) = lines(1)
    merger.take(a, book(10), 0.0)
    merger.lost(a)
    assert merger.take(merger.join(), book(10), 1.0) == [book(10)]


def test_what_was_missed_waits_for_a_line_that_has_not_been_heard_yet() -> None:
    """It is subscribed to, and its first message shows since when: before the other was lost."""
    merger, (a, b) = lines()
    merger.take(a, ticker(10), 0.0)
    merger.lost(a)
    assert merger.missed == []
    assert merger.take(b, ticker(9), 0.1) == ()
    assert merger.missed == []
    merger, (a, b) = lines()
    merger.take(a, ticker(10), 0.0)
    merger.lost(a)
    merger.take(b, ticker(12), 0.1)
    assert Missed("ticker", START + 10, START + 12) in merger.missed


def test_numbers_that_begin_anew_are_believed_after_a_while() -> None:
    """The exchange may count versions from the start; what came meanwhile is not lost."""
    merger, (a,) = lines(1)
    merger.take(a, book(1_000_000), 0.0)
    merger.lost(a)
    b = merger.join()
    stored: list[Data] = []
    for version in range(1, 30):
        stored += merger.take(b, book(version), float(version))
    assert stored == [book(version) for version in range(1, 30)]


def test_a_line_with_wild_numbers_that_does_not_lead_harms_nothing() -> None:
    """Whether far ahead or far behind: the leader goes on, and little is buffered."""
    merger, (a, ahead, behind) = lines(3)
    for second in range(1, 500):
        assert merger.take(a, book(second), float(second)) == [book(second)]
        assert merger.take(ahead, book(10**15 + second), second + 0.1) == ()
        assert merger.take(behind, book(1), second + 0.2) == ()
    buffered = merger._sampled["depth"]._buffered  # noqa: SLF001
    assert max(map(len, buffered.values())) < 20


def test_a_single_line_is_believed_whatever_it_says() -> None:
    """What one connection brings in its own order is stored as it came."""
    merger, (a,) = lines(1)
    for version in (5, 5, 3, 0, 9, 1):
        assert merger.take(a, book(version), 0.0) == [book(version)]
    for at in (5, 5, 3, 9):
        assert merger.take(a, ticker(at), 0.0) == [ticker(at)]


def test_a_leader_that_is_silent_gives_way_to_a_line_that_is_not() -> None:
    """What that holds is stored at once, and what it brings from then on."""
    merger, (a, b) = lines()
    merger.take(a, ticker(1), 0.0)
    assert merger.take(b, ticker(2), 1.0) == ()
    assert merger.silent(a, "ticker") == [ticker(2)]
    assert merger.take(b, ticker(3), 60.0) == [ticker(3)]
    assert merger.silent(b, "ticker") == (), "there is nobody else"


# --- What nobody had ---


def test_the_loss_of_one_line_misses_nothing() -> None:
    """As long as the other has been there since before."""
    merger, (a, b) = lines()
    for at in (1, 2):
        merger.take(a, ticker(at), 0.0)
        merger.take(b, ticker(at), 0.0)
    merger.lost(a)
    assert merger.missed == []
    assert all(map(merger.is_received, CHANNELS))


def test_the_loss_of_the_last_line_misses_everything_from_its_last_rows_on() -> None:
    """Each channel from its own last row."""
    merger, (a,) = lines(1)
    merger.take(a, deals(3), 0.0)
    merger.take(a, ticker(5), 0.0)
    merger.lost(a)
    assert set(merger.missed) == {
        Missed("deal", START + 3, None),
        Missed("ticker", START + 5, None),
        Missed("depth", START + 5, None),
    }
    assert not any(map(merger.is_received, CHANNELS))


def test_a_line_that_hung_reveals_what_was_missed_before_the_other_came() -> None:
    """The one heard nothing more from 10 on, the other came at 20: known when the first is lost."""
    merger, (a,) = lines(1)
    merger.take(a, deals(8), 0.0)
    merger.take(a, ticker(10), 0.0)
    b = joined(merger)
    merger.take(b, ticker(20), 5.0)
    merger.take(b, deals(25), 5.0)
    merger.lost(a)
    assert set(merger.missed) == {
        Missed("deal", START + 8, START + 25),
        Missed("ticker", START + 10, START + 20),
        Missed("depth", START + 10, None),
    }


def test_a_channel_that_is_silent_on_one_line_is_missed_only_if_the_others_lack_it() -> None:
    """And had again with its own next message, not with its acknowledgement."""
    merger, (a, b) = lines()
    for source in (a, b):
        merger.take(source, deals(1), 0.0)
        merger.take(source, ticker(2), 0.0)
    merger.silent(a, "deal")
    assert merger.missed == []
    merger.silent(b, "deal")
    assert [one[:3] for one in merger.missed] == [("deal", START + 1, None)]
    merger.subscribed(a, "deal")
    merger.take(a, ticker(9), 1.0)
    assert not merger.is_received("deal")
    merger.take(a, deals(10), 1.0)
    assert merger.is_received("deal")


def test_before_its_first_deal_a_line_that_lags_is_sure_of_none_after_its_first_message() -> None:
    """Where nothing else is known, that is where others may be lacking from."""
    merger, (a, b) = lines(2)
    merger.take(a, ticker(10), 0.0)
    merger.take(b, deals(90), 1.0)
    assert merger.deals_until() - START == 10


def test_a_line_that_is_subscribed_and_not_heard_yet_has_what_comes() -> None:
    """Its acknowledgement says since when: before the other was lost, so nothing is missed."""
    merger, (a,) = lines(1)
    merger.take(a, ticker(10), 0.0)
    b = joined(merger, START + 12)
    merger.take(a, deals(13), 0.0)
    merger.lost(a)
    merger.take(b, deals(20), 1.0)
    assert merger.missed == []
    merger, (a,) = lines(1)
    merger.take(a, ticker(10), 0.0)
    b = joined(merger, START + 12)
    merger.lost(a)
    assert {one[:3] for one in merger.missed} == {(one, START + 10, None) for one in CHANNELS}


def test_other_symbols_show_until_when_a_connection_lived() -> None:
    """What is not heard of a quiet symbol then was not sent, and nothing is missed."""
    merger, (a,) = lines(1)
    a.heard.note(START, 0.0)
    merger.take(a, ticker(10), 0.0)
    b = merger.join()
    b.heard.note(START + 5000, 5.0)
    for channel in CHANNELS:
        merger.subscribed(b, channel, START + 5000)
    assert not merger.covers(b, a)
    a.heard.note(START + 6000, 6.0)
    assert merger.covers(b, a)
    merger.lost(a)
    assert merger.missed == []


def test_other_symbols_may_be_ahead_by_a_second() -> None:
    """A pong overtakes what the exchange has yet to send of the symbol, which is lost, and told."""
    merger, (a,) = lines(1)
    merger.take(a, ticker(10), 0.0)
    a.heard.note(START + 5500, 5.5)
    joined(merger, START + 5000)
    merger.lost(a)
    assert {one.channel for one in merger.missed} == set(CHANNELS)
    assert Missed("ticker", START + 10, None) in merger.missed


def test_one_wrong_time_does_not_say_until_when_a_connection_lived() -> None:
    """Neither far ahead nor far back, at whatever time of day the first one was."""
    heard = Heard()
    for wrong in (0, LATEST):
        heard.note(wrong, 0.0)
        assert heard.ts == 0
    heard.note(START - 1000, 9.0)
    heard.note(START, 10.0)
    for wrong in (0, START - 70_000, START + 90_000, LATEST):
        heard.note(wrong, 20.0)
        assert heard.ts == START
    heard.note(START + 8000, 20.0)
    assert heard.ts == START + 8000


@pytest.mark.parametrize("wrong", [-3_600_000, 3_600_000])
def test_a_wrong_first_time_does_not_either(wrong: int) -> None:
    """Nor for as long as the connection lives: it would hide what that has missed since it hung."""
    merger = Merger(WINDOW)
    a = merger.join()
    a.heard.note(START + wrong, 0.0)
    merger.subscribed(a, "ticker", START)
    for second in range(1, 21):
        a.heard.note(START + second * 1000, float(second))
        merger.take(a, ticker(second * 1000), float(second))
    assert a.reach == START + 20_000
    b = merger.join()
    merger.subscribed(b, "ticker", START + 100_000)
    merger.take(b, ticker(100_500), 100.5)
    merger.lost(a)
    assert [one[:3] for one in merger.missed] == [("ticker", START + 20_000, START + 100_500)]


def test_a_gap_that_a_silent_lines_own_message_ends_is_uncertain() -> None:
    """Perhaps it missed nothing: the other one broke before it was heard again itself."""
    merger, (a, b) = lines()
    for source in (a, b):
        merger.take(source, ticker(1), 0.0)
    merger.silent(b, "ticker")
    assert merger.missed == []
    merger.take(b, ticker(60_000), 60.0)
    merger.lost(a, why := (Cause.CONNECTION_LOST, "it broke"))
    (missed,) = merger.missed
    assert missed == Missed("ticker", START + 1, START + 60_000, why, is_uncertain=True)


def test_a_gap_is_uncertain_if_the_line_that_was_silent_is_lost_as_well() -> None:
    """Before it is known that the one that broke had nothing of the time before the next."""
    merger, (a, b) = lines()
    for source in (a, b):
        merger.take(source, ticker(1), 0.0)
    merger.silent(b, "ticker")
    c = joined(merger, START + 50)
    merger.take(b, deals(40), 1.0)
    merger.lost(b)
    merger.take(c, ticker(60), 1.0)
    merger.lost(a)
    missed = {one.channel: one for one in merger.missed}
    assert missed["ticker"][1:3] == (START + 1, START + 60)
    assert missed["ticker"].is_uncertain
    assert not missed["deal"].is_uncertain


def test_a_gap_says_what_befell_the_last_line_that_had_the_channel() -> None:
    """Not what has befallen another channel meanwhile."""
    merger, (a, b) = lines()
    for source in (a, b):
        merger.take(source, ticker(1), 0.0)
    merger.take(b, ticker(5), 0.0)
    c = merger.join()
    merger.subscribed(c, "ticker")
    merger.lost(a, (Cause.CONNECTION_LOST, "a"))
    merger.lost(b, (Cause.CONNECTION_LOST, "b"))
    merger.silent(c, "deal", (Cause.CHANNEL_SILENT, "no deal"))
    merger.missed.clear()
    merger.take(c, ticker(9), 1.0)
    (missed,) = merger.missed
    assert missed == Missed("ticker", START + 5, START + 9, (Cause.CONNECTION_LOST, "b"))


# --- Everything together ---


@attrs.frozen
class Session:
    """One connection of a line in the story: what it hears, how late, and when it is known lost."""

    line: int
    begins: int
    """The first message it may hear, by number."""
    ends: int
    """The last one that it hears: its connection hangs afterwards."""
    delay: int
    """How long a message takes to it."""
    known: int
    """How much later its loss is known."""
    is_dated: bool
    """Whether the acknowledgements of its subscriptions say when they were."""


SPAN = 60
Look = Callable[[Sequence[Data], Sequence[Missed], int], None]


@attrs.define
class Told:
    """What comes of it, as the ledger would have it."""

    stored: list[Data] = attrs.field(factory=list)
    missed: list[Missed] = attrs.field(factory=list)
    """With what is missed up to now."""
    found: list[float] = attrs.field(factory=list)
    """When each of them was found."""
    opened: dict[Channel, int] = attrs.field(factory=dict)
    """The places of those that have not ended."""

    def take(self, merger: Merger, taken: Sequence[Data], when: float) -> None:
        """Note what a merger has returned."""
        kept = merger.before_missed(taken)
        for one in merger.missed:
            if one.end is None and one.channel in self.opened:
                continue
            if one.end is None:
                self.opened[one.channel] = len(self.missed)
            self.missed.append(one)
            self.found.append(when)
        merger.missed.clear()
        left = [one for one in taken if one not in kept]
        for message in left:
            place = self.opened.pop(message.channel, None) if message.channel else None
            if place is not None:
                self.missed[place] = self.missed[place]._replace(end=message.rows[0].ts)
        self.stored += [*kept, *left]

    def without_reason(self, sessions: Sequence[Session]) -> list[Missed]:
        """List what was had all the time by lines that were known when it was found."""
        left = []
        for one, when in zip(self.missed, self.found, strict=True):
            known = [session for session in sessions if session.begins + session.delay <= when]
            # What ends it may be older, from a line that lags, of which nobody knew then.
            end = one.end if one.end is not None and one.end > one.start else START + SPAN + 1
            if heard(known) >= {*range(one.start + 1 - START, end + 1 - START)}:
                left.append(one)
        return left


def heard(sessions: Iterable[Session]) -> set[int]:
    """Return the moments of which somebody has heard."""
    return {at for one in sessions for at in range(one.begins + 1, one.ends + 1)}


def story(chance: random.Random, is_dated: float = 0.5) -> list[Session]:
    """Make up lines with connections one after the other."""
    sessions = []
    for line in range(chance.randint(1, 3)):
        at = chance.randint(0, 10)
        while at < SPAN:
            ends = min(SPAN, at + chance.randint(0, 40))
            delay, known = chance.randint(0, 8), chance.randint(0, 12)
            sessions.append(Session(line, at, ends, delay, known, chance.random() < is_dated))
            # The next connection is made after the loss of this one is known.
            at = ends + delay + known + chance.randint(1, 6)
    return sessions


def happenings(sessions: Sequence[Session]) -> list[tuple[float, int, Session, int]]:
    """Return when what happens, in order.

    0 is a connection, 1 an acknowledgement, 2 a message and which, 3 a loss.
    """
    found: list[tuple[float, int, Session, int]] = []
    for session in sessions:
        found.append((session.begins, 0, session, 0))
        if session.begins < session.ends:
            found.append((session.begins + session.delay, 1, session, 0))
        heard = range(session.begins + 1, session.ends + 1)
        found += [(at + session.delay, 2, session, at) for at in heard]
        found.append((session.ends + session.delay + session.known + 0.5, 3, session, 0))
    return sorted(found, key=lambda one: (one[0], one[1], one[2].line))


def nothing(stored: Sequence[Data], missed: Sequence[Missed], until: int) -> None:
    """Look at nothing."""


def tell(
    sessions: Sequence[Session],
    messages: Sequence[Data | None],
    stored_deals: Look = nothing,
    silences: Mapping[Session, tuple[float, Channel]] | None = None,
    ahead: int = 0,
) -> Told:
    """Let it happen; return what comes of it.

    Args:
        sessions: the lines' connections.
        messages: what the exchange sends; None is a message of another symbol.
        silences: when a channel of a connection is taken for silent.
        ahead: milliseconds by which the clock of the first line is ahead, but for deals.
        stored_deals: is called with the same, and `Merger.deals_until`, whenever deals are stored.
    """
    merger, told = Merger(WINDOW), Told()
    opened: dict[Session, LineSource] = {}
    all_of_it = happenings(sessions)
    all_of_it += [(when, 4, session, 0) for session, (when, _) in (silences or {}).items()]
    for when, kind, session, at in sorted(all_of_it, key=lambda one: (one[0], one[1])):
        taken: Sequence[Data] = ()
        if kind == 0:
            opened[session] = merger.join(heard=Heard(lag=0))
        source, off = opened[session], 0 if session.line else ahead
        if kind == 1:
            ts = START + session.begins + off if session.is_dated else 0
            source.heard.note(ts, when)
            for channel in CHANNELS:
                merger.subscribed(source, channel, ts)
        elif kind == 2:
            if (message := messages[at - 1]) is not None:
                if off and message.channel != "deal":
                    rows = [row._replace(ts=row.ts + off) for row in message.rows]
                    message = msgspec.structs.replace(message, rows=rows)
                taken = merger.take(source, message, when)
            source.heard.note(START + at + off, when)
        elif kind == 3:
            taken = merger.lost(source)
        elif kind == 4 and silences and source in merger.sources:
            taken = merger.silent(source, silences[session][1])
        told.take(merger, taken, when)
        if any(message.channel == "deal" for message in taken):
            stored_deals(told.stored, told.missed, merger.deals_until())
    return told


def sent(kinds: Sequence[Channel | None], *, with_ids: bool = True) -> list[Data | None]:
    """Return one message for each moment."""
    ids: Sequence[int] | None = None if with_ids else []
    return [
        {"deal": deals(at, ids=ids), "depth": book(at), "ticker": ticker(at), None: None}[kind]
        for at, kind in enumerate(kinds, 1)
    ]


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=500, deadline=None)
def test_any_interleaving_delay_loss_and_reconnect(seed: int, with_ids: bool) -> None:
    """Each deal that any line heard once, books never back, and missed what nobody heard.

    At each moment from 1 to SPAN the exchange sends one message: a deal, a book, a ticker, or one
    of another symbol on the same connections. Where all acknowledgements say when they were,
    nothing is missed but what no line that is known to be there has heard.
    """
    chance = random.Random(seed)
    is_dated = chance.choice((0.5, 1.0))
    sessions = story(chance, is_dated)
    kinds = [chance.choice((*CHANNELS, None)) for _ in range(SPAN)]
    told = tell(sessions, sent(kinds, with_ids=with_ids))

    moments = heard(sessions)
    times = {
        channel: [one.rows[0].ts - START for one in told.stored if one.channel == channel]
        for channel in CHANNELS
    }
    assert sorted(times["deal"]) == [at for at in sorted(moments) if kinds[at - 1] == "deal"]
    for channel in ("depth", "ticker"):
        assert times[channel] == sorted(times[channel])

    spans = [
        (one.channel, one.start - START, (one.end or START + SPAN + 1) - START)
        for one in told.missed
    ]
    first = min((at for at in moments if kinds[at - 1]), default=SPAN)
    for at in set(range(first, SPAN + 1)) - moments:
        for channel in CHANNELS:
            assert any(name == channel and a < at < b for name, a, b in spans), (at, channel)
    if all(one.is_dated for one in sessions):
        assert not told.without_reason(sessions)
    event("missed" if told.missed else "nothing missed")


@given(st.integers(0, 2**32), st.sampled_from([-HOUR, HOUR]))
@settings(max_examples=100, deadline=None)
def test_a_line_whose_clock_is_an_hour_off_costs_no_deal(seed: int, ahead: int) -> None:
    """Nor do books go back, and the loss of all lines is told, though from when may be wrong."""
    chance = random.Random(seed)
    sessions = story(chance)
    kinds = [chance.choice((*CHANNELS, None)) for _ in range(SPAN)]
    told = tell(sessions, sent(kinds), ahead=ahead)
    times = [one.rows[0].ts - START for one in told.stored if one.channel == "deal"]
    assert sorted(times) == [at for at in sorted(heard(sessions)) if kinds[at - 1] == "deal"]
    versions = [one.version for one in told.stored if one.channel == "depth"]
    assert versions == sorted(set(versions))
    assert told.opened.keys() == {*CHANNELS}


@given(st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_channels_that_are_taken_for_silent_leave_nothing_untold(seed: int) -> None:
    """Whoever leads, and whatever a line had kept: what nobody heard is missed, and deals are not.

    A channel is missed only from its first row on. If it was heard all the time, a line was silent
    meanwhile, and that is said.
    """
    chance = random.Random(seed)
    sessions = story(chance, 1.0)
    kinds = [chance.choice((*CHANNELS, None)) for _ in range(SPAN)]
    silences = {
        one: (chance.uniform(one.begins + 0.5, one.ends + one.delay + 1), chance.choice(CHANNELS))
        for one in sessions
    }
    told = tell(sessions, sent(kinds), silences=silences)
    moments = heard(sessions)
    for channel in CHANNELS:
        times = [one.rows[0].ts - START for one in told.stored if one.channel == channel]
        if channel == "deal":
            assert sorted(times) == [at for at in sorted(moments) if kinds[at - 1] == "deal"]
        else:
            assert times == sorted(times)
        spans = [(one.start, one.end or LATEST) for one in told.missed if one.channel == channel]
        for at in set(range(min(times, default=SPAN) + 1, SPAN + 1)) - moments:
            assert any(start < START + at < end for start, end in spans), (channel, at)
    for one in told.without_reason(sessions):
        assert one.why[0] is Cause.CHANNEL_SILENT or one.is_uncertain


@given(st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_a_kill_at_any_moment_loses_no_deal_before_the_gap_of_the_next_start(seed: int) -> None:
    """What is under way on a line that lags goes with the program: its gap begins before that."""
    chance = random.Random(seed)
    sessions = story(chance)
    kinds = [chance.choice((*CHANNELS, None)) for _ in range(SPAN)]

    def killed(stored: Sequence[Data], missed: Sequence[Missed], until: int) -> None:
        there = {row.ts - START for one in stored if one.channel == "deal" for row in one.rows}
        spans = [
            (one.start - START, (one.end or START + SPAN + 1) - START)
            for one in missed
            if one.channel == "deal"
        ]
        for at in range(min(there), until - START):
            if kinds[at - 1] == "deal" and at not in there:
                assert any(start < at < end for start, end in spans), (at, until - START)
        newest = max(there)
        event("begins before the newest deal" if until - START < newest else "at the newest deal")

    tell(sessions, sent(kinds), killed)
