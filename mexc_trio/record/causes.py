"""What a gap's row says of the error that made it."""

from typing import Final

from mexc_trio.errors import ExchangeError, Loss, out_of_resources
from mexc_trio.rows import Cause

SILENT_ELSEWHERE: Final = "; another line was there, and silent for longer than is usual"
"""In the detail of a gap that may be none: only the next message shows that a line has it."""


def cause_of(error: ExchangeError) -> Cause:
    """Return what the end of a connection is called."""
    return Cause.CLOCK_JUMPED if error.loss is Loss.CLOCK_JUMPED else Cause.CONNECTION_LOST


def detail_of(error: Exception) -> str:
    """Return the words for an error of this program, or a shortage of the machine."""
    return out_of_resources(error) or f"an error of this program: {error!r}"[:200]
