"""One run of the engine as a child: its ports, its start, what it says if that fails, its end."""

import importlib.util
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Self

import attrs

from mexc_trio.errors import StoreError, StoreLocked, StoreRejected
from mexc_trio.files import open_own
from mexc_trio.locks import describe_process
from mexc_trio.settings.address import LOOPBACK

START: Final = 60.0
"""Seconds that an engine may take until it answers."""
STOP: Final = 5.0
"""Seconds that it may take to end by itself."""
POLL: Final = 0.01
_PASSED: Final = """
    PATH HOME LANG LC_ALL LC_CTYPE LD_LIBRARY_PATH LD_PRELOAD GLIBC_TUNABLES NIX_LD
    NIX_LD_LIBRARY_PATH DYLD_LIBRARY_PATH DYLD_FALLBACK_LIBRARY_PATH
"""
"""The variables that the engine is given."""

# Below the range that Linux (32768 and up) and macOS give to outgoing connections. A client that
# keeps dialling a dead local port inside that range sooner or later gets the port as its own
# source, and connects to itself.
_RANGE: Final = range(20_000, 32_000)


class PortTakenError(StoreError):
    """Somebody took a port between our look and the engine's."""


@attrs.define(eq=False)
class EngineChild:
    """A process that serves a store's directory."""

    name: str
    """What the user knows the store by."""
    directory: Path
    home: Path
    """Where its configuration is, and its log."""
    _port: int
    """Where it is to answer the native protocol, on the loopback interface."""
    _process: "subprocess.Popen[bytes]"

    @classmethod
    def start(cls, name: str, directory: Path, home: Path, port: int, lock_fd: int) -> Self:
        """Start it. It holds the directory's lock from now on, and ends when we do.

        Raises StoreRejected if the engine is not installed, OSError if it cannot be started.
        """
        program = Path(__file__).with_name("engine_process.py")
        with open(open_own(home / "start.log", os.O_WRONLY | os.O_TRUNC), "wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own program
                # The directory is absolute: to some names the engine would give another meaning.
                [sys.executable, "-I", "-S", program, extension(), directory.absolute()],
                cwd=home,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[lock_fd],
                # What is recorded is read through the engine, by whom it lets in.
                umask=0o077,
                # A Ctrl-C at the terminal is for the recorder.
                start_new_session=True,
            )
        return cls(name, directory, home, port, process)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """What it ended with; None while it runs."""
        return self._process.poll()

    def wait_for_port(self) -> None:
        """Wait until it answers its native protocol.

        Raises PortTakenError if it found the port taken, StoreLocked if another program has the
        directory open, StoreError if it ended, or does not answer in time.
        """
        deadline = time.monotonic() + START
        while True:
            if self.exit_code is not None:
                raise self._why_it_ended()
            try:
                socket.create_connection((LOOPBACK, self._port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"{self.name}: the engine does not answer after {START:g} s: {self._log()}"
                    ) from None
            time.sleep(POLL)

    def end(self) -> None:
        """End it, by force if it does not end by itself."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.close()
        try:
            self._process.wait(STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _why_it_ended(self) -> StoreError:
        text = self._log()
        # It is aborted, mostly before it can say so; but whoever listens there now is not it.
        if not is_free(LOOPBACK, self._port):
            return PortTakenError(f"{self.name}: no port is free for the engine: {text}")
        if "Cannot lock file" in text:
            return StoreLocked(
                f"{self.name} is open in {self._other_engine()}; close it there, or choose another "
                f"directory"
            )
        return StoreError(f"{self.name}: the engine does not start: {text}")

    def _other_engine(self) -> str:
        """Return whose ClickHouse has the directory open that is none of this program's."""
        try:
            first = (self.directory / "status").read_text().split("\n", 1)[0]
            return describe_process(int(first.removeprefix("PID: ")))
        except (OSError, ValueError):
            return "another program"

    def _log(self) -> str:
        """Return the last that the engine said."""
        try:
            lines = (self.home / "start.log").read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        said = [line for line in lines if line.strip() and not line.startswith("Logging ")]
        return " / ".join(said[:1] + said[1:][-2:])[:600] or "it said nothing"


def _environment() -> dict[str, str]:
    """Return what of our environment a program needs to be found and loaded, and no more.

    ClickHouse and the libraries in it read variables of their own, a TZ that they do not know ends
    them, and what is secret among the rest is nothing for a process that answers strangers.
    """
    passed = {name: os.environ[name] for name in _PASSED.split() if name in os.environ}
    return {**passed, "TZ": "UTC"}


def extension() -> Path:
    """Return the file of chdb's extension module, without importing anything.

    Raises StoreRejected if it is not installed.
    """
    spec = importlib.util.find_spec("chdb")
    found = (
        [] if spec is None or spec.origin is None else Path(spec.origin).parent.glob("_chdb*.so")
    )
    for path in found:
        return path
    raise StoreRejected(
        "the embedded engine is not installed: pip install 'mexc-trio[embedded]', or point "
        "--store at a server (clickhouse://user@host/mexc_data)"
    )


def free_port(wanted: int = 0) -> int:
    """Return a free port of the loopback interface: the one that is wanted, if it can be had.

    Raises StoreError if there is none.
    """
    # Not what a program that seeds its random numbers would choose each time.
    for port in (wanted, *random.SystemRandom().sample(_RANGE, 200)):
        if port and is_free(LOOPBACK, port):
            return port
    raise StoreError(f"no port between {_RANGE.start} and {_RANGE.stop} is free for the engine")


def is_free(host: str, port: int) -> bool:
    """Return whether nobody listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # A listener of a moment ago leaves connections in TIME_WAIT; they are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
