"""How complete is what was recorded? Faults planted in tables, each of which must be named."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_trio.analysis.coverage import Coverage, Silence, coverage
from mexc_trio.analysis.gaps import FilledGaps, LedgerGap, missed
from mexc_trio.clickhouse import open_store
from mexc_trio.clickhouse.schema import Store, prepare
from mexc_trio.clickhouse.tables import GAPS, market_table
from mexc_trio.filled import Filled
from mexc_trio.rhythm import FACTOR, PATIENCE
from mexc_trio.rows import CHANNELS, Cause, Gap
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget
from mexc_trio.spans import DAY, HOUR, MINUTE, Span, cut, length, union, without
from mexc_trio.verify.facts import Facts
from mexc_trio.verify.findings import SymbolFacts
from mexc_trio.verify.text_tables import days
from mexc_trio.verify.verdict import report
from mexc_trio.verify.verify import gather, verify

NIGHT = 20_000 * DAY
START = NIGHT - 18 * HOUR
"""Recorded from 6 hours after one midnight to 12 hours after the next."""
LENGTH = 30 * HOUR
CYCLE, ROWS_A_CYCLE = 2000, 5  # milliseconds
ROWS = LENGTH // CYCLE * ROWS_A_CYCLE


def number(at: int) -> int:
    """Return the number of the first row at or after a time."""
    return (at - START) // CYCLE * ROWS_A_CYCLE


def plant(store: Store, table: str, *parts: tuple[int, int], where: str = "1", by: int = 0) -> None:
    """Append rows by their numbers: in two seconds a ticker, two deals and two books."""
    for first, last in parts:
        store.query(
            f"INSERT INTO mexc_data.{table} SELECT fromUnixTimestamp64Milli(toInt64({START + by} + "
            f"intDiv(i, 5) * {CYCLE} + [0, 200, 500, 1200, 1500][i % 5 + 1])), "
            f"['t', 'd', 'dp', 'd', 'dp'][i % 5 + 1], concat(toString(i), '|1|1') "
            f"FROM (SELECT number AS i FROM numbers({first}, {last - first}) WHERE {where}) "
            f"SETTINGS max_threads = 1, max_insert_threads = 1, max_block_size = 5000, "
            f"min_insert_block_size_rows = 5000"
        )


def append(store: Store, table: str, *rows: tuple[int, str, str]) -> None:
    """Append rows."""
    store.append(market_table(table), rows)


def gap(symbol: str, channel: str, start: int, end: int, cause: str = "connection lost") -> Gap:
    """Return a row of the ledger."""
    return Gap(symbol, channel, start, end, cause, "", 0, 0)


NOON = NIGHT - 12 * HOUR
TABLES = [
    "btc",
    "clean",
    "silent",
    "told",
    "half",
    "batch",
    "reordered",
    "dead",
    "ticker",
    "single",
    "reconnected",
    "alike",
    "tail",
    "back_later",
    "once",
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Make a store in which each table has one fault, and `btc` and `clean` have none.

    It stays open, so that there is one engine for all who look at it.
    """
    settings = Settings(store=EmbeddedTarget(tmp_path_factory.mktemp("planted") / "data"))
    store = open_store(settings)
    prepare(store, [*map(market_table, TABLES), GAPS])
    noon = number(NOON)
    all_ = (0, ROWS)
    for table in ("btc", "clean"):
        plant(store, table, all_)
    # No row of any channel for 30 minutes, and nobody knows why; later no books for 27.
    plant(store, "silent", (0, noon), (number(NOON + 30 * MINUTE), ROWS - 5000))
    plant(store, "silent", (ROWS - 5000, ROWS), where=f"i % 5 NOT IN (2, 4) OR i > {ROWS - 900}")
    # The same gaps, but the ledger has them.
    plant(store, "told", (0, noon), (number(NOON + 20 * MINUTE), ROWS))
    last = {"ticker": NOON - 2000, "deal": NOON - 800, "depth": NOON - 500}
    first = {name: at + 20 * MINUTE + 1500 for name, at in last.items()}
    store.append(GAPS, [gap("TOLD_USDT", name, last[name], first[name]) for name in CHANNELS])
    # The first half of what was recorded of the second day is in a gap.
    plant(store, "half", (0, number(NIGHT)), (number(NIGHT + 6 * HOUR), ROWS))
    store.append(GAPS, [gap("HALF_USDT", "all", NIGHT, NIGHT + 6 * HOUR, "program stopped")])
    plant(store, "batch", (0, noon), (noon - 12, noon), (noon, ROWS))
    plant(store, "reordered", (0, noon), (noon + 900, noon + 1800), (noon, noon + 900))
    plant(store, "reordered", (noon + 1800, ROWS))
    plant(store, "dead", all_)
    letters = ['{"channel":"push.what","ts":%d}', "<html>%d", '{"channel":"push.what","ts":1%d}']
    append(store, "dead", *((NOON + i, "dl", letters[i % 3] % i) for i in range(30)))
    # One ticker twice, without anything between.
    plant(store, "ticker", (0, noon), (noon - 5, noon - 4), (noon, ROWS))
    plant(store, "single", (0, noon), (noon - 1, noon), (noon, ROWS))
    # After a gap the exchange begins with the last ticker and the last book.
    plant(
        store, "reconnected", (0, noon), (noon - 5, noon - 4), (noon - 1, noon), (noon + 50, ROWS)
    )
    store.append(GAPS, [gap("RECONNECTED_USDT", "ticker", NOON - 2000, NOON - 2000)])
    store.append(GAPS, [gap("RECONNECTED_USDT", "deal", NOON - 800, NOON + 20_200)])
    store.append(GAPS, [gap("RECONNECTED_USDT", "depth", NOON - 500, NOON - 500)])
    plant(store, "alike", (0, noon))
    append(store, "alike", *[(NOON, "d", f"{price}|2|1") for price in (7, 7, 7, 8, 7, 8)])
    plant(store, "alike", (noon, ROWS))
    # No books in the last hour, and the recorder has not come to write the gap.
    plant(store, "tail", all_, where=f"i % 5 NOT IN (2, 4) OR i < {ROWS - 9000}")
    plant(store, "once", (0, 1))
    # A whole hour again, long after.
    plant(store, "back_later", all_, (noon, noon + 9000))
    yield settings
    store.close()


@pytest.fixture(scope="module")
def facts(settings: Settings) -> Facts:
    """Look at that store once."""
    return gather(settings, ())


def named(facts: Facts, table: str) -> list[tuple[str, bool]]:
    """Return what was found about one table, and whether it is wrong."""
    return [(one.kind, one.wrong) for one in facts.findings if one.table == table]


def of(facts: Facts, table: str) -> SymbolFacts:
    """Return one of the tables."""
    (found,) = [one for one in facts.symbols if one.table == table]
    return found


def covered(facts: Facts, table: str) -> Coverage:
    """Return the coverage of one of the tables."""
    found = of(facts, table).coverage
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("table", "findings"),
    [
        ("btc", []),
        ("clean", []),
        ("silent", [("silence", True), ("silence", True)]),
        ("told", []),
        ("half", []),
        ("batch", [("repeated", True), ("out of order", True)]),
        ("reordered", [("out of order", True)]),
        ("dead", []),
        ("ticker", [("repeated", True)]),
        ("single", [("repeated", True)]),
        ("reconnected", [("resent", False)]),
        ("alike", [("alike", False)]),
        ("tail", [("silent", False)]),
        ("back_later", [("repeated", True), ("out of order", True)]),
    ],
)
def test_each_fault_is_named_and_nothing_else(
    facts: Facts, table: str, findings: list[tuple[str, bool]]
) -> None:
    """A planted fault is found as what it is; where none was planted, nothing is."""
    assert named(facts, table) == findings


def test_the_exit_code_is_of_the_symbols_asked_for(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clean table is sound beside a bad one; a known gap is nothing wrong."""
    assert verify(settings, ("CLEAN_USDT", "TOLD_USDT", "HALF_USDT", "DEAD_USDT")) == 0
    assert ", sound\n" in capsys.readouterr().out
    assert verify(settings, ("CLEAN_USDT", "TICKER_USDT")) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert " table ticker has 1 row twice (ticker 1), the first of " in said


def test_a_silence_without_a_gap(facts: Facts) -> None:
    """It is told from the last row before to the first row after, all channels in one line."""
    last, first = ((ROWS - rows) // ROWS_A_CYCLE * CYCLE for rows in (5000, 900))
    assert covered(facts, "silent").unaccounted == [
        Silence(CHANNELS, NOON - 2000, NOON + 30 * MINUTE + 500),
        Silence(("depth",), START + last - 500, START + first + 500),
    ]
    (text, _) = [one.text for one in facts.findings if one.table == "silent"]
    assert text == (
        "SILENT_USDT: no ticker, deal or depth for 30.0 min from 2024-10-03T11:59:58Z, "
        "and no gap in the ledger says why"
    )


def test_the_same_silence_with_a_gap(facts: Facts) -> None:
    """The ledger's account of it is enough, and it is not covered all the same."""
    told = covered(facts, "told")
    assert told.unaccounted == []
    assert told.recorded - told.covered == 20 * MINUTE + 3000  # last ticker to first book
    assert told.recorded == LENGTH - 500


def test_a_symbol_with_one_row_has_no_day(facts: Facts) -> None:
    """Among hundreds of symbols one has just begun; the others are shown all the same."""
    assert not covered(facts, "once").days
    assert days([of(facts, "once")] * 6) == []
    title, *lines = days(facts.symbols)
    assert title.startswith("coverage")
    assert len(lines) == len(TABLES) - 1


def test_a_day_half_covered(facts: Facts) -> None:
    """What counts of a day is from the first row to the last, and the gap is half of that."""
    first, second = covered(facts, "half").days
    assert (first.recorded, first.covered) == (18 * HOUR, 18 * HOUR)
    assert second.recorded == 12 * HOUR - 500
    assert second.covered == 6 * HOUR - 500
    assert second.channels == dict.fromkeys(CHANNELS, 6 * HOUR - 500)
    line, more = [one for one in days([of(facts, "half")]) if "2024-10-04" in one]
    known = ["HALF_USDT", "2024-10-04"]
    assert line.split() == [*known, "······██████", "12.0", "h", *["49.9", "%"] * 2]
    assert more.split() == [*known, *["49.9", "%"] * 2]


def test_a_batch_that_is_there_twice(facts: Facts) -> None:
    """Every row of it counts, whatever its type, and the first is named by its time."""
    repeated = of(facts, "batch").repeated
    assert repeated is not None
    assert repeated.rows == {"ticker": 2, "deal": 5, "depth": 5}
    assert repeated.first == NOON - 4800
    assert (repeated.resent, repeated.alike) == (0, 0)


def test_an_hour_that_is_there_twice(facts: Facts) -> None:
    """Rows that come again long after are found too, and no silence is made up between."""
    found = of(facts, "back_later")
    assert found.repeated is not None
    assert found.repeated.rows == {"ticker": 1800, "deal": 3600, "depth": 3600}
    assert found.backwards is not None
    assert {name: one.steps for name, one in found.backwards.items()} == dict.fromkeys(CHANNELS, 1)
    assert covered(facts, "back_later").unaccounted == []


def test_a_reordering(facts: Facts) -> None:
    """The step back is told with its length; no silence is made up where rows stand elsewhere."""
    found = of(facts, "reordered")
    assert found.backwards is not None
    assert found.backwards["ticker"].furthest == 718_000
    assert found.backwards["ticker"].at == NOON + 718_000
    assert covered(facts, "reordered").unaccounted == []


def test_what_the_exchange_may_do(facts: Facts) -> None:
    """Its greeting after a gap and deals that look the same are counted, and are no fault."""
    greeted, alike = of(facts, "reconnected").repeated, of(facts, "alike").repeated
    assert greeted is not None
    assert (sum(greeted.rows.values()), greeted.resent) == (0, 2)
    assert alike is not None
    assert (sum(alike.rows.values()), alike.alike) == (0, 2)


def test_dead_letters_by_their_shape(facts: Facts) -> None:
    """Letters that differ by their numbers alone are one shape; the commonest comes first."""
    shapes = [(shape.text, shape.letters) for shape in of(facts, "dead").shapes]
    assert shapes == [('{"channel":"push.what","ts":#}', 20), ("<html>#", 10)]


def test_rates_beside_the_usual(facts: Facts) -> None:
    """Rates count the time that was covered, so a gap does not make an hour slow."""
    for table in ("clean", "told", "half"):
        rates = covered(facts, table).rates
        assert {name: round(rate.usual or 0, 2) for name, rate in rates.items()} == {
            "ticker": 0.5,
            "deal": 1.0,
            "depth": 1.0,
        }
        assert [rate.slow for rate in rates.values()] == [0, 0, 0]
    assert covered(facts, "clean").rows_a_day == pytest.approx(2.5 * 86_400, rel=0.001)


def test_json_for_machines(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object with the documented keys, whose verdict is the exit code's."""
    assert verify(settings, ("BATCH_USDT", "TOLD_USDT"), json=True) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["version"], said["sound"]) == (1, False)
    assert [one["kind"] for one in said["findings"]] == ["repeated", "out of order"]
    batch, told = said["symbols"]
    assert batch["repeated"]["rows"] == {"ticker": 2, "deal": 5, "depth": 5}
    assert told["symbol"] == "TOLD_USDT"
    assert told["coverage"]["days"][0]["live"] == 18 * HOUR - 20 * MINUTE - 3000
    assert said["tables"][0]["rows"] == ROWS + 12
    assert "source" not in said["tables"][0]
    assert verify(settings, ("TOLD_USDT",), json=True) == 0
    assert json.loads(capsys.readouterr().out)["sound"] is True


def test_the_report_has_it_all(facts: Facts) -> None:
    """Many symbols have one line each; nothing that a terminal would obey is printed."""
    text = report(facts)
    for part in ("coverage", "rows a second", "dead letters", "storage", "longest gaps"):
        assert f"\n\n{part}" in text
    assert any(line.startswith("HALF_USDT ") and "·█" in line for line in text.splitlines())
    assert report(facts).isprintable() is False  # line ends
    assert all(line.isprintable() for line in text.split("\n"))


def test_late_deals_are_no_fault(tmp_path: Path) -> None:
    """Deals that come late by less than the tolerance are neither out of order nor repeated."""
    settings = Settings(store=EmbeddedTarget(tmp_path / "data"))
    store = open_store(settings)
    prepare(store, [market_table("btc"), GAPS])
    rows = [(NOON + i * 100 - (i % 7) * 300, "d", f"{i}|1|1") for i in range(1000)]
    append(store, "btc", *rows)
    store.close()
    assert [one.kind for one in gather(settings, ()).findings] == ["silent", "silent"]


# Without a store.

SHORT = PATIENCE["ticker"]


def looked_at(
    pauses: list[Span], ledger: tuple[LedgerGap, ...] = (), end: int = DAY
) -> list[Silence]:
    """Return the unaccounted silences of tickers; the other channels never rest."""
    spans: dict[str, Span] = dict.fromkeys(CHANNELS, (0, end))
    found = coverage(
        spans,
        {name: {} for name in CHANNELS},
        {"ticker": pauses, "deal": [], "depth": []},
        ledger,
    )
    assert found is not None
    return list(found.unaccounted or [])


def test_patience() -> None:
    """Shorter silences need no account, whatever the rhythm; longer ones do without a rhythm."""
    assert looked_at([(1000, 1000 + SHORT)]) == []
    assert looked_at([(1000, 1001 + SHORT)]) == [Silence(("ticker",), 1000, 1001 + SHORT)]


def test_the_rhythm_allows_for_silences() -> None:
    """A multiple of the longest pause before is allowed; of one after, or long ago, it is not."""
    pause, silence = (0, SHORT), (HOUR, HOUR + int(FACTOR * SHORT))
    assert looked_at([pause, silence]) == []
    assert looked_at([silence]) != []
    assert looked_at([silence, (2 * HOUR, 2 * HOUR + SHORT)]) != []


def test_a_channel_that_begins_late_is_no_fault() -> None:
    """Which channels were to be recorded no row says; but the time does not count as recorded."""
    late = {**dict.fromkeys(CHANNELS, (0, DAY)), "deal": (HOUR, DAY)}
    nothing: dict[str, list[Span]] = {name: [] for name in CHANNELS}
    found = coverage(late, {name: {} for name in CHANNELS}, nothing, [])
    assert found is not None
    assert (found.unaccounted, found.late, found.covered) == ([], {"deal": HOUR}, DAY - HOUR)
    known = LedgerGap("deal", 0, HOUR, cause=Cause.CHANNEL_SILENT)
    found = coverage(late, {name: {} for name in CHANNELS}, nothing, [known])
    assert found is not None
    assert (found.unaccounted, found.late, found.covered) == ([], {}, DAY - HOUR)


def test_two_outages_do_not_excuse_each_other() -> None:
    """A silence that needed an account says nothing about the rhythm, nor does an outage."""
    first, second = (HOUR, 2 * HOUR), (3 * HOUR, 4 * HOUR)
    assert len(looked_at([first, second])) == 2
    outage = LedgerGap("ticker", *first, cause=Cause.PROGRAM_STOPPED)
    assert looked_at([first, second], (outage,)) == [Silence(("ticker",), *second)]
    quiet = LedgerGap("ticker", *first, cause=Cause.CHANNEL_SILENT)
    assert looked_at([first, second], (quiet,)) == []


def test_a_gap_accounts_for_its_own_time_only() -> None:
    """The rest of the silence is looked at by itself."""
    silence = (HOUR, 3 * HOUR)
    part = LedgerGap("all", HOUR, 2 * HOUR, cause=Cause.PROGRAM_STOPPED)
    assert looked_at([silence], (part,)) == [Silence(("ticker",), 2 * HOUR, 3 * HOUR)]
    most = LedgerGap("all", HOUR, 3 * HOUR - SHORT, cause=Cause.PROGRAM_STOPPED)
    assert looked_at([silence], (most,)) == []
    other = LedgerGap("deal", *silence, cause=Cause.PROGRAM_STOPPED)
    assert looked_at([silence], (other,)) == [Silence(("ticker",), *silence)]


def test_a_day_that_is_not_over() -> None:
    """It counts up to the last row."""
    spans: dict[str, Span] = dict.fromkeys(CHANNELS, (DAY - HOUR, DAY + 2 * HOUR))
    found = coverage(spans, {name: {} for name in CHANNELS}, None, [])
    assert found is not None
    assert [(day.number, day.recorded, day.covered) for day in found.days] == [
        (0, HOUR, HOUR),
        (1, 2 * HOUR, 2 * HOUR),
    ]


def test_no_rows() -> None:
    """There is nothing to say of a table without rows."""
    nothing: dict[str, Span | None] = dict.fromkeys(CHANNELS, None)
    assert coverage(nothing, {}, {}, []) is None


spans_ = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8)


def instants(spans: list[Span]) -> set[int]:
    """Return every millisecond in some of the spans."""
    return {at for start, end in spans for at in range(start, end)}


@given(spans_, st.tuples(st.integers(0, 60), st.integers(0, 60)))
def test_spans_are_sets_of_instants(spans: list[Span], whole: Span) -> None:
    """The arithmetic of spans is that of the instants in them."""
    merged = union(spans)
    assert instants(merged) == instants(spans)
    assert all(a[1] < b[0] for a, b in pairwise(merged))
    assert length(merged) == len(instants(spans))
    left = without(whole, merged)
    assert instants(left) == instants([whole]) - instants(spans)
    parts = cut(left, 7)
    assert instants([span for some in parts.values() for span in some]) == instants(left)
    assert all(a // 7 == (b - 1) // 7 == n for n, some in parts.items() for a, b in some)


def test_what_was_filled_is_no_gap_in_deals() -> None:
    """From when on the ledger says; of the other channels, and of what the store lost, nothing."""
    deals = [
        LedgerGap("deal", 0, 10 * HOUR, cause=Cause.PROGRAM_STOPPED),  # written at the end of a run
        LedgerGap("deal", 0, 11 * HOUR, cause=Cause.PROGRAM_STOPPED, filled_from=2 * HOUR),
        LedgerGap("deal", 20 * HOUR, 21 * HOUR, cause=Cause.PROGRAM_STOPPED, filled_from=20 * HOUR),
        LedgerGap("ticker", 0, 11 * HOUR, cause=Cause.PROGRAM_STOPPED),
    ]
    assert missed(deals, "deal") == [(0, 2 * HOUR)]
    assert missed(deals, "ticker") == [(0, 11 * HOUR)]
    lost = LedgerGap("all", HOUR, 3 * HOUR, cause=Cause.PROGRAM_STOPPED)
    assert missed([*deals, lost], "deal") == [(0, 3 * HOUR)]
    spans: dict[str, Span] = dict.fromkeys(CHANNELS, (0, DAY))
    found = coverage(spans, {name: {} for name in CHANNELS}, None, deals)
    assert found is not None
    assert dict(found.days[0].channels) == {
        "ticker": 13 * HOUR, "deal": 22 * HOUR, "depth": 24 * HOUR
    }  # fmt: skip


def test_a_long_silence_that_was_filled_is_accounted_for(tmp_path: Path) -> None:
    """Few dealt, and the ledger says that it was asked; nor is the step back a fault."""
    settings = Settings(store=EmbeddedTarget(tmp_path / "data"))
    store = open_store(settings)
    prepare(store, [market_table("btc"), GAPS])
    start, end = NOON, NOON + HOUR
    append(store, "btc", *[(start - i * 1000, "d", f"{i}|1|1") for i in range(99, -1, -1)])
    append(store, "btc", (end, "d", "7|1|1"))
    append(store, "btc", *[(end - 60_000 * i, "d", f"8.{i}|1|1") for i in range(9, 0, -1)])
    append(store, "btc", *[(end + 1000 * i, "d", f"9.{i}|1|1") for i in range(1, 99)])
    filled = Filled(9, end - 9 * 60_000, whole=True)
    row = gap("BTC_USDT", "deal", start, end)
    store.append(GAPS, [row._replace(detail=f"closed{filled.text()}")])
    store.close()
    facts = gather(settings, ())
    assert [one.kind for one in facts.findings] == ["silent", "silent"]
    assert facts.gaps is not None
    assert facts.gaps.filled == FilledGaps(gaps=1, whole=1, deals=9)
    assert "1 gap in deals filled afterwards, 1 whole" in report(facts)
    # The same rows without such a word are out of order.
    store = open_store(settings)
    store.query("TRUNCATE TABLE mexc_data.gaps")
    store.append(GAPS, [row])
    store.close()
    findings = gather(settings, ()).findings
    assert [one.kind for one in findings] == ["out of order", "silent", "silent"]
