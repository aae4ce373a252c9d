"""Other processes: functions that need an interpreter of their own, and the recorder itself."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, ParamSpec, Self, TypeVar

import attrs
import psutil

from tools.bench.report import BenchError

_ROOT: Final = Path(__file__).resolve().parents[2]
_STOP_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.02
_SETTLE_SECONDS: Final = 1.0
_AT_REST: Final = 10.0  # per cent of a core

P = ParamSpec("P")
T = TypeVar("T")


def apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of a module in a fresh interpreter, and return what it returns."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as executor:
        future: Future[T] = executor.submit(function, *args, **kwargs)
        return future.result()


@attrs.frozen
class Use:
    """What a process has used up to a moment."""

    at: float
    """`time.monotonic`."""
    seconds: float
    """Processor time, of all its threads."""
    megabytes: float
    """Memory that it holds now (resident, 1 MB is 1,000,000 bytes)."""

    def core_share(self, before: "Use") -> float:
        """Return the share of one core used since another moment, in per cent."""
        return 100 * (self.seconds - before.seconds) / (self.at - before.at)


@attrs.define(eq=False)
class Recorder:
    """`mexc-trio` as a process, from its start to SIGTERM at the end of the block."""

    arguments: Sequence[str]
    directory: Path
    """Where it runs: an empty directory, so that no settings file is found."""
    module: str = "mexc_trio"
    """What is run: the program, or it with a change that a benchmark needs."""
    started: float = attrs.field(default=0.0, init=False)
    _process: subprocess.Popen[bytes] = attrs.field(init=False)
    _seen: psutil.Process = attrs.field(init=False)

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MEXC_TRIO_")}
        environment["PYTHONPATH"] = str(_ROOT)
        self.started = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", self.module, *self.arguments],
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._seen = psutil.Process(self._process.pid)
        return self

    def __exit__(self, _: object, exc: BaseException | None, *__: object) -> None:
        if exc is None:
            self.stop()
            return
        self._process.kill()
        self._process.wait()
        exc.add_note(f"The recorder said:\n{self._tail()}")

    @property
    def pid(self) -> int:
        """The process's number, for a profiler."""
        return self._process.pid

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.directory / "recorder.log"

    def use(self) -> Use:
        """Return what it has used until now, with the engine of an embedded store."""
        try:
            every = [self._seen, *self._seen.children()]
            times = [process.cpu_times() for process in every]
            memory = sum(process.memory_info().rss for process in every)
        except psutil.NoSuchProcess:
            raise BenchError(f"the recorder ended by itself:\n{self._tail()}") from None
        cpu = sum(one.user + one.system for one in times)
        return Use(time.monotonic(), cpu, memory / 1e6)

    def settle(self, timeout: float = 180.0) -> Use:
        """Wait until it has nothing to do; return what it has used by then."""
        deadline = time.monotonic() + timeout
        before = self.use()
        while True:
            time.sleep(_SETTLE_SECONDS)
            now = self.use()
            if now.core_share(before) < _AT_REST:
                return now
            if now.at > deadline:
                raise BenchError(f"the recorder is busy {timeout:g} s after its start")
            before = now

    def stop(self) -> None:
        """End it as SIGTERM does; raise if it failed."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(_STOP_SECONDS)
        if code:
            raise BenchError(f"the recorder ended with exit code {code}:\n{self._tail()}")

    def wait_for(self, condition: Callable[[], bool], timeout: float, what: str) -> float:
        """Ask again and again until something is so; return the time of that answer."""
        deadline = time.monotonic() + timeout
        while not condition():
            if self._process.poll() is not None:
                raise BenchError(f"the recorder ended by itself:\n{self._tail()}")
            if time.monotonic() > deadline:
                raise BenchError(f"{what}: not within {timeout:g} s:\n{self._tail()}")
            time.sleep(_POLL_SECONDS)
        return time.monotonic()

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def keyword_arguments(**settings: Any) -> list[str]:
    """Return settings as the recorder's command line: `linger=0` is `--linger 0`."""
    return [
        part
        for key, value in settings.items()
        for part in (f"--{key.replace('_', '-')}", str(value))
    ]
