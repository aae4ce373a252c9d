"""Settings that change while recording: what is read again takes effect, what stays is not touched.

A settings file that is wrong changes nothing. What cannot be changed while recording keeps the
value that it has, and that is said.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from mexc_trio.errors import MexcTrioError, UsageError
from mexc_trio.record.collector import Collector
from mexc_trio.record.known_contracts import KnownContracts
from mexc_trio.record.limits import allow_connections
from mexc_trio.record.recording import Recording
from mexc_trio.record.sharing import most_connections
from mexc_trio.rows import Cause
from mexc_trio.settings import SETTINGS, Settings
from mexc_trio.settings.description import values

if TYPE_CHECKING:
    from mexc_trio.record.discovery import Discovery

log = logging.getLogger(__name__)

CONFIG: Final = "settings file"
"""What the journal calls the file that is read again; empty if there is none."""
ANSWER: Final = "settings read again"
"""What the journal calls what became of the last time: `NUMBER ok TEXT` or `NUMBER error TEXT`."""
WITHOUT: Final = "the settings do not name it any more"
_BEFORE: Final = "the settings did not name it"
_ANEW: Final = "its routes or channels were changed"

_LIVE: Final = {
    "symbols", "linger", "max_errors", "min_free_mib", "compact_mib", "retention", "log_level",
    "on_event", "event_after", "route", "channels",
}  # fmt: skip
_LISTED: Final = {"all", "quote", "refresh"}
"""What can be changed as well while a list of contracts is followed."""


@attrs.define(eq=False)
class SettingsFile:
    """The file that settings came from, and that may be another one by now."""

    path: Path
    read: Callable[[], Settings]
    """Returns the settings as they are now, with all their sources; blocks."""
    _asked: trio.Event = attrs.field(factory=trio.Event, init=False)

    def ask(self) -> None:
        """Have it read again. To ask again meanwhile is as good as to ask once."""
        self._asked.set()

    async def asked(self) -> None:
        """Wait until somebody asks."""
        await self._asked.wait()
        self._asked = trio.Event()


async def follow_settings(
    recording: Recording,
    discovery: "Discovery | None",
    file: SettingsFile,
    begin: Callable[[Sequence[Collector]], None],
) -> None:
    """Read the settings again whenever somebody asks for it. Runs until cancelled.

    Args:
        recording: what is recorded.
        discovery: what is told of other wishes; None where no list of contracts is followed.
        file: where they are.
        begin: starts the nurseries of new collectors.
    """
    journal, number = recording.journal, 0
    while True:
        await file.asked()
        number += 1
        try:
            new = await trio.to_thread.run_sync(file.read)
            if new.config is None:
                raise UsageError(f"{file.path} is gone")
            said = await _apply(recording, discovery, new, begin)
        except MexcTrioError as error:
            log.error("settings: %s; nothing is changed", error)
            journal.remember(ANSWER, f"{number} error {error}; nothing is changed")
        else:
            log.info("settings read again: %s", said)
            journal.remember(ANSWER, f"{number} ok {said}")


async def _apply(
    recording: Recording,
    discovery: "Discovery | None",
    wanted: Settings,
    begin: Callable[[Sequence[Collector]], None],
) -> str:
    """Do what new settings say; return what that was, in one line.

    Raises:
        UsageError, StoreError: something of them cannot be done, and nothing is changed.
    """
    old = recording.settings
    keys = SETTINGS.keys() - {"config"}
    changed = {key for key in keys if getattr(wanted, key) != getattr(old, key)}
    live = _LIVE | _LISTED if discovery is not None else _LIVE
    kept: dict[str, Any] = {key: getattr(old, key) for key in SETTINGS if key not in live}
    if discovery is None:
        kept["patterns"] = old.patterns
        if wanted.patterns != old.patterns:
            changed.add("patterns")
    new = attrs.evolve(wanted, **kept)
    if not new.symbols and not new.finds:
        raise UsageError("no symbol is left to record")

    recording.settings = new
    try:
        added = await _add(recording, new)
    except BaseException:
        recording.settings = old
        raise
    unwanted = {*old.symbols} - {*new.symbols}
    gone = [one for one in recording.collectors if one.symbol in unwanted and not one.stopped]
    for collector in gone:
        collector.let_go(WITHOUT)
    changing = [one for one in recording.collectors if _begins_anew(one, old, new)]
    rerouted = [one for one in changing if _goes_on(recording, one, new)]
    anew = [one for one in changing if one not in rerouted]
    for collector in anew:
        collector.step_down(_ANEW)
    for collector in recording.collectors:
        if collector.symbol in unwanted:
            collector.failure = None  # whatever it was stopped by is nobody's concern any more
        collector.adjust(new.for_symbol(collector.symbol))
    for collector in rerouted:
        route = new.for_symbol(collector.symbol).route
        collector.settings = attrs.evolve(collector.settings, route=route)
        recording.renewals[collector.symbol]("its routes were changed")
    recording.journal.retention = new.retention
    logging.getLogger().setLevel(new.log_level.upper())
    if discovery is not None:
        discovery.settings = new
        for symbol in new.symbols:
            discovery.forget(symbol)  # it is not on the list's account any more
    begin(added)
    for collector in anew:
        await collector.ended.wait()  # it writes to the same table
    begin([await _successor(recording, collector) for collector in anew])
    return _told(recording, old, new, changed, added, gone)


def _begins_anew(collector: Collector, old: Settings, new: Settings) -> bool:
    """Whether a symbol goes on with another connection: one of its own routes, or channels."""
    was, is_now = old.for_symbol(collector.symbol), new.for_symbol(collector.symbol)
    same = (was.route, was.channels) == (is_now.route, is_now.channels)
    return not collector.stopped and not same


def _goes_on(recording: Recording, collector: Collector, new: Settings) -> bool:
    """Whether a symbol's connections can be made by new routes before the old ones are broken."""
    same = new.for_symbol(collector.symbol).channels == collector.settings.channels
    return same and collector.symbol in recording.renewals


async def _successor(recording: Recording, collector: Collector) -> Collector:
    successor = await recording.add(collector.symbol)
    successor.ledger.lost(Cause.SYMBOL_STOPPED, _ANEW)
    return successor


async def _add(recording: Recording, new: Settings) -> list[Collector]:
    """Make ready what is named now, and was not or has been stopped; all of it, or nothing."""
    known = {one.symbol: one for one in recording.collectors}
    missing = [s for s in new.symbols if s not in known or known[s].stopped]
    running = sum(not one.stopped for one in recording.collectors)
    connections = running * new.lines + most_connections(new, missing)
    allow_connections(connections + new.store_connections, more=False)
    added: list[Collector] = []
    try:
        for symbol in sorted(missing, key=known.__contains__):  # those that can fail come first
            if symbol in known:
                await known[symbol].ended.wait()  # it writes to the same table
            table = new.for_symbol(symbol).table
            if any(queue.name == table for queue in recording.leftovers):
                raise UsageError(
                    f"{symbol}: table {table} has rows of an earlier run, which are written first; "
                    f"try again later"
                )
            added.append(await recording.add(symbol))
    except BaseException:
        for collector in added:
            if collector.symbol not in known:
                recording.withdraw(collector)
        raise
    exists = KnownContracts(new.rest_url, new.route[0]).has
    for collector in added:
        collector.exists = exists
        if before := known.get(collector.symbol):
            why = f"it was stopped: {before.failure}" if before.failure else _BEFORE
            collector.ledger.lost(Cause.SYMBOL_STOPPED, why)
        else:
            collector.ledger.program_started(Cause.SYMBOL_STOPPED, _BEFORE)
    return added


def _told(
    recording: Recording,
    old: Settings,
    new: Settings,
    changed: set[str],
    added: Sequence[Collector],
    gone: Sequence[Collector],
) -> str:
    parts = []
    if added:
        parts.append(f"recording {_names([one.symbol for one in added])}")
    if gone:
        parts.append(f"no longer {_names([one.symbol for one in gone])}")
    keys = sorted(key for key in changed if key != "symbols" and hasattr(new, key))
    took = [key for key in keys if getattr(new, key) != getattr(old, key)]
    texts = values(new)
    parts += [f"{key} = {texts[key]}" for key in took if key != "patterns"]
    sections = sorted(
        {
            symbol
            for symbol in (*old.overrides, *new.overrides)
            if old.overrides.get(symbol) != new.overrides.get(symbol)
        }
    )
    if sections:
        parts.append(f"own settings of {_names(sections)}")
    left = [key for key in keys if key not in took]
    left += [
        f"table of {one.symbol}"
        for one in recording.collectors
        if one.settings.table != new.for_symbol(one.symbol).table and not one.stopped
    ]
    if left:
        log.warning("settings: %s changed, which takes a restart", ", ".join(left))
        parts.append(f"{', '.join(left)} takes a restart")
    return "; ".join(parts) or "nothing new"


def _names(names: Sequence[str]) -> str:
    return (
        " ".join(names)
        if len(names) <= 10
        else f"{' '.join(names[:10])} and {len(names) - 10} more"
    )
