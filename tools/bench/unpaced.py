"""The recorder without its pace of subscribing: `python -m tools.bench.unpaced ARGUMENTS...`.

The exchange is asked for a few contracts a second, so 1,200 take minutes, in which a benchmark
learns nothing. All else is the same program.
"""

import sys

import trio

from mexc_trio.cli.main import main
from mexc_trio.exchange.rate_limiter import RateLimiter


async def acquire(self: RateLimiter) -> None:
    """Let everybody go at once."""
    await trio.lowlevel.checkpoint()


if __name__ == "__main__":
    RateLimiter.acquire = acquire  # type: ignore[method-assign]
    sys.exit(main())
