"""Numbers, times and tables as texts for people, in the terminal's plain letters."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from mexc_trio.spans import DAY, HOUR, MINUTE, SECOND

UNKNOWN: Final = "-"
WIDTH: Final = 80
"""Letters of a line, of which every terminal has so many."""


def aligned(lines: Iterable[Sequence[str]], texts: int = 1) -> list[str]:
    """Return the lines of a table: the first `texts` columns to the left, the others right."""
    cells = list(lines)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            f"{cell:<{width}}" if number < texts else f"{cell:>{width}}"
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def fitted(lines: Iterable[Sequence[str]], texts: int = 1, *, keys: int = 1) -> list[str]:
    """Return a table as `aligned` does, in parts below each other if it is wider than `WIDTH`.

    Each part begins with the first `keys` columns, by which a line is known.
    """
    cells = list(lines)
    widths = [max(map(len, column)) + 2 for column in zip(*cells, strict=True)]
    found: list[str] = []
    first = keys
    while first < len(widths):
        end, used = first, sum(widths[:keys]) - 2
        while end < len(widths) and (end == first or used + widths[end] <= WIDTH):
            used += widths[end]
            end += 1
        part = [[*line[:keys], *line[first:end]] for line in cells]
        found += [*([""] if found else []), *aligned(part, keys + max(0, min(end, texts) - first))]
        first = end
    return found


def wrapped(line: str) -> list[str]:
    """Return a sentence as lines of `WIDTH` letters; a long name or path stays whole."""
    if len(line) <= WIDTH:
        return [line]
    margin = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(
        line, WIDTH, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False
    )


def number_of(number: int, noun: str, nouns: str = "") -> str:
    """Return a number with what it counts: `1 row`, `1,200 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {nouns or noun + 's'}"


def trimmed(number: str) -> str:
    """Return digits without zeros at the end."""
    return number.rstrip("0").rstrip(".") if "." in number else number


def names(parts: Sequence[str]) -> str:
    """Return names as in a sentence: `ticker, deal or depth`."""
    return " or ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def size(number: float) -> str:
    """Return bytes with a unit."""
    if number < 1000:
        return f"{number:.0f} B"
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.95:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:,.1f} TB"


def seconds(milliseconds: int) -> str:
    """Return seconds with one decimal."""
    return f"{milliseconds / SECOND:,.1f}"


def duration_text(milliseconds: int) -> str:
    """Return a length of time in the unit that suits it: `12.0 s`, `3.5 min`, `2.0 h`, `4.1 d`."""
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if milliseconds >= 2 * unit:
            return f"{milliseconds / unit:,.1f} {name}"
    return f"{milliseconds / SECOND:.1f} s"


def percent(part: int, whole: int) -> str:
    """Return a share that says 100.0 % only of all, because it never rounds up."""
    if not whole:
        return UNKNOWN
    tenths = part * 1000 // whole
    return f"{tenths // 10}.{tenths % 10} %"


def time_text(milliseconds: int | None) -> str:
    """Return a time in UTC, to the second."""
    if milliseconds is None:
        return UNKNOWN
    try:
        return f"{datetime.fromtimestamp(milliseconds // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):  # a year that no calendar has
        return str(milliseconds)


def one_line(text: str, most: int = 200) -> str:
    """Return somebody else's words as a part of one line, at most so many letters of them.

    What is no printable sign is escaped: a log is read on a terminal.
    """
    return printable(" ".join(text[: 4 * most].split()))[:most]


def printable(text: str) -> str:
    r"""Return a text whose every sign can be seen: what would move a cursor is `\x1b`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


_CONTROLS: Final = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")


def shown(data: bytes) -> bytes:
    """Return lines of bytes as a terminal may have them; what is no UTF-8 is left as it is.

    Whoever answers in the exchange's place chooses what is in a dead letter. It moves no cursor and
    sets no title.
    """
    return _CONTROLS.sub(lambda control: printable(control[0].decode()).encode(), data)
