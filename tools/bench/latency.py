"""How late: from a frame's arrival to the journal, and to a SELECT."""

import bisect
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from mexc_trio.journal import open_journal
from mexc_trio.symbols import table_name
from tools.bench.database import BOTH, Database, StoreName, check, databases
from tools.bench.frames import Pool, pool
from tools.bench.instrumented import PROVED, Notes
from tools.bench.load import Load
from tools.bench.plan import Plan, Scheme, Sent
from tools.bench.process import Recorder, keyword_arguments
from tools.bench.progress import acknowledged
from tools.bench.report import BenchError, Goal, Report, percentile, say

SYMBOL = "BTC_USDT"
_TRANSACTIONS = 50
_JOURNALED = Goal(0.2, at_least=False)


def latency(
    *,
    seconds: float = 20.0,
    repetitions: int = 3,
    rates: Sequence[float] = (15.0, 1000.0),
    lingers: Sequence[float] = (0.0, 1.0),
    stores: Sequence[StoreName] = BOTH,
    scheme: Scheme = "wss",
) -> Report:
    """Milliseconds from a frame's arrival to the journal, and to a SELECT.

    Args:
        seconds: length of one run.
        repetitions: runs of each combination, in turns.
        rates: messages a second, which come at random moments.
        lingers: values of the recorder's --linger.
        stores: where the recorder records to.
        scheme: wss, with a TLS record for each message, or ws.
    """
    report = Report("latency", {"seconds": seconds, "scheme": scheme})
    for rate in rates:
        report.note(f"{rate:g}/s: one row into the journal alone, median", _alone(rate), "ms")
    with databases(stores) as lender:
        for repetition in range(repetitions):
            for rate in rates:
                for linger in lingers:
                    for name in stores:
                        case = f"{rate:g}/s, linger {linger:g}, {name}"
                        with lender.empty(name, [SYMBOL]) as database:
                            delays = _run(database, rate, linger, seconds, scheme)
                        say(f"latency {repetition + 1}/{repetitions}: {case}: {delays.line()}")
                        delays.note(report, case, linger)
    report.remark("sent: from the sender's write; received: from the recorder's read of the socket")
    report.remark("journaled: the frame's rows are in the journal's file, as far as the kernel")
    report.remark(
        "into the journal alone: a transaction of one row in a program that does nothing else, and "
        "sleeps in between: what an idle machine takes to get going is in all these figures"
    )
    report.remark(
        f"visible: the INSERT is acknowledged; after the first {PROVED} of each run a SELECT saw "
        f"their rows at once"
    )
    return report


def _alone(rate: float) -> float:
    """Return how many milliseconds the journal's part of a lone message takes, at the median."""
    took: list[float] = []
    with TemporaryDirectory() as directory, open_journal(Path(directory) / "journal") as journal:
        queue = journal.queue("btc")
        for n in range(_TRANSACTIONS):
            time.sleep(1 / rate)
            began = time.monotonic()
            queue.append([(n, "d", "97500.1|3|1")])
            journal.flush()
            took.append(1000 * (time.monotonic() - began))
    return percentile(took, 50)


class _Delays:
    """Delays of each frame of one run, in milliseconds."""

    def __init__(self, sent: Sent, notes: Notes, frames_pool: Pool) -> None:
        received = _when(notes.received, [int(offset) for offset in sent.offsets])
        ends = _row_ends(len(sent.times), frames_pool)
        journaled, visible = _when(notes.journaled, ends), _when(notes.visible, ends)
        self.wakeup = _between(list(sent.times), received)
        self.journaled = _between(received, journaled)
        self.visible = _between(received, visible)

    def line(self) -> str:
        journaled, visible = percentile(self.journaled, 50), percentile(self.visible, 50)
        last = percentile(self.visible, 99)
        return f"journaled {journaled:.3f} ms, visible {visible:.2f} ms (99 %: {last:.2f})"

    def note(self, report: Report, case: str, linger: float) -> None:
        def note(what: str, values: list[float], percent: float, goal: Goal | None = None) -> None:
            name = "median" if percent == 50 else f"{percent:g} %"
            report.note(f"{case}: {what}, {name}", percentile(values, percent), "ms", goal)

        note("sent to received", self.wakeup, 50)
        note("received to journaled", self.journaled, 50, _JOURNALED)
        note("received to journaled", self.journaled, 99)
        note("received to visible", self.visible, 50, None if linger else Goal(5, at_least=False))
        late = Goal(1000 * linger + 10, at_least=False)
        note("received to visible", self.visible, 99, late if linger else None)


def _run(database: Database, rate: float, linger: float, seconds: float, scheme: Scheme) -> _Delays:
    frames_pool = pool()
    plan = Plan(symbols=(SYMBOL,), rates=(rate,), seconds=seconds, scheme=scheme)
    file = database.directory / "notes"
    with Load(plan) as load:
        arguments = [SYMBOL, *database.arguments, *keyword_arguments(url=load.url, linger=linger)]
        recorder = Recorder(
            [str(file), table_name(SYMBOL), *arguments],
            database.directory,
            module="tools.bench.instrumented",
        )
        with recorder:
            load.began()
            sent = load.sent(seconds + 30)
            rows = frames_pool.row_count(len(sent.times))
            recorder.wait_for(
                lambda: acknowledged(database.directory, [SYMBOL]) == [rows],
                30,
                f"{rows} rows stored",
            )
        check(database, {SYMBOL: frames_pool.expected(len(sent.times))})
    notes = msgspec.msgpack.decode(file.read_bytes(), type=Notes)
    if any(notes.unseen) or not notes.unseen:
        raise BenchError(f"{database.name}: a SELECT after an INSERT does not see all its rows")
    return _Delays(sent, notes, frames_pool)


def _when(notes: Sequence[tuple[float, int]], reached: Sequence[int]) -> list[float]:
    """Return when each of some positions was reached."""
    positions = [position for _, position in notes]
    return [notes[bisect.bisect_left(positions, at)][0] for at in reached]


def _row_ends(frames: int, frames_pool: Pool) -> list[int]:
    """Return how many rows there are after each frame."""
    ends, rows = [], 0
    for n in range(frames):
        rows += len(frames_pool.rows[n % len(frames_pool.rows)])
        ends.append(rows)
    return ends


def _between(earlier: Sequence[float], later: Sequence[float]) -> list[float]:
    return [1000 * (b - a) for a, b in zip(earlier, later, strict=True)]
