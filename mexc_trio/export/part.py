"""What one file of an export is made of: its rows, and what else decides what is in it.

For a backtest that is where books are missing, what the contract is, and when the rows before the
file were known; for amounts in coins, what the contract is. All of it may become known after a
day's file was written; and a table that was removed and recorded anew may have as many rows, but
others. So beside the files of the days stands `_export.json`, which has of each file the number of
rows, and a fingerprint of their times and of all else. A day is written again when those differ.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, Self

import attrs
import msgspec

from mexc_trio.clickhouse.recorded_terms import RecordedTerms, in_force
from mexc_trio.errors import FileError, UsageError
from mexc_trio.export.gaps import book_gaps, clearable
from mexc_trio.export.local_time import STEP
from mexc_trio.export.request import ExportRequest
from mexc_trio.export.source import ExportSource, Plan
from mexc_trio.files import whole_file
from mexc_trio.spans import DAY
from mexc_trio.times import day_name

_DIGITS: Final = 16
"""Of a fingerprint."""


@attrs.frozen
class Part:
    """A file to be written."""

    day: int | None
    """The start of its day in milliseconds; None for a file that is no day's."""
    start: int
    end: int
    """Milliseconds; the end is not part of it."""
    rows: int
    """Rows of the table that it is made of."""
    gaps: tuple[int, ...] = ()
    """For hftbacktest, when gaps in the books begin."""
    terms: tuple[RecordedTerms, ...] = ()
    """What the contract is, as far as the file says or uses it."""
    known: int = 0
    """For hftbacktest, when the rows before it were known, if that is later than its beginning.

    In nanoseconds of the local machine, else 0.
    """
    times: int = 0
    """The checksum of its day's times."""

    @property
    def fingerprint(self) -> str:
        """Tells whether as many rows make the same file."""
        text = repr((self.gaps, self.terms, self.known, self.times))
        return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def whole(source: ExportSource, plan: Plan, start: int, end: int) -> Part:
    """Return the one file of a range."""
    known = max(_latest_local_times(source, start - DAY, start).values(), default=0)
    return _part(source, None, (start, end), plan.rows, _gaps(source), known)


def days(source: ExportSource, plan: Plan, start: int, end: int) -> list[Part]:
    """Return a file for each day of a range that has rows."""
    gaps = _gaps(source)
    known = _latest_local_times(source, start - DAY, end)
    with_rows = {hour // DAY * DAY for hour in plan.hours}
    found: list[Part] = []
    latest = 0  # of all days before: a clock that was far ahead for one holds for all that follow
    for day in sorted({*known, *with_rows}):
        if day in with_rows:
            span = max(start, day), min(end, day + DAY)
            rows = plan.between(day, day + DAY)
            part = _part(source, day, span, rows, gaps, latest)
            found.append(attrs.evolve(part, times=plan.checksums[day]))
        # The day's last clear is a step after that, too.
        latest = max(latest + STEP, known.get(day, 0))
    return found


def _part(
    source: ExportSource,
    day: int | None,
    span: tuple[int, int],
    rows: int,
    gaps: Sequence[int],
    known: int,
) -> Part:
    start, end = span
    # It matters only if it is later than the file's beginning.
    known = known if known > start * 1_000_000 else 0
    # A gap that began earlier found no book of this file to clear.
    began = tuple(gap for gap in clearable(gaps, end) if gap >= start)
    return Part(day, start, end, rows, began, in_force(source.terms, start, end), known)


def _gaps(source: ExportSource) -> Sequence[int]:
    request = source.request
    books = request.format == "hftbacktest" and "depths" in request.kinds
    return book_gaps(source) if books else ()


def _latest_local_times(source: ExportSource, start: int, end: int) -> Mapping[int, int]:
    request = source.request
    receipts = request.format == "hftbacktest" and request.latency is None
    found = source.known_by_day(start, end) if receipts else {}
    return {day: latest + STEP for day, latest in found.items()}  # a clear may be the last of it


VERSION: Final = 2
"""Of the files' columns."""
NAME: Final = "_export.json"
"""Tools that read a directory of files pass over a name like this."""


class _Day(msgspec.Struct, frozen=True):
    rows: int
    start: int
    end: int
    fingerprint: str = ""

    @classmethod
    def of(cls, part: Part) -> Self:
        return cls(part.rows, part.start, part.end, part.fingerprint)


_UNWRITTEN: Final = _Day(0, 0, 0)


class _Contents(msgspec.Struct):
    symbol: str
    kinds: tuple[str, ...]
    format: str
    interval: int
    days: dict[str, _Day]
    numbers: str = "exact"  # as they were before there was a choice
    flat: bool = False
    latency: int = 0
    version: int = 1
    amounts: str = "contracts"


@attrs.define
class ExportedDays:
    """The days of one directory."""

    request: ExportRequest
    _contents: _Contents

    def knows(self, part: Part) -> bool:
        """Whether the day's file is one of ours, so that it may be brought up to date."""
        return part.day is not None and day_name(part.day) in self._contents.days

    def has(self, part: Part) -> bool:
        """Whether the day is written, as it is now."""
        return (
            part.day is not None
            and self._contents.days.get(day_name(part.day)) == _Day.of(part)
            and self.request.file_of(part.day).exists()
        )

    def begin(self, parts: Sequence[Part]) -> None:
        """Note whose files are about to be written, so that they are known as ours from then on.

        A run may end between a file and its note. Raises FileError if the ledger cannot be written.
        """
        days = [day_name(part.day) for part in parts if part.day is not None]
        self._write({name: _UNWRITTEN for name in days if name not in self._contents.days})

    def add(self, part: Part) -> None:
        """Note a day's file that is whole; FileError if the ledger cannot be written."""
        assert part.day is not None  # noqa: S101 - only days are noted
        self._write({day_name(part.day): _Day.of(part)})

    def _write(self, days: Mapping[str, _Day]) -> None:
        if not days:
            return
        self._contents.days |= days
        text = msgspec.json.format(msgspec.json.encode(self._contents), indent=1)
        with whole_file(self.request.out / NAME, replace=True) as file:
            file.write(text + b"\n")


def read_ledger(request: ExportRequest) -> ExportedDays:
    """Read the ledger of the request's directory; begin one where there is none.

    Raises FileError if it cannot be read, UsageError if the directory has another export.
    """
    asked = _Contents(
        request.symbol, request.kinds, request.format, request.interval, {}, request.numbers,
        request.flat, request.latency or 0, VERSION, request.amounts,
    )  # fmt: skip
    path = request.out / NAME
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Contents)
    except FileNotFoundError:
        return ExportedDays(request, asked)
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path} cannot be read ({error}); remove it to export anew") from error
    same = msgspec.structs.replace(asked, days=found.days)
    if found != same:
        raise UsageError(
            f"{request.out} has {found.symbol} {' and '.join(found.kinds)} as {found.format} "
            f"already, or with other columns; give --out another directory"
        )
    return ExportedDays(request, found)
