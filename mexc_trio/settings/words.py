"""Reading the exchange's own words: symbols, channels, currencies, the address of its REST."""

import re

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
    """Read symbols with blanks or commas between them."""
    return parse_symbols(text.replace(",", " ").split())


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
