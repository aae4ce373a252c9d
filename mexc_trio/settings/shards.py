"""Which of the listed contracts are recorded here, where several recorders share them.

The rule needs nobody to be asked: a symbol belongs to the shard whose number is the CRC-32 of its
name modulo the number of shards, plus one. What is given by name is recorded where it is given, and
a symbol's own section may say another shard.
"""

import re
import zlib

import attrs

from mexc_trio.errors import UsageError
from mexc_trio.settings.values import shown


@attrs.frozen
class Shard:
    """One of several shards."""

    number: int
    """From 1 on."""
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, symbol: str, chosen: int | None = None) -> bool:
        """Whether a symbol belongs to it; `chosen` is the shard that its own section says."""
        return self.number == (chosen or zlib.crc32(symbol.encode()) % self.of + 1)


def parse_shard(text: str) -> Shard:
    """Read a shard: `1/2` is the first of two."""
    if not (found := re.fullmatch(r"\s*([0-9]{1,4})\s*/\s*([0-9]{1,4})\s*", text)):
        raise UsageError(f"{shown(text)} is not a shard; 1/2 is the first of two")
    number, of = map(int, found.groups())
    if not 1 <= number <= of:
        raise UsageError(f"{shown(text)}: there is no shard {number} of {of}")
    return Shard(number, of)
