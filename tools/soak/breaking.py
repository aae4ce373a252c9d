"""What happens to a recorder of one symbol: it or its engine is killed, frozen, cut off."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import attrs
import trio
from clickhouse_driver.errors import Error as DriverError

from mexc_trio.record.rewriting import RewritingRequest
from tools.proxy import Direction, Fault, Kind, Proxy
from tools.soak.readers import ask_as_reader
from tools.soak.recorder import TABLE, Place, kill, subscribed, until, wait_for
from tools.soak.trouble import engines_of

if TYPE_CHECKING:
    from tools.clickhouse import ClickHouseServer
    from tools.exchange import Exchange

READING: Final = f"SELECT mt, count(), max(ts), uniqExact(m) FROM mexc_data.{TABLE} GROUP BY mt"  # noqa: S608
LONGEST: Final = 600.0
"""Seconds for which anything is waited for, also where others have the processor."""
_LOOK: Final = 0.05
_EACH: Final = 50
"""Faults after which there is a line about them."""


@attrs.frozen(kw_only=True)
class Faults(Place):
    """What is to be done."""

    faults: int = 500
    """How many there are, one after another."""
    rate: float = 200.0
    """Messages a second."""
    engine: Literal["stripelog", "mergetree"] = "stripelog"
    """Of the table. A StripeLog is compacted meanwhile, and somebody killed within that."""
    seed: int = 1
    """Makes the faults repeatable, as far as processes are."""


@attrs.define(eq=False)
class Breaking:
    """The recorder, and what happens to it."""

    trial: Faults
    exchange: Exchange
    place: Place
    """Of the recorder, whose way to a server leads through the proxy."""
    server: ClickHouseServer | None
    """Where rows go if not into an engine of the recorder's own."""
    proxy: Proxy | None
    recorder: trio.Process = attrs.field(init=False)
    chance: random.Random = attrs.field(init=False)
    is_enough: bool = attrs.field(default=False, init=False)
    done: Counter[str] = attrs.field(factory=Counter)
    answers: Counter[str] = attrs.field(factory=Counter)

    def __attrs_post_init__(self) -> None:
        self.chance = random.Random(self.trial.seed)

    async def start(self) -> None:
        """Start the recorder, and wait until it is subscribed to everything."""
        options = ["--url", self.exchange.url, "--max-errors", "1000000", "--linger", "0.05"]
        options += ["--engine", self.trial.engine]
        known = self.exchange.accepted
        self.recorder = await self.place.start(*options)
        news = partial(_is_subscribed, self.exchange, known)
        await until(self.exchange, self.recorder, news)

    def _all_faults(self) -> Sequence[Callable[[], Awaitable[str]]]:
        """List what can happen; each returns what it did, in a few words, or nothing."""
        all_ways = [
            self.kill_recorder, self.kill_engine, self.kill_both, self.freeze_recorder,
            self.freeze_engine, self.cut_exchange,
        ]  # fmt: skip
        if self.proxy is not None:
            all_ways += [self.break_insert, self.break_insert, self.break_network]
        if self.trial.engine == "stripelog":
            all_ways += [self.compact, self.compact, self.compact]
        return all_ways

    async def run(self) -> None:
        """Make trouble until there were enough faults, and let the recorder write what it has."""
        faults = self._all_faults()
        while not self.is_enough and self.done.total() < self.trial.faults:
            await trio.sleep(0.3 * self.chance.random())
            if what := await self.chance.choice(faults)():
                self.done[what] += 1
                if self.done.total() % _EACH == 0:
                    print(f"{self.done.total()} faults", flush=True)
            before, _ = self.place.journaled()
            await self.until(lambda before=before: self.place.journaled()[0] > before)  # type: ignore[misc]
            if self.chance.random() < 0.7:  # else the next one comes while it catches up
                await self.written()
        await self.written()

    async def listen(self) -> None:
        """Wait for Ctrl-C, after which there are no more faults. Runs until cancelled."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                self.is_enough = True

    async def written(self) -> None:
        """Wait until the store has what is in the journal now."""
        end, _ = self.place.journaled()
        await self.until(lambda: self.place.journaled()[1] >= end)

    async def heard(self) -> None:
        """Wait until nothing has come into the journal for a moment."""
        before = -1
        while before != (now := self.place.journaled()[0]):
            before = now
            await trio.sleep(2)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something while the recorder runs."""
        await wait_for(self.recorder, condition, LONGEST, _LOOK)

    async def read(self) -> None:
        """Ask one question after another. Runs until cancelled."""
        while True:
            self.answers[await trio.to_thread.run_sync(self._ask)] += 1
            await trio.sleep(1)

    def _ask(self) -> str:
        if self.server is None:
            return ask_as_reader(self.place, READING)
        try:
            self.server.execute(READING, readonly=True)
        except (DriverError, OSError, EOFError):
            return "no answer"
        return "answered"

    async def kill_recorder(self) -> str:
        """Kill the recorder, and start it again."""
        await kill(self.recorder)
        await self.start()
        return "recorder killed"

    async def kill_engine(self) -> str:
        """Kill the engine; one of its own the recorder starts again by itself."""
        await self._strike(signal.SIGKILL)
        await self._revive()
        return "engine killed"

    async def kill_both(self) -> str:
        """Kill the engine and the recorder at once."""
        await self._strike(signal.SIGKILL)
        await kill(self.recorder)
        await self._revive()
        await self.start()
        return "both killed"

    async def freeze_recorder(self) -> str:
        """Let the recorder stand still for a moment."""
        self.recorder.send_signal(signal.SIGSTOP)
        await trio.sleep(2 * self.chance.random())
        self.recorder.send_signal(signal.SIGCONT)
        return "recorder frozen"

    async def freeze_engine(self) -> str:
        """Let the engine stand still; a server now and then for longer than it is waited for."""
        await self._strike(signal.SIGSTOP)
        await trio.sleep(2.5 * self.chance.random())
        await self._strike(signal.SIGCONT)
        return "engine frozen"

    async def cut_exchange(self) -> str:
        """Break the connection to the exchange."""
        await self.exchange.drop(reset=self.chance.random() < 0.5)
        return "exchange cut"

    async def compact(self) -> str:
        """Have the table rewritten, and kill somebody meanwhile, or nobody."""
        since = self.place.log.stat().st_size
        RewritingRequest(str(self.done.total()), ()).leave(self.place.journal)
        await self.until(lambda: self.place.begun(since) > 0)
        await trio.sleep(0.2 * self.chance.random())
        victim = self.chance.choice([self.kill_recorder, self.kill_engine, self.kill_both, None])
        return f"compaction, {await victim()}" if victim else "compaction"

    async def break_insert(self) -> str:
        """Break the network at a byte of an INSERT, or of the answer to it."""
        assert self.proxy is not None  # noqa: S101 - see _all_faults
        kinds = [Kind.CUT, Kind.CLOSE, Kind.HALF_CLOSE, Kind.STALL, Kind.DELAY, Kind.SWALLOW]
        kind = self.chance.choice(kinds)
        if self.chance.random() < 0.3:
            place, direction, pattern = self.chance.randrange(1, 60), Direction.TO_CLIENT, b"\x0b"
        else:
            place = int(self.chance.uniform(0, 40) ** 2)
            direction, pattern = Direction.TO_SERVER, b"INSERT INTO"
        armed = self.proxy.arm(Fault(direction, place, kind, pattern=pattern, seconds=0.3))
        with trio.move_on_after(3):
            await armed.fired.wait()
        if not armed.fired.is_set():
            self.proxy.disarm()
            return ""
        if kind in (Kind.STALL, Kind.HALF_CLOSE):  # until it is waited for no longer
            await trio.sleep(self.chance.uniform(0.8, 2))
            self.proxy.resume()
        return f"{kind.value} within an INSERT"

    async def break_network(self) -> str:
        """Cut all connections to the server, and refuse new ones for a while."""
        assert self.proxy is not None  # noqa: S101 - see _all_faults
        self.proxy.refuse = True
        self.proxy.cut()
        await trio.sleep(2 * self.chance.random())
        self.proxy.refuse = False
        return "network away"

    async def _strike(self, number: signal.Signals) -> None:
        """Send the engine a signal, once there is one."""
        if (server := self.server) is not None:
            does = {signal.SIGKILL: server.kill, signal.SIGSTOP: server.pause}
            does.get(number, server.resume)()
            return
        await self.until(lambda: bool(engines_of(self.recorder.pid)))
        for engine in engines_of(self.recorder.pid):
            with suppress(ProcessLookupError):  # it ended by itself
                os.kill(engine, number)

    async def _revive(self) -> None:
        """Start a server again that was killed."""
        if self.server is not None:
            await trio.sleep(0.5 * self.chance.random())
            await trio.to_thread.run_sync(self.server.start)


def _is_subscribed(exchange: Exchange, known: int) -> bool:
    return any(one.number > known for one in subscribed(exchange))
