"""What no line has of a channel: what is left between those that have it.

Times are the exchange's, in milliseconds.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import attrs

from mexc_trio.rows import Cause, Channel

Why: TypeAlias = tuple[Cause, str]
"""Why a source was lost, or is silent: for the ledger."""


class Missed(NamedTuple):
    """Time that no line has of a channel."""

    channel: Channel
    start: int
    """The last message before."""
    end: int | None
    """The first message after; None if none has come yet."""
    why: Why = (Cause.CONNECTION_LOST, "")
    """What befell the last one of the sources that had it."""
    is_uncertain: bool = False
    """Whether another source was there, and silent: it may have missed nothing."""


@attrs.define
class Reception:
    """What a source has received of one channel; 0 is unknown."""

    since: int = 0
    """The acknowledgement, or the first message of any channel after it."""
    until: int = 0
    """The last one, once the source is lost or the channel silent; 0 before."""
    first: int = 0
    last: int = 0


def find_missed(
    channel: Channel, lost: Reception, others: Sequence[Reception], silent_until: int
) -> list[Missed]:
    """Return the time after one that was lost which the others lack.

    Until `silent_until` there was one on which the channel was silent.
    """
    missed = []
    others = sorted(others, key=lambda one: one.since)
    reach, last = lost.until, lost.last or lost.until
    for number, one in enumerate(others):
        is_uncertain = reach < silent_until
        if one.since > reach:
            firsts = [later.first for later in others[number:] if later.first >= reach]
            end = min(firsts, default=None)
            start = min(last, end or last)
            missed.append(Missed(channel, start, end, is_uncertain=is_uncertain))
            if end is None:  # the next message of the channel will end it
                return missed
        if not one.until:
            return missed  # it lives
        if one.until > reach:
            reach, last = one.until, max(last, one.last)
    return [*missed, Missed(channel, last, None, is_uncertain=reach < silent_until)]
