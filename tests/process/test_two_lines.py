"""No gap while one line lives: the recorder as a process, its lines broken at random.

`python -m tools.soak lines` does the same hundreds of times.
"""

import signal
from pathlib import Path
from typing import Final

import pytest

from tools.clickhouse import ClickHouseServer
from tools.exchange import open_exchange
from tools.soak.lines import Result, Trial, heard, last_deal, try_lines
from tools.soak.recorder import SYMBOL, Place, kill, subscribed, until

DEALS: Final = 1000
"""That are sent at the least."""


def check(result: Result) -> None:
    """See that nothing is wrong, and that something was tried."""
    assert not result.wrong, result
    assert result.deals >= DEALS, result
    assert result.books > result.books_sent * 0.5, result
    assert result.longest_pause < 2, result


async def test_lines_that_are_broken_again_and_again_lose_no_deal(tmp_path: Path) -> None:
    """Into the embedded engine: each deal once, no gap, books never back."""
    check(await try_lines(Trial(tmp_path, "mexc-data", kills=6, deals=DEALS)))


async def test_deals_that_one_line_loses_come_from_the_other(
    tmp_path: Path, clickhouse_server: ClickHouseServer
) -> None:
    """Into a server: frames that do not reach one of the lines are nobody's loss."""
    url = clickhouse_server.url.replace("/mexc_data?", "/lines?")
    result = await try_lines(Trial(tmp_path, url, kills=0, loss=0.1, deals=DEALS))
    check(result)
    assert result.lost_on_a_line > 20


async def test_deals_that_one_line_loses_and_another_takes_with_it_are_asked_for(
    tmp_path: Path,
) -> None:
    """Half of the frames lost on either line, and those of two seconds with the slower one."""
    trial = Trial(tmp_path, "mexc-data", kills=1, loss=0.5, delay=2.0, rate=15)
    result = await try_lines(trial)
    assert not result.wrong, result
    assert "that no line had brought" in (tmp_path / "log.txt").read_text()


async def test_planned_reconnects_of_the_only_line_lose_no_deal(tmp_path: Path) -> None:
    """New routes, again and again: the new connection is made before the old one is broken."""
    trial = Trial(tmp_path, "mexc-data", lines=1, kills=0, renewals=3, deals=DEALS)
    check(await try_lines(trial))


@pytest.mark.parametrize("lines", [1, 3])
async def test_any_number_of_lines_records_the_same(tmp_path: Path, lines: int) -> None:
    """One is the usual number, three are as good as two."""
    check(await try_lines(Trial(tmp_path, "mexc-data", lines=lines, kills=0, deals=DEALS)))


async def test_a_kill_while_one_line_has_just_begun_and_the_other_lags_is_told_in_full(
    tmp_path: Path,
) -> None:
    """What was under way on the line that lags is in the gap, though the other had gone on."""
    place = Place(tmp_path)
    async with open_exchange(rate=50, shared=True, delays=(0.0, 3.0, 0.0)) as exchange:
        options = ("--lines", "2", "--url", exchange.url)
        recorder = await place.start(*options)
        try:
            await until(exchange, recorder, lambda: heard(exchange) == 2)
            await exchange.stop_listening()
            await exchange.drop(next(one for one in subscribed(exchange) if not one.delay))
            sent = len(exchange.sent(SYMBOL))
            await until(exchange, recorder, lambda: len(exchange.sent(SYMBOL)) > sent + 50)
            await exchange.listen()
            await until(exchange, recorder, lambda: heard(exchange) == 2)
        finally:
            await kill(recorder)
        recorder = await place.start(*options)
        try:
            await until(exchange, recorder, lambda: heard(exchange) == 2)
            exchange.silence()
            await place.until_stored(last_deal(exchange))
            recorder.send_signal(signal.SIGINT)
            await recorder.wait()
        finally:
            await kill(recorder)
        stored = set(place.rows())
        gaps = [gap for gap in place.ledger() if gap.channel == "deal"]
        lacking = [row[0] for row in exchange.rows(SYMBOL) if row[1] == "d" and row not in stored]
    assert lacking
    untold = [ts for ts in lacking if not any(gap.start <= ts <= gap.end for gap in gaps)]
    assert not untold, (len(lacking), gaps)
