"""What of the exchange's last deals falls into a gap: each once, and the ledger true."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mexc_trio.exchange.backfill import MOST_DEALS, Deal, Fill, LastDeals, fall_into
from mexc_trio.exchange.decoding import decode_deals
from mexc_trio.exchange.digits import Malformed
from mexc_trio.exchange.messages import Data
from mexc_trio.filled import Filled
from mexc_trio.rows import Row

BASE = 1_789_498_000_000


@st.composite
def markets(draw: st.DrawFn) -> list[Deal]:
    """Return the deals of a market: in order, many in a millisecond, some of them alike."""
    steps = draw(st.lists(st.sampled_from([0, 0, 1, 2, 50]), min_size=1, max_size=160))
    texts = draw(st.lists(st.sampled_from(["7|1|1", "7|1|2", "7.5|2|1"]), min_size=len(steps)))
    at, deals = BASE, []
    for number, (step, text) in enumerate(zip(steps, texts, strict=False)):
        at += step
        deals.append((Row(at, "d", text), number + 1))
    return deals


def without_ids(deals: Sequence[Deal]) -> list[Deal]:
    """Return deals as a source has them that does not number them."""
    return [(row, 0) for row, _ in deals]


def known_of(*pieces: Sequence[Deal], room: int = 20 * MOST_DEALS) -> LastDeals:
    """Return what a symbol knows after it was given these, one frame each."""
    known = LastDeals()
    known.keep(room)
    for piece in pieces:
        rows, ids = [row for row, _ in piece], [id_ for _, id_ in piece]
        known.note(Data("BTC_USDT", "deal", rows, ids=ids))
    return known


def rows_of(deals: Sequence[Deal]) -> list[Row]:
    """Return the rows."""
    return [row for row, _ in deals]


@given(markets(), st.data(), st.booleans(), st.booleans())
def test_of_a_gap_each_deal_is_stored_once_and_the_ledger_is_true(
    market: list[Deal], data: st.DataObject, ids: bool, rest_ids: bool
) -> None:
    """For any market, gap, and moment of the answer: nothing twice, and nothing silently missing.

    With ids on both sides always; without them, deals that are alike in one millisecond at the
    edge of what the answer has cannot be told apart, and count as the same.
    """
    first = data.draw(st.integers(0, len(market) - 1), "the first that is missed")
    end = data.draw(st.integers(first, len(market) - 1), "the first that is received again")
    asked = data.draw(st.integers(end, len(market) - 1), "the last when it was asked")
    before, gap, since = market[:first], market[first:end], market[end:]
    socket = market if ids else without_ids(market)
    room = data.draw(st.sampled_from([MOST_DEALS, 2 * MOST_DEALS]), "deals that are known")
    known = known_of(socket[:first], socket[end:], room=room)
    answer = (market if rest_ids else without_ids(market))[: asked + 1][-MOST_DEALS:]
    start = before[-1][0].ts if before else BASE - 1
    fill = fall_into((start, since[0][0].ts), known, answer)
    missed = rows_of(gap)
    if fill is None:
        assert asked < len(market) - MOST_DEALS, "all that came since it was asked is forgotten"
        return
    stored = rows_of([*before, *since, *fill.deals])
    # Nothing twice: of each row no more than there were.
    for row in set(rows_of(fill.deals)):
        assert stored.count(row) <= rows_of(market).count(row)
        assert start <= row.ts <= since[0][0].ts
    assert rows_of(fill.deals) == sorted(rows_of(fill.deals), key=lambda row: row.ts)
    # What the ledger says is filled is.
    if fill.filled is None:
        assert not fill.deals
        return
    assert fill.filled.deals == len(fill.deals)
    from_when = fill.filled.since(start)
    covered = [row for row in missed if row.ts >= from_when]
    reaches_back = len(answer) == asked + 1 and bool(before)
    if not known.goes_back_to(start):
        return  # more has come since than is usual, and what is in doubt was left out
    if (ids and rest_ids) or len(set(rows_of(market))) == len(market):
        assert rows_of(fill.deals)[len(fill.deals) - len(covered) :] == covered
        assert fill.filled.whole or not reaches_back
        assert rows_of(fill.deals) == missed or not reaches_back


@given(markets(), st.data())
@example([(Row(BASE, "d", "7|1|1"), 1), (Row(BASE, "d", "7|1|1"), 2)], None)
def test_what_is_filled_is_not_filled_again(market: list[Deal], data: st.DataObject | None) -> None:
    """An answer that is used twice brings nothing the second time."""
    first = 1 if data is None else data.draw(st.integers(1, max(1, len(market) - 1)))
    end = first if data is None else data.draw(st.integers(first, len(market)))
    if end >= len(market):
        return
    known = known_of(market[:first], market[end:])
    gap = market[first - 1][0].ts, market[end][0].ts
    fill = fall_into(gap, known, market[-MOST_DEALS:])
    assert fill is not None
    known.filled.extend(fill.deals)
    again = fall_into(gap, known, without_ids(market[-MOST_DEALS:]))
    assert again is None or not again.deals


def deals(*times: int, text: str = "7|1|1") -> list[Deal]:
    """Return deals without ids at some milliseconds."""
    return [(Row(BASE + ts, "d", text), 0) for ts in times]


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (deals(), None),  # an empty list
        (deals(5, 10, 12, 15), None),  # it lags behind the deal that ended the gap
        (deals(5, 10, 15, 20, 25, text="9|9|2"), None),  # of another market
        (deals(5, 10, 12, 15, 20), Fill(deals(12, 15), Filled(2, BASE + 12, whole=True))),
        (deals(12, 15, 20, 21), Fill(deals(12, 15), Filled(2, BASE + 12, whole=False))),
        (deals(10, 20), Fill([], Filled(0, 0, whole=True))),  # there were none
        (deals(20, 21), Fill((), None)),  # too many have come since
    ],
)
def test_how_far_an_answer_fills_a_gap(answer: list[Deal], wanted: Fill | None) -> None:
    """Whole, from its first deal on, or not at all."""
    assert fall_into((BASE + 10, BASE + 20), known_of(deals(9, 10, 20)), answer) == wanted


def test_zeros_at_the_end_of_a_number_make_no_other_deal() -> None:
    """REST may write 7.50 where the socket wrote 7.5; what is stored is as REST wrote it."""
    known = known_of(deals(10, text="7.5|1|1"), deals(20, text="70|1|1"))
    answer = [*deals(10, 15, text="7.50|1.0|1"), *deals(20, text="70.0|1|1")]
    fill = fall_into((BASE + 10, BASE + 20), known, answer)
    assert fill == Fill(deals(15, text="7.50|1.0|1"), Filled(1, BASE + 15, whole=True))
    assert fall_into((BASE + 10, BASE + 20), known, deals(15, 20, text="7|1|1")) is None


def test_deals_of_earlier_runs_are_known() -> None:
    """They count as the oldest, and no more are kept than an answer can have."""
    known = LastDeals()
    known.note(Data("BTC_USDT", "deal", rows_of(deals(*range(200, 270)))))
    assert not known.oldest
    known.note_earlier(deals(*range(100)))
    assert rows_of(list(known.received)) == rows_of(deals(*range(70, 100), *range(200, 270)))
    assert known.oldest == BASE + 70


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{}", "no list"),
        (b'{"p":1,"v":1,"T":1,"t":1789498000000}', "no list"),
        (b'"deals"', "no list"),
        (b"null", "no list"),
        (b"[[1,2]]", "no list"),
        (b'[{"p":1,"v":1,"T":1,"t":1789498000000,"symbol":"ETH_USDT"}]', "another symbol"),
        (b'[{"p":1,"v":1,"T":3,"t":1789498000000}]', "a deal that is none"),
        (b'[{"v":1,"T":1,"t":1789498000000}]', "a deal that is none"),
        (b"[" * 100_000, "no list"),
    ],
)
def test_what_is_no_list_of_deals_is_none_of_ours(data: bytes, why: str) -> None:
    """One line says what is wrong with an answer."""
    with pytest.raises(Malformed, match=why):
        decode_deals("BTC_USDT", msgspec.Raw(data))


def test_a_list_of_deals_is_read_oldest_first_to_the_last_digit() -> None:
    """As MEXC's documentation shows it, without ids; with them they are kept."""
    text = (
        b'[{"p":109177.40,"v":14,"T":1,"O":1,"M":2,"t":1761883066648},'
        b'{"p":1.0917E+5,"v":12,"T":2,"t":1761883066624,"i":"77"}]'
    )
    read = decode_deals("BTC_USDT", msgspec.Raw(text))
    assert read.rows == [
        Row(1761883066624, "d", "109170|12|2"),
        Row(1761883066648, "d", "109177.40|14|1"),
    ]
    assert read.ids == [77, 0]


@given(st.integers(0, 10**6), st.integers(0, 4 * 10**12), st.booleans())
def test_the_ledgers_words_can_be_read(number: int, first: int, whole: bool) -> None:
    """What a row says of its filling is what was filled."""
    filled = Filled(number, first if number else 0, whole)
    assert Filled.of(f"no pong within 10 s{filled.text()}") == filled
    assert Filled.of("no pong; filled it is not") is None


def test_the_ledgers_words() -> None:
    """They are part of what users read."""
    assert Filled(37, BASE + 120, whole=True).text() == (
        "; filled whole: 37 deals from 2026-09-15T18:46:40.120Z"
    )
    assert Filled(1, BASE, whole=False).text() == "; filled: 1 deal from 2026-09-15T18:46:40.000Z"
    assert Filled(0, 0, whole=True).text() == "; filled whole: 0 deals"


def test_what_a_line_brings_late_does_not_push_out_newer_deals() -> None:
    """The last hundred of the exchange are known, whichever came last."""
    known = LastDeals()
    newer = [Row(at, "d", f"{at}|1|1") for at in range(200, 210)]
    older = [Row(at, "d", f"{at}|1|1") for at in range(100)]
    known.note(Data("BTC_USDT", "deal", newer), merged=True)
    known.note(Data("BTC_USDT", "deal", older), merged=True)
    assert [row for row, _ in known.received] == [*older[10:], *newer]
