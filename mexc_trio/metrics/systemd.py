"""Tells systemd, where it listens, that the recorder is up, that its loop turns, and that it ends.

systemd hands a socket's name to services of `Type=notify`, and takes datagrams of lines there. A
service that falls silent for longer than its `WatchdogSec` is killed and started anew.
"""

import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Final

import attrs
import trio
from trio_util import periodic

from mexc_trio.metrics.snapshot import Snapshot, take_snapshot
from mexc_trio.record.recording import Companion, Recording
from mexc_trio.supervise import beside, supervise

log = logging.getLogger(__name__)

INTERVAL: Final = 15.0
"""Seconds between two words about how it does, at the most."""
LONG: Final = 60.0
"""Seconds after which a start counts as one that takes long."""


@asynccontextmanager
async def notifying(environ: Mapping[str, str] = os.environ) -> AsyncIterator[Companion]:
    """Tell of a start that takes long, and give what tells of the recording itself.

    A start may have to wait for the exchange's list of contracts. systemd would take it for one
    that has failed, and kill it, again and again: so it hears after a while that this one goes on.
    """
    starting = trio.CancelScope()

    async def start() -> None:
        with starting:  # around all attempts: it can be entered once
            await supervise(__name__, lambda: keep_waiting(environ))

    async def tell(recording: Recording) -> None:
        starting.cancel()
        await keep_telling(recording, environ)

    async with beside(start):
        yield tell


async def keep_waiting(environ: Mapping[str, str]) -> None:
    """Tell until cancelled, from `LONG` seconds on, that the program turns, and waits."""
    manager = _manager(environ)
    if manager is None:
        return
    await trio.sleep(LONG)
    while True:
        await manager.tell("READY=1\nWATCHDOG=1\nSTATUS=still starting; the log says why")
        await trio.sleep(_interval(environ))


async def keep_telling(recording: Recording, environ: Mapping[str, str]) -> None:
    """Tell until cancelled; return at once where nobody listens."""
    manager = _manager(environ)
    if manager is None:
        return
    async with aclosing(periodic(_interval(environ))) as tries:
        async for _ in tries:
            if await manager.tell("READY=1"):
                break
    try:
        while True:
            found = await take_snapshot(recording)
            await manager.tell(f"WATCHDOG=1\nSTATUS={_status(found)}")
            await trio.sleep(_interval(environ))
    except trio.Cancelled:
        # Only then: a service that says so and goes on is killed.
        with trio.move_on_after(1, shield=True):
            await manager.tell("STOPPING=1")
        raise


@attrs.define
class _Manager:
    """Who is told. It may be gone for a moment, as while it replaces itself by a newer one."""

    address: str
    _is_deaf: bool = False

    async def tell(self, message: str) -> bool:
        """Send a message; return whether it was taken. The first that is not is a warning."""
        # One of Trio's: a manager that has no time yet is waited for, and nobody else is.
        try:
            with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM) as notify:
                await notify.connect(self.address)
                await notify.send(message.encode())
        except OSError as error:
            if not self._is_deaf:
                log.warning("systemd does not hear how it goes: %s", error.strerror)
            self._is_deaf = True
        else:
            self._is_deaf = False
        return not self._is_deaf


def _manager(environ: Mapping[str, str]) -> _Manager | None:
    address = environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return None
    return _Manager("\0" + address[1:] if address.startswith("@") else address)


def _interval(environ: Mapping[str, str]) -> float:
    """Return the seconds between two messages: twice as often as the watchdog wants them."""
    limit = environ.get("WATCHDOG_USEC", "")
    return min(INTERVAL, int(limit) / 2e6) if limit.isdigit() and int(limit) else INTERVAL


def _status(found: Snapshot) -> str:
    """Return the line that `systemctl status` shows."""
    symbols = found.states.total()
    parts = [f"{symbols} symbols" if symbols != 1 else "1 symbol"]
    if found.troubled:
        parts.append(f"{len(found.troubled)} not ready")
    parts.append(
        "the store answers" if found.away is None else f"store away for {found.away:.0f} s"
    )
    parts.append(f"{found.backlog} rows wait")
    return ", ".join(parts)
