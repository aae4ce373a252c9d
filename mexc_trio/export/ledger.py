"""Which days of an export by day are written already.

A directory has one file a day and `_export.json`, which says how many rows each was made of. Tables
only grow, so a day that has as many rows now is complete; one that has got more is written again.
"""

from typing import Final

import attrs
import msgspec

from mexc_trio.errors import FileError, UsageError
from mexc_trio.export.request import Request
from mexc_trio.files import whole_file
from mexc_trio.times import day_name

VERSION: Final = 2
"""Of the files' columns."""
NAME: Final = "_export.json"
"""Tools that read a directory of files pass over a name like this."""


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


class _Day(msgspec.Struct, frozen=True):
    rows: int
    start: int
    end: int


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
class Ledger:
    """The days of one directory."""

    request: Request
    _contents: _Contents

    def knows(self, part: Part) -> bool:
        """Whether the day's file is one of ours, so that it may be brought up to date."""
        return part.day is not None and day_name(part.day) in self._contents.days

    def has(self, part: Part) -> bool:
        """Whether the day is written, as it is now."""
        return (
            part.day is not None
            and self._contents.days.get(day_name(part.day)) == _Day(part.rows, part.start, part.end)
            and self.request.file_of(part.day).exists()
        )

    def add(self, part: Part) -> None:
        """Note a day's file that is whole.

        Raises:
            FileError: the ledger cannot be written.
        """
        assert part.day is not None  # noqa: S101 - only days are noted
        self._contents.days[day_name(part.day)] = _Day(part.rows, part.start, part.end)
        text = msgspec.json.format(msgspec.json.encode(self._contents), indent=1)
        with whole_file(self.request.out / NAME, replace=True) as file:
            file.write(text + b"\n")


def read_ledger(request: Request) -> Ledger:
    """Read the ledger of the request's directory; begin one where there is none.

    Raises:
        FileError: it cannot be read.
        UsageError: the directory has another export.
    """
    asked = _Contents(
        request.symbol, request.kinds, request.format, request.interval, {}, request.numbers,
        request.flat, request.latency or 0, VERSION, request.amounts,
    )  # fmt: skip
    path = request.out / NAME
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Contents)
    except FileNotFoundError:
        return Ledger(request, asked)
    except (OSError, msgspec.DecodeError) as error:
        raise FileError(f"{path} cannot be read ({error}); remove it to export anew") from error
    same = msgspec.structs.replace(asked, days=found.days)
    if found != same:
        raise UsageError(
            f"{request.out} has {found.symbol} {' and '.join(found.kinds)} as {found.format} "
            f"already, or with other columns; give --out another directory"
        )
    return Ledger(request, found)
