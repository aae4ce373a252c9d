"""What stands at the sides of a plot: the time with its labels, and the unit of its numbers."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from mexc_trio.report.recorded import Recorded
from mexc_trio.spans import DAY, MINUTE, SECOND

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TICKS: Final = tuple(
    SECOND * n
    for n in (
        5, 15, 60, 120, 300, 600, 900, 1800, 3600, 7200, 4 * 3600, 6 * 3600, 12 * 3600, 86_400,
        2 * 86_400, 7 * 86_400, 30 * 86_400,
    )
)  # fmt: skip
"""What the labels of the time may be apart, in milliseconds."""
_DIGIT: Final = 0.08
"""Inches that a digit takes in the letters of most pages."""


def positions(range_: Recorded) -> list[float]:
    """Return where the steps stand, in seconds from the start."""
    return [n * range_.step / SECOND for n in range(range_.number)]


def unit(axes: "Axes", text: str, colour: str) -> None:
    """Write above the axis what its numbers are."""
    axes.text(
        -0.005, 1.02, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=8.5,
        color=colour,
    )  # fmt: skip


def label_axes(axes: "Axes", range_: Recorded, colour: str, *, narrow: bool) -> None:
    """Label the time."""
    start, end = range_.start, range_.end
    most = 5 if narrow else 13
    tick = next((one for one in _TICKS if (end - start) / one <= most), _TICKS[-1])
    at = range(-(-start // tick) * tick, end + 1, tick)
    places = [(time - start) / SECOND for time in at]
    form = "%m-%d" if tick >= DAY else "%H:%M:%S" if tick < MINUTE else "%H:%M"
    labels = [f"{datetime.fromtimestamp(time / SECOND, UTC):{form}}" for time in at]
    if labels and at[-1] == end and end % DAY == 0 and tick < DAY:
        labels[-1] = "24:00"
    axes.set_xlim(0, (end - start) / SECOND)
    axes.set_xticks(places, labels)
    axes.annotate(
        "UTC", (1, 0), xycoords="axes fraction", xytext=(16, -6.5), textcoords="offset points",
        va="top", fontsize=8.5, color=colour,
    )  # fmt: skip
    axes.yaxis.set_major_formatter(with_commas)
    axes.yaxis.minorticks_off()
    axes.grid(visible=False, axis="x")


def width_of_numbers(axes: "Axes") -> float:
    """Return the inches that the numbers beside a plot take, which those of tiny prices need."""
    low, high = axes.get_ylim()
    shown = [with_commas(tick) for tick in axes.get_yticks() if low <= tick <= high]
    return 0.1 + _DIGIT * max(map(len, shown), default=0)


def with_commas(value: float, _: object = None) -> str:
    """Return a tick's number as people write it."""
    return f"{Decimal(f'{value:.10g}'):,f}"
