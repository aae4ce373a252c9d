"""Deals that may be lacking although later ones are there.

While a line lags behind one that has just begun, what came in between is under way on the former
alone; and what two lines may both have lost is asked for. If the program ends meanwhile nobody
brings it any more, and the rows that are there do not show it.
"""

import attrs

from mexc_trio.rows import Cause, Gap
from mexc_trio.spans import LATEST, Span


@attrs.define
class Lag:
    """The same of one symbol, as its ledger of gaps knows it and the journal remembers it."""

    sure: int
    """Milliseconds: the deal after which others may be lacking; 0 if none may."""

    def note(self, until: int, doubtful: Span | None, newest: int) -> bool:
        """Note how far deals are there for sure; return whether that is to be remembered.

        All in milliseconds: no line can bring another deal from before `until`, deals of the time
        `doubtful` are being asked for, and `newest` is the newest deal that is there.
        """
        before = self.sure
        sure = min(until, doubtful[0] if doubtful else LATEST)
        self.sure = sure if 0 < sure < newest else 0
        return bool(before or self.sure)

    def end(self, symbol: str, newest: int, cause: Cause, detail: str) -> list[Gap]:
        """Return what is to be written now that no line will bring any of it.

        It is a gap of its own, to which nothing is fetched: only the last hundred of the deals that
        are there are known, and others would be stored again.
        """
        sure, self.sure = self.sure, 0
        if not 0 < sure < newest:
            return []
        lag = f"{detail}; a line lagged, or deals were being asked for"
        return [Gap(symbol, "deal", sure, newest, cause.value, lag, 0, 0)]
