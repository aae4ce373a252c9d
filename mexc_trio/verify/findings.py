"""What `verify` says of one symbol, in sentences: what is wrong, and what is worth a word."""

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from mexc_trio.analysis.coverage import Coverage
from mexc_trio.analysis.insertion_order import Backwards, Repeated
from mexc_trio.analysis.row_counts import Shape
from mexc_trio.rows import Channel
from mexc_trio.texts import duration_text, names, number_of, time_text
from mexc_trio.verify.completeness import Completeness

LISTED: Final = 5
"""So many silences have a sentence each."""


@attrs.frozen
class SymbolFacts:
    """One symbol's table, as `inspection` finds it."""

    symbol: str
    """The contract; the table's name where nobody can tell."""
    table: str
    coverage: Coverage | None
    """None without rows."""
    backwards: Mapping[Channel, Backwards] | None
    """None if nobody looked."""
    repeated: Repeated | None
    """None if nobody looked."""
    shapes: Sequence[Shape]
    """The commonest among the dead letters."""
    impossible: int
    """Rows with a time that no row can have: they count for none of the above."""
    completeness: Completeness | None = None
    """None unless it was compared with the exchange's candles."""


@attrs.frozen
class Finding:
    """One thing that is wrong, or worth a word."""

    kind: str
    wrong: bool
    table: str
    """Empty if it is no table's."""
    text: str


def of_symbol(symbol: SymbolFacts) -> list[Finding]:
    """Return what is wrong with one symbol, and what is worth a word."""
    found = [*_silences(symbol), *_repeated(symbol), *_backwards(symbol), *_slow(symbol)]
    if symbol.impossible:
        text = (
            f"{symbol.symbol}: {number_of(symbol.impossible, 'row')} with an impossible time, "
            f"before 2017 or after tomorrow, as the exchange sent them; they count for no coverage"
        )
        found.append(Finding("impossible time", False, symbol.table, text))
    return [*found, *(_incomplete(symbol, symbol.completeness) if symbol.completeness else [])]


def _silences(symbol: SymbolFacts) -> list[Finding]:
    covered = symbol.coverage
    if covered is None:
        return []
    found = []
    silences = covered.unaccounted or []
    for silence in silences[:LISTED]:
        lasted = duration_text(silence.end - silence.start)
        text = (
            f"{symbol.symbol}: no {names(silence.channels)} for {lasted} from "
            f"{time_text(silence.start)}, and no gap in the ledger says why"
        )
        found.append(Finding("silence", True, symbol.table, text))
    if len(silences) > LISTED:
        more = number_of(len(silences) - LISTED, "more silence")
        text = f"{symbol.symbol}: {more} that no gap in the ledger accounts for"
        found.append(Finding("silence", True, symbol.table, text))
    for channel, since in covered.open.items():
        text = f"{symbol.symbol}: no {channel} at all"
        if since:
            ago = duration_text(covered.end - since)
            text = f"{symbol.symbol}: no {channel} since {time_text(since)}, {ago} before the end"
        found.append(Finding("silent", False, symbol.table, text))
    for channel, at in covered.late.items():
        text = (
            f"{symbol.symbol}: no {channel} before {time_text(at)}, "
            f"{duration_text(at - covered.start)} after the beginning"
        )
        found.append(Finding("late", False, symbol.table, text))
    return found


def _repeated(symbol: SymbolFacts) -> list[Finding]:
    repeated = symbol.repeated
    if repeated is None:
        return []
    found = []
    if total := sum(repeated.rows.values()):
        parts = ", ".join(f"{name} {n:,}" for name, n in repeated.rows.items() if n)
        rows = ("at least " if repeated.at_least else "") + number_of(total, "row")
        text = (
            f"table {symbol.table} has {rows} twice ({parts}), the first of "
            f"{time_text(repeated.first)}"
        )
        found.append(Finding("repeated", True, symbol.table, text))
    if repeated.resent:
        text = (
            f"{symbol.symbol}: {number_of(repeated.resent, 'ticker or book', 'tickers or books')} "
            f"came again after a gap, as the exchange sends them to a new connection"
        )
        found.append(Finding("resent", False, symbol.table, text))
    if repeated.alike:
        text = (
            f"{symbol.symbol}: {number_of(repeated.alike, 'deal')} like another of the same "
            f"millisecond, as one order that several others fill makes them"
        )
        found.append(Finding("alike", False, symbol.table, text))
    return found


def _backwards(symbol: SymbolFacts) -> list[Finding]:
    wrong = {name: one for name, one in (symbol.backwards or {}).items() if one.steps}
    if not wrong:
        return []
    parts = ", ".join(f"{name} {one.steps:,}" for name, one in wrong.items())
    worst = max(wrong.values(), key=lambda one: one.furthest)
    text = (
        f"table {symbol.table} is out of order: time runs backwards "
        f"{number_of(sum(one.steps for one in wrong.values()), 'time')} ({parts}), the furthest "
        f"by {duration_text(worst.furthest)} after {time_text(worst.at)}"
    )
    return [Finding("out of order", True, symbol.table, text)]


def _slow(symbol: SymbolFacts) -> list[Finding]:
    if symbol.coverage is None:
        return []
    return [
        Finding(
            "slow",
            False,
            symbol.table,
            f"{symbol.symbol}: {number_of(rate.slow, 'hour')} with less than a fifth of the usual "
            f"{channel} rows, the slowest from {time_text(rate.slowest)}",
        )
        for channel, rate in symbol.coverage.rates.items()
        if rate.slow
    ]


def _incomplete(symbol: SymbolFacts, compared: Completeness) -> list[Finding]:
    if compared.failure:
        text = f"{symbol.symbol} could not be compared with the exchange: {compared.failure}"
        return [Finding("not compared", True, symbol.table, text)]
    found = []
    if wrong := [minute for minute in compared.different if not minute.in_gap]:
        text = (
            f"{symbol.symbol}: the deals of {number_of(len(wrong), 'minute')} are not what the "
            f"exchange's candles say, and no gap in the ledger says why; the first is "
            f"{time_text(wrong[0].start)}"
        )
        found.append(Finding("incomplete", True, symbol.table, text))
    if known := len(compared.different) - len(wrong):
        text = (
            f"{symbol.symbol}: the deals of {number_of(known, 'minute')} in known gaps are not "
            f"what the exchange's candles say"
        )
        found.append(Finding("in gaps", False, symbol.table, text))
    return found
