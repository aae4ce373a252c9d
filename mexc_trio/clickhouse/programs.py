"""What a store's directory would have its engine run, for whoever gets one from somebody else.

A directory holds more than rows: definitions of tables and functions, of which some are programs
that the engine runs, even by itself, and configuration that it obeys. Of ours none is.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from mexc_trio.errors import StoreRejected

_PLACES: Final = ("engine/config.d", "user_scripts", "dynamic_user_defined_executable_functions")
_DEFINITIONS: Final = ("metadata", "metadata/*", "store/*/*", "user_defined")
_WORD: Final = b"executable"
"""Without it no table, dictionary or function is a program."""


def refuse_programs(directory: Path, name: str) -> None:
    """Refuse, by StoreRejected, a directory in which its engine would run something."""
    for path in _found(directory):
        raise StoreRejected(
            f"{name}: {path} would have the engine run a program; what others have recorded is "
            f"had from their backup, by mexc-trio restore"
        )


def _found(directory: Path) -> Iterator[str]:
    for place in _PLACES:
        yield from map(str, (directory / place).glob("*"))
    # Of 1,200 symbols there are thirteen thousand, so not by Path's slower means, nor twice.
    places = {os.path.realpath(one) for name in _DEFINITIONS for one in directory.glob(name)}
    for place in places:
        with suppress(OSError), os.scandir(place) as entries:  # else the engine cannot read it
            for entry in entries:
                if entry.name.endswith(".sql") and _runs(entry.path):
                    yield entry.path


def _runs(path: str) -> bool:
    with suppress(OSError), open(path, "rb", buffering=0) as file:
        return _WORD in file.readall().lower()
    return False
