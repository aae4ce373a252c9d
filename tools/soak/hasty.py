"""The recorder, with pauses after failures that a trial of hundreds of them can wait for.

``python -m tools.soak.hasty`` takes the arguments of ``mexc-trio`` and is otherwise the same.
"""

import signal
import sys
from typing import Final

from mexc_trio.__main__ import main
from mexc_trio.clickhouse import async_store
from mexc_trio.exchange import connection
from mexc_trio.record import rewriting, writer

LONGEST: Final = 0.2
"""Seconds, between connections as much again at random."""

if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a trial under nohup has it ignored
    vars(connection).update(SHORTEST_BACKOFF=LONGEST, LONGEST_BACKOFF=LONGEST)
    vars(async_store).update(LAST_RETRY=LONGEST)
    vars(writer).update(LAST_PAUSE=LONGEST)
    vars(rewriting).update(POLL=LONGEST)
    sys.exit(main())
