"""The page of a report: HTML that needs nothing from anywhere else."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Final

from mexc_trio.analysis.gaps import LedgerGap
from mexc_trio.channels import ALL
from mexc_trio.report.plots import BY_NAME, plots_of, svg
from mexc_trio.report.recorded import Recorded, Summary, share_of
from mexc_trio.report.style import HEAD
from mexc_trio.rows import CHANNELS, Channel
from mexc_trio.spans import DAY, HOUR, MINUTE, SECOND
from mexc_trio.texts import UNKNOWN, duration_text, number_of, size, time_text

MOST_GAPS: Final = 200
"""Gaps of a symbol that are listed one by one. All of them are shaded."""


def head(
    name: str,
    store: str,
    made: str,
    summaries: Sequence[Summary],
    link: Callable[[str], str],
) -> str:
    """Return the page of a range, by its name, up to its first symbol.

    `store` is what the user knows the store by, `made` when the page was made. The summaries are in
    the page's order; `link` returns where a symbol's part is.
    """
    rows = sum(one.rows for one in summaries)
    gaps = sum(one.gaps for one in summaries)
    silences = sum(one.silences for one in summaries)
    words = [
        f"<strong>{share_of(summaries).percent} covered</strong>",
        number_of(rows, "row"),
        number_of(gaps, "gap") + " in the ledger",
    ]
    if silences:
        words.append(number_of(silences, "silence") + " that nothing accounts for")
    if len(summaries) > 1:
        words.insert(0, number_of(len(summaries), "symbol"))
    channels = [n for n in ALL if n in CHANNELS or any(one.channels[n] for one in summaries)]
    titles = ["symbol", "covered", "recorded", *channels, "dead letters", "gaps", "longest gap"]
    lines = [_summary(one, link(one.symbol), channels) for one in summaries]
    # A phone has no room for those between what is covered and the gaps, nor for the last.
    extra = [*range(2, len(titles) - 2), len(titles) - 1]
    return (
        HEAD.format(title=escape(f"Recorded on {name}"))
        + f"<h1>{escape(name)}</h1>\n"
        + f'<p class="muted">{escape(store)} · all times in UTC · made {escape(made)}</p>\n'
        + f'<p class="verdict">{" · ".join(words)}</p>\n'
        + f'<div class="card">{_table(titles, lines, extra=extra)}</div>\n'
        + f'<p class="note">{escape(_COVERED)}</p>\n'
    )


def alone(name: str, symbol: str, around: Mapping[str, str]) -> str:
    """Return the head of a page that has one symbol.

    `name` is the range's; `around` has other pages, by what their links say.
    """
    links = "".join(
        f'<a href="{escape(to)}">{escape(text)}</a>' for text, to in around.items() if to
    )
    return (
        HEAD.format(title=escape(f"{symbol} on {name}"))
        + f"<nav>{links}</nav>\n<h1>{escape(name)}</h1>\n"
        + '<p class="muted">all times in UTC</p>\n'
    )


def section(part: Recorded) -> str:
    """Return one symbol's part of the page."""
    symbol = escape(part.symbol)
    parts = [f'<section id="{symbol}">\n<h2>{symbol}</h2>\n{_figures(part)}']
    if not part.rows:
        parts.append("<p>Nothing was recorded of it in this time.</p>\n")
    for plot in plots_of(part):
        if plot == "pause" and part.pauses is None:
            parts.append(
                f'<figure><h3>{BY_NAME[plot].title}</h3><p class="note">Not known: '
                f"{escape(part.why_no_pauses)}.</p></figure>\n"
            )
            continue
        parts.append(
            f"<figure><h3>{BY_NAME[plot].title}</h3>"
            f'<p class="note">{_note(plot, part)}</p>'
            f'<div class="wide">{svg(part, plot)}</div>'
            f'<div class="narrow">{svg(part, plot, narrow=True)}</div></figure>\n'
        )
    parts.append(_gaps(part) + "</section>\n")
    return "".join(parts)


def _summary(one: Summary, link: str, channels: Sequence[Channel]) -> list[str]:
    return [
        f'<a href="{escape(link)}">{escape(one.symbol)}</a>',
        one.share.percent,
        duration_text(one.share.recorded) if one.share.recorded else UNKNOWN,
        *(f"{one.channels[channel]:,}" for channel in channels),
        f"{one.dead:,}",
        f"{one.gaps:,}",
        UNKNOWN if one.longest is None else duration_text(one.longest),
    ]


def _figures(part: Recorded) -> str:
    traded = [one.price for _, one in sorted(part.steps.items()) if one.price]
    pairs = [
        ("covered", part.share.percent),
        ("rows", f"{part.rows:,}"),
        ("gaps", f"{len(part.gaps):,}"),
    ]
    if traded:
        pairs += [
            ("last price", f"{traded[-1].last.normalize():,f}"),
            ("high", f"{max(one.high for one in traded).normalize():,f}"),
            ("low", f"{min(one.low for one in traded).normalize():,f}"),
        ]
    if part.bytes_a_row:
        pairs.append(("on disk, about", size(part.bytes_a_row * part.rows)))
    text = sum(one.text for one in part.steps.values())
    pairs.append(("text before compression", size(text)))
    cells = "".join(f"<div><span>{name}</span>{escape(value)}</div>" for name, value in pairs)
    return f'<div class="figures">{cells}</div>\n'


def _note(plot: str, part: Recorded) -> str:
    note = BY_NAME[plot].note.format(step=_step_name(part.step))
    if plot == "price":
        shades = '<span class="key" style="background:var(--gap)"></span> a gap of the ledger'
        if part.unaccounted:
            shades += (
                ' · <span class="key" style="background:var(--unknown)"></span> '
                "a silence that nothing accounts for"
            )
        return f"{note} {shades}; the more channels miss data, the darker."
    if plot == "storage" and part.bytes_a_row:
        return (
            f"{note} On the right, what they take on disk: an estimate by the mean of the "
            f"whole table, {part.bytes_a_row:,.1f} bytes a row."
        )
    return note


def _gaps(part: Recorded) -> str:
    if not part.gaps and not part.unaccounted:
        return '<p class="note">The ledger has no gap for this part.</p>\n'
    silences = [
        LedgerGap(", ".join(one.channels), one.start, one.end, "nothing accounts for it")
        for one in part.unaccounted[:MOST_GAPS]
    ]
    lines = [
        [
            *(_time_of_day(end, part) for end in (gap.start, gap.end)),
            duration_text(gap.end - gap.start),
            escape(gap.channel),
            escape(gap.cause),
        ]
        for gap in (*part.gaps[:MOST_GAPS], *silences)
    ]
    rest = len(part.gaps) + len(part.unaccounted) - len(lines)
    title = number_of(len(part.gaps), "gap")
    if part.unaccounted:
        title += f" and {number_of(len(part.unaccounted), 'silence')}"
    more = f'<p class="note">and {number_of(rest, "other")}</p>' if rest else ""
    table = _table(["from", "to", "length", "channel", "cause"], lines, texts=(1, 3, 4))
    return f"<details><summary>{title}</summary>{table}{more}</details>\n"


def _time_of_day(milliseconds: int, part: Recorded) -> str:
    """Return the time of the day, with the date if the range has several, or it is another."""
    text = time_text(milliseconds).removesuffix("Z")
    same = {one // DAY for one in (milliseconds, part.start, part.end - 1)}
    return text.partition("T")[2] if len(same) == 1 else text.replace("T", " ")


def _step_name(step: int) -> str:
    """Return the length of a step in words."""
    for unit, name in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"), (SECOND, "second")):
        if step >= unit:
            number = step // unit
            return name if number == 1 else f"{number} {name}s"
    return f"{step} ms"


def _table(
    titles: Sequence[str],
    lines: Sequence[Sequence[str]],
    texts: Sequence[int] = (),
    extra: Sequence[int] = (),
) -> str:
    """Return a table of lines of cells, which are HTML.

    The columns `texts` stand to the left, as the first one does; for those of `extra` a phone has
    no room.
    """
    kinds = []
    for number in range(len(titles)):
        names = ["left"] * (number in texts) + ["extra"] * (number in extra)
        kinds.append(f' class="{" ".join(names)}"' if names else "")
    heads = "".join(f"<th{kind}>{title}</th>" for kind, title in zip(kinds, titles, strict=True))
    rows = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, line, strict=True))
        + "</tr>\n"
        for line in lines
    )
    return f'<div class="scroll"><table><tr>{heads}</tr>\n{rows}</table></div>'


_COVERED: Final = (
    "Covered is the share of the recorded time in which none of ticker, deal and depth has a gap "
    "in the ledger nor a silence that nothing accounts for. Recorded is the part of the time "
    "between the symbol's first and last row of all."
)
