"""The tables that `verify` prints first: coverage of the last days, rates, what differs.

A day is a strip of 24 blocks, one an hour: `█` is covered throughout, lower blocks are parts of
that, `·` is nothing at all, and where the strip is empty the symbol was not recorded yet, or no
longer. Only an hour without the slightest gap gets the whole block.
"""

from collections.abc import Sequence
from typing import Final

from mexc_trio.analysis.coverage import Coverage, Day
from mexc_trio.rows import CHANNELS
from mexc_trio.spans import DAY
from mexc_trio.texts import (
    UNKNOWN,
    WIDTH,
    duration_text,
    fitted,
    percent,
    printable,
    time_text,
    trimmed,
)
from mexc_trio.times import day_name
from mexc_trio.verify.completeness import Different
from mexc_trio.verify.findings import SymbolFacts

DAYS: Final = 7
"""How many of the last days are shown."""
DAYS_OF_MANY: Final = 6
"""The same where each symbol has one line."""
FEW: Final = 4
"""Up to so many symbols have a line for each day; more have one line each."""
MINUTES: Final = 20
"""How many minutes that differ are shown of each symbol."""

_PARTS: Final = "▁▂▃▄▅▆▇"
_HOURS_A_BLOCK: Final = 6  # in the strip of several days


def days(symbols: Sequence[SymbolFacts]) -> list[str]:
    """Return the coverage of the last days."""
    # A symbol that has one row was recorded for no time, and so on no day.
    known = [(one.symbol, one.coverage) for one in symbols if one.coverage and one.coverage.days]
    if not known:
        return []
    if len(known) > FEW:
        return _one_line_each(known)
    lines = [["coverage", "day", "0h    6h    12h   18h    ", "recorded", "covered", *CHANNELS]]
    for symbol, coverage in known:
        for day in coverage.days[-DAYS:]:
            shares = [percent(day.channels[name], day.recorded) for name in CHANNELS]
            covered = percent(day.covered, day.recorded)
            strip = "".join(_block(*hour) for hour in day.hours)
            recorded = duration_text(day.recorded)
            lines.append([symbol, day_name(day.number * DAY), strip, recorded, covered, *shares])
        if len(coverage.days) > 1:
            strip = f"{len(coverage.days):,} days"
            covered = percent(coverage.covered, coverage.recorded)
            shares = [
                percent(sum(day.channels[name] for day in coverage.days), coverage.recorded)
                for name in CHANNELS
            ]
            lines.append([symbol, "all", strip, duration_text(coverage.recorded), covered, *shares])
    return fitted(lines, texts=3, keys=2)


def _one_line_each(known: Sequence[tuple[str, Coverage]]) -> list[str]:
    last = max(coverage.days[-1].number for _, coverage in known)
    numbers = range(last - DAYS_OF_MANY + 1, last + 1)
    titles = [day_name(number * DAY)[5:] for number in numbers]
    lines = [["coverage", *titles, "recorded", "covered"]]
    for symbol, coverage in known:
        by_number = {day.number: day for day in coverage.days[-DAYS_OF_MANY:]}
        strips = [_day_strip(by_number.get(number)) for number in numbers]
        covered = percent(coverage.covered, coverage.recorded)
        lines.append([symbol, *strips, duration_text(coverage.recorded), covered])
    return fitted(lines, texts=1 + DAYS_OF_MANY)


def _day_strip(day: Day | None) -> str:
    if day is None:
        return ""
    blocks = []
    for start in range(0, 24, _HOURS_A_BLOCK):
        some = day.hours[start : start + _HOURS_A_BLOCK]
        blocks.append(_block(sum(hour[0] for hour in some), sum(hour[1] for hour in some)))
    return "".join(blocks)


def _block(recorded: int, covered: int) -> str:
    if not recorded:
        return " "
    if covered in (0, recorded):
        return "█" if covered else "·"
    return _PARTS[covered * len(_PARTS) // recorded]


def rates(symbols: Sequence[SymbolFacts]) -> list[str]:
    """Return rows a second by channel, beside what is usual; slow hours are remarks."""
    head = ["rows a second", "channel", "average", "usual hour", "last hour", "of usual"]
    lines = [head]
    for one in symbols:
        for name, rate in one.coverage.rates.items() if one.coverage else ():
            share = UNKNOWN
            if rate.usual and rate.last is not None:
                share = f"{rate.last / rate.usual:.0%}"
            line = [_rate(rate.average), _rate(rate.usual), _rate(rate.last), share]
            lines.append([one.symbol, name, *line])
    return fitted(lines, texts=2, keys=2) if len(lines) > 1 else []


def _rate(rows: float | None) -> str:
    return UNKNOWN if rows is None else f"{rows:,.2f}"


def dead_letters(symbols: Sequence[SymbolFacts]) -> list[str]:
    """Return the commonest shapes of messages that could not be read."""
    lines = [["dead letters", "number", "how they begin, numbers as #"]]
    for one in symbols:
        lines += [[one.symbol, f"{shape.letters:,}", printable(shape.text)] for shape in one.shapes]
    if len(lines) == 1:
        return []
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    return [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c}"[:WIDTH] for a, b, c in lines]


def compared(symbols: Sequence[SymbolFacts]) -> list[str]:
    """Return what the comparison with the exchange's candles showed, minute by minute."""
    done = [(one.symbol, one.completeness) for one in symbols if one.completeness]
    if not done:
        return []
    lines = [["against the exchange", "minutes", "different", "in gaps", "from", "to"]]
    for symbol, result in done:
        inside = sum(minute.in_gap for minute in result.different)
        outside = len(result.different) - inside
        numbers = [f"{n:,}" for n in (result.minutes, outside, inside)]
        lines.append([symbol, *numbers, time_text(result.first), time_text(result.last)])
    head = ["minute", "symbol", "volume", "of", "high", "of", "low", "of", ""]
    minutes = [head]
    hidden = 0
    for symbol, result in done:
        minutes += [_minute(symbol, minute) for minute in result.different[:MINUTES]]
        hidden += len(result.different[MINUTES:])
    if len(minutes) == 1:
        return fitted(lines)
    more = [f"and {hidden:,} more; --json has them all"] if hidden else []
    return [*fitted(lines), "", *fitted(minutes, texts=2, keys=2), *more]


def _minute(symbol: str, minute: Different) -> list[str]:
    numbers = [
        UNKNOWN if one is None else trimmed(f"{getattr(one, name):f}")
        for name in ("volume", "high", "low")
        for one in (minute.recorded, minute.candle)
    ]
    inexact = minute.recorded is not None and minute.recorded.inexact
    note = "in a gap" if minute.in_gap else "too many digits" if inexact else ""
    return [time_text(minute.start), symbol, *numbers, note]
