"""Reading a store: the same from a recorder, from a directory that nobody has, from a server."""

import io
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.live import ADDRESS, LiveStore, find
from mexc_trio.clickhouse.schema import columns, count, literal, market_table, prepare
from mexc_trio.clickhouse.types import parse
from mexc_trio.clickhouse.window import Limits, Window
from mexc_trio.errors import StoreError, StoreLocked, StoreUnavailable, TableMissing, UsageError
from mexc_trio.locks import hold_file
from mexc_trio.read import listen, reading, render
from mexc_trio.read.reading import Reader, open_reader
from mexc_trio.settings import Settings
from mexc_trio.settings.address import Address
from mexc_trio.settings.targets import EmbeddedTarget, parse_store
from tests.support.running import DEADLINE
from tools.clickhouse import ClickHouseServer

T = TypeVar("T")

START = 1_767_225_600_000
ROWS = [(START + n, "d", f"{n}.50|{n}|1") for n in range(3000)]
TABLE = market_table("btc")

VALUES = (
    "SELECT toDecimal64('1.50', 8) AS d, toDecimal128('-0.10', 20) AS e,"
    " toDate('2026-01-02') AS dd, toDateTime(1767225600) AS t, toNullable(1) AS n, NULL AS nn,"
    " 'a\\t\\'\\\\\\n\"b/ü' AS s,"
    " tuple(1, 'a') AS tt, toUInt64(18446744073709551615) AS u, toInt64(-5) AS i, 1.5e30 AS f,"
    " [(toDecimal64('77525.9', 8), 'x')] AS x, CAST('a', 'Enum8(\\'a\\' = 1, \\'b\\' = 2)') AS en,"
    " toUUID('ffbeed00-a503-4398-918e-c05d2c947662') AS id, [] AS none"
)
STATEMENTS = (
    VALUES,
    "SELECT mt, m FROM btc WHERE m != '7.50|7|1' ORDER BY length(m), m",
    "SELECT number, toString(number) AS s FROM numbers(3)",
    "SELECT mt, count() AS n FROM btc GROUP BY mt",
    "SELECT m FROM btc WHERE m = 'nothing'",
)
FORMATS = (
    "TSV",
    "TabSeparatedWithNames",
    "CSV",
    "CSVWithNames",
    "JSONEachRow",
    "JSONCompactEachRow",
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A store that nobody has open, of three INSERTs."""
    path = tmp_path / "data"
    with closing(EmbeddedStore(path)) as store:
        prepare(store, [TABLE])
        for first in range(0, len(ROWS), 1000):
            store.append(TABLE, ROWS[first : first + 1000])
    return path


async def met(condition: Callable[[], bool]) -> None:
    """Wait until a condition is met."""
    with trio.fail_after(DEADLINE):
        while True:
            if condition():
                return
            await trio.sleep(0.02)


def at(directory: Path) -> Settings:
    """Return settings with a store."""
    return Settings(store=EmbeddedTarget(directory))


@asynccontextmanager
async def recorder(directory: Path) -> AsyncIterator[EmbeddedStore]:
    """Hold a store and answer for it, as a recorder does."""
    with closing(EmbeddedStore(directory)) as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen.answer, store, Address())
            await met((directory / ADDRESS).exists)
            yield store
            nursery.cancel_scope.cancel()


async def asked(directory: Path, question: Callable[[Reader], T]) -> T:
    """Ask a question of whatever `open_reader` finds."""

    def ask() -> T:
        with open_reader(at(directory)) as reader:
            return question(reader)

    return await trio.to_thread.run_sync(ask)


def everything(reader: Reader) -> dict[object, Any]:
    """Return the answers to all statements in all forms."""
    answers: dict[object, Any] = {}
    for sql in STATEMENTS:
        answers[sql] = reader.query(sql)
        batches = list(reader.batches(sql))
        answers[sql, "Arrow"] = [batches[0].schema, pa.Table.from_batches(batches).to_pylist()]
        for name in FORMATS:
            answers[sql, name] = b"".join(reader.stream(sql, name))
        for name, read in (("Parquet", pq.read_table), ("ArrowStream", _arrow)):
            table = read(io.BytesIO(b"".join(reader.stream(sql, name))))
            answers[sql, name] = [table.schema, table.to_pylist()]
    answers["tables"] = columns(reader), count(reader, "btc"), reader.database
    return answers


def _arrow(file: io.BytesIO) -> pa.Table:
    return pa.ipc.open_stream(file).read_all()


async def test_the_same_from_a_recorder_and_from_nobody(directory: Path) -> None:
    """The user need not know whether a recorder is running."""
    closed = await asked(directory, everything)
    async with recorder(directory):
        live = await asked(directory, everything)
    assert live == closed
    assert closed["tables"] == (
        {"btc": dict(TABLE.columns)},
        len(ROWS),
        "mexc_data",
    )


async def test_the_same_from_a_server(directory: Path, clickhouse_server: ClickHouseServer) -> None:
    """Moving from a directory to a server changes no answer: no value, no type, no byte."""
    clickhouse_server.execute("DROP TABLE IF EXISTS mexc_data.btc")
    clickhouse_server.execute(
        "CREATE TABLE mexc_data.btc (ts Int64, "
        "mt Enum8('t' = 1, 'd' = 2, 'dp' = 3, 'dl' = 4), m String) ENGINE = StripeLog"
    )
    clickhouse_server.execute("INSERT INTO mexc_data.btc VALUES", ROWS)
    with open_reader(at(directory)) as reader:
        embedded = everything(reader)
    with open_reader(Settings(store=parse_store(clickhouse_server.url))) as reader:
        served = everything(reader)
    clickhouse_server.execute("DROP TABLE mexc_data.btc")
    del embedded["tables"], served["tables"]
    assert served == embedded


def test_values_are_exact(directory: Path) -> None:
    """No Decimal and no 64-bit integer goes through a float; times are in UTC."""
    with open_reader(at(directory)) as reader:
        assert reader.query(VALUES) == [
            (
                Decimal("1.5"), Decimal("-0.1"), date(2026, 1, 2), datetime(2026, 1, 1, tzinfo=UTC),
                1, None, 'a\t\'\\\n"b/ü', (1, "a"), 2**64 - 1, -5, 1.5e30,
                [(Decimal("77525.9"), "x")], "a", "ffbeed00-a503-4398-918e-c05d2c947662", [],
            )
        ]  # fmt: skip
        first = reader.query("SELECT ts, mt, m FROM btc LIMIT 1001, 1")
        when = datetime.fromtimestamp(START // 1000 + 1, UTC).replace(microsecond=1000)
        assert first == [(when, "d", "1001.50|1001|1")]
        schema = next(reader.batches(VALUES)).schema
        assert schema.field("e").type == pa.decimal128(38, 20)
        assert schema.field("en").type == pa.string()
        assert schema.field("t").type == pa.timestamp("s", "UTC")


def test_a_whole_table_in_its_order(directory: Path) -> None:
    """A stream has every row once, in the order of insertion, with one header."""
    with open_reader(at(directory)) as reader:
        text = b"".join(reader.stream("SELECT m FROM btc", "CSVWithNames")).decode()
        lines = text.splitlines()
        assert lines[0] == '"m"'
        assert [line.strip('"') for line in lines[1:]] == [m for _, _, m in ROWS]
        table = pq.read_table(io.BytesIO(b"".join(reader.stream("SELECT m FROM btc", "Parquet"))))
        assert table["m"].to_pylist() == [m for _, _, m in ROWS]


async def test_reading_only(directory: Path, clickhouse_server: ClickHouseServer) -> None:
    """No reader of any kind of store writes, whatever its user may do there."""
    clickhouse_server.execute("CREATE TABLE IF NOT EXISTS mexc_data.kept (a Int8) ENGINE = Log")

    def drop(reader: Reader) -> None:
        for sql in ("DROP TABLE kept", "DROP TABLE btc", "INSERT INTO kept SELECT 1"):
            with pytest.raises(StoreError):
                reader.query(sql)

    await asked(directory, drop)
    async with recorder(directory):
        await asked(directory, drop)
    for url in (clickhouse_server.url, clickhouse_server.readonly_url):
        with open_reader(Settings(store=parse_store(url))) as reader:
            drop(reader)
    assert clickhouse_server.execute("SELECT count() FROM mexc_data.kept") == [(0,)]
    clickhouse_server.execute("DROP TABLE mexc_data.kept")
    assert await asked(directory, lambda reader: count(reader, "btc")) == len(ROWS)


async def test_errors(directory: Path) -> None:
    """A statement that fails, at once or in the middle, says so in a line that names the store."""
    late = "SELECT throwIf(number = 3000000, 'too late') FROM numbers(10000000)"

    def fail(reader: Reader) -> int:
        with pytest.raises(StoreError, match=f"^store {directory}: Unknown expression") as caught:
            reader.query("SELECT nope")
        assert caught.value.code == 47
        with pytest.raises(TableMissing):
            reader.query("SELECT * FROM nope")
        received: list[bytes] = []
        with pytest.raises(StoreError, match="too late") as caught:
            received.extend(reader.stream(late, "TSV"))
        assert caught.value.code == 395
        assert "\n" not in str(caught.value)
        assert reader.query("SELECT 1") == [(1,)]
        return len(received)

    assert await asked(directory, fail) > 0
    async with recorder(directory):
        assert await asked(directory, fail) > 0


async def test_a_stream_that_is_closed_ends_the_statement(directory: Path) -> None:
    """Who has seen enough leaves nothing running."""
    busy = "SELECT count() FROM system.processes WHERE startsWith(query, 'SELECT repeat(')"

    def peek(reader: Reader) -> list[tuple[Any, ...]]:
        with closing(reader.stream("SELECT repeat('x', 999) FROM numbers(100000000)", "TSV")) as s:
            assert next(s).startswith(b"xxx")
        return reader.query("SELECT 1")

    assert await asked(directory, peek) == [(1,)]
    async with recorder(directory) as store:
        assert await asked(directory, peek) == [(1,)]
        await met(lambda: store.query(busy) == [(0,)])


async def test_a_recorder_that_ends_meanwhile(directory: Path) -> None:
    """An answer that breaks off because its recorder ended is an error and not an end."""
    began = trio.Event()

    def read(reader: Reader) -> None:
        sql = "SELECT repeat('x', 999) FROM numbers(100000000)"
        with closing(reader.stream(sql, "TSV")) as pieces:
            next(pieces)
            trio.from_thread.run_sync(began.set)
            with pytest.raises(StoreError):
                list(pieces)

    async with trio.open_nursery() as nursery, recorder(directory):
        nursery.start_soon(asked, directory, read)
        await began.wait()


# Finding the way.


def test_no_store(tmp_path: Path) -> None:
    """A directory that is not there, or holds no store, is an error and stays as it is."""
    for path in (tmp_path / "none", tmp_path):
        with (
            pytest.raises(UsageError, match=f"^store {path}: .*; see --store"),
            open_reader(at(path)),
        ):
            pass
    assert not list(tmp_path.iterdir())


@contextmanager
def other_program() -> Iterator[str]:
    """Listen at a port, as a program would that is no recorder."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


async def test_what_a_killed_recorder_left(directory: Path, tmp_path: Path) -> None:
    """A file with an address at which nobody, or somebody else, answers does no harm."""
    with other_program() as url:
        gone = url
    for text in (gone, "", "http://127.0.0.1:0", "nonsense", "http://[", "http://nope.invalid:1"):
        (directory / ADDRESS).write_text(text)
        assert await asked(directory, lambda reader: reader.query("SELECT 1")) == [(1,)]
    (directory / ADDRESS).unlink()
    copy = tmp_path / "copy"
    async with recorder(directory):
        address = (directory / ADDRESS).read_text()
        copy.mkdir()
        (copy / ADDRESS).write_text(address)
        # A recorder, but of another store.
        assert await trio.to_thread.run_sync(find, copy) is None
        assert await trio.to_thread.run_sync(find, directory) is not None


async def test_a_holder_that_does_not_answer(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recorder with --listen off is named, and what to do about it."""
    monkeypatch.setattr(reading, "STARTING", 0.1)
    with (
        hold_file(directory / "store.lock", "x"),
        pytest.raises(StoreLocked, match=r"is in use by process \d+; .* see --listen"),
    ):
        await asked(directory, lambda reader: reader.query("SELECT 1"))


async def test_a_recorder_that_just_starts(directory: Path) -> None:
    """A recorder holds its directory a moment before it answers; a reader waits for it."""

    def ask() -> list[tuple[Any, ...]]:
        with open_reader(at(directory)) as reader:
            return reader.query("SELECT count() FROM btc")

    answers: list[object] = []

    async def reads() -> None:
        answers.append(await trio.to_thread.run_sync(ask))

    with closing(EmbeddedStore(directory)) as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reads)
            await trio.sleep(0.3)
            assert not answers
            async with trio.open_nursery() as interface:
                interface.start_soon(listen.answer, store, Address())
                await met(lambda: bool(answers))
                interface.cancel_scope.cancel()
    assert answers == [[(len(ROWS),)]]


def test_a_live_store_that_vanished() -> None:
    """A recorder that is gone is an error that passes."""
    with other_program() as url:
        port = int(url.rpartition(":")[2])
    with pytest.raises(StoreUnavailable):
        list(LiveStore("store x", "127.0.0.1", port).stream("SELECT 1", "TSV", {}))


# Limits.


def test_no_statement_takes_all_memory_or_time(directory: Path) -> None:
    """What needs more than its share fails, and the store goes on."""
    with closing(EmbeddedStore(directory)) as store:
        window = Window(store, Limits(seconds=1, memory=50_000_000, document=100_000))
        for sql, name, code in (
            ("SELECT sum(cityHash64(number)) FROM numbers(1000000000000)", "TSV", 159),
            ("SELECT groupArray(number) FROM numbers(100000000)", "TSV", 241),
            ("SELECT * FROM numbers(100000000) ORDER BY cityHash64(number)", "TSV", 241),
            ("SELECT number FROM numbers(1000000)", "JSON", 396),
        ):
            with closing(window.answer(sql, name)) as answer, pytest.raises(StoreError) as caught:
                list(answer.pieces())
            assert caught.value.code == code, sql
        assert count(store, "btc") == len(ROWS)


# Formats that are made here.

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
EPOCH = datetime.fromtimestamp(0, UTC)
MONEY = st.decimals("-999999999", "999999999", places=8, allow_nan=False)
CELLS = st.tuples(
    TEXT,
    st.none() | TEXT,
    MONEY,
    st.integers(-(2**63), 2**63 - 1),
    st.lists(st.tuples(MONEY, TEXT), max_size=3),
    st.booleans(),
    st.integers(10**10, 4 * 10**12).map(lambda n: EPOCH + timedelta(milliseconds=n)),
)
TYPES = (
    "String",
    "Nullable(String)",
    "Decimal(18, 8)",
    "Int64",
    "Array(Tuple(Decimal(18, 8), String))",
    "Bool",
    "DateTime64(3)",
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    """An engine to compare with."""
    with closing(EmbeddedStore(tmp_path_factory.mktemp("engine"))) as store:
        prepare(store, [])
        yield Window(store)


def _sql(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return literal(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return f"fromUnixTimestamp64Milli(toInt64({round(value.timestamp() * 1000)}))"
    if isinstance(value, Decimal):
        return f"toDecimal64('{value:f}', 8)"
    if isinstance(value, list):
        return f"[{', '.join(map(_sql, value))}]"
    if isinstance(value, tuple):
        return f"tuple({', '.join(map(_sql, value))})"
    return f"toInt64('{value}')"


@pytest.mark.parametrize("name", FORMATS)
@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(CELLS, min_size=1, max_size=3))
def test_text_is_as_the_engine_writes_it(engine: Window, name: str, rows: list[Any]) -> None:
    """A server's answer has the bytes that ClickHouse itself would write."""
    columns = [(f"c{n}", type_) for n, type_ in enumerate(TYPES)]
    selects = [
        ", ".join(
            f"CAST({_sql(value)}, {literal(type_)}) AS {column}"
            for value, (column, type_) in zip(row, columns, strict=True)
        )
        for row in rows
    ]
    sql = " UNION ALL ".join(f"SELECT {select}" for select in selects)
    with closing(engine.answer(sql, name)) as answer:
        expected = b"".join(answer.pieces())
    assert b"".join(render.write(name, columns, [rows])).decode() == expected.decode()


def test_a_table_for_people() -> None:
    """A server's PrettyCompact looks like ClickHouse's, and stops where that stops."""
    rows = [(n, "x" * (n % 3)) for n in range(1001)]
    text = b"".join(render.write("PrettyCompact", [("n", "UInt16"), ("s", "String")], [rows]))
    lines = text.decode().splitlines()
    assert lines[0] == "      ┌───n─┬─s──┐"
    assert lines[3] == "   3. │   2 │ xx │"
    assert lines[-1] == "Showed 1000 out of 1001 rows."
    assert b"".join(render.write("PrettyCompact", [("n", "UInt16")], [])) == b""


@pytest.mark.parametrize(
    ("text", "inner", "names"),
    [
        ("Array(Tuple(price Decimal(18, 8), `a b` String))", 1, ()),
        ("Tuple(price Decimal(18, 8), `a b` String)", 2, ("price", "a b")),
        ("Tuple(\n    p Int8,\n    q Array(Int8))", 2, ("p", "q")),
        ("Map(LowCardinality(String), UInt8)", 2, ()),
        ("Enum8('x,(' = 1, 'y''s' = 2)", 0, ()),
    ],
)
def test_types(text: str, inner: int, names: tuple[str, ...]) -> None:
    """Names of types are read with their brackets, commas and quotes."""
    type_ = parse(text)
    assert (len(type_.inner), type_.names) == (inner, names)
    assert parse(f"Nullable({text})").nullable
