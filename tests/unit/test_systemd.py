"""What systemd is told: that the recorder is up, how it does, that it turns, and that it ends."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from mexc_trio.errors import StoreRejected
from mexc_trio.metrics.systemd import keep_telling
from tools.metrics_cost import recorder


@attrs.define
class Manager:
    """Takes what services say, as systemd does."""

    address: str
    _socket: socket.socket

    def said(self) -> list[str]:
        """Return what was said since the last time."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """Listen."""
    path = str(tmp_path / "notify")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.bind(path)
        listening.setblocking(False)
        yield Manager(path, listening)


async def test_ready_then_alive_in_time(
    manager: Manager, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Twice in each time that the watchdog allows; with a line for `systemctl status`."""
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "8000000"}
    with recorder(tmp_path, 2) as recording:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_telling, recording, environ)
            await trio.sleep(1)
            ready, alive = manager.said()
            assert ready == "READY=1"
            assert alive == "WATCHDOG=1\nSTATUS=2 symbols, the store answers, 6 rows wait"
            recording.collectors[0].stop(StoreRejected("no such table"))
            await trio.sleep(4)
            (alive,) = manager.said()
            assert "2 symbols, 1 not ready, " in alive
            await trio.sleep(36)
            assert len(manager.said()) == 9
            # One that is busy for a while and hears nothing hears all the same how it goes then.
            await trio.sleep(400)
            manager.said()
            await trio.sleep(8)
            assert len(manager.said()) >= 2
            nursery.cancel_scope.cancel()
        assert manager.said() == ["STOPPING=1"]


async def test_without_systemd_nothing_is_said(tmp_path: Path) -> None:
    """On a terminal, or under a supervisor that does not listen."""
    with recorder(tmp_path, 1) as recording:
        await keep_telling(recording, {})
        await keep_telling(recording, {"NOTIFY_SOCKET": "host:port"})


async def test_a_manager_that_does_not_listen_any_more_is_no_trouble(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Recording goes on without it."""
    with recorder(tmp_path, 1) as recording:
        await keep_telling(recording, {"NOTIFY_SOCKET": str(tmp_path / "none")})
    assert "systemd is not told any more how it goes: " in caplog.text
