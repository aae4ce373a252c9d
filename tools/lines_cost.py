"""What the second line costs: ``python -m tools.lines_cost``, on Linux.

The recorder is a process and records one symbol, with one line and with two, in turn; so it stores
the same number of rows. What a run without any message takes is subtracted. Processor time is that
of the recorder and of its engine, whatever else the machine does.
"""

import os
import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Final

import attrs
import cyclopts
import trio

from tools.exchange import open_exchange
from tools.soak.recorder import LONGEST_WAIT, Place, kill, subscribed, until
from tools.soak.trouble import engines_of

GOAL: Final = 1.7
"""Times the processor time of one line, at the most."""
_Count = Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=1))]


@attrs.frozen
class Taken:
    """What a run took."""

    seconds: float
    """Of processor time."""
    frames: int
    """That the exchange sent on the first line."""

    def per_frame(self, idle: float) -> float:
        """Return the microseconds for each of them."""
        return 1e6 * (self.seconds - idle) / max(1, self.frames)


async def record(lines: int, rate: float, seconds: float, *, idle: bool = False) -> Taken:
    """Record for some seconds, without any message if it is to be idle."""
    with tempfile.TemporaryDirectory(prefix="lines-") as directory:
        place = Place(Path(directory))
        async with open_exchange(rate=rate, shared=True) as exchange:
            exchange.silence()
            recorder = await place.start("--lines", str(lines), "--url", exchange.url)
            try:
                await until(exchange, recorder, lambda: len(subscribed(exchange)) == lines)
                before = _taken(recorder.pid)
                if not idle:
                    exchange.resume()
                await trio.sleep(seconds)
                first = subscribed(exchange)[0].frames
                exchange.silence()
                await trio.sleep(1)
                return Taken(_taken(recorder.pid) - before, first)
            finally:
                recorder.terminate()
                with trio.move_on_after(LONGEST_WAIT):
                    await recorder.wait()
                await kill(recorder)


def _taken(recorder: int) -> float:
    """Return the processor time of a recorder and its engine so far, in seconds."""
    ticks = 0
    for process in (recorder, *engines_of(recorder)):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # in the program, and in the kernel for it
    return ticks / os.sysconf("SC_CLK_TCK")


async def measure(rate: float, seconds: float, runs: int) -> None:
    """Record with one line and with two in turn, and print what a message took."""
    idle = {lines: (await record(lines, rate, seconds, idle=True)).seconds for lines in (1, 2)}
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(runs):
        for lines, times in found.items():
            taken = await record(lines, rate, seconds)
            times.append(taken.per_frame(idle[lines]))
    one, two = (statistics.median(found[lines]) for lines in (1, 2))
    ratios = [later / earlier for earlier, later in zip(found[1], found[2], strict=True)]
    print(f"{runs} runs of {seconds:g} s at {rate:g} messages a second on each line")
    print(f"one line: {one:.0f} us of processor time a message; two: {two:.0f} us")
    few = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"ratio: {statistics.median(ratios):.2f} ({few}); goal: at most {GOAL:g}")


def main(*, rate: float = 1000.0, seconds: float = 20.0, runs: _Count = 3) -> None:
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
    trio.run(measure, rate, seconds, runs)


if __name__ == "__main__":
    cyclopts.run(main)
