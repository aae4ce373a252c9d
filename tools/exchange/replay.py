"""Frames from a file in place of generated ones."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from tools.exchange.feed import BURST
from tools.market import CHANNELS

if TYPE_CHECKING:
    from tools.exchange.state import State


async def replay(
    exchange: State, frames: Sequence[tuple[str, str, str]], *, rate: float, loop: bool
) -> None:
    """Do what ``Exchange.replay`` says."""
    by_symbol: dict[str, list[tuple[str, str]]] = {}
    for symbol, channel, frame in frames:
        by_symbol.setdefault(symbol, []).append((channel, frame))
    async with trio.open_nursery() as nursery:
        for symbol, texts in by_symbol.items():
            endless = itertools.cycle(texts) if loop else iter(texts)
            nursery.start_soon(_replay_symbol, exchange, symbol, endless, rate)


async def _replay_symbol(
    exchange: State, symbol: str, texts: Iterable[tuple[str, str]], rate: float
) -> None:
    # Bursts of five milliseconds' worth keep high rates affordable.
    size = min(max(1, int(rate * 0.005)), BURST) if rate else BURST
    source = iter(texts)
    due = trio.current_time()
    while burst := list(itertools.islice(source, size)):
        await exchange.subscribed(symbol)
        due = max(due, trio.current_time() - 1)
        await trio.sleep_until(due)
        for connection in exchange.subscribers(symbol):
            records = [
                exchange.records.add(connection.number, symbol, channel, frame, replayed=True)
                for channel, frame in burst
                if channel not in CHANNELS or channel in connection.subscriptions[symbol]
            ]
            await exchange.transmit(connection, records)
        due += len(burst) / rate if rate else 0


def read_frames(path: Path) -> list[tuple[str, str, str]]:
    """Read a file of push frames, one JSON document a line, for ``Exchange.replay``.

    Returns triples of symbol, channel and the unchanged text. ValueError names the line that is
    no push frame.
    """
    frames = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            message = json.loads(line)
            symbol, channel = message["symbol"], message["channel"].removeprefix("push.")
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ValueError(f"{path}, line {number}: no push frame with a symbol") from None
        frames.append((symbol, channel, line))
    return frames
