"""Another program has the journal locked, as database browsers do while something is edited.

Received means kept: so while nothing can be kept, nothing is received. Short locks cost nothing,
since the kernel holds what comes; long ones the connection, with a row in `gaps`.
"""

import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from mexc_trio.journal import open_journal
from mexc_trio.record import disk
from mexc_trio.record.disk import WalSize
from mexc_trio.rows import Row
from tests.support.faults import (
    TALLY,
    Recorder,
    compare,
    compare_all,
    compare_gaps,
    opened,
    recording,
    stored,
    stored_gaps,
    wait_until,
)
from tests.support.running import DEADLINE


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Have a journal locked, which this process's number then stands for."""
    with closing(sqlite3.connect(path, timeout=DEADLINE, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield
        db.execute("ROLLBACK")
    TALLY.fault("lock on the journal")


def health(recorder: Recorder) -> float:
    """Return how many seconds the recorder takes to say that it lives."""
    url = (recorder.state / "metrics.url").read_text().strip().replace("/metrics", "/live")
    began = time.monotonic()
    with urlopen(url, timeout=DEADLINE) as answer:  # noqa: S310 - our own
        assert answer.status == 200
    return time.monotonic() - began


def test_short_lock_costs_nothing(tmp_path: Path) -> None:
    """For some seconds the socket holds what comes; the program goes on, and says who it is."""
    # Where we do not get the processor in time to let go, a lock is not short.
    assert any(short_locks_cost_nothing(tmp_path / attempt) for attempt in "12345")


def short_locks_cost_nothing(directory: Path) -> bool:
    """Try it; return False if the locks were not short."""
    with recording(directory, linger="0") as (exchange, recorder):
        recorder.start()
        recorder.stores(500)
        longest = 0.0
        for number in (1, 2):
            began = time.monotonic()
            with locked(recorder.journal):
                recorder.says(f"is locked by process {os.getpid()} (", number)
                assert recorder.run_for(1)
                health(recorder)
            longest = max(longest, time.monotonic() - began)
            recorder.stores(500)
        recorder.catches_up()
        recorder.stop()
        if longest > 6:
            return False
        said = recorder.said()
        assert said.count(f"is locked by process {os.getpid()} (") == 2
        assert len(re.findall(r": unlocked after \d+ s", said)) == 2
        with opened(recorder, None):
            found = compare(exchange.connections(), stored(recorder, None))
            assert stored_gaps(recorder, None) == []
        assert len(found.segments) == 1
        return True


def test_long_lock_costs_the_connection(tmp_path: Path) -> None:
    """The gap is written, nothing is twice, and recording goes on by itself."""
    shorter = {"mexc_trio.exchange.peeling.LONGEST_HOLD": 3.0}
    with recording(tmp_path, linger="0", constants=shorter) as (exchange, recorder):
        recorder.start()
        recorder.stores(500)
        with locked(recorder.journal):
            recorder.says("nothing that comes could be kept for 3 s")
            assert recorder.run_for(2)
            assert min(health(recorder) for _ in range(3)) < 5
        recorder.stores(500)
        recorder.catches_up()
        recorder.stop()
        with opened(recorder, None):
            found = compare(exchange.connections(), stored(recorder, None))
            gaps = stored_gaps(recorder, None)
        assert len(found.segments) == 2
        compare_gaps(found.segments, gaps)
        assert {gap.detail for gap in gaps} == {"nothing that comes could be kept for 3 s"}


def test_stop_while_locked(tmp_path: Path) -> None:
    """It ends within its bound and says what is missing; the next start writes that gap."""
    shorter = {"mexc_trio.journal.database.PATIENCE": 1.0}
    with recording(tmp_path, linger="0", constants=shorter) as (exchange, recorder):
        recorder.start()
        recorder.stores(500)
        with locked(recorder.journal):
            recorder.says("is locked by process")
            recorder.signal()
            assert recorder.wait(60) == 1
            last = recorder.said().splitlines()[-1]
            assert re.search(r"error: journal .* is locked by process \d+ .* will be in gaps", last)
            # Nor does it start: in one line, within seconds.
            recorder.start()
            assert recorder.wait(60) == 1
            last = recorder.said().splitlines()[-1]
            assert re.search(r"error: journal .* is locked by process \d+ .*: close it there", last)
        recorder.start()
        recorder.stores(500)
        recorder.stop()
        compare_all(exchange, recorder, None)


def test_kill_9_while_locked(tmp_path: Path) -> None:
    """What was not kept was not received: the gap begins with the last row that is stored."""
    with recording(tmp_path, linger="0") as (exchange, recorder):
        recorder.start()
        recorder.stores(500)
        with locked(recorder.journal):
            recorder.says("is locked by process")
            recorder.kill()
        recorder.start()
        wait_until("it goes on", lambda: len(exchange.connections()) >= 2)
        recorder.stores(500)
        recorder.stop()
        compare_all(exchange, recorder, None)


def test_a_sync_keeps_the_locks_of_the_journal(tmp_path: Path) -> None:
    """Promise 1: another program that reads the journal, as one may, takes nothing away from it."""
    reading = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]);"
        "db.execute('SELECT count(*) FROM entries').fetchone(); db.close()"
    )
    with open_journal(tmp_path / "journal.sqlite") as journal:
        queue = journal.queue("btc")
        for n in range(3):
            queue.append([(n, "d", "1|1|1")])
            journal.flush()
            journal.file.sync()
            subprocess.run([sys.executable, "-c", reading, journal.path], check=True)
            journal.file.check_in_place()


def test_who_reads_the_journal_for_ever_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its log cannot be begun anew then, and takes the disk."""
    monkeypatch.setattr(disk, "LOG_MOST", 8 * 2**20)
    path = tmp_path / "journal.sqlite"
    read = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "db.execute('BEGIN'); db.execute('SELECT count(*) FROM entries').fetchall();"
        "print('reading', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with open_journal(path, retention=-1) as journal:
        queue, watched = journal.queue("btc"), WalSize()

        def write(mebibytes: int) -> None:
            for _ in range(mebibytes):
                queue.append([Row(1, "d", "x" * 2**20)])
                journal.flush()
            watched.check(path, 0.0)

        write(12)
        assert not caplog.messages
        command = [sys.executable, "-c", read, str(path)]
        with subprocess.Popen(command, stdin=pipe, stdout=pipe) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == b"reading\n"
            write(24)
            watched.check(path, 1.0)
            reader.communicate()
        (said,) = caplog.messages
    who = f"process {reader.pid}" if sys.platform == "linux" else "another program"
    assert re.search(rf"has \d+ MiB and grows while {who}", said)
