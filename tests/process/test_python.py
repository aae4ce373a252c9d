"""`from mexc_trio import open_store`: what is recorded, in Python, wherever it is."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pytest
import trio

from mexc_trio import RecordedStore, open_store
from mexc_trio.clickhouse import views
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import Store, prepare
from mexc_trio.clickhouse.tables import CONTRACTS, GAPS, market_table
from mexc_trio.errors import StoreRejected, UsageError
from tests.support.questions import ANSWERS, CONTRACT, Raw, market
from tests.support.running import DEADLINE, environment, running, server_store
from tools.exchange import open_exchange
from tools.market import Row
from tools.questions import same
from tools.questions.statements import QUESTIONS, README
from tools.typed import EXACT, FLOAT, Numbers, candles, expected

BTC: Final = "BTC_USDT"
ROWS: Final = {"btc": market("BTC_USDT"), "eth": market("ETH_USDT")}
GAP: Final = (BTC, "all", 1_795_132_800_000, 1_795_132_860_000, "connection lost", "x", 0, 0)


def fill(store: Store) -> None:
    """Put two symbols and a gap into a store."""
    prepare(store, [*map(market_table, ROWS), GAPS, CONTRACTS])
    store.append(CONTRACTS, [CONTRACT])
    views.create(store, list(ROWS))
    for table, rows in ROWS.items():
        for first in range(0, len(rows), 500):
            store.append(market_table(table), rows[first : first + 500])
    store.append(GAPS, [GAP])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory that a recorder has written, and left."""
    directory = tmp_path_factory.mktemp("python") / "mexc-data"
    with closing(EmbeddedStore(directory)) as store:
        fill(store)
    return directory


@pytest.fixture(scope="module", params=["directory", "server"])
def store(request: pytest.FixtureRequest, directory: Path) -> Iterator[RecordedStore]:
    """Open it, or a server with the same."""
    where: Any = directory
    if request.param == "server":
        server = request.getfixturevalue("clickhouse_server")
        where = server.url
        for table in (*ROWS, "gaps", "contracts"):
            server.execute(f"DROP TABLE IF EXISTS mexc_data.{table}")
        with closing(server_store(where)) as filling:
            fill(filling)
    with open_store(where) as store:
        yield store


def values(table: pa.Table) -> list[tuple[Any, ...]]:
    """Return a table's rows without the symbol, times in milliseconds."""
    assert table.column("symbol").unique().to_pylist() == [BTC]
    rows = table.drop_columns("symbol").to_pylist()
    return [(_milliseconds(row.pop("ts")), *row.values()) for row in rows]


def _milliseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def by_time(rows: list[Row]) -> list[Row]:
    """Return rows in the order of time; sorting is stable."""
    return sorted(rows, key=lambda row: row[0])


@pytest.mark.parametrize("kind", ["tickers", "deals", "depths"])
@pytest.mark.parametrize(("numbers", "computed"), [("float", FLOAT), ("exact", EXACT)])
def test_every_row_is_there(
    store: RecordedStore, kind: str, numbers: Any, computed: Numbers
) -> None:
    """Each kind has its rows, all of them, in the order of time, in either kind of numbers."""
    found = getattr(store, kind)(BTC, numbers=numbers)
    assert values(found) == expected(by_time(ROWS["btc"]), kind, computed)


def test_candles(store: RecordedStore) -> None:
    """Candles are of the length that was asked for."""
    found = store.candles("btc_usdt", seconds=300)
    assert values(found) == candles(ROWS["btc"], 300, FLOAT)


@pytest.mark.parametrize("question", QUESTIONS)
def test_sql_answers_what_people_ask(store: RecordedStore, question: str) -> None:
    """All statements are taken as they stand in their file, with their comment and their `;`."""
    statement = f"-- {question}\n{QUESTIONS[question]};"
    answer: Any = [tuple(row.values()) for row in store.sql(statement).to_pylist()]
    wanted = ANSWERS[question](*map(Raw.of, ROWS.values()))
    if not isinstance(wanted, list) or not isinstance(wanted[0], tuple):
        ((answer,),) = answer
    same(answer, wanted)


def test_ranges(store: RecordedStore) -> None:
    """A range is told in whatever way one has the time; its end is not part of it."""
    rows = expected(by_time(ROWS["btc"]), "deals", FLOAT)
    first, last = rows[100][0], rows[200][0]
    wanted = [row for row in rows if first <= row[0] < last]
    moments = [datetime.fromtimestamp(ms / 1000, UTC) for ms in (first, last)]
    for start, end in (
        (first, last),
        moments,
        [moment.isoformat() for moment in moments],
        [moment.replace(tzinfo=None) for moment in moments],
        [moment.astimezone(None) for moment in moments],
    ):
        assert values(store.deals(BTC, start, end)) == wanted
    day = moments[0].date()
    assert store.deals(BTC, day, day + timedelta(days=1)) == store.deals(BTC)
    assert store.deals(BTC, date(2020, 1, 1), date(2020, 1, 2)).num_rows == 0


def test_gaps(store: RecordedStore) -> None:
    """The ledger is a table like the others: what touches the range, of one symbol or of all."""
    assert store.gaps().num_rows == store.gaps(BTC).num_rows == 1
    assert store.gaps("ETH_USDT").num_rows == 0
    assert store.gaps(BTC, GAP[2] + 1, GAP[2] + 2).to_pylist()[0]["cause"] == "connection lost"
    assert store.gaps(BTC, GAP[3] + 1).num_rows == 0


def test_statements_that_are_no_select(store: RecordedStore) -> None:
    """SHOW and DESCRIBE answer too."""
    assert {"btc", "eth", "gaps"} <= set(store.sql("SHOW TABLES").column("name").to_pylist())
    assert store.sql("DESCRIBE btc").column("name").to_pylist() == ["ts", "mt", "m"]
    # It has addresses, for which Arrow has no type.
    assert all(store.sql("SHOW PROCESSLIST").column("address").to_pylist())


def test_errors_say_what_to_do(store: RecordedStore, tmp_path: Path) -> None:
    """One line each, as on the command line."""
    with pytest.raises(UsageError, match="DOGE_USDT was not recorded in"):
        store.deals("DOGE_USDT")
    with pytest.raises(UsageError, match="did you mean BTC_USDT"):
        store.deals("BTCUSDT")
    with pytest.raises(UsageError, match="is no time; write 2026-11-21"):
        store.deals(BTC, "yesterday")
    with pytest.raises(UsageError, match="its end is not part of it"):
        store.deals(BTC, "2026-11-21", "2026-11-21")
    with pytest.raises(StoreRejected, match="BTC_USDT is in table btc"):
        store.sql("SELECT count() FROM BTC_USDT")
    with pytest.raises(StoreRejected):
        store.sql("DROP TABLE btc")
    with pytest.raises(UsageError, match="there is no such directory"):
        open_store(tmp_path / "nothing")


def test_a_closed_store_says_so(directory: Path) -> None:
    """And the directory is free again."""
    with open_store(directory) as store:
        pass
    with pytest.raises(UsageError, match="was closed"):
        store.gaps()
    with closing(EmbeddedStore(directory)) as other:
        assert other.query("SELECT 1") == [(1,)]


async def test_while_a_recorder_runs_and_after_it(tmp_path: Path) -> None:
    """An open store outlives the recorder whose engine it reads, and the next one's begin."""
    async with open_exchange(rate=200) as exchange:
        url = exchange.url
        async with running(tmp_path, BTC, "--url", url, "--linger", "0") as program:
            await program.acknowledged(50)
            with open_store(tmp_path / "mexc-data") as store:
                assert store.sql("SELECT count() AS n FROM btc").to_pylist()[0]["n"] >= 50
                assert await program.stop() == 0
                after = await trio.to_thread.run_sync(store.sql, "SELECT count() AS n FROM btc")
                rows = after.to_pylist()[0]["n"]
                # The engine is ours now, and the next recorder takes it as it is.
                async with running(tmp_path, BTC, "--url", url, "--linger", "0") as next_one:
                    await next_one.acknowledged(rows + 50)
                    more = await trio.to_thread.run_sync(store.deals, BTC)
                    assert more.num_rows > 0
                    assert await next_one.stop() == 0


def run_python(code: str, directory: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    """Run a program of a user."""
    return subprocess.run(
        [sys.executable, *flags, "-c", code], cwd=directory, env=environment(), text=True,
        capture_output=True, timeout=DEADLINE, check=False,
    )  # fmt: skip


def test_import_is_cheap(tmp_path: Path) -> None:
    """Whoever imports the package has loaded nothing of it but that, and no library."""
    code = (
        "import sys, typing; before = set(sys.modules)\n"
        "import mexc_trio; print(*set(sys.modules) - before)"
    )
    ran = run_python(code, tmp_path)
    assert ran.stdout.split() == ["mexc_trio"], ran.stderr


def test_without_pyarrow(tmp_path: Path) -> None:
    """The error says what to install."""
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from mexc_trio import open_store\n"
        "from mexc_trio.errors import UsageError\n"
        "try: open_store('x')\n"
        "except UsageError as error: print(error)"
    )
    assert "pip install 'mexc-trio[files]'" in run_python(code, tmp_path).stdout


def test_a_store_that_nobody_closes(directory: Path) -> None:
    """A notebook's end is the engine's, and no complaint."""
    code = "from mexc_trio import open_store\nstore = open_store()\nprint(store.gaps().num_rows)"
    ran = run_python(code, directory.parent, "-W", "error")
    assert (ran.stdout, ran.stderr) == ("1\n", "")


def test_the_readmes_example(directory: Path) -> None:
    """What the README shows is run, and gives what stands there."""
    example = re.search(r"```python\n(from mexc_trio.*?)```", README.read_text(), re.DOTALL)
    assert example
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory.parent)
        exec(example[1], names)  # noqa: S102 - it is ours
    raw = Raw.of(ROWS["btc"])
    assert isinstance(names["books"], pl.DataFrame)
    same(names["vwap"], ANSWERS["volume-weighted average price"](raw, raw))
