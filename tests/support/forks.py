"""Programs as processes that begin with everything imported already.

Importing takes a second of a slow processor, which is longer than all else that most tests do with
a process. So they are forked from one that has imported everything and done nothing, and from there
on run as `python -m MODULE` does. What a program does from its first line on, tests see that start
it themselves, see `tests.support.running`.

Such a program is in a hurry, too: where it would wait for nothing but the clock, it waits shorter,
see `HASTY`. How long it really waits, unit tests know, whose clock may jump.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs
import trio

_ROOT: Final = Path(__file__).parents[2]
_NEEDED: Final = (
    "httpcore2",  # which httpx2 imports when it is first used
    "mexc_trio.cli.files",
    "mexc_trio.cli.main",
    "mexc_trio.clickhouse.conversion",
    "mexc_trio.exchange.rest",
    "mexc_trio.metrics.endpoints",
    "mexc_trio.metrics.events",
    "mexc_trio.metrics.systemd",
    "mexc_trio.operate.rewriting",
    "mexc_trio.operate.reload",
    "mexc_trio.operate.reset",
    "mexc_trio.operate.setup",
    "mexc_trio.query.sql",
    "mexc_trio.record.recorder",
    "mexc_trio.record.reload",
    "mexc_trio.record.watch",
    "mexc_trio.screen.live",
    "mexc_trio.verify.verify",
    "tools.exchange.program",
)
_LONGEST: Final = 2**20
"""Bytes of a request."""

Constants = Mapping[str, float]
"""What a program has in place of its own: by the module's name and the constant's."""
HASTY: Final[Constants] = {
    "mexc_trio.clickhouse.async_store.LAST_RETRY": 0.5,
    "mexc_trio.exchange.connection.SHORTEST_BACKOFF": 0.2,
    "mexc_trio.exchange.connection.LONGEST_BACKOFF": 2.0,
    "mexc_trio.journal.journal.PURGE_INTERVAL": 0.2,
    "mexc_trio.metrics.events.INTERVAL": 0.3,
    "mexc_trio.record.disk.INTERVAL": 0.2,
    "mexc_trio.record.rewriting.POLL": 0.05,
    "mexc_trio.record.writer.LAST_PAUSE": 0.5,
    "mexc_trio.record.writer.LAST_HOLD": 1.0,
}
"""Pauses until something is tried or looked at again."""


@attrs.define(eq=False)
class Fork:
    """A process with what is used here of a `subprocess.Popen`."""

    pid: int
    _ended: int  # the end of a pipe into which its exit code is written
    returncode: int | None = attrs.field(init=False, default=None)

    def poll(self) -> int | None:
        """Return the exit code, or a signal's number less than zero; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return the exit code.

        Raises:
            subprocess.TimeoutExpired: it runs still after so many seconds.
        """
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = int(os.read(self._ended, 100) or b"-9")
            os.close(self._ended)
        return self.returncode

    async def ended(self) -> int:
        """Wait for its end, and return the exit code; other tasks go on."""
        while self.poll() is None:
            await trio.lowlevel.wait_readable(self._ended)
        return self.wait()

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it at once."""
        self.send_signal(signal.SIGKILL)


class _Server:
    """The process that is forked; ours, and it ends with us."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._line, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forks", str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONWARNINGS": "error"},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        atexit.register(self._close)

    def fork(self, request: Mapping[str, Any], output: int, error: int) -> Fork:
        ended, theirs = os.pipe()
        with self._mutex:
            message = json.dumps(request).encode() + b"\n"
            socket.send_fds(self._line, [message], [output, error, theirs])
            os.close(theirs)
            pid = int(self._line.recv(100))
        return Fork(pid, ended)

    def _close(self) -> None:
        self._line.close()
        self._process.wait()


_servers: list[_Server] = []
_mutex: Final = threading.Lock()


def fork(
    module: str, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdout: int,
    stderr: int, constants: Constants = HASTY,
) -> Fork:  # fmt: skip
    """Do as `python -m MODULE ARGUMENTS...`, which writes to these two file descriptors."""
    with _mutex:
        if not _servers:
            _servers.append(_Server())
    request = {
        "module": module, "arguments": list(arguments), "cwd": str(cwd), "env": dict(env),
        "constants": dict(constants),
    }  # fmt: skip
    return _servers[0].fork(request, stdout, stderr)


def _serve(line: socket.socket) -> None:
    """Fork for each request, and tell of each child's end; return in the children."""
    running: dict[int, int] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    while True:
        asked: list[Any] = [line, woken]
        ready, _, _ = select.select(asked, [], [])
        if woken in ready:
            os.read(woken, 1000)
            for pid, ended in [*running.items()]:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    with suppress(BrokenPipeError):  # nobody wants to know
                        os.write(ended, str(os.waitstatus_to_exitcode(status)).encode())
                    os.close(running.pop(pid))
        if line not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(line, _LONGEST, 3)
        while message and not message.endswith(b"\n"):
            message += line.recv(_LONGEST)
        if not message:
            os._exit(0)  # who asked has ended
        if not (pid := os.fork()):
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in (line.detach(), woken, wake, *running.values()):
                os.close(descriptor)
            _become(json.loads(message), *descriptors)
        running[pid] = descriptors[2]
        for descriptor in descriptors[:2]:
            os.close(descriptor)
        line.sendall(str(pid).encode())


def _become(request: Mapping[str, Any], output: int, error: int, ended: int) -> NoReturn:
    """Be what was asked for."""
    os.dup2(output, 1)
    os.dup2(error, 2)
    for descriptor in (output, error, ended):
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    sys.stdout.reconfigure(line_buffering="PYTHONUNBUFFERED" in os.environ)  # type: ignore[union-attr]
    for place, value in request["constants"].items():
        module, _, name = place.rpartition(".")
        if name not in (names := vars(sys.modules[module])):
            raise LookupError(f"{module} has no {name}")
        names[name] = value
    sys.argv = [request["module"], *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    for name in _NEEDED:
        __import__(name)
    gc.collect()
    gc.freeze()  # they stay, and need not be looked at for garbage, nor copied
    _serve(socket.socket(fileno=int(sys.argv[1])))
