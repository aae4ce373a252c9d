"""The live screen's layout: what fills a terminal of so many columns and lines."""

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mexc_trio.record.stats import elapsed
from mexc_trio.screen.picture import HISTORY, Picture, SymbolPicture
from mexc_trio.texts import UNKNOWN, printable, size

_LATE: Final = 10.0
_VERY_LATE: Final = 60.0  # seconds of delay that are shown in a colour
_LEAST_SPARKLINE: Final = 8  # columns of one that is worth its place
_HEAD: Final = 3  # lines above the table
_LOG: Final = 4  # lines that the log has at least, if there is a log and symbols are many

_TITLES: Final = {
    "symbol": "symbol", "price": "price", "ticker": "ticker/s", "deal": "deal/s",
    "depth": "depth/s", "rate": "rows/s", "delay": "delay", "backlog": "backlog", "gaps": "gaps",
    "errors": "errors", "size": "disk",
}  # fmt: skip
# From the widest to the narrowest.
_LAYOUTS: Final = tuple(
    tuple(layout.split())
    for layout in (
        "symbol price ticker deal depth line delay backlog gaps errors size",
        "symbol price ticker deal depth line delay backlog gaps errors",
        "symbol price rate line delay backlog gaps errors size",
        "symbol price rate line delay backlog gaps errors",
        "symbol price rate line delay backlog gaps",
        "symbol price rate delay backlog gaps",
        "symbol price rate delay",
        "symbol price rate",
    )
)


def draw(picture: Picture, log: Sequence[str], width: int, height: int) -> RenderableType:
    """Return what fills a terminal of so many columns and lines.

    `log` has the last lines that others have written.
    """
    many = len(picture.symbols) > 1
    # Beside the symbols there are a blank line, the titles, the sum, and a part of the log.
    lines_of_log = min(_LOG, (height - _HEAD) // 4) if log else -1
    room = height - _HEAD - 2 - many - lines_of_log - 1
    shown = picture.symbols
    if len(shown) > room:
        shown = _busiest(shown, room - 1)
    parts: list[RenderableType] = [*_head(picture, width), Text(), _table(picture, shown, width)]
    left = height - _HEAD - 2 - len(shown) - (len(shown) < len(picture.symbols)) - many - 1
    if log and left > 0:
        parts += [Text(), *(_dim(_log_line(line)) for line in log[-left:])]
    return Group(*parts)


def _busiest(symbols: Sequence[SymbolPicture], most: int) -> list[SymbolPicture]:
    """Return the busiest of the last minute, in the order in which they are recorded."""
    by_rows = sorted(range(len(symbols)), key=lambda n: -sum(symbols[n].history))
    return [symbols[n] for n in sorted(by_rows[: max(1, most)])]


def _head(picture: Picture, width: int) -> Iterator[Text]:
    number = len(picture.symbols)
    stopped = sum(one.stopped for one in picture.symbols)
    title = f"{number:,} symbols" if number != 1 else "1 symbol"
    if stopped:
        title += f", {stopped:,} stopped"
    yield _head_line("running", f"{elapsed(picture.seconds)}, {title}", "", "", width)
    recorded = number - stopped
    state, style = f"connected for {picture.connected:,} of {recorded:,} symbols", "yellow"
    if picture.connected == recorded:
        state, style = "connected", "green"
        if picture.lines > 1:
            state = f"connected on {picture.lines} lines"
        if picture.lines > 1 and picture.short:
            state, style = f"connected; {picture.short:,} lack a line", "yellow"
    elif not picture.connected:
        state, style = "not connected", "red"
    yield _head_line("exchange", picture.url, state, style, width)
    state, style = "answers", "green"
    if picture.away is not None:
        waiting = f"{picture.backlog:,} rows wait"
        state, style = f"away for {elapsed(picture.away)}, {waiting}", "red"
    yield _head_line("store", picture.store.removeprefix("store "), state, style, width)


def _head_line(name: str, text: str, state: str, style: str, width: int) -> Text:
    """Return a line of the head. It is the text that is cut, not the state."""
    room = width - 10 - (len(state) + 2 if state else 0)
    if len(text) > room:
        text = text[: max(0, room - 3)] + "..."
    line = _dim(f"{name:<10}")
    line.append(text, "not dim")
    if state:
        line.append(f"  {state}", f"not dim {style}")
    return line


def _dim(text: str) -> Text:
    return Text(text, "dim", no_wrap=True, overflow="crop", end="\n")


def _log_line(line: str) -> str:
    """Return a line of the log fit for the screen, without the date."""
    return printable(re.sub(r"^\d{4}-\d\d-\d\d (\d\d:\d\d:\d\d)\.\d{3} ", r"\1 ", line))


def _table(picture: Picture, shown: Sequence[SymbolPicture], width: int) -> Table:
    rows = [(_cells(one), one.history) for one in shown]
    if hidden := len(picture.symbols) - len(shown):
        nothing = dict.fromkeys(_TITLES, ("", ""))
        rows.append((nothing | {"symbol": (f"and {hidden:,} more", "dim")}, ()))
    if len(picture.symbols) > 1:
        rows.append((_sum(picture), _sum_of_histories(picture.symbols)))
    widths = {
        key: max(len(title), _LEAST.get(key, 0), *(len(row[key][0]) for row, _ in rows))
        for key, title in _TITLES.items()
    }
    sizes = any(one.size is not None for one in picture.symbols)
    layouts = [layout for layout in _LAYOUTS if sizes or "size" not in layout]
    layout, room = next(
        ((keys, room) for keys in layouts if (room := _room(keys, widths, width)) >= 0),
        (layouts[-1], 0),
    )
    bars = min(_LEAST_SPARKLINE + room, HISTORY)
    titles = _TITLES | {"line": "last minute" if bars > 10 else "minute"}
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for key in layout:
        table.add_column(
            titles[key],
            justify="left" if key in ("symbol", "line") else "right",
            width=bars if key == "line" else widths[key],
            no_wrap=True,
            overflow="crop",
        )
    for row, history in rows:
        cells = row | {"line": (sparkline(history, bars, HISTORY), "cyan")}
        table.add_row(*(Text(*cells[key]) for key in layout))
    return table


_LEAST: Final = {"symbol": 8, "price": 8, "delay": 7, "size": 8}


def _room(keys: Sequence[str], widths: dict[str, int], width: int) -> int:
    """Return how many columns a layout leaves free, less than none if it does not fit."""
    needed = sum(_LEAST_SPARKLINE if key == "line" else widths[key] for key in keys)
    return width - needed - 2 * (len(keys) - 1)


Cells = dict[str, tuple[str, str]]


def _cells(one: SymbolPicture) -> Cells:
    ticker, deal, depth = one.rates
    late = 0.0 if one.delay is None else one.delay
    delay_style = "red" if late > _VERY_LATE else "yellow" if late > _LATE else ""
    return {
        "symbol": (one.symbol, "dim" if one.stopped else "bold"),
        "price": (one.price or UNKNOWN, ""),
        "ticker": (_rate(ticker), ""),
        "deal": (_rate(deal), ""),
        "depth": (_rate(depth), ""),
        "rate": (_rate(one.rate), ""),
        "delay": ("stopped", "red") if one.stopped else (_delay(one.delay), delay_style),
        "backlog": (f"{one.backlog:,}", ""),
        "gaps": (f"{one.gaps:,}", "yellow" if one.gaps else ""),
        "errors": (f"{one.errors:,}", "yellow" if one.errors else ""),
        "size": (UNKNOWN if one.size is None else size(one.size), ""),
    }


def _sum(picture: Picture) -> Cells:
    symbols = picture.symbols
    rates = [sum(one.rates[channel] for one in symbols) for channel in range(3)]
    sizes = [one.size for one in symbols if one.size is not None]
    gaps, errors = sum(one.gaps for one in symbols), sum(one.errors for one in symbols)
    return {
        "symbol": ("all", "bold"),
        "price": ("", ""),
        "ticker": (_rate(rates[0]), ""),
        "deal": (_rate(rates[1]), ""),
        "depth": (_rate(rates[2]), ""),
        "rate": (_rate(sum(one.rate for one in symbols)), ""),
        "delay": ("", ""),
        "backlog": (f"{picture.backlog:,}", ""),
        "gaps": (f"{gaps:,}", ""),
        "errors": (f"{errors:,}", ""),
        "size": (size(sum(sizes)) if sizes else UNKNOWN, ""),
    }


def _sum_of_histories(symbols: Sequence[SymbolPicture]) -> list[float]:
    """Return the sums of the samples, of which new symbols have fewer."""
    newest_first = zip_longest(*(reversed(one.history) for one in symbols), fillvalue=0.0)
    return [sum(rows) for rows in newest_first][::-1]


def _rate(rows: float) -> str:
    return f"{rows:.1f}" if rows < 999.95 else f"{rows:,.0f}"


def _delay(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    if seconds < 1:  # also below zero, which tells of a clock that is wrong
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else elapsed(seconds)


_BARS: Final = "▁▂▃▄▅▆▇█"
_NOTHING: Final = "·"


def sparkline(numbers: Sequence[float], width: int, most: int) -> str:
    """Return numbers, none below zero and the oldest first, as bars from zero to their greatest.

    Zero is a dot. `most` numbers fill the width; while there are fewer, the left stays empty. Where
    the width has fewer columns than that, a bar is the mean of several numbers.
    """
    cells = min(width, most)
    known = numbers[-most:]
    missing = most - len(known)
    means: list[float | None] = []
    for cell in range(cells):
        start, end = (max(0, at * most // cells - missing) for at in (cell, cell + 1))
        part = known[start:end]
        means.append(sum(part) / len(part) if part else None)
    greatest = max((mean for mean in means if mean is not None), default=0.0)
    return "".join(" " if mean is None else _bar(mean, greatest) for mean in means)


def _bar(number: float, greatest: float) -> str:
    if number <= 0:
        return _NOTHING
    return _BARS[min(len(_BARS) - 1, int(number / greatest * len(_BARS)))]
