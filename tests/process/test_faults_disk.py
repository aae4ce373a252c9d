"""The disk may be full or read-only, and the journal's file damaged or gone.

Promises 3 and 4: the program stops with a clear error rather than drop rows, and the next start
writes down what was missed.
"""

import os
from pathlib import Path

import pytest

from tests.support.disks import fill, mounted
from tests.support.faults import (
    TALLY,
    Recorder,
    chance,
    compare,
    compare_gaps,
    expected_gaps,
    opened,
    recording,
    repetitions,
    stored,
    stored_gaps,
)
from tools.clickhouse import ClickHouseServer


@pytest.mark.parametrize("kind", ["embedded", "server"])
def test_disk_that_is_nearly_full(kind: str, tmp_path: Path, server: ClickHouseServer) -> None:
    """Under the bound recording stops cleanly with exit code 1; the next start writes the gap."""
    target = server if kind == "server" else None
    size = "64m" if kind == "server" else "256m"
    state = tmp_path / "recorder" / "mexc-data"
    with (
        mounted(state, "-t", "tmpfs", "-o", f"mode=700,size={size}", "none"),
        recording(tmp_path, target, options=("--min-free-mib", "16")) as (exchange, recorder),
    ):
        recorder.start()
        recorder.stores(300)
        ballast = fill(state, 8 << 20)
        assert recorder.wait() == 1
        said = recorder.said().splitlines()[-1]
        assert "MiB are free" in said
        assert "--min-free-mib" in said
        # All that was received could still be written, within the bound of a stop.
        assert recorder.backlog() == 0 or "rows are not yet in" in recorder.said()
        ballast.unlink()
        exchange.feed(recorder)
        recorder.stores()
        recorder.stop()
        with opened(recorder, target):
            found = compare(exchange.connections(), stored(recorder, target))
            gaps = stored_gaps(recorder, target)
        # The gap was already written up to the stop, and is now from the same row on.
        ends = {(g.channel, g.start, g.end) for g in gaps if g.cause == "disk full"}
        for channel, start, end, *_ in expected_gaps(found.segments):
            assert (channel, start, end) in ends
        TALLY.fault("disk nearly full")


@pytest.mark.parametrize("kind", ["embedded", "server"])
def test_disk_that_is_quite_full(kind: str, tmp_path: Path, server: ClickHouseServer) -> None:
    """Where no bound was set, the program still stops when nothing more can be written."""
    instants = chance("disk-full")
    target = server if kind == "server" else None
    size = "64m" if kind == "server" else "256m"
    state = tmp_path / "recorder" / "mexc-data"
    with (
        mounted(state, "-t", "tmpfs", "-o", f"mode=700,size={size}", "none"),
        recording(tmp_path, target, options=("--min-free-mib", "0")) as (exchange, recorder),
    ):
        fulls = repetitions(2)
        for _ in range(fulls):
            exchange.feed(recorder)
            recorder.run_for(instants.uniform(0.2, 1))
            ballast = fill(state, instants.choice((0, 4096, 65536, 300_000)))
            assert recorder.wait() == 1
            said = recorder.said().splitlines()[-1]
            assert "error:" in said
            assert "Traceback" not in recorder.said()
            assert "the disk is full" in said or "no space" in said.lower(), said
            ballast.unlink()
            TALLY.fault("disk full")
        exchange.feed(recorder)
        recorder.catches_up()
        recorder.stop()
        with opened(recorder, target):
            found = compare(exchange.connections(), stored(recorder, target))
            gaps = {(g.channel, g.start, g.end) for g in stored_gaps(recorder, target)}
        for channel, start, end, *_ in expected_gaps(found.segments):
            assert (channel, start, end) in gaps


def overwrite(path: Path, place: int, content: bytes) -> None:
    """Overwrite bytes of a file."""
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)


@pytest.mark.parametrize("how", ["overwritten", "truncated", "deleted", "emptied"])
def test_journal_damaged_between_two_runs(
    how: str, tmp_path: Path, server: ClickHouseServer
) -> None:
    """A journal that cannot be read is kept under another name; nothing is stored twice."""
    instants = chance(f"journal-{how}")
    with recording(tmp_path, server) as (exchange, recorder):
        times = repetitions(3 if how == "overwritten" else 1)
        for _ in range(times):
            exchange.feed(recorder)
            recorder.stores(100)
            # A stop folds the WAL into the file, so that the damage hits what counts.
            recorder.stop()
            path = recorder.journal
            size = path.stat().st_size
            if how == "overwritten":
                overwrite(path, instants.randrange(size - 64), instants.randbytes(64))
            elif how == "truncated":
                os.truncate(path, instants.randrange(1, size))
            elif how == "emptied":
                os.truncate(path, 0)
            else:
                path.unlink()
            TALLY.fault(f"journal {how}")
        exchange.feed(recorder)
        recorder.stores(100)
        recorder.stop()
        table = stored(recorder, server)
        found = compare(exchange.connections(), table)
        # Some bytes of the file mean nothing, and then the journal is as good as ever.
        lost = [g for g in stored_gaps(recorder, server) if g.cause == "journal lost"]
        assert len(lost) <= times
        assert len(lost) == times or how == "overwritten"
        # Each gap is from the last row before to the first after.
        for gap in lost:
            assert gap.channel == "all"
            assert any(gap.end == segment[0].row[0] for segment in found.segments if segment)
        damaged = list(recorder.state.glob("*.damaged-*"))
        assert bool(damaged) == (bool(lost) and how in ("overwritten", "truncated"))


def test_journal_removed_while_recording(tmp_path: Path, server: ClickHouseServer) -> None:
    """It is noticed within seconds; what was received is stored; the gap is written down."""
    with recording(tmp_path, server) as (exchange, recorder):
        recorder.start()
        recorder.stores(100)
        for path in recorder.state.glob("journal*.sqlite*"):
            path.unlink()
        assert recorder.wait() == 1
        assert "was removed or replaced while in use" in recorder.said().splitlines()[-1]
        exchange.feed(recorder)
        recorder.stores(100)
        recorder.stop()
        found = compare(exchange.connections(), stored(recorder, server))
        lost = [g for g in stored_gaps(recorder, server) if g.cause == "journal lost"]
        assert [(g.channel, g.start, g.end) for g in lost] == [
            ("all", max(int(one.row[0]) for one in found.segments[0]), found.segments[1][0].row[0])
        ]
        TALLY.fault("journal removed while recording")


def test_journal_damaged_while_recording(tmp_path: Path, server: ClickHouseServer) -> None:
    """Whether or not it is noticed at once: no traceback, nothing twice, and the rows in order."""
    instants = chance("journal-running")
    with recording(tmp_path, server) as (exchange, recorder):
        for _ in range(repetitions(2)):
            exchange.feed(recorder)
            recorder.stores(100)
            path = recorder.journal
            for _ in range(5):
                size = path.stat().st_size
                overwrite(path, instants.randrange(size - 64), instants.randbytes(64))
            if recorder.run_for(1):
                recorder.kill()
            TALLY.fault("journal overwritten while recording")
        exchange.feed(recorder)
        recorder.stores(100)
        recorder.stop()
        assert "Traceback" not in recorder.said()
        compare(exchange.connections(), stored(recorder, server))


def test_read_only_directory(tmp_path: Path, server: ClickHouseServer) -> None:
    """It is told in one line before anything is recorded."""
    with recording(tmp_path, server) as (exchange, recorder):
        with mounted(recorder.state, "-t", "tmpfs", "-o", "mode=700,size=8m,ro", "none"):
            for store in (server.url, ""):
                place = Recorder(tmp_path / f"ro{bool(store)}", exchange.url)
                place.store = store or str(recorder.state)
                place.run("BTC_USDT", "--url", exchange.url, "--state-dir", str(recorder.state))
                assert place.wait() in (1, 2)
                said = place.said()
                assert "Traceback" not in said
                assert "Read-only file system" in said.splitlines()[-1], said
        assert not stored(recorder, server)
        compare_gaps([], stored_gaps(recorder, server))
        TALLY.fault("read-only directory")
