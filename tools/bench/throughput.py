"""How many messages a second: the recorder, a bare receive loop, and what one could write instead.

Each is measured over TLS with a record for each message, as the exchange sends, and without TLS,
where one read brings many messages.
"""

from collections.abc import Callable, Sequence
from typing import Any

from tools.bench.contenders import Outcome, bare_loop, reference
from tools.bench.database import BOTH, Database, Databases, StoreName, check, databases
from tools.bench.frames import POOL, Pool, pool
from tools.bench.handwritten import handwritten
from tools.bench.load import Load
from tools.bench.plan import Plan, Scheme
from tools.bench.process import Recorder, apart, keyword_arguments
from tools.bench.progress import acknowledged
from tools.bench.report import BenchError, Goal, Report, say
from tools.clickhouse import DATABASE, HOST, PASSWORD, USER

SYMBOL = "BTC_USDT"
_BARE = "bare loop"
_REFERENCE = "reference design"
_HANDWRITTEN = "hand-written"
_TIMEOUT = 600.0


def throughput(
    *,
    frames: int = 600_000,
    repetitions: int = 5,
    linger: float = 1.0,
    stores: Sequence[StoreName] = BOTH,
    schemes: Sequence[Scheme] = ("wss", "ws"),
    pool_size: int = POOL,
) -> Report:
    """Messages a second from the first frame sent to the last row stored.

    Args:
        frames: frames of one run; the reference design gets a hundredth of them. The recorder's
            time ends with its last linger, which should not be much of it.
        repetitions: runs of each contender, in turns.
        linger: the recorder's --linger.
        stores: where the recorder records to.
        schemes: wss, with a TLS record for each message, and ws.
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
            for scheme in schemes:
                plan = Plan(symbols=(SYMBOL,), frames=frames, pool=pool_size, scheme=scheme)
                short = Plan(symbols=(SYMBOL,), frames=few, pool=pool_size, scheme=scheme)
                _note(report, turn, f"{_BARE}, {scheme}", *_bare(plan))
                _note(report, turn, f"{_REFERENCE}, {scheme}", *_other(lender, short, reference))
                measured = _other(lender, plan, handwritten)
                _note(report, turn, f"{_HANDWRITTEN}, {scheme}", *measured)
                for name in stores:
                    with lender.empty(name, [SYMBOL]) as database:
                        measured = _recorder(database, plan, linger, frames_pool)
                    _note(report, turn, f"recorder, {name}, {scheme}", *measured)
    for scheme in schemes:
        for name in stores:
            recorder = f"recorder, {name}, {scheme}"
            report.ratio(recorder, f"{_HANDWRITTEN}, {scheme}", Goal(0.8, at_least=True))
            report.ratio(recorder, f"{_REFERENCE}, {scheme}", Goal(20, at_least=True))
            if "ws" in schemes:
                goal = Goal(1.7 if scheme == "ws" else 1.0, at_least=True)
                report.ratio(_processor(f"{_BARE}, ws"), _processor(recorder), goal)
    report.remark(
        "every row of the recorder was read back and compared with what was sent, in its order; "
        "of those that pass numbers through floats and keep no journal, the rows were counted"
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


def _bare(plan: Plan) -> Measured:
    with Load(plan) as load:
        outcome = apart(bare_loop, load.url, SYMBOL, plan.frames)
        load.began()
        began = load.sent(_TIMEOUT).began
    return plan.frames / (outcome.end - began), 1e6 * outcome.processor / plan.frames


def _other(
    lender: Databases, plan: Plan, record: Callable[[str, str, int, dict[str, Any]], Outcome]
) -> Measured:
    with lender.empty("server", [SYMBOL]) as database, Load(plan) as load:
        assert lender.server is not None  # noqa: S101 - lent above
        server = {
            "host": HOST,
            "port": lender.server.tcp_port,
            "user": USER,
            "password": PASSWORD,
            "database": DATABASE,
        }
        outcome = apart(record, load.url, SYMBOL, plan.frames, server)
        (stored,) = database.read([SYMBOL])
        if not outcome.rows == stored.rows == pool(plan.pool).row_count(plan.frames):
            raise BenchError(f"{record.__name__} stored {stored.rows} rows")
        load.began()
        began = load.sent(_TIMEOUT).began
    return plan.frames / (outcome.end - began), 1e6 * outcome.processor / plan.frames


def _recorder(database: Database, plan: Plan, linger: float, frames_pool: Pool) -> Measured:
    rows = frames_pool.row_count(plan.frames)
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
        check(database, {SYMBOL: frames_pool.expected(plan.frames)})
    seconds = after.seconds - before.seconds
    return plan.frames / (end - sent.began), 1e6 * seconds / plan.frames
