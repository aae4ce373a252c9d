"""Tells a command of the user's what somebody should know, a JSON line for each event.

Trouble that the last check did not find is an event, and so is its end. Many symbols in one trouble
are one event, and a kind of event is told once a minute at the most. Recording waits for none of
this: the command has a task of its own behind a queue with a bound.
"""

import json
import logging
import shutil
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import attrs
import trio

from mexc_trio.metrics.command import Command
from mexc_trio.metrics.snapshot import SymbolState, pieces, state_of
from mexc_trio.record.recording import Recording

log = logging.getLogger(__name__)

INTERVAL: Final = 5.0
"""Seconds between two checks."""
PAUSE: Final = 60.0
"""Seconds between two events of a kind."""
WAITING: Final = 16
"""Events that wait for the command; more are counted."""
NAMED: Final = 20
"""Symbols that an event names; the rest are counted."""
LAST: Final = 5.0
"""Seconds that the command has for the last event of all, which the program's end waits for."""

_GAPS: Final = (SymbolState.WAITING, SymbolState.SILENT)
Troubles = dict[str, dict[str, str]]
"""What is not well: by kind, what or whom it concerns and a few words."""


@attrs.define(eq=False)
class Events:
    """What was told, and what is to be."""

    recording: Recording
    _since: dict[str, float] = attrs.field(factory=dict, init=False)
    """When each symbol without data was first seen so, in Trio's time."""
    _told: dict[str, set[str]] = attrs.field(factory=dict, init=False)
    """What has been told and goes on, by kind."""
    _at: dict[str, float] = attrs.field(factory=dict, init=False)
    """When each kind was told last."""

    async def check(self) -> list[bytes]:
        """Return the lines of what has begun and what has ended since the last check."""
        found, now, lines = await self._troubles(), trio.current_time(), []
        for kind in {**self._told, **found}:
            here, told = found.get(kind, {}), self._told.setdefault(kind, set())
            new = {who: text for who, text in here.items() if who not in told}
            ended = bool(told) and not here
            if not (new or ended):
                told &= here.keys()
            elif now - self._at.get(kind, -PAUSE) >= PAUSE:
                self._at[kind] = now
                lines.append(self.line(kind, new or dict.fromkeys(told, ""), over=ended))
                self._told[kind] = set(here)
        return lines

    def line(self, kind: str, whom: Mapping[str, str], *, over: bool = False) -> bytes:
        """Return what the command is told of an event, or of the end of one."""
        symbols = sorted(name for name in whom if name)
        text = "; ".join(dict.fromkeys(whom.values()))[:500]
        event = {
            "event": kind,
            "over": over,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "host": socket.gethostname(),
            "store": self.recording.store.name,
            "symbols": symbols[:NAMED],
            "number_of_symbols": len(symbols),
            "detail": text,
        }
        return json.dumps(event).encode() + b"\n"

    async def _troubles(self) -> Troubles:
        recording, found = self.recording, Troubles()
        after = recording.settings.event_after
        away = recording.store.away_since
        if away is not None and time.time() - away >= after:
            found["store away"] = {"": f"{recording.store.name} does not answer"}
        free = shutil.disk_usage(recording.journal.path.parent).free
        if free < 2 * (bound := recording.settings.min_free):
            text = f"{free >> 20} MiB are free, and recording stops at {bound >> 20} MiB"
            found["disk low"] = {"": text}
        without_data: dict[str, float] = {}
        for collectors in pieces(recording.collectors):
            now = trio.current_time()
            for collector in collectors:
                state, trouble = state_of(collector, now)
                if state in _GAPS:
                    since = self._since.get(collector.symbol, now)
                    without_data[collector.symbol] = since
                    seconds = now - since
                    if state is SymbolState.WAITING and (newest := collector.ledger.newest):
                        seconds = time.time() - newest / 1000  # the last run is part of it
                    if seconds >= after:
                        found.setdefault("gap", {})[collector.symbol] = trouble
                elif state is SymbolState.STOPPED:
                    found.setdefault("symbol stopped", {})[collector.symbol] = trouble
                elif state is SymbolState.REFUSED:
                    found.setdefault("rows refused", {})[collector.symbol] = trouble
            await trio.lowlevel.checkpoint()
        self._since = without_data
        return found


async def tell_of_events(recording: Recording) -> None:
    """Tell the command of each event until cancelled; then of the end."""
    events, command, dropped = Events(recording), Command(), 0
    send, receive = trio.open_memory_channel[bytes](WAITING)

    async def run() -> None:
        async for line in receive:
            if words := recording.settings.on_event:
                await command.run(words, line)

    try:
        async with trio.open_nursery() as nursery, send, receive:
            nursery.start_soon(run)
            while True:
                # The settings may get a command, another one or none meanwhile.
                for line in await events.check() if recording.settings.on_event else ():
                    try:
                        send.send_nowait(line)
                    except trio.WouldBlock:
                        dropped += 1
                        log.warning("--on-event: %d events are not told: it is too slow", dropped)
                await trio.sleep(INTERVAL)
    finally:
        if (words := recording.settings.on_event) and recording.end:
            with trio.CancelScope(shield=True):
                line = events.line("stopped", {"": recording.end})
                await command.run(words, line, LAST)
