"""What the live screen shows, as it is at one moment, and how it is read off the recorder."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from mexc_trio.files import bytes_of
from mexc_trio.record.collector import Collector
from mexc_trio.record.recording import Recording
from mexc_trio.rows import CHANNELS, Channel
from mexc_trio.settings.values import mask

HISTORY: Final = 60
"""Samples that the picture remembers: a minute at one a second."""
_RECENT: Final = 5  # samples over which a rate is taken: fewer would make the numbers jump


@attrs.frozen(kw_only=True)
class SymbolPicture:
    """What the screen shows of one symbol."""

    symbol: str
    price: str
    """As the exchange wrote it, of the last ticker or deal; empty before the first."""
    rates: tuple[float, float, float]
    """Rows a second of each of `CHANNELS`, lately."""
    rate: float
    """All rows a second, lately."""
    history: Sequence[float]
    """All rows a second at each sample, at most `HISTORY`, oldest first."""
    delay: float | None
    """Seconds since the exchange's time of the newest row; None before the first."""
    backlog: int
    """Rows that the store has not acknowledged."""
    gaps: int
    """Gaps written in this run."""
    errors: int
    """Errors of the connection in this run."""
    stopped: bool
    """Whether it is recorded no longer."""
    files: Path | None = None
    """The directory of the table's files, where they are on this machine."""
    size: int | None = None
    """Bytes of those files; None where that is not known."""


@attrs.frozen(kw_only=True)
class Picture:
    """All that the screen shows."""

    symbols: Sequence[SymbolPicture]
    seconds: float
    store: str
    away: float | None
    """Seconds since the store went away; None while it answers."""
    backlog: int
    """Rows that wait in the journal, also those of other tables and of earlier runs."""
    url: str
    connected: int
    """Symbols whose rows are coming."""
    lines: int = 1
    """Connections that each symbol is to have."""
    short: int = 0
    """Symbols that have fewer at the moment."""


def with_sizes(picture: Picture) -> Picture:
    """Return the picture with the sizes of the tables' files. Blocks."""
    symbols = [
        attrs.evolve(one, size=bytes_of(one.files / "data.bin", one.files / "index.mrk"))
        if one.files
        else one
        for one in picture.symbols
    ]
    return attrs.evolve(picture, symbols=symbols)


@attrs.define
class _Seen:
    """What was seen of one symbol at the last samples."""

    received: deque[tuple[float, dict[Channel | None, int]]] = attrs.field(
        factory=lambda: deque(maxlen=_RECENT + 1)
    )
    history: deque[float] = attrs.field(factory=lambda: deque(maxlen=HISTORY))

    def sample(self, received: dict[Channel | None, int], now: float) -> None:
        """Note the counters of rows."""
        if self.received:
            then, before = self.received[-1]
            rows = sum(received.values()) - sum(before.values())
            self.history.append(rows / (now - then) if now > then else 0.0)
        self.received.append((now, dict(received)))

    def rates(self) -> tuple[dict[Channel | None, float], float]:
        """Return rows a second by channel and in all."""
        (then, before), (now, last) = self.received[0], self.received[-1]
        seconds = now - then
        by_channel = {
            channel: (last[channel] - before[channel]) / seconds if seconds > 0 else 0.0
            for channel in last
        }
        return by_channel, sum(by_channel.values())


@attrs.define(eq=False)
class Sampler:
    """Looks at a recorder again and again, and remembers what it needs for rates."""

    _recording: Recording
    _seen: dict[str, _Seen] = attrs.field(factory=dict, init=False)

    def sample(self, now: float, wall: float) -> Picture:
        """Return the picture as it is now. Asks neither the store nor the journal's file.

        `now` is seconds of a clock that never jumps, `wall` Unix seconds.
        """
        recording = self._recording
        store = recording.store
        recorded = [one for one in recording.collectors if not one.stopped]
        return Picture(
            symbols=[self._symbol(one, now, wall) for one in recording.collectors],
            seconds=recording.seconds,
            store=store.name,
            away=None if store.away_since is None else max(0.0, wall - store.away_since),
            backlog=recording.backlog,
            url=mask(recording.settings.url),
            connected=sum(one.connected for one in recorded),
            lines=recording.settings.lines,
            short=sum(
                recording.connected_lines(one) < recording.settings.lines for one in recorded
            ),
        )

    def _symbol(self, collector: Collector, now: float, wall: float) -> SymbolPicture:
        seen = self._seen.setdefault(collector.symbol, _Seen())
        seen.sample(collector.received, now)
        rates, rate = seen.rates()
        newest = [
            (message.rows[-1 - message.dead].ts, channel, message.rows[-1 - message.dead].m)
            for channel in CHANNELS
            if (message := collector.latest.get(channel)) and len(message.rows) > message.dead
        ]
        prices = [(ts, m) for ts, channel, m in newest if channel != "depth"]
        return SymbolPicture(
            symbol=collector.symbol,
            price=max(prices)[1].partition("|")[0] if prices else "",
            rates=(rates["ticker"], rates["deal"], rates["depth"]),
            rate=rate,
            history=tuple(seen.history),
            delay=wall - max(newest)[0] / 1000 if newest else None,
            backlog=collector.queue.backlog,
            gaps=collector.ledger.written.total(),
            errors=collector.counts.errors,
            files=self._files(collector),
            stopped=collector.stopped,
        )

    def _files(self, collector: Collector) -> Path | None:
        directory, store = self._recording.settings.store.directory, self._recording.store.store
        return directory and directory / "data" / store.database / collector.settings.table
