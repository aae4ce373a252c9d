"""The recorder without its pace of subscribing: `python -m tools.bench.unpaced ARGUMENTS...`.

The exchange is asked for a few contracts a second, so 1,200 take minutes, in which a benchmark
learns nothing. All else is the same program.
"""

import sys

import trio

from mexc_trio.cli import main
from mexc_trio.exchange.pace import Pace


async def turn(self: Pace) -> None:
    """Let everybody go at once."""
    await trio.lowlevel.checkpoint()


if __name__ == "__main__":
    Pace.turn = turn  # type: ignore[method-assign]
    sys.exit(main())
