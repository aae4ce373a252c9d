"""What a second process adds: the same symbols in one recorder, and split between two."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tools.bench.database import ServerDatabase, check, databases
from tools.bench.frames import POOL, pool
from tools.bench.load import Load
from tools.bench.plan import Plan
from tools.bench.process import Recorder, keyword_arguments
from tools.bench.progress import acknowledged
from tools.bench.report import BenchError, Report, say

SYMBOLS = ("BTC_USDT", "ETH_USDT")
_TIMEOUT = 600.0


def processes(
    *, frames: int = 600_000, repetitions: int = 3, linger: float = 1.0, pool_size: int = POOL
) -> Report:
    """Messages a second of one recorder with two symbols, and of two with one each.

    Args:
        frames: frames of one run, as fast as they are taken.
        repetitions: runs of each, in turns.
        linger: the recorders' --linger.
        pool_size: distinct frames.
    """
    report = Report("processes", {"frames": frames, "linger": linger})
    with databases(("server",)) as lender:
        for repetition in range(repetitions):
            for groups in ([SYMBOLS], [SYMBOLS[:1], SYMBOLS[1:]]):
                with lender.empty("server", SYMBOLS) as database:
                    if not isinstance(database, ServerDatabase):
                        raise BenchError("a second process needs a server")
                    rate, cost = _run(database, groups, frames, linger, pool_size)
                name = "one process" if len(groups) == 1 else "two processes"
                say(f"processes {repetition + 1}/{repetitions}: {name}: {rate:,.0f} messages/s")
                report.note(name, rate, "messages/s")
                report.note(f"{name}: processor time of all", cost, "us/message")
    report.ratio("two processes", "one process")
    report.remark("into one server on the same machine, which also sends: all share its cores")
    report.remark("every row was read back and compared with what was sent, in its order")
    return report


def _run(
    database: ServerDatabase,
    groups: Sequence[Sequence[str]],
    frames: int,
    linger: float,
    pool_size: int,
) -> tuple[float, float]:
    """Return messages a second, and the recorders' microseconds a message."""
    frames_pool = pool(pool_size)
    each = frames // len(SYMBOLS)
    rows = frames_pool.row_count(each)
    plan = Plan(symbols=SYMBOLS, frames=each * len(SYMBOLS), pool=pool_size)
    with ExitStack() as stack:
        load = stack.enter_context(Load(plan))
        places = [database.directory / str(number) for number in range(len(groups))]
        recorders = []
        for symbols, place in zip(groups, places, strict=True):
            settings = keyword_arguments(
                url=load.url, linger=linger, store=database.server.url, state_dir=place
            )
            recorders.append(stack.enter_context(Recorder([*symbols, *settings], place)))
        load.began()
        before = [recorder.use().seconds for recorder in recorders]
        sent = load.sent(_TIMEOUT)
        end = 0.0
        for recorder, symbols, place in zip(recorders, groups, places, strict=True):
            stored = partial(_stored, place, symbols, rows)
            end = max(end, recorder.wait_for(stored, _TIMEOUT, f"{rows} rows a symbol stored"))
        after = [recorder.use().seconds for recorder in recorders]
    check(database, dict.fromkeys(SYMBOLS, frames_pool.expected(each)))
    return len(sent.times) / (end - sent.began), 1e6 * (sum(after) - sum(before)) / len(sent.times)


def _stored(place: Path, symbols: Sequence[str], rows: int) -> bool:
    return acknowledged(place, symbols) == [rows] * len(symbols)
