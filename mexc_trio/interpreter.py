"""What a recorder asks of Python itself."""

import gc
import sys
from typing import Final

SWITCH_INTERVAL: Final = 0.001
"""Seconds for which a thread that waits for the interpreter lets the running one go on. An INSERT
waits several times for an answer, and with Python's 5 ms each time beside a busy main thread: four
of them at once took twice as long as with this."""
ALLOCATIONS: Final = 10_000
"""New objects from which on garbage is looked for. Frames and rows hold no cycles, and with
Python's 700 the search took 9 % of the processor time of 1,200 symbols, with this 3 %."""
YOUNGER: Final = 20
"""Searches of one generation before the next older one is searched."""


def tune() -> None:
    """Suit the interpreter to many small messages and a few threads that mostly wait."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.set_threshold(ALLOCATIONS, YOUNGER, YOUNGER)
