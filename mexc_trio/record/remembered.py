"""What the journal remembers of a symbol from earlier runs, for its ledger of gaps."""

from typing import Final

import msgspec

from mexc_trio.channels import ALL, BY_TYPE
from mexc_trio.exchange.backfill import MOST_DEALS, Deal
from mexc_trio.journal import Marks, Queue, decode_marks
from mexc_trio.journal.entries import encode
from mexc_trio.rows import DEAL, Channel, Gap, Row
from mexc_trio.spans import EARLIEST, LATEST, now

_LOOKED_THROUGH: Final = 10 * MOST_DEALS
"""Rows in which the last deals are looked for."""


def remembered(queue: Queue) -> tuple[dict[Channel, tuple[int, int]], list[Gap], int]:
    """Return time and version of channels' last rows, unwritten gaps, and `uncertain_since`.

    Of channels that are not recorded any more as well: they may be again.
    """
    marks = decode_marks(queue.stored_marks) if queue.stored_marks else Marks({})
    last: dict[Channel, tuple[int, int]] = {k: v for k, v in marks.last.items() if k in ALL}
    # They are written whenever `acked` is, and what came later is still in the queue.
    for entry in queue.since(max(queue.acked, marks.until)):
        for ts, mt, *_ in entry.rows:
            known = BY_TYPE.get(str(mt))
            if known is not None:
                last[known] = plausible_time(int(ts)), last.get(known, (0, 0))[1]
        if entry.version and "depth" in last:
            last["depth"] = last["depth"][0], entry.version
    return last, [Gap(*gap) for gap in marks.pending], marks.uncertain_since


def write_pending(queue: Queue, gaps: Queue) -> None:
    """Write the gaps that an earlier run left pending of a symbol that is recorded no longer."""
    if queue.stored_marks and (marks := decode_marks(queue.stored_marks)).pending:
        gaps.collect(marks.pending)
        queue.stored_marks = encode(msgspec.structs.replace(marks, pending=()))
        queue.remember()


def earlier_deals(queue: Queue) -> list[Deal]:
    """Return the last deals of earlier runs, as far as the journal still has them.

    The exchange's numbers of them are known where the table is wide.
    """
    first = max(queue.first_kept(), queue.earlier - _LOOKED_THROUGH)
    rows = queue.rows(first, queue.earlier - first)
    return [
        (Row(int(ts), DEAL, str(m)), int(receipt[1]) if receipt else 0)
        for ts, mt, m, *receipt in rows
        if mt == DEAL
    ]


def plausible_time(ts: int) -> int:
    """Return a row's time, or this machine's where the exchange cannot mean what it says."""
    return ts if EARLIEST <= ts < LATEST else now()
