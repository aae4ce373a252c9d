"""The ledger of gaps, read: how many for which cause, the longest, and all of a symbol.

What asks the store raises StoreError where there is no answer.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from mexc_trio.analysis.survey import Survey, survey
from mexc_trio.clickhouse.schema import Readable, literal, milliseconds, quoted
from mexc_trio.clickhouse.tables import GAPS, Table
from mexc_trio.filled import DEALS_SQL, FILLED_SQL, FIRST_SQL, WHOLE_SQL, Filled
from mexc_trio.rows import Channel
from mexc_trio.spans import Span, union, without

LONGEST: Final = 5
"""How many of the longest gaps are told one by one."""

_NOTHING: Final = [
    f"defaultValueOfTypeName({literal(type_)}) AS {quoted(name)}" for name, type_ in GAPS.columns
]
NO_GAPS: Final = f"(SELECT {', '.join(_NOTHING)} LIMIT 0)"
"""The SQL for a ledger without rows, to stand behind FROM where there is none."""

_START: Final = milliseconds("from")
_END: Final = milliseconds("to")


@attrs.frozen
class GapsOfACause:
    """The gaps that one symbol has for one cause."""

    symbol: str
    cause: str
    gaps: int
    longest: int
    """Milliseconds."""


@attrs.frozen
class FoundGap:
    """One gap; times in milliseconds since 1970."""

    symbol: str
    channels: tuple[str, ...]
    """More than one if they have it at the same time for the same cause."""
    start: int
    end: int
    cause: str
    detail: str


@attrs.frozen
class LedgerGap:
    """A gap of a symbol as the ledger has it; times in milliseconds since 1970."""

    channel: str
    """A `Channel`, or `all`."""
    start: int
    end: int
    cause: str
    filled_from: int | None = None
    """From when on its deals were fetched afterwards; None if they were not."""


@attrs.frozen
class FilledGaps:
    """Gaps in deals of which deals were fetched afterwards."""

    gaps: int
    whole: int
    """Those of them of which nothing is missing any more."""
    deals: int


@attrs.frozen
class GapSummary:
    """What the ledger says of the symbols that were asked for."""

    table: Survey
    causes: Sequence[GapsOfACause]
    longest: Sequence[FoundGap]
    filled: FilledGaps = FilledGaps(0, 0, 0)


def read_gaps(
    store: Readable, types: Mapping[str, str], symbols: Sequence[str], directory: Path | None = None
) -> GapSummary:
    """Read the ledger in full; tell of the gaps of some symbols, or of all if none is named.

    A gap that was found while the symbol was not recorded bears the name of the table. `types` are
    those of the ledger's columns there. `directory` is the embedded store's, where the files can be
    looked at; None for a server.
    """
    whole = Table(GAPS.name, tuple(types.items()))
    table = survey(store, whole, "cause", ("from", "to"), directory)
    if not table.rows:
        return GapSummary(table, [], [])
    where = f"WHERE {_of_symbols(symbols)}" if symbols else ""
    causes = store.query(
        f"SELECT symbol, cause, count(), max({_END} - {_START}) FROM {table.source} {where} "
        f"GROUP BY symbol, cause ORDER BY symbol, cause"
    )
    # One outage is a gap in each channel, and must not fill the list three times.
    longest = store.query(
        f"SELECT symbol, channel, {_START} AS a, {_END} AS b, cause, detail FROM {table.source} "
        f"{where} ORDER BY b - a DESC, a, symbol, channel LIMIT {LONGEST * 4}"
    )
    filled = store.query(
        f"SELECT count(), countIf({WHOLE_SQL}), sum({DEALS_SQL}) FROM {table.source} "
        f"WHERE {FILLED_SQL}{f' AND {_of_symbols(symbols)}' if symbols else ''}"
    )[0]
    return GapSummary(
        table,
        [GapsOfACause(symbol, cause, int(n), int(ms)) for symbol, cause, n, ms in causes],
        _merged(
            [FoundGap(s, (c,), int(a), int(b), why, text) for s, c, a, b, why, text in longest]
        ),
        FilledGaps(*map(int, filled)),
    )


def ledger_names(store: Readable, source: str) -> list[str]:
    """Return whose gaps the ledger has: symbols, and names of tables.

    `source` is the SQL for the ledger, to stand behind FROM.
    """
    found = store.query(f"SELECT DISTINCT symbol FROM {source} ORDER BY symbol")
    return [str(symbol) for (symbol,) in found]


def ledger_gaps(store: Readable, source: str, names: Sequence[str]) -> list[LedgerGap]:
    """Return all gaps of one symbol, oldest first, by the names that it goes under.

    `source` is the SQL for the ledger, to stand behind FROM.
    """
    found = store.query(
        f"SELECT channel, {_START} AS a, {_END} AS b, cause, if({FILLED_SQL}, detail, '') "
        f"FROM {source} WHERE {_of_symbols(names)} ORDER BY a, b, channel"
    )
    gaps = []
    for channel, a, b, cause, text in found:
        filled = Filled.of(text)
        since = None if filled is None else filled.since(int(a))
        gaps.append(LedgerGap(str(channel), int(a), int(b), str(cause), since))
    return gaps


def fills_sql(source: str, names: Sequence[str]) -> str:
    """Return the SELECT for the first deals that were fetched for gaps, in milliseconds."""
    return (
        f"SELECT toUnixTimestamp64Milli(parseDateTime64BestEffortOrZero({FIRST_SQL}, 3, 'UTC')) "
        f"FROM {source} WHERE {_of_symbols(names)} AND {FILLED_SQL}"
    )


def starts_sql(source: str, names: Sequence[str], channel: Channel) -> str:
    """Return the SELECT for the starts of one channel's gaps in milliseconds."""
    where = f"{_of_symbols(names)} AND channel IN ('{channel}', 'all')"
    return f"SELECT {_START} FROM {source} WHERE {where}"


def gaps_of(ledger: Iterable[LedgerGap], channel: Channel) -> list[Span]:
    """Return a channel's gaps, in order and without overlaps."""
    return union((h.start, h.end) for h in ledger if h.channel in (channel, "all"))


def missed(ledger: Iterable[LedgerGap], channel: Channel) -> list[Span]:
    """Return a channel's gaps without the time that was filled afterwards."""
    gaps = [gap for gap in ledger if gap.channel in (channel, "all")]
    filled = union(
        (gap.filled_from, gap.end)
        for gap in gaps
        if gap.channel == channel and gap.filled_from is not None
    )
    left = []
    for gap in gaps:
        span = gap.start, gap.end
        # The store's own gaps are in all channels: it may have lost what was filled as well.
        left += [span] if gap.channel == "all" else without(span, near(filled, span))
    return union(left)


def near(gaps: Sequence[Span], span: Span) -> Sequence[Span]:
    """Return those of the ordered gaps that can overlap the span."""
    first = bisect_right(gaps, span[0], key=lambda gap: gap[1])
    return gaps[first : bisect_left(gaps, span[1], key=lambda gap: gap[0])]


def _of_symbols(symbols: Sequence[str]) -> str:
    return f"symbol IN ({', '.join(map(literal, symbols))})"


def _merged(found: Sequence[FoundGap]) -> list[FoundGap]:
    """Return the gaps, longest first, those of several channels at one time as one."""
    merged: list[FoundGap] = []
    for gap in found:
        for number, known in enumerate(merged):
            if (
                (gap.symbol, gap.cause) == (known.symbol, known.cause)
                and not set(gap.channels) & set(known.channels)
                and gap.start < known.end
                and known.start < gap.end
            ):
                merged[number] = attrs.evolve(
                    known,
                    channels=known.channels + gap.channels,
                    start=min(known.start, gap.start),
                    end=max(known.end, gap.end),
                )
                break
        else:
            merged.append(gap)
    return merged[:LONGEST]
