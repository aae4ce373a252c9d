"""`mexc-trio verify`: what it says is so, and what is wrong it finds."""

import itertools
import random
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio

from mexc_trio.analysis.gaps import FoundGap, GapsOfACause, GapSummary
from mexc_trio.analysis.survey import Size, Survey, sizes
from mexc_trio.cli.main import main
from mexc_trio.clickhouse import open_store
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import Store, prepare
from mexc_trio.clickhouse.tables import GAPS, market_table
from mexc_trio.errors import UsageError
from mexc_trio.journal import open_journal
from mexc_trio.locks import hold_file
from mexc_trio.rows import Gap, Row
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget, parse_store
from mexc_trio.verify.facts import Disk, Facts, JournalFacts
from mexc_trio.verify.verdict import report
from mexc_trio.verify.verify import gather, verify
from tests.support.running import OLD_LEDGER, OLD_MARKET
from tools.clickhouse import PASSWORD as SECRET
from tools.clickhouse import ClickHouseServer

START = 1_700_000_000_000
BLOCK, BLOCKS = 50, 40
ROWS = BLOCK * BLOCKS


def block(number: int) -> list[Row]:
    """Return the rows of one INSERT: 20 tickers, 20 deals, 10 books."""
    chance = random.Random(number)
    types = ("t", "d", "dp", "t", "d")
    return [
        Row(START + number * 1000 + i, types[i % 5], str(chance.random()) * 5) for i in range(BLOCK)
    ]


def fill(store: Store, *names: str) -> None:
    """Append what the tests expect to tables that are there."""
    for name in names:
        for number in range(BLOCKS):
            store.append(market_table(name), block(number))


def embedded(directory: Path, *names: str, gaps: tuple[Gap, ...] = ()) -> Settings:
    """Make an embedded store with tables of `ROWS` rows, and let it go."""
    settings = Settings(store=EmbeddedTarget(directory))
    store = open_store(settings)
    prepare(store, [*map(market_table, names), GAPS])
    fill(store, *names)
    if gaps:
        store.append(GAPS, gaps)
    store.close()
    return settings


def gap(symbol: str, channel: str, seconds: float, cause: str, start: int = START) -> Gap:
    """Return a row of the ledger."""
    return Gap(symbol, channel, start, start + int(seconds * 1000), cause, "", 0, 0)


def data(directory: Path, table: str = "btc") -> Path:
    """Return the file with a table's data."""
    return directory / "data" / "mexc_data" / table / "data.bin"


def cut(file: Path) -> None:
    """Leave out the end of a file, as a power cut can."""
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.truncate(size * 3 // 4)


def zero(file: Path) -> None:
    """Make the end of a file zeros, as a power cut can."""
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.seek(size * 3 // 4)
        stream.write(bytes(size - size * 3 // 4))


damages = pytest.mark.parametrize("damage", [cut, zero])


# The embedded store.


@pytest.mark.usefixtures("kept_data")
def test_the_numbers_are_those_of_the_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows in total and by type, oldest, newest and sizes are what was appended; all is sound."""
    settings = embedded(tmp_path / "data", "btc", "eth")
    facts = gather(settings, ())
    assert [table.name for table in facts.tables] == ["btc", "eth"]
    for table in facts.tables:
        assert (table.rows, table.counted, table.damage) == (ROWS, ROWS, "")
        assert table.by_key == {"t": 20 * BLOCKS, "d": 20 * BLOCKS, "dp": 10 * BLOCKS}
        assert table.inserts == BLOCKS
        assert (table.oldest, table.newest) == (START, START + (BLOCKS - 1) * 1000 + BLOCK - 1)
        files = {
            path.name: path.stat().st_size for path in data(tmp_path / "data").parent.iterdir()
        }
        size = facts.sizes["btc"]
        assert (size.data, size.index) == (files["data.bin"], files["index.mrk"])
        assert size.total == sum(files.values())
    assert facts.volume is not None
    assert facts.volume > sum(size.total for size in facts.sizes.values())
    assert facts.problems == []
    assert verify(settings, ()) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"2 tables, {2 * ROWS:,} rows, sound\n")
    assert f"\n{2 * BLOCKS} INSERTs, for which the engine takes " in said


@pytest.mark.usefixtures("kept_data")
def test_sizes_as_a_current_server_tells_them(tmp_path: Path) -> None:
    """What the engine itself says of its tables' sizes is the length of their files."""
    settings = embedded(tmp_path / "data", "btc", "eth")
    store = open_store(settings)
    files, told = sizes(store, tmp_path / "data"), sizes(store, None)
    store.close()
    assert files.keys() == told.keys() == {"btc", "eth", "gaps"}
    json = data(tmp_path / "data").with_name("sizes.json").stat().st_size
    assert told["btc"] == Size(files["btc"].total - json)
    assert told["gaps"] == Size(0)


@damages
def test_a_damaged_tail_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    """A tail that is cut or zeroed is told with the rows that are left; other tables are shown."""
    settings = embedded(tmp_path / "data", "btc", "eth")
    damage(data(tmp_path / "data"))
    facts = gather(settings, ())
    btc, eth = facts.tables
    assert (eth.rows, eth.damage) == (ROWS, "")
    assert btc.counted == ROWS
    assert ROWS // 2 < btc.rows < ROWS
    assert btc.rows % BLOCK == 0
    assert sum(btc.by_key.values()) == btc.rows
    assert btc.newest == START + (btc.rows // BLOCK - 1) * 1000 + BLOCK - 1
    assert verify(settings, ()) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"2 tables, {btc.rows + ROWS:,} rows can be read, 1 problem:"
    assert lines[1].startswith(
        f"  table btc is damaged, {btc.rows:,} of {ROWS:,} rows can be read: C"
    )


def test_damage_anywhere_is_found(tmp_path: Path) -> None:
    """One byte that is wrong, wherever it is and in whatever column, does not get through."""
    settings = embedded(tmp_path / "data", "btc")
    file = data(tmp_path / "data")
    sound = file.read_bytes()
    chance = random.Random(1)
    for position in chance.sample(range(len(sound)), 8):
        wrong = bytearray(sound)
        wrong[position] ^= 0x10
        file.write_bytes(wrong)
        assert gather(settings, ()).tables[0].damage, position
    file.write_bytes(sound)
    assert gather(settings, ()).problems == []


def test_data_that_is_gone(tmp_path: Path) -> None:
    """A table without its file, or without its index, has no row that can be read."""
    settings = embedded(tmp_path / "data", "btc")
    data(tmp_path / "data").unlink()
    assert (
        gather(settings, ())
        .problems[0]
        .startswith(f"table btc is damaged, 0 of {ROWS:,} rows can be read: ")
    )


@pytest.mark.parametrize("between", [False, True])
def test_an_index_that_is_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, between: bool
) -> None:
    """An index cut within a block or between two, which the engine does not notice, is found."""
    settings = embedded(tmp_path / "data", "btc")
    index = data(tmp_path / "data").with_name("index.mrk")
    length = index.stat().st_size
    store = open_store(settings)
    store.append(market_table("btc"), block(BLOCKS))
    store.close()
    index.write_bytes(index.read_bytes()[: length if between else -5])
    assert verify(settings, ()) == 1
    said = unwrapped(capsys.readouterr().out)
    assert f" table btc is damaged, {ROWS:,} rows can be read: its index was damaged" in said
    assert verify(settings, ()) == 0  # it is sound again, and what was is not forgotten
    assert f"\n{tmp_path / 'data' / 'damaged'}/" in capsys.readouterr().out


def test_a_damaged_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The ledger of gaps is read in full as well, and told of as far as it can be."""
    settings = embedded(tmp_path / "data", "btc")
    store = open_store(settings)
    for number in range(20):
        store.append(GAPS, [gap("BTC_USDT", "deal", number, f"cause {number}")])
    store.close()
    cut(data(tmp_path / "data", "gaps"))
    assert verify(settings, ()) == 1
    said = capsys.readouterr().out
    assert "table gaps is damaged, " in said
    assert " of 20 rows can be read: " in said
    assert "BTC_USDT  cause 0" in said
    assert "cause 19" not in said


def test_a_store_that_does_not_exist_is_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong path is an error with exit code 2; neither it nor an engine's files appear."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mexc_trio.cli.options.start_logging", lambda *given: None)
    assert main(["verify", "--store", "nope"]) == 2
    assert capsys.readouterr().err == (
        "mexc-trio: error: store nope: there is no such directory; see --store\n"
    )
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "pictures").mkdir()
    with pytest.raises(UsageError, match="nothing was ever recorded there"):
        gather(Settings(store=EmbeddedTarget(tmp_path / "pictures")), ())
    assert list((tmp_path / "pictures").iterdir()) == []


def test_tables_that_only_seem_to_be_ours(tmp_path: Path) -> None:
    """Whose server it is may have any tables; what has our columns, of other types, is not read."""
    with closing(EmbeddedStore(tmp_path)) as store:
        for name, columns, values in (
            ("btc", "ts String, mt UInt8, m Array(String)", "'x', 1, ['a']"),
            ("eth", "ts Nullable(DateTime64(3)), mt String, m String", "NULL, 'd', '1|2|1'"),
            (GAPS.name, ", ".join(f"`{one}` Date" for one in GAPS.column_names), ""),
        ):
            table = f"{store.database}.{name}"
            store.query(f"CREATE TABLE {table} ({columns}) ENGINE = StripeLog")
            if values:
                store.query(f"INSERT INTO {table} SELECT {values}")
    settings = Settings(store=EmbeddedTarget(tmp_path))
    facts = gather(settings, ())
    assert (facts.tables, facts.gaps) == ([], None)
    assert gather(settings, ("BTC_USDT",)).missing


def test_while_a_recorder_has_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says who has it and what to do."""
    monkeypatch.setattr("mexc_trio.clickhouse.engine.FIND", 0.1)
    embedded(tmp_path / "data", "btc")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mexc_trio.cli.options.start_logging", lambda *given: None)
    with hold_file(tmp_path / "data" / "store.lock", "store"):
        assert main(["verify", "--store", "data"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "store data is in use by process" in said.err


async def test_while_a_recorder_answers(tmp_path: Path) -> None:
    """A store that is being recorded into is read through its recorder; all of it is known."""
    settings = embedded(tmp_path / "data", "btc", gaps=(gap("BTC_USDT", "all", 1, "test"),))
    store = EmbeddedStore(tmp_path / "data")
    idle = await trio.to_thread.run_sync(store.query, "SELECT count() FROM mexc_data.btc")
    assert idle == [(ROWS,)]

    recorded = trio.Event()

    async def record() -> None:
        for number in range(BLOCKS, 3 * BLOCKS):
            await trio.to_thread.run_sync(store.append, market_table("btc"), block(number))
        recorded.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(record)
        growing = await trio.to_thread.run_sync(gather, settings, ())
        await recorded.wait()
        facts = await trio.to_thread.run_sync(gather, settings, ())
    store.close()
    assert growing.problems == facts.problems == []
    assert growing.store == facts.store == f"store {tmp_path / 'data'}"
    assert ROWS <= growing.rows <= facts.rows == 3 * ROWS
    assert facts.not_in_order == ""
    assert facts.symbols[0].repeated is not None
    assert facts.sizes["btc"].data == data(tmp_path / "data").stat().st_size
    assert facts.gaps is not None
    assert facts.gaps.table.rows == 1


@pytest.mark.usefixtures("kept_data")
def test_symbols_choose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only what was asked for is read; a symbol without a table, or with a strange one, is told."""
    settings = embedded(tmp_path / "data", "btc", "eth")
    store = open_store(settings)
    store.query("CREATE TABLE mexc_data.doge (ts DateTime64(3), price Float64) ENGINE = Log")
    store.close()
    assert verify(settings, ("ETH_USDT",)) == 0
    assert capsys.readouterr().out.startswith(f"1 table, {ROWS:,} rows, sound\n")
    assert verify(settings, ("XRP_USD", "ETH_USDT", "DOGE_USDT")) == 1
    assert capsys.readouterr().out.splitlines()[:3] == [
        f"1 table, {ROWS:,} rows can be read, 2 problems:",
        "  XRP_USD has no table xrp_usd: it was never recorded here",
        "  DOGE_USDT: table doge has no column m, mt: it is not one of ours",
    ]
    assert [table.name for table in gather(settings, ()).tables] == ["btc", "eth"]


@pytest.mark.usefixtures("kept_data")
def test_impossible_times_are_named_and_count_for_nothing(tmp_path: Path) -> None:
    """A deal of 1970 and one of 2286: coverage, order and the time that it takes are as without."""
    settings = embedded(tmp_path / "data", "btc")
    before = gather(settings, ())
    store = open_store(settings)
    odd = [Row(ts, "d", "107.5|2|1") for ts in (0, 1_700_000_000, 9_999_999_999_999)]
    store.append(market_table("btc"), odd)
    store.close()
    after = gather(settings, ())
    assert after.rows == before.rows + 3
    assert after.symbols[0].coverage == before.symbols[0].coverage
    assert after.symbols[0].backwards == before.symbols[0].backwards
    (named,) = [found for found in after.findings if found not in before.findings]
    assert (named.kind, named.wrong) == ("impossible time", False)
    assert "BTC_USDT: 3 rows with an impossible time" in named.text


@pytest.mark.usefixtures("kept_data")
def test_the_table_that_the_settings_name(tmp_path: Path) -> None:
    """A symbol's own section of the settings file counts here too."""
    embedded(tmp_path / "data", "bitcoin")
    settings = Settings(
        store=EmbeddedTarget(tmp_path / "data"), overrides={"BTC_USDT": {"table": "bitcoin"}}
    )
    assert [table.name for table in gather(settings, ["BTC_USDT"]).tables] == ["bitcoin"]


@pytest.mark.usefixtures("kept_data")
def test_an_empty_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing recorded yet is said, and is nothing wrong; tables without rows are sound."""
    assert verify(embedded(tmp_path / "data"), ()) == 0
    assert capsys.readouterr().out.startswith("empty: no symbol was recorded yet\n")


@pytest.mark.usefixtures("kept_data")
def test_tables_without_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `setup` makes is sound before the first row."""
    settings = Settings(store=EmbeddedTarget(tmp_path / "data"))
    store = open_store(settings)
    prepare(store, [market_table("btc")])
    store.close()
    assert verify(settings, ()) == 0
    assert capsys.readouterr().out.startswith("1 table, 0 rows, sound\n")


def test_no_database(tmp_path: Path) -> None:
    """A store in which nothing was ever made is an error that says so."""
    settings = Settings(store=EmbeddedTarget(tmp_path / "data"))
    store = open_store(settings)
    store.query("CREATE DATABASE another")
    store.close()
    with pytest.raises(UsageError, match="nothing was ever recorded there"):
        gather(settings, ())


def test_what_a_repair_put_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The damaged copy that a repair keeps is mentioned, not counted, and nothing wrong."""
    settings = embedded(tmp_path / "data", "btc", "btc_damaged_20261122_101112")
    cut(data(tmp_path / "data", "btc_damaged_20261122_101112"))
    assert verify(settings, ()) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"1 table, {ROWS:,} rows, sound\n")
    assert "\nbtc_damaged_20261122_101112: was left by a repair and takes " in said


@pytest.mark.usefixtures("kept_data")
def test_the_gaps(tmp_path: Path) -> None:
    """Gaps are counted by symbol and cause; an outage of all channels is among the longest."""
    later = START + 10_000_000
    settings = embedded(
        tmp_path / "data",
        "btc",
        "eth",
        gaps=(
            gap("BTC_USDT", "ticker", 60, "connection lost"),
            gap("BTC_USDT", "deal", 60.5, "connection lost", START - 100),
            gap("BTC_USDT", "depth", 59, "connection lost"),
            gap("BTC_USDT", "depth", 5, "channel silent", later),
            gap("BTC_USDT", "depth", 7, "channel silent", later + 6000),
            gap("ETH_USDT", "all", 90, "table damaged"),
        ),
    )
    gaps = gather(settings, ()).gaps
    assert gaps is not None
    assert gaps.causes == [
        GapsOfACause("BTC_USDT", "channel silent", 2, 7000),
        GapsOfACause("BTC_USDT", "connection lost", 3, 60_500),
        GapsOfACause("ETH_USDT", "table damaged", 1, 90_000),
    ]
    assert [(h.symbol, h.channels, h.start, h.end) for h in gaps.longest] == [
        ("ETH_USDT", ("all",), START, START + 90_000),
        ("BTC_USDT", ("deal", "ticker", "depth"), START - 100, START + 60_400),
        ("BTC_USDT", ("depth",), later + 6000, later + 13_000),
        ("BTC_USDT", ("depth",), later, later + 5000),
    ]
    chosen = gather(settings, ["ETH_USDT"]).gaps
    assert chosen is not None
    assert [cause.symbol for cause in chosen.causes] == ["ETH_USDT"]


# The journal.


@pytest.mark.usefixtures("kept_data")
def test_rows_that_wait_in_the_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a run that was killed left in the journal is counted; it is nothing wrong."""
    settings = embedded(tmp_path / "data", "btc")
    assert gather(settings, ()).journal is None
    assert not settings.journal_path.exists()
    with open_journal(settings.journal_path) as journal:
        journal.queue("btc").append(block(0))
    assert verify(settings, ()) == 0
    said = unwrapped(capsys.readouterr().out)
    assert f"50 rows wait in {settings.journal_path} (btc 50): the next run writes them" in said
    with open_journal(settings.journal_path) as journal:
        assert journal.queue("btc").backlog == BLOCK


@pytest.mark.usefixtures("kept_data")
def test_a_journal_that_cannot_be_read(tmp_path: Path) -> None:
    """A journal that is damaged is a problem, and names where it is kept."""
    settings = embedded(tmp_path / "data", "btc")
    settings.journal_path.write_bytes(b"no database" * 1000)
    (problem,) = gather(settings, ()).problems
    assert str(settings.journal_path) in problem


# A server.


@pytest.fixture
def server(emptied_server: ClickHouseServer) -> ClickHouseServer:
    """Lend a server with tables like the embedded store's, as old ones can have."""
    emptied_server.execute(f"CREATE TABLE mexc_data.btc {OLD_MARKET}")
    emptied_server.execute(f"CREATE TABLE mexc_data.gaps {OLD_LEDGER}")
    return emptied_server


def settings_of(server: ClickHouseServer, state: Path, *, readonly: bool = False) -> Settings:
    """Return settings with the server as the store."""
    url = server.readonly_url if readonly else server.url
    return Settings(store=parse_store(url), state_dir=state)


@pytest.mark.parametrize("readonly", [False, True])
def test_a_servers_tables(
    server: ClickHouseServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, readonly: bool
) -> None:
    """Times in milliseconds and a server without sizes are no hindrance, nor is a mere reader."""
    store = open_store(settings_of(server, tmp_path))
    fill(store, "btc")
    store.append(GAPS, [gap("BTC_USDT", "deal", 12, "connection lost")])
    store.close()
    settings = settings_of(server, tmp_path, readonly=readonly)
    assert verify(settings, ()) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"1 table, {ROWS:,} rows, sound\n")
    assert "2023-11-14T22:13:20Z" in said
    assert "2023-11-14T22:13:59Z" in said
    assert "connection lost" in said
    if not gather(settings, ()).sizes:
        assert "storage: not known to this server" in said
    assert SECRET not in said


@damages
def test_a_servers_damaged_table(
    server: ClickHouseServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
) -> None:
    """A server's table that lost its tail is named with the rows that can be read."""
    settings = settings_of(server, tmp_path)
    store = open_store(settings)
    fill(store, "btc")
    store.close()
    server.stop()
    damage(data(server.data))
    server.start()
    (table,) = gather(settings, ()).tables
    assert ROWS // 2 < table.rows < ROWS
    assert table.rows % BLOCK == 0
    assert verify(settings, ()) == 1
    assert f"table btc is damaged, {table.rows:,} " in capsys.readouterr().out


def test_a_table_that_grows_meanwhile(server: ClickHouseServer, tmp_path: Path) -> None:
    """Rows that a recorder adds while the table is read are no contradiction."""
    settings = settings_of(server, tmp_path)
    stop = threading.Event()

    def grow() -> None:
        store = open_store(settings)
        for number in itertools.count(BLOCKS):
            if stop.is_set():
                break
            store.append(market_table("btc"), block(number))
        store.close()

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        for _ in range(5):
            assert gather(settings, ()).problems == []
    finally:
        stop.set()
        thread.join()


def test_a_server_that_is_being_recorded_into(
    server: ClickHouseServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recorder that is running is told of, and the tables all the same."""
    settings = settings_of(server, tmp_path)
    with open_journal(settings.journal_path) as journal:
        journal.queue("btc").append(block(0))
        assert verify(settings, ()) == 0
    said = unwrapped(capsys.readouterr().out)
    assert said.startswith("1 table, 0 rows, sound ")
    assert "a recorder is running, so the newest rows may not be counted: journal " in said


def test_no_state_directory_is_made(server: ClickHouseServer, tmp_path: Path) -> None:
    """Looking for a journal leaves no trace."""
    gather(settings_of(server, tmp_path / "state"), ())
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("wrong", "right", "says"),
    [
        ("/mexc_data", "/nowhere", "has no database nowhere: nothing was recorded there"),
        (f":{SECRET}@", ":wrong@", "does not let user 'recorder' in"),
        ("127.0.0.1:", "127.0.0.1:1", "cannot be reached"),
    ],
)
def test_a_server_that_does_not_answer(
    clickhouse_server: ClickHouseServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    wrong: str,
    right: str,
    says: str,
) -> None:
    """A missing database, a wrong password or no server at all is one line and exit code 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mexc_trio.cli.options.start_logging", lambda *given: None)
    url = clickhouse_server.url.replace(wrong, right)
    if right == "127.0.0.1:1":
        url = url.replace(f"{right}{clickhouse_server.tcp_port}", right)
    assert main(["verify", "--store", url]) == 1
    said = capsys.readouterr()
    assert says in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert list(tmp_path.iterdir()) == []


# What is printed.


def survey(name: str, rows: int, **more: object) -> Survey:
    """Return a survey with numbers that are easy to recognise."""
    by_key = {"t": rows // 10, "d": rows - rows // 10, "dp": 0, "dl": 0}
    newest = START + 86_400_000
    return Survey(name, rows, rows, by_key, START, newest, str(more.get("damage", "")), "")


def unwrapped(text: str) -> str:
    """Return a report in one line, for sentences that are cut into several."""
    return " ".join(text.split())


def test_the_whole_report() -> None:
    """Verdict first, then aligned columns, thousands separated, times in UTC."""
    longest = [
        FoundGap("BTC_USDT", ("depth", "deal"), START, START + 83_500, "connection lost", "")
    ]
    facts = Facts(
        "store mexc-data",
        "mexc_data",
        [survey("btc", 1_234_567), survey("eth", 42)],
        GapSummary(
            survey("gaps", 3), [GapsOfACause("BTC_USDT", "connection lost", 1234, 83_500)], longest
        ),
        [],
        ["btc_damaged_20261122_101112"],
        {
            "btc": Size(41_234_567, 40_000_000, 1_234_000),
            "eth": Size(999, 900, 99),
            "gaps": Size(1000, 800, 200),
            "btc_damaged_20261122_101112": Size(2_000_000_000, 1, 1),
        },
        45_000_000_000,
        JournalFacts(Path("mexc-data/journal.sqlite"), {"btc": 1200, "gaps": 1}, "", ""),
        disk=Disk(8_000_000_000, {"btc": 40_000_000.0}),
    )
    assert (
        report(facts)
        == """\
2 tables, 1,234,609 rows, sound
store mexc-data, database mexc_data
1,201 rows wait in mexc-data/journal.sqlite (btc 1,200, gaps 1): the next run
  writes them, or: mexc-trio drain
btc_damaged_20261122_101112: was left by a repair and takes 2.0 GB; drop it when
  you no longer need it

table       rows   ticker       deal  depth  dead                oldest
btc    1,234,567  123,456  1,111,111      0     0  2023-11-14T22:13:20Z
eth           42        4         38      0     0  2023-11-14T22:13:20Z
all    1,234,609  123,460  1,111,149      0     0  2023-11-14T22:13:20Z

table                newest
btc    2023-11-15T22:13:20Z
eth    2023-11-15T22:13:20Z
all    2023-11-15T22:13:20Z

storage       data.bin   index   in all  bytes a row    a day  a month
btc            40.0 MB  1.2 MB  41.2 MB         33.4  40.0 MB   1.2 GB
eth              900 B    99 B    999 B         23.8        -        -
gaps             800 B   200 B   1.0 kB        333.3        -        -
whole volume         -       -  45.0 GB            -  40.0 MB   1.2 GB
8.0 GB are free, enough for 200 days at this rate

gaps      cause            number  longest
BTC_USDT  connection lost   1,234   83.5 s
all                         1,234

longest gaps  from                  seconds            cause    channels
BTC_USDT      2023-11-14T22:13:20Z     83.5  connection lost  deal depth"""
    )


def test_a_report_without_numbers() -> None:
    """What is not known, or lies in no year that a calendar has, is shown as just that."""
    strange = Survey("btc", 2, None, {"x": 2}, -(10**17), 10**17, "torn", "")
    facts = Facts("store", "mexc_data", [strange], None, ["X has no table"], [], {}, None, None)
    assert (
        report(facts)
        == """\
1 table, 2 rows can be read, 2 problems:
  table btc is damaged, 2 rows can be read: torn
  X has no table
  the next recording into a damaged table keeps the rows that can be read, and
    the damaged table under another name
store, database mexc_data

table  rows  ticker  deal  depth  x               oldest              newest
btc       2       0     0      0  2  -100000000000000000  100000000000000000

storage: not known to this server"""
    )


def test_it_fits_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No line has more than 80 letters, and what a dead letter says moves no cursor."""
    rows = [Row(START + n * 1000, "d", f"{n}.5|1|1") for n in range(100)]
    rows += [Row(START + 10**8 + n, "dl", "\x1b[2J\x07" + "x" * 400) for n in range(3)]
    table = "averylongnameofacontract"
    with closing(EmbeddedStore(tmp_path)) as store:
        prepare(store, [market_table(table), GAPS])
        store.append(market_table(table), rows)
        gap = (f"{table}_usdt".upper(), "deal", START, START + 10**8, "connection lost", "", 0, 0)
        store.append(GAPS, [gap])
    verify(Settings(store=EmbeddedTarget(tmp_path)), ())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 20
    assert max(map(len, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    assert any("\\x1b[#J" in line for line in lines)
