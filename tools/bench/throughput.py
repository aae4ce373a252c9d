"""How many messages a second: the recorder, beside a bare receive loop and the reference design."""

from collections.abc import Sequence

from tools.bench.contenders import bare_loop, reference
from tools.bench.database import BOTH, Database, Databases, StoreName, check, databases
from tools.bench.frames import POOL, Pool, pool
from tools.bench.load import Load
from tools.bench.plan import Plan
from tools.bench.process import Recorder, apart, keyword_arguments
from tools.bench.progress import acknowledged
from tools.bench.report import BenchError, Goal, Report, say
from tools.clickhouse import DATABASE, HOST, PASSWORD, USER

SYMBOL = "BTC_USDT"
_BARE = "bare loop"
_REFERENCE = "reference design"
_TIMEOUT = 600.0


def throughput(
    *,
    frames: int = 600_000,
    repetitions: int = 5,
    linger: float = 1.0,
    stores: Sequence[StoreName] = BOTH,
    pool_size: int = POOL,
) -> Report:
    """Messages a second from the first frame sent to the last row stored.

    Args:
        frames: frames of one run; the reference design gets a hundredth of them. The recorder's
            time ends with its last linger, which should not be much of it.
        repetitions: runs of each contender, in turns.
        linger: the recorder's --linger.
        stores: where the recorder records to.
        pool_size: distinct frames.
    """
    frames_pool = pool(pool_size)
    report = Report("throughput", {"frames": frames, "linger": linger})
    report.remark(
        f"a message has {frames_pool.average_bytes:.0f} bytes and makes "
        f"{frames_pool.rows_per_frame:.2f} rows on average"
    )
    few = max(10, frames // 100)
    with databases(("server", *stores)) as lender:
        for repetition in range(repetitions):
            turn = f"throughput {repetition + 1}/{repetitions}"
            _note(report, turn, _BARE, *_bare(frames, pool_size))
            _note(report, turn, _REFERENCE, *_reference(lender, few, frames_pool))
            for name in stores:
                with lender.empty(name, [SYMBOL]) as database:
                    measured = _recorder(database, frames, linger, frames_pool)
                _note(report, turn, f"recorder, {name}", *measured)
    for name in stores:
        report.ratio(f"recorder, {name}", _BARE, Goal(0.6, at_least=True))
        report.ratio(f"recorder, {name}", _REFERENCE, Goal(20, at_least=True))
        report.ratio(_processor(_BARE), _processor(f"recorder, {name}"))
    report.remark(
        "every row of the recorder was read back and compared with what was sent, in its order; "
        "of the reference design, which passes numbers through floats, the rows were counted"
    )
    return report


def _note(report: Report, turn: str, name: str, rate: float, cost: float) -> None:
    say(f"{turn}: {name}: {rate:,.0f} messages/s, {cost:.1f} us of processor time each")
    report.note(name, rate, "messages/s")
    report.note(_processor(name), cost, "us/message")


def _processor(name: str) -> str:
    return f"{name}: processor time"


Measured = tuple[float, float]
"""Messages a second, and the receiving process's microseconds of processor time a message."""


def _bare(frames: int, pool_size: int) -> Measured:
    with Load(Plan(symbols=(SYMBOL,), frames=frames, pool=pool_size)) as load:
        outcome = apart(bare_loop, load.url, SYMBOL, frames)
        load.began()
        began = load.sent(_TIMEOUT).began
    return frames / (outcome.end - began), 1e6 * outcome.processor / frames


def _reference(lender: Databases, frames: int, frames_pool: Pool) -> Measured:
    plan = Plan(symbols=(SYMBOL,), frames=frames, pool=len(frames_pool.texts))
    with lender.empty("server", [SYMBOL]) as database, Load(plan) as load:
        assert lender.server is not None  # noqa: S101 - lent above
        server = {
            "host": HOST,
            "port": lender.server.tcp_port,
            "user": USER,
            "password": PASSWORD,
            "database": DATABASE,
        }
        outcome = apart(reference, load.url, SYMBOL, frames, server)
        (stored,) = database.read([SYMBOL])
        if not outcome.rows == stored.rows == frames_pool.row_count(frames):
            raise BenchError(f"the reference design stored {stored.rows} rows")
        load.began()
        began = load.sent(_TIMEOUT).began
    return frames / (outcome.end - began), 1e6 * outcome.processor / frames


def _recorder(database: Database, frames: int, linger: float, frames_pool: Pool) -> Measured:
    rows = frames_pool.row_count(frames)
    plan = Plan(symbols=(SYMBOL,), frames=frames, pool=len(frames_pool.texts))
    with Load(plan) as load:
        arguments = [SYMBOL, *database.arguments, *keyword_arguments(url=load.url, linger=linger)]
        with Recorder(arguments, database.directory) as recorder:
            load.began()
            before = recorder.use()
            sent = load.sent(_TIMEOUT)
            end = recorder.wait_for(
                lambda: acknowledged(database.directory, [SYMBOL]) == [rows],
                _TIMEOUT,
                f"{rows} rows stored",
            )
            after = recorder.use()
        check(database, {SYMBOL: frames_pool.expected(frames)})
    seconds = after.seconds - before.seconds
    return frames / (end - sent.began), 1e6 * seconds / frames
