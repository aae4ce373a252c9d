"""The statistics: the blocks and the table that the user reads."""

from collections import Counter

import attrs
import pytest

from mexc_trio.clickhouse.tables import TableEngine
from mexc_trio.record.stats import Counts, SymbolStats, elapsed, statistics


def counts(
    ticker: int = 7,
    deal: int = 140,
    depth: int = 43,
    dead: int = 0,
    skipped: int = 0,
    errors: int = 0,
) -> Counts:
    """Make counters as a collector has them."""
    return Counts(Counter(t=ticker, d=deal, dp=depth, dl=dead), skipped, errors)


def line(
    symbol: str = "BTC_USDT",
    table: str = "btc",
    of: Counts | None = None,
    backlog: int = 0,
    waiting: float = 0.0,
    gaps: int = 0,
) -> SymbolStats:
    """Make what is said of one symbol."""
    return SymbolStats(symbol, table, of or counts(), backlog, waiting, gaps)


def test_block_is_the_references_to_the_letter() -> None:
    """People compare it with what they know."""
    assert statistics([line()], 15.004) == (
        "==================================================\n"
        "BTC_USDT STATISTICS (Last 15s)\n"
        "==================================================\n"
        "Total Records Appended: 190\n"
        "Ticker Messages: 7 → btc/data.bin\n"
        "Deal Messages: 140 → btc/data.bin\n"
        "Depth Messages: 43 → btc/data.bin\n"
        "Skipped Messages: 0\n"
        "Errors: 0\n"
        "Rate: 12.66 records/sec\n"
        "=================================================="
    )


def test_what_is_out_of_the_ordinary_has_a_line_of_its_own() -> None:
    """Dead letters, a backlog and gaps are shown when there are any."""
    unusual = line(of=counts(dead=3, skipped=2, errors=1), backlog=1234, waiting=75, gaps=4)
    assert statistics([unusual], 10).split("\n")[3:-1] == [
        "Total Records Appended: 193",
        "Ticker Messages: 7 → btc/data.bin",
        "Deal Messages: 140 → btc/data.bin",
        "Depth Messages: 43 → btc/data.bin",
        "Dead Letters: 3 → btc/data.bin",
        "Skipped Messages: 2",
        "Errors: 1",
        "Backlog: 1234 rows, the oldest 00:01:15 old",
        "Gaps: 4 in this run → gaps table",
        "Rate: 19.30 records/sec",
    ]


def test_a_table_of_many_files_is_named_as_a_table() -> None:
    """A MergeTree has no one file that its rows go to."""
    text = statistics([attrs.evolve(line(), engine=TableEngine.MERGETREE)], 15)
    assert "Deal Messages: 140 → table btc\n" in text
    assert "data.bin" not in text


def test_rows_that_are_just_waiting_for_company_are_no_backlog() -> None:
    """Not in the middle of a run; at its end every row that is not stored matters."""
    waiting = line(backlog=5, waiting=0.8)
    assert "Backlog" not in statistics([waiting], 15)
    assert "Backlog: 5 rows, the oldest 0s old" in statistics([waiting], 15, final=True)


def test_final_block_is_of_the_whole_run() -> None:
    """Its head has the duration, its rate is over all of it."""
    text = statistics([line()], 100_000, final=True)
    assert "BTC_USDT STATISTICS (Final, 1d 03:46:40)" in text
    assert "Rate: 0.00 records/sec" in text


def test_four_symbols_have_a_block_each_and_five_share_a_table() -> None:
    """Beyond four a screen full of blocks would say less than a line each."""
    symbols = ["BTC_USDT", "ETH_USDT", "SOL_USDT", "1000BONK_USDT", "XRP_USDT"]
    four = statistics([line(symbol) for symbol in symbols[:4]], 15)
    assert four.count("STATISTICS (Last 15s)") == 4
    lines = [
        line(symbol, of=counts(ticker=n, dead=1), backlog=n, waiting=n, gaps=n)
        for n, symbol in enumerate(symbols)
    ]
    rule, title, _, head, *body, total, _ = statistics(lines, 10).split("\n")
    assert rule == "=" * 50
    assert title == "STATISTICS (Last 10s), 5 symbols"
    assert head.split() == [
        "symbol", "appended", "ticker", "deal", "depth", "dead", "skipped", "errors", "backlog",
        "gaps", "rec/sec",
    ]  # fmt: skip
    assert [row.split()[0] for row in body] == symbols
    assert body[3].split() == [
        "1000BONK_USDT", "187", "3", "140", "43", "1", "0", "0", "3", "3", "18.70",
    ]  # fmt: skip
    assert total.split() == [
        "all", "930", "10", "700", "215", "5", "0", "0", "10", "10", "93.00",
    ]  # fmt: skip
    assert len({len(row) for row in (head, *body, total)}) == 1


def test_of_many_symbols_the_telling_ones_are_shown() -> None:
    """A block stays readable with 1,200 symbols: the busiest, those in trouble, and the sum."""
    lines = [line(f"S{n}_USDT", of=counts(deal=n)) for n in range(1200)]
    lines[3] = line("S3_USDT", of=counts(deal=0, errors=2))
    lines[7] = line("S7_USDT", of=counts(deal=0), backlog=9, waiting=60.0)
    text = statistics(lines, 15)
    assert len(text) < 4000
    _, title, _, _, *body, rest, total, _ = text.split("\n")
    assert title == "STATISTICS (Last 15s), 1200 symbols"
    busiest = [f"S{n}_USDT" for n in range(1182, 1200)]
    assert [row.split()[0] for row in body] == ["S3_USDT", "S7_USDT", *busiest]
    assert rest == "and 1180 more; 2 of all have errors or wait"
    assert total.split()[:2] == ["all", str(sum(one.counts.total for one in lines))]
    assert statistics(lines, 15, final=True).count("_USDT") == 1200


def test_trouble_leaves_room_for_the_busiest() -> None:
    """When all have errors at once, as after an outage, half of the table is by rate still."""
    lines = [line(f"S{n}_USDT", of=counts(deal=n, errors=1200 - n)) for n in range(1200)]
    shown = statistics(lines, 15).split("\n")[4:24]
    numbers = [int(row.split("_")[0][1:]) for row in shown]
    assert numbers == [*range(10), *range(1190, 1200)]


def test_an_interval_is_what_was_counted_since_it_began() -> None:
    """The copy stays as it was, and the difference has every counter."""
    running = counts(skipped=1, errors=1)
    before = running.copy()
    running.appended["d"] += 60
    running.skipped += 2
    running.errors += 3
    assert before == counts(skipped=1, errors=1)
    assert running.since(before) == counts(0, 60, 0, 0, 2, 3)
    assert running.total == 250


def test_nothing_at_all_is_reported_as_nothing() -> None:
    """A run that ended at once has no rate to divide by."""
    assert "Rate: 0.00 records/sec" in statistics([line(of=Counts())], 0.0, final=True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.9, "59s"),
        (60, "00:01:00"),
        (86399, "23:59:59"),
        (86400, "1d 00:00:00"),
        (3 * 86400 + 4 * 3600 + 5 * 60 + 6, "3d 04:05:06"),
    ],
)
def test_duration_is_for_people(seconds: float, text: str) -> None:
    """Seconds, then a clock, then days and a clock."""
    assert elapsed(seconds) == text
