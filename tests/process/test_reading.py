"""Reading a store: the same from a recorder, from a directory that nobody has, from a server."""

import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trio

from mexc_trio.clickhouse import documents, engine
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import columns, count, prepare
from mexc_trio.clickhouse.tables import market_table
from mexc_trio.clickhouse.types import parse
from mexc_trio.errors import StoreError, StoreLocked, StoreUnavailable, TableMissing, UsageError
from mexc_trio.locks import hold_file
from mexc_trio.read.reading import Reader, open_reader
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget, ServerTarget, parse_store
from tests.support.running import DEADLINE, OLD_MARKET
from tools.clickhouse import ClickHouseServer

T = TypeVar("T")

START = 1_767_225_600_000
ROWS = [(START + n, "d", f"{n}.50|{n}|1") for n in range(3000)]
TABLE = market_table("btc")

VALUES = (
    "SELECT toDecimal64('1.50', 8) AS d, toDecimal128('-0.10', 20) AS e,"
    " toDate('2026-01-02') AS dd, toDateTime(1767225600) AS t, toNullable(1) AS n,"
    " CAST(NULL, 'Nullable(Int8)') AS nn,"
    " 'a\\t\\'\\\\\\n\"b/ü' AS s,"
    " tuple(1, 'a') AS tt, toUInt64(18446744073709551615) AS u, toInt64(-5) AS i, 1.5e30 AS f,"
    " [(toDecimal64('77525.9', 8), 'x')] AS x, CAST('a', 'Enum8(\\'a\\' = 1, \\'b\\' = 2)') AS en,"
    " toUUID('ffbeed00-a503-4398-918e-c05d2c947662') AS id, CAST([], 'Array(String)') AS none"
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


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that nobody has open, of three INSERTs; nobody may change it."""
    path = tmp_path_factory.mktemp("reading") / "data"
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
    """Hold a store, as a recorder does."""
    store = await trio.to_thread.run_sync(EmbeddedStore, directory)
    with closing(store):
        yield store


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
    clickhouse_server.execute(f"CREATE TABLE mexc_data.btc {OLD_MARKET}")
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
        (batch,) = reader.batches(VALUES)
        assert batch.to_pylist()[0] == {
            "d": Decimal("1.5"), "e": Decimal("-0.1"), "dd": date(2026, 1, 2),
            "t": datetime(2026, 1, 1, tzinfo=UTC), "n": 1, "nn": None,
            "s": 'a\t\'\\\n"b/ü', "tt": {"1": 1, "2": "a"}, "u": 2**64 - 1, "i": -5, "f": 1.5e30,
            "x": [{"1": Decimal("77525.9"), "2": "x"}], "en": "a",
            "id": "ffbeed00-a503-4398-918e-c05d2c947662", "none": [],
        }  # fmt: skip
        (first,) = reader.batches("SELECT ts, mt, m FROM btc LIMIT 1001, 1")
        when = datetime.fromtimestamp(START // 1000 + 1, UTC).replace(microsecond=1000)
        assert first.to_pylist() == [{"ts": when, "mt": "d", "m": "1001.50|1001|1"}]
        schema = batch.schema
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
    busy = (
        "SELECT count() FROM system.processes WHERE startsWith(query, 'SELECT repeat(') "
        "AND user = 'commands'"
    )

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


WAYS: dict[str, Callable[[Reader], object]] = {
    "query": lambda reader: reader.query("SELECT 1"),
    "document": lambda reader: list(reader.stream("SELECT 1", "TSV")),
    "table": lambda reader: reader.table("SELECT 1"),
    "answer": lambda reader: reader.answer("SHOW TABLES"),
}


def test_a_recorder_that_ends_between_two_questions(directory: Path) -> None:
    """The next question has an answer, from an engine that is started for it, in whatever way."""
    for ask in WAYS.values():
        with closing(EmbeddedStore(directory)) as store, open_reader(at(directory)) as reader:
            before = ask(reader)
            store.close()
            assert ask(reader) == before


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


def test_address_that_a_killed_recorder_left(directory: Path) -> None:
    """A file that says where an engine answers is believed as long as somebody has the store."""
    access = directory / "engine" / "access"
    for text in ("", "nonsense", "{}", '{"tcp_port": 1}', '["x"]'):
        access.write_text(text)
        with open_reader(at(directory)) as reader:
            assert reader.query("SELECT 1") == [(1,)]


def test_holder_that_does_not_answer(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the directory and does not answer is named."""
    monkeypatch.setattr(engine, "FIND", 0.1)
    with (
        hold_file(directory / "store.lock", "x"),
        pytest.raises(StoreLocked, match=r"no engine answers .* is in use by process \d+"),
        open_reader(at(directory)),
    ):
        pass


async def test_recorder_that_just_starts(directory: Path) -> None:
    """A recorder holds its directory a moment before its engine answers; a reader waits for it."""
    answers: list[object] = []

    async def reads() -> None:
        question = "SELECT count() FROM btc"
        answers.append(await asked(directory, lambda reader: reader.query(question)))

    async with trio.open_nursery() as nursery:
        with hold_file(directory / "store.lock", "x"):
            nursery.start_soon(reads)
            await trio.sleep(0.3)
            assert not answers
    assert answers == [[(len(ROWS),)]]


def test_server_without_http(clickhouse_server: ClickHouseServer) -> None:
    """Documents come over HTTP; the error says how to name its port."""
    url = clickhouse_server.url.replace(f"http_port={clickhouse_server.http_port}", "http_port=1")
    with open_reader(Settings(store=parse_store(url))) as reader:
        assert reader.query("SELECT 1") == [(1,)]
        with pytest.raises(StoreUnavailable, match=r"does not answer HTTP on port 1 .*http_port="):
            list(reader.stream("SELECT 1", "TSV"))


def test_wrong_password_over_http(clickhouse_server: ClickHouseServer) -> None:
    """It is told in the same words as over the native protocol."""
    target = parse_store(clickhouse_server.url.replace("secret", "wrong"))
    assert isinstance(target, ServerTarget)
    with pytest.raises(StoreUnavailable, match="wrong user or password"):
        list(documents.stream(target, "x", "SELECT 1", "TSV", {}))


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
