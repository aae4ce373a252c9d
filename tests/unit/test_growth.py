"""Tables are rewritten as often as the engine's memory needs, and only when it is worth it."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, cast

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from mexc_trio.clickhouse.index_memory import MUCH, WHILE_RUNNING
from mexc_trio.errors import StoreRejected
from mexc_trio.record.growth import FEW, PATIENCE, WORTH, Growth, worth_rewriting
from mexc_trio.record.rewriting import RewritingRequest
from mexc_trio.settings import Settings

if TYPE_CHECKING:
    from mexc_trio.journal import Queue
    from mexc_trio.record.recording import Recording

BOUND = 64 * 2**20
MOST = BOUND // WHILE_RUNNING
"""INSERTs that the bound allows."""


@attrs.define
class Rows:
    """A queue, as far as it is looked at."""

    name: str = "btc"
    verified: bool = True
    inserts: int = 0
    table_rows: int = 1000
    end: int = 0


def chosen_of(tables: list[Rows], bound: int) -> list[Rows]:
    """Return which tables to rewrite."""
    return cast("list[Rows]", worth_rewriting(cast("list[Queue]", tables), bound))


@given(
    tables=st.lists(
        st.builds(Rows, inserts=st.integers(0, MOST), table_rows=st.integers(0, 10**9))
    ),
    bound=st.sampled_from((0, BOUND, BOUND // 1000)),
)
def test_what_is_rewritten_is_worth_it(tables: list[Rows], bound: int) -> None:
    """Nothing within the bound or without one; the largest first, and none more than is needed."""

    def worth(one: Rows) -> bool:
        return one.inserts >= FEW and one.table_rows <= WORTH * one.inserts

    chosen = chosen_of(tables, bound)
    memory = sum(one.inserts for one in tables) * WHILE_RUNNING
    if not bound or memory <= bound:
        assert not chosen
    inserts = [one.inserts for one in chosen]
    assert inserts == sorted(inserts, reverse=True)
    for one in chosen:
        assert worth(one)
        assert memory > bound // 2
        memory -= one.inserts * WHILE_RUNNING
    if bound and chosen and memory > bound // 2:
        assert sum(map(worth, tables)) == len(chosen)


@pytest.mark.parametrize("rows_an_insert", [1, 13, 100])
def test_the_work_of_years_grows_with_their_rows_and_not_with_their_square(
    rows_an_insert: int,
) -> None:
    """Three symbols with an INSERT a second: memory and rewritten rows, an hour at a time."""
    tables = [Rows(name, table_rows=0) for name in ("btc", "eth", "sol")]
    rewritten = 0
    for hours in range(1, 4 * 365 * 24 + 1):
        for one in tables:
            one.inserts += 3600
            one.table_rows += 3600 * rows_an_insert
        for one in chosen_of(tables, BOUND):
            rewritten += one.table_rows
            one.inserts = 0
        rows = sum(one.table_rows for one in tables)
        inserts = sum(one.inserts for one in tables)
        hour = 3 * 3600
        assert inserts <= max(MOST, 3 * FEW, rows / WORTH) + hour
        assert rewritten <= WORTH * hours * hour


class SizedStore:
    """A store that knows of 10,000 INSERTs of earlier runs into each table."""

    away_since: float | None = None
    kind = "StripeLog"
    others: tuple[str, ...] = ()

    async def engines(self, tables: list[str]) -> dict[str, str]:
        """Say of what engine tables are."""
        await trio.lowlevel.checkpoint()
        return {name: self.kind for name in tables if name in ("btc", *self.others)}

    async def remove_leftover(self, table: str) -> bool:
        """Say that there is none."""
        await trio.lowlevel.checkpoint()
        return False

    async def inserts(self, table: str) -> int:
        """Say how many INSERTs a table has had."""
        await trio.lowlevel.checkpoint()
        return 10_000


@attrs.define
class Collected:
    """A symbol, as far as it is looked at."""

    queue: Rows = attrs.field(factory=Rows)
    symbol: str = "BTC_USDT"


@attrs.define
class Parts:
    """A recording, as far as it is looked at."""

    collectors: list[Collected] = attrs.field(factory=lambda: [Collected()])
    store: SizedStore = attrs.field(factory=SizedStore)
    settings: Settings = attrs.field(factory=lambda: Settings(compact_mib=64))
    backlog: int = 0


async def due(watched: Growth) -> list[str]:
    """Return which tables are to be rewritten now."""
    return [queue.name for queue in await watched.due()]


async def test_what_earlier_runs_left_counts_once(autojump_clock: MockClock) -> None:
    """It is asked for when the table is known to be sound; then what this run does is added."""
    parts = Parts()
    queue = parts.collectors[0].queue
    queue.verified = False
    watched = Growth(cast("Recording", parts))
    assert await due(watched) == []
    assert queue.inserts == 0
    queue.verified = True
    assert await due(watched) == []
    assert queue.inserts == 10_000
    queue.inserts += MOST
    assert await due(watched) == ["btc"]
    assert queue.inserts == 10_000 + MOST


async def test_symbols_come_and_go_while_the_store_is_asked(autojump_clock: MockClock) -> None:
    """A reload removes the first of two, or the second is found to be sound meanwhile."""
    first, second = Collected(), Collected(Rows("eth"), "ETH_USDT")
    parts = Parts([first, second])

    @attrs.define
    class Busy(SizedStore):
        async def engines(self, tables: list[str]) -> dict[str, str]:
            parts.collectors = [second]
            second.queue.verified = not second.queue.verified
            return await SizedStore.engines(self, tables)

    for verified in (True, False):
        parts.collectors, parts.store = [first, second], Busy()
        second.queue.verified = verified
        assert await due(Growth(cast("Recording", parts))) == []


async def test_tables_of_other_engines_are_left_alone(autojump_clock: MockClock) -> None:
    """They keep no entry of an INSERT."""
    parts = Parts()
    parts.store.kind = "MergeTree"
    parts.collectors[0].queue.inserts = 2 * MOST
    assert await due(Growth(cast("Recording", parts))) == []


async def test_what_a_conversion_has_left_is_told(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """In one line with the command that removes it, of either kind of table."""
    for kind in ("StripeLog", "MergeTree ORDER BY n", "Log"):
        parts = Parts()
        parts.store.kind, parts.store.others = kind, ("btc_converting",)
        watched = Growth(cast("Recording", parts))
        for _ in range(3):
            await watched.due()
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition(" is what")[0] for text in said] == ["table btc_converting"] * 3
    assert "mexc-trio convert BTC_USDT --engine stripelog removes it" in said[0]
    assert "mexc-trio convert BTC_USDT --engine mergetree removes it" in said[1]
    assert "--engine stripelog removes it" in said[2], "what a user's own table counts as"


async def test_it_waits_for_a_quiet_moment_but_not_for_ever(autojump_clock: MockClock) -> None:
    """Not while more comes than usually, nor while it is catching up; an hour at the most."""
    parts = Parts()
    queue = parts.collectors[0].queue
    watched = Growth(cast("Recording", parts))
    for _ in range(10):
        queue.end += 100
        assert await due(watched) == []
    queue.inserts = 2 * MOST
    queue.end += 1000
    assert await due(watched) == []
    parts.backlog = 50_000
    assert await due(watched) == []
    parts.backlog = 0
    parts.store.away_since = 1.0
    assert await due(watched) == []
    await trio.sleep(PATIENCE)
    assert await due(watched) == ["btc"]
    parts.store.away_since = None
    queue.end += 100
    assert await due(Growth(cast("Recording", parts))) == []  # a new one begins to count anew
    queue.inserts = 2 * MOST
    queue.end += 100
    assert await due(watched) == ["btc"]


async def test_what_could_not_be_done_is_tried_again_in_an_hour(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """And said once each time."""
    parts = Parts()
    queue = parts.collectors[0].queue
    watched = Growth(cast("Recording", parts))
    await watched.due()
    queue.inserts = 2 * MOST
    assert await due(watched) == ["btc"]
    watched.failed(cast("Queue", queue), StoreRejected("no room"))
    assert "no room; it is tried again in an hour" in caplog.text
    assert await due(watched) == []
    await trio.sleep(PATIENCE)
    assert await due(watched) == ["btc"]


async def test_much_memory_is_told_once_for_each_gibibyte(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing for a day of one symbol; and again when it has grown after it had been made small."""
    parts = Parts(settings=Settings(compact_mib=0))
    queue = parts.collectors[0].queue
    gibibyte = MUCH // WHILE_RUNNING + 1
    with caplog.at_level(logging.WARNING):
        watched = Growth(cast("Recording", parts))
        for inserts in (86_400, gibibyte, gibibyte + 10, 2 * gibibyte, 0, gibibyte, gibibyte + 10):
            await watched.due()
            queue.inserts = inserts
            await watched.due()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert "the engine keeps an index entry of every INSERT: about 1.1 GB of its memory" in lines[0]


@pytest.mark.parametrize(
    "text", [b"{", b'{"id":"\xff","symbols":[]}', b'{"id":"a","symbols":[],"x":' + 100_000 * b"["]
)
def test_a_request_that_cannot_be_read(
    tmp_path: Path, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told and thrown away; else no table would ever be rewritten again."""
    journal = tmp_path / "journal.sqlite"
    RewritingRequest("a", ()).leave(journal)
    (place,) = tmp_path.iterdir()
    place.write_bytes(text)
    assert RewritingRequest.found(journal) is None
    assert len(caplog.messages) == 1
    assert not place.exists()
