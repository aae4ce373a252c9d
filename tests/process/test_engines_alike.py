"""Tables of either engine say the same: views, files, verdicts, backups and what is restored.

The rows of the MergeTree are inserted in blocks that come out of order, so that nothing here can be
in the order of receipt by accident.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import pytest

from mexc_trio import open_store
from mexc_trio.cli.main import main
from mexc_trio.clickhouse import views
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import prepare
from mexc_trio.clickhouse.tables import GAPS, Numbering, TableEngine, market_table
from mexc_trio.symbols import EXACT_VIEWS, VIEWS
from tests.support.faults import wait_until
from tools.market import Row
from tools.typed import market_rows

ENGINES: Final = tuple(TableEngine)
BATCH: Final = 97
GAP: Final = ("BTC_USDT", "all", 1_788_335_243_000, 1_788_335_244_000, "connection lost", "", 1, 9)


def rows() -> list[Row]:
    """Return rows out of the order of time, with deals that share a millisecond and some twice."""
    made = market_rows(900, oddities=0.05)
    moved = [*made[300:330], *made[:300], *made[330:]]
    same = [(ts // 50 * 50, mt, m) if mt == "d" else (ts, mt, m) for ts, mt, m in moved]
    return [*same, *same[-40:], (1, "d", "1|2|1"), (9_999_999_999_999, "t", "1||||")]


def fill(directory: Path, engine: TableEngine) -> None:
    """Make a store with one table of that engine."""
    table, all_rows = market_table("btc", engine), rows()
    with closing(EmbeddedStore(directory)) as store:
        prepare(store, [table, GAPS])
        store.append(GAPS, [GAP])
        firsts = range(0, len(all_rows), BATCH)
        is_tree = engine is TableEngine.MERGETREE
        for first in reversed(firsts) if is_tree else firsts:
            part = all_rows[first : first + BATCH]
            numbering = Numbering(range(first, first + len(part)), str(first)) if is_tree else None
            store.append(table, part, numbering)
        views.create(store, ["btc"])


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[TableEngine, Path]]:
    """Lend a store of each engine with the same rows; they stay open for all who read them."""
    directories = {engine: tmp_path_factory.mktemp(engine) for engine in ENGINES}
    with ExitStack() as stack:
        for engine, directory in directories.items():
            stack.enter_context(closing(EmbeddedStore(directory)))
            fill(directory, engine)
        yield directories


def said(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """Run the command; return what it said."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    return capsys.readouterr().out


def test_views(stores: dict[TableEngine, Path]) -> None:
    """Candles open and close with the deal that came first and last in a millisecond."""
    answers: list[dict[str, Any]] = []
    for directory in stores.values():
        with closing(EmbeddedStore(directory)) as store:
            found: dict[str, Any] = {}
            for view in (*VIEWS, *EXACT_VIEWS):
                columns = (
                    "*" if "candles" in view else "* EXCEPT (side)" if "deals" in view else "*"
                )
                call = "(interval = 1)" if "candles" in view else ""
                found[view] = sorted(
                    map(str, store.query(f"SELECT {columns} FROM mexc_data.btc_{view}{call}"))
                )
            answers.append(found)
    assert answers[0] == answers[1]
    assert all(answers[0].values())


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        ("raw", "csv"), ("deals", "csv"), ("depths", "jsonl"), ("candles", "csv"),
        ("tickers", "parquet"), ("deals", "npz"),
    ],
)  # fmt: skip
def test_exports(
    kind: str,
    ending: str,
    stores: dict[TableEngine, Path],
    tmp_path: Path,
) -> None:
    """The files are the same to the byte."""
    files = []
    for engine, directory in stores.items():
        out = tmp_path / f"{engine}.{ending}"
        where = ("--store", str(directory), "--out", str(out))
        assert main(["export", "BTC_USDT", "--kind", kind, *where]) == 0
        files.append(out.read_bytes())
    assert files[0] == files[1]
    assert len(files[0]) > 250


def test_verify(stores: dict[TableEngine, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """All that is counted, all steps back, all rows that are there twice."""
    facts = [
        json.loads(said(capsys, 1, "verify", "--json", "--store", directory))
        for directory in stores.values()
    ]
    log, tree = ((one["findings"], one["symbols"], one["gaps"]["causes"]) for one in facts)
    assert log == tree
    assert {finding["kind"] for finding in log[0]} >= {"out of order", "repeated"}
    inserts = [one["tables"][0].pop("inserts") for one in facts]
    assert facts[0]["tables"] == facts[1]["tables"]
    assert inserts[0] > 1
    assert inserts[1] == 0, "the engine keeps nothing in memory for them"
    sizes = [one["sizes"]["btc"]["total"] for one in facts]
    assert all(size > 10_000 for size in sizes)


def test_python(stores: dict[TableEngine, Path]) -> None:
    """Tables of Arrow are equal, rows of one millisecond in their order included."""
    answers = []
    for directory in stores.values():
        with open_store(directory) as store:
            answers.append(
                (
                    store.deals("BTC_USDT", numbers="exact"),
                    store.depths("BTC_USDT"),
                    store.tickers("BTC_USDT", 1_788_335_243_000, 1_788_335_300_000),
                    store.candles("BTC_USDT", seconds=1),
                )
            )
    assert answers[0] == answers[1]
    assert all(table.num_rows for table in answers[0])


@pytest.mark.parametrize("into", ENGINES)
@pytest.mark.parametrize("of", ENGINES)
def test_backup_and_restore(
    of: TableEngine,
    into: TableEngine,
    stores: dict[TableEngine, Path],
    kept: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A backup has no engine: it goes into either, also behind rows that are there."""
    where, new = tmp_path / "backup", kept("new")
    said(capsys, 0, "backup", "--store", stores[of], "--out", where)
    monkeypatch.setenv("MEXC_TRIO_ENGINE", into)
    for more in ((), ("--append",)):
        said(capsys, 0, "restore", "--store", new, "--in", where, *more)
    order = "ORDER BY n " if into is TableEngine.MERGETREE else ""
    with closing(EmbeddedStore(new)) as store:
        found = store.query(
            f"SELECT toUnixTimestamp64Milli(ts), mt, m FROM mexc_data.btc {order}"
            f"SETTINGS max_threads = 1"
        )
        kind = store.query("SELECT engine FROM system.tables WHERE name = 'btc'")
    assert [tuple(row) for row in found] == [tuple(row) for row in rows() * 2]
    assert str(kind[0][0]).lower() == into


def test_report(
    stores: dict[TableEngine, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same day is the same page but for the size of a row; impossible times do not count."""
    pages = []
    for engine, directory in stores.items():
        out = tmp_path / f"{engine}.html"
        where = ("--store", str(directory), "--out", str(out))
        assert main(["report", "BTC_USDT", "--day", "2026-09-02", *where]) == 0
        pages.append(out.read_text().count("<tr"))
        assert " 0.0 % covered" not in capsys.readouterr().out
    assert pages[0] == pages[1]
    assert pages[0] > 1


def test_texts_are_packed_again_when_they_are_old(tmp_path: Path) -> None:
    """An INSERT is not the dearer for it; the engine takes its directory again afterwards."""
    ours = [market_table(name, TableEngine.MERGETREE) for name in ("btc", "eth")]
    codec = "SELECT DISTINCT default_compression_codec FROM system.parts WHERE active AND table = "
    with closing(EmbeddedStore(tmp_path)) as store:
        prepare(store, ours)
        now = int(1000 * time.time())
        for table, ts in zip(ours, (now, now - 7_200_000), strict=True):
            store.append(table, [(ts, "d", "1|1|1")], Numbering([0], "one"))
        assert store.query(f"{codec}'btc'") == [("ZSTD(3)",)]

        def is_packed() -> bool:
            store.query("OPTIMIZE TABLE mexc_data.eth FINAL")
            return store.query(f"{codec}'eth'") == [("ZSTD(11)",)]

        wait_until("merges have done it", is_packed)
    with closing(EmbeddedStore(tmp_path)) as store:
        assert store.query("SELECT m, n FROM mexc_data.eth") == [("1|1|1", 0)]


def test_reset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table of either engine goes, and its views with it."""
    for engine in ENGINES:
        fill(tmp_path / engine, engine)
        said(capsys, 0, "reset", "BTC_USDT", "--yes", "--store", tmp_path / engine)
        with closing(EmbeddedStore(tmp_path / engine)) as store:
            left = store.query("SELECT name FROM system.tables WHERE database = 'mexc_data'")
        assert left == [("gaps",)]
