"""Who may read, and what: ClickHouse's own interfaces, for clients and against the curious."""

import gzip
import http.client
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import attrs
import clickhouse_connect
import pytest
import trio
from clickhouse_driver import Client
from clickhouse_driver.clientinfo import ClientInfo
from clickhouse_driver.errors import NetworkError, ServerException
from clickhouse_driver.varint import write_varint
from clickhouse_driver.writer import write_binary_str
from trio_websocket import open_websocket_url

from mexc_trio.clickhouse import engine_config, open_store
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.engine import ADDRESS
from mexc_trio.clickhouse.engine_config import COMMANDS, READER, RECORDER
from mexc_trio.clickhouse.schema import count, prepare
from mexc_trio.clickhouse.tables import market_table
from mexc_trio.errors import StoreUnavailable, UsageError
from mexc_trio.settings import Settings
from mexc_trio.settings.address import Address
from mexc_trio.settings.targets import EmbeddedTarget
from tests.support.hostile import REFUSED
from tests.support.running import DEADLINE, engine_pid

ROWS = [(1_767_225_600_000 + n, "d", f"{n}.50|{n}|1") for n in range(1000)]
NONE: Mapping[str, object] = {}
SECRET = "nobody-may-read-this"  # noqa: S105 - what a test looks for


@attrs.frozen
class Open:
    """A store with readers."""

    store: EmbeddedStore
    outside: Path
    """A directory beside the store, in which nothing may appear, with a file that is secret."""
    host: str
    port: int
    password: str

    def get(
        self, query: str, parameters: Mapping[str, object] = NONE, *, post: bool = True,
        body: bytes | None = None, user: str = READER, password: str | None = None,
        headers: Mapping[str, str] | None = None, path: str = "/",
    ) -> tuple[int, bytes]:  # fmt: skip
        """Ask over HTTP; return the status and the answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=DEADLINE)
        word = self.password if password is None else password
        sent = {"X-ClickHouse-User": user, "X-ClickHouse-Key": word} if user else {}
        fields: dict[str, object] = dict(parameters)
        if not post or body is not None:
            fields["query"] = query
        with closing(connection):
            connection.request(
                "POST" if post else "GET",
                f"{path}?{urlencode(fields)}",
                (body if body is not None else query.encode()) if post else None,
                {**sent, **(headers or {})},
            )
            answer = connection.getresponse()
            return answer.status, answer.read()

    def native(self) -> Client:
        """Return a client of the native protocol."""
        port = self.store.target.port
        return Client(self.host, port, user=READER, password=self.password)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """Lend one store with readers to the tests, none of which may change it."""
    place = tmp_path_factory.mktemp("readers")
    (place / "outside").mkdir()
    (place / "outside" / "secret").write_text(SECRET)
    with closing(EmbeddedStore(place / "store", Address())) as store:
        prepare(store, [market_table("btc")])
        store.append(market_table("btc"), ROWS)
        store.query("CREATE DATABASE other")
        store.query("CREATE TABLE other.mine (a String) ENGINE = Memory")
        url = urlsplit((place / "store" / ADDRESS).read_text().strip())
        assert url.hostname
        assert url.port
        yield Open(store, place / "outside", url.hostname, url.port, url.password or "")


@pytest.mark.parametrize(("sql", "parameters"), REFUSED)
@pytest.mark.parametrize("post", [True, False])
def test_hostile_request(opened: Open, sql: str, parameters: dict[str, str], post: bool) -> None:
    """It is refused, learns nothing, leaves nothing behind, and the engine goes on."""
    words = {
        "secret": opened.outside / "secret",
        "outside": opened.outside,
        "store": opened.store.directory,
    }
    before = opened.store.server_start_id()
    status, answer = opened.get(
        sql.format(**words),
        {name: value.format(**words) for name, value in parameters.items()},
        post=post,
    )  # fmt: skip
    assert status != 200, answer[:300]
    for secret in (SECRET, opened.store.target.password):
        assert secret.encode() not in answer
    assert [path.name for path in opened.outside.iterdir()] == ["secret"]
    assert opened.store.server_start_id() == before
    assert count(opened.store, "btc") == len(ROWS)


@pytest.mark.parametrize("version", [22, 26])
def test_hostile_request_in_another_server_s_name(
    opened: Open, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who says he is a server passing a query on, of the recorder's, gets no more than a reader.

    To such a query the engine applies settings of its own, among them the analyzer of that time.
    """
    write = ClientInfo.write

    def lie(info: ClientInfo, revision: int, output: object) -> None:
        info.query_kind = ClientInfo.QueryKind.SECONDARY_QUERY
        info.initial_user, info.initial_query_id = RECORDER, "x"
        info.initial_address = "127.0.0.1:0"
        info.client_version_major = version
        write(info, revision, output)

    monkeypatch.setattr(ClientInfo, "write", lie)
    words = {"secret": opened.outside / "secret", "outside": opened.outside}
    for sql, parameters in REFUSED:
        if parameters or not re.search(r"\{secret\}|\{outside\}|default|other|system[.']|btc", sql):
            continue
        with opened.native() as client:
            try:
                answer = str(client.execute(sql.format(**words)))
            except (ServerException, NetworkError) as error:
                answer = str(error)
            else:
                # What is asked for about a statement, and what only a client would write.
                assert sql.startswith(("EXPLAIN", "SELECT 1 ", "SELECT count()")), (sql, answer)
        assert SECRET not in answer, sql
    assert [path.name for path in opened.outside.iterdir()] == ["secret"]
    assert count(opened.store, "btc") == len(ROWS)


def test_every_setting_that_is_no_number(opened: Open) -> None:
    """Whatever takes a text, and could name a file or a host, is either listed or refused."""
    found = opened.store.query(
        "SELECT name FROM system.settings WHERE type IN ('String', 'Map') "
        "OR (match(name, 'file|path|schema|url|host') AND type NOT LIKE '%Int%')"
    )
    assert len(found) > 150
    # Settings of a few known words refuse this value, so they name nothing.
    let = {
        name
        for (name,) in found
        if opened.get("SELECT 1", {name: f"{opened.outside}/new"})[0] == 200
    }
    assert let <= {"log_comment", "network_compression_method", "input_format"}
    assert [path.name for path in opened.outside.iterdir()] == ["secret"]


def test_external_data_leaves_nothing(opened: Open) -> None:
    """A table that comes with a request goes with it, and cannot be a file of the server's."""
    mark = "x1y2"
    body = (
        f'--{mark}\r\nContent-Disposition: form-data; name="t"; filename="t"\r\n\r\n1\n\r\n'
        f"--{mark}--\r\n"
    ).encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
    before = opened.store.query("SELECT count() FROM system.tables")
    status, answer = opened.get(
        "SELECT * FROM t", {"t_structure": "a String"}, body=body, headers=kind
    )
    assert (status, answer) == (200, b"1\n")
    status, answer = opened.get(
        "SELECT * FROM t", body=body.replace(b'="t"', b'="/etc/hostname"'), headers=kind
    )
    assert status != 200
    assert opened.store.query("SELECT count() FROM system.tables") == before


@pytest.mark.parametrize("user", ["", "default", READER, RECORDER, COMMANDS, "nobody"])
@pytest.mark.parametrize("post", [True, False])
def test_nobody_without_the_password(opened: Open, user: str, post: bool) -> None:
    """A page in a browser, or another user of the machine, gets nothing by any name.

    ClickHouse lets pages of any origin ask (its own page may be one); a browser sends none of them
    a password that it keeps.
    """
    page = {"Origin": "http://evil.example", "Host": "evil.example", "Sec-Fetch-Site": "cross-site"}
    for word in ("", "x"):
        for sql in ("SELECT 1", "SYSTEM STOP LISTEN TCP"):
            status, answer = opened.get(sql, post=post, user=user, password=word, headers=page)
            assert status in (403, 500, 401), answer
            assert answer != b"1\n"
    connection = http.client.HTTPConnection(opened.host, opened.port)
    with closing(connection):
        connection.request("OPTIONS", "/?query=SELECT+1", headers=page)
        answered = connection.getresponse()
        answered.read()
        assert answered.getheader("Access-Control-Allow-Credentials") is None
    with pytest.raises(ServerException):
        Client(opened.host, opened.store.target.port, user=user or "default").execute("SELECT 1")


@pytest.mark.parametrize(
    "path",
    ["/ping", "/play", "/dashboard", "/binary", "/merges", "/jemalloc", "/replicas_status",
     "/metrics", "/prometheus", "/write", "/api/v1/query", "/js/x.js", "/webterminal", "/../etc"],
)  # fmt: skip
def test_pages_without_a_password_hold_nothing(opened: Open, path: str) -> None:
    """ClickHouse's own pages are there for everybody; what is recorded is not in them."""
    status, answer = opened.get("SELECT m FROM btc", post=False, user="", path=path)
    assert status in (200, 403, 404, 500, 400)
    assert b"999.50" not in answer


def test_the_web_terminal_is_closed(opened: Open) -> None:
    """Its session takes settings that HTTP refuses, and so would write any file for a reader."""
    status, _ = opened.get("SELECT 1", post=False, path="/webterminal")
    assert status in (403, 404)
    # It begins with a WebSocket's handshake, as a page of its own origin sends it.
    address = f"{opened.host}:{opened.port}"
    head = (
        f"GET /webterminal HTTP/1.1\r\nHost: {address}\r\nOrigin: http://{address}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with socket.create_connection((opened.host, opened.port), timeout=DEADLINE) as line:
        line.sendall(head.encode())
        assert re.match(rb"HTTP/1\.1 40[34] ", line.recv(1000))


def test_other_interfaces_are_closed(opened: Open) -> None:
    """The engine has two ports, and both are on the loopback interface."""
    place = Path(f"/proc/{os.getpid()}/net/tcp")
    if not place.exists():
        pytest.skip("needs Linux")
    pid = engine_pid(opened.store.directory)
    sockets = {
        os.readlink(path).removeprefix("socket:[").removesuffix("]")
        for path in Path(f"/proc/{pid}/fd").iterdir()
        if os.path.islink(path) and os.readlink(path).startswith("socket:")
    }
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{os.getpid()}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                host, port = fields[1].split(":")
                listening.add((host, int(port, 16)))
    assert listening == {("0100007F", opened.port), ("0100007F", opened.store.target.port)}


def test_reader_cannot_see_or_stop_others(opened: Open) -> None:
    """KILL QUERY reaches a reader's own statements at the most."""
    with pytest.raises(ServerException):
        opened.native().execute("KILL QUERY WHERE 1")
    assert opened.store.query("SELECT 1") == [(1,)]


# Clients.


def test_curl(opened: Open) -> None:
    """The address file is all that curl needs."""
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    command = 'curl -sS "$(cat http.url)" --data-binary "SELECT count() FROM btc"'
    place = opened.store.directory
    done = subprocess.run(["sh", "-c", command], cwd=place, capture_output=True, check=True)
    assert done.stdout == b"1000\n"


def test_clickhouse_connect(opened: Open) -> None:
    """The official client of Python, with parameters, formats and streams."""
    with clickhouse_connect.get_client(
        host=opened.host, port=opened.port, username=READER, password=opened.password
    ) as library:
        answer = library.query("SELECT toUnixTimestamp64Milli(ts), mt, m FROM btc")
        assert [tuple(row) for row in answer.result_rows] == ROWS
        found = library.query("SELECT {x:String}", parameters={"x": "a'b"}).result_rows
        assert found == [("a'b",)]
        limited = library.query("SELECT * FROM btc", settings={"max_result_rows": 10_000})
        assert len(limited.result_rows) == len(ROWS)
        with library.query_row_block_stream("SELECT * FROM btc") as blocks:
            assert sum(len(block) for block in blocks) == len(ROWS)
        assert library.query_arrow("SELECT m FROM btc").num_rows == len(ROWS)


def test_sqlalchemy(opened: Open) -> None:
    """Superset and pandas come in through it: they look at what there is, and read it."""
    alchemy = pytest.importorskip("sqlalchemy")
    login = f"{READER}:{quote(opened.password, safe='')}"
    engine = alchemy.create_engine(f"clickhousedb://{login}@{opened.host}:{opened.port}/mexc_data")
    with engine.connect() as connection:
        found = alchemy.inspect(engine)
        assert "btc" in found.get_table_names()
        assert [one["name"] for one in found.get_columns("btc")] == ["ts", "mt", "m"]
        table = alchemy.Table("btc", alchemy.MetaData(), autoload_with=engine)
        asked = alchemy.select(alchemy.func.count()).select_from(table)
        assert connection.execute(asked).scalar() == len(ROWS)
        asked = alchemy.text("SELECT count() FROM btc WHERE mt = :mt")
        assert connection.execute(asked, {"mt": "d"}).scalar() == len(ROWS)
    engine.dispose()


NODE = shutil.which("node")
ASKED_BY_NODE = """
const {createClient} = require("@clickhouse/client");
(async () => {
  const client = createClient({url: process.argv[1], database: "mexc_data",
    compression: {response: true, request: true},
    clickhouse_settings: {send_progress_in_http_headers: 1, max_execution_time: 60}});
  const asked = {query: "SELECT m FROM btc WHERE mt = {mt:String}", query_params: {mt: "d"},
    format: "JSONEachRow"};
  const alive = (await client.ping({select: true})).success;
  const rows = await (await client.query(asked)).json();
  let streamed = 0;
  for await (const part of (await client.query(asked)).stream()) streamed += part.length;
  console.log(JSON.stringify([alive, rows.length, streamed, rows[2].m]));
  await client.close();
})();
"""


def test_node(opened: Open) -> None:
    """The official client of JavaScript, where npm has brought it: `npm install --global ...`."""
    if NODE is None or (npm := shutil.which("npm")) is None:
        pytest.skip("needs node and npm")
    root = subprocess.run([npm, "root", "--global"], capture_output=True, text=True, check=True)
    if not (Path(root.stdout.strip()) / "@clickhouse" / "client").is_dir():
        pytest.skip("needs @clickhouse/client")
    address = (opened.store.directory / ADDRESS).read_text().strip()
    done = subprocess.run(
        [NODE, "-e", ASKED_BY_NODE, address], capture_output=True, text=True, check=False,
        env={**os.environ, "NODE_PATH": root.stdout.strip()}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, len(ROWS), len(ROWS), "2.50|2|1"]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at += 1
        shift += 7
        if data[at - 1] < 128:
            return value, at


def _native_block(data: bytes, at: int, *, info: bool) -> tuple[int, list[tuple[str, str]], int]:
    """Read a block's head as clickhouse-go does: rows, names and types, and where data begins."""
    if info:
        field, at = _varint(data, at)
        assert field == 1
        at += 1  # whether it has overflow rows
        field, at = _varint(data, at)
        assert field == 2
        at += 4  # the bucket
        field, at = _varint(data, at)
        if field == 3:  # newer servers tell which buckets are out of order
            number, at = _varint(data, at)
            at += 4 * number
            field, at = _varint(data, at)
        assert field == 0
    columns, at = _varint(data, at)
    rows, at = _varint(data, at)
    size, at = _varint(data, at)
    name = data[at : at + size].decode()
    at += size
    size, at = _varint(data, at)
    type_ = data[at : at + size].decode()
    assert columns == 1
    return rows, [(name, type_)], at + size


def test_grafana(opened: Open) -> None:
    """What its official datasource sends, by clickhouse-go: Native blocks with block info.

    Without that library itself, which would take a Go compiler and the network in every check.
    """
    status, answer = opened.get(
        "SELECT toUInt64(count()) AS n FROM btc",
        {
            "client_protocol_version": 54460, "default_format": "Native", "database": "mexc_data",
            "max_execution_time": 60, "wait_end_of_query": 0, "enable_http_compression": 1,
            "query_id": "grafana-1",
        },
    )  # fmt: skip
    assert status == 200, answer
    rows, columns, at = _native_block(answer, 0, info=True)
    assert (rows, columns) == (1, [("n", "UInt64")])
    at += 1  # no custom serialization, since 54454
    assert struct.unpack_from("<Q", answer, at) == (1000,)
    # A time series, one with an ad hoc filter, a thinned one, and what the editor asks for.
    for sql in (
        "SELECT toStartOfInterval(toDateTime(ts), INTERVAL 9 second) AS t, m FROM btc ORDER BY t",
        r"SELECT ts, m FROM btc settings additional_table_filters={'btc' : ' mt = \'d\' '}",
        "SELECT arrayJoin(lttb(100)(ts, length(m))) AS point FROM btc",
        "SELECT name FROM system.databases", "SELECT name FROM system.tables WHERE database = 'x'",
        "SELECT name, type, table FROM system.columns", "SELECT version()", "SHOW DATABASES",
        "SELECT name, origin, syntax, arguments, examples, categories FROM system.functions",
        "SELECT timezone()", 'DESC TABLE "mexc_data"."btc"', 'SHOW TABLES FROM "mexc_data"',
    ):  # fmt: skip
        status, answer = opened.get(
            sql, {"default_format": "Native", "client_protocol_version": 54460, "limit": 1000000}
        )
        assert status == 200, (sql, answer)


def test_jdbc(opened: Open) -> None:
    """What DBeaver and Metabase send by clickhouse-java: `compress=1`, and LZ4 frames expected.

    They accept LZ4 over HTTP as well, and cannot read what is packed twice.
    """
    lz4 = pytest.importorskip("lz4.block")
    status, answer = opened.get(
        "SELECT m FROM btc LIMIT 3",
        {
            "compress": 1, "default_format": "RowBinaryWithNamesAndTypes", "database": "mexc_data",
            "session_timezone": "UTC", "max_result_rows": 200, "result_overflow_mode": "break",
            "extremes": 0, "wait_end_of_query": 0, "session_id": "jdbc",
        },
        headers={"Accept-Encoding": "lz4"},
    )  # fmt: skip
    assert status == 200, answer
    block, at = b"", 0
    while at < len(answer):
        # Checksum, method, size from the method on, size when unpacked.
        method, size, unpacked = struct.unpack_from("<BII", answer, at + 16)
        assert method == 0x82
        frame = answer[at + 25 : at + 16 + size]
        block += lz4.decompress(frame, uncompressed_size=unpacked)
        at += 16 + size
    assert block.startswith(b"\x01\x01m\x06String")
    assert b"2.50|2|1" in block
    for sql in (
        "SELECT * FROM information_schema.tables WHERE table_schema = 'mexc_data'",
        "SELECT * FROM INFORMATION_SCHEMA.COLUMNS WHERE table_name = 'btc'",
        "SELECT * FROM system.functions LIMIT 1",
        "SELECT * FROM system.settings LIMIT 1",
        "SELECT * FROM system.data_type_families LIMIT 1",
        "SELECT currentUser(), timezone()",
    ):
        status, answer = opened.get(sql, {"compress": 1})
        assert status == 200, (sql, answer)


def test_native_protocol(opened: Open) -> None:
    """As clickhouse-client speaks it."""
    client = opened.native()
    assert client.execute("SELECT count() FROM btc") == [(1000,)]
    with pytest.raises(ServerException):
        client.execute("SELECT 1", settings={"output_format_schema": "x"})
    client.disconnect()


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


# A page's text, with that of elements whose content is a tree of its own.
_TEXT = """(function text(node) {
  if (node.nodeType === 3) return node.data;
  return (node.shadowRoot ? text(node.shadowRoot) : "") + [...node.childNodes].map(text).join(" ");
})(document.getElementById("data_div") || document.body)"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
async def test_play_in_a_browser(opened: Open, tmp_path: Path) -> None:
    """ClickHouse's own page works in a real browser: it asks, as the reader, and shows the row."""
    asked = b64encode(b"SELECT concat(m, '|seen') FROM btc WHERE m LIKE '7.50|%'").decode()
    login = f"user={READER}&password={quote(opened.password)}"
    url = f"http://{opened.host}:{opened.port}/play?{login}&run=1#{asked}"
    browser = await trio.lowlevel.open_process(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
         f"--user-data-dir={tmp_path}", url],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with trio.fail_after(DEADLINE):
            while "7.50|7|1|seen" not in await _page_text(tmp_path / "DevToolsActivePort"):
                await trio.sleep(0.2)
    finally:
        browser.terminate()
        with trio.CancelScope(shield=True):
            await browser.wait()


async def _page_text(place: Path) -> str:
    """Return what a browser shows that wrote down there where it is asked; nothing if not yet."""

    def pages() -> list[dict[str, str]]:
        if not place.exists() or not (words := place.read_text().split()):
            return []
        connection = http.client.HTTPConnection("127.0.0.1", int(words[0]), timeout=DEADLINE)
        with closing(connection):
            connection.request("GET", "/json")
            found: list[dict[str, str]] = json.loads(connection.getresponse().read())
            return [page for page in found if page["type"] == "page"]

    for page in await trio.to_thread.run_sync(pages):
        asked = {"expression": _TEXT, "returnByValue": True}
        async with open_websocket_url(page["webSocketDebuggerUrl"], max_message_size=2**26) as tab:
            await tab.send_message(
                json.dumps({"id": 1, "method": "Runtime.evaluate", "params": asked})
            )
            answer = json.loads(await tab.get_message())
        return str(answer["result"]["result"].get("value", ""))
    return ""


# Whom to let in.


@pytest.mark.parametrize(
    "head",
    [
        "GET {} HTTP/1.0\r\n\r\n",
        "GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ],
)
@pytest.mark.parametrize("path", ["/ping", "/?query=SELECT%201&user=reader&password={}"])
def test_a_connection_ends_when_http_says_so(opened: Open, head: str, path: str) -> None:
    """Icinga, nginx and others of HTTP/1.0 wait for a close that must come."""
    request = head.format(path.format(opened.password)).encode()
    with socket.create_connection((opened.host, opened.port), timeout=DEADLINE) as connection:
        connection.sendall(request)
        got = b""
        while piece := connection.recv(65536):
            got += piece
    assert got.startswith(b"HTTP/1.")
    assert b" 200 OK" in got
    body = got.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n0\r\n\r\n")
    assert body.endswith((b"Ok.\n", b"1\n"))


def test_statements_in_other_bytes(opened: Open) -> None:
    """Text that is no UTF-8, and what clients compress; neither fills a log."""
    assert opened.get("", body=b"SELECT 'caf\xe9'") == (200, b"caf\xe9\n")
    packed = gzip.compress(b"SELECT 1 + 1")
    assert opened.get("", body=packed, headers={"Content-Encoding": "gzip"}) == (200, b"2\n")
    status, said = opened.get("", body=packed[:10], headers={"Content-Encoding": "gzip"})
    assert status >= 400
    assert b"Code: " in said
    assert b"Stack trace" not in said


def test_a_thousand_idle_readers_are_not_felt(opened: Open) -> None:
    """Promise 6: neither the recorder nor another reader waits for those who say nothing."""
    with ExitStack() as idle:
        for n in range(1000):
            connection = idle.enter_context(socket.create_connection((opened.host, opened.port)))
            if n % 2:
                connection.sendall(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
        began = time.monotonic()
        assert opened.get("SELECT count() FROM btc") == (200, b"1000\n")
        assert opened.store.query("SELECT 1") == [(1,)]
        with closing(EmbeddedStore(opened.store.directory)) as another:
            assert another.query("SELECT 1") == [(1,)]
        assert time.monotonic() - began < 60


def test_half_open_connections_cost_little(opened: Open) -> None:
    """Whoever connects without a password takes no more than a bounded share of the memory."""
    pid = engine_pid(opened.store.directory)
    with ExitStack() as waiting:
        for _ in range(1500):
            connection = socket.create_connection((opened.host, opened.store.target.port))
            waiting.enter_context(connection).sendall(b"\0\1")
        assert opened.store.query("SELECT 1") == [(1,)]
        status = Path(f"/proc/{pid}/status")
        if status.exists():
            assert int(re.findall(r"Threads:\s+(\d+)", status.read_text())[0]) < 1200


def test_requests_that_do_not_end_are_bounded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts that no statement's bound is for yet cannot take the machine's memory."""
    if not Path("/proc/meminfo").exists():
        pytest.skip("needs Linux")
    total = int(re.findall(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[0]) * 1024
    monkeypatch.setattr(engine_config, "MEMORY", 400e6 / total)
    table, size = market_table("btc"), 100 << 20
    with (
        closing(EmbeddedStore(tmp_path / "store", Address(), "word")) as store,
        ExitStack() as clients,
    ):
        prepare(store, [table])
        before, refused = store.server_start_id(), 0
        for _ in range(4):
            client = clients.enter_context(
                Client("127.0.0.1", store.target.port, user=READER, password="word")  # noqa: S106
            )
            refused += _send_half(client, size)
        assert refused
        status = Path(f"/proc/{engine_pid(store.directory)}/status").read_text()
        assert int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) < 800_000
        # Meanwhile INSERTs may be refused as well, as by a server that is overloaded.
        clients.close()
        deadline = time.monotonic() + DEADLINE
        stored = False
        while not stored:
            assert time.monotonic() < deadline
            with suppress(StoreUnavailable):
                store.append(table, ROWS)
                stored = True
        assert count(store, "btc") == len(ROWS)
        assert store.server_start_id() == before


def _send_half(client: Client, size: int) -> bool:
    """Send a statement of so many bytes but the last; return whether it is refused meanwhile."""
    line = client.connection
    line.force_connect()
    out, revision = line.fout, line.server_info.used_revision
    write_varint(1, out)  # a query, without a name
    write_binary_str("", out)
    info = ClientInfo("x", client.connection.context, revision)
    info.query_kind = ClientInfo.QueryKind.INITIAL_QUERY
    info.write(revision, out)
    write_binary_str("", out)  # no settings, no secret of a cluster
    write_binary_str("", out)
    write_varint(2, out)  # to its end, not packed
    write_varint(0, out)
    write_varint(size, out)
    try:
        out.flush()
        for _ in range((size >> 20) - 1):
            line.socket.sendall(b" " * (1 << 20))
        line.socket.sendall(b" " * ((1 << 20) - 1))
        line.socket.settimeout(0.5)
        return bool(line.socket.recv(1))
    except TimeoutError:
        return False
    except OSError:
        return True


def test_off_lets_nobody_in(tmp_path: Path) -> None:
    """Without readers there is no address, no such user, and commands go on."""
    with closing(EmbeddedStore(tmp_path / "store")) as store:
        assert not (tmp_path / "store" / ADDRESS).exists()
        assert store.query("SELECT count() FROM system.users WHERE name = 'reader'") == [(0,)]


def test_password_of_ones_own(tmp_path: Path) -> None:
    """It stays the same over restarts, with any characters."""
    word = "p@ss/w:rd %&<>'\"ü"
    for _ in range(2):
        with closing(EmbeddedStore(tmp_path / "store", Address(), word)):
            text = (tmp_path / "store" / ADDRESS).read_text().strip()
            done = subprocess.run(
                ["curl", "-sS", text, "--data-binary", "SELECT currentUser()"],
                capture_output=True, check=True,
            )  # fmt: skip
            assert done.stdout == b"reader\n"


def test_other_machines_need_a_password_that_was_chosen(tmp_path: Path) -> None:
    """Listening beyond loopback with a password that nobody knows, or everybody, is refused."""
    settings = Settings(
        store=EmbeddedTarget(tmp_path / "store"),
        listen=Address("0.0.0.0", 0),  # noqa: S104
    )
    with pytest.raises(UsageError, match="reader_password"):
        open_store(settings, readers=True)
    assert not (tmp_path / "store").exists()
    with closing(open_store(attrs.evolve(settings, reader_password="x" * 12), readers=True)):
        url = (tmp_path / "store" / ADDRESS).read_text()
        assert url.startswith(f"http://reader:{'x' * 12}@127.0.0.1:")
        port = urlsplit(url.strip()).port
        assert port
        # From another address of this machine only the reader gets in.
        connection = http.client.HTTPConnection("127.0.0.2", port, timeout=DEADLINE)
        with closing(connection):
            connection.request("POST", "/?user=reader&password=" + "x" * 12, b"SELECT 1")
            assert connection.getresponse().read() == b"1\n"
