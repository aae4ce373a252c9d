"""Killing the program at any instant loses nothing that was journaled, and stores nothing twice."""

import signal
from pathlib import Path

import pytest

from tests.support.faults import (
    TALLY,
    chance,
    compare,
    compare_gaps,
    make_tables,
    opened,
    recording,
    repetitions,
    stored,
    stored_gaps,
)
from tools.clickhouse import ClickHouseServer


@pytest.mark.parametrize(
    ("kind", "engine", "kills"),
    [
        ("embedded", "stripelog", 5),
        ("embedded", "mergetree", 4),
        ("server", "stripelog", 6),
        ("server", "mergetree", 6),
    ],
)
def test_kill_9_during_heavy_traffic(
    kind: str, engine: str, kills: int, tmp_path: Path, clickhouse_server: ClickHouseServer
) -> None:
    """Promises 1, 2 and 4: kept, exactly once, in order, and each gap written down."""
    instants = chance(f"kill-{kind}-{engine}")
    server = clickhouse_server if kind == "server" else None
    if server is not None:
        for name in ("btc", "gaps"):
            server.execute(f"DROP TABLE IF EXISTS mexc_data.{name}")
        make_tables(server, engine=engine)
    with recording(tmp_path, server, engine=engine) as (exchange, recorder):
        kills = repetitions(kills)
        journaled: list[int] = []
        for _ in range(kills):
            exchange.look()
            recorder.linger = instants.choice(("0", "0", "0.05"))
            recorder.start()
            how = instants.random()
            if how < 0.1:  # while it starts
                pause = instants.uniform(0, 1.5)
                recorder.run_for(pause)
            else:
                exchange.sends()
                recorder.run_for(instants.uniform(0, 1))
            if how > 0.8:  # while it stops
                recorder.signal(signal.SIGINT)
                pause = instants.uniform(0, 0.3)
                recorder.run_for(pause)
            recorder.kill()
            if rows := recorder.journaled():
                journaled.append(hash(rows[-1]))
        exchange.feed(recorder)
        recorder.catches_up()  # a crowded machine leaves more than a stop has time for
        recorder.stop()
        with opened(recorder, server):
            table, gaps = stored(recorder, server), stored_gaps(recorder, server)
        found = compare(exchange.connections(), table)
        # What the journal had at each kill is in the table; only what was in the socket is not.
        hashes = set(map(hash, table))
        assert hashes.issuperset(journaled)
        compare_gaps(found.segments, gaps)
        TALLY.fault(f"kill -9 of the recorder, {kind} store, {engine}", kills)
        unheard = recorder.said().count("rows of an unanswered INSERT")
        TALLY.notes.append(
            f"kill -9, {kind} store, {engine}: {unheard} times an INSERT had arrived "
            f"that nobody heard of; "
            f"at most {max(found.missing)} rows were still in the socket"
        )
