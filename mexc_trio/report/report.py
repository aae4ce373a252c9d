"""The command `report`: one day of recording as a page that a browser shows without a network.

The store adds up the day minute by minute and symbols are drawn one after the other, so memory
grows neither with rows nor with plots. The head of the page comes from the numbers of its plots.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO

from mexc_trio.errors import FileError, MexcTrioError, UsageError
from mexc_trio.files import refuse_existing, whole_file
from mexc_trio.read.reading import open_reader
from mexc_trio.report import page, plots
from mexc_trio.report.daily import Daily, Summary, SymbolDay, choose
from mexc_trio.settings import Settings
from mexc_trio.texts import number_of, percent, size, time_text


def parse_day(text: str | None) -> date:
    """Return the day that the command line names; without a name, yesterday in UTC.

    Raises:
        UsageError: it is no day.
    """
    if text is None:
        return datetime.now(UTC).date() - timedelta(days=1)
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError as error:
        raise UsageError(f"--day {text!r} is no day; write 2026-11-21") from error
    if day.year < 1971:
        raise UsageError(f"--day {text!r} is before 1971")
    return day


def report(
    settings: Settings,
    symbols: Sequence[str],
    day: date,
    out: Path,
    *,
    pictures: Path | None = None,
    force: bool = False,
) -> int:
    """Write the page of a day; return the exit code.

    Args:
        settings: the store.
        symbols: whose day; without any, all that the store has.
        day: in UTC.
        out: the page.
        pictures: a directory for the plots as PNG files; None for no such files.
        force: whether files may be written over.

    Raises:
        MexcTrioError: it could not be done. A file that is not whole has no final name.
    """
    plots.need_plots()
    refuse_existing(out, replace=force)
    start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
    with open_reader(settings) as reader:
        daily = choose(reader, settings, symbols)
        if pictures is not None:
            for symbol in daily.symbols:
                for plot in plots.PLOTS:
                    refuse_existing(_picture(pictures, symbol, day, plot), replace=force)
        with whole_file(out, replace=force) as file, _scratch(out) as sections:
            heads: list[Summary] = []
            for symbol in daily.symbols:
                found = daily.of(symbol, start)
                if not found.rows and not symbols:
                    continue  # recorded on other days
                sections.write(page.section(found, _draw(found)).encode())
                if pictures is not None:
                    _write_pictures(found, day, pictures, force=force)
                heads.append(found.summary())
            rows = sum(one.rows for one in heads)
            if not rows:
                raise MexcTrioError(_nothing(daily, day))
            made = f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
            file.write(page.head(day.isoformat(), reader.name, made, heads).encode())
            sections.seek(0)
            shutil.copyfileobj(sections, file)
            file.write(page.tail().encode())
    recorded = sum(one.covered.recorded for one in heads if one.covered)
    live = sum(one.covered.live for one in heads if one.covered)
    sys.stdout.write(
        f"{out}: {day} of {number_of(len(heads), 'symbol')}, {percent(live, recorded)} covered, "
        f"{number_of(rows, 'row')}, {number_of(sum(one.gaps for one in heads), 'gap')}, "
        f"{size(out.stat().st_size)}\n"
    )
    return 0


def _draw(day: SymbolDay) -> Mapping[str, str]:
    return {plot: plots.svg(day, plot) for plot in plots.PLOTS}


def _write_pictures(day: SymbolDay, date_: date, directory: Path, *, force: bool) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the directory {directory}: {error.strerror}") from error
    for plot in plots.PLOTS:
        if plot == "pause" and day.pauses is None:
            continue
        title = f"{day.symbol} · {date_}, UTC · {page.TITLES[plot]}"
        with whole_file(_picture(directory, day.symbol, date_, plot), replace=force) as file:
            file.write(plots.png(day, plot, title))


def _picture(directory: Path, symbol: str, day: date, plot: str) -> Path:
    return directory / f"{plots.plain(symbol)}-{day}-{plot}.png"


@contextmanager
def _scratch(out: Path) -> Iterator[IO[bytes]]:
    """Lend a file without a name, for what is known before what stands above it."""
    try:
        with tempfile.TemporaryFile(dir=out.parent) as file:
            yield file
    except OSError as error:
        raise FileError(f"cannot write into {out.parent}: {error.strerror or error}") from error


def _nothing(daily: Daily, day: date) -> str:
    """Return the error for a day without rows."""
    whole = daily.recorded()
    text = f"{daily.reader.name} has no rows of {' or '.join(list(daily.symbols)[:5])} on {day}"
    if whole is None:
        return text
    return f"{text}, only between {time_text(whole[0])} and {time_text(whole[1])}"
