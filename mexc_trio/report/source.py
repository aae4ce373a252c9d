"""Reads ranges of symbols: steps, gaps, and how much of them was recorded."""

from collections.abc import Iterable, Mapping, Sequence

import attrs

from mexc_trio.analysis.coverage import Silence, coverage
from mexc_trio.analysis.gaps import NO_GAPS, LedgerGap, ledger_gaps, ledger_names
from mexc_trio.analysis.insertion_order import why_not
from mexc_trio.analysis.minutes import Around, Minute, around, minutes, pauses
from mexc_trio.analysis.survey import sizes
from mexc_trio.clickhouse.compaction import is_leftover
from mexc_trio.clickhouse.schema import count, qualified
from mexc_trio.clickhouse.tables import GAPS, MARKET_COLUMNS, is_numbered
from mexc_trio.errors import StoreRejected
from mexc_trio.read.owners import Owners, find_owners, recorded_columns
from mexc_trio.read.reading import Reader
from mexc_trio.read.selecting import not_recorded
from mexc_trio.report.recorded import MOST_STEPS, STEPS, Recorded, Share
from mexc_trio.rhythm import BEFORE
from mexc_trio.rows import CHANNELS, Channel
from mexc_trio.settings import Settings
from mexc_trio.spans import MINUTE, Span


@attrs.frozen
class RangeReader:
    """Looks at ranges of a store's symbols; StoreError where the store does not answer."""

    reader: Reader
    symbols: Mapping[str, str]
    _settings: Settings
    _tables: Mapping[str, Mapping[str, str]]
    _ledger: str
    """The SQL for the ledger of gaps, to stand behind FROM."""
    _owners: Owners
    _why_no_pauses: str

    def of(self, symbol: str, span: Span) -> Recorded:
        """Read one symbol's range."""
        table = self.symbols[symbol]
        source = qualified(self.reader, table)
        # What went before tells the rhythm, by which a silence is usual or not.
        longer = (span[0] - BEFORE, span[1])
        known = around(self.reader, source, longer)
        fitted, step = _fitted(span, [one.span for one in known.values()])
        first, last = fitted[0] // step, fitted[1] // step
        steps = minutes(self.reader, source, longer, step)
        # Of longer steps the first and last rows do not tell every pause that matters.
        finer = steps if step <= MINUTE else minutes(self.reader, source, longer)
        longest = None
        if not self._why_no_pauses:
            numbered = is_numbered(self._tables[table])
            longest = {
                number - first: pause
                for number, pause in pauses(
                    self.reader, source, longer, step, numbered=numbered
                ).items()
                if first <= number < last
            }
        names = [*self._owners.names_of(table), symbol]
        ledger = ledger_gaps(self.reader, self._ledger, names)
        share, unaccounted = _share(known, finer, ledger, span)
        return Recorded(
            symbol=symbol,
            start=fitted[0],
            end=fitted[1],
            step=step,
            steps={n - first: one for n, one in steps.items() if first <= n < last},
            pauses=longest,
            why_no_pauses=self._why_no_pauses,
            gaps=[gap for gap in ledger if gap.start < span[1] and gap.end >= span[0]],
            unaccounted=unaccounted,
            share=share,
            bytes_a_row=self._bytes_a_row(table),
        )

    def recorded(self) -> Span | None:
        """Return the times of the chosen symbols' first and last rows; None without any."""
        spans = [
            one.span
            for table in self.symbols.values()
            for one in around(self.reader, qualified(self.reader, table), (0, 0)).values()
        ]
        return (min(a for a, _ in spans), max(b for _, b in spans)) if spans else None

    def _bytes_a_row(self, table: str) -> float | None:
        known = sizes(self.reader, self._settings.store.directory).get(table)
        rows = count(self.reader, table)
        return known.total / rows if known and rows else None


def choose(reader: Reader, settings: Settings, symbols: Sequence[str]) -> RangeReader:
    """Find the tables of these symbols; without any, all that there are.

    Raises UsageError if a symbol was never recorded in this store, or nothing at all was.
    """
    found = recorded_columns(reader)
    ours = {name: types for name, types in found.items() if types.keys() >= MARKET_COLUMNS}
    ledger = qualified(reader, GAPS.name) if GAPS.name in found else NO_GAPS
    owners = find_owners(settings, ledger_names(reader, ledger))
    chosen = {symbol: settings.for_symbol(symbol).table for symbol in symbols}
    for symbol, table in chosen.items():
        if table not in ours:
            raise not_recorded(reader, symbol, table, ours)
    if not symbols:
        tables = [name for name in sorted(ours) if not is_leftover(name)]
        chosen = {owners.symbol_of(table): table for table in tables}
    if not chosen:
        raise StoreRejected(f"{reader.name} has no tables of symbols to report on")
    return RangeReader(reader, chosen, settings, found, ledger, owners, why_not(reader))


def _fitted(span: Span, rows: Sequence[Span]) -> tuple[Span, int]:
    """Return the part of a range in which there can be rows, in whole steps, and the step."""
    start, end = span
    if rows:
        first, last = min(a for a, _ in rows), max(b for _, b in rows) + 1
        if first < end and last > start:
            start, end = max(start, first), min(end, last)
    long_enough = (step for step in STEPS if end - start <= step * MOST_STEPS)
    step = next(long_enough, STEPS[-1])
    return (start // step * step, -(-end // step) * step), step


def _share(
    known: Mapping[Channel, Around],
    by_minute: Mapping[int, Minute],
    ledger: Sequence[LedgerGap],
    span: Span,
) -> tuple[Share, list[Silence]]:
    """Return how much of a range was recorded, and its silences that nothing accounts for.

    A pause that is long enough to matter ends in another minute than it began, so the first and
    last rows of the minutes tell all of them.
    """
    found = coverage(
        {name: known[name].span if name in known else None for name in CHANNELS},
        {name: {} for name in CHANNELS},
        {name: _pauses(name, known.get(name), by_minute) for name in CHANNELS},
        ledger,
    )
    if found is None:
        return Share(), []
    unaccounted = [
        silence
        for silence in found.unaccounted or ()
        if silence.start < span[1] and silence.end > span[0]
    ]
    recorded = _within([(found.start, found.end)], span)
    return Share(recorded, _within(found.covered_spans, span)), unaccounted


def _within(spans: Iterable[Span], span: Span) -> int:
    """Return how many milliseconds of ordered spans lie in another one."""
    return sum(max(0, min(end, span[1]) - max(start, span[0])) for start, end in spans)


def _pauses(channel: Channel, known: Around | None, by_minute: Mapping[int, Minute]) -> list[Span]:
    """Return the times between the last row of a minute and the first of the next that has any."""
    found: list[Span] = []
    if known is None:
        return found
    last = known.before
    spans = [minute.spans[channel] for minute in by_minute.values() if channel in minute.spans]
    if known.after is not None:
        spans.append((known.after, known.after))
    for start, end in spans:
        if last is not None:
            found.append((last, start))
        last = end
    return found
