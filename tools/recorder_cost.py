"""What a message costs a recorder, in one variant of recording beside another; on Linux.

``python -m tools.recorder_cost lines`` sets two lines beside one, ``engine`` a MergeTree beside a
StripeLog. The recorder is a process and records one symbol into its own embedded engine, in one
variant after another. What a run without any message takes is subtracted. Processor time is that of
the recorder and of its engine, whatever else the machine does.
"""

import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import attrs
import cyclopts
import trio

from tools.exchange import open_exchange
from tools.soak.recorder import LONGEST_WAIT, Place, kill, subscribed, until
from tools.soak.trouble import engines_of

Count = Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=1))]
"""How often something is done."""


@attrs.frozen
class Variant:
    """One way of recording."""

    lines: int = 1
    options: Sequence[str] = ()
    """Of the command line."""


@attrs.frozen
class Cost:
    """Microseconds of processor time for a message."""

    own: float
    """Of the recorder."""
    both: float
    """Of the recorder and its engine."""


@attrs.frozen
class Comparison:
    """Two variants, and how much the second one may take."""

    variants: Mapping[str, Variant]
    goal: float
    """Times what the first one takes, at the most."""
    of: Literal["own", "both"]
    """Which cost that is about."""


COMPARISONS: Final = {
    # As many rows are stored, so that the engine's share belongs to it.
    "lines": Comparison({"one line": Variant(), "two lines": Variant(lines=2)}, 1.7, "both"),
    "engine": Comparison(
        {name: Variant(options=("--engine", name)) for name in ("stripelog", "mergetree")},
        1.1,
        "own",
    ),
}


@attrs.frozen
class _Taken:
    """What a run took."""

    own: float
    """Seconds of processor time, of the recorder."""
    both: float
    """The same, of the recorder and its engine."""
    frames: int
    """That the exchange sent on the first line."""

    def cost(self, idle: "_Taken") -> Cost:
        """Return what each of them took, beyond a run without any."""
        frames = max(1, self.frames)
        return Cost(1e6 * (self.own - idle.own) / frames, 1e6 * (self.both - idle.both) / frames)


async def _compare(comparison: Comparison, rate: float, seconds: float, runs: int) -> None:
    variants = comparison.variants
    idle = {name: await _record(one, rate, seconds, idle=True) for name, one in variants.items()}
    found: dict[str, list[Cost]] = {name: [] for name in variants}
    for _ in range(runs):
        for name, variant in variants.items():
            found[name].append((await _record(variant, rate, seconds)).cost(idle[name]))
    print(f"{runs} runs of {seconds:g} s at {rate:g} messages a second on each line")
    for name, costs in found.items():
        print(
            f"{name}: {statistics.median(cost.own for cost in costs):.0f} us of the recorder's "
            f"processor time a message; with the engine's "
            f"{statistics.median(cost.both for cost in costs):.0f} us"
        )
    before, after = ([getattr(cost, comparison.of) for cost in found[name]] for name in variants)
    ratios = [later / earlier for earlier, later in zip(before, after, strict=True)]
    few = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"ratio: {statistics.median(ratios):.2f} ({few}); goal: at most {comparison.goal:g}")


async def _record(variant: Variant, rate: float, seconds: float, *, idle: bool = False) -> _Taken:
    """Record for some seconds, without any message if it is to be idle."""
    with tempfile.TemporaryDirectory(prefix="cost-") as directory:
        place = Place(Path(directory))
        async with open_exchange(rate=rate, shared=True) as exchange:
            exchange.silence()
            recorder = await place.start(
                "--lines", str(variant.lines), "--url", exchange.url, *variant.options
            )
            try:
                await until(exchange, recorder, lambda: len(subscribed(exchange)) == variant.lines)
                own, both = _processor_times(recorder.pid)
                if not idle:
                    exchange.resume()
                await trio.sleep(seconds)
                first = subscribed(exchange)[0].frames
                exchange.silence()
                await trio.sleep(1)
                own_then, both_then = _processor_times(recorder.pid)
                return _Taken(own_then - own, both_then - both, first)
            finally:
                recorder.terminate()
                with trio.move_on_after(LONGEST_WAIT):
                    await recorder.wait()
                await kill(recorder)


def _processor_times(recorder: int) -> tuple[float, float]:
    """Return the processor time of a recorder so far, and with its engine's, in seconds."""
    own = _processor_time(recorder)
    return own, own + sum(map(_processor_time, engines_of(recorder)))


def _processor_time(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])  # in the program, and in the kernel for it
    return ticks / os.sysconf("SC_CLK_TCK")


def main(
    what: Literal["lines", "engine"],
    *,
    rate: float = 1000.0,
    seconds: float = 20.0,
    runs: Count = 5,
) -> None:
    """Measure what the second line costs, or what recording into a MergeTree costs.

    Parameters
    ----------
    what
        Which of the two.
    rate
        Messages a second on each line.
    seconds
        Of each run.
    runs
        How many of each variant.
    """
    trio.run(_compare, COMPARISONS[what], rate, seconds, runs)


if __name__ == "__main__":
    cyclopts.run(main)
