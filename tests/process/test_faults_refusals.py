"""The database refuses for a while: whatever it says, receiving goes on, and no row is missing.

An administrator changes a password, a right or a quota; a server is overloaded. Each is made in
earnest, with a user of the recorder's own on a server that is started anew with other users, or by
answering INSERTs with the packet in which ClickHouse says such things.
"""

import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from tests.support.faults import (
    TALLY,
    Exchange,
    Recorder,
    compare,
    make_tables,
    recording,
    stored,
    stored_gaps,
)
from tools.clickhouse import DATABASE, ClickHouseServer

APP = """\
<clickhouse>
    <quotas><mine>{quota}</mine></quotas>
    <profiles><mine>{profile}</mine></profiles>
    <users>
        <app>
            <password>{password}</password>
            <networks><ip>{address}</ip></networks>
            <profile>mine</profile>
            <quota>mine</quota>
            {grants}
        </app>
    </users>
</clickhouse>
"""
USUAL = {"quota": "", "profile": "", "password": "one", "address": "127.0.0.1", "grants": ""}


def let_in(server: ClickHouseServer, **changed: str) -> None:
    """Start a server with what the recorder's user may from now on."""
    assert server.users_d is not None
    (server.users_d / "app.xml").write_text(APP.format_map(USUAL | changed))
    server.start()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ClickHouseServer]:
    """Lend a server with empty tables that the recorder's own user may write to."""
    server = ClickHouseServer(users_d=tmp_path / "users.d")
    (tmp_path / "users.d").mkdir()
    try:
        let_in(server)
        make_tables(server)
        yield server
    finally:
        server.close()


def nothing_is_missing(exchange: Exchange, recorder: Recorder, server: ClickHouseServer) -> None:
    """Let it catch up and stop; all rows must be there, of one connection, with no gap."""
    recorder.catches_up()
    recorder.stop()
    found = compare(exchange.connections(), stored(recorder, server))
    assert len(found.segments) == 1
    assert found.rows == recorder.acked()
    assert stored_gaps(recorder, server) == []


def test_what_an_administrator_changes_for_a_while(
    tmp_path: Path, server: ClickHouseServer
) -> None:
    """Passwords, addresses, quotas, rights, a profile that only reads: all pass."""
    refusals = [
        ({"password": "two"}, "wrong user or password"),
        ({"address": "192.0.2.1"}, "wrong user or password"),
        (
            {"quota": "<interval><duration>3600</duration><queries>1</queries></interval>"},
            "(ClickHouse error 201)",
        ),
        ({"profile": "<readonly>1</readonly>"}, "(ClickHouse error 164)"),
        (
            {"grants": f"<grants><query>GRANT SELECT ON {DATABASE}.*</query></grants>"},
            "(ClickHouse error 497)",
        ),
    ]
    with recording(tmp_path, server) as (exchange, recorder):
        recorder.store = recorder.store.replace("recorder:secret", "app:one")
        recorder.start()
        recorder.stores(100)
        for changed, words in refusals:
            server.stop()
            before = recorder.said().count(words)
            let_in(server, **changed)
            recorder.says(words, before + 1)
            recorder.waits_for_store(recorder.backlog() + 100)
            server.stop()
            let_in(server)
            recorder.stores(200)
            TALLY.fault("refusal that passes")
        nothing_is_missing(exchange, recorder, server)


def refusal(code: int) -> bytes:
    """Return ClickHouse's packet of an exception: code, name, text, stack trace, no cause."""
    texts = ("DB::Exception", f"DB::Exception: refused with {code}", "")
    lines = b"".join(bytes([len(text)]) + text.encode() for text in texts)
    return b"\x02" + struct.pack("<i", code) + lines + b"\x00"


@asynccontextmanager
async def refusing(port: int, codes: list[int]) -> AsyncIterator[int]:
    """Run a proxy that answers an INSERT with each code in turn, and lets it pass where that is 0.

    Gives the proxy's port.
    """

    async def serve(client: trio.SocketStream) -> None:
        answering = trio.Lock()

        async def to_server() -> None:
            async for data in client:
                if codes and b") VALUES" in data and (code := codes.pop(0)):
                    async with answering:
                        await client.send_all(refusal(code))
                    return
                await upstream.send_all(data)

        async def to_client() -> None:
            async for data in upstream:
                async with answering:
                    await client.send_all(data)

        async def until_one_ends(task: Callable[[], Awaitable[None]]) -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await task()
            nursery.cancel_scope.cancel()

        upstream = await trio.open_tcp_stream("127.0.0.1", port)
        async with client, upstream, trio.open_nursery() as nursery:
            nursery.start_soon(until_one_ends, to_server)
            nursery.start_soon(until_one_ends, to_client)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield int(listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()


async def test_what_a_server_says_that_has_too_much_to_do(
    tmp_path: Path, server: ClickHouseServer
) -> None:
    """Overload, missing replicas, errors of its libraries, and a code that nobody has seen yet."""
    codes = [745, 203, 279, 286, 289, 290, 319, 1000, 1001, 1002, 987]
    left: list[int] = []
    with recording(tmp_path, server, linger="0") as (exchange, recorder):
        async with refusing(server.tcp_port, left) as port:
            recorder.store = recorder.store.replace(f":{server.tcp_port}/", f":{port}/")
            recorder.start()

            def all_is_said() -> None:
                recorder.stores(1)
                # Those that follow each other are waited out ever longer.
                trio.from_thread.run_sync(left.extend, [n for code in codes for n in (code, 0)])
                for code in codes:
                    recorder.says(f"refused with {code}")
                recorder.stores(500)
                nothing_is_missing(exchange, recorder, server)

            await trio.to_thread.run_sync(all_is_said)
        TALLY.fault("refusal that passes", len(codes))
