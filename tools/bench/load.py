"""The load generator: an exchange that does nothing but send, in a process of its own.

It waits until every symbol of its plan is subscribed, then sends what the plan says: so many frames
as fast as the receiver takes them, or each frame at its time. It notes when it handed each frame to
the network, on the clock that all processes of the machine share (`time.monotonic`).
"""

import multiprocessing
from contextlib import ExitStack
from multiprocessing.connection import Connection as Pipe
from typing import Any, Final, Self

import attrs

from tools.bench.generator import generate
from tools.bench.plan import HOST, Plan, Sent
from tools.bench.report import BenchError
from tools.bench.secure import certificate

_START_SECONDS: Final = 60.0


@attrs.define(eq=False)
class Load:
    """A load generator that runs for as long as the block does."""

    plan: Plan
    port: int = attrs.field(default=0, init=False)
    _process: Any = attrs.field(init=False)
    _pipe: Pipe = attrs.field(init=False)
    _certificate: ExitStack = attrs.field(factory=ExitStack, init=False)

    @property
    def url(self) -> str:
        """What to connect to."""
        return f"{self.plan.scheme}://{HOST}:{self.port}/edge"

    def __enter__(self) -> Self:
        # A fresh interpreter: a fork would carry on whatever threads this one has.
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        own = self._certificate.enter_context(certificate())
        self._process = context.Process(target=generate, args=(self.plan, far, own), daemon=True)
        self._process.start()
        far.close()
        self.port = self._hear("port", _START_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()
        self._pipe.close()
        self._certificate.close()

    def subscribed(self, timeout: float) -> None:
        """Wait until all symbols are subscribed, if the plan is to hold then."""
        self._hear("subscribed", timeout)

    def go(self) -> None:
        """Let sending begin."""
        self._pipe.send("go")

    def began(self, timeout: float = _START_SECONDS) -> float:
        """Wait until all symbols are subscribed and sending begins; return when it did."""
        return float(self._hear("began", timeout))

    def sent(self, timeout: float) -> Sent:
        """Wait until everything is sent (after `began`)."""
        found: Sent = self._hear("sent", timeout)
        return found

    def _hear(self, what: str, timeout: float) -> Any:
        try:
            if not self._pipe.poll(timeout):
                raise BenchError(f"the load generator said no {what!r} within {timeout:g} s")
            said, value = self._pipe.recv()
        except EOFError:
            raise BenchError("the load generator died; see above") from None
        if said != what:
            raise BenchError(f"the load generator said {said} ({value}) instead of {what}")
        return value
