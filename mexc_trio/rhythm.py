"""How long may a channel have no row until somebody must account for it?

One rule for who records and who verifies. The recorder loses patience with a connection sooner (see
`mexc_trio.exchange.liveness`), but by clocks, tries and connections of which the rows say nothing:
each of two lines that break in turn may be too young to be called silent. So when a row comes, the
ledger of gaps also judges the pause before it by this rule, which knows rows and gaps alone, and
`verify` judges all of them again. The recorder allows a little less, for what it does not remember
or sees in another order; so what it lets pass `verify` lets pass, too.

A pause is unaccounted if the longest part of it that is in no gap lasts longer than `PATIENCE` and
longer than `FACTOR` times the longest pause shortly before, or longer than `MOST`.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from mexc_trio.channels import ALL
from mexc_trio.rows import Channel
from mexc_trio.spans import HOUR, SECOND, Span, without

PATIENCE: Final[Mapping[Channel, int]] = {
    name: round(1.5 * SECOND * one.patience) for name, one in ALL.items()
}
"""Milliseconds without a row that need no account: half as much again as the patience that a
recorder has with a channel whose rhythm it does not know."""
FACTOR: Final = 7.5
"""How many times the longest pause before it a silence may be. A recorder asks again after five."""
MOST: Final = 9 * HOUR
"""Milliseconds of silence that always need an account."""
BEFORE: Final = 6 * HOUR
"""Milliseconds in which pauses before a silence tell the rhythm of the channel."""
LEAST_BEFORE: Final = 50
"""So many of them tell it in any case, however long ago, because some contracts are very quiet."""
PAUSE: Final[Mapping[Channel, int]] = {name: round(ms / FACTOR) for name, ms in PATIENCE.items()}
"""Milliseconds; pauses that are no longer make no difference, and nobody needs to tell of them."""
RECORDER: Final = 0.9
"""The share of what `verify` allows that a recorder does."""


@attrs.define(eq=False)
class Rhythm:
    """The pauses of one channel of one symbol, one after the other."""

    channel: Channel
    share: float = 1.0
    """Of what is allowed."""
    # Those that tell the rhythm, in order.
    _pauses: deque[Span] = attrs.field(factory=deque, init=False)

    def unaccounted(
        self, pause: Span, gaps: Sequence[Span], outages: Sequence[Span]
    ) -> Span | None:
        """Return the part of a pause between two rows that needs an account and has none.

        Args:
            pause: longer than `PAUSE`; none that began earlier comes later.
            gaps: of the channel, in order and without overlaps, as far as they touch the pause.
            outages: those of them that say nothing about the rhythm, because nobody listened.
        """
        left = max(without(pause, gaps), key=_length, default=None)
        if left is not None and _length(left) > self._allowed(left, pause[0]):
            return left
        if without(pause, outages):
            self._pauses.append(pause)
            self._forget_old(pause[0])
        return None

    def forget(self, span: Span) -> None:
        """Forget the pauses that a time touches: there were rows in it."""
        for place, (start, end) in enumerate(self._pauses):
            if start < span[1] and span[0] < end:
                self._pauses[place] = end, end

    def _allowed(self, silence: Span, at: int) -> float:
        """Return the milliseconds that a silence may last in a pause that begins then."""
        allowed = self.share * PATIENCE[self.channel]
        if _length(silence) <= allowed:
            return allowed
        self._forget_old(at)
        longest = max(map(_length, self._pauses), default=0)
        return min(max(allowed, self.share * FACTOR * longest), self.share * MOST)

    def _forget_old(self, at: int) -> None:
        while len(self._pauses) > LEAST_BEFORE and self._pauses[0][1] < at - BEFORE:
            self._pauses.popleft()


def _length(span: Span) -> int:
    return span[1] - span[0]
