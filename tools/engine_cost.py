"""What recording into a MergeTree costs: ``python -m tools.engine_cost``, on Linux.

One symbol is recorded into a StripeLog and into a MergeTree, in turn. How a message's cost is found
says `recorder_cost`. The goal is about the recorder's own processor time; that of the engine beside
it is told as well.
"""

import statistics
from typing import Final

import cyclopts
import trio

from tools.recorder_cost import Count, Variant, measure, ratio_text

GOAL: Final = 1.1
"""Times the recorder's processor time for StripeLog, at the most."""
ENGINES: Final = ("stripelog", "mergetree")


async def _compare(rate: float, seconds: float, runs: int) -> None:
    variants = {engine: Variant(options=("--engine", engine)) for engine in ENGINES}
    found = await measure(variants, rate, seconds, runs)
    print(f"{runs} runs of {seconds:g} s at {rate:g} messages a second")
    for engine, costs in found.items():
        print(
            f"{engine}: {statistics.median(cost.own for cost in costs):.0f} us of the recorder's "
            f"processor time a message; with the engine's "
            f"{statistics.median(cost.both for cost in costs):.0f} us"
        )
    stripelog, mergetree = ([cost.own for cost in costs] for costs in found.values())
    print(ratio_text(stripelog, mergetree, GOAL))


def main(*, rate: float = 1000.0, seconds: float = 20.0, runs: Count = 5) -> None:
    """Measure what recording into a MergeTree costs.

    Parameters
    ----------
    rate
        Messages a second.
    seconds
        Of each run.
    runs
        How many of each kind.
    """
    trio.run(_compare, rate, seconds, runs)


if __name__ == "__main__":
    cyclopts.run(main)
