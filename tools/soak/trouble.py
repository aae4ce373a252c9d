"""What happens to a recorder of many symbols: faults of every kind, one after the other."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

import attrs
import trio

from tools.market import CHANNELS, wall_clock_ms
from tools.soak.recorder import SYMBOL, Place, kill, wait_for

if TYPE_CHECKING:
    from tools.exchange import Exchange
    from tools.exchange.connection import Connection
    from tools.exchange.handshakes import Handshake
    from tools.soak.made import Made

PATIENCE: Final = 240.0
"""Seconds that the recorder may take to have all lines of all symbols again."""
SETTLED: Final = 70.0
"""Seconds in which the last deals are fetched."""
_LOOK: Final = 0.25


@attrs.frozen(kw_only=True)
class Soak(Place):
    """What is to be done."""

    seconds: float = 3600.0
    """How long there are faults."""
    symbols: int = 200
    """How many there are."""
    together: int = 20
    """Symbols of a connection."""
    rate: float = 3.0
    """Messages a second of each symbol on each line. With one a second tickers are so rare that
    they count as silent again and again."""
    seed: int = 1
    """Makes the faults repeatable, as far as processes are."""


@attrs.define(eq=False)
class Trouble:
    """The recorder and what happens to it."""

    soak: Soak
    exchange: Exchange
    made: Made
    symbols: Sequence[str]
    recorder: trio.Process | None = None
    done: Counter[str] = attrs.field(factory=Counter)
    # Milliseconds at which a symbol had no line, by symbol.
    blind: defaultdict[str, list[int]] = attrs.field(factory=lambda: defaultdict(list))
    chance: random.Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.chance = random.Random(self.soak.seed)

    async def start(self) -> None:
        """Start the recorder."""
        rest = self.exchange.rest
        assert rest is not None  # noqa: S101 - it was opened with one
        self.recorder = await self.soak.start(
            *(one for one in self.symbols if one != SYMBOL), "--lines", "2",
            "--url", self.exchange.url, "--rest-url", rest.url, "--ping-interval", "5",
            "--symbols-per-connection", str(self.soak.together), "--max-errors", "1000000",
        )  # fmt: skip

    def heard(self, without: Sequence[Connection] = ()) -> Counter[str]:
        """Count by symbol the connections that are subscribed to everything of it."""
        return Counter(
            symbol
            for one in self.exchange.opened
            if one not in without
            for symbol, channels in one.subscriptions.items()
            if len(channels) == len(CHANNELS)
        )

    async def look(self) -> None:
        """Note who has no line, and let what nobody hears be dealt in. Runs until cancelled."""
        while True:
            heard, now = self.heard(), wall_clock_ms()
            for symbol in self.symbols:
                if heard[symbol]:
                    continue
                self.blind[symbol].append(now)
                is_dealt_in = self.chance.random() < _LOOK * self.soak.rate
                if is_dealt_in and not self.exchange.subscribers(symbol, "deal"):
                    self.made.deals[symbol].update(self.exchange.trade_unheard(symbol))
            await trio.sleep(_LOOK)

    async def whole(self) -> None:
        """Wait until all lines of all symbols are subscribed."""
        assert self.recorder is not None  # noqa: S101 - it was started
        await wait_for(self.recorder, self._is_whole, PATIENCE, _LOOK)

    def _is_whole(self) -> bool:
        heard = self.heard()
        return all(heard[symbol] >= 2 for symbol in self.symbols)

    async def run(self) -> None:
        """Make trouble for as long as it shall last, and let all settle."""
        faults: list[tuple[Callable[[], Awaitable[object]], int]] = [
            (self.kill_one, 10), (self.close_one, 3), (self.kill_both, 3), (self.refuse, 1),
            (self.fail_handshakes, 3), (self.leave_pings, 1), (self.withhold_acks, 1),
            (self.silence, 1), (self.send_garbage, 3), (self.kill_recorder, 1),
            (self.kill_engine, 2), (self.spoil_rest, 2),
        ]  # fmt: skip
        end = trio.current_time() + self.soak.seconds
        while trio.current_time() < end:
            await trio.sleep(1 + 2 * self.chance.random())
            ((fault, _),) = self.chance.choices(faults, [weight for _, weight in faults])
            self.done[fault.__name__.replace("_", " ")] += 1
            with self.soak.log.open("a") as log:
                log.write(f"{wall_clock_ms()} {fault.__name__}\n")
            await fault()
            await self.whole()
        await trio.sleep(SETTLED)

    def one(self) -> Connection:
        """Choose a connection."""
        return self.chance.choice(self.exchange.opened)

    async def drop(self, *those: Connection, reset: bool = True) -> None:
        """Break connections, and note who is without a line now, if only for milliseconds."""
        now, left = wall_clock_ms(), self.heard(without=those)
        for symbol in self.symbols:
            if not left[symbol]:
                self.blind[symbol].append(now)
        await self.exchange.drop(*those, reset=reset)

    async def kill_one(self) -> None:
        """Break a line."""
        await self.drop(self.one(), reset=self.chance.random() < 0.5)

    async def close_one(self) -> None:
        """Close a line with a close frame."""
        await self.one().close(1000, None)

    async def kill_both(self) -> None:
        """Break both lines of some symbols."""
        symbol = self.chance.choice(self.symbols)
        await self.drop(*self.exchange.subscribers(symbol))

    async def refuse(self) -> None:
        """Take no new connections for some seconds."""
        await self.exchange.stop_listening()
        await self.kill_one()
        await trio.sleep(5 * self.chance.random())
        await self.exchange.listen()

    async def fail_handshakes(self) -> None:
        """Let new connections meet trouble for some seconds."""
        ways: list[Handshake] = ["close", "stall", "garbage", "403", "503"]
        self.exchange.handshake = self.chance.choice(ways)
        await self.kill_one()
        await trio.sleep(5 * self.chance.random())
        self.exchange.handshake = "accept"

    async def leave_pings(self) -> None:
        """Answer no pings for so long that all lines are lost."""
        self.exchange.answer_pings = False
        await trio.sleep(14)
        self.exchange.answer_pings = True

    async def withhold_acks(self) -> None:
        """Do not confirm subscriptions for some seconds."""
        self.exchange.withheld_acks |= set(CHANNELS)
        await self.kill_one()
        await trio.sleep(12 * self.chance.random())
        self.exchange.withheld_acks.clear()

    async def silence(self) -> None:
        """Send nothing of a symbol for longer than is usual."""
        symbol = self.chance.choice(self.symbols)
        self.exchange.silence(symbol)
        await trio.sleep(40)
        self.exchange.resume(symbol)

    async def send_garbage(self) -> None:
        """Send a symbol something that cannot be read, or is large."""
        symbol = self.chance.choice(self.symbols)
        frame = self.exchange.market.frame(symbol, "deal", oddity="")
        huge = frame[:-1] + " " * 2**20 + "}"
        bad: list[str | bytes] = [frame[: len(frame) // 2], bytes(range(256)), huge]
        await self.exchange.send(symbol, self.chance.choice(bad))

    async def kill_recorder(self) -> None:
        """Kill the recorder, and start it again."""
        assert self.recorder is not None  # noqa: S101 - it was started
        await kill(self.recorder)
        await trio.sleep(3 * self.chance.random())
        await self.start()

    async def kill_engine(self) -> None:
        """Kill the engine that the recorder has as its child."""
        assert self.recorder is not None  # noqa: S101 - it was started
        for child in engines_of(self.recorder.pid):
            os.kill(child, signal.SIGKILL)
        await trio.lowlevel.checkpoint()

    async def spoil_rest(self) -> None:
        """Let the REST interface be of no use for some seconds in which deals are wanted of it."""
        rest = self.exchange.rest
        assert rest is not None  # noqa: S101 - it was opened with one
        rest.trouble = self.chance.choice(
            ["throttled", "html", "error", "broken", "hangup", "empty", "foreign"]
        )
        await self.kill_both()
        await trio.sleep(10 * self.chance.random())
        rest.trouble = "none"


def engines_of(pid: int) -> list[int]:
    """List the processes of embedded engines that a recorder has started."""
    listed = subprocess.run(
        ["/bin/ps", "-e", "-o", "pid=,ppid=,args="], check=True, capture_output=True, text=True
    ).stdout
    found = []
    for line in listed.splitlines():
        child, parent, command = line.split(None, 2)
        if int(parent) == pid and "engine_process" in command:
            found.append(int(child))
    return found
