"""One day of one symbol: its minutes, its gaps, and how much of it was recorded."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from mexc_trio.analysis.coverage import BEFORE, Day, Silence, coverage
from mexc_trio.analysis.gaps import LedgerGap
from mexc_trio.analysis.insertion_order import why_not
from mexc_trio.analysis.minutes import (
    Around,
    MarkedGap,
    Minute,
    around,
    marked_gaps,
    marked_symbols,
    minutes,
    pauses,
)
from mexc_trio.analysis.survey import sizes, time_sql
from mexc_trio.clickhouse.compaction import is_beside
from mexc_trio.clickhouse.schema import GAPS, count, market_table, qualified, recorded_columns
from mexc_trio.errors import StoreRejected, UsageError
from mexc_trio.read.reading import Reader
from mexc_trio.rows import CHANNELS, Cause, Channel
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget
from mexc_trio.spans import DAY, MINUTE, Span

_COLUMNS: Final = frozenset(market_table("").column_names)
_SYMBOL: Final = re.compile(r"[A-Z0-9]+_[A-Z0-9]+")


@attrs.frozen(kw_only=True)
class Summary:
    """A symbol's day in a few numbers."""

    symbol: str
    covered: Day | None
    """As in `SymbolDay`."""
    channels: Mapping[Channel, int]
    """Rows."""
    dead: int
    """Dead letters."""
    gaps: int
    longest: int | None
    """Milliseconds of the longest gap; None without any."""
    silences: int
    """Those that no gap accounts for."""

    @property
    def rows(self) -> int:
        """All rows of the day."""
        return sum(self.channels.values()) + self.dead


@attrs.frozen(kw_only=True)
class SymbolDay:
    """What was recorded of a symbol on one day, in UTC."""

    symbol: str
    start: int
    """The day's first millisecond since 1970."""
    minutes: Mapping[int, Minute]
    """By minute of the day, 0 to 1,439; minutes without rows are left out."""
    pauses: Mapping[int, int] | None
    """The longest pause that ended in each minute, in milliseconds; None where it is not known."""
    why_no_pauses: str
    """Why it is not known; empty if it is."""
    gaps: Sequence[MarkedGap]
    """Those of the ledger that touch the day, oldest first, with their own ends."""
    unaccounted: Sequence[Silence]
    """Silences that no gap accounts for and that touch the day; see `analysis.coverage`."""
    covered: Day | None
    """How much was recorded; None if the day lies before the first row or after the last."""
    bytes_a_row: float | None
    """What a row of the table takes on disk on average; None where the size is not known."""

    @property
    def rows(self) -> int:
        """All rows of the day."""
        return sum(minute.total for minute in self.minutes.values())

    def summary(self) -> Summary:
        """Return the day without its minutes, of which a thousand symbols have many."""
        minutes = self.minutes.values()
        return Summary(
            symbol=self.symbol,
            covered=self.covered,
            channels={name: sum(one.rows[name] for one in minutes) for name in CHANNELS},
            dead=sum(one.dead for one in minutes),
            gaps=len(self.gaps),
            longest=max((gap.end - gap.start for gap in self.gaps), default=None),
            silences=len(self.unaccounted),
        )


@attrs.frozen
class Daily:
    """Looks at the days of a store's symbols."""

    reader: Reader
    symbols: Mapping[str, str]
    """The symbols that were chosen, and their tables."""
    _settings: Settings
    _tables: Mapping[str, Mapping[str, str]]
    _ledger: Mapping[str, Sequence[str]]
    """The ledger's names for each table."""
    _why_no_pauses: str

    def of(self, symbol: str, start: int) -> SymbolDay:
        """Read one symbol's day that begins at `start`, milliseconds since 1970.

        Raises:
            StoreError: there was no answer.
        """
        table = self.symbols[symbol]
        source, ts = qualified(self.reader, table), time_sql("ts", self._tables[table]["ts"])
        end = start + DAY
        # What went before tells the rhythm, by which a silence is usual or not.
        span = (start - BEFORE, end)
        by_minute = minutes(self.reader, source, ts, span)
        known = around(self.reader, source, ts, span)
        first = start // MINUTE
        longest = None
        if not self._why_no_pauses:
            longest = {
                number - first: pause
                for number, pause in pauses(self.reader, source, ts, span).items()
                if number >= first
            }
        ledger = self._gaps(table, symbol)
        covered, unaccounted = _covered(known, by_minute, ledger, (start, end))
        return SymbolDay(
            symbol=symbol,
            start=start,
            minutes={n - first: minute for n, minute in by_minute.items() if n >= first},
            pauses=longest,
            why_no_pauses=self._why_no_pauses,
            gaps=[gap for gap in ledger if gap.start < end and gap.end >= start],
            unaccounted=unaccounted,
            covered=covered,
            bytes_a_row=self._bytes_a_row(table),
        )

    def recorded(self) -> Span | None:
        """Return the times of the first and the last row of the chosen symbols; None without any.

        Raises:
            StoreError: there was no answer.
        """
        spans = [
            one.span
            for table in self.symbols.values()
            for one in around(
                self.reader,
                qualified(self.reader, table),
                time_sql("ts", self._tables[table]["ts"]),
                (0, 0),
            ).values()
        ]
        return (min(a for a, _ in spans), max(b for _, b in spans)) if spans else None

    def _gaps(self, table: str, symbol: str) -> list[MarkedGap]:
        if GAPS.name not in self._tables:
            return []
        names = list(dict.fromkeys([*self._ledger.get(table, ()), symbol, table]))
        source = qualified(self.reader, GAPS.name)
        return marked_gaps(self.reader, source, self._tables[GAPS.name], names)

    def _bytes_a_row(self, table: str) -> float | None:
        target = self._settings.store
        directory: Path | None = None
        if isinstance(target, EmbeddedTarget):
            directory = target.directory
        known, rows = sizes(self.reader, directory).get(table), count(self.reader, table)
        return known.total / rows if known and rows else None


def choose(reader: Reader, settings: Settings, symbols: Sequence[str]) -> Daily:
    """Find the tables of these symbols; without any, all that there are.

    Raises:
        UsageError: a symbol was never recorded in this store, or nothing at all was.
        StoreError: there was no answer.
    """
    found = recorded_columns(reader)
    ours = {name: types for name, types in found.items() if types.keys() >= _COLUMNS}
    marked = marked_symbols(reader, qualified(reader, GAPS.name)) if GAPS.name in found else []
    ledger: dict[str, list[str]] = {}
    for symbol in dict.fromkeys([*settings.overrides, *settings.symbols, *marked]):
        if _SYMBOL.fullmatch(symbol):
            ledger.setdefault(settings.for_symbol(symbol).table, []).append(symbol)
    chosen = {symbol: settings.for_symbol(symbol).table for symbol in symbols}
    for symbol, table in chosen.items():
        if table not in ours:
            there = ", ".join(sorted(ours)[:20])
            raise UsageError(
                f"{symbol} was not recorded in {reader.name}: there is no table {table}"
                + (f"; there are {there}" if there else "")
            )
    if not symbols:
        tables = [name for name in sorted(ours) if not is_beside(name)]
        chosen = {_symbol_of(table, settings, ledger): table for table in tables}
    if not chosen:
        raise StoreRejected(f"{reader.name} has no tables of symbols to report on")
    return Daily(reader, chosen, settings, found, ledger, why_not(reader))


def _symbol_of(table: str, settings: Settings, ledger: Mapping[str, Sequence[str]]) -> str:
    """Return whose table it is: as the ledger or the settings say, else by its name."""
    if table in ledger:
        return ledger[table][0]
    for symbol in (f"{table}_usdt".upper(), table.upper()):
        if _SYMBOL.fullmatch(symbol) and settings.for_symbol(symbol).table == table:
            return symbol
    return table


def _covered(
    known: Mapping[Channel, Around],
    by_minute: Mapping[int, Minute],
    ledger: Sequence[MarkedGap],
    day: Span,
) -> tuple[Day | None, list[Silence]]:
    """Return how much of the day was recorded, and its silences that nothing accounts for.

    A pause that is long enough to matter ends in another minute than it began, so the first and
    last rows of the minutes tell all of them.
    """
    found = coverage(
        {name: known[name].span if name in known else None for name in CHANNELS},
        {name: {} for name in CHANNELS},
        {name: _pauses(name, known.get(name), by_minute) for name in CHANNELS},
        [
            LedgerGap(
                gap.channel, gap.start, gap.end, gap.cause == Cause.CHANNEL_SILENT, gap.filled_from
            )
            for gap in ledger
        ],
    )
    if found is None:
        return None, []
    days = {one.number: one for one in found.days}
    unaccounted = [
        silence
        for silence in found.unaccounted or ()
        if silence.start < day[1] and silence.end > day[0]
    ]
    return days.get(day[0] // DAY), unaccounted


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
