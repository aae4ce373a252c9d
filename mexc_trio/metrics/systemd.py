"""Tells systemd, where it listens, that the recorder is up, that its loop turns, and that it ends.

systemd hands a socket's name to services of `Type=notify`, and takes datagrams of lines there. A
service that falls silent for longer than its `WatchdogSec` is killed and started anew.
"""

import logging
import os
from collections.abc import Mapping
from typing import Final

import trio

from mexc_trio.metrics.survey import Survey, survey
from mexc_trio.record.recording import Recording

log = logging.getLogger(__name__)

INTERVAL: Final = 15.0
"""Seconds between two words about how it does, at the most."""


async def keep_telling(recording: Recording, environ: Mapping[str, str] = os.environ) -> None:
    """Tell until cancelled; return at once where nobody listens."""
    address = environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    # One of Trio's: a manager that has no time yet is waited for, and nobody else is.
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM) as notify:
        try:
            await notify.connect("\0" + address[1:] if address.startswith("@") else address)
            await notify.send(b"READY=1")
            try:
                while True:
                    found = await survey(recording)
                    await notify.send(f"WATCHDOG=1\nSTATUS={_status(found)}".encode())
                    await trio.sleep(_interval(environ))
            except trio.Cancelled:
                # Only then: a service that says so and goes on is killed.
                with trio.move_on_after(1, shield=True):
                    await notify.send(b"STOPPING=1")
                raise
        except OSError as error:
            log.warning("systemd is not told any more how it goes: %s", error.strerror)


def _interval(environ: Mapping[str, str]) -> float:
    """Return the seconds between two messages: twice as often as the watchdog wants them."""
    limit = environ.get("WATCHDOG_USEC", "")
    return min(INTERVAL, int(limit) / 2e6) if limit.isdigit() and int(limit) else INTERVAL


def _status(found: Survey) -> str:
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
