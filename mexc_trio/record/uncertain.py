"""Deals that may be lacking although later ones are there.

Nothing in the rows shows it: numbers of deals are not consecutive. What one line had lost just
before another one broke was to come from that one. So once all other lines have passed that moment,
until when they may bring it themselves, the deals of that time are asked for. And while a line lags
behind one that has just begun, what came in between is under way on the former alone. If the
program ends meanwhile, nobody brings any of it any more, which is a gap then.
"""

from collections.abc import Sequence

import attrs

from mexc_trio.exchange.lines import LineSource
from mexc_trio.exchange.messages import Data
from mexc_trio.spans import LATEST, Span


@attrs.define(eq=False)
class UncertainTime:
    """The time of one symbol for which a line that broke was needed; see `Lines`."""

    start: int = attrs.field(default=0, init=False)
    """Milliseconds: the last deal that such a line has brought; 0 if nothing is uncertain."""
    # Those that have brought no later one yet.
    _awaited: set[LineSource] = attrs.field(factory=set, init=False)

    def broken(self, source: LineSource, sources: Sequence[LineSource]) -> None:
        """Note that one of several lines is about to be given up."""
        self._awaited.discard(source)
        reception = source.receives.get("deal")
        others = {one for one in sources if one is not source and "deal" in one.receives}
        if others and reception is not None and reception.since:
            last = reception.last or reception.since
            self.start = min(last, self.start or last)
            self._awaited = others

    def passed(self, source: LineSource, message: Data) -> Span | None:
        """Return the time that is uncertain, if with this message all lines have passed it.

        It is in milliseconds, and both ends are deals that have come.
        """
        if not self.start or message.channel != "deal" or len(message.rows) == message.dead:
            return None
        start, end = self.start, message.rows[0].ts
        if not start < end < LATEST:
            return None
        self._awaited.discard(source)
        if self._awaited:
            return None
        self.start = 0
        return start, end
