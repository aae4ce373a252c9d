"""What was recorded, in numbers: the blocks that the user reads on standard output."""

import time
from collections import Counter
from collections.abc import Sequence

import attrs

from mexc_trio.channels import BY_TYPE
from mexc_trio.clickhouse.tables import TableEngine
from mexc_trio.rows import DEAD_LETTER, DEAL, DEPTH, MESSAGE_TYPES, OPTIONAL_TYPES, TICKER

RULE = "=" * 50
MOST_BLOCKS = 4
"""Up to so many symbols have a block each; more share a table."""
LATE = 5.0
"""Seconds after which rows that wait for the store are worth a word."""
MOST_LINES = 20
"""Symbols in the table of an interval: the troubled and the busiest. All are in the final one."""


@attrs.define
class Counts:
    """Counters of one symbol; two of them subtract to those of an interval."""

    appended: Counter[str] = attrs.field(
        factory=lambda: Counter(dict.fromkeys((*MESSAGE_TYPES, *OPTIONAL_TYPES), 0))
    )
    """Rows that the store has acknowledged, by message type; nothing else counts."""
    skipped: int = 0
    """Frames that held nothing to record."""
    errors: int = 0
    """Errors of the connection; with several lines, of the last one that was left."""
    covered: int = 0
    """Losses of a line while another had the symbol: without a gap."""

    @property
    def total(self) -> int:
        """All rows that the store has acknowledged."""
        return self.appended.total()

    def copy(self) -> "Counts":
        """Return the counters as they are now."""
        return attrs.evolve(self, appended=self.appended.copy())

    def since(self, before: "Counts") -> "Counts":
        """Return what was counted after `before` was copied."""
        appended = self.appended.copy()
        appended.subtract(before.appended)
        return Counts(
            appended,
            self.skipped - before.skipped,
            self.errors - before.errors,
            self.covered - before.covered,
        )


@attrs.frozen
class SymbolStats:
    """What there is to say of one symbol for one interval."""

    symbol: str
    table: str
    counts: Counts
    backlog: int
    """Rows in the journal that the store has not acknowledged."""
    waiting: float
    """Seconds since the oldest of them was received."""
    gaps: int
    """Gaps written in this run."""
    lines: tuple[int, int] = (1, 1)
    """Its lines that are connected, and how many there are."""
    engine: TableEngine = TableEngine.STRIPELOG

    @property
    def trouble(self) -> float:
        """How much is wrong; 0 for nothing."""
        late = self.waiting if self.waiting > LATE else 0.0
        return self.counts.errors + self.counts.appended[DEAD_LETTER] + late


def statistics(symbols: Sequence[SymbolStats], seconds: float, *, final: bool = False) -> str:
    """Return the statistics of an interval or, if they are `final`, of the whole run."""
    when = f"Final, {elapsed(seconds)}" if final else f"Last {seconds:.0f}s"
    if len(symbols) <= MOST_BLOCKS:
        return "\n".join(_block(one, when, seconds, final=final) for one in symbols)
    return _table(symbols, when, seconds, symbols if final else _most_telling(symbols))


def _most_telling(symbols: Sequence[SymbolStats]) -> Sequence[SymbolStats]:
    """Return as many as there is room for, in their order: half of it for the troubled."""
    if len(symbols) <= MOST_LINES:
        return symbols
    troubled = sorted((one for one in symbols if one.trouble), key=lambda one: -one.trouble)
    busiest = sorted(symbols, key=lambda one: -one.counts.total)
    chosen = {one.symbol for one in troubled[: MOST_LINES // 2]}
    for one in busiest:
        if len(chosen) == MOST_LINES:
            break
        chosen.add(one.symbol)
    return [one for one in symbols if one.symbol in chosen]


def _block(one: SymbolStats, when: str, seconds: float, *, final: bool) -> str:
    counts = one.counts
    path = data_file(one.table, one.engine)
    parts = [
        RULE,
        f"{one.symbol} STATISTICS ({when})",
        RULE,
        f"Total Records Appended: {counts.total}",
        f"Ticker Messages: {counts.appended[TICKER]} → {path}",
        f"Deal Messages: {counts.appended[DEAL]} → {path}",
        f"Depth Messages: {counts.appended[DEPTH]} → {path}",
    ]
    parts += [
        f"{BY_TYPE[mt].capitalize()} Messages: {counts.appended[mt]} → {path}"
        for mt in OPTIONAL_TYPES
        if counts.appended[mt]
    ]
    if counts.appended[DEAD_LETTER]:
        parts.append(f"Dead Letters: {counts.appended[DEAD_LETTER]} → {path}")
    parts += [f"Skipped Messages: {counts.skipped}", f"Errors: {counts.errors}"]
    if one.lines[1] > 1:
        parts.append("Lines: {} of {} connected, {} lost".format(*one.lines, counts.covered))
    if one.backlog and (final or one.waiting > LATE):
        parts.append(f"Backlog: {one.backlog} rows, the oldest {elapsed(one.waiting)} old")
    if one.gaps:
        parts.append(f"Gaps: {one.gaps} in this run → gaps table")
    parts += [f"Rate: {_rate(counts.total, seconds):.2f} records/sec", RULE]
    return "\n".join(parts)


def data_file(table: str, engine: TableEngine) -> str:
    """Return where rows go, for people: a StripeLog table is one file, others are many."""
    return f"{table}/data.bin" if engine is TableEngine.STRIPELOG else f"table {table}"


def _table(
    symbols: Sequence[SymbolStats], when: str, seconds: float, shown: Sequence[SymbolStats]
) -> str:
    width = max(len("symbol"), *(len(one.symbol) for one in symbols))
    head = (
        f"{'symbol':<{width}} {'appended':>10} {'ticker':>8} {'deal':>9} {'depth':>9} {'dead':>6} "
        f"{'skipped':>7} {'errors':>6} {'backlog':>8} {'gaps':>5} {'rec/sec':>8}"
    )
    rows = [_table_line(one, width, seconds) for one in shown]
    if len(shown) < len(symbols):
        troubled = sum(1 for one in symbols if one.trouble)
        rows.append(f"and {len(symbols) - len(shown)} more; {troubled} of all have errors or wait")
    total = Counts()
    for one in symbols:
        total.appended.update(one.counts.appended)
        total.skipped += one.counts.skipped
        total.errors += one.counts.errors
    everything = SymbolStats(
        "all",
        "",
        total,
        sum(one.backlog for one in symbols),
        max(one.waiting for one in symbols),
        sum(one.gaps for one in symbols),
    )
    title = f"STATISTICS ({when}), {len(symbols)} symbols"
    return "\n".join(
        [RULE, title, RULE, head, *rows, _table_line(everything, width, seconds), RULE]
    )


def _table_line(one: SymbolStats, width: int, seconds: float) -> str:
    counts = one.counts
    by_type = counts.appended
    return (
        f"{one.symbol:<{width}} {counts.total:>10} {by_type[TICKER]:>8} {by_type[DEAL]:>9} "
        f"{by_type[DEPTH]:>9} {by_type[DEAD_LETTER]:>6} {counts.skipped:>7} {counts.errors:>6} "
        f"{one.backlog:>8} {one.gaps:>5} {_rate(counts.total, seconds):>8.2f}"
    )


def _rate(rows: int, seconds: float) -> float:
    return rows / seconds if seconds > 0 else 0.0


def elapsed(seconds: float) -> str:
    """Return how long something took or goes on: `3d 04:05:06`, `04:05:06` or `12s`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    days, rest = divmod(whole, 86400)
    clock = time.strftime("%H:%M:%S", time.gmtime(rest))
    return f"{days}d {clock}" if days else clock
