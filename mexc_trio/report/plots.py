"""A symbol's day as plots; the only user of the plotting library.

On the page a plot is SVG whose colours are the page's own, so that it follows light and dark. As a
file it is a PNG on white. Until here prices are Decimals; a pixel needs no more than a float.
"""

import io
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from mexc_trio.errors import UsageError
from mexc_trio.report.daily import SymbolDay
from mexc_trio.rows import CHANNELS, Channel
from mexc_trio.spans import HOUR, SECOND, Span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: Final[Mapping[str, str]] = {
    "ink": "#24303c",
    "muted": "#66727f",
    "line": "#dfe4e8",
    "ticker": "#b57a1e",
    "deal": "#2b6ca3",
    "depth": "#3d8a67",
    "gap": "#c8503c",
    "unknown": "#7d5ba6",
}
"""The colours in light; the page has a variable of each name, with another value in the dark."""

PLOTS: Final = ("price", "rate", "pause", "spread", "storage")
"""The plots of a day, in their order."""

_MINUTES: Final = 24 * 60
_HOURS: Final = [minute / 60 for minute in range(_MINUTES)]
_NOTHING: Final = float("nan")
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # texts stay texts, in the page's own letters
    "svg.hashsalt": "mexc-trio",
    "font.size": 9,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.labelcolor": COLOURS["muted"],
}
_ID: Final = re.compile(r'(\bid="|url\(#|href="#)')
_SHADE: Final = 0.13


def need_plots() -> None:
    """Check that the plotting library is there.

    Raises:
        UsageError: it is not; the message says how to get it.
    """
    # It tells of its fonts when it is used for the first time.
    logging.getLogger("matplotlib").setLevel(max(logging.WARNING, logging.root.level))
    try:
        import matplotlib as mpl  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"a report needs matplotlib ({error}): pip install 'mexc-trio[report]'"
        ) from error


def plain(name: str) -> str:
    """Return a name as it may stand in an id or a file's name: tables may have odd ones."""
    return re.sub(r"\W", "-", name)


def svg(day: SymbolDay, plot: str) -> str:
    """Return one of `PLOTS` as an SVG element for a page."""
    file = io.StringIO()
    _save(day, plot, file, "svg", title="")
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    # Several of them share a page, and an id belongs to one element.
    text = _ID.sub(rf"\g<1>{plot}-{plain(day.symbol)}-", text)
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return text.strip()


def png(day: SymbolDay, plot: str, title: str) -> bytes:
    """Return one of `PLOTS` as a PNG file."""
    file = io.BytesIO()
    _save(day, plot, file, "png", title)
    return file.getvalue()


def _save(
    day: SymbolDay, plot: str, file: "io.StringIO | io.BytesIO", form: str, title: str
) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # No pyplot: it would look for a screen, and keep every figure.
    with mpl.rc_context(_STYLE):
        height = 3.2 if plot == "price" else 2.1
        figure = Figure(figsize=(10, height + (0.3 if title else 0)))
        top = 1 - (0.6 if title else 0.25) / figure.get_figheight()
        figure.subplots_adjust(
            left=0.075, right=0.94, bottom=0.32 / figure.get_figheight(), top=top
        )
        axes = figure.add_subplot()
        _DRAW[plot](axes, day)
        _shade(axes, day)
        _finish(axes)
        if title:
            figure.suptitle(title, x=0.075, ha="left", fontsize=10, fontweight="bold")
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type")) if form == "svg" else None
        figure.savefig(
            file,
            format=form,
            dpi=160,
            transparent=form == "svg",
            metadata=metadata,
        )


def prices(day: SymbolDay) -> tuple[list[float], list[float], list[float]]:
    """Return last, lowest and highest price of each minute of the day; NaN without any."""
    found = [minute.price if (minute := day.minutes.get(n)) else None for n in range(_MINUTES)]
    return (
        [_float(one.last if one else None) for one in found],
        [_float(one.low if one else None) for one in found],
        [_float(one.high if one else None) for one in found],
    )


def spreads(day: SymbolDay) -> tuple[list[float], list[float], list[float]]:
    """Return mean, lowest and highest spread of each minute of the day; NaN without any."""
    found = [minute.spread if (minute := day.minutes.get(n)) else None for n in range(_MINUTES)]
    return (
        [_float(one.mean if one else None) for one in found],
        [_float(one.low if one else None) for one in found],
        [_float(one.high if one else None) for one in found],
    )


def rates(day: SymbolDay, channel: Channel) -> list[float]:
    """Return a channel's rows a second in each minute of the day; 0 without any."""
    return [
        minute.rows[channel] / 60 if (minute := day.minutes.get(n)) else 0.0
        for n in range(_MINUTES)
    ]


def pauses(day: SymbolDay) -> list[float]:
    """Return the longest pause that ended in each minute of the day, in seconds; NaN without."""
    known = day.pauses or {}
    return [known[n] / SECOND if n in known else _NOTHING for n in range(_MINUTES)]


def growth(day: SymbolDay) -> list[int]:
    """Return the rows of the day that there were after each minute."""
    total, found = 0, []
    for n in range(_MINUTES):
        total += minute.total if (minute := day.minutes.get(n)) else 0
        found.append(total)
    return found


def _price(axes: "Axes", day: SymbolDay) -> None:
    _band(axes, prices(day), COLOURS["deal"])


def _spread(axes: "Axes", day: SymbolDay) -> None:
    _band(axes, spreads(day), COLOURS["depth"])
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))


def _rate(axes: "Axes", day: SymbolDay) -> None:
    for channel in CHANNELS:
        axes.plot(_HOURS, rates(day, channel), lw=0.9, color=COLOURS[channel], label=channel)
    axes.set_ylim(bottom=0)
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(0, 0.99), ncols=3, fontsize=8.5, borderaxespad=0,
        handlelength=1.2, columnspacing=1.4,
    )  # fmt: skip
    for line in legend.get_lines():
        line.set_linewidth(2.5)


def _pause(axes: "Axes", day: SymbolDay) -> None:
    values = pauses(day)
    axes.set_yscale("log")
    axes.plot(_HOURS, values, lw=0, marker=".", ms=2.2, color=COLOURS["ink"])
    known = [value for value in values if not math.isnan(value)]
    axes.set_ylim(min([*known, 0.1]) / 2, max([*known, 10.0]) * 2)


def _storage(axes: "Axes", day: SymbolDay) -> None:
    rows = growth(day)
    axes.fill_between(_HOURS, rows, color=COLOURS["deal"], alpha=0.12, lw=0)
    axes.plot(_HOURS, rows, lw=1.2, color=COLOURS["deal"])
    axes.set_ylim(bottom=0)
    if day.bytes_a_row:
        each = day.bytes_a_row / 1e6

        def megabytes(rows: Any) -> Any:
            return rows * each

        def rows_of(megabytes: Any) -> Any:
            return megabytes / each

        other = axes.secondary_yaxis("right", functions=(megabytes, rows_of))
        other.set_ylabel("MB", rotation=0, ha="left", va="bottom")
        other.yaxis.set_label_coords(1.012, 1.02)
        other.yaxis.set_major_formatter(_with_commas)
        other.spines["right"].set_visible(False)


def _band(
    axes: "Axes", series: tuple[Sequence[float], Sequence[float], Sequence[float]], colour: str
) -> None:
    """Draw a line, and behind it how far it went within each minute."""
    middle, low, high = series
    axes.fill_between(_HOURS, low, high, color=colour, alpha=0.22, lw=0)
    axes.plot(_HOURS, middle, lw=1.0, color=colour)
    # A line needs two points: a minute between two without any has a dot.
    around = zip([_NOTHING, *middle[:-1]], [*middle[1:], _NOTHING], strict=True)
    alone = [all(map(math.isnan, neighbours)) for neighbours in around]
    dots = [value if lone else _NOTHING for value, lone in zip(middle, alone, strict=True)]
    axes.plot(_HOURS, dots, lw=0, marker=".", ms=2.2, color=colour)


def _shade(axes: "Axes", day: SymbolDay) -> None:
    """Shade each gap of the ledger, the more channels miss the darker, and each silence."""
    for number, gap in enumerate(day.gaps):
        shade = _SHADE * 2.5 if gap.channel == "all" else _SHADE
        _span(axes, day, (gap.start, gap.end), f"gap-{number}", COLOURS["gap"], shade)
    for number, silence in enumerate(day.unaccounted):
        span = (silence.start, silence.end)
        _span(axes, day, span, f"silence-{number}", COLOURS["unknown"], _SHADE * 2)


def _span(axes: "Axes", day: SymbolDay, span: Span, name: str, colour: str, shade: float) -> None:
    start, end = ((time - day.start) / HOUR for time in span)
    # Without a line around it, one of seconds would not be seen.
    axes.axvspan(
        max(start, 0.0), min(end, 24.0), color=colour, alpha=shade, lw=0.6, gid=name, zorder=0.5
    )


def _finish(axes: "Axes") -> None:
    axes.set_xlim(0, 24)
    axes.set_xticks(range(0, 25, 2), [*(f"{hour:02}:00" for hour in range(0, 24, 2)), "24:00 UTC"])
    axes.yaxis.set_major_formatter(_with_commas)
    axes.yaxis.minorticks_off()
    axes.grid(visible=False, axis="x")


def _with_commas(value: float, _: object = None) -> str:
    """Return a tick's number as people write it."""
    return f"{Decimal(f'{value:.10g}'):,f}"


def _float(value: Decimal | None) -> float:
    return _NOTHING if value is None else float(value)


_DRAW: Final[Mapping[str, "Callable[[Axes, SymbolDay], None]"]] = {
    "price": _price,
    "rate": _rate,
    "pause": _pause,
    "spread": _spread,
    "storage": _storage,
}
