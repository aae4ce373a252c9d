"""Which symbols share a connection, if nobody has decided.

Hundreds of quiet contracts share a few connections, whose messages are read together; a busy one
has its own, so that it is read at once and no neighbour's silence ends it. How busy a contract is,
earlier runs have measured; before the first all count as quiet.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import trio

from mexc_trio.settings import Settings

if TYPE_CHECKING:
    from mexc_trio.record.recording import Recording
    from mexc_trio.settings.routes import Route

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


class Shares(NamedTuple):
    """Symbols by their connections, each in the order in which it came."""

    alone: list[str]
    """Those that have one of their own, and keep it."""
    together: list[list[str]]
    """Those that share one. More may join, even if it is one symbol for now."""


def share(symbols: Sequence[str], rates: Mapping[str, float], size: int, others: int = 0) -> Shares:
    """Return who is to share a connection with whom.

    `symbols` are those that are to have connections, and `others` how many have some already.
    `rates` has the frames a second of those that were measured; `size` is the number of symbols of
    a connection, 0 if nobody has decided.
    """
    if size == 1 or (not size and len(symbols) + others <= FEW):
        return Shares(list(symbols), [])
    if size:
        return Shares([], groups_of(symbols, size))
    busy = [symbol for symbol in symbols if rates.get(symbol, 0.0) >= BUSY]
    chosen = set(sorted(busy, key=lambda symbol: -rates[symbol])[:MOST_ALONE])
    alone = [symbol for symbol in symbols if symbol in chosen]
    return Shares(alone, groups_of([one for one in symbols if one not in chosen], TOGETHER))


def groups_of(symbols: Sequence[str], size: int) -> list[list[str]]:
    """Return them cut into groups of that size; the last may be smaller."""
    return [list(symbols[first : first + size]) for first in range(0, len(symbols), size)]


def most_connections(settings: Settings, symbols: Iterable[str]) -> int:
    """Return how many connections these symbols may have at the most."""
    by_route: defaultdict[tuple[Route, ...], int] = defaultdict(int)
    for symbol in symbols:
        by_route[settings.for_symbol(symbol).route] += 1
    size, most = settings.symbols_per_connection, 0
    for number in by_route.values():
        if size or number <= FEW:
            most += -(-number // (size or 1))
        else:
            most += min(number, MOST_ALONE + -(-number // TOGETHER))
    return most * settings.lines


def measured(recording: "Recording") -> dict[str, float]:
    """Return the rates that earlier runs and this one have noted."""
    try:
        return msgspec.json.decode(recording.journal.file.fact(_FACT), type=dict[str, float])
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
        recording.journal.file.remember(_FACT, msgspec.json.encode(rates).decode())
