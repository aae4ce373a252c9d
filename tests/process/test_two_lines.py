"""No gap while one line lives: the recorder as a process, its lines broken at random.

`python -m tools.soak lines` does the same hundreds of times.
"""

from pathlib import Path

import pytest

from tools.clickhouse import ClickHouseServer
from tools.soak.lines import Result, Trial, try_lines


def check(result: Result) -> None:
    """See that nothing is wrong, and that something was tried."""
    assert not result.wrong, result
    assert result.deals > 1000, result
    assert result.books > result.books_sent * 0.5, result
    assert result.longest_pause < 2, result


async def test_lines_that_are_broken_again_and_again_lose_no_deal(tmp_path: Path) -> None:
    """Into the embedded engine: each deal once, no gap, books never back."""
    check(await try_lines(Trial(tmp_path, "mexc-data", kills=6)))


async def test_deals_that_one_line_loses_come_from_the_other(
    tmp_path: Path, clickhouse_server: ClickHouseServer
) -> None:
    """Into a server: frames that do not reach one of the lines are nobody's loss.

    No line is broken meanwhile: what is on its way on one and lost on the other, nobody has.
    """
    url = clickhouse_server.url.replace("/mexc_data?", "/lines?")
    result = await try_lines(Trial(tmp_path, url, kills=0, loss=0.1, seconds=4))
    check(result)
    assert result.lost_on_a_line > 20


async def test_planned_reconnects_of_the_only_line_lose_no_deal(tmp_path: Path) -> None:
    """New routes, again and again: the new connection is made before the old one is broken."""
    check(await try_lines(Trial(tmp_path, "mexc-data", lines=1, kills=0, renewals=3)))


@pytest.mark.parametrize("lines", [1, 3])
async def test_any_number_of_lines_records_the_same(tmp_path: Path, lines: int) -> None:
    """One is the usual number, three are as good as two."""
    check(await try_lines(Trial(tmp_path, "mexc-data", lines=lines, kills=0, seconds=5)))
