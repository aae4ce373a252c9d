"""What the second line costs: ``python -m tools.lines_cost``, on Linux.

One symbol is recorded with one line and with two, in turn; so the same number of rows is stored.
How a message's cost is found says `recorder_cost`.
"""

import statistics
from typing import Final

import cyclopts
import trio

from tools.recorder_cost import Count, Variant, measure, ratio_text

GOAL: Final = 1.7
"""Times the processor time of one line, at the most."""


async def _compare(rate: float, seconds: float, runs: int) -> None:
    found = await measure({lines: Variant(lines) for lines in (1, 2)}, rate, seconds, runs)
    one, two = ([cost.both for cost in costs] for costs in found.values())
    print(f"{runs} runs of {seconds:g} s at {rate:g} messages a second on each line")
    print(
        f"one line: {statistics.median(one):.0f} us of processor time a message; "
        f"two: {statistics.median(two):.0f} us"
    )
    print(ratio_text(one, two, GOAL))


def main(*, rate: float = 1000.0, seconds: float = 20.0, runs: Count = 3) -> None:
    """Measure what the second line costs.

    Parameters
    ----------
    rate
        Messages a second on each line.
    seconds
        Of each run.
    runs
        How many of each kind.
    """
    trio.run(_compare, rate, seconds, runs)


if __name__ == "__main__":
    cyclopts.run(main)
