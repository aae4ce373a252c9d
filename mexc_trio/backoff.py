"""Pauses that grow between attempts at what failed and may work later."""

import random

import attrs


@attrs.define
class Backoff:
    """Each pause is twice the one before, up to the longest.

    `first` and `longest` are in seconds and may be changed between two attempts. `jitter` is the
    share of a pause that is added at random, so that many who failed together come back apart.
    """

    first: float
    longest: float
    jitter: float = 0.0
    _attempt: int = attrs.field(default=0, init=False)

    def next(self) -> float:
        """Return the seconds to wait before the next attempt."""
        pause = min(self.first * 2.0 ** min(self._attempt, 30), self.longest)
        self._attempt += 1
        return pause * (1 + self.jitter * random.random())  # noqa: S311 - no secret

    def reset(self) -> None:
        """Begin with the first pause again: it worked."""
        self._attempt = 0
