"""The server may die, hang, refuse or lose rows; the network may break within an INSERT.

Promises 2 to 5, against a real server under load. The recorder stays on one connection to the
exchange all the time, so in the end the table must hold what was sent on it, from the first row on.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from mexc_trio.clickhouse.replicas import inconclusive
from mexc_trio.clickhouse.server import ServerStore
from mexc_trio.clickhouse.tables import market_table
from mexc_trio.errors import StoreUnavailable
from mexc_trio.rows import RowTuple
from tests.support.faults import (
    LOOK,
    TABLE,
    TALLY,
    Exchange,
    Recorder,
    chance,
    compare,
    compare_all,
    compare_gaps,
    make_tables,
    recording,
    repetitions,
    stored,
    stored_gaps,
    until,
    wait_until,
)
from tests.support.running import DEADLINE, server_store
from tools.clickhouse import DATABASE, ClickHouseServer
from tools.proxy import Direction, Fault, Kind, Proxy, open_proxy

OUTAGE = float(os.environ.get("MEXC_TRIO_TEST_OUTAGE", "3"))
"""Seconds of the one long outage."""

# The program waits for 10 s by default.
IMPATIENT = "&send_receive_timeout=1&sync_request_timeout=1&connect_timeout=1"

# The empty block behind the rows of an INSERT, in ClickHouse's native protocol.
NO_MORE_ROWS = b"\x02\x00\x01\x00\x02\xff\xff\xff\xff\x00\x00\x00"


ENGINES = ("stripelog", "mergetree")
"""Of a symbol's table; each resolves an INSERT of which nobody heard in its own way."""


@pytest.fixture
def server(clickhouse_server: ClickHouseServer) -> Iterator[ClickHouseServer]:
    """Lend a server with empty tables that a test may do anything to."""
    with ClickHouseServer() as server:
        make_tables(server)
        yield server


def remake(server: ClickHouseServer, engine: str) -> None:
    """Give a server an empty table of an engine in the place of the empty one that it has."""
    if engine != "stripelog":
        server.execute(f"DROP TABLE {DATABASE}.{TABLE} SYNC")
        make_tables(server, engine=engine)


def rows(server: ClickHouseServer, table: str = TABLE) -> int:
    """Return how many rows a table has."""
    return int(server.execute(f"SELECT count() FROM {DATABASE}.{table}")[0][0])


def arrive(server: ClickHouseServer, n: int = 1, table: str = TABLE) -> None:
    """Wait until a table has so many more rows."""
    least = rows(server, table) + n
    wait_until(f"{n} rows arrive", lambda: rows(server, table) >= least)


def finish(exchange: Exchange, recorder: Recorder, server: ClickHouseServer) -> None:
    """Let the recorder catch up, stop it, and compare all it has stored with what was sent."""
    recorder.catches_up()
    recorder.stop()
    found = compare_all(exchange, recorder, server)
    # It was not killed: all that it had received is there.
    assert found.rows == recorder.acked() > 100


@pytest.mark.parametrize("engine", ENGINES)
def test_kill_9_of_the_server_under_load(
    engine: str, tmp_path: Path, server: ClickHouseServer
) -> None:
    """The server dies in the middle of INSERTs and comes back; one outage is longer."""
    instants = chance(f"server-kill-{engine}")
    remake(server, engine)
    with recording(tmp_path, server, linger="0", engine=engine) as (exchange, recorder):
        recorder.start()
        kills = repetitions(4)
        for number in range(kills):
            arrive(server)
            recorder.run_for(instants.uniform(0, 0.5))
            if instants.random() < 0.8:
                server.kill()
            else:
                server.stop()
            is_long = number == kills // 2
            recorder.run_for(OUTAGE if is_long else instants.uniform(0, 0.7))
            server.start()
            if is_long:
                recorder.says("is back; caught up after")
        finish(exchange, recorder, server)
        TALLY.fault(f"kill -9 or stop of the server, {engine}", kills)


def test_frozen_server(tmp_path: Path, server: ClickHouseServer) -> None:
    """A server that hangs for longer than the timeouts, and then goes on with old INSERTs."""
    instants = chance("server-freeze")
    with recording(tmp_path, server, linger="0") as (exchange, recorder):
        recorder.store += IMPATIENT
        recorder.start()
        freezes = repetitions(3)
        for _ in range(freezes):
            arrive(server)
            recorder.run_for(instants.uniform(0, 0.3))
            server.pause()
            recorder.run_for(instants.uniform(1, 2.5))
            server.resume()
        finish(exchange, recorder, server)
        TALLY.fault("freeze of the server", freezes)


async def more_rows(server: ClickHouseServer) -> None:
    """Wait until rows arrive. In threads, because the proxy needs this one."""
    with trio.fail_after(DEADLINE):
        before = now = await trio.to_thread.run_sync(rows, server)
        while now == before:
            await trio.sleep(LOOK)
            now = await trio.to_thread.run_sync(rows, server)


async def swallow_an_answer(proxy: Proxy, recorder: Recorder) -> None:
    """Have an INSERT arrive of which the recorder does not hear, and finds that it had arrived."""

    def found() -> int:
        return recorder.said().count("of an unanswered INSERT had arrived")

    for _ in range(10):
        before = found()
        # All arrives and is stored (5 ends the answer); nobody hears. Other statements end in the
        # same way, so it is armed when the rows' last column has come. Where others have the
        # processor in just this moment, it strikes one of those, and the next INSERT will do.
        rows_come = Fault(
            Direction.TO_SERVER, 0, Kind.DELAY, pattern=b"\x01m\x06String", seconds=0.3
        )
        await until("rows come", proxy.arm(rows_come).fired.is_set)
        fault = Fault(Direction.TO_SERVER, 0, Kind.SWALLOW, pattern=NO_MORE_ROWS, until=b"\x05")
        await until("the answer is swallowed", proxy.arm(fault).fired.is_set)
        if await until("it is found", lambda n=before: found() > n, 20, fail=False):  # type: ignore[misc]
            return
    raise AssertionError("ten answers were swallowed, and no INSERT was found to have arrived")


@pytest.mark.parametrize("engine", ENGINES)
async def test_network_breaks_inside_an_insert(
    engine: str, tmp_path: Path, server: ClickHouseServer
) -> None:
    """Every kind of break, at many bytes of an INSERT, also between its last and the answer."""
    instants = chance(f"network-{engine}")
    remake(server, engine)
    with recording(tmp_path, server, linger="0", engine=engine) as (exchange, recorder):
        async with open_proxy("127.0.0.1", server.tcp_port) as proxy:
            recorder.store = (
                server.url.replace(f":{server.tcp_port}/", f":{proxy.port}/") + IMPATIENT
            )
            recorder.start()
            await more_rows(server)
            kinds = [Kind.CUT, Kind.CLOSE, Kind.HALF_CLOSE, Kind.STALL, Kind.DELAY, Kind.SWALLOW]
            for number in range(repetitions(6)):
                kind = kinds[number % len(kinds)]
                if kind is Kind.SWALLOW:
                    await swallow_an_answer(proxy, recorder)
                    await more_rows(server)
                    TALLY.fault(f"answer to an INSERT that nobody heard, {engine}")
                    continue
                if instants.random() < 0.3:
                    # Within the answer: the table's columns, or the last byte.
                    place = instants.randrange(1, 60)
                    fault = Fault(Direction.TO_CLIENT, place, kind, pattern=b"\x0b", seconds=0.3)
                else:
                    # From the statement through the columns to the end of the rows.
                    place = int(instants.uniform(0, 40) ** 2)
                    fault = Fault(
                        Direction.TO_SERVER, place, kind, pattern=b"INSERT INTO", seconds=0.3
                    )
                armed = proxy.arm(fault)
                if not await until("it strikes", armed.fired.is_set, 1, fail=False):
                    proxy.disarm()
                    continue
                if kind in (Kind.STALL, Kind.HALF_CLOSE):
                    # Until the recorder has given up; what was held back arrives afterwards.
                    await trio.sleep(instants.uniform(0.8, 2))
                    proxy.resume()
                await more_rows(server)
                TALLY.fault(f"{kind.value} of a connection within an INSERT, {engine}")
            await trio.to_thread.run_sync(finish, exchange, recorder, server)


async def test_rows_that_come_late_come_to_nothing(server: ClickHouseServer) -> None:
    """What was on its way in a network that was cut arrives after the table has been compared.

    The server must have begun the statement before rows are sent, or nobody sees that they may
    still come: neither its list of statements nor the table has them.
    """
    table = market_table(TABLE)
    sent = [(n, "d", f"{n}|1|1") for n in range(2)]

    async def append(store: ServerStore, *sent: RowTuple) -> None:
        await trio.to_thread.run_sync(store.append, table, sent)

    async def fail(store: ServerStore) -> None:
        with pytest.raises(StoreUnavailable):
            await append(store, sent[1])

    async with open_proxy("127.0.0.1", server.tcp_port) as proxy:
        url = server.url.replace(f":{server.tcp_port}/", f":{proxy.port}/")
        with closing(server_store(url)) as far, closing(server_store(server.url)) as near:
            await append(far, sent[0])
            stall = Fault(Direction.TO_SERVER, 0, Kind.STALL, pattern=b"INSERT INTO")
            async with trio.open_nursery() as nursery:
                armed = proxy.arm(stall)
                nursery.start_soon(fail, far)
                await armed.fired.wait()
                (client,) = far._clients  # noqa: SLF001 - as if it had lost its patience
                client.connection.socket.shutdown(socket.SHUT_RDWR)
            assert not await trio.to_thread.run_sync(inconclusive, near, TABLE)
            assert await trio.to_thread.run_sync(rows, server) == 1
            await append(near, sent[1])
            proxy.resume()
            twice = await until("", lambda: rows(server) > 2, 1, fail=False)
            assert not twice


@pytest.mark.parametrize(
    ("made_by", "said"), [("it", "table dropped"), ("others", "table shorter than expected")]
)
def test_emptied_table_is_filled_again_from_the_journal(
    tmp_path: Path, server: ClickHouseServer, made_by: str, said: str
) -> None:
    """A server that comes back without its data is given all that the journal still keeps.

    Whoever makes the table anew, the recorder or somebody quicker: only the words differ.
    """
    with recording(tmp_path, server) as (exchange, recorder):
        recorder.start()
        arrive(server, 1000)
        if made_by == "others":
            recorder.signal(signal.SIGSTOP)
        server.kill()
        server.wipe()
        server.start()
        if made_by == "others":
            make_tables(server)
            recorder.signal(signal.SIGCONT)
        recorder.says(f"table {TABLE}: {said}: ")
        recorder.stores(1000)
        make_tables(server)  # the ledger, which is made when there is something for it
        finish(exchange, recorder, server)
        TALLY.fault("server without its data")


def test_emptied_table_is_a_gap_where_the_journal_keeps_nothing(
    tmp_path: Path, server: ClickHouseServer
) -> None:
    """What the journal no longer has is a row in gaps; recording goes on behind it."""
    with recording(tmp_path, server, options=("--retention", "0")) as (exchange, recorder):
        recorder.start()
        arrive(server, 1000)
        recorder.stop()
        recorder.start()
        wait_until("old rows are removed", lambda: recorder.first_kept() > 0)
        recorder.stop()
        lost = stored(recorder, server)
        server.execute(f"DROP TABLE {DATABASE}.{TABLE}")
        make_tables(server)
        recorder.start()
        arrive(server, 500)
        recorder.stop()
        table = stored(recorder, server)
        gaps = [
            g for g in stored_gaps(recorder, server) if g.cause == "table shorter than expected"
        ]
        assert len(gaps) == 1
        # The first row came a moment before the first look into the table, or after it.
        assert (gaps[0].symbol, gaps[0].channel) == ("BTC_USDT", "all")
        assert abs(gaps[0].start - int(lost[0][0])) < 60_000
        # What is missing is what lies in the gap, and what is left follows on it.
        kept = [row for row in lost if row in set(table)]
        gone = [row for row in lost if row not in set(table)]
        assert gone
        assert lost == gone + kept
        assert f"{len(gone)} rows lost, {len(kept)} restored" == gaps[0].detail
        assert gaps[0].end == table[0][0]
        sent = {one.row for connection in exchange.connections() for one in connection}
        assert set(table) <= sent
        assert len(set(table)) == len(table)
        TALLY.fault("emptied table")
        TALLY.rows += len(table)


def test_another_writer_stops_writing_alone(tmp_path: Path, server: ClickHouseServer) -> None:
    """Promise 6: behind rows of somebody else nothing is written; all is received and kept."""
    with recording(tmp_path, server) as (_, recorder):
        recorder.start()
        arrive(server, 100)
        server.execute(f"INSERT INTO {DATABASE}.{TABLE} VALUES", [(1, "d", "1|1|1")])
        server.kill()  # so that it looks at once, and not within a minute
        server.start()
        recorder.says("something else writes to it")
        before = rows(server)
        recorder.waits_for_store(recorder.backlog() + 100)
        recorder.signal()
        assert recorder.wait() == 1
        waiting = recorder.backlog()
        # Nor does a new start guess, or stop.
        said = recorder.said().count("something else writes to it")
        recorder.start()
        recorder.says("something else writes to it", said + 1)
        recorder.waits_for_store(waiting + 100)
        recorder.signal()
        assert recorder.wait() == 1
        assert rows(server) == before
        TALLY.fault("another writer")


def test_two_recorders_of_one_symbol(tmp_path: Path, server: ClickHouseServer) -> None:
    """The second recorder on one machine refuses, and names the first one's process."""
    with recording(tmp_path / "one", server) as (exchange, first):
        first.start()
        arrive(server, 100)
        second = Recorder(tmp_path / "two", exchange.url, server.url)
        second.start()
        assert second.wait() == 1
        assert f"process {first.pid}" in second.said()
        # In the same state directory, with another symbol: the journal is taken.
        third = Recorder(first.directory, exchange.url, server.url, symbols=("ETH_USDT",))
        make_tables(server, "eth")
        before = third.said()
        third.start()
        assert third.wait() == 1
        # The first one writes into the same log.
        assert f"in use by process {first.pid}" in third.said().removeprefix(before)
        finish(exchange, first, server)


def test_two_recorders_of_two_symbols_share_the_ledger(
    tmp_path: Path, server: ClickHouseServer
) -> None:
    """Recorders of different symbols in one database write one table of gaps."""
    make_tables(server, "btc", "eth")
    with recording(tmp_path / "one", server) as (exchange, first):
        second = Recorder(tmp_path / "two", exchange.url, server.url, symbols=("ETH_USDT",))
        try:
            for _ in range(repetitions(2)):
                for recorder, table in ((first, "btc"), (second, "eth")):
                    recorder.start()
                    arrive(server, table=table)
                for recorder in (first, second):
                    recorder.kill()
                TALLY.fault("kill -9 of two recorders with one ledger")
            for recorder, table in ((first, "btc"), (second, "eth")):
                said = f"Subscribed to: sub.depth.full for {recorder.symbols[0]}"
                before = recorder.said().count(said)
                recorder.start()
                recorder.says(said, before + 1)
                arrive(server, table=table)
            for recorder in (first, second):
                recorder.stop()
        finally:
            if second.is_running:
                second.kill()
        gaps = stored_gaps(first, server)
        for recorder, symbol, table in ((first, "BTC_USDT", "btc"), (second, "ETH_USDT", "eth")):
            found = compare(exchange.connections(symbol), stored(recorder, server, table))
            compare_gaps(found.segments, gaps, symbol)


def test_stopping_with_the_server_away(tmp_path: Path, server: ClickHouseServer) -> None:
    """Ctrl-C ends within seconds and says what is left; the next run, or drain, writes it."""
    with recording(tmp_path, server) as (exchange, recorder):
        for command in ("record", "drain"):
            recorder.start()
            arrive(server)
            server.kill()
            recorder.waits_for_store()
            recorder.stop(60, leaves_rows=True)
            said = recorder.said().splitlines()
            waiting = recorder.backlog()
            assert any(f"{waiting} rows are not yet in" in line for line in said[-3:]), said[-3:]
            server.start()
            if command == "drain":
                recorder.run("drain", "--state-dir", str(recorder.state))
                assert recorder.wait() == 0
                assert f"{waiting} rows written" in recorder.said().splitlines()[-1]
                assert recorder.backlog() == 0
            else:
                recorder.start()
                recorder.says(f"{waiting} rows of an earlier run")
                recorder.catches_up()
                recorder.stop()
            TALLY.fault("Ctrl-C with the server away")
        found = compare(exchange.connections(), stored(recorder, server))
        assert found.rows > 600


def test_second_ctrl_c_does_not_wait(tmp_path: Path, server: ClickHouseServer) -> None:
    """With the server frozen the first Ctrl-C waits for an answer, the second does not: 130."""
    with recording(tmp_path, server, linger="0") as (exchange, recorder):
        recorder.start()
        arrive(server, 100)
        server.pause()
        recorder.waits_for_store()
        recorder.signal(signal.SIGINT)
        recorder.says("SIGINT")
        recorder.signal(signal.SIGINT)
        assert recorder.wait() == 130
        assert "the next run writes up to" in recorder.said()
        server.resume()
        recorder.start()
        recorder.catches_up()
        recorder.stop()
        compare_all(exchange, recorder, server)
        TALLY.fault("second Ctrl-C")


ROWS_AWAY = 40_000
"""An hour's. As objects of Python they would take a hundred bytes each at the least, six times."""


def seconds_until(condition: Callable[[], bool]) -> float:
    """Return how long it takes until a condition is true."""
    began = time.monotonic()
    wait_until("caught up", condition)
    return time.monotonic() - began


def test_memory_and_catching_up(tmp_path: Path, server: ClickHouseServer) -> None:
    """With the server away memory stays bounded; an hour's rows are caught up in seconds."""
    options = ("--rate", "12000", "--oddities", "0")
    # So that most of them are read from the journal again.
    few = {"mexc_trio.journal.queue.MOST_IN_MEMORY": ROWS_AWAY // 4}
    with recording(tmp_path, server, exchange=options, constants=few) as (exchange, recorder):
        recorder.start()
        arrive(server, 100)
        server.kill()
        recorder.waits_for_store(ROWS_AWAY)
        server.start()
        began = rows(server)
        took = seconds_until(lambda: rows(server) > began + ROWS_AWAY // 2)
        memory = recorder.memory()
        recorder.stop()
        found = compare(exchange.connections(), stored(recorder, server))
        assert found.rows > ROWS_AWAY
        assert memory < 100 << 20, f"{memory >> 20} MiB"
        TALLY.fault(f"server away for {ROWS_AWAY:,} rows")
        TALLY.notes.append(
            f"with {ROWS_AWAY:,} rows waiting the recorder had at most {memory >> 20} MiB; "
            f"half of them were written within {took:.1f} s of the server's start"
        )
