"""Reading the exchange's own words: symbols, channels, currencies, its address, shards of its list.

A shard is one recorder's part of the listed contracts where several recorders share them. None has
to ask another: a symbol belongs to the shard whose number is the CRC-32 of its name modulo the
number of shards, plus one. What is given by name is recorded where it is given, and a symbol's own
section may name another shard.
"""

import re
import zlib

import attrs

from mexc_trio.channels import ALL
from mexc_trio.errors import UsageError
from mexc_trio.settings.values import is_url, nearest, shown
from mexc_trio.symbols import parse_symbols


def parse_rest_url(text: str) -> str:
    """Read the address of an exchange's REST interface."""
    if not is_url(text, ("http", "https")) or re.search(r"[@#?\s]", text):
        raise UsageError(f"{shown(text)} is not a REST URL; https://contract.mexc.com is")
    return text


def parse_symbol_list(text: str) -> tuple[str, ...]:
    """Read symbols with blanks or commas between them; none of an empty text."""
    return parse_symbols(text.replace(",", " ").split()) if text else ()


def parse_channels(text: str) -> tuple[str, ...]:
    """Read names of channels, in any order; return them in the channels' own."""
    chosen = dict.fromkeys(text.lower().replace(",", " ").split())
    for name in chosen:
        if name not in ALL:
            raise UsageError(
                f"{shown(name)} is not a channel{nearest(name, ALL)}; there are {', '.join(ALL)}"
            )
    if not chosen:
        raise UsageError(f"no channel is given; there are {', '.join(ALL)}")
    return tuple(name for name in ALL if name in chosen)


def parse_quotes(text: str) -> tuple[str, ...]:
    """Read quote currencies."""
    quotes = tuple(dict.fromkeys(text.upper().replace(",", " ").split()))
    for quote in quotes:
        if not re.fullmatch("[A-Z0-9]+", quote):
            raise UsageError(f"{shown(quote)} is not a quote currency; USDT is")
    return quotes


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
