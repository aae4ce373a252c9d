"""What a recorder asks of its process: open files, and an interpreter for many small messages."""

import gc
import getpass
import logging
import os
import resource
import sys
from contextlib import suppress
from typing import Final

from mexc_trio.errors import UsageError

log = logging.getLogger(__name__)


SPARE: Final = 128
"""Files beside the connections: the journal, locks, readers of metrics, what comes and goes.
The embedded engine is a process of its own, with a limit of its own."""


def allow_connections(connections: int, *, more: bool) -> None:
    """Raise the limit of open files if so many connections need it, as far as that is allowed.

    They are those to the exchange and to the store. If there may be `more` later, all is taken that
    is allowed. Raises UsageError if this user may not open so many.
    """
    needed = connections + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not more and _enough(soft, needed):
        return
    # macOS has "no limit" as its hard limit and refuses it as the soft one.
    for limit in (hard, needed):
        if _enough(hard, needed) and limit > soft != resource.RLIM_INFINITY:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            except (ValueError, OSError):
                continue
            log.info("limit of open files raised from %d to %d", soft, limit)
            return
    if _enough(soft, needed):
        return
    raise UsageError(
        f"{connections} connections need {needed} open files, and the limit is {soft} "
        f"(hard limit {hard}): raise it with ulimit -n {needed}, or share connections with "
        f"--symbols-per-connection"
    )


def _enough(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed


SWITCH_INTERVAL: Final = 0.001
"""Seconds for which a thread that waits for the interpreter lets the running one go on. An INSERT
waits several times for an answer, and with Python's 5 ms each time beside a busy main thread: four
of them at once took twice as long as with this."""
ALLOCATIONS: Final = 100_000
"""More objects than before, from which on garbage is looked for. Frames and rows hold no cycles,
but those that wait for the store are looked at each time, cold: with Python's 700 that took 9 % of
the processor time of 1,200 symbols, with 10,000 5 % and with this 1 %. Garbage is little, and made
by errors: so many of its objects are 20 MB."""
YOUNGER: Final = 20
"""Searches of one generation before the next older one is searched."""


def tune() -> None:
    """Suit the interpreter to many small messages and a few threads that mostly wait."""
    # Or clickhouse-driver reads /etc/passwd for each INSERT, to tell the server who runs this.
    with suppress(KeyError, OSError):  # nobody is known by this number
        os.environ.setdefault("LOGNAME", getpass.getuser())
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.set_threshold(ALLOCATIONS, YOUNGER, YOUNGER)
