"""`mexc-trio report`: a day as a page, whose numbers are those of the rows."""

import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
import trio

from mexc_trio.channels import ALL
from mexc_trio.cli.main import main
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import prepare
from mexc_trio.clickhouse.tables import GAPS, market_table
from mexc_trio.errors import StoreUnavailable
from mexc_trio.read.reading import open_reader
from mexc_trio.report import plots, recorded
from mexc_trio.report.recorded import Recorded
from mexc_trio.report.source import RangeReader, choose
from mexc_trio.rows import CHANNELS
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget, parse_store
from mexc_trio.spans import DAY, HOUR, MINUTE, SECOND, Span
from tests.support.running import command_text, running
from tools.clickhouse import ClickHouseServer
from tools.exchange import open_exchange
from tools.market import CHANNELS as STREAMS
from tools.market import Market, Row, truth

NOON: Final = 1_795_219_200_000 + 12 * HOUR  # of 2026-11-21
MIDNIGHT: Final = NOON - 12 * HOUR
DATE: Final = "2026-11-21"
STEP: Final = 21_700
"""Milliseconds between two frames of a symbol."""
LEDGER: Final = [
    ("BTC_USDT", "ticker", NOON - 2 * HOUR, NOON - HOUR, "connection lost"),
    ("BTC_USDT", "deal", NOON - 2 * HOUR, NOON - HOUR, "connection lost"),
    ("BTC_USDT", "depth", NOON - 2 * HOUR, NOON - HOUR, "connection lost"),
    ("BTC_USDT", "all", MIDNIGHT - HOUR, MIDNIGHT + HOUR, "program stopped"),
    ("BTC_USDT", "deal", NOON + HOUR, NOON + HOUR, "decode errors"),
    ("BTC_USDT", "all", MIDNIGHT - 3 * HOUR, MIDNIGHT - 2 * HOUR, "program stopped"),
    ("ETH_USDT", "depth", NOON, NOON + 90_000, "channel silent"),
]
"""Five of BTC_USDT touch the day; its fourth cuts off the first hour."""
SILENCE: Final = (NOON + 6 * HOUR, NOON + 8 * HOUR)
"""Rows are missing from ETH_USDT, and no gap says so."""


def rows_of(symbol: str) -> list[Row]:
    """Return rows from three hours before the day to one hour after it."""
    now = [MIDNIGHT - 3 * HOUR]
    market = Market(seed=5, oddities=0.3, clock=lambda: now[0])
    quiet = [gap[2:4] for gap in LEDGER if gap[0] == symbol and gap[1] in ("all", "ticker")]
    if symbol == "ETH_USDT":
        quiet.append(SILENCE)
    rows: list[Row] = []
    while now[0] < MIDNIGHT + DAY + HOUR:
        for stream in STREAMS:
            now[0] += STEP // 3
            rows += truth(market.frame(symbol, stream)) or []
    rows = [row for row in rows if not any(a < row[0] < b for a, b in quiet)]
    return [*rows, (NOON, "dl", "{broken"), (MIDNIGHT - 1, "dl", "{"), (2**41, "dl", "later")]


ROWS: Final = {"btc": rows_of("BTC_USDT"), "eth": rows_of("ETH_USDT")}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a store of two symbols, one of which has nothing on the day before that.

    It stays open, or each command would start an engine.
    """
    path = tmp_path_factory.mktemp("report") / "data"
    with closing(EmbeddedStore(path)) as store:
        prepare(store, [*map(market_table, [*ROWS, "idle"]), GAPS])
        for table, rows in ROWS.items():
            for first in range(0, len(rows), 5000):
                store.append(market_table(table), rows[first : first + 5000])
        store.append(market_table("idle"), [(MIDNIGHT - 9 * DAY, "d", "1|1|1")])
        store.append(GAPS, [(*gap, "", 0, 0) for gap in LEDGER])
        yield path


@pytest.fixture(scope="module")
def page(directory: Path) -> str:
    """Make the page of the day, with its pictures beside it."""
    out = directory.parent / "report.html"
    assert run(directory, "--out", out, "--png", directory.parent / "png") == 0
    return out.read_text()


def run(directory: Path, *arguments: object, day: str = DATE) -> int:
    """Run the command on the store of a directory."""
    return main(["report", "--store", str(directory), "--day", day, *map(str, arguments)])


class Outline(HTMLParser):
    """Reads a page: every element is closed, in the right order, and each id is there once."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note its id and what it refers to."""
        self.handle_startendtag(tag, attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the same of an element without contents."""
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.references.append(value or "")
        assert tag not in ("script", "link", "iframe", "img", "object", "base")

    def handle_endtag(self, tag: str) -> None:
        """Close the element that was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.texts.append(data)


# --- The page ------------------------------------------------------------------------------------


def test_the_page_is_sound_and_whole(page: str) -> None:
    """It is well-formed, needs nothing from elsewhere, and has every symbol of that day."""
    outline = Outline(page)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert {"BTC_USDT", "ETH_USDT"} <= set(outline.ids)
    assert "IDLE_USDT" not in page
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", page)
    assert all(reference.startswith("#") for reference in outline.references)
    # What it refers to inside is there.
    used = {*outline.references, *re.findall(r"url\((#[^)]*)\)", page)}
    assert used <= {f"#{name}" for name in outline.ids}
    assert page.count("<svg") == 2 * 2 * len(plots.PLOTS)  # for a screen and for a phone


def test_each_gap_of_the_day_is_shaded_in_each_plot(page: str) -> None:
    """As many spans as the ledger has gaps that touch the day; silences have a colour apart."""
    ids = Outline(page).ids
    for plot in plots.PLOTS:
        for symbol, gaps, silences in (("BTC_USDT", 5, 0), ("ETH_USDT", 1, 1)):
            found = [name for name in ids if name.startswith(f"{plot}-{symbol}-gap-")]
            assert len(found) == gaps
            found = [name for name in ids if name.startswith(f"{plot}-{symbol}-silence-")]
            assert len(found) == silences


def test_a_symbol_that_was_idle(directory: Path, tmp_path: Path) -> None:
    """One that was asked for is on the page without rows, too, if another has some."""
    out = tmp_path / "x.html"
    assert run(directory, "IDLE_USDT", "BTC_USDT", "--out", out) == 0
    outline = Outline(out.read_text())
    assert [name for name in outline.ids if name in ("IDLE_USDT", "BTC_USDT")] == [
        "IDLE_USDT",
        "BTC_USDT",
    ]
    assert outline.texts.count("Nothing was recorded of it in this time.") == 1


def test_colours_follow_light_and_dark(page: str) -> None:
    """A plot has no colour of its own but those that the page defines for both."""
    svg = "".join(re.findall(r"<svg.*?</svg>", page, re.S))
    assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) == set()
    for name, colour in plots.COLOURS.items():
        assert f"--{name}: {colour};" in page
        assert page.count(f"--{name}: ") == 2


def test_pictures(page: str, directory: Path) -> None:
    """Each plot is a PNG file, too."""
    del page
    files = sorted((directory.parent / "png").iterdir())
    assert [file.name for file in files] == sorted(
        f"{symbol}-{DATE}-{plot}.png" for symbol in ("BTC_USDT", "ETH_USDT") for plot in plots.PLOTS
    )
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


# --- The numbers ---------------------------------------------------------------------------------


def the_day(settings: Settings, symbol: str) -> Recorded:
    """Return what the plots of a symbol are drawn from."""
    with open_reader(settings) as reader:
        return choose(reader, settings, [symbol]).of(symbol, (MIDNIGHT, MIDNIGHT + DAY))


def decimal(text: str) -> Decimal | None:
    """Return a number that fits the plots' Decimals."""
    whole, _, fraction = text.partition(".")
    fits = text and len(whole) <= 15 and len(fraction.rstrip("0")) <= 18
    return Decimal(text) if fits else None


def by_minute(rows: Sequence[Row]) -> dict[int, list[Row]]:
    """Group the day's rows by its minutes."""
    found = defaultdict(list)
    for row in rows:
        if MIDNIGHT <= row[0] < MIDNIGHT + DAY:
            found[(row[0] - MIDNIGHT) // MINUTE].append(row)
    return found


def check(day: Recorded, rows: Sequence[Row]) -> None:
    """Compare the day, minute by minute, with a count of its rows that has no SQL in it."""
    expected = by_minute(rows)
    assert set(day.steps) == set(expected)
    for number, group in expected.items():
        minute = day.steps[number]
        types = [mt for _, mt, _ in group]
        counts = {name: types.count(one.mt) for name, one in ALL.items()}
        assert (minute.rows, minute.dead) == (counts, types.count("dl"))
        assert minute.text == sum(len(m.encode()) for _, _, m in group)
        traded = [(ts, decimal(m.split("|")[0])) for ts, mt, m in group if mt in ("t", "d")]
        prices = [(ts, price) for ts, price in traded if price is not None]
        if minute.price is None:
            assert not prices
        else:
            newest = max(ts for ts, _ in prices)
            assert minute.price.last in [price for ts, price in prices if ts == newest]
            assert minute.price.low == min(price for _, price in prices)
            assert minute.price.high == max(price for _, price in prices)
        spreads = []
        for _, mt, m in group:
            best = [re.match(r"\[([^,]+),", side) for side in m.split("|")] if mt == "dp" else []
            bid, ask = [decimal(level[1]) if level else None for level in best] or (None, None)
            if bid is not None and ask is not None:
                spreads.append(ask - bid)
        if minute.spread is None:
            assert not spreads
        else:
            assert minute.spread.mean == sum(spreads) / len(spreads)
            assert (minute.spread.low, minute.spread.high) == (min(spreads), max(spreads))


@pytest.mark.parametrize("symbol", ["BTC_USDT", "ETH_USDT"])
def test_the_numbers_are_those_of_the_rows(directory: Path, symbol: str) -> None:
    """Rows, prices, spreads and pauses behind the plots equal an independent count."""
    rows = ROWS[symbol[:3].lower()]
    day = the_day(Settings(store=EmbeddedTarget(directory)), symbol)
    check(day, rows)
    newest, longest = 0, dict[int, int]()
    for ts, mt, _ in rows:
        if mt != "dl" and MIDNIGHT - 6 * HOUR <= ts < MIDNIGHT + DAY:
            number = (ts - MIDNIGHT) // MINUTE
            if newest and ts > newest and number >= 0:
                longest[number] = max(longest.get(number, 0), ts - newest)
            newest = max(newest, ts)
    assert day.pauses == longest


def test_what_is_drawn_is_the_numbers(directory: Path) -> None:
    """A plot's series has 1,440 values; without a row, none of price, and none grown."""
    day = the_day(Settings(store=EmbeddedTarget(directory)), "BTC_USDT")
    grouped = by_minute(ROWS["btc"])
    for number, channel in enumerate(CHANNELS):
        wanted = [
            sum(mt == ("t", "d", "dp")[number] for _, mt, _ in grouped.get(n, [])) / 60
            for n in range(1440)
        ]
        assert day.rates(channel) == wanted
    growth = day.growth()
    assert growth[-1] == day.rows == sum(map(len, grouped.values()))
    assert [b - a for a, b in pairwise([0, *growth])] == [
        len(grouped.get(n, [])) for n in range(1440)
    ]
    prices, spreads = day.band(lambda one: one.price), day.band(lambda one: one.spread)
    for values in (*prices, *spreads, day.pause_seconds()):
        assert len(values) == 1440
        empty = [n for n in range(1440) if n not in grouped]
        assert empty
        assert all(math.isnan(values[n]) for n in empty)
    assert prices[2][700] == float(day.steps[700].price.high)  # type: ignore[union-attr]


def test_coverage_counts_gaps_and_silences(directory: Path) -> None:
    """The verdict takes away the time of gaps, also of one from before, and of silences."""
    settings = Settings(store=EmbeddedTarget(directory))
    btc, eth = the_day(settings, "BTC_USDT"), the_day(settings, "ETH_USDT")
    assert (btc.share.recorded, btc.share.covered) == (DAY, DAY - 2 * HOUR)
    assert btc.unaccounted == []
    (silence,) = eth.unaccounted
    assert abs(silence.start - SILENCE[0]) < MINUTE
    assert abs(silence.end - SILENCE[1]) < MINUTE
    assert eth.share.covered == DAY - (silence.end - silence.start) - 90_000


def test_silences_that_reach_over_both_ends_of_the_day(tmp_path: Path) -> None:
    """A silence counts although it began long before the day, or ends after it."""
    at = [*range(MIDNIGHT - 14 * HOUR, MIDNIGHT - 12 * HOUR, 10_000)]
    at += [*range(MIDNIGHT + 8 * HOUR, MIDNIGHT + 10 * HOUR, 10_000), MIDNIGHT + DAY + HOUR]
    with closing(EmbeddedStore(tmp_path / "data")) as store:
        prepare(store, [market_table("btc")])
        rows = [(ts, mt, "1|1|1") for ts in at for mt in ("t", "d", "dp")]
        store.append(market_table("btc"), rows)
    day = the_day(Settings(store=EmbeddedTarget(tmp_path / "data")), "BTC_USDT")
    assert (day.share.recorded, day.share.covered) == (DAY, 2 * HOUR - 10_000)
    assert [(silence.start, silence.end) for silence in day.unaccounted] == [
        (MIDNIGHT - 12 * HOUR - 10_000, MIDNIGHT + 8 * HOUR),
        (MIDNIGHT + 10 * HOUR - 10_000, MIDNIGHT + DAY + HOUR),
    ]


def test_a_server_too_old_for_windows(clickhouse_server: ClickHouseServer, tmp_path: Path) -> None:
    """It gives the same numbers; the page says which plot needs a newer one."""
    server = clickhouse_server
    server.execute(
        "CREATE TABLE mexc_data.reported (ts DateTime64(3), "
        "mt Enum8('t'=1,'d'=2,'dp'=3,'dl'=4), m String) ENGINE = StripeLog"
    )
    try:
        server.execute("INSERT INTO mexc_data.reported VALUES", ROWS["btc"])
        settings = Settings(store=parse_store(server.url))
        day = the_day(settings, "REPORTED_USDT")
        check(day, ROWS["btc"])
        if day.pauses is None:
            assert "21.12" in day.why_no_pauses
        command = ["report", "REPORTED_USDT", "--store", server.url, "--day", DATE, "--out"]
        assert main([*command, str(tmp_path / "x.html")]) == 0
        page = (tmp_path / "x.html").read_text()
        assert Outline(page).open == []
        assert (day.pauses is None) == ("needs ClickHouse 21.12" in page)
    finally:
        server.execute("DROP TABLE mexc_data.reported")


async def test_while_a_recorder_runs(tmp_path: Path) -> None:
    """The day that is going on is drawn from a store that a recorder has open."""
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    async with (
        open_exchange(rate=100) as exchange,
        running(tmp_path, "BTC_USDT", "--url", exchange.url, "--linger", "0.1") as program,
    ):
        await program.acknowledged(200)
        words = ("report", "--day", today, "--out", "x.html")
        ended = await trio.to_thread.run_sync(partial(command_text, *words, cwd=tmp_path))
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.startswith(f"x.html: {today} of 1 symbol, ")
        assert ended.stderr == ""
        assert await program.stop() == 0
    assert "BTC_USDT" in Outline((tmp_path / "x.html").read_text()).ids


# --- Other ranges than a day, and many symbols ---------------------------------------------------


def test_an_hour_fits_the_page(directory: Path, tmp_path: Path) -> None:
    """A short range has short steps, its axis begins and ends with it, and labels are its own."""
    out, span = tmp_path / "x.html", (NOON - HOUR // 2, NOON + HOUR // 2)
    times = [f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M}" for ms in span]
    command = ["report", "BTC_USDT", "--store", str(directory), "--out", str(out)]
    assert main([*command, "--from", times[0], "--to", times[1]]) == 0
    text = out.read_text()
    assert "<h1>2026-11-21 11:30 to 12:30</h1>" in text
    assert "each 5 seconds" in text
    outline = Outline(text)
    assert {"11:30", "12:00", "12:25"} <= set(outline.texts)
    assert not {"10:00", "24:00"} & set(outline.texts)
    assert outline.texts.count("UTC") == 2 * len(plots.PLOTS)
    with open_reader(Settings(store=EmbeddedTarget(directory))) as reader:
        found = choose(reader, Settings(), ["BTC_USDT"]).of("BTC_USDT", span)
    assert (found.start, found.end, found.step) == (*span, 5 * SECOND)
    there = [row for row in ROWS["btc"] if span[0] <= row[0] < span[1]]
    assert found.rows == len(there)
    assert found.growth()[-1] == len(there)
    assert (found.share.recorded, found.share.covered) == (HOUR, HOUR)


def test_the_axis_fits_what_is_there(directory: Path) -> None:
    """Of a range of weeks only the part between the first and the last row is drawn."""
    with open_reader(Settings(store=EmbeddedTarget(directory))) as reader:
        found = choose(reader, Settings(), ["ETH_USDT"]).of(
            "ETH_USDT", (MIDNIGHT - 9 * DAY, MIDNIGHT + 9 * DAY)
        )
    first, last = (pick(ts for ts, mt, _ in ROWS["eth"] if mt != "dl") for pick in (min, max))
    assert found.start <= first < found.start + found.step
    assert found.end - found.step <= last < found.end
    assert found.step == 5 * MINUTE
    assert found.number <= 1440
    assert found.share.recorded == last - first
    # Silences are looked for minute by minute all the same.
    assert any(abs(one.start - SILENCE[0]) < MINUTE for one in found.unaccounted)


def test_numbers_of_tiny_prices_are_not_cut_off(tmp_path: Path) -> None:
    """A price without its first zeros is another price, so the plot begins further right."""
    rows: list[Row] = [
        (NOON + n * 60_000, "d", f"0.0000000{1000 + n * 7 % 90}|1|1") for n in range(60)
    ]
    with closing(EmbeddedStore(tmp_path / "data")) as store:
        prepare(store, [market_table("btc")])
        store.append(market_table("btc"), rows)
    assert run(tmp_path / "data", "BTC_USDT", "--out", tmp_path / "x.html") == 0
    text = (tmp_path / "x.html").read_text()
    found = re.findall(r'text-anchor: end[^>]* x="([0-9.]+)"[^>]*>(0\.0000000[0-9]+)<', text)
    assert found
    for right, number in found:
        assert float(right) > len(number) * 0.55 * 9, "a digit is at least so wide, of 9 points"


def test_fewer_steps_say_the_same(directory: Path) -> None:
    """What a phone is shown has the same rows, extremes and last price in fewer steps."""
    day = the_day(Settings(store=EmbeddedTarget(directory)), "BTC_USDT")
    fewer = recorded.coarser(day, 360)
    assert (fewer.step, fewer.number) == (4 * MINUTE, 360)
    assert fewer.rows == day.rows
    assert fewer.growth() == day.growth()[3::4]
    for n in range(360):
        four = [day.steps[m].price for m in range(4 * n, 4 * n + 4) if m in day.steps]
        prices = [price for price in four if price]
        shown = fewer.steps[n].price if n in fewer.steps else None
        assert (shown is None) == (not prices)
        if shown:
            assert shown.high == max(price.high for price in prices)
            assert shown.last == prices[-1].last
    assert max(fewer.rates("deal")) <= max(day.rates("deal"))


def test_many_symbols_have_a_page_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The index links to them and they to each other; nothing links elsewhere."""
    names = [f"c{n:02}" for n in range(5)]
    with closing(EmbeddedStore(tmp_path / "data")) as store:
        prepare(store, [*map(market_table, names), GAPS])
        for name in names:
            store.append(market_table(name), [row for row in ROWS["btc"] if row[0] < MIDNIGHT])
        many = [
            ("C03_USDT", "deal", ms, ms + 900, "x", "", 0, 0)
            for ms in range(MIDNIGHT - 2 * HOUR, MIDNIGHT - HOUR, 1000)
        ]
        store.append(GAPS, many)
    out = tmp_path / "my report.html"
    command = ["report", "--store", str(tmp_path / "data"), "--day", "2026-11-20"]
    assert main([*command, "--out", str(out)]) == 0
    assert "a page for each symbol" in capsys.readouterr().out
    pages = sorted((tmp_path / "my report").iterdir())
    assert [page.name for page in pages] == [f"{name.upper()}_USDT.html" for name in names]
    index = Outline(out.read_text())
    assert index.references == [f"my%20report/{page.name}" for page in pages]
    assert "5 symbols" in "".join(index.texts)
    for number, page in enumerate(pages):
        outline = Outline(page.read_text())
        links = [reference for reference in outline.references if not reference.startswith("#")]
        assert links == ["../my%20report.html", *([pages[number - 1].name] if number else [])]
        assert page.stat().st_size < 1_500_000  # of 3,600 gaps, too
    assert main([*command, "--out", str(out)]) == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--from", "2026-11-21", "--day", DATE], "give it, or --from and --to"),
        (["--to", "2026-11-21"], "--to goes with --from"),
        (["--from", "soon"], "--from 'soon' is no time"),
        (["--from", "2026-11-22", "--to", "2026-11-21"], "is not before --to"),
        (["--from", "1969-11-22"], "is before 1970"),
    ],
)
def test_ranges_that_are_none(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    arguments: list[str], text: str,
) -> None:  # fmt: skip
    """One line, and no file."""
    out = tmp_path / "x.html"
    assert main(["report", "--store", str(directory), "--out", str(out), *arguments]) == 2
    assert text in capsys.readouterr().err
    assert not out.exists()


# --- What goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "day", "code", "text"),
    [
        (["NOPE_USDT"], DATE, 2, "NOPE_USDT was not recorded"),
        (["nope"], DATE, 2, "is not a symbol"),
        ([], "2026-13-01", 2, "--day '2026-13-01' is no day"),
        ([], "tomorrow", 2, "--day 'tomorrow' is no day"),
        ([], "2026-11-01", 1, "on 2026-11-01, only between 2026-11-12T00:00:00Z and"),
        (["IDLE_USDT"], DATE, 1, "no rows of IDLE_USDT on 2026-11-21, only between"),
        (["--out", "there.html"], DATE, 2, "--force writes over it"),
        (["--out", "no/such/x.html"], DATE, 2, "cannot write into no/such: No such file"),
        (["--out", "."], DATE, 2, "is a directory"),
        (["--png", "there.html"], DATE, 2, "cannot make the directory there.html"),
        (["--store", "nowhere"], DATE, 2, "there is no such directory"),
    ],
)
def test_one_line_and_no_file(
    directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    day: str,
    code: int,
    text: str,
) -> None:
    """What a user can get wrong is told in one line with the right exit code; nothing is left."""
    monkeypatch.chdir(tmp_path)
    Path("there.html").write_text("mine")
    options = arguments if "--out" in arguments else [*arguments, "--out", "x.html"]
    store = [] if "--store" in arguments else ["--store", str(directory)]
    assert main(["report", *store, "--day", day, *options]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line
    assert [path.name for path in tmp_path.iterdir()] == ["there.html"]
    assert Path("there.html").read_text() == "mine"


def test_force_and_pictures_that_are_there(directory: Path, tmp_path: Path) -> None:
    """Files are written over with --force only, and pictures are looked at before any work."""
    out, pictures = tmp_path / "x.html", tmp_path / "png"
    pictures.mkdir()
    (pictures / f"BTC_USDT-{DATE}-rate.png").write_text("mine")
    arguments = ("BTC_USDT", "--out", out, "--png", pictures)
    assert run(directory, *arguments) == 2
    assert [path.name for path in pictures.iterdir()] == [f"BTC_USDT-{DATE}-rate.png"]
    assert not out.exists()
    out.write_text("mine")
    assert run(directory, *arguments, "--force") == 0
    assert len(list(pictures.iterdir())) == len(plots.PLOTS)
    assert b"mine" not in (out.read_bytes(), (pictures / f"BTC_USDT-{DATE}-rate.png").read_bytes())


def test_without_the_plotting_library(
    directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(directory, "--out", tmp_path / "x.html") == 2
    assert "pip install 'mexc-trio[report]'" in capsys.readouterr().err


def test_a_store_that_goes_away(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the second symbol cannot be read, there is no half of a page."""
    original = RangeReader.of

    def failing(self: RangeReader, symbol: str, span: Span) -> Recorded:
        if symbol == "ETH_USDT":
            raise StoreUnavailable("the store went away")
        return original(self, symbol, span)

    monkeypatch.setattr(RangeReader, "of", failing)
    assert run(directory, "--out", tmp_path / "x.html") == 1
    assert list(tmp_path.iterdir()) == []


def test_yesterday_is_the_default(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --day it is the last whole day in UTC."""
    days = {f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"}
    main(["report", "IDLE_USDT", "--store", str(directory), "--out", str(tmp_path / "x.html")])
    days.add(f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}")
    assert any(f"no rows of IDLE_USDT on {day}" in capsys.readouterr().err for day in days)
