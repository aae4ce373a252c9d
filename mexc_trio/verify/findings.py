"""What `verify` says of one symbol, in sentences: what is wrong, and what is worth a word."""

from collections.abc import Iterator, Mapping, Sequence
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
class Finding:
    """One thing that is wrong, or worth a word."""

    kind: str
    wrong: bool
    table: str
    """Empty if it is no table's."""
    text: str


@attrs.frozen
class SymbolFacts:
    """One symbol's table, as `inspection` finds it."""

    symbol: str
    """The contract; the table's name where nobody can tell."""
    table: str
    coverage: Coverage | None = None
    """None without rows."""
    backwards: Mapping[Channel, Backwards] | None = None
    """None if nobody looked."""
    repeated: Repeated | None = None
    """None if nobody looked."""
    shapes: Sequence[Shape] = ()
    """The commonest among the dead letters."""
    impossible: int = 0
    """Rows with a time that no row can have: they count for none of the above."""
    completeness: Completeness | None = None
    """None unless it was compared with the exchange's candles."""

    def wrong(self, kind: str, text: str) -> Finding:
        """Return what is wrong with it."""
        return Finding(kind, True, self.table, text)

    def remark(self, kind: str, text: str) -> Finding:
        """Return what is worth a word, and not wrong."""
        return Finding(kind, False, self.table, text)


def of_symbol(symbol: SymbolFacts) -> Iterator[Finding]:
    """Yield what is wrong with one symbol, and what is worth a word."""
    if symbol.coverage:
        yield from _silences(symbol, symbol.coverage)
    if symbol.repeated:
        yield from _repeated(symbol, symbol.repeated)
    yield from _backwards(symbol)
    for channel, rate in symbol.coverage.rates.items() if symbol.coverage else ():
        if rate.slow:
            yield symbol.remark(
                "slow",
                f"{symbol.symbol}: {number_of(rate.slow, 'hour')} with less than a fifth of the "
                f"usual {channel} rows, the slowest from {time_text(rate.slowest)}",
            )
    if symbol.impossible:
        yield symbol.remark(
            "impossible time",
            f"{symbol.symbol}: {number_of(symbol.impossible, 'row')} with an impossible time, "
            f"before 2017 or after tomorrow, as the exchange sent them; they count for no coverage",
        )
    if symbol.completeness:
        yield from _incomplete(symbol, symbol.completeness)


def _silences(symbol: SymbolFacts, covered: Coverage) -> Iterator[Finding]:
    silences = covered.unaccounted or []
    for silence in silences[:LISTED]:
        lasted = duration_text(silence.end - silence.start)
        yield symbol.wrong(
            "silence",
            f"{symbol.symbol}: no {names(silence.channels)} for {lasted} from "
            f"{time_text(silence.start)}, and no gap in the ledger says why",
        )
    if len(silences) > LISTED:
        more = number_of(len(silences) - LISTED, "more silence")
        text = f"{symbol.symbol}: {more} that no gap in the ledger accounts for"
        yield symbol.wrong("silence", text)
    for channel, since in covered.open.items():
        text = f"{symbol.symbol}: no {channel} at all"
        if since:
            ago = duration_text(covered.end - since)
            text = f"{symbol.symbol}: no {channel} since {time_text(since)}, {ago} before the end"
        yield symbol.remark("silent", text)
    for channel, at in covered.late.items():
        yield symbol.remark(
            "late",
            f"{symbol.symbol}: no {channel} before {time_text(at)}, "
            f"{duration_text(at - covered.start)} after the beginning",
        )


def _repeated(symbol: SymbolFacts, repeated: Repeated) -> Iterator[Finding]:
    if total := sum(repeated.rows.values()):
        parts = ", ".join(f"{name} {n:,}" for name, n in repeated.rows.items() if n)
        rows = ("at least " if repeated.at_least else "") + number_of(total, "row")
        yield symbol.wrong(
            "repeated",
            f"table {symbol.table} has {rows} twice ({parts}), the first of "
            f"{time_text(repeated.first)}",
        )
    if repeated.resent:
        yield symbol.remark(
            "resent",
            f"{symbol.symbol}: {number_of(repeated.resent, 'ticker or book', 'tickers or books')} "
            f"came again after a gap, as the exchange sends them to a new connection",
        )
    if repeated.alike:
        yield symbol.remark(
            "alike",
            f"{symbol.symbol}: {number_of(repeated.alike, 'deal')} like another of the same "
            f"millisecond, as one order that several others fill makes them",
        )


def _backwards(symbol: SymbolFacts) -> Iterator[Finding]:
    wrong = {name: one for name, one in (symbol.backwards or {}).items() if one.steps}
    if not wrong:
        return
    parts = ", ".join(f"{name} {one.steps:,}" for name, one in wrong.items())
    worst = max(wrong.values(), key=lambda one: one.furthest)
    yield symbol.wrong(
        "out of order",
        f"table {symbol.table} is out of order: time runs backwards "
        f"{number_of(sum(one.steps for one in wrong.values()), 'time')} ({parts}), the furthest "
        f"by {duration_text(worst.furthest)} after {time_text(worst.at)}",
    )


def _incomplete(symbol: SymbolFacts, compared: Completeness) -> Iterator[Finding]:
    if compared.failure:
        text = f"{symbol.symbol} could not be compared with the exchange: {compared.failure}"
        yield symbol.wrong("not compared", text)
        return
    if wrong := [minute for minute in compared.different if not minute.in_gap]:
        yield symbol.wrong(
            "incomplete",
            f"{symbol.symbol}: the deals of {number_of(len(wrong), 'minute')} are not what the "
            f"exchange's candles say, and no gap in the ledger says why; the first is "
            f"{time_text(wrong[0].start)}",
        )
    if known := len(compared.different) - len(wrong):
        yield symbol.remark(
            "in gaps",
            f"{symbol.symbol}: the deals of {number_of(known, 'minute')} in known gaps are not "
            f"what the exchange's candles say",
        )
