"""The page of a report: HTML that needs nothing from anywhere else."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from mexc_trio.analysis.minutes import MarkedGap
from mexc_trio.report.daily import Summary, SymbolDay
from mexc_trio.report.plots import PLOTS
from mexc_trio.rows import CHANNELS
from mexc_trio.spans import DAY
from mexc_trio.texts import UNKNOWN, duration, number_of, percent, size, time_text

MOST_GAPS: Final = 200
"""Gaps of a symbol that are listed one by one. All of them are shaded."""

TITLES: Final[Mapping[str, str]] = {
    "price": "Price",
    "rate": "Rows a second",
    "pause": "Longest pause, seconds",
    "spread": "Spread",
    "storage": "Growth, rows",
}

_HEAD: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{
  --paper: #f6f7f8; --card: #ffffff; --ink: #24303c; --muted: #66727f; --line: #dfe4e8;
  --ticker: #b57a1e; --deal: #2b6ca3; --depth: #3d8a67; --gap: #c8503c; --unknown: #7d5ba6;
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --paper: #14181c; --card: #1b2126; --ink: #dbe2e8; --muted: #93a0ac; --line: #303941;
    --ticker: #d9a552; --deal: #6aa9dc; --depth: #6dbd97; --gap: #e5735f; --unknown: #a98bd0;
  }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }}
main {{ max-width: 1120px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }}
h1 {{ font-size: 1.7rem; margin: 0; letter-spacing: -0.01em; }}
h2 {{ font-size: 1.3rem; margin: 0; }}
h3 {{ font-size: 0.95rem; margin: 0; }}
p {{ margin: 0.25rem 0; }}
.muted, .note {{ color: var(--muted); }}
.note {{ font-size: 0.85rem; max-width: 58rem; }}
.card + .note {{ margin-top: 0.75rem; }}
.verdict {{ font-size: 1.1rem; margin: 0.75rem 0 1.5rem; }}
section, .card {{ background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1.25rem 1.5rem; margin-top: 1.5rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: 0.9rem;
  font-variant-numeric: tabular-nums; }}
th {{ color: var(--muted); font-weight: 500; }}
th, td {{ text-align: right; padding: 0.35rem 0.7rem; white-space: nowrap;
  border-bottom: 1px solid var(--line); }}
tr:last-child td {{ border-bottom: 0; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
th.left, td.left {{ text-align: left; }}
th:last-child, td:last-child {{ padding-right: 0; }}
.figures {{ display: flex; flex-wrap: wrap; gap: 0.5rem 2.25rem; margin: 0.75rem 0 0.5rem; }}
.figures div span {{ display: block; color: var(--muted); font-size: 0.8rem; }}
.figures div {{ font-size: 1.1rem; font-variant-numeric: tabular-nums; }}
figure {{ margin: 1.4rem 0 0; }}
figure svg {{ display: block; width: 100%; min-width: 600px; height: auto; }}
figure svg text {{ font-family: inherit !important; }}
details {{ margin-top: 1.25rem; }}
summary {{ cursor: pointer; font-weight: 600; font-size: 0.95rem; }}
a {{ color: var(--deal); text-decoration: none; }}
.key {{ display: inline-block; width: 0.9em; height: 0.9em; vertical-align: -0.1em;
  border-radius: 2px; opacity: 0.4; }}
@media print {{ section {{ break-inside: avoid; }} }}
</style>
</head>
<body>
<main>
"""

_TAIL: Final = "</main>\n</body>\n</html>\n"


def head(date: str, store: str, made: str, days: Sequence[Summary]) -> str:
    """Return the page up to its first symbol.

    Args:
        date: the day.
        store: what the user knows it by.
        made: when the page was made.
        days: of the symbols, in the page's order.
    """
    rows = sum(day.rows for day in days)
    recorded = sum(day.covered.recorded for day in days if day.covered)
    live = sum(day.covered.live for day in days if day.covered)
    gaps = sum(day.gaps for day in days)
    silences = sum(day.silences for day in days)
    words = [
        f"<strong>{percent(live, recorded)} covered</strong>",
        number_of(rows, "row"),
        number_of(gaps, "gap") + " in the ledger",
    ]
    if silences:
        words.append(number_of(silences, "silence") + " that nothing accounts for")
    titles = ["symbol", "covered", "recorded", *CHANNELS, "dead letters", "gaps", "longest gap"]
    lines = [_summary(day) for day in days]
    return (
        _HEAD.format(title=escape(f"Recorded on {date}"))
        + f"<h1>{escape(date)}</h1>\n"
        + f'<p class="muted">{escape(store)} · all times in UTC · made {escape(made)}</p>\n'
        + f'<p class="verdict">{" · ".join(words)}</p>\n'
        + f'<div class="card">{_table(titles, lines)}</div>\n'
        + f'<p class="note">{escape(_COVERED)}</p>\n'
    )


def section(day: SymbolDay, plots: Mapping[str, str]) -> str:
    """Return one symbol's part of the page.

    Args:
        day: what was recorded of it.
        plots: the SVG of each of `PLOTS`.
    """
    symbol = escape(day.symbol)
    parts = [f'<section id="{symbol}">\n<h2>{symbol}</h2>\n{_figures(day)}']
    if not day.rows:
        parts.append("<p>Nothing was recorded of it on this day.</p>\n")
    for plot in PLOTS:
        if plot == "pause" and day.pauses is None:
            parts.append(
                f'<figure><h3>{TITLES[plot]}</h3><p class="note">Not known: '
                f"{escape(day.why_no_pauses)}.</p></figure>\n"
            )
            continue
        parts.append(
            f"<figure><h3>{TITLES[plot]}</h3>"
            f'<p class="note">{_note(plot, day)}</p>'
            f'<div class="scroll">{plots[plot]}</div></figure>\n'
        )
    parts.append(_gaps(day) + "</section>\n")
    return "".join(parts)


def tail() -> str:
    """Return the end of the page."""
    return _TAIL


def _summary(day: Summary) -> list[str]:
    covered = day.covered
    return [
        f'<a href="#{escape(day.symbol)}">{escape(day.symbol)}</a>',
        percent(covered.live, covered.recorded) if covered else UNKNOWN,
        duration(covered.recorded) if covered else UNKNOWN,
        *(f"{day.channels[channel]:,}" for channel in CHANNELS),
        f"{day.dead:,}",
        f"{day.gaps:,}",
        UNKNOWN if day.longest is None else duration(day.longest),
    ]


def _figures(day: SymbolDay) -> str:
    traded = [minute.price for _, minute in sorted(day.minutes.items()) if minute.price]
    pairs = [
        ("covered", percent(day.covered.live, day.covered.recorded) if day.covered else UNKNOWN),
        ("rows", f"{day.rows:,}"),
        ("gaps", f"{len(day.gaps):,}"),
    ]
    if traded:
        pairs += [
            ("last price", f"{traded[-1].last.normalize():,f}"),
            ("high", f"{max(one.high for one in traded).normalize():,f}"),
            ("low", f"{min(one.low for one in traded).normalize():,f}"),
        ]
    if day.bytes_a_row:
        pairs.append(("on disk, about", size(day.bytes_a_row * day.rows)))
    text = sum(minute.text for minute in day.minutes.values())
    pairs.append(("text before compression", size(text)))
    cells = "".join(f"<div><span>{name}</span>{escape(value)}</div>" for name, value in pairs)
    return f'<div class="figures">{cells}</div>\n'


def _note(plot: str, day: SymbolDay) -> str:
    if plot == "price":
        shades = '<span class="key" style="background:var(--gap)"></span> a gap of the ledger'
        if day.unaccounted:
            shades += (
                ' · <span class="key" style="background:var(--unknown)"></span> '
                "a silence that nothing accounts for"
            )
        return f"{_NOTES[plot]} {shades}; the more channels miss data, the darker."
    if plot == "storage" and day.bytes_a_row:
        return (
            f"{_NOTES[plot]} On the right, what they take on disk: an estimate by the mean of the "
            f"whole table, {day.bytes_a_row:,.1f} bytes a row."
        )
    return _NOTES[plot]


def _gaps(day: SymbolDay) -> str:
    if not day.gaps and not day.unaccounted:
        return '<p class="note">The ledger has no gap for this day.</p>\n'
    lines = [_gap(gap, day.start) for gap in day.gaps[:MOST_GAPS]]
    lines += [
        _gap(
            MarkedGap(
                ", ".join(silence.channels), silence.start, silence.end, "nothing accounts for it"
            ),
            day.start,
        )
        for silence in day.unaccounted[:MOST_GAPS]
    ]
    rest = len(day.gaps) + len(day.unaccounted) - len(lines)
    title = number_of(len(day.gaps), "gap")
    if day.unaccounted:
        title += f" and {number_of(len(day.unaccounted), 'silence')}"
    more = f'<p class="note">and {number_of(rest, "other")}</p>' if rest else ""
    table = _table(["from", "to", "length", "channel", "cause"], lines, texts=(1, 3, 4))
    return f"<details><summary>{title}</summary>{table}{more}</details>\n"


def _gap(gap: MarkedGap, start: int) -> list[str]:
    return [
        _clock(gap.start, start),
        _clock(gap.end, start),
        duration(gap.end - gap.start),
        escape(gap.channel),
        escape(gap.cause),
    ]


def _clock(milliseconds: int, start: int) -> str:
    """Return the time of the day, with the date if it is another day."""
    text = time_text(milliseconds).removesuffix("Z")
    within = start <= milliseconds < start + DAY
    return text.partition("T")[2] if within else text.replace("T", " ")


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]], texts: Sequence[int] = ()) -> str:
    """Return a table; `texts` are the columns that stand to the left, as the first one does."""
    kinds = [' class="left"' if number in texts else "" for number in range(len(titles))]
    heads = "".join(f"<th{kind}>{title}</th>" for kind, title in zip(kinds, titles, strict=True))
    rows = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, line, strict=True))
        + "</tr>\n"
        for line in lines
    )
    return f'<div class="scroll"><table><tr>{heads}</tr>\n{rows}</table></div>'


_COVERED: Final = (
    "Covered is the share of the recorded time in which no channel has a gap in the ledger nor a "
    "silence that nothing accounts for. Recorded is the part of the day between the symbol's first "
    "and last row of all."
)
_NOTES: Final[Mapping[str, str]] = {
    "price": "What was traded at: each minute's last price, and behind it from low to high.",
    "rate": "Mean of each minute. A row is a ticker, one deal, or a book of up to 20 levels a "
    "side. One message may bring several deals.",
    "pause": "Each minute's longest time without a newer row of any channel. It is here in "
    "place of the delay, which nobody can tell: rows bear the exchange's time, and not that of "
    "their arrival.",
    "spread": "Best ask minus best bid: each minute's mean, and behind it from low to high.",
    "storage": "Rows of the day so far, dead letters included.",
}
