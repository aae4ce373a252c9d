"""Hours of everything that an exchange, a network or an attacker can do at the socket.

In virtual time: two symbols, a market that goes on whether it is heard or not, and at short
intervals something bad. The promise: the program goes on, each frame of the market is stored once,
and whatever is not stored lies in a gap of the ledger.
"""

import gzip
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from mexc_trio.errors import StoreRejected, StoreUnavailable
from mexc_trio.record.gaps import Ledger
from mexc_trio.rows import Gap
from tests.support.faults import REPEAT
from tests.unit.test_collector import BTC, Rig, rigged
from tools.market import CHANNELS as WIRE_CHANNELS
from tools.market import Channel, Row

ETH = "ETH_USDT"
SYMBOLS = (BTC, ETH)
HOURS = 0.25 * REPEAT
PAUSE = 4.0
"""Seconds between two frames of each channel."""
SEED = int(os.environ.get("MEXC_TRIO_TEST_SEED", "0")) or random.SystemRandom().randrange(10**6)
GAP_CHANNEL = {"ticker": "ticker", "deal": "deal", "depth.full": "depth"}

DEEP = "[" * 100_000
FRAMES: list[str | bytes] = [
    "", "null", "[]", "{", '"x"', "5", "\x00", DEEP, '{"channel":' + DEEP, "{}", '{"channel":null}',
    '{"channel":"push.deal"}', '{"channel":"push.deal","symbol":"BTC_USDT"}',
    '{"channel":"push.deal","symbol":"BTC_USDT","data":{},"ts":1}',
    '{"channel":"push.deal","symbol":"BTC_USDT","data":[{"p":1e999999,"v":1,"T":1,"t":1}],"ts":1}',
    '{"channel":"push.deal","symbol":"BTC_USDT","data":[{"p":1,"v":1,"T":1,"t":0}],"ts":0}',
    '{"channel":"push.deal","symbol":"ETH_USDT","data":{"p":1,"v":1,"T":2,"t":9999999999999}}',
    '{"channel":"push.deal","symbol":["BTC_USDT"],"data":[],"ts":1}',
    '{"channel":"push.deal","symbol":"STRANGER_USDT","data":[],"ts":1}',
    '{"channel":"push.depth.full","symbol":"BTC_USDT","data":{"bids":[[]],"asks":5},"ts":1}',
    '{"channel":"push.ticker","symbol":"ETH_USDT","data":{"lastPrice":true},"ts":"x"}',
    '{"channel":"push.' + "x" * 100_000 + '"}',
    '{"channel":"pong"}', '{"channel":"pong","data":"soon","ts":[]}', '{"channel":"clientId"}',
    '{"channel":"rs.sub.deal","data":"success"}', '{"channel":"rs.sub.deal","data":"no"}',
    '{"channel":"rs.sub.nothing","data":"success"}', '{"channel":"rs.error"}',
    '{"channel":"rs.error","data":{"a":1}}', '{"channel":"rs.error","data":"\\u001b[2J\\n\\u0007"}',
    '{"channel":"rs.error","data":"Contract doesn\'t exist!"}',
    '{"channel":"rs.error","data":"Contract [BTC_USDT] not exists"}',
    '{"channel":"rs.error","data":"Contract [] not exists"}',
    '{"channel":"rs.error","data":"Contract [STRANGER_USDT] not exists"}',
    b"", bytes(range(256)), gzip.compress(b"{}"), gzip.compress(b" " * 2**22)[:-9], b"\x1f\x8b",
    "x" * 2**21, "\U0001f600" * 1000,
]  # fmt: skip


@attrs.define(eq=False)
class Market:
    """Two contracts whose frames come regularly, heard or not."""

    rig: Rig
    trading: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    shut: set[tuple[str, Channel]] = attrs.field(factory=set)
    """Channels that send nothing for a while."""
    unheard: list[tuple[str, Channel, int]] = attrs.field(factory=list)
    """Frames that nobody was there for."""
    sent: dict[str, list[tuple[Channel, list[Row]]]] = attrs.field(
        factory=lambda: {symbol: [] for symbol in SYMBOLS}
    )
    known: dict[str, set[Row]] = attrs.field(factory=lambda: {symbol: set() for symbol in SYMBOLS})

    async def run(self) -> None:
        """Trade."""
        with self.trading:
            while True:
                for symbol in SYMBOLS:
                    for channel in WIRE_CHANNELS:
                        await self.push(symbol, channel)
                await trio.sleep(PAUSE)

    async def push(self, symbol: str, channel: Channel) -> None:
        """Send a frame, or note that nobody got it."""
        if (symbol, channel) in self.shut:
            return
        try:
            record = await self.rig.exchange.push(symbol, channel)
        except LookupError:
            self.unheard.append((symbol, channel, int(time.time() * 1000)))
            return
        rows = record.rows or []
        self.sent[symbol].append((channel, rows))
        self.known[symbol].update(rows)


@attrs.define(eq=False)
class Attacker:
    """What can be done; each takes its time."""

    rig: Rig
    market: Market
    chance: random.Random

    async def for_a_while(self, start: Callable[[], None], end: Callable[[], None]) -> None:
        """Let something be so for up to five minutes."""
        start()
        await trio.sleep(self.chance.uniform(1, 300))
        end()

    async def break_all(self) -> None:
        """Reset all connections."""
        await self.rig.exchange.drop()

    async def close(self) -> None:
        """Close with some code and words."""
        code = self.chance.choice([1000, 1001, 1002, 1008, 1011, 1013, 4999])
        await self.rig.exchange.close(code, "\x1b[2Jgo\naway")

    async def garbage(self) -> None:
        """Send frames of any content."""
        for _ in range(self.chance.randrange(1, 5)):
            with suppress(LookupError):
                await self.rig.exchange.send(
                    self.chance.choice(SYMBOLS), self.chance.choice(FRAMES)
                )

    async def noise(self) -> None:
        """Send bytes that are no frame at all."""
        for connection in list(self.rig.exchange.opened):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await connection.wire.send_all(self.chance.randbytes(200))

    async def handshakes(self) -> None:
        """Answer no handshake as one should."""
        exchange = self.rig.exchange
        kind = self.chance.choice(["close", "stall", "garbage", "403", "503"])
        await exchange.drop()
        await self.for_a_while(
            lambda: setattr(exchange, "handshake", kind),
            lambda: setattr(exchange, "handshake", "accept"),
        )

    async def deafness(self) -> None:
        """Answer no ping."""
        exchange = self.rig.exchange
        await self.for_a_while(
            lambda: setattr(exchange, "answer_pings", False),
            lambda: setattr(exchange, "answer_pings", True),
        )

    async def no_acknowledgements(self) -> None:
        """Acknowledge nothing on new connections."""
        exchange = self.rig.exchange
        await exchange.drop()
        await self.for_a_while(
            lambda: exchange.withheld_acks.update(WIRE_CHANNELS), exchange.withheld_acks.clear
        )

    async def maintenance(self) -> None:
        """Say that there is no such contract, in one of the two wordings."""
        exchange = self.rig.exchange
        exchange.refusal = self.chance.choice(
            ["Contract [{symbol}] not exists", "Contract doesn't exist!"]
        )
        before, during = (
            exchange.listing,
            attrs.evolve(exchange.listing, unknown=(self.chance.choice(["BTC*", "ETH*", "*"]),)),
        )
        await exchange.drop()
        await self.for_a_while(
            lambda: setattr(exchange, "listing", during),
            lambda: setattr(exchange, "listing", before),
        )

    async def silence(self) -> None:
        """Send nothing of some channels, for long enough that it is noticed."""
        shut = {(self.chance.choice(SYMBOLS), self.chance.choice(WIRE_CHANNELS)) for _ in range(3)}
        self.market.shut |= shut
        await trio.sleep(200)
        self.market.shut -= shut

    async def flood(self) -> None:
        """Send more in a moment than in the half hour before."""
        for _ in range(400):
            await self.market.push(BTC, "deal")

    async def no_store(self) -> None:
        """Take the store away, or have it refuse, or have no thread to ask it with."""
        store = self.rig.store
        failure = self.chance.choice(
            [
                StoreUnavailable("away"),
                StoreRejected("no right"),
                RuntimeError("can't start new thread"),
                ZeroDivisionError(),
            ]
        )
        await self.for_a_while(
            lambda: setattr(store, "failure", failure), lambda: setattr(store, "failure", None)
        )

    async def a_bug(self) -> None:
        """Have the program fail at each message for a moment."""

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Ledger, "received", fail)
            await trio.sleep(PAUSE)

    @property
    def all(self) -> list[Callable[[], Awaitable[None]]]:
        """List everything, what costs most once and the rest more often."""
        often = [self.break_all, self.close, self.garbage, self.garbage, self.garbage, self.noise]
        rarely = [
            self.handshakes, self.deafness, self.no_acknowledgements, self.maintenance,
            self.silence, self.flood, self.no_store, self.a_bug,
        ]  # fmt: skip
        return [*often, *rarely]


@pytest.mark.parametrize("shared", [False, True])
async def test_hours_of_attacks(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """Each frame is stored once or lies in a gap; memory is bounded, and nobody has stopped."""
    print(f"MEXC_TRIO_TEST_SEED={SEED}")
    began = trio.current_time()
    monkeypatch.setattr(time, "time", lambda: 1_795_000_000 + trio.current_time() - began)
    async with rigged(tmp_path) as rig:
        rig.exchange.market.clock = lambda: int(time.time() * 1000)
        collectors = [rig.collector(symbol, max_errors=10**9) for symbol in SYMBOLS]
        groups = [collectors] if shared else [[one] for one in collectors]
        for group in groups:
            rig.start(*group)
        for symbol in SYMBOLS:
            await rig.exchange.subscribed(symbol)
        market = Market(rig)
        chance = random.Random(SEED)
        attacker = Attacker(rig, market, chance)
        rig.nursery.start_soon(market.run)
        await trio.sleep(2 * PAUSE)
        rig.exchange.handshake = "close"  # so that something is lost, whatever chance brings
        await rig.exchange.drop()
        await trio.sleep(60)
        rig.exchange.handshake = "accept"
        while trio.current_time() - began < HOURS * 3600:
            await trio.sleep(chance.uniform(5, 120))
            await chance.choice(attacker.all)()
            assert rig.journal.outbox.in_memory < 100_000
        await trio.sleep(900)  # peace
        assert not any(collector.stopped for collector in collectors)
        market.trading.cancel()
        await trio.sleep(60)
        check(rig, market)


def check(rig: Rig, market: Market) -> None:
    """See that what was sent is in its table once, or in a gap."""
    gaps = [Gap(*row) for row in rig.journal.queue("gaps").head(10**9)]  # type: ignore[arg-type]
    lost = [*market.unheard]
    for symbol in SYMBOLS:
        table = rig.store.tables[symbol.removesuffix("_USDT").lower()]
        stored = Counter(tuple(row) for row in table)
        for channel, rows in market.sent[symbol]:
            for row in rows:
                if stored[row]:
                    stored[row] -= 1
                else:
                    lost.append((symbol, channel, row[0]))
        again = [row for row, n in stored.items() if n and row in market.known[symbol]]
        assert again == [], "stored more than once"
    unexplained = [
        (symbol, channel, at)
        for symbol, channel, at in lost
        if not any(
            gap.symbol == symbol
            and gap.channel in (GAP_CHANNEL[channel], "all")
            and gap.start <= at <= gap.end
            for gap in gaps
        )
    ]
    assert unexplained == []
    assert len(lost) > 5, "nothing was attacked"
    assert sum(len(market.sent[symbol]) for symbol in SYMBOLS) > len(lost), "nothing got through"
