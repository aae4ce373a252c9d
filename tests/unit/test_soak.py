"""The comparison at the end of a long trial: what it must not overlook."""

import pytest

from mexc_trio.rows import Gap
from tools.exchange.records import Record
from tools.market import Channel, Market, Row
from tools.soak.made import Comparison, Made, in_turn
from tools.soak.readers import Sample, some_of

SYMBOL = "BTC_USDT"
START = 1_790_000_000_000


def market(frames: int) -> tuple[Made, list[Row]]:
    """Make frames of each channel, and the rows that they mean."""
    made, rows, market = Made(), [], Market(clock=lambda: START)
    channels: list[Channel] = ["deal", "depth.full", "ticker"]
    for number in range(frames):
        channel = channels[number % 3]
        record = Record(number, 1, SYMBOL, channel, market.frame(SYMBOL, channel, oddity=""))
        made.note(record)
        rows += record.rows or []
    return made, rows


def compare(made: Made, stored: list[Row], *ledger: Gap) -> Comparison:
    """Compare one symbol."""
    comparison = Comparison()
    comparison.add(SYMBOL, made, stored, ledger)
    return comparison


def test_what_is_stored_as_it_was_sent_is_found_right() -> None:
    """Every row once and in order: nothing to complain of."""
    made, rows = market(30)
    result = compare(made, rows)
    assert (result.rows, result.missing, result.twice, result.strange) == (len(rows), 0, 0, 0)
    assert result.books_back == len(result.unaccounted) == len(result.untrue) == 0


@pytest.mark.parametrize(
    ("detail", "unaccounted"),
    [
        ("closed", 0),
        ("closed; filled whole: 3 deals from 2026-09-21T14:13:20.001Z", 1),
        ("closed; filled: 3 deals from 2030-01-01T00:00:00.000Z", 0),
    ],
)
def test_a_deal_that_is_lacking_must_be_told(detail: str, unaccounted: int) -> None:
    """Inside a gap, and not inside one that the ledger says was filled."""
    made, rows = market(30)
    lost = next(row for row in rows[10:] if row[1] == "d")
    kept = [row for row in rows if row != lost]
    assert len(compare(made, kept).unaccounted) == 1
    gap = Gap(SYMBOL, "deal", lost[0] - 5, lost[0] + 5, "connection lost", detail, 0, 0)
    result = compare(made, kept, gap)
    assert (result.missing, len(result.unaccounted)) == (1, unaccounted)
    assert len(result.untrue) == unaccounted


def test_rows_that_come_twice_or_from_nowhere_or_too_late_are_seen() -> None:
    """Each is another promise that was broken."""
    made, rows = market(30)
    books = [row for row in rows if row[1] == "dp"]
    deal = next(row for row in rows if row[1] == "d")
    assert compare(made, [*rows, deal]).twice == 1
    assert compare(made, [*rows, (START, "t", "1|2|3|4|5")]).strange == 1
    assert compare(made, [*rows, books[0]]).books_back == 1


def test_rows_of_a_line_stand_connection_by_connection() -> None:
    """Only the end of a connection may be lacking; what is elsewhere, or twice, is wrong."""
    market = Market(clock=lambda: START)
    frames = [market.frame(SYMBOL, "deal", oddity="") for _ in range(20)]
    records = [
        Record(at, 1 if at < 10 else 2, SYMBOL, "deal", text) for at, text in enumerate(frames)
    ]
    rows = [[row for record in records[i : i + 10] for row in record.rows or ()] for i in (0, 10)]
    first, second = rows
    assert in_turn(records, first + second) == (0, [])
    assert in_turn(records, first[:-2] + second) == (0, first[-2:])
    for wrong in (first[1:] + second, [*first, first[-1], *second], second + first):
        assert in_turn(records, wrong)[0] > 0


@pytest.mark.parametrize("number", [0, 1, 11, 50])
def test_of_many_samples_a_few_are_shown_and_the_last(number: int) -> None:
    """A trial may end before the first one."""
    lines = some_of([Sample(10.0 * at, 1.0, 1.0, at) for at in range(number)])
    assert len(lines) <= 15
    assert number == 0 or lines[-1].endswith(f"backlog {number - 1}")
