"""Gaps in deals are filled: the recorder as a process, its one line cut.

`python -m tools.soak backfill` does the same a hundred times.
"""

from pathlib import Path

from tools.clickhouse import ClickHouseServer
from tools.soak.backfill import Cuts, Result, try_backfill


def check(result: Result) -> None:
    """See that nothing is wrong, and that something was tried."""
    assert not result.wrong, result
    assert result.unheard > 10, result
    assert result.gaps >= result.cuts, result


async def test_every_deal_of_a_cut_is_fetched_and_stored_once(tmp_path: Path) -> None:
    """Into the embedded engine, from an exchange that tells no ids; the ledger says whole."""
    result = await try_backfill(Cuts(directory=tmp_path, cuts=2, longest=2, rate=20, calm=4))
    check(result)
    assert not result.missing, result
    assert result.whole == result.gaps


async def test_what_the_exchange_tells_no_more_stays_in_the_ledger(
    tmp_path: Path, clickhouse_server: ClickHouseServer
) -> None:
    """Into a server: of a busy contract, the last deals of each cut; nothing else is claimed."""
    url = clickhouse_server.url.replace("/mexc_data?", "/backfill?")
    cuts = Cuts(
        directory=tmp_path, store=url, cuts=1, longest=4, rate=120, calm=4, ids=True, lag=0.5
    )
    result = await try_backfill(cuts)
    check(result)
    assert result.missing, result
    assert result.filled, result


async def test_a_recorder_that_is_killed_while_it_fetches_stores_no_deal_twice(
    tmp_path: Path,
) -> None:
    """The next run fetches what is left, and knows from the journal what is there."""
    result = await try_backfill(Cuts(directory=tmp_path, cuts=1, longest=2, rate=6, kill=True))
    check(result)


async def test_what_no_line_had_is_fetched_as_well(tmp_path: Path) -> None:
    """Two lines that are cut at once."""
    cuts = Cuts(directory=tmp_path, cuts=1, longest=2, rate=20, calm=4, options=["--lines", "2"])
    result = await try_backfill(cuts)
    check(result)
    assert not result.missing, result


async def test_nothing_is_fetched_if_nobody_wants_it(tmp_path: Path) -> None:
    """The ledger then says what it always said."""
    cuts = Cuts(directory=tmp_path, cuts=1, longest=2, rate=20, calm=4, options=["--no-backfill"])
    result = await try_backfill(cuts)
    check(result)
    assert result.missing >= result.unheard, result  # a cut loses some that were sent
    assert not result.filled
