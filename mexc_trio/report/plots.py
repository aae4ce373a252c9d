"""A symbol's range as plots; the only user of the plotting library.

On the page a plot is SVG whose colours are the page's own, so that it follows light and dark. As a
file it is a PNG on white. A phone has plots of its own: fewer steps and labels, letters as big.
"""

import io
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from mexc_trio.analysis.gaps import LedgerGap
from mexc_trio.channels import ALL, OPTIONAL
from mexc_trio.errors import UsageError
from mexc_trio.report.axis import label_axes, positions, unit, width_of_numbers, with_commas
from mexc_trio.report.recorded import Band, Recorded, coarser
from mexc_trio.rows import CHANNELS
from mexc_trio.spans import SECOND, Span, union

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
"""The plots of every range, in their order. Behind them come those of channels on request."""

MOST_SHADES: Final = 300
"""Gaps that are shaded one by one."""
NARROW_STEPS: Final = 360
"""Steps that a phone has room for."""

_NOTHING: Final = float("nan")
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # texts stay texts, in the page's own letters
    "svg.hashsalt": "mexc-trio",
    "font.size": 9,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    **{f"axes.spines.{side}": False for side in ("top", "right", "left")},
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    **{f"{axis}tick.color": COLOURS["line"] for axis in "xy"},
    **{f"{axis}tick.labelcolor": COLOURS["muted"] for axis in "xy"},
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.labelcolor": COLOURS["muted"],
}
_ID: Final = re.compile(r'(\bid="|url\(#|href="#)')
_SHADE: Final = 0.13


def need_plots() -> None:
    """Check that the plotting library is there; UsageError, with how to get it, if not."""
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


def plots_of(range_: Recorded) -> tuple[str, ...]:
    """Return the plots of a range: a channel on request has its own, of its name, if it has any."""
    found = {name for one in range_.steps.values() for name in one.numbers}
    return (*PLOTS, *(name for name in OPTIONAL if name in found))


def svg(range_: Recorded, plot: str, *, narrow: bool = False) -> str:
    """Return one of `plots_of` as an SVG element for a page, or for a phone."""
    file = io.StringIO()
    shown = coarser(range_, NARROW_STEPS) if narrow else range_
    _save(shown, plot, file, "svg", narrow=narrow)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    # Several of them share a page, and an id belongs to one element.
    prefix = f"{'narrow-' if narrow else ''}{plot}-{plain(range_.symbol)}-"
    text = _ID.sub(rf"\g<1>{prefix}", text)
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return text.strip()


def png(range_: Recorded, plot: str, title: str) -> bytes:
    """Return one of `plots_of` as a PNG file."""
    file = io.BytesIO()
    _save(range_, plot, file, "png", title)
    return file.getvalue()


def _save(
    range_: Recorded,
    plot: str,
    file: "io.StringIO | io.BytesIO",
    form: str,
    title: str = "",
    *,
    narrow: bool = False,
) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # No pyplot: it would look for a screen, and keep every figure.
    with mpl.rc_context(_STYLE):
        width, height = (4.6, 2.2) if narrow else (10.0, 3.2 if plot == "price" else 2.1)
        figure = Figure(figsize=(width, height + (0.3 if title else 0)))
        top = 1 - (0.6 if title else 0.3) / figure.get_figheight()
        bottom = 0.32 / figure.get_figheight()
        figure.subplots_adjust(right=1 - 0.6 / width, bottom=bottom, top=top)
        axes = figure.add_subplot()
        facts = BY_NAME[plot]
        facts.draw(axes, range_)
        quote = range_.symbol.rpartition("_")[2]
        unit(axes, facts.unit.format(quote=quote), COLOURS["muted"])
        _shade(axes, range_)
        label_axes(axes, range_, COLOURS["muted"], narrow=narrow)
        figure.subplots_adjust(left=max(0.72, width_of_numbers(axes)) / width)
        if title:
            figure.suptitle(title, x=0.072, ha="left", fontsize=10, fontweight="bold")
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type")) if form == "svg" else None
        figure.savefig(file, format=form, dpi=160, transparent=form == "svg", metadata=metadata)


def _price(axes: "Axes", range_: Recorded) -> None:
    _band(axes, range_, range_.band(lambda one: one.price), COLOURS["deal"], "last")


def _spread(axes: "Axes", range_: Recorded) -> None:
    _band(axes, range_, range_.band(lambda one: one.spread), COLOURS["depth"], "mean")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))


def _rate(axes: "Axes", range_: Recorded) -> None:
    for channel in CHANNELS:
        rates = range_.rates(channel)
        axes.plot(positions(range_), rates, lw=0.9, color=COLOURS[channel], label=channel)
    axes.set_ylim(bottom=0)
    _key(axes)


def _pause(axes: "Axes", range_: Recorded) -> None:
    values = range_.pause_seconds()
    axes.set_yscale("log")
    axes.plot(positions(range_), values, lw=0, marker=".", ms=2.2, color=COLOURS["ink"])
    known = [value for value in values if not math.isnan(value)]
    axes.set_ylim(min([*known, 0.1]) / 2, max([*known, 10.0]) * 2)


def _storage(axes: "Axes", range_: Recorded) -> None:
    rows = range_.growth()
    axes.fill_between(positions(range_), rows, color=COLOURS["deal"], alpha=0.12, lw=0)
    axes.plot(positions(range_), rows, lw=1.2, color=COLOURS["deal"])
    axes.set_ylim(bottom=0)
    if range_.bytes_a_row:
        each = range_.bytes_a_row / 1e6

        def megabytes(rows: Any) -> Any:
            return rows * each

        def rows_of(megabytes: Any) -> Any:
            return megabytes / each

        other = axes.secondary_yaxis("right", functions=(megabytes, rows_of))
        other.set_ylabel("MB", rotation=0, ha="left", va="bottom")
        other.yaxis.set_label_coords(1.012, 1.02)
        other.yaxis.set_major_formatter(with_commas)
        other.spines["right"].set_visible(False)


def _band(axes: "Axes", range_: Recorded, series: Band, colour: str, name: str) -> None:
    """Draw a line, and behind it how far it went within each step."""
    at = positions(range_)
    middle, low, high = series
    axes.plot(at, middle, lw=1.0, color=colour, label=name)
    axes.fill_between(at, low, high, color=colour, alpha=0.22, lw=0, label="low to high")
    # A line needs two points: a step between two without any has a dot.
    around = zip([_NOTHING, *middle[:-1]], [*middle[1:], _NOTHING], strict=True)
    alone = [all(map(math.isnan, neighbours)) for neighbours in around]
    dots = [value if lone else _NOTHING for value, lone in zip(middle, alone, strict=True)]
    axes.plot(at, dots, lw=0, marker=".", ms=2.2, color=colour)
    _key(axes)


def _key(axes: "Axes") -> None:
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(0, 0.99), ncols=3, fontsize=8.5, borderaxespad=0,
        handlelength=1.2, columnspacing=1.4,
    )  # fmt: skip
    for line in legend.get_lines():
        line.set_linewidth(2.5)


def _shade(axes: "Axes", range_: Recorded) -> None:
    """Shade each gap of the ledger, the more channels miss the darker, and each silence."""
    for number, gap in enumerate(_gaps_to_shade(range_)):
        shade = _SHADE * 2.5 if gap.channel == "all" else _SHADE
        _span(axes, range_, (gap.start, gap.end), f"gap-{number}", COLOURS["gap"], shade)
    for number, silence in enumerate(range_.unaccounted[:MOST_SHADES]):
        span = (silence.start, silence.end)
        _span(axes, range_, span, f"silence-{number}", COLOURS["unknown"], _SHADE * 2)


def _gaps_to_shade(range_: Recorded) -> Sequence[LedgerGap]:
    """Return the gaps; where they are very many, those that no eye can tell apart as one."""
    if len(range_.gaps) <= MOST_SHADES:
        return range_.gaps
    width = max(range_.step, (range_.end - range_.start) // MOST_SHADES)
    return [
        LedgerGap(channel, start, end, "")
        for channel in ("all", "")
        for start, end in union(
            (gap.start // width * width, -(-gap.end // width) * width)
            for gap in range_.gaps
            if (gap.channel == "all") == (channel == "all")
        )
    ]


def _span(axes: "Axes", range_: Recorded, span: Span, name: str, colour: str, shade: float) -> None:
    length = (range_.end - range_.start) / SECOND
    start, end = (min(max((time - range_.start) / SECOND, 0.0), length) for time in span)
    # Without a line around it, one of seconds would not be seen.
    axes.axvspan(start, end, color=colour, alpha=shade, lw=0.6, gid=name, zorder=0.5)


@attrs.frozen
class PlotFacts:
    """One kind of plot."""

    title: str
    unit: str
    """What its numbers are."""
    draw: "Callable[[Axes, Recorded], None]"
    note: str
    """What it shows, in HTML."""


def _optional(channel: str) -> PlotFacts:
    def draw(axes: "Axes", range_: Recorded) -> None:
        band = range_.band(lambda one: one.numbers.get(channel))
        _band(axes, range_, band, COLOURS["ticker"], "last")

    title = next(iter(ALL[channel].numbers.values())).replace("_", " ").capitalize()
    note = "The last one of each {step}, and behind it from low to high."
    return PlotFacts(title, ALL[channel].unit, draw, note)


BY_NAME: Final[Mapping[str, PlotFacts]] = {
    "price": PlotFacts(
        "Price", "{quote}", _price,
        "What was traded at: the last price of each {step}, and behind it from low to high.",
    ),
    "rate": PlotFacts(
        "Rows a second", "rows/s", _rate,
        "Mean of each {step}. A row is a ticker, one deal, or a book of up to 20 levels a "
        "side. One message may bring several deals.",
    ),
    "pause": PlotFacts(
        "Longest pause", "s", _pause,
        "The longest time in each {step} without a newer row of any channel. It is here in "
        "place of the delay: rows bear the exchange's time, and in wide tables alone their "
        "arrival's.",
    ),
    "spread": PlotFacts(
        "Spread", "{quote}", _spread,
        "Best ask minus best bid: the mean of each {step}, and behind it from low to high.",
    ),
    "storage": PlotFacts("Growth", "rows", _storage, "Rows so far, dead letters included."),
    **{name: _optional(name) for name in OPTIONAL},
}  # fmt: skip
