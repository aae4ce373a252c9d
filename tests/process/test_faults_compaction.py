"""Tables are rewritten while rows pour in; whatever is killed, no row is lost and none twice."""

from pathlib import Path

import pytest

from mexc_trio.clickhouse.compaction import copy_of
from mexc_trio.record.rewriting import RewritingRequest
from tests.support.faults import (
    TABLE,
    TALLY,
    Recorder,
    ask,
    chance,
    compare,
    compare_gaps,
    kill_in_rewriting,
    make_tables,
    opened,
    recording,
    repetitions,
    stored,
    stored_gaps,
    wait_until,
)
from tools.clickhouse import DATABASE, ClickHouseServer


def blocks(recorder: Recorder, server: ClickHouseServer | None) -> int:
    """Return in how many pieces the table is stored."""
    sql = f"SELECT uniqExact(blockNumber()) FROM {DATABASE}.{TABLE}"
    found = ask(recorder, server, sql)
    return int(found[0][0])


def test_recording_goes_on_while_tables_are_rewritten(
    tmp_path: Path, mortal_server: ClickHouseServer | None
) -> None:
    """The connection is not touched, no row is missing, and the INSERTs of before are one block."""
    with recording(tmp_path, mortal_server, linger="0") as (exchange, recorder):
        recorder.start()
        for _ in range(3):
            recorder.stores(500)
            done = recorder.asked("compact")
            assert (done.returncode, done.stderr) == (0, "")
            assert f"table {TABLE}: " in done.stdout
            recorder.stores(1)
        done = recorder.asked("compact", "BTC_USDT", "XRP_USDT")
        assert done.returncode == 1
        assert "XRP_USDT is not recorded by this process" in done.stderr
        recorder.catches_up()
        recorder.stop()
        assert "ERROR" not in recorder.said().replace("ERROR XRP", "")
        with opened(recorder, mortal_server):
            before = blocks(recorder, mortal_server)
            table = stored(recorder, mortal_server)
            found = compare(exchange.connections(), table)
            assert len(found.segments) == 1
            compare_gaps(found.segments, stored_gaps(recorder, mortal_server))
            # Nobody records: the command does it by itself, and the next recorder takes that.
            done = recorder.asked("compact", "BTC_USDT")
            assert (done.returncode, done.stderr) == (0, "")
            assert blocks(recorder, mortal_server) == 1 < before
            assert stored(recorder, mortal_server) == table
        recorder.start()
        recorder.stores(10)
        recorder.stop()
        compare(exchange.connections(), stored(recorder, mortal_server))


# In test_convert each victim has the other store.
@pytest.mark.parametrize(
    ("victim", "mortal_server"),
    [("recorder", "embedded"), ("engine", "server")],
    indirect=["mortal_server"],
)
def test_kill_9_while_a_table_is_rewritten(
    victim: str, tmp_path: Path, mortal_server: ClickHouseServer | None
) -> None:
    """At any instant of it, again and again: every row once, in order, each gap written down."""
    instants = chance(f"compaction-{victim}-{mortal_server is not None}")
    kills = repetitions(2)
    with recording(tmp_path, mortal_server, linger="0") as (exchange, recorder):
        requests = [RewritingRequest("a", ())] * kills
        kill_in_rewriting(victim, recorder, mortal_server, requests, instants)
        recorder.stores(50)
        done = recorder.asked("compact")
        assert done.returncode == 0, done.stderr
        recorder.catches_up()
        recorder.stop()
        with opened(recorder, mortal_server):
            table = stored(recorder, mortal_server)
            found = compare(exchange.connections(), table)
            compare_gaps(found.segments, stored_gaps(recorder, mortal_server))
            TALLY.fault(f"kill -9 of the {victim} while a table was rewritten", kills)
            left = f"SELECT name FROM system.tables WHERE name = '{copy_of(TABLE)}'"
            found_left = ask(recorder, mortal_server, left)
            assert not found_left


def test_a_signal_does_not_wait_for_the_end_of_it(tmp_path: Path) -> None:
    """What is under way is ended in the engine; the table is the old one, and what waits comes."""
    with recording(tmp_path, linger="0") as (exchange, recorder):
        recorder.start()
        recorder.stores(3000)
        RewritingRequest("a", ()).leave(recorder.journal)
        recorder.says(f"table {TABLE}: rewriting it")
        recorder.stop(60)
        found = compare(exchange.connections(), stored(recorder, None))
        assert len(found.segments) == 1
        assert recorder.backlog() == 0


def test_a_recorder_elsewhere_is_not_written_over(tmp_path: Path) -> None:
    """A server's table is compacted only where its journal is, which knows what it must have."""
    with ClickHouseServer() as server:
        make_tables(server)
        with recording(tmp_path, server, linger="0") as (_, recorder):
            recorder.start()
            recorder.stores(100)
            elsewhere = Recorder(tmp_path / "elsewhere", "", server.url)
            done = elsewhere.asked("compact", "BTC_USDT")
            assert done.returncode == 1
            assert "is being recorded by process" in done.stderr
            recorder.kill()
            done = elsewhere.asked("compact", "BTC_USDT")
            assert done.returncode == 1
            assert "table btc: no journal here knows it; compact it where it is rec" in done.stderr
            server.execute(f"INSERT INTO {DATABASE}.{TABLE} VALUES (0, 'd', '1|1|1')")
            done = recorder.asked("compact", "BTC_USDT")
            assert done.returncode == 1
            assert "has not the rows that the journal knows of" in done.stderr


def test_what_was_asked_of_a_recorder_that_died_is_done_by_the_next(tmp_path: Path) -> None:
    """And what cannot be read is told, and thrown away."""
    with recording(tmp_path, linger="0") as (exchange, recorder):
        recorder.start()
        recorder.stores(100)
        recorder.kill()
        RewritingRequest("a", ("BTC_USDT",)).leave(recorder.journal)
        recorder.start()
        recorder.says("rows rewritten")
        place = recorder.journal.with_suffix(".request")
        wait_until("it is done with", lambda: not place.exists())
        place.write_text("what?")
        recorder.says("asks for cannot be read")
        wait_until("it is thrown away", lambda: not place.exists())
        recorder.stop()
        compare(exchange.connections(), stored(recorder, None))
