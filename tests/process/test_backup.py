"""`mexc-trio backup` and `restore`: every row comes back, in its order, or nothing does."""

import hashlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_trio.backup.checksum import Checksum
from mexc_trio.cli.main import main
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.repair import rows_at
from mexc_trio.clickhouse.schema import prepare
from mexc_trio.clickhouse.tables import GAPS, market_table
from mexc_trio.errors import StoreUnavailable
from mexc_trio.journal import open_journal
from mexc_trio.rows import RowTuple
from mexc_trio.symbols import EXACT_VIEWS, VIEWS
from tests.support.running import DEADLINE, Embedded, environment, running
from tools.clickhouse import ClickHouseServer
from tools.exchange import open_exchange
from tools.market import Row
from tools.typed import market_rows

ODD: Final[list[Row]] = [
    (5, "dl", "tab\t newline\n return\r NUL\0 backslash\\ quote' \" é 漢 \u2028 end"),
    (1, "dl", ""),
    (9_999_999_999_999, "t", "1||||"),
]
LEDGER: Final[list[RowTuple]] = [
    ("BTC_USDT", "all", 1_788_335_243_000, 1_788_335_244_000, "connection lost", "why", 7, 2**63),
    ("ETH_USDT", "deal", 1_788_335_243_000, 1_788_335_245_000, "program stopped", "", 0, 0),
]


def rows_of_market() -> list[Row]:
    """Return rows out of order, some of them odd."""
    rows = [*market_rows(400, oddities=0.5), *ODD]
    return rows[50:] + rows[:50]


def fill(directory: Path, tables: dict[str, Sequence[RowTuple]]) -> None:
    """Give an embedded store's tables these rows, after those they have."""
    with closing(EmbeddedStore(directory)) as store:
        for name, rows in tables.items():
            table = GAPS if name == "gaps" else market_table(name)
            prepare(store, [table])
            for first in range(0, len(rows), 130):
                store.append(table, rows[first : first + 130])


def stored(directory: Path, name: str) -> list[RowTuple]:
    """Return a table's rows in the order of insertion."""
    with closing(EmbeddedStore(directory)) as store:
        return rows_at(store, GAPS if name == "gaps" else market_table(name), 0, 10**6)


def tables(directory: Path) -> set[str]:
    """Return the tables and views of an embedded store."""
    with closing(EmbeddedStore(directory)) as store:
        return {
            name
            for (name,) in store.query(
                "SELECT name FROM system.tables WHERE database = 'mexc_data'"
            )
        }


@pytest.fixture
def a_kept(kept: Callable[[str], Path]) -> None:
    """Have an engine for `tmp_path / "a"` that was there before, which saves to start one."""
    kept("a")


@pytest.fixture
def both_kept(a_kept: None, kept: Callable[[str], Path]) -> None:
    """Have one for `tmp_path / "b"` as well."""
    kept("b")


def backup(store: object, out: Path, *symbols: str) -> int:
    """Run the command."""
    return main(["backup", *symbols, "--store", str(store), "--out", str(out)])


def restore(store: object, source: Path, *more: str) -> int:
    """Run the command."""
    return main(["restore", *more, "--store", str(store), "--in", str(source)])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one error of standard error."""
    errors = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("mexc-trio: error: ")
    ]
    assert len(errors) == 1
    return errors[0]


# --- The checksum --------------------------------------------------------------------------------


def digest(rows: Sequence[tuple[int, str, str]]) -> str:
    """Return the checksum as its description has it, computed with nothing but hashlib."""
    if not rows:
        return ""
    whole = hashlib.sha256(str(len(rows)).encode())
    for column in zip(*rows, strict=True):
        lengths, content = hashlib.sha256(), hashlib.sha256()
        for value in column:
            if isinstance(value, int):
                content.update(struct.pack("<q", value))
            else:
                lengths.update(struct.pack("<i", len(value.encode())))
                content.update(value.encode())
        whole.update(lengths.digest() + content.digest())
    return whole.hexdigest()


def batch_of(rows: Sequence[tuple[int, str, str]]) -> Any:
    """Return rows as Arrow."""
    ts, mt, m = zip(*rows, strict=True) if rows else ((), (), ())
    arrays = [pa.array(ts, pa.int64()), pa.array(mt, pa.string()), pa.array(m, pa.string())]
    return pa.RecordBatch.from_arrays(arrays, names=["ts", "mt", "m"])


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**13), st.sampled_from(["t", "d"]), TEXTS), max_size=20),
    st.data(),
)
def test_the_checksum_is_of_rows_and_order_alone(
    rows: list[tuple[int, str, str]], data: st.DataObject
) -> None:
    """However the rows are cut into batches it is the same; with two rows swapped it is another."""
    cut = data.draw(st.integers(0, len(rows)))
    found = Checksum()
    found.add(batch_of([(0, "x", "y"), *rows[:cut]]).slice(1))
    found.add(batch_of(rows[cut:]))
    assert found.digest() == digest(rows)
    if len(rows) > 1:
        n = data.draw(st.integers(0, len(rows) - 2))
        swapped = [*rows]
        swapped[n], swapped[n + 1] = rows[n + 1], rows[n]
        assert (digest(swapped) == digest(rows)) == (rows[n] == rows[n + 1])


# --- There and back ------------------------------------------------------------------------------


@pytest.mark.usefixtures("both_kept")
def test_from_embedded_to_embedded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All tables come back row for row, and the ledger; what is new has its views."""
    market: dict[str, Sequence[RowTuple]] = {
        "btc": rows_of_market(),
        "eth": market_rows(50, oddities=0.2),
        "gaps": LEDGER,
    }
    fill(tmp_path / "a", {**market, "sol": []})
    assert backup(tmp_path / "a", tmp_path / "copy") == 0
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [
        "btc.parquet", "eth.parquet", "gaps.parquet", "manifest.json", "sol.parquet",
    ]  # fmt: skip
    assert restore(tmp_path / "b", tmp_path / "copy") == 0
    assert "compared one by one" in capsys.readouterr().out
    for name, rows in market.items():
        assert stored(tmp_path / "b", name) == rows
    views = {
        f"{table}_{view}" for table in ("btc", "eth", "sol") for view in (*VIEWS, *EXACT_VIEWS)
    }
    assert tables(tmp_path / "b") == {"btc", "eth", "gaps", "sol"} | views


@pytest.mark.usefixtures("both_kept")
def test_to_a_server_and_back(tmp_path: Path) -> None:
    """Moving from the embedded store to a server, and from a server, takes two commands."""
    market: dict[str, Sequence[RowTuple]] = {"btc": rows_of_market(), "gaps": LEDGER}
    fill(tmp_path / "a", market)
    with ClickHouseServer() as server:
        assert backup(tmp_path / "a", tmp_path / "copy") == 0
        assert restore(server.url, tmp_path / "copy") == 0
        sql = "SELECT toUnixTimestamp64Milli(ts), mt, m FROM mexc_data.btc SETTINGS max_threads = 1"
        found = server.execute(sql)
        assert found == market["btc"]
        assert backup(server.url, tmp_path / "again") == 0
    assert restore(tmp_path / "b", tmp_path / "again") == 0
    for name, rows in market.items():
        assert stored(tmp_path / "b", name) == rows


@pytest.mark.usefixtures("both_kept")
def test_only_some_symbols(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A backup of some symbols has their tables, and their rows of the ledger."""
    rows = market_rows(20, oddities=0.0)
    fill(tmp_path / "a", {"btc": rows, "eth": rows, "gaps": LEDGER})
    assert backup(tmp_path / "a", tmp_path / "copy", "ETH_USDT") == 0
    assert restore(tmp_path / "b", tmp_path / "copy") == 0
    assert stored(tmp_path / "b", "eth") == rows
    assert stored(tmp_path / "b", "gaps") == LEDGER[1:]
    capsys.readouterr()
    assert restore(tmp_path / "c", tmp_path / "copy", "BTC_USDT") == 2
    assert "has no BTC_USDT; it has eth, gaps" in one_line(capsys)
    assert backup(tmp_path / "a", tmp_path / "none", "SOL_USDT") == 2
    assert "SOL_USDT was not recorded" in one_line(capsys)
    # Whose table it is chose its name, and it would be a file's.
    fill(tmp_path / "a", {"../../btc": rows})
    assert backup(tmp_path / "a", tmp_path / "none") == 2
    assert "has a table '../../btc', as no file is named" in one_line(capsys)
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("both_kept")
def test_rows_that_are_there_are_never_in_danger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Restoring over rows is refused; --append puts the backup's after them."""
    old, new = market_rows(30, oddities=0.0, seed=2), rows_of_market()
    fill(tmp_path / "a", {"btc": new})
    fill(tmp_path / "b", {"btc": old})
    assert backup(tmp_path / "a", tmp_path / "copy") == 0
    assert restore(tmp_path / "b", tmp_path / "copy") == 2
    assert f"has rows already in btc ({len(old):,}); --append" in one_line(capsys)
    assert stored(tmp_path / "b", "btc") == old
    assert restore(tmp_path / "b", tmp_path / "copy", "--append") == 0
    assert stored(tmp_path / "b", "btc") == [*old, *new]


# --- When it goes wrong --------------------------------------------------------------------------


def damage_nothing(copy: Path) -> None:
    """Leave no manifest."""
    (copy / "manifest.json").unlink()


def cut(copy: Path) -> None:
    """Cut a table's file short."""
    data = (copy / "btc.parquet").read_bytes()
    (copy / "btc.parquet").write_bytes(data[: len(data) // 2])


def swap(copy: Path) -> None:
    """Write two rows in the other order."""
    table = pq.read_table(copy / "btc.parquet")
    order = [1, 0, *range(2, table.num_rows)]
    pq.write_table(table.take(order), copy / "btc.parquet")


def remove(copy: Path) -> None:
    """Lose a table's file."""
    (copy / "btc.parquet").unlink()


def rename(copy: Path) -> None:
    """Give a table a name that clears a terminal."""
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace('"btc"', r'"b\u001b[2J"'))


def make_no_text(copy: Path) -> None:
    """Write a manifest that is no UTF-8."""
    text = (copy / "manifest.json").read_bytes()
    (copy / "manifest.json").write_bytes(text.replace(b'"btc"', b'"\xff"'))


def nest(copy: Path) -> None:
    """Write a manifest that is deeper than anybody looks."""
    (copy / "manifest.json").write_text('{"x":' + 100_000 * "[")


def lead_outside(copy: Path) -> None:
    """Have a file of another directory read."""
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace('"btc"', '"../btc"'))


def narrow(copy: Path) -> None:
    """Leave a column out."""
    pq.write_table(pq.read_table(copy / "btc.parquet", columns=["value_ts"]), copy / "btc.parquet")


def empty_a_cell(copy: Path) -> None:
    """Have a row without a time."""
    table = pq.read_table(copy / "btc.parquet")
    times = pa.array([None, *table["value_ts"].to_pylist()[1:]], pa.int64())
    pq.write_table(table.set_column(0, "value_ts", times), copy / "btc.parquet")


def make_a_pipe(copy: Path) -> None:
    """Have somebody wait for what never comes."""
    remove(copy)
    os.mkfifo(copy / "btc.parquet")


@pytest.mark.parametrize(
    ("harm", "code", "message"),
    [
        (damage_nothing, 2, "is no backup"),
        (cut, 1, "cannot be read"),
        (swap, 1, "it was damaged"),
        (remove, 1, "cannot be read"),
    ],
)
@pytest.mark.usefixtures("a_kept")
def test_a_damaged_backup_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: Any, code: int, message: str
) -> None:
    """It is found before anything is written: not even a store is made."""
    fill(tmp_path / "a", {"btc": rows_of_market()})
    assert backup(tmp_path / "a", tmp_path / "copy") == 0
    harm(tmp_path / "copy")
    assert restore(tmp_path / "b", tmp_path / "copy") == code
    assert message in one_line(capsys)
    assert not (tmp_path / "b").exists()


@pytest.mark.usefixtures("a_kept")
def test_a_backup_that_nobody_made_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is restored may come from anybody, and is looked at before a store is opened."""
    fill(tmp_path / "a", {"btc": rows_of_market()})
    assert backup(tmp_path / "a", tmp_path / "made") == 0
    for harm, message in (
        (make_no_text, "manifest.json cannot be read"),
        (nest, "manifest.json cannot be read"),
        (rename, "has a table 'b\\x1b[2J', as no backup has"),
        (lead_outside, "has a table '../btc', as no backup has"),
        (narrow, "btc.parquet has other columns than table btc"),
        (empty_a_cell, "btc.parquet has other columns than table btc"),
        (make_a_pipe, "btc.parquet is no file"),
    ):
        copy = shutil.copytree(tmp_path / "made", tmp_path / harm.__name__)
        harm(copy)
        assert restore(tmp_path / "b", copy) == 1
        assert message in one_line(capsys)
        assert not (tmp_path / "b").exists()


@pytest.mark.usefixtures("both_kept")
def test_a_restore_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An INSERT fails in the middle: the half-filled table is gone, and a second try works."""
    rows = market_rows(15_000, oddities=0.0)
    fill(tmp_path / "a", {"btc": rows[:12_000]})
    assert backup(tmp_path / "a", tmp_path / "copy") == 0
    original, calls = EmbeddedStore.append, []

    def failing(self: EmbeddedStore, *arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise StoreUnavailable("the disk went away")
        original(self, *arguments)

    monkeypatch.setattr(EmbeddedStore, "append", failing)
    assert restore(tmp_path / "b", tmp_path / "copy") == 1
    assert one_line(capsys) == "mexc-trio: error: the disk went away"
    assert tables(tmp_path / "b") == set()
    assert restore(tmp_path / "b", tmp_path / "copy") == 0
    assert stored(tmp_path / "b", "btc") == rows[:12_000]


@pytest.mark.usefixtures("both_kept")
def test_a_restore_touches_nothing_that_a_recorder_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused before the first table is made or gets another name, not after that."""
    rows = rows_of_market()
    fill(tmp_path / "a", {"btc": rows})
    assert backup(tmp_path / "a", tmp_path / "copy") == 0
    fill(tmp_path / "b", {"btc": [], "eth": []})
    with open_journal(tmp_path / "b" / "journal.sqlite"):
        assert restore(tmp_path / "b", tmp_path / "copy") == 1
        assert "journal.sqlite is in use by process" in one_line(capsys)
    assert tables(tmp_path / "b") == {"btc", "eth"}
    assert stored(tmp_path / "b", "btc") == []
    assert restore(tmp_path / "b", tmp_path / "copy") == 0
    assert stored(tmp_path / "b", "btc") == rows


@pytest.mark.usefixtures("both_kept")
def test_rows_that_changed_on_the_way_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store is asked what it has, and a single other digit is enough."""
    fill(tmp_path / "a", {"btc": rows_of_market()})
    assert backup(tmp_path / "a", tmp_path / "copy") == 0
    original = EmbeddedStore.append

    def changing(
        self: EmbeddedStore, table: Any, rows: Sequence[RowTuple], numbering: Any = None
    ) -> None:
        first, *more = rows
        original(self, table, [(first[0], first[1], f"{first[2]}0"), *more], numbering)

    monkeypatch.setattr(EmbeddedStore, "append", changing)
    assert restore(tmp_path / "b", tmp_path / "copy") == 1
    assert "has not what was restored into it" in one_line(capsys)
    assert tables(tmp_path / "b") == set()


@pytest.mark.usefixtures("a_kept")
def test_a_backup_never_writes_over_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory with something in it is refused, and so is a store that does not exist."""
    fill(tmp_path / "a", {"btc": rows_of_market()})
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "mine").write_text("mine")
    assert backup(tmp_path / "a", tmp_path / "copy") == 2
    assert "is there already" in one_line(capsys)
    assert backup(tmp_path / "no", tmp_path / "copy2") == 2
    assert "there is no such directory" in one_line(capsys)
    assert backup(tmp_path / "a", tmp_path / "no" / "copy") == 2
    assert "cannot write into" in one_line(capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "copy"]


@pytest.mark.usefixtures("a_kept")
def test_a_backup_empties_no_directory_that_somebody_leads_it_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a killed backup left is cleared away. A link in its place led to files of ours."""
    fill(tmp_path / "a", {"btc": rows_of_market()})
    precious, out = tmp_path / "precious", tmp_path / "open" / "copy"
    precious.mkdir()
    (precious / "key").write_text("mine")
    out.parent.mkdir()
    out.parent.chmod(0o1777)
    part = out.with_name(".copy.part")
    part.symlink_to(precious)
    assert backup(tmp_path / "a", out) == 2
    assert "cannot write into" in one_line(capsys)
    assert (precious / "key").read_text() == "mine"
    if os.geteuid() == 0:
        part.unlink()
        part.mkdir()
        os.chown(part, 40_002, 40_002)
        assert backup(tmp_path / "a", out) == 2
        assert "is there, and belongs to another user" in one_line(capsys)


def test_ctrl_c_in_a_backup(tmp_path: Path) -> None:
    """One line, exit code 130, and no directory."""
    with closing(EmbeddedStore(tmp_path / "a")) as store:
        prepare(store, [market_table("btc")])
        store.query(
            "INSERT INTO mexc_data.btc SELECT fromUnixTimestamp64Milli(toInt64(number)), 'd', "
            "concat(toString(number), '.5|1|1') FROM numbers(3000000)"
        )
    begun, copy = tmp_path / ".copy.part" / "btc.parquet", tmp_path / "copy"
    words = ["backup", "--store", str(tmp_path / "a"), "--out", str(copy)]
    code = 0
    while not code:
        shutil.rmtree(copy, ignore_errors=True)  # it was done before we had the processor again
        with subprocess.Popen(
            [sys.executable, "-m", "mexc_trio", *words],
            env=environment(), stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        ) as process:  # fmt: skip
            while process.poll() is None and not begun.exists():
                time.sleep(0.005)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=DEADLINE)
        code = process.returncode
    assert code == 130, error
    assert error.splitlines()[-1] == "mexc-trio: error: interrupted"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


# --- The recorder afterwards ---------------------------------------------------------------------


@pytest.mark.usefixtures("both_kept")
def test_a_journal_learns_of_restored_rows(tmp_path: Path) -> None:
    """A journal that knew the table as empty expects the restored rows from then on."""
    rows = rows_of_market()
    fill(tmp_path / "a", {"btc": rows})
    assert backup(tmp_path / "a", tmp_path / "copy") == 0
    fill(tmp_path / "b", {"btc": []})
    with open_journal(tmp_path / "b" / "journal.sqlite") as journal:
        journal.queue("btc").move_head(0, 0)
    assert restore(tmp_path / "b", tmp_path / "copy") == 0
    with open_journal(tmp_path / "b" / "journal.sqlite") as journal:
        assert journal.queue("btc").table_rows == len(rows)


@pytest.mark.parametrize("journal", [False, True], ids=["a new machine", "the journal is kept"])
async def test_recording_goes_on_after_a_restore(tmp_path: Path, journal: bool) -> None:
    """What is recorded next comes after the restored rows, and the time between is a gap."""
    async with open_exchange(rate=200) as exchange:
        arguments = ("BTC_USDT", "--url", exchange.url, "--linger", "0.1")
        async with running(tmp_path, *arguments) as program:
            await program.until(lambda: len(exchange.rows("BTC_USDT")) > 100)
            exchange.silence()
            first = exchange.rows("BTC_USDT")
            await program.journaled(len(first))
            assert await program.stop() == 0
        exchange.resume()
        data = tmp_path / "mexc-data"
        assert backup(data, tmp_path / "copy") == 0
        if journal:
            # The tables are lost, and the state beside them is not.
            shutil.copy(data / "journal.sqlite", tmp_path)
        shutil.rmtree(data)
        if journal:
            data.mkdir()
            shutil.move(tmp_path / "journal.sqlite", data)
        assert restore(data, tmp_path / "copy") == 0
        async with running(tmp_path, *arguments) as program:
            await program.until(lambda: len(exchange.rows("BTC_USDT")) > len(first) + 100)
            exchange.silence()
            sent = len(exchange.rows("BTC_USDT"))
            await program.acknowledged(sent if journal else sent - len(first))
            assert await program.stop() == 0
    assert Embedded(tmp_path).rows("btc") == exchange.rows("BTC_USDT")
    causes = {str(cause) for _, _, _, _, cause, *_ in stored(data, "gaps")}
    assert causes & {"program stopped", "journal lost"}
    if journal:
        assert causes == {"program stopped"}
