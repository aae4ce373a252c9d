"""The command `report`: a day, or any range, as pages that a browser shows without a network.

The store adds up the range step by step and symbols are drawn one after the other, so memory grows
neither with rows nor with plots. The head of the page comes from the numbers of its plots.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

import attrs

from mexc_trio.errors import FileError, MexcTrioError, UsageError
from mexc_trio.files import make_directory, refuse_existing, whole_file
from mexc_trio.progress import progress
from mexc_trio.read.reading import open_reader
from mexc_trio.report import page, plots
from mexc_trio.report.recorded import Recorded, Summary, share_of
from mexc_trio.report.source import RangeReader, choose
from mexc_trio.report.style import TAIL
from mexc_trio.settings import Settings
from mexc_trio.spans import DAY, EARLIEST, LATEST, Span, now
from mexc_trio.texts import number_of, size, time_text
from mexc_trio.times import parse_option_time, time_name

FEW: Final = 4
"""Up to so many symbols are on one page; of more, each has a page of its own."""


@attrs.frozen
class ReportRange:
    """The range that a report is about, in milliseconds since 1970."""

    span: Span
    name: str
    """For the page: a day, or two times."""

    @property
    def file_name(self) -> str:
        """The same as a part of a file's name."""
        return self.name.replace(":", "").replace(" ", "-")


def parse_range(day: str | None, start: str | None, end: str | None) -> ReportRange:
    """Return the range that the command line names; without a name it is yesterday in UTC.

    Raises UsageError if it is none.
    """
    if day is not None and (start or end):
        raise UsageError("--day is a range of its own; give it, or --from and --to")
    if start is None and end is None:
        date = parse_day(day)
        first = int(datetime(date.year, date.month, date.day, tzinfo=UTC).timestamp()) * 1000
        return ReportRange((first, first + DAY), date.isoformat())
    if start is None:
        raise UsageError("--to goes with --from: a report begins somewhere")
    first = parse_option_time("--from", start)
    last = now() if end is None else parse_option_time("--to", end)
    if not EARLIEST <= first < last <= LATEST:
        raise UsageError(f"--from {start} is not before --to {end or 'now'}")
    began, ended = (time_name(time).removesuffix(":00") for time in (first, last))
    if began[:10] == ended[:10]:
        ended = ended[11:]
    return ReportRange((first, last), f"{began} to {ended}")


def parse_day(text: str | None) -> date:
    """Return the day that the command line names; without a name, yesterday in UTC.

    Raises UsageError if it is none.
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
    asked: ReportRange,
    out: Path,
    *,
    pictures: Path | None = None,
    force: bool = False,
) -> int:
    """Write the page of a range, or of many symbols an index and a page each; return the exit code.

    Without symbols, all that the store has. Pages of many symbols are in a directory beside `out`,
    of the same name; `pictures` is a directory for the plots as PNG files, None for no such files.
    With `force` files may be written over. Raises a MexcTrioError if it could not be done; a file
    that is not whole has no final name.
    """
    plots.need_plots()
    refuse_existing(out, replace=force)
    with open_reader(settings) as reader:
        source = choose(reader, settings, symbols)
        if pictures is not None:
            for symbol in source.symbols:
                for plot in plots.BY_NAME:
                    refuse_existing(_picture(pictures, symbol, asked, plot), replace=force)
        pages = _Pages(out, asked, force) if len(source.symbols) > FEW else None
        with whole_file(out, replace=force) as file, _scratch(out) as sections:
            heads: list[Summary] = []
            with progress("report", len(source.symbols), "symbols") as bar:
                for symbol in source.symbols:
                    found = source.of(symbol, asked.span)
                    bar(1)
                    if not found.rows and not symbols:
                        continue  # recorded at other times
                    text = page.section(found)
                    if pages is None:
                        sections.write(text.encode())
                    else:
                        pages.write(symbol, text)
                    if pictures is not None:
                        _write_pictures(found, asked, pictures, force=force)
                    heads.append(found.summary())
            rows = sum(one.rows for one in heads)
            if not rows:
                raise MexcTrioError(_no_rows(source, asked))
            made = f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
            link = pages.link if pages else "#{}".format
            file.write(page.head(asked.name, reader.name, made, heads, link).encode())
            sections.seek(0)
            shutil.copyfileobj(sections, file)
            file.write(TAIL.encode())
    sys.stdout.write(
        f"{out}: {asked.name} of {number_of(len(heads), 'symbol')}, "
        f"{share_of(heads).percent} covered, {number_of(rows, 'row')}, "
        f"{number_of(sum(one.gaps for one in heads), 'gap')}, {size(out.stat().st_size)}\n"
    )
    if pages:
        sys.stdout.write(
            f"{pages.directory}: a page for each symbol, {size(pages.written)} in all\n"
        )
    return 0


@attrs.define
class _Pages:
    """The symbols' own pages, beside the index."""

    index: Path
    asked: ReportRange
    force: bool
    written: int = attrs.field(default=0, init=False)
    """Bytes."""
    _before: str = attrs.field(default="", init=False)

    @property
    def directory(self) -> Path:
        """Where they are."""
        return self.index.with_suffix("") if self.index.suffix else Path(f"{self.index}-symbols")

    def link(self, symbol: str) -> str:
        """Return where a symbol's page is, as the index says it."""
        return f"{quote(self.directory.name)}/{self._file(symbol)}"

    def write(self, symbol: str, section: str) -> None:
        """Write a symbol's page."""
        make_directory(self.directory)
        around = {
            "all symbols": f"../{quote(self.index.name)}",
            f"← {self._before}": self._file(self._before) if self._before else "",
        }
        text = page.alone(self.asked.name, symbol, around) + section + TAIL
        with whole_file(self.directory / self._file(symbol), replace=self.force) as file:
            self.written += file.write(text.encode())
        self._before = symbol

    @staticmethod
    def _file(symbol: str) -> str:
        return f"{plots.plain(symbol)}.html"


def _write_pictures(found: Recorded, asked: ReportRange, directory: Path, *, force: bool) -> None:
    make_directory(directory)
    for plot in plots.plots_of(found):
        if plot == "pause" and found.pauses is None:
            continue
        title = f"{found.symbol} · {asked.name}, UTC · {plots.BY_NAME[plot].title}"
        with whole_file(_picture(directory, found.symbol, asked, plot), replace=force) as file:
            file.write(plots.png(found, plot, title))


def _picture(directory: Path, symbol: str, asked: ReportRange, plot: str) -> Path:
    return directory / f"{plots.plain(symbol)}-{asked.file_name}-{plot}.png"


@contextmanager
def _scratch(out: Path) -> Iterator[IO[bytes]]:
    """Lend a file without a name, for what is known before what stands above it."""
    try:
        with tempfile.TemporaryFile(dir=out.parent) as file:
            yield file
    except OSError as error:
        raise FileError(f"cannot write into {out.parent}: {error.strerror or error}") from error


def _no_rows(source: RangeReader, asked: ReportRange) -> str:
    """Return the error for a range without rows."""
    whole = source.recorded()
    symbols = " or ".join(list(source.symbols)[:5])
    text = f"{source.reader.name} has no rows of {symbols} on {asked.name}"
    if whole is None:
        return text
    return f"{text}, only between {time_text(whole[0])} and {time_text(whole[1])}"
