"""A store is what it is, however it is spelt: rows get to it, to it alone, and once."""

from pathlib import Path

from tests.support.faults import (
    TABLE,
    Exchange,
    Recorder,
    compare,
    recording,
    stored,
    wait_until,
)
from tools.clickhouse import ClickHouseServer


def test_a_server_by_two_names(tmp_path: Path, server: ClickHouseServer) -> None:
    """A second recorder of the table is refused, and rows that wait go to the server in any case.

    The second one is in another directory, and has only the server's name in common.
    """
    other_name = server.url.replace("127.0.0.1", "localhost")
    with recording(tmp_path, server, linger="2") as (exchange, recorder):
        recorder.start()
        recorder.stores(50)
        second = Recorder(tmp_path / "second", exchange.url, other_name).start()
        assert second.wait() == 1
        assert f"table {TABLE} of " in second.said()
        assert f"is being recorded by process {recorder.pid}" in second.said()

        wait_until("rows wait", lambda: recorder.backlog() > 0)
        recorder.kill()
        waiting = recorder.backlog()
        assert waiting
        recorder.store = other_name
        recorder.run("drain", "--state-dir", str(recorder.state))
        assert recorder.wait() == 0
        assert len(list(recorder.state.glob("journal*.sqlite"))) == 1
        assert compare(exchange.connections(), stored(recorder, server)).rows >= waiting


def test_two_stores_that_share_a_state_directory(tmp_path: Path) -> None:
    """Neither gets the other's rows, and whoever starts or verifies is told of them."""
    with Exchange(tmp_path / "exchange") as exchange:
        first = Recorder(tmp_path, exchange.url, str(tmp_path / "first"), linger="60")
        first.start()
        wait_until("rows wait", lambda: first.backlog() > 50)
        first.kill()
        waiting = first.backlog()
        second = Recorder(tmp_path, exchange.url, str(tmp_path / "second"))
        second.start()
        told = f"{waiting} rows wait in {first.state / 'journal.sqlite'} for {tmp_path / 'first'}"
        second.says(told)
        wait_until("a second journal", (second.state / "journal-2.sqlite").exists)
        second.run_for(1)
        second.stop()
        second.run("verify", "--state-dir", str(second.state))
        second.wait()
        verdict = " ".join((tmp_path / "recorder.out").read_text().split())  # it is wrapped
        assert told in verdict.replace(",", "")
