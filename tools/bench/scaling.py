"""What a message costs when it comes from one symbol, or from one of a thousand."""

from collections.abc import Sequence

from tools.bench.database import check, databases
from tools.bench.frames import pool
from tools.bench.load import Load
from tools.bench.plan import Plan, Scheme
from tools.bench.process import Recorder, keyword_arguments
from tools.bench.progress import Backlog
from tools.bench.report import Goal, Report, say

_POOL = 2_000
_UNIT = "us/message"
_SUBSCRIBE_SECONDS = 300.0


def scaling(
    *,
    counts: Sequence[int] = (1, 10, 100, 1000),
    rate: float = 4000.0,
    seconds: float = 20.0,
    repetitions: int = 3,
    symbols_per_connection: str = "auto",
    linger: float = 1.0,
    scheme: Scheme = "wss",
) -> Report:
    """Processor time a message by the number of symbols, at the same rate of messages in all.

    Args:
        counts: numbers of symbols, fewest first.
        rate: messages a second of all symbols together.
        seconds: length of a run.
        repetitions: runs of each number, in turns.
        symbols_per_connection: the recorder's option; a number or auto.
        linger: the recorder's --linger.
        scheme: wss, with a TLS record for each message, or ws.
    """
    report = Report(
        "scaling",
        {
            "rate": rate,
            "seconds": seconds,
            "symbols_per_connection": symbols_per_connection,
            "linger": linger,
            "scheme": scheme,
        },
    )
    settings = {"symbols_per_connection": symbols_per_connection, "linger": linger}
    with databases(("server",)) as lender:
        for repetition in range(repetitions):
            for count in counts:
                plan = Plan(
                    symbols=tuple(f"C{n}_USDT" for n in range(count)),
                    rates=(rate / count,) * count,
                    seconds=seconds,
                    pool=_POOL,
                    scheme=scheme,
                    hold=True,
                )
                with lender.empty("server", plan.symbols) as database, Load(plan) as load:
                    options = keyword_arguments(url=load.url, **settings)
                    arguments = [*plan.symbols, *database.arguments, *options]
                    with Recorder(arguments, database.directory, "tools.bench.unpaced") as recorder:
                        load.subscribed(_SUBSCRIBE_SECONDS)
                        before = recorder.settle()
                        load.go()
                        load.began()
                        sent = load.sent(seconds + 60)
                        recorder.wait_for(Backlog(database.directory).is_empty, 60, "no backlog")
                        after = recorder.use()
                    expected = (pool(_POOL).expected(sent.frames(n)) for n in range(count))
                    check(database, dict(zip(plan.symbols, expected, strict=True)))
                cost = 1e6 * (after.seconds - before.seconds) / len(sent.times)
                say(f"scaling {repetition + 1}/{repetitions}: {count} symbols: {cost:.1f} {_UNIT}")
                report.note(_name(count), cost, _UNIT)
                report.note(f"{_name(count)}: memory", after.megabytes, "MB")
                report.note(f"{_name(count)}: processor until ready", before.seconds, "s")
    for count in counts[1:]:
        report.ratio(_name(count), _name(counts[0]), Goal(1.5, at_least=False))
    report.remark("into a server; every row of every table was read back and compared")
    report.remark("subscriptions were not paced, and the run begins when all writers are ready")
    return report


def _name(count: int) -> str:
    return "1 symbol" if count == 1 else f"{count} symbols"
