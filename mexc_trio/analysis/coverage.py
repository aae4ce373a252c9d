"""How much of the time a symbol was recorded, and how fast rows came. No I/O.

The time that counts begins with the first row of the symbol and ends with its last one, whatever
their channels; so a day that is not over counts as far as there are rows. *Covered* is that time
without the gaps. A channel's gaps are those that the ledger has for it or for `all`, and its
silences that are unaccounted or open. The symbol is covered while none of its three channels has a
gap: a minute without books is no complete minute, even if deals came. The part of a gap in deals
that was filled afterwards does not count as a gap.

A silence is the time between two rows of a channel. It is *unaccounted* if `mexc_trio.rhythm` says
so; a recorder that was there has written a gap for it, since it judges by the same rule. What comes
after a channel's last row is *open*: its gap is written when it ends, or when the recorder stops.
A channel whose first row comes long after the symbol's is *late*: a recorder that was to hear it
has written a gap, but which channels it was to record no row says.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

import attrs

from mexc_trio.analysis.gaps import LedgerGap, gaps_of, missed, near
from mexc_trio.rhythm import FACTOR, PATIENCE, Rhythm
from mexc_trio.rows import CHANNELS, Cause, Channel
from mexc_trio.spans import DAY, HOUR, SECOND, Span, cut, length, union, without

RECENT: Final = 7
"""Days, the last ones, by which growth is told."""
_SLOW: Final = 5
_LEAST_AN_HOUR: Final = 60  # rows of a channel that is busy enough to be called slow


@attrs.frozen
class Silence:
    """A time without rows of some channels that nothing accounts for, in milliseconds."""

    channels: tuple[Channel, ...]
    start: int
    end: int


@attrs.frozen
class Day:
    """One day, in UTC, of one symbol. Times in milliseconds, and since 1970."""

    number: int
    """Days since 1970."""
    recorded: int
    """How much of the day lies between the symbol's first and last row."""
    covered: int
    """How much of that is without a gap in any channel."""
    channels: Mapping[Channel, int]
    """How much of `recorded` is without a gap in each channel."""
    hours: tuple[tuple[int, int], ...]
    """For each of the 24 hours, recorded and covered."""


@attrs.frozen
class Rate:
    """Rows a second of one channel, while it was covered."""

    average: float
    usual: float | None
    """The median of the hours that were covered for at least half an hour; None without any."""
    last: float | None
    """The last of those hours."""
    slow: int
    """Those hours that had less than a fifth of the usual; 0 for a quiet channel."""
    slowest: int | None
    """The one of them with the fewest, in milliseconds since 1970; None without any."""


@attrs.frozen
class Coverage:
    """How completely one symbol was recorded."""

    start: int
    """The first row, in milliseconds since 1970."""
    end: int
    """The last row."""
    covered: int
    """Milliseconds in which no channel has a gap."""
    days: Sequence[Day]
    """Oldest first; days on which nothing could have been covered are not left out."""
    unaccounted: Sequence[Silence] | None
    """Oldest first; None if nobody looked."""
    open: Mapping[Channel, int]
    """Since when a channel has had no row though others had, where that is unusual; 0 is never."""
    late: Mapping[Channel, int]
    """When a channel had its first row though others had had some for long."""
    rates: Mapping[Channel, Rate]
    rows_a_day: float
    """By the last `RECENT` days, as far as they are covered."""
    covered_spans: Sequence[Span] = attrs.field(repr=False)
    """When no channel has a gap."""

    @property
    def recorded(self) -> int:
        """Milliseconds between first and last row."""
        return self.end - self.start


def coverage(
    spans: Mapping[Channel, Span | None],
    hours: Mapping[Channel, Mapping[int, int]],
    pauses: Mapping[Channel, Sequence[Span]] | None,
    ledger: Sequence[LedgerGap],
) -> Coverage | None:
    """Put together what is known of a symbol; None if it has no rows.

    `spans` are from each channel's first row to its last, in milliseconds, and `hours` has rows by
    hours since 1970. `pauses` are times of some length between two rows of a channel; None if they
    are not known. `ledger` has the symbol's gaps.
    """
    there = [span for span in spans.values() if span is not None]
    if not there:
        return None
    start, end = min(span[0] for span in there), max(span[1] for span in there)
    gaps = {name: gaps_of(ledger, name) for name in CHANNELS}
    silences: dict[Channel, list[Span]] = {name: [] for name in CHANNELS}
    late: dict[Channel, int] = {}
    for name, span in spans.items():
        if pauses is not None and span is not None:
            is_late, silences[name] = _unaccounted(name, (start, span[0]), pauses[name], ledger)
            late |= {name: span[0]} if is_late else {}
    open_ = _open(end, spans, gaps, pauses or {})
    missing = {
        name: union(
            [
                *missed(ledger, name),
                *silences[name],
                *([(max(open_[name], start), end)] if name in open_ else []),
                *([(start, late[name])] if name in late else []),
            ]
        )
        for name in CHANNELS
    }
    covered = {name: _by_hour(without((start, end), missing[name])) for name in CHANNELS}
    throughout = without(
        (start, end), union(span for spans_ in missing.values() for span in spans_)
    )
    days = _days(_by_hour([(start, end)]), _by_hour(throughout), covered)
    return Coverage(
        start,
        end,
        length(throughout),
        days,
        None if pauses is None else _overlapping(silences),
        open_,
        late,
        {name: _rate(hours[name], covered[name]) for name in CHANNELS},
        _rows_a_day(days, hours, covered),
        throughout,
    )


def _unaccounted(
    channel: Channel, first: Span, pauses: Sequence[Span], ledger: Sequence[LedgerGap]
) -> tuple[bool, list[Span]]:
    """Return which silences need an account and have none.

    The first of the pair says whether the time before the channel's first row, `first`, is one; the
    second has those between two rows.
    """
    known = gaps_of(ledger, channel)
    # An outage says nothing about a channel's rhythm.
    outages = gaps_of((gap for gap in ledger if gap.cause != Cause.CHANNEL_SILENT), channel)
    rhythm = Rhythm(channel)
    found = [
        rhythm.unaccounted(pause, near(known, pause), near(outages, pause))
        for pause in (first, *sorted(pauses))
    ]
    return found[0] is not None, [silence for silence in found[1:] if silence is not None]


def _overlapping(silences: Mapping[Channel, Sequence[Span]]) -> list[Silence]:
    """Return silences of several channels that overlap as one: one outage has one line."""
    found: list[Silence] = []
    for start, end in union(span for spans in silences.values() for span in spans):
        channels = tuple(
            name for name in CHANNELS if any(a < end and start < b for a, b in silences[name])
        )
        found.append(Silence(channels, start, end))
    return found


def _open(
    end: int,
    spans: Mapping[Channel, Span | None],
    gaps: Mapping[Channel, Sequence[Span]],
    pauses: Mapping[Channel, Sequence[Span]],
) -> dict[Channel, int]:
    found: dict[Channel, int] = {}
    for name, span in spans.items():
        last = 0 if span is None else span[1]
        if last and any(a <= last and b >= end for a, b in gaps[name]):
            continue
        longest = max((b - a for a, b in pauses.get(name, ())), default=0)
        if end - last > max(PATIENCE[name], FACTOR * longest):
            found[name] = last
    return found


def _by_hour(spans: Sequence[Span]) -> dict[int, int]:
    """Return how many milliseconds of each hour since 1970 lie in the spans."""
    return {hour: length(parts) for hour, parts in cut(spans, HOUR).items()}


def _days(
    recorded: Mapping[int, int],
    throughout: Mapping[int, int],
    covered: Mapping[Channel, Mapping[int, int]],
) -> list[Day]:
    days = []
    for number in sorted({hour // 24 for hour in recorded}):
        of_day = range(number * 24, number * 24 + 24)
        hours = tuple((recorded.get(hour, 0), throughout.get(hour, 0)) for hour in of_day)
        channels = {name: sum(one.get(hour, 0) for hour in of_day) for name, one in covered.items()}
        days.append(
            Day(number, sum(a for a, _ in hours), sum(b for _, b in hours), channels, hours)
        )
    return days


def _rate(rows: Mapping[int, int], covered: Mapping[int, int]) -> Rate:
    whole = sum(covered.values())
    average = sum(rows.values()) * SECOND / whole if whole else 0.0
    rates = {
        hour: rows.get(hour, 0) * SECOND / lasted
        for hour, lasted in sorted(covered.items())
        if lasted * 2 >= HOUR
    }
    if not rates:
        return Rate(average, None, None, 0, None)
    usual = median(rates.values())
    slow = [hour for hour, rate in rates.items() if rate * _SLOW < usual]
    if usual * HOUR / SECOND < _LEAST_AN_HOUR:
        slow = []
    slowest = min(slow, key=rates.__getitem__) * HOUR if slow else None
    return Rate(average, usual, rates[max(rates)], len(slow), slowest)


def _rows_a_day(
    days: Sequence[Day],
    hours: Mapping[Channel, Mapping[int, int]],
    covered: Mapping[Channel, Mapping[int, int]],
) -> float:
    recent = {day.number for day in days[-RECENT:]}

    def recently(by_hour: Mapping[int, int]) -> int:
        return sum(n for hour, n in by_hour.items() if hour // 24 in recent)

    lasted = {name: recently(covered[name]) for name in CHANNELS}
    return sum(recently(hours[name]) * DAY / lasted[name] for name in CHANNELS if lasted[name])
