"""Spans of time: pairs of milliseconds since 1970, the start included and the end not."""

import time
from collections.abc import Iterable, Sequence
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


EARLIEST = 1_483_228_800_000
"""2017-01-01: no row of this exchange is older."""
LATEST = 4_102_444_800_000
"""2100-01-01: nor is one newer, whatever a machine without the right time thinks it is now."""
# Linux has one that goes on while the machine sleeps.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> int:
    """Return the time in milliseconds since 1970, by this machine's clock."""
    return int(time.time() * 1000)


def steady() -> int:
    """Return milliseconds of a clock that nobody sets; only differences mean anything."""
    return time.clock_gettime_ns(_STEADY) // 1_000_000


def possible() -> Span:
    """Return the times that a row can have, whatever its sender's clock says."""
    return EARLIEST, now() + DAY


def union(spans: Iterable[Span]) -> list[Span]:
    """Return the same time as spans that neither overlap nor touch, in order.

    >>> union([(5, 9), (1, 3), (2, 4), (9, 10), (7, 7)])
    [(1, 4), (5, 10)]
    """
    merged: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def without(span: Span, gaps: Sequence[Span]) -> list[Span]:
    """Return what is left of a span; `gaps` as `union` returns them.

    >>> without((0, 10), [(-5, 1), (4, 6)])
    [(1, 4), (6, 10)]
    """
    left = []
    at = span[0]
    for start, end in gaps:
        if start > at:
            left.append((at, min(start, span[1])))
        at = max(at, end)
        if at >= span[1]:
            break
    if at < span[1]:
        left.append((at, span[1]))
    return [(start, end) for start, end in left if start < end]


def length(spans: Iterable[Span]) -> int:
    """Return the milliseconds of spans that do not overlap."""
    return sum(end - start for start, end in spans)


def cut(spans: Sequence[Span], step: int) -> dict[int, list[Span]]:
    """Return the parts of the spans by the hour, day or other step of the calendar they lie in.

    >>> cut([(5, 25), (27, 28)], 10)
    {0: [(5, 10)], 1: [(10, 20)], 2: [(20, 25), (27, 28)]}
    """
    parts: dict[int, list[Span]] = {}
    for start, end in spans:
        at = start
        while at < end:
            number = at // step
            stop = min(end, (number + 1) * step)
            parts.setdefault(number, []).append((at, stop))
            at = stop
    return parts
