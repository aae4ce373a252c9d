"""The whole exchange at once: 1,200 contracts, a few busy and most quiet, with bursts."""

import bisect
import time
from collections.abc import Sequence
from typing import Any, Final

import attrs

from tools.bench.database import Database, check, databases
from tools.bench.frames import Fingerprint, Pool, pool
from tools.bench.load import Load
from tools.bench.plan import Plan, Scheme
from tools.bench.process import Recorder, Use, keyword_arguments
from tools.bench.progress import Backlog, acknowledged
from tools.bench.report import BenchError, Goal, Report, percentile, say

_SPREAD: Final = 0.8
"""The n-th busiest contract has 1 / n to the power of this of the busiest one's messages."""
_WATCHED: Final = 12
"""Tables whose rows are counted meanwhile: those of the busiest, the second, the fourth, ..."""
_QUIET_WAIT: Final = 12.0
"""Seconds that a row of the quietest of 1,200 tables may wait for its turn."""
_POOL: Final = 2_000
_SAMPLE_SECONDS: Final = 0.1
_SAY_SECONDS: Final = 10.0
_SUBSCRIBE_SECONDS: Final = 300.0
_LAST_SECONDS: Final = 60.0


def exchange(
    *,
    symbols: int = 1200,
    rate: float = 4000.0,
    seconds: float = 120.0,
    repetitions: int = 1,
    burst_every: float = 20.0,
    burst_seconds: float = 2.0,
    burst_factor: float = 5.0,
    symbols_per_connection: str = "auto",
    linger: float = 1.0,
    scheme: Scheme = "wss",
) -> Report:
    """Processor, memory and delay of recording every contract into a server.

    Args:
        symbols: how many contracts.
        rate: messages a second of all together, outside bursts.
        seconds: length of a run.
        repetitions: runs.
        burst_every: seconds from one burst to the next.
        burst_seconds: length of a burst.
        burst_factor: how many times the rate a burst is.
        symbols_per_connection: the recorder's option; a number or auto.
        linger: the recorder's --linger.
        scheme: wss, with a TLS record for each message, or ws.
    """
    plan = Plan(
        symbols=tuple(f"C{n}_USDT" for n in range(symbols)),
        rates=spread(symbols, rate),
        seconds=seconds,
        burst_every=burst_every,
        burst_seconds=burst_seconds,
        burst_factor=burst_factor,
        pool=_POOL,
        scheme=scheme,
        hold=True,
    )
    report = Report(
        "exchange",
        {
            "symbols": symbols,
            "rate": rate,
            "seconds": seconds,
            "bursts": f"{burst_factor:g} times for {burst_seconds:g} of {burst_every:g} s",
            "symbols_per_connection": symbols_per_connection,
            "linger": linger,
            "scheme": scheme,
        },
    )
    settings = {"symbols_per_connection": symbols_per_connection, "linger": linger}
    with databases(("server",)) as lender:
        for repetition in range(repetitions):
            say(f"exchange {repetition + 1}/{repetitions}: starting")
            with lender.empty("server", plan.symbols) as database:
                _Run(plan, database, settings).report(report)
    report.remark(
        f"the busiest contract has {plan.rates[0]:.0f} messages a second, the middle one "
        f"{plan.rates[symbols // 2]:.1f}, the quietest {plan.rates[-1]:.1f}"
    )
    report.remark(
        f"delay: from when a frame was sent to when the journal says that its rows are "
        f"stored, in up to {_WATCHED} tables from the busiest to a quiet one, looked at every "
        f"{_SAMPLE_SECONDS:g} s, which the figures include"
    )
    report.remark(
        f"with so many tables on one store, a row of a quiet one may wait for "
        f"{_QUIET_WAIT:g} s; the goals are these waits and a second"
    )
    report.remark(
        "sent late: by the sender, because the machine was busy or the recorder did not take more"
    )
    report.remark("subscriptions were not paced, and the run begins when all writers are ready")
    report.remark("every row of every table was read back and compared with what was sent")
    return report


def spread(symbols: int, rate: float) -> tuple[float, ...]:
    """Return the symbols' rates, which make `rate` in all."""
    weights = [(n + 1) ** -_SPREAD for n in range(symbols)]
    return tuple(rate * weight / sum(weights) for weight in weights)


@attrs.frozen
class _Sample:
    use: Use
    rows: list[int]
    """Stored rows of each watched table."""
    backlog: int


class _Run:
    """One run: what was sent when, and what was seen of it."""

    def __init__(self, plan: Plan, database: Database, settings: dict[str, Any]) -> None:
        self.plan, self.linger = plan, settings["linger"]
        symbols = len(plan.symbols)
        times, order = plan.schedule()
        self.due: dict[str, list[float]] = {symbol: [] for symbol in plan.symbols}
        for at, index in zip(times, order, strict=True):
            self.due[plan.symbols[index]].append(at)
        places = {min(2**n, symbols) - 1 for n in range(_WATCHED)}
        self.watched = [plan.symbols[place] for place in sorted(places)]
        with Load(plan) as load:
            arguments = [*database.arguments, *keyword_arguments(url=load.url, **settings)]
            arguments = [*plan.symbols, *arguments]
            with Recorder(arguments, database.directory, "tools.bench.unpaced") as recorder:
                load.subscribed(_SUBSCRIBE_SECONDS)
                self.ready = recorder.settle()
                load.go()
                self.began = load.began()
                self.samples = self._watch(recorder, database)
                self.sent = load.sent(60)
                self.frames = len(self.sent.times)
            check(database, self._expected(pool(plan.pool)))

    def _watch(self, recorder: Recorder, database: Database) -> list[_Sample]:
        samples: list[_Sample] = []
        backlog = Backlog(database.directory)
        said = self.began
        end = self.began + self.plan.seconds
        while not samples or samples[-1].use.at < end or samples[-1].backlog:
            if samples and samples[-1].use.at > end + _LAST_SECONDS:
                raise BenchError(
                    f"{samples[-1].backlog} rows wait {_LAST_SECONDS:g} s after the end"
                )
            waiting = backlog.rows()  # first: if none wait, the rows are all there
            rows = acknowledged(database.directory, self.watched)
            samples.append(_Sample(recorder.use(), rows, waiting))
            now = samples[-1].use.at
            if now - said > _SAY_SECONDS:
                said = now
                share = samples[-1].use.core_share(samples[0].use)
                say(
                    f"  {now - self.began:.0f} s: {share:.0f} % of a core, "
                    f"{samples[-1].use.megabytes:.0f} MB, {samples[-1].backlog} rows wait"
                )
            time.sleep(_SAMPLE_SECONDS)
        return samples

    def _expected(self, frames_pool: Pool) -> dict[str, Fingerprint]:
        return {symbol: frames_pool.expected(len(due)) for symbol, due in self.due.items()}

    def delays(self, symbols: Sequence[str], *, in_burst: bool) -> list[float]:
        """Return the delays of some watched symbols' frames, in seconds."""
        frames_pool = pool(self.plan.pool)
        found: list[float] = []
        for number, symbol in enumerate(self.watched):
            if symbol not in symbols:
                continue
            counts = [sample.rows[number] for sample in self.samples]
            times = self.sent.frame_times(self.plan.symbols.index(symbol))
            rows = 0
            for n, (due, sent) in enumerate(zip(self.due[symbol], times, strict=True)):
                rows += len(frames_pool.rows[n % len(frames_pool.rows)])
                if self.plan.in_burst(due) == in_burst:
                    found.append(self.samples[bisect.bisect_left(counts, rows)].use.at - sent)
        return found

    def lateness(self) -> list[float]:
        """Return how late the watched symbols' frames were sent, in seconds."""
        found: list[float] = []
        for symbol in self.watched:
            times = self.sent.frame_times(self.plan.symbols.index(symbol))
            due = self.due[symbol]
            found += [at - self.began - d for at, d in zip(times, due, strict=True)]
        return found

    def shares(self, *, in_burst: bool) -> float:
        """Return the share of a core in calm times or in bursts, in per cent."""
        seconds = wall = 0.0
        for before, after in zip(self.samples, self.samples[1:], strict=False):
            middle = (before.use.at + after.use.at) / 2 - self.began
            if self.plan.in_burst(middle) == in_burst and middle < self.plan.seconds:
                seconds += after.use.seconds - before.use.seconds
                wall += after.use.at - before.use.at
        return 100 * seconds / wall if wall else 0.0

    def report(self, report: Report) -> None:
        """Add the figures of this run."""
        end = self.began + self.plan.seconds
        first = self.samples[0].use
        last = max((s.use for s in self.samples if s.use.at <= end), key=lambda use: use.at)
        processor = (last.seconds - first.seconds) / self.frames
        report.note("messages a second", self.frames / self.plan.seconds, "messages/s")
        whole = 100 * (last.seconds - first.seconds) / self.plan.seconds
        report.note("processor, whole run", whole, "% of a core", Goal(35, at_least=False))
        report.note("processor, calm", self.shares(in_burst=False), "% of a core")
        report.note("processor, in bursts", self.shares(in_burst=True), "% of a core")
        report.note("processor a message", 1e6 * processor, "us")
        report.note("processor until ready", self.ready.seconds, "s")
        memory = max(sample.use.megabytes for sample in self.samples)
        report.note("memory at most", memory, "MB", Goal(200, at_least=False))
        report.note("backlog at most", max(s.backlog for s in self.samples), "rows")
        report.note("sent late, 99 %", percentile(self.lateness(), 99), "s")
        for what, symbols, wait in (
            ("the busiest", self.watched[:1], self.linger),
            ("all", self.watched, _QUIET_WAIT),
        ):
            bound = Goal(wait + 1, at_least=False)
            for when, in_burst in (("calm", False), ("in bursts", True)):
                if delays := self.delays(symbols, in_burst=in_burst):
                    name = f"delay of {what}, {when}"
                    report.note(f"{name}, median", percentile(delays, 50), "s")
                    report.note(f"{name}, 99 %", percentile(delays, 99), "s")
                    report.note(f"{name}, longest", max(delays), "s", bound)
