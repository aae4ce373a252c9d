"""Settings that change while recording: what is read again takes effect, what stays is not touched.

A settings file that is wrong changes nothing. What cannot be changed while recording keeps the
value that it has, and that is said.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from mexc_trio.errors import MexcTrioError, UsageError
from mexc_trio.record.collector import Collector
from mexc_trio.record.groups import Groups
from mexc_trio.record.limits import allow_connections
from mexc_trio.record.recording import Recording
from mexc_trio.record.sharing import most_connections
from mexc_trio.rows import Cause, Channel
from mexc_trio.settings import SETTINGS, Settings
from mexc_trio.settings.description import values

if TYPE_CHECKING:
    from mexc_trio.record.discovery import Discovery

log = logging.getLogger(__name__)

CONFIG: Final = "settings file"
"""What the journal calls the file that is read again; empty if there is none."""
ANSWER: Final = "settings read again"
"""What the journal calls what became of the last time: `NUMBER ok TEXT` or `NUMBER error TEXT`."""
PATIENCE: Final = 20.0
"""Seconds that the file may take."""
WITHOUT: Final = "the settings do not name it any more"
_BEFORE: Final = "the settings did not name it"
_ANEW: Final = "its routes were changed"

_CHANGEABLE: Final = {
    "symbols", "linger", "max_errors", "min_free_mib", "compact_mib", "retention", "log_level",
    "on_event", "event_after", "route", "channels",
}  # fmt: skip
_CHANGEABLE_WITH_LIST: Final = {"all", "quote", "shard", "refresh", "patterns"}
"""What can be changed as well while a list of contracts is followed."""
_KEYS: Final = {*SETTINGS, "patterns"}


@attrs.define(eq=False)
class SettingsFile:
    """The file that settings came from, and that may be another one by now."""

    path: Path
    read: Callable[[], Settings]
    """Returns the settings as they are now, with all their sources; blocks."""
    _asked: trio.Event = attrs.field(factory=trio.Event, init=False)
    _one: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1), init=False)

    def ask(self) -> None:
        """Have it read again. To ask again meanwhile is as good as to ask once."""
        self._asked.set()

    async def asked(self) -> None:
        """Wait until somebody asks."""
        await self._asked.wait()
        self._asked = trio.Event()

    async def settings(self) -> Settings:
        """Read the file, which may be on a disk that hangs, or a pipe by now.

        Nobody waits for that: raises UsageError if the file is wrong, or not read within `PATIENCE`
        seconds.
        """
        with trio.move_on_after(PATIENCE):
            # The thread reads and changes nothing, so that it may be left behind; but one alone.
            return await trio.to_thread.run_sync(
                self.read, abandon_on_cancel=True, limiter=self._one
            )
        raise UsageError(f"{self.path} cannot be read within {PATIENCE:g} s")


async def follow_settings(
    recording: Recording,
    discovery: "Discovery | None",
    file: SettingsFile,
    groups: Groups,
) -> None:
    """Read the settings again whenever somebody asks for it. Runs until cancelled.

    `discovery` is told of other wishes; None where no list of contracts is followed.
    """
    journal, number = recording.journal, 0
    while True:
        await file.asked()
        number += 1
        try:
            new = await file.settings()
            if new.config is None:
                raise UsageError(f"{file.path} is gone")
            said = await _apply(recording, discovery, new, groups)
        except MexcTrioError as error:
            log.error("settings: %s; nothing is changed", error)
            journal.file.remember(ANSWER, f"{number} error {error}; nothing is changed")
        else:
            log.info("settings read again: %s", said)
            journal.file.remember(ANSWER, f"{number} ok {said}")


async def _apply(
    recording: Recording, discovery: "Discovery | None", wanted: Settings, groups: Groups
) -> str:
    """Do what new settings say; return what that was, in one line.

    Raises UsageError or StoreError if something of them cannot be done; then nothing is changed.
    """
    old = recording.settings
    kept = _KEYS - _CHANGEABLE
    if discovery is not None:
        kept -= _CHANGEABLE_WITH_LIST
    same: dict[str, Any] = {key: getattr(old, key) for key in kept}
    new = attrs.evolve(wanted, **same)
    if not new.symbols and not new.follows_list:
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
    before = [one for one in recording.collectors if one not in added]
    moving = groups.reroute(_changed("route", before, old, new), _ANEW)
    for collector in recording.collectors:
        if collector.symbol in unwanted:
            collector.failure = None  # whatever it was stopped by is nobody's concern any more
        collector.adjust(new.for_symbol(collector.symbol))
    recording.journal.retention = new.retention
    recording.known_contracts.route = new.route[0]
    logging.getLogger().setLevel(new.log_level.upper())
    if discovery is not None:
        discovery.settings = new
        for symbol in new.symbols:
            discovery.forget(symbol)  # it is not on the list's account any more
    groups.begin([*added, *moving])
    channels = _changed("channels", before, old, new)
    await _change_channels(recording, channels)
    groups.make_views([*channels])
    return _summary(recording, old, wanted, added, gone)


def _changed(
    key: str, collectors: Sequence[Collector], old: Settings, new: Settings
) -> dict[Collector, tuple[Any, ...]]:
    """Return what holds now of a setting, of the symbols for which that is something else."""
    changed = {}
    for one in collectors:
        was, is_now = (getattr(those.for_symbol(one.symbol), key) for those in (old, new))
        if was != is_now and not one.stopped:
            changed[one] = is_now
    return changed


async def _change_channels(
    recording: Recording, changed: Mapping[Collector, tuple[Channel, ...]]
) -> None:
    """Let symbols go on with other channels, on the connections that they have."""
    wanted = [attrs.evolve(one.settings, channels=names) for one, names in changed.items()]
    admitted = await recording.with_room(wanted) if wanted else []
    for collector, settings in zip(changed, admitted, strict=True):
        if lines := recording.lines.get(collector):
            lines.record_channels(settings.channels)
        else:  # it has no connection yet
            collector.record_channels(settings.channels)


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
            table = new.for_symbol(symbol).table
            if recording.has_leftover(table):
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
    for collector in added:
        if before := known.get(collector.symbol):
            why = f"it was stopped: {before.failure}" if before.failure else _BEFORE
            collector.ledger.lost(Cause.SYMBOL_STOPPED, why)
        else:
            collector.ledger.program_started(Cause.SYMBOL_STOPPED, _BEFORE)
    return added


def _summary(
    recording: Recording,
    old: Settings,
    wanted: Settings,
    added: Sequence[Collector],
    gone: Sequence[Collector],
) -> str:
    """Return what has changed, in one line; warn of what takes a restart."""
    new, parts = recording.settings, []
    if added:
        parts.append(f"recording {_names([one.symbol for one in added])}")
    if gone:
        parts.append(f"no longer {_names([one.symbol for one in gone])}")
    keys = sorted(_KEYS - {"config", "symbols"})
    changed = [key for key in keys if getattr(wanted, key) != getattr(old, key)]
    took = [key for key in changed if getattr(new, key) != getattr(old, key)]
    texts = values(new)
    parts += [f"{key} = {texts[key]}" for key in took if key != "patterns"]
    was, is_now = old.overrides, new.overrides
    sections = sorted(one for one in was.keys() | is_now if was.get(one) != is_now.get(one))
    if sections:
        parts.append(f"own settings of {_names(sections)}")
    left = [key for key in changed if key not in took]
    left += [
        f"table of {one.symbol}"
        for one in recording.collectors
        if one.settings.table != new.for_symbol(one.symbol).table and not one.stopped
    ]
    if left:
        log.warning("settings: %s changed, which takes a restart", ", ".join(left))
        parts.append(f"{', '.join(left)} takes a restart")
    parts += [f"{key} stays as the {said} says" for key, said in sorted(new.overridden.items())]
    return "; ".join(parts) or "nothing new"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return " ".join(names[:10]) + more
