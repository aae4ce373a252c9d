"""Which symbols share a connection, if nobody has decided.

A connection has its price: its pings, its turns of the loop, its records of TLS. So hundreds of
contracts share a few, which are read together; and a busy one has its own, so that it is read at
once and no neighbour's silence ends it. How busy a contract is, earlier runs have measured; before
the first all count as quiet.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import trio

if TYPE_CHECKING:
    from mexc_trio.record.recording import Recording

log = logging.getLogger(__name__)

FEW: Final = 20
"""So many symbols have a connection each."""
TOGETHER: Final = 200
"""Quiet symbols on one connection."""
BUSY: Final = 5.0
"""Frames a second from which a symbol is busy: the busiest thirty or so of 1,200 contracts."""
MOST_ALONE: Final = 32
"""Busy symbols that have a connection of their own, where there are many symbols."""
MEASURE_INTERVAL: Final = 600.0
"""Seconds between two notes of how busy symbols are."""

_FACT: Final = "rates"


def share(symbols: Sequence[str], rates: Mapping[str, float], size: int) -> list[list[str]]:
    """Return the symbols of each connection, each group in the order in which it came.

    Args:
        symbols: those that are to have connections.
        rates: frames a second, of those that were measured.
        size: symbols of a connection, if that was decided; 0 if not.
    """
    if size or len(symbols) <= FEW:
        return _groups(symbols, size or 1)
    busy = [symbol for symbol in symbols if rates.get(symbol, 0.0) >= BUSY]
    alone = set(sorted(busy, key=lambda symbol: -rates[symbol])[:MOST_ALONE])
    quiet = [symbol for symbol in symbols if symbol not in alone]
    return [*([one] for one in symbols if one in alone), *_groups(quiet, TOGETHER)]


def most_connections(symbols: int, size: int) -> int:
    """Return how many connections so many symbols may have at the most."""
    if size or symbols <= FEW:
        return -(-symbols // (size or 1))
    return MOST_ALONE + -(-symbols // TOGETHER)


def _groups(symbols: Sequence[str], size: int) -> list[list[str]]:
    return [list(symbols[first : first + size]) for first in range(0, len(symbols), size)]


def measured(recording: "Recording") -> dict[str, float]:
    """Return the rates that earlier runs and this one have noted."""
    try:
        return msgspec.json.decode(recording.journal.fact(_FACT), type=dict[str, float])
    except msgspec.DecodeError:  # there is none yet
        return {}


async def keep_measuring(recording: "Recording") -> None:
    """Note now and then how busy the symbols are, for the next start. Runs until cancelled."""
    while True:
        before = {one.symbol: sum(one.frames.values()) for one in recording.collectors}
        began = trio.current_time()
        await trio.sleep(MEASURE_INTERVAL)
        seconds = trio.current_time() - began
        rates = measured(recording)
        for one in recording.collectors:
            if one.symbol in before:
                frames = sum(one.frames.values()) - before[one.symbol]
                rates[one.symbol] = round(frames / seconds, 2)
        recording.journal.remember(_FACT, msgspec.json.encode(rates).decode())
