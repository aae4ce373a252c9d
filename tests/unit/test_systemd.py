"""What systemd is told: that the recorder is up, how it does, that it turns, and that it ends."""

import resource
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from mexc_trio.errors import StoreRejected
from mexc_trio.metrics import systemd
from mexc_trio.metrics.systemd import LONG, keep_telling, notifying
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


async def test_a_start_that_takes_long_is_not_given_up(
    manager: Manager, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """With --all and the exchange's list away a killed recorder would begin to wait anew."""
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "8000000"}
    with recorder(tmp_path, 2) as recording:
        async with notifying(environ) as tell:
            await trio.sleep(LONG - 1)
            assert manager.said() == []
            await trio.sleep(2)
            (still,) = manager.said()
            assert still.startswith("READY=1\nWATCHDOG=1\nSTATUS=still starting")
            await trio.sleep(40)
            assert len(manager.said()) == 10
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tell, recording)
                await trio.sleep(1)
                ready, alive = manager.said()
                assert ready == "READY=1"
                assert "2 symbols" in alive
                await trio.sleep(40)
                assert len(manager.said()) == 10
                nursery.cancel_scope.cancel()
            assert manager.said() == ["STOPPING=1"]


async def test_a_shortage_of_open_files_passes(
    manager: Manager, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A watchdog that hears nothing more afterwards would kill what waits well."""
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "8000000"}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with notifying(environ):
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            await trio.sleep(LONG + 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert manager.said() == []
        await trio.sleep(40)
        assert len(manager.said()) == 10
    assert caplog.messages == ["systemd does not hear how it goes: Too many open files"]


async def test_whatever_fails_is_begun_anew(
    manager: Manager,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An error of the program's own costs a moment, and is told once."""
    real = systemd.keep_waiting

    async def fail_once(environ: Mapping[str, str]) -> None:
        monkeypatch.setattr(systemd, "keep_waiting", real)
        raise ValueError(environ)

    monkeypatch.setattr(systemd, "keep_waiting", fail_once)
    async with notifying({"NOTIFY_SOCKET": manager.address}):
        await trio.sleep(LONG + 5)
        assert manager.said()
    assert len(caplog.messages) == 1


async def test_without_systemd_nothing_is_said(tmp_path: Path) -> None:
    """On a terminal, or under a supervisor that does not listen."""
    with recorder(tmp_path, 1) as recording:
        await keep_telling(recording, {})
        await keep_telling(recording, {"NOTIFY_SOCKET": "host:port"})


async def test_a_manager_that_is_gone_for_a_while_hears_again(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One that heard nothing more after it was replaced would kill a recorder that is well."""
    path = tmp_path / "notify"
    with recorder(tmp_path, 1) as recording:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_telling, recording, {"NOTIFY_SOCKET": str(path)})
            await trio.sleep(100)
            for _ in range(2):
                with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
                    listening.bind(str(path))
                    listening.setblocking(False)
                    await trio.sleep(40)
                    said = Manager(str(path), listening).said()
                    assert any(message.startswith("WATCHDOG=1") for message in said)
                path.unlink()
                await trio.sleep(40)
            nursery.cancel_scope.cancel()
    warnings = [record.getMessage() for record in caplog.records if "systemd" in record.name]
    assert warnings[0].startswith("systemd does not hear how it goes: ")
    assert len(warnings) == 3, "once each time"
