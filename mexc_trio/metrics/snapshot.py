"""The state of a recorder at one moment, read off while it goes on recording.

That takes milliseconds for a thousand symbols, so it is done in pieces, between which other tasks
run. No object is made for each symbol: thousands of them would bring on full collections of
Python's garbage, and one of those takes longer than all of this.
"""

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Final, TypeVar

import attrs
import trio

from mexc_trio.clickhouse.insert_counters import InsertCounters
from mexc_trio.errors import JournalError
from mexc_trio.exchange.counters import LineCounters
from mexc_trio.files import bytes_of
from mexc_trio.record.collector import Collector
from mexc_trio.record.recording import Recording
from mexc_trio.rows import Channel

PIECE: Final = 50
"""Symbols that are looked at in one piece: a millisecond."""
LATELY: Final = 60.0
"""Seconds for which a frame says something about the delay there is now."""

T = TypeVar("T")
K = TypeVar("K")


class SymbolState(StrEnum):
    """What a symbol does."""

    RECORDING = "recording"
    WAITING = "waiting"
    """Nothing has come on its present connection yet, or there is none."""
    SILENT = "silent"
    """A channel has been silent for longer than is usual for it."""
    REFUSED = "refused"
    """Received, and kept in the journal: the store takes none of its rows."""
    STOPPED = "stopped"
    """By its errors."""
    LEFT = "left"
    """The exchange lists it no longer, or nobody wants it any more."""


@attrs.define(kw_only=True)
class Snapshot:
    """A recorder at one moment."""

    troubled: dict[str, str] = attrs.field(factory=dict)
    """Symbols that are not as they should be, and why, in a few words."""
    states: Counter[SymbolState] = attrs.field(factory=Counter)
    silent: Counter[Channel] = attrs.field(factory=Counter)
    """Symbols whose channel has been silent for longer than is usual for it."""
    channels: int = 0
    """Those that are recorded, of all symbols together."""
    frames: Counter[Channel | None] = attrs.field(factory=Counter)
    rows: Counter[Channel | None] = attrs.field(factory=Counter)
    stored: Counter[str] = attrs.field(factory=Counter)
    """Rows that the store has acknowledged, by message type."""
    dead: int = 0
    covered: int = 0
    """Losses of a line while another had the symbol."""
    gaps: Counter[str] = attrs.field(factory=Counter)
    """Gaps written in this run, by cause."""
    gap_milliseconds: Counter[str] = attrs.field(factory=Counter)
    filled: Counter[str] = attrs.field(factory=Counter)
    """See `Pending.filled`."""
    last: dict[Channel, float] = attrs.field(factory=dict)
    """When the last frame of any symbol came, in seconds since 1970, by channel."""
    delays: dict[Channel, list[float]] = attrs.field(factory=dict)
    """Seconds between the exchange's time and receipt, of the last frame of each symbol that had
    one lately."""
    connected: Counter[LineCounters] = attrs.field(factory=Counter)
    """Symbols whose rows are coming, by line and route."""
    line_counters: Sequence[LineCounters]
    inserts: InsertCounters
    store: str
    away: float | None
    """Seconds since the store went away; None while it answers."""
    backlog: int = 0
    """Rows that wait in the journal, also those of other tables and of earlier runs."""
    backlog_age: float = 0.0
    """Seconds since the oldest of them was received."""
    journal: int
    """Bytes of the journal's files."""
    disk_free: int
    disk_bound: int
    """Bytes of disk with less than which recording stops."""

    @property
    def ready(self) -> bool:
        """Whether every symbol has fresh data, and the store answers."""
        return self.away is None and not self.troubled


async def take_snapshot(recording: Recording) -> Snapshot:
    """Take a snapshot of a recorder."""
    store, journal = recording.store, recording.journal
    found = Snapshot(
        line_counters=list(recording.line_counters.values()),
        inserts=store.insert_counters,
        store=store.name,
        away=None if store.away_since is None else max(0.0, time.time() - store.away_since),
        journal=bytes_of(journal.path, journal.path.with_name(f"{journal.path.name}-wal")),
        disk_free=shutil.disk_usage(journal.path.parent).free,
        disk_bound=recording.settings.min_free,
    )
    for queues in pieces(journal.queues()):
        for queue in queues:
            found.backlog += queue.backlog
            with suppress(JournalError):  # whoever needs the rows meets it, too
                if oldest := queue.oldest_waiting():
                    found.backlog_age = max(found.backlog_age, time.time() - oldest / 1000)
        await trio.lowlevel.checkpoint()
    for collectors in pieces(recording.collectors):
        now, wall = trio.current_time(), time.time()
        for collector in collectors:
            _add(found, collector, now, wall - now)
        await trio.lowlevel.checkpoint()
    return found


def pieces(items: Sequence[T], size: int = PIECE) -> Iterator[Sequence[T]]:
    """Yield a list as it is now in pieces."""
    items = list(items)
    for first in range(0, len(items), size):
        yield items[first : first + size]


def state_of(collector: Collector, now: float) -> tuple[SymbolState, str]:
    """Return what a symbol does at a time of Trio's, and what is wrong with that, if anything."""
    if collector.failure is not None:
        return SymbolState.STOPPED, str(collector.failure)
    if collector.stopped:
        return SymbolState.LEFT, ""
    if collector.refusal is not None:
        return SymbolState.REFUSED, str(collector.refusal)
    if not collector.connected:
        return SymbolState.WAITING, "no data on its present connection yet"
    silent = _silent(collector, now)
    if not silent:
        return SymbolState.RECORDING, ""
    return SymbolState.SILENT, ", ".join(
        f"no {channel} for {s:.0f} s" for channel, s in silent.items()
    )


def _silent(collector: Collector, now: float) -> dict[Channel, float]:
    """Return the channels that are silent for longer than is usual for them, and for how long."""
    silences = ((channel, p.silence(now), p.patience) for channel, p in collector.liveness.items())
    return {channel: seconds for channel, seconds, patience in silences if seconds >= patience}


def _add(found: Snapshot, collector: Collector, now: float, to_wall: float) -> None:
    """Look at one symbol; `to_wall` makes a time of the day of one of Trio's."""
    state, trouble = state_of(collector, now)
    found.states[state] += 1
    if state is not SymbolState.LEFT:
        found.channels += len(collector.liveness)
    if trouble:
        found.troubled[collector.symbol] = trouble
    if state is SymbolState.SILENT:
        found.silent.update(_silent(collector, now).keys())
    if collector.connected and not collector.stopped:
        found.connected.update(
            one for one in found.line_counters if one.symbols[collector.symbol] > 0
        )
    for channel in collector.liveness:
        if (heard := collector.heard(channel)) is not None:
            at = heard + to_wall
            found.last[channel] = max(found.last.get(channel, 0.0), at)
            if now - heard < LATELY:
                delays = found.delays.setdefault(channel, [])
                delays.append(at - collector.latest[channel].rows[-1].ts / 1000)
    _sum(found.frames, collector.frames)
    _sum(found.rows, collector.received)
    _sum(found.stored, collector.counts.appended)
    _sum(found.gaps, collector.ledger.written)
    _sum(found.gap_milliseconds, collector.ledger.milliseconds)
    _sum(found.filled, collector.ledger.pending.filled)
    found.dead += collector.dead
    found.covered += collector.counts.covered


def _sum(total: Counter[K], more: Mapping[K, int]) -> None:
    # Counter.update() is four times as slow for so few.
    for key, number in more.items():
        total[key] += number
