"""The files of a StripeLog table, and what a lost power or a full disk does to them.

`index.mrk` says where the rows in `data.bin` begin: one compressed block for each INSERT, of which
the engine reads all or nothing, so that one damaged byte at its end hides the whole table.
`sizes.json` says how much of both is valid; written on a full disk it is empty, and then the engine
opens no table at all. Here the index is cut back to its whole blocks, while the engine has the
table closed. What is cut off is kept beside the tables.
"""

import json
import logging
import os
import struct
import time
from pathlib import Path
from typing import Final

from mexc_trio.files import bytes_of

log = logging.getLogger(__name__)

# A block: checksum (16 bytes), method, its size from the method on, its size when unpacked.
_HEADER: Final = struct.Struct("<16sBII")
_CHECKSUM: Final = 16
_METHODS: Final = frozenset({0x02, 0x82, 0x90})  # none, LZ4, ZSTD


def needs_repair(table: Path) -> bool:
    """Return whether the sizes of a table's files alone show that the engine cannot open it."""
    index = table.resolve() / "index.mrk"  # another table may take its name, and it may go
    sizes, length = noted_sizes(index.parent), bytes_of(index)
    return index.exists() and (sizes is None or length < sizes.get("index.mrk", 0))


def repair_what_would_not_open(tables: Path, aside: Path) -> None:
    """Repair those of the tables in a directory that keep an engine from starting.

    `tables` has the tables' directories, and may be missing. For `aside` see `truncate_index`.
    """
    for table in tables.glob("*"):
        if needs_repair(table):
            kept = truncate_index(table.resolve(), aside)
            log.error(
                "table %s: its index is damaged and was cut to what can be read; kept as %s",
                table.name, kept,
            )  # fmt: skip


def truncate_index(table: Path, aside: Path, drop: int = 0) -> Path | None:
    """Cut the index of a table that no engine has open back to its whole blocks.

    `table` is the directory of its files. `drop` of the last whole blocks are cut off, too: their
    checksums are not looked at. Returns the directory in `aside` in which the files are kept as
    they were; None if there are not so many blocks.
    """
    index = table / "index.mrk"
    content = index.read_bytes()
    ends = _block_ends(content)
    if drop > len(ends):
        return None
    end = ([0, *ends])[len(ends) - drop]
    kept = aside / f"{table.resolve().name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    if not kept.exists():
        kept.mkdir(parents=True)
        (kept / "index.mrk").write_bytes(content)
        if (table / "sizes.json").exists():
            (kept / "sizes.json").write_bytes((table / "sizes.json").read_bytes())
    os.truncate(index, end)
    sizes = {name: (table / name).stat().st_size for name in ("data.bin", "index.mrk")}
    _write_sizes(table, sizes)
    return kept


def _block_ends(index: bytes) -> list[int]:
    ends: list[int] = []
    at = 0
    while at + _HEADER.size <= len(index):
        _, method, size, _ = _HEADER.unpack_from(index, at)
        at += _CHECKSUM + size
        if method not in _METHODS or size < _HEADER.size - _CHECKSUM or at > len(index):
            break
        ends.append(at)
    return ends


def noted_sizes(table: Path) -> dict[str, int] | None:
    """Return how long the engine noted a table's files to be; None if that cannot be read."""
    try:
        content = json.loads((table / "sizes.json").read_text())
        (files,) = content.values()
        return {name.replace("%2E", "."): int(file["size"]) for name, file in files.items()}
    except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return None


def _write_sizes(table: Path, sizes: dict[str, int]) -> None:
    files = {name.replace(".", "%2E"): {"size": str(size)} for name, size in sizes.items()}
    new = table / "sizes.json.new"
    with new.open("w") as file:
        json.dump({"clickhouse": files}, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(table / "sizes.json")
