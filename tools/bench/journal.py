"""What a message costs in the journal, with one table and with a thousand.

Beside it the same journal with an index of the rows by table and position, which it does without.
"""

import random
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from mexc_trio.journal import Journal, open_journal
from tools.bench.frames import pool
from tools.bench.report import Report, say

_POOL = 2_000
_TOGETHER = 20
"""Messages of one transaction: what a turn of the recorder brings at 4,000 a second, about."""
_RETENTION = 1.0
"""Seconds; short, so that as much is removed as is written."""
_ACKNOWLEDGED = 50
"""Rows of a table that are acknowledged together."""


def journal(
    *, messages: int = 200_000, repetitions: int = 3, counts: Sequence[int] = (1, 1000)
) -> Report:
    """Processor time and bytes written for a message, rows removed again included.

    Args:
        messages: messages of one run.
        repetitions: runs of each kind, in turns.
        counts: numbers of tables, fewest first. A few are busy, most are quiet.
    """
    report = Report("journal", {"messages": messages, "together": _TOGETHER})
    for repetition in range(repetitions):
        for count in counts:
            for index in (False, True):
                name = _name(count, index)
                with TemporaryDirectory(prefix="bench-") as directory:
                    path = Path(directory, "journal.sqlite")
                    seconds, written = trio.run(_run, path, messages, count, index)
                cost = 1e6 * seconds / messages
                say(f"journal {repetition + 1}/{repetitions}: {name}: {cost:.1f} us/message")
                report.note(name, cost, "us/message")
                if written:
                    report.note(f"{name}: written", written / messages, "bytes/message")
    for count in counts:
        report.ratio(_name(count, True), _name(count, False))
    report.remark("each row was acknowledged, and removed after a second")
    return report


def _name(count: int, index: bool) -> str:
    tables = "1 table" if count == 1 else f"{count} tables"
    return f"{tables}, with an index" if index else tables


async def _run(path: Path, messages: int, count: int, index: bool) -> tuple[float, int]:
    """Return the seconds of processor time, and the bytes that were handed to the kernel."""
    rows = pool(_POOL).rows
    picks = random.Random(1).choices(range(count), [1 / (n + 3) for n in range(count)], k=messages)
    with open_journal(path, retention=_RETENTION) as journal:
        if index:
            with closing(sqlite3.connect(path)) as db:
                db.execute("CREATE UNIQUE INDEX by_position ON entries (tbl, first)")
        queues = [journal.queue(f"t{n}") for n in range(count)]
        for queue in queues:
            queue.move_head(0, 0)
            queue.verified = True
        journal.flush()
        before, written = time.process_time(), _written()
        for number, pick in enumerate(picks):
            queue = queues[pick]
            queue.append(rows[number % _POOL])
            if number % _TOGETHER == 0:
                journal.flush()
            if queue.backlog >= _ACKNOWLEDGED:
                queue.acknowledge(queue.backlog)
            if number % (messages // 10) == 0:
                await _purge(journal)
        journal.flush()
        return time.process_time() - before, _written() - written


async def _purge(journal: Journal) -> None:
    for queue in journal.queues():
        if queue.backlog:
            queue.acknowledge(queue.backlog)
    await journal.purge()


def _written() -> int:
    """Return what this process has written since its start; 0 where that is not known."""
    if sys.platform != "linux":
        return 0
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    return 0
