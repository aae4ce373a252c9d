"""How soon, and how small at rest: from typing the command to the first row stored."""

import time
from collections.abc import Sequence

from tools.bench.database import BOTH, StoreName, databases
from tools.bench.load import Load
from tools.bench.plan import Plan
from tools.bench.process import Recorder, keyword_arguments
from tools.bench.progress import acknowledged
from tools.bench.report import Report, say

_SYMBOLS = ("BTC_USDT", "ETH_USDT", "SOL_USDT")
_POOL = 1_000


def start(
    *,
    repetitions: int = 5,
    counts: Sequence[int] = (1, 3),
    rate: float = 10.0,
    rest: float = 15.0,
    linger: float = 1.0,
    stores: Sequence[StoreName] = BOTH,
) -> Report:
    """Seconds from the command to the first row stored, and memory at rest.

    Args:
        repetitions: starts of each, in turns.
        counts: numbers of symbols.
        rate: messages a second of each symbol.
        rest: seconds after the first row at which the memory is looked at.
        linger: the recorder's --linger, which is part of the time to the first row.
        stores: where the recorder records to.
    """
    report = Report("start", {"rate": rate, "rest": rest, "linger": linger})
    with databases(stores) as lender:
        for repetition in range(repetitions):
            for name in stores:
                for count in counts:
                    case = f"{name}, {count} symbol{'s' if count > 1 else ''}"
                    symbols = _SYMBOLS[:count]
                    plan = Plan(
                        symbols=symbols, rates=(rate,) * count, seconds=rest + 5, pool=_POOL
                    )
                    with lender.empty(name, symbols) as database, Load(plan) as load:
                        options = keyword_arguments(url=load.url, linger=linger)
                        arguments = [*symbols, *database.arguments, *options]
                        with Recorder(arguments, database.directory) as recorder:
                            subscribed = load.began() - recorder.started
                            stored = recorder.wait_for(
                                lambda: any(acknowledged(database.directory, _SYMBOLS)),
                                30,
                                "a row stored",
                            )
                            first = stored - recorder.started
                            before = recorder.use()
                            time.sleep(rest)
                            after = recorder.use()
                    say(
                        f"start {repetition + 1}/{repetitions}: {case}: first row after "
                        f"{first:.2f} s, {after.megabytes:.0f} MB"
                    )
                    report.note(f"{case}: subscribed", subscribed, "s")
                    report.note(f"{case}: first row stored", first, "s")
                    report.note(f"{case}: memory at rest", after.megabytes, "MB")
                    report.note(f"{case}: processor", after.core_share(before), "% of a core")
    for count in counts:
        plural = "s" if count > 1 else ""
        if len(stores) > 1:
            one, other = (f"{name}, {count} symbol{plural}" for name in stores[:2])
            report.ratio(f"{other}: memory at rest", f"{one}: memory at rest")
    report.remark("memory: resident, with the libraries' shared pages")
    return report
