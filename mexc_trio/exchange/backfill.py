"""What of the exchange's last deals falls into a gap, and is not there yet. No I/O.

The REST interface tells a contract's last hundred deals, in their order and without a gap. So an
answer that has one of the deals that have come since the gap is of the right contract, and what
stands before that deal and is not there yet was missed. Whether it reaches back to the beginning of
the gap is seen at its other end.

Which deals are the same is what `exchange.merging.Once` says. REST may write a number with other
zeros at its end than the socket, which then makes no difference.
"""

import math
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

import attrs

from mexc_trio.exchange.merging import Once
from mexc_trio.exchange.messages import Data
from mexc_trio.filled import Filled
from mexc_trio.rows import Row
from mexc_trio.spans import SECOND, Span
from mexc_trio.texts import trimmed

MOST_DEALS: Final = 100
"""In one answer."""
MOST_FETCHED: Final = 10 * MOST_DEALS
"""That are kept until a merger of lines has noted them; without one the oldest are dropped."""

Deal: TypeAlias = tuple[Row, int]
"""A deal's row, and the exchange's number of it; 0 where there is none."""


class Fill(NamedTuple):
    """What falls into a gap."""

    deals: Sequence[Deal]
    """Those that are not there yet, oldest first."""
    filled: Filled | None
    """How far the gap is then filled; None if the answer does not reach it."""


@attrs.define(eq=False)
class LastDeals:
    """The last deals of a symbol that are there: at least as many as an answer can have."""

    # Those that were received, in their order, and their numbers. Pairs take twice as long to note,
    # and the garbage collector looks at each.
    _rows: deque[Row] = attrs.field(factory=lambda: deque(maxlen=MOST_DEALS), init=False)
    _ids: deque[int] = attrs.field(factory=lambda: deque(maxlen=MOST_DEALS), init=False)
    filled: deque[Deal] = attrs.field(factory=lambda: deque(maxlen=MOST_DEALS), init=False)
    """Those that were fetched afterwards."""
    fetched: deque[Deal] = attrs.field(factory=lambda: deque(maxlen=MOST_FETCHED), init=False)
    """The same, until who merges lines has taken note of them and removed them."""

    def note_fetched(self, deals: Sequence[Deal]) -> None:
        """Note deals that were fetched and are stored."""
        self.filled.extend(deals)
        self.fetched.extend(deals)

    def note_earlier(self, deals: Sequence[Deal]) -> None:
        """Note deals that were received before all others, oldest first."""
        room = max(0, MOST_DEALS - len(self._rows))
        for row, id_ in islice(reversed(deals), room):
            self._rows.appendleft(row)
            self._ids.appendleft(id_)

    def keep(self, number: int) -> None:
        """Keep so many: more while an answer is waited for, which may be old when it comes."""
        if self._rows.maxlen != number:
            self._rows, self._ids = deque(self._rows, number), deque(self._ids, number)

    def note(self, message: Data, *, merged: bool = False) -> None:
        """Note the deals of a frame; of several lines, one that lags brings older ones late."""
        rows = message.rows[: -message.dead] if message.dead else message.rows
        ids = message.ids or [0] * len(rows)
        if merged and self._rows and rows and rows[0].ts < self._rows[-1].ts:
            deals = [*self.received, *zip(rows, ids, strict=True)]
            deals.sort(key=lambda deal: deal[0].ts)
            rows, ids = [row for row, _ in deals], [id_ for _, id_ in deals]
            self._rows.clear()
            self._ids.clear()
        self._rows.extend(rows)
        self._ids.extend(ids)

    @property
    def received(self) -> list[Deal]:
        """Those that were received, in their order."""
        return list(zip(self._rows, self._ids, strict=True))

    def goes_back_to(self, ts: int) -> bool:
        """Whether all deals of a millisecond that were received are here."""
        return any(row.ts < ts for row in self._rows) or (
            len(self._rows) < MOST_DEALS and any(row.ts == ts for row in self._rows)
        )

    @property
    def oldest(self) -> int:
        """The time before which no answer reaches any more, in milliseconds; 0 is not known."""
        if len(self._rows) < MOST_DEALS:
            return 0
        return min(row.ts for row in islice(reversed(self._rows), MOST_DEALS))

    @property
    def rate(self) -> float:
        """Deals a second, by those that were received last."""
        if not self._rows:
            return 0.0
        lasted = self._rows[-1].ts - self._rows[0].ts
        return len(self._rows) * SECOND / max(1, lasted)


def fall_into(gap: Span, known: LastDeals, answer: Sequence[Deal]) -> Fill | None:
    """Return what of an answer, oldest deal first, falls into a gap.

    The gap is from the last row before it to the first row after, in milliseconds since 1970.
    `known` has the deals that are there. None if the answer has none of those that have come since
    the gap: it is older than they are, or of something else.
    """
    start, end = gap
    once, received = Once(math.inf), known.received
    for row, id_ in (*known.filled, *received):
        _is_new(once, "received", row, id_)
    # From the newest on: where deals are alike, the last of them are those that came since.
    new = [_is_new(once, "asked for", row, id_) for row, id_ in reversed(answer)][::-1]
    since = {_key(row) for row, _ in received if row.ts >= end}
    reached = [n for n, (row, _) in enumerate(answer) if not new[n] and _key(row) in since]
    if not reached:
        return None
    # What stands before the last of the first moment that came: of that moment all that does.
    reach = max((n for n in reached if answer[n][0].ts == end), default=reached[0])
    earlier = list(zip(answer[:reach], new, strict=False))
    # The first and the last millisecond count only if all is known that was received in them.
    earliest = start if known.goes_back_to(start) else start + 1
    latest = end if known.goes_back_to(end) else end - 1
    missed = [deal for deal, is_new in earlier if is_new and earliest <= deal[0].ts <= latest]
    whole = any(row.ts < start or (row.ts == start and not is_new) for (row, _), is_new in earlier)
    if not whole and not missed:
        return Fill((), None)
    return Fill(missed, Filled(len(missed), missed[0][0].ts if missed else 0, whole))


def _is_new(once: Once, source: str, row: Row, id_: int) -> bool:
    return bool(once.take(source, Data("", "deal", [_key(row)], ids=[id_]), 0.0))


def _key(row: Row) -> Row:
    """Return a row whose numbers have no zeros at their ends."""
    if "." not in row.m:
        return row
    return Row(row.ts, row.mt, "|".join(map(trimmed, row.m.split("|"))))
