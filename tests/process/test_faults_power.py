"""After a power loss the end of a table's files may be missing or zeros, acknowledged or not.

The engine itself does not notice: it counts such rows and appends behind them. So the files are
damaged here while nobody has them open, after an ordinary stop and after a kill -9, and the next
start must notice by reading, give the table again what the journal still has, and write down the
rest.
"""

import json
import random
import shutil
import time
from pathlib import Path

import attrs
import pytest

from tests.support.faults import (
    TABLE,
    TALLY,
    Recorder,
    chance,
    compare,
    compare_all,
    make_tables,
    opened,
    recording,
    repetitions,
    stored,
    stored_gaps,
    wait_until,
)
from tests.support.running import read_embedded
from tools.clickhouse import DATABASE, ClickHouseServer


def files(recorder: Recorder, server: ClickHouseServer | None) -> Path:
    """Return the directory of the table's files."""
    root = server.data if server is not None else recorder.state
    return root / "data" / DATABASE / TABLE


def damage(directory: Path, instants: random.Random) -> str:
    """Cut or zero the end of one of the table's files, as a power loss does; say what was done."""
    name = instants.choice(("data.bin", "data.bin", "index.mrk"))
    path = directory / name
    # What lies beyond is of an INSERT that was never acknowledged.
    (known,) = json.loads((directory / "sizes.json").read_text()).values()
    size = int(known[name.replace(".", "%2E")]["size"])
    lost = min(size, int(2 ** instants.uniform(0, 14 if name == "data.bin" else 8)))
    with path.open("r+b") as file:
        file.seek(size - lost)
        end = file.read(lost)
        file.truncate(size - lost)
        # A mark ends with zeros of its own.
        if any(end) and instants.random() < 0.5:
            file.truncate(size)
            return f"the last {lost} bytes of {name} zeroed"
    return f"the last {lost} bytes of {name} cut off"


@pytest.mark.parametrize(("kind", "losses"), [("embedded", 4), ("server", 2)])
def test_power_loss(
    kind: str, losses: int, tmp_path: Path, clickhouse_server: ClickHouseServer
) -> None:
    """Promise 2: what the table lost of its end is appended again, once, in order."""
    instants = chance(f"power-{kind}")
    server = ClickHouseServer() if kind == "server" else None
    try:
        if server is not None:
            server.start()
            make_tables(server)
        # Where a checksum does not match, the engine tries for each bit of the block whether that
        # one is wrong. For a block of ten thousand rows it takes minutes, and such come of a higher
        # rate where a crowded machine starts slowly.
        slowly = ("--rate", "50", "--oddities", "0")
        with recording(tmp_path, server, exchange=slowly) as (exchange, recorder):
            noticed = Notices(recorder)
            started = time.monotonic()
            for number in range(repetitions(losses)):
                exchange.feed(recorder)
                noticed.wait()
                # Without a new row, the end of the data may be of an INSERT that was cut off with
                # the index: nobody reads it, so what becomes of it is not noticed either.
                recorder.stores()
                recorder.run_for(0.3)
                if number % 2:
                    recorder.kill()
                else:
                    recorder.stop()
                if server is not None:
                    wait_three_seconds(started)
                    server.kill()
                what = damage(files(recorder, server), instants)
                print(f"{number}: {what}")
                noticed.expect()
                if server is not None:
                    server.start()
                    started = time.monotonic()
                TALLY.fault(f"power loss, {kind} store")
            recorder.start()
            noticed.wait()
            recorder.stores(200)
            recorder.catches_up()
            recorder.stop()
            compare_all(exchange, recorder, server)
            # A damaged end of the index does not cost the whole table, unless that is one block.
            if server is None:
                assert recorder.said().count("; 0 rows are good") < repetitions(losses)
    finally:
        if server is not None:
            server.close()


@attrs.define
class Notices:
    """Whether the recorder has noticed the last damage."""

    recorder: Recorder
    expected: int = 0

    def number(self) -> int:
        """Return how often it has said that something is wrong with a table."""
        # The first alone where the damage hit only rows that were never acknowledged.
        words = ("cannot be read", "its index is damaged", "fewer than it had")
        return sum(self.recorder.said().count(text) for text in words)

    def expect(self) -> None:
        """Let something be noticed from now on."""
        self.expected = self.number() + 1

    def wait(self) -> None:
        """Wait until it was noticed."""
        wait_until("it is noticed", lambda: self.number() >= self.expected)


def wait_three_seconds(since: float) -> None:
    """Wait: a machine that lost its power does not start twice within three seconds."""
    wait_until("", lambda: time.monotonic() > since + 3)


@pytest.mark.parametrize("kind", ["embedded", "server"])
def test_what_the_journal_no_longer_has_is_a_gap(
    kind: str, tmp_path: Path, clickhouse_server: ClickHouseServer
) -> None:
    """Promise 4: rows that are lost for good are a row in gaps, and the damaged table is kept."""
    server = ClickHouseServer() if kind == "server" else None
    try:
        started = time.monotonic()
        if server is not None:
            server.start()
            make_tables(server)
        with recording(tmp_path, server, options=("--retention", "0")) as (exchange, recorder):
            sizes: list[int] = []
            data = files(recorder, server) / "data.bin"
            for removes in (False, True):
                exchange.feed(recorder)
                recorder.stores(100)
                # The first INSERT may have a second's rows where the start was slow, and is to be
                # in the half that stays.
                least = data.stat().st_size * (1 if removes else 3)
                wait_until("more INSERTs", lambda n=least: data.stat().st_size > n)  # type: ignore[misc]
                recorder.catches_up()
                if removes:
                    wait_until("old rows are removed", lambda: recorder.first_kept() > 0)
                recorder.stop()
                sizes.append(data.stat().st_size)
            before = stored(recorder, server)
            if server is not None:
                wait_three_seconds(started)
                server.kill()
            with data.open("r+b") as file:
                file.truncate(sizes[0] // 2)  # the journal has none of the first run's rows
            if server is not None:
                server.start()
            noticed = Notices(recorder)
            noticed.expect()
            exchange.look()
            recorder.start()
            noticed.wait()
            exchange.sends()
            recorder.stop()
            with opened(recorder, server):
                after = stored(recorder, server)
                gaps = [g for g in stored_gaps(recorder, server) if g.cause == "table damaged"]
                names = tables(recorder, server)
            assert len(gaps) == 1
            lost = [row for row in before if row not in set(after)]
            assert lost
            assert gaps[0].detail.startswith(f"{len(lost)} rows lost, ")
            kept = before[: before.index(lost[0])]
            assert after[: len(kept)] == kept
            outside = [row for row in lost if not gaps[0].start <= int(row[0]) <= gaps[0].end]
            assert not outside, (gaps[0], outside[:3], len(outside), len(lost))
            assert gaps[0].start == max(int(row[0]) for row in kept)
            assert len(set(after)) == len(after)
            assert any(name.startswith(f"{TABLE}_damaged_") for name in names), names
            TALLY.fault(f"power loss beyond the journal's retention, {kind} store")
            TALLY.rows += len(after)
    finally:
        if server is not None:
            server.close()


def tables(recorder: Recorder, server: ClickHouseServer | None) -> list[str]:
    """Return the tables that there are."""
    if server is not None:
        return [name for (name,) in server.execute(f"SHOW TABLES FROM {DATABASE}")]
    return [name for (name,) in read_embedded(recorder.state, f"SHOW TABLES FROM {DATABASE}")]


def test_journal_that_lost_its_end_with_the_power(
    tmp_path: Path, clickhouse_server: ClickHouseServer
) -> None:
    """Without --journal-sync the journal may remember less than the table has; that is no conflict.

    The journal is put back to an older copy, and told that the machine has been started since.
    """
    server = clickhouse_server
    for name in ("btc", "gaps"):
        server.execute(f"DROP TABLE IF EXISTS {DATABASE}.{name}")
    make_tables(server)
    with recording(tmp_path, server) as (exchange, recorder):
        recorder.start()
        recorder.stores(300)
        older = tmp_path / "older"
        # A copy of a journal in use is what a power cut leaves: WAL frames up to some instant.
        shutil.copytree(recorder.state, older)
        recorder.stores(recorder.backlog() + 300)  # more than the copy can have
        recorder.kill()
        shutil.rmtree(recorder.state)
        shutil.copytree(older, recorder.state)
        # On the same machine start this can only be somebody else's doing.
        recorder.start()
        recorder.says("something else writes to it")
        recorder.kill()
        shutil.rmtree(recorder.state)
        shutil.copytree(older, recorder.state)
        recorder.forget_the_machines_start()
        recorder.start()
        recorder.says("lost its end with the power")
        exchange.look()
        exchange.sends()
        recorder.stop()
        table = stored(recorder, server)
        found = compare(exchange.connections(), table)
        # The gap begins before the last row that is stored: at the last one the journal knew.
        gaps = [g for g in stored_gaps(recorder, server) if g.cause == "program stopped"]
        last = max(int(one.row[0]) for one in found.segments[0])
        assert gaps
        assert min(g.start for g in gaps) <= last
        assert max(g.end for g in gaps) >= int(found.segments[-1][0].row[0])
        TALLY.fault("power loss that took the journal's end")
