"""A recorder answers SQL over ClickHouse's HTTP interface, and recording does not notice."""

import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from decimal import Decimal
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import attrs
import clickhouse_connect
import pytest
import trio
from clickhouse_connect.driver.exceptions import DatabaseError

from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.live import ADDRESS
from mexc_trio.clickhouse.schema import market_table, prepare
from mexc_trio.errors import UsageError
from mexc_trio.read import http, listen
from mexc_trio.settings.address import Address, parse_address
from tests.support.running import BTC, DEADLINE, Embedded, Program, running
from tools.exchange import open_exchange

START = 1_767_225_600_000
ROWS = [(START + n, "d", f"{n}.50|{n}|1") for n in range(100)]
FOR_EVER = "SELECT sum(cityHash64(number)) FROM numbers(1000000000000)"
HUGE = "SELECT repeat('x', 1000) FROM numbers(100000000)"
RUNNING = (
    "SELECT count() FROM system.processes WHERE query LIKE '%0000000%' AND query NOT LIKE '%LIKE%'"
)


@attrs.define(eq=False)
class Client:
    """Sends requests as any program would."""

    url: str

    @contextmanager
    def connected(self) -> Iterator[HTTPConnection]:
        """Open a connection."""
        parts = urlsplit(self.url)
        with closing(HTTPConnection(parts.hostname or "", parts.port, timeout=DEADLINE)) as opened:
            yield opened

    async def get(
        self, sql: str = "", *, path: str = "/", method: str = "POST", host: str = "", **fields: str
    ) -> tuple[HTTPResponse, str]:
        """Send a statement in the body; return the answer's head and its text."""

        def ask() -> tuple[HTTPResponse, str]:
            headers = {"Host": host} if host else {}
            with self.connected() as connection:
                connection.request(method, f"{path}?{urlencode(fields)}", sql.encode(), headers)
                answer = connection.getresponse()
                return answer, answer.read().decode()

        return await trio.to_thread.run_sync(ask)

    async def text(self, sql: str = "", **more: Any) -> str:
        """Send a statement and return its answer, which is no error."""
        answer, text = await self.get(sql, **more)
        assert answer.status == 200, text
        return text

    def hold(self, sql: str) -> socket.socket:
        """Send a statement and take nothing of its answer."""
        parts = urlsplit(self.url)
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        held.connect((parts.hostname, parts.port))
        head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(sql)}\r\n\r\n"
        held.sendall(f"{head}{sql}".encode())
        return held


async def met(condition: Callable[[], bool]) -> None:
    """Wait until a condition is met."""
    with trio.fail_after(DEADLINE):
        while True:
            if condition():
                return
            await trio.sleep(0.02)


@asynccontextmanager
async def interface(store: EmbeddedStore) -> AsyncIterator[Client]:
    """Answer for a store, in this process."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen.answer, store, Address())
        path = store.directory / ADDRESS
        await met(path.exists)
        yield Client(path.read_text().strip())
        nursery.cancel_scope.cancel()


async def until(store: EmbeddedStore, sql: str, wanted: object) -> None:
    """Wait until a statement gives one value."""
    await met(lambda: store.query(sql) == [(wanted,)])


def stuck(store: EmbeddedStore) -> Callable[[], bool]:
    """Return the condition that a client's answer goes no further, because it takes nothing."""
    seen: list[int] = []

    def condition() -> bool:
        sql = (
            "SELECT sum(read_rows) FROM system.processes WHERE startsWith(query, 'SELECT repeat(')"
        )
        seen.append(int(store.query(sql)[0][0]))
        return seen[-1] > 0 and len(seen) > 10 and len(set(seen[-10:])) == 1

    return condition


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    """A store with a hundred deals."""
    with closing(EmbeddedStore(tmp_path / "data")) as opened:
        table = market_table("btc")
        prepare(opened, [table])
        opened.append(table, ROWS)
        yield opened


async def test_it_speaks_as_clickhouse_does(store: EmbeddedStore) -> None:
    """Statement in the URL or the body, formats, parameters, database, settings, ping, headers."""
    async with interface(store) as client:
        text = client.text
        assert await text(path="/ping", method="GET") == "Ok.\n"
        assert await text(method="GET") == "Ok.\n"
        assert await text(query="SELECT 1", method="GET") == "1\n"
        assert await text("AS x, 2", query="SELECT 1") == "1\t2\n"
        assert await text("SELECT 1 AS x", default_format="JSONEachRow") == '{"x":1}\n'
        assert await text("SELECT 1 AS x FORMAT CSV", default_format="JSONEachRow") == "1\n"
        assert await text("SELECT count() FROM btc") == "100\n"
        assert await text("SELECT currentDatabase()", database="system") == "system\n"
        # Escaped as in TSV, which is how ClickHouse reads parameters.
        assert (
            await text("SELECT {x:UInt8}, {s:String}", param_x="5", param_s="a\\tb") == "5\ta\\tb\n"
        )
        sql = "SELECT 1.5::Decimal(9, 2) AS d FORMAT JSONEachRow"
        assert await text(sql, output_format_json_quote_decimals="1") == '{"d":"1.5"}\n'
        # Settings that could harm are not taken, nor do they stop a program that sends them.
        sql = "SELECT getSetting('max_threads'), toDateTime(0)"
        assert await text(sql, max_threads="99", readonly="0") == "1\t1970-01-01 00:00:00\n"
        head, _ = await client.get("SELECT 1", query_id="mine", default_format="CSV")
        assert head.getheader("X-ClickHouse-Query-Id") == "mine"
        assert head.getheader("X-ClickHouse-Format") == "CSV"
        assert head.getheader("Content-Type") == "text/csv; charset=UTF-8"


async def test_errors_are_clickhouses(store: EmbeddedStore) -> None:
    """A client finds ClickHouse's code in the header and its text in the body."""
    async with interface(store) as client:
        for sql, status, code in (
            ("SELECT nope", 404, 47),
            ("SELECT * FROM nope", 404, 60),
            ("SELEC 1", 400, 62),
            ("SELECT 1; SELECT 2", 400, 62),
            ("SELECT {x:UInt8}", 400, 456),
            ("SELECT 1 FORMAT Nope", 404, 73),
            ("SELECT throwIf(1)", 500, 395),
        ):
            head, text = await client.get(sql)
            assert (head.status, text.split(".")[0]) == (status, f"Code: {code}"), sql
            assert head.getheader("X-ClickHouse-Exception-Code") == str(code)
        assert (await client.get(path="/nope"))[0].status == 404
        assert (await client.get(method="DELETE"))[0].status == 405
        assert (await client.get("x" * (http.BODY + 1)))[0].status == 413
        assert (await client.get("SELECT 1"))[1] == "1\n"


@pytest.mark.parametrize("sql", [
    # what writes
    "INSERT INTO btc VALUES (1, 'd', 'x')",
    "INSERT INTO btc SELECT * FROM btc",
    "INSERT INTO FUNCTION null('a Int8') SELECT 1",
    "DROP TABLE btc", "TRUNCATE TABLE btc", "RENAME TABLE btc TO eth", "DETACH TABLE btc",
    "ALTER TABLE btc ADD COLUMN x Int8", "DELETE FROM btc WHERE 1", "OPTIMIZE TABLE btc",
    "CREATE TABLE x (a Int8) ENGINE = Memory", "CREATE TEMPORARY TABLE x (a Int8)",
    "CREATE FUNCTION f AS x -> x", "BACKUP TABLE btc TO File('x')", "CREATE VIEW v AS SELECT 1",
    # what changes the session or the engine
    "SET readonly = 0", "SELECT 1 SETTINGS readonly = 0", "SELECT 1 SETTINGS max_threads = 64",
    "SELECT 1 SETTINGS max_execution_time = 0", "SELECT 1 SETTINGS log_comment = ''",
    "SELECT 1 SETTINGS additional_result_filter = 'file(''/etc/hostname'')'",
    "USE system", "SET ROLE ALL", "KILL QUERY WHERE 1", "SYSTEM STOP MERGES", "SYSTEM SHUTDOWN",
    "SELECT 1; DROP TABLE btc", "SELECT 1 /* */ ; KILL QUERY WHERE 1",
    # what writes or reads a file
    "SELECT 1 INTO OUTFILE 'OUT'", "SELECT 1 INTO OUTFILE 'OUT' TRUNCATE FORMAT CSV",
    "SHOW TABLES INTO OUTFILE 'OUT'", "DESCRIBE TABLE btc INTO OUTFILE 'OUT'",
    "EXPLAIN SELECT 1 INTO OUTFILE 'OUT'", "EXISTS TABLE btc INTO OUTFILE 'OUT'",
    "(SELECT 1) UNION ALL (SELECT 2) INTO OUTFILE 'OUT'",
    "SELECT file('/etc/hostname')", "SELECT `file`('/etc/hostname')",
    "SELECT arrayMap(file, ['/etc/hostname'])", "SELECT arrayMap(x -> file(x), ['/etc/hostname'])",
    "SELECT * APPLY(file) FROM (SELECT '/etc/hostname' AS x)",
    "WITH (x -> file(x)) AS f SELECT f('/etc/hostname')",
    "SELECT count() FROM btc HAVING file('/etc/hostname') != ''",
    "EXPLAIN SELECT file('/etc/hostname')", "DESCRIBE (SELECT file('/etc/hostname'))",
    "SELECT * FROM file('/etc/hostname', 'LineAsString', 'l String')",
    "SELECT * FROM `/etc/hostname`", "SELECT * FROM '/etc/hostname'",
    "DESCRIBE TABLE file('/etc/hostname')", "SELECT * FROM filesystem('/etc')",
    # what reaches further
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString', 'l String')",
    "DESCRIBE TABLE url('http://127.0.0.1:1/')", "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM python('SECRET')", "SELECT * FROM Python(SECRET)",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT * FROM executable('id', 'TSV', 'a String')",
    "WITH x AS (SELECT * FROM sqlite('a', 'b')) SELECT * FROM x",
])  # fmt: skip
async def test_it_only_reads(
    store: EmbeddedStore, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that is sent changes data, settings or files, or reaches what is no table."""
    monkeypatch.chdir(tmp_path)
    SECRET = {"secret": ["x"]}  # noqa: N806, F841 - for the engine to look for among our variables
    async with interface(store) as client:
        head, text = await client.get(sql)
        assert head.status in (400, 403, 404), text
        assert text.startswith("Code: ")
        assert await client.text("SELECT count(), getSetting('readonly') FROM btc") == "100\t1\n"
    assert {path.name for path in store.directory.parent.iterdir()} == {"data"}
    assert store.query("SELECT count() FROM mexc_data.btc") == [(100,)]


async def test_a_contract_called_file(store: EmbeddedStore) -> None:
    """A table may have the name of a function that is refused."""
    prepare(store, [market_table("file")])
    async with interface(store) as client:
        assert await client.text("SELECT count() FROM file") == "0\n"
        assert await client.text("SELECT count(file.m) FROM mexc_data.file") == "0\n"


async def test_clickhouse_connect(store: EmbeddedStore) -> None:
    """The usual library reads times, texts and exact numbers, rows, frames and parameters."""
    async with interface(store) as client:
        parts = urlsplit(client.url)

        def ask() -> None:
            with closing(
                clickhouse_connect.get_client(
                    host=parts.hostname, port=parts.port, database="mexc_data"
                )
            ) as library:
                answer = library.query("SELECT toUnixTimestamp64Milli(ts), mt, m FROM btc")
                assert answer.result_rows == ROWS
                sql = "SELECT toDecimal64('0.10', 8), toUInt64(18446744073709551615), {x:String}"
                row = library.query(sql, parameters={"x": "it's"}).result_rows[0]
                assert row == (Decimal("0.10"), 2**64 - 1, "it's")
                assert library.query_arrow("SELECT m FROM btc").num_rows == 100
                assert library.command("SELECT count() FROM btc") == 100
                with library.query_row_block_stream("SELECT * FROM btc") as blocks:
                    assert sum(len(block) for block in blocks) == 100
                with pytest.raises(DatabaseError, match="Code: 164"):
                    library.command("DROP TABLE btc")
                with pytest.raises(DatabaseError, match=r"[cC]ode:? 47"):
                    library.query("SELECT nope")

        await trio.to_thread.run_sync(ask)


async def test_an_error_in_the_middle_is_seen(store: EmbeddedStore) -> None:
    """An answer that breaks off is never taken for a whole one."""
    sql = "SELECT throwIf(number = 3000000) FROM numbers(10000000)"
    async with interface(store) as client:

        def ask() -> bytes:
            with client.connected() as connection:
                connection.request("POST", "/", sql)
                answer = connection.getresponse()
                assert answer.status == 200
                with pytest.raises(IncompleteRead) as caught:
                    answer.read()
                return caught.value.partial

        read = await trio.to_thread.run_sync(ask)
        assert b"\r\n__exception__\r\n" in read[-1000:]
        assert b"Code: 395. DB::Exception: " in read[-1000:]
        assert await client.text("SELECT 1") == "1\n"


async def test_who_hangs_up_ends_the_statement(store: EmbeddedStore) -> None:
    """A statement does not outlive its client, whether it computes or sends."""
    async with interface(store) as client:
        for sql in (FOR_EVER, HUGE):
            held = await trio.to_thread.run_sync(client.hold, sql)
            await until(store, RUNNING, 1)
            held.close()
            await until(store, RUNNING, 0)
        assert await client.text("SELECT 1") == "1\n"


async def test_the_end_waits_for_nobody(store: EmbeddedStore) -> None:
    """A recorder ends at once, whatever is being computed and whoever takes nothing."""
    with trio.fail_after(DEADLINE):
        async with interface(store) as client:
            held = [await trio.to_thread.run_sync(client.hold, sql) for sql in (FOR_EVER, HUGE)]
            idle = await trio.to_thread.run_sync(client.hold, "SELECT 1")
            await until(store, RUNNING, 2)
            await met(stuck(store))
            began = trio.current_time()
    assert trio.current_time() - began < 5
    assert store.query(RUNNING) == [(0,)]
    assert not (store.directory / ADDRESS).exists()
    for connection in (*held, idle):
        connection.close()


async def test_who_takes_nothing_is_let_go(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that stops reading does not keep its statement for ever."""
    monkeypatch.setattr(listen, "STALLED", 0.2)
    async with interface(store) as client:
        with closing(await trio.to_thread.run_sync(client.hold, HUGE)):
            await until(store, RUNNING, 1)
            await until(store, RUNNING, 0)


async def test_statements_take_turns(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few run at once; the next waits, and gives up with ClickHouse's code for it."""
    monkeypatch.setattr(http, "WAITING", 0.2)
    async with interface(store) as client:
        held = [await trio.to_thread.run_sync(client.hold, FOR_EVER) for _ in range(http.RUNNING)]
        await until(store, RUNNING, http.RUNNING)
        head, text = await client.get("SELECT 1")
        assert (head.status, text[:9]) == (429, "Code: 202")
        for connection in held:
            connection.close()
        await until(store, RUNNING, 0)
        assert await client.text("SELECT 1") == "1\n"


async def test_only_this_machine_is_answered(store: EmbeddedStore) -> None:
    """A web page whose name was made to point here learns nothing."""
    async with interface(store) as client:
        assert (await client.get("SELECT 1", host="evil.example"))[0].status == 403
        assert await client.text("SELECT 1", host="localhost:80") == "1\n"
        assert client.url.startswith("http://127.0.0.1:")


async def test_an_address_that_is_taken(store: EmbeddedStore) -> None:
    """Whoever names a port that something else has is told in one line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--listen 127.0.0.1:{port}: cannot listen there"):
            await listen.answer(store, Address("127.0.0.1", port))
    assert not (store.directory / ADDRESS).exists()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("off", None),
        ("8123", Address("127.0.0.1", 8123)),
        ("10.0.0.1:0", Address("10.0.0.1", 0)),
        ("[::1]:8123", Address("::1", 8123)),
        ("recorder.local:1", Address("recorder.local", 1)),
    ],
)
def test_addresses(text: str, address: Address | None) -> None:
    """--listen takes host:port, a port, or off, and shows it as it takes it."""
    assert parse_address(text) == address
    if address:
        assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["", "x", "1:2:3", "127.0.0.1:", "70000", "a b:1", "http://x:1"])
def test_bad_addresses(text: str) -> None:
    """What is no address is an error that shows it."""
    with pytest.raises(UsageError, match="is not host:port, a port, or off"):
        parse_address(text)


async def test_a_connection_that_fails_is_one_line(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in the interface is in the log and not in the recorder."""
    async with interface(store) as client:
        monkeypatch.setattr(http.Request, "of", lambda *_: 1 / 0)
        with caplog.at_level(logging.ERROR):
            assert (await client.get("SELECT 1"))[0].status == 500
        monkeypatch.undo()
        assert "division by zero" in caplog.text
        assert await client.text("SELECT 1") == "1\n"


async def test_recording_does_not_notice(tmp_path: Path) -> None:
    """With every kind of client at work, not one of a thousand messages a second is lost."""
    async with (
        open_exchange(rate=1000) as exchange,
        running(tmp_path, BTC, "--url", exchange.url, "--linger", "0.2") as program,
    ):
        path = tmp_path / "mexc-data" / ADDRESS
        await program.until(path.exists)
        client = Client(path.read_text().strip())
        await exchange.subscribed(BTC)
        await _everybody_reads(client, program)
        sent = len(exchange.rows(BTC))
        assert sent > 1000
        await program.journaled(sent)
        assert await program.stop() == 0
        rows = exchange.rows(BTC)
    assert not path.exists()
    found = Embedded(tmp_path).rows("btc")
    assert len(found) >= sent
    # What the exchange sent while the recorder was going is not the recorder's.
    assert found == [tuple(row) for row in rows[: len(found)]]
    assert "ERROR" not in program.log
    assert Embedded(tmp_path).select("count()", "gaps") == [(0,)]


async def _everybody_reads(client: Client, program: Program) -> None:
    """Send what clients send, good and bad, and check the answers."""
    held = [await trio.to_thread.run_sync(client.hold, sql) for sql in (HUGE, FOR_EVER)]
    for connection in held:
        connection.close()

    async def curl(*arguments: str) -> tuple[int, bytes]:
        command = ["curl", "-sS", client.url, *arguments]
        done = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False
        )
        return done.returncode or 0, done.stdout

    async def counts() -> None:
        before = 0
        for _ in range(15):
            code, text = await curl("--data-binary", "SELECT count() FROM btc")
            assert code == 0
            assert int(text) >= before
            before = int(text)

    async def reads() -> None:
        for _ in range(5):
            sql = "SELECT * FROM btc FORMAT JSONCompactEachRow"
            code, text = await curl("--data-binary", sql)
            assert code == 0
            assert all(len(json.loads(line)) == 3 for line in text.splitlines())

    async def harms() -> None:
        for sql in (
            "DROP TABLE btc",
            "INSERT INTO btc VALUES (1, 'd', 'x')",
            "SELECT nope",
            "{",
        ) * 3:
            code, text = await curl("--data-binary", sql)
            assert text.startswith(b"Code: ")
            assert code == 0

    async def breaks() -> None:
        sql = "SELECT throwIf(number = 3000000) FROM numbers(10000000)"
        for _ in range(3):
            assert (await curl("-o", "/dev/null", "--data-binary", sql))[0] == 18
        for _ in range(3):
            assert (await curl("-m", "0.3", "-o", "/dev/null", "--data-binary", FOR_EVER))[0] == 28

    def library() -> None:
        parts = urlsplit(client.url)
        with closing(clickhouse_connect.get_client(host=parts.hostname, port=parts.port)) as opened:
            for _ in range(10):
                sql = "SELECT mt, count() FROM mexc_data.btc GROUP BY mt ORDER BY mt"
                assert [row[0] for row in opened.query(sql).result_rows] == ["t", "d", "dp"]

    await program.until(lambda: True)
    async with trio.open_nursery() as nursery:
        for task in (counts, reads, harms, breaks):
            nursery.start_soon(task)
        nursery.start_soon(trio.to_thread.run_sync, library)
