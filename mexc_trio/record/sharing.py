"""Which symbols share a connection, if nobody has decided.

Hundreds of quiet contracts share a few connections, whose messages are read together; a busy one
has its own, so that it is read at once and no neighbour's silence ends it. How busy a contract is,
earlier runs have measured; before the first all count as quiet.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Final

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


def alone(
    symbols: Sequence[str], rates: Mapping[str, float], size: int, others: int = 0
) -> Set[str]:
    """Return those that are to have a connection of their own; the rest shares.

    `symbols` are those that are to have connections, and `others` how many have some already.
    `rates` has the frames a second of those that were measured; `size` is the number of symbols of
    a connection, 0 if nobody has decided.
    """
    if size == 1 or (not size and len(symbols) + others <= FEW):
        return set(symbols)
    if size:
        return set()
    busy = [symbol for symbol in symbols if rates.get(symbol, 0.0) >= BUSY]
    return set(sorted(busy, key=lambda symbol: -rates[symbol])[:MOST_ALONE])


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
