"""Which days of an export by day are written already.

A directory has one file a day and `_export.json`, which says how many rows each was made of, and
the fingerprint of those and of what else. A day that has got more since, or others, or of which
more is known, is written again.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Self

import attrs
import msgspec

from mexc_trio.errors import FileError, UsageError
from mexc_trio.export.part import Part
from mexc_trio.export.request import ExportRequest
from mexc_trio.files import whole_file
from mexc_trio.times import day_name

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
