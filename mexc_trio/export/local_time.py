"""When something that happened on the exchange was known at the local machine, for backtests.

That is its time of receipt, where the table is wide and has it; never before the exchange's time,
whose clock may be ahead, nor before an earlier event's. Where there is none, or the user says so,
it is the exchange's time and a constant latency.
"""

from typing import Final

_MS: Final = 1_000_000
_US: Final = 1_000
"""Nanoseconds."""
STEP: Final = _US
"""Nanoseconds: a clear of the book is known so long after everything before it."""


class LocalClock:
    """Tells the local time of one event after another, in the order of the exchange's times."""

    def __init__(self, latency: int | None, earliest: int = 0) -> None:
        """Begin.

        `latency` is milliseconds from the exchange's time to the local one; None for the time of
        receipt, where it is known. Nothing is told to be before `earliest`, in nanoseconds.
        """
        self._latency = latency
        self._latest = self._said = earliest

    def of(self, at: int, received: int = 0) -> int:
        """Return the local time of an event in nanoseconds since 1970.

        It was `at` milliseconds on the exchange's clock, and came `received` microseconds on ours,
        0 where nobody knows.
        """
        if self._latency is None:
            local = max(at * _MS, received * _US)
        else:
            local = (at + self._latency) * _MS
        self._latest = max(self._latest, local)
        self._said = max(self._said, self._latest)
        return self._said

    def after(self, at: int) -> int:
        """Return the local time of a clear, which nobody receives: after that of all before it.

        Were it the same, the book before it would not be there for any time.
        """
        before = self._latest
        self._said = max(self.of(at), before + STEP)
        return self._said


def sql(latency: int | None) -> str:
    """Return the SQL of the same for one event by itself, of the columns `at` and `received`."""
    if latency is None:
        return f"greatest(at * {_MS}, received * {_US})"
    return f"(at + {latency}) * {_MS}"
