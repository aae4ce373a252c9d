"""What of a symbol's deals is to be asked for: gaps that have ended, and uncertain time.

A gap is a row of the ledger in any case, once it is known how far it was filled. Uncertain time,
which lines had but may have lost deals of, is a gap only if the answer shows that some were
lacking: the loss of one line alone leaves no row.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import attrs

from mexc_trio.exchange.backfill import MOST_DEALS, Deal, LastDeals, fall_into
from mexc_trio.rows import Cause, Gap
from mexc_trio.spans import Span

_KEPT_TO_FILL: Final = 20 * MOST_DEALS
"""Deals that are known while some are fetched; seconds of the busiest contract."""
_LACKING: Final = "a line broke, and no other had these deals"


@attrs.define(eq=False)
class Pending:
    """Of one symbol."""

    symbol: str
    last_deals: LastDeals = attrs.field(factory=LastDeals, init=False)
    """The last deals that are there."""
    gaps: list[Gap] = attrs.field(factory=list, init=False)
    """Those that have ended and are to be filled before they are written."""
    uncertain: Gap | None = attrs.field(default=None, init=False)
    """Time that lines had, see `uncertain`; a gap as it is written if the answer shows one."""
    filled: Counter[str] = attrs.field(factory=Counter, init=False)
    """Of gaps that were written in this run: `gaps` and `whole` that were filled, and `deals`."""

    @property
    def wanted(self) -> int:
        """Of how many spans of time deals are to be asked for."""
        return len(self.gaps) + (self.uncertain is not None)

    def add(self, gaps: Sequence[Gap]) -> None:
        """Add these to those that are to be filled."""
        self.gaps = [*self.gaps, *gaps]
        self._keep()

    def add_uncertain(self, span: Span) -> None:
        """Add a time of which only deals that are lacking are written."""
        start, end = span
        if was := self.uncertain:
            start, end = min(start, was.start), max(end, was.end)
        cause = Cause.CONNECTION_LOST.value
        self.uncertain = Gap(self.symbol, "deal", start, end, cause, _LACKING, 0, 0)
        self._keep()

    def fill(self, answer: Sequence[Deal]) -> tuple[list[Gap], list[Deal]]:
        """Return the gaps that are to be written now, and the deals that fall into them.

        What the answer says nothing of stays.

        Args:
            answer: the exchange's last deals, oldest first.
        """
        gaps: list[Gap] = []
        missed: list[Deal] = []
        left: list[Gap] = []
        for gap in [*self.gaps, self.uncertain] if self.uncertain else self.gaps:
            is_uncertain = gap is self.uncertain
            if (fill := fall_into((gap.start, gap.end), self.last_deals, answer)) is None:
                left += [] if is_uncertain else [gap]
                continue
            if is_uncertain:
                self.uncertain = None
                if not fill.deals:
                    continue
            if fill.filled is not None:
                gap = gap._replace(detail=gap.detail + fill.filled.text())
                self.filled.update(gaps=1, whole=fill.filled.whole, deals=fill.filled.deals)
            gaps.append(gap)
            self.last_deals.note_fetched(fill.deals)
            missed += fill.deals
        self.gaps = left
        self._keep()
        return gaps, missed

    def give_up(self, until: int | None) -> tuple[list[Gap], Gap | None]:
        """Return the gaps that ended by then, or all, and the uncertain time.

        They are asked for no longer.
        """
        uncertain = self.uncertain
        if uncertain and (until is None or uncertain.end <= until):
            self.uncertain = None
        given_up = [gap for gap in self.gaps if until is None or gap.end <= until]
        self.gaps = [gap for gap in self.gaps if gap not in given_up]
        self._keep()
        return given_up, None if self.uncertain else uncertain

    def _keep(self) -> None:
        self.last_deals.keep(_KEPT_TO_FILL if self.wanted else MOST_DEALS)
