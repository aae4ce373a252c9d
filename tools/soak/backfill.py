"""One line, cut again and again: every deal of the cuts is fetched afterwards, and stored once.

The exchange runs here and goes on dealing while nobody hears it; the recorder is a process that
fetches afterwards what it missed. In the end every deal is held against what is stored, and every
row of the ledger against what was missed.
"""

from __future__ import annotations

import json
import math
import random
import signal
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs
import trio

from mexc_trio.filled import Filled
from tools.exchange import Exchange, open_exchange
from tools.exchange.tape import ids_of
from tools.market import Row, truth
from tools.soak.made import says_missing
from tools.soak.recorder import LONGEST_WAIT, SYMBOL, Outcome, Place, kill, subscribed, until

if TYPE_CHECKING:
    from mexc_trio.rows import Gap

SETTLED: Final = 4.0
"""Seconds after the last kill in which what it interrupted is fetched."""
_LOOK: Final = 0.2
_DEALS_A_FRAME: Final = 1.6  # as the market makes them, on average


@attrs.frozen(kw_only=True)
class Cuts(Place):
    """What is to be done."""

    cuts: int = 100
    """How often the line is cut."""
    longest: float = 5.0
    """Seconds of the longest cut; the shortest has one."""
    rate: float = 10.0
    """Deals a second."""
    calm: float = math.inf
    """The same after a cut, if fewer: what was cut then stays among the newest for longer."""
    ids: bool = False
    """Whether the exchange's REST interface tells deals' ids."""
    lag: float = 0.0
    """Seconds by which it lags behind."""
    most: int = 20
    """Requests a second that it answers."""
    kill: bool = False
    """Whether the recorder is killed after each cut, and started again."""
    options: Sequence[str] = ()
    """Of the recorder."""
    seed: int = 1
    """Makes the instants repeatable, as far as processes are."""


@attrs.frozen(kw_only=True)
class Result(Outcome):
    """What came of it."""

    cuts: int
    seconds: float
    deals: int
    """Deals that were made, each once."""
    unheard: int
    """Those that no connection brought."""
    missing: int
    """Deals that are not stored."""
    unaccounted: Sequence[str]
    """Those of them that the ledger does not say are missing."""
    twice: int
    strange: int
    """Stored rows that nobody made."""
    gaps: int
    """Of deals, in the ledger."""
    whole: int
    """Those that were filled whole."""
    filled: int
    """Deals that the ledger says were fetched."""
    untrue: Sequence[str]
    """What the ledger says and is not so."""
    sound: bool
    """What `mexc-trio verify` says."""
    exit_code: int

    @property
    def wrong(self) -> bool:
        """Whether a promise was broken."""
        return bool(
            self.unaccounted or self.twice or self.strange or self.untrue or not self.sound
            or self.exit_code
        )  # fmt: skip


@attrs.define(eq=False)
class _Market:
    """A contract that is dealt in, whoever hears it."""

    exchange: Exchange
    rate: float
    deals: list[Row] = attrs.field(factory=list)

    async def run(self) -> None:
        """Deal until cancelled."""
        while True:
            with trio.CancelScope(shield=True):  # what was made is sent, also at the end
                await self._deal()
            await trio.sleep(_DEALS_A_FRAME / self.rate)

    async def _deal(self) -> None:
        frame = self.exchange.market.frame(SYMBOL, "deal", oddity="")
        self.deals += (rows := truth(frame) or [])
        if self.exchange.subscribers(SYMBOL, "deal"):
            await self.exchange.send(SYMBOL, frame)
        else:
            self.exchange.tape.add(SYMBOL, rows, ids_of(frame))
        for channel in ("ticker", "depth.full"):
            if self.exchange.subscribers(SYMBOL, channel):
                await self.exchange.push(SYMBOL, channel)


async def try_backfill(trial: Cuts) -> Result:
    """Do it, and compare."""
    async with open_exchange(seed=trial.seed, rest_port=0) as exchange, trio.open_nursery() as it:
        if (rest := exchange.rest) is None:
            raise RuntimeError("an exchange with a port for it has a REST interface")
        rest.ids, rest.lag, rest.most = trial.ids, trial.lag, trial.most
        market = _Market(exchange, min(trial.rate, trial.calm))
        recorder = await _start(trial, exchange)
        try:
            it.start_soon(market.run)
            began = trio.current_time()
            chance = random.Random(trial.seed)
            for _ in range(trial.cuts):
                await _cut(trial, market, recorder, chance)
                if trial.kill:
                    await trio.sleep(1.6 * chance.random())
                    await kill(recorder)
                    await exchange.until(lambda: not exchange.opened)
                    recorder = await _start(trial, exchange)
            await _settled(trial)
            it.cancel_scope.cancel()
            seconds = trio.current_time() - began
            with trio.CancelScope(shield=True), trio.fail_after(2 * LONGEST_WAIT):
                # What is on its way when a recorder is stopped, only its next run would tell of.
                await trial.until_stored(market.deals[-1])
                recorder.send_signal(signal.SIGINT)
                exit_code = await recorder.wait()
        finally:
            await kill(recorder)
    return _compared(trial, market, seconds, exit_code)


async def _settled(trial: Cuts) -> None:
    """Wait until all that was cut is in the ledger, which it is when it was fetched."""
    if trial.kill:  # whose own gap comes besides
        await trio.sleep(SETTLED + 2 * trial.lag)
    there = "SELECT count() FROM gaps WHERE channel = 'deal'"
    with trio.move_on_after(LONGEST_WAIT):
        while await trio.to_thread.run_sync(trial.ask, there) < [[trial.cuts]]:  # noqa: ASYNC110 - files
            await trio.sleep(_LOOK)


async def _start(trial: Cuts, exchange: Exchange) -> trio.Process:
    """Start the recorder, and wait until it is subscribed to everything."""
    if exchange.rest is None:
        raise RuntimeError("the exchange has no REST interface")
    recorder = await trial.start(
        "--url", exchange.url, "--rest-url", exchange.rest.url, "--max-errors", "1000000",
        *trial.options,
    )  # fmt: skip
    await until(exchange, recorder, lambda: bool(subscribed(exchange)))
    return recorder


async def _cut(trial: Cuts, market: _Market, recorder: trio.Process, chance: random.Random) -> None:
    """Cut the line, let the market go on, and let the recorder come back."""
    exchange = market.exchange
    await trio.sleep(0.5 + chance.random())
    await exchange.stop_listening()
    await exchange.drop()
    market.rate = trial.rate
    await trio.sleep(1 + chance.random() * (trial.longest - 1))
    market.rate = min(trial.rate, trial.calm)
    await exchange.listen()
    await until(exchange, recorder, lambda: bool(subscribed(exchange)))


def _compared(trial: Cuts, market: _Market, seconds: float, exit_code: int) -> Result:
    """Hold what is stored against what was dealt, and the ledger against what was missed."""
    stored = trial.rows()
    ledger = [gap for gap in trial.ledger() if gap.channel == "deal"]
    heard = {row for record in market.exchange.sent(SYMBOL) for row in record.rows or ()}
    kept = Counter(stored)
    missing = [deal for deal in market.deals if deal not in kept]
    verdict = json.loads(trial.run("verify", "--json").stdout)
    told = [filled for gap in ledger if (filled := Filled.of(gap.detail))]
    return Result(
        cuts=trial.cuts,
        seconds=round(seconds, 1),
        deals=len(market.deals),
        unheard=sum(deal not in heard for deal in market.deals),
        missing=len(missing),
        unaccounted=[
            f"number {number} of {len(market.deals)}: {deal}"
            for number, deal in enumerate(market.deals)
            if deal not in kept and not any(says_missing(gap, deal[0]) for gap in ledger)
        ],
        twice=sum(number - 1 for row, number in kept.items() if row[1] == "d"),
        strange=len(kept.keys() - {*market.deals, *heard}),
        gaps=len(ledger),
        whole=sum(one.whole for one in told),
        filled=sum(one.deals for one in told),
        untrue=[text for gap in ledger if (text := _untrue(gap, market.deals))],
        sound=bool(verdict["sound"]),
        exit_code=exit_code,
    )


def _untrue(gap: Gap, deals: Sequence[Row]) -> str:
    """Return what a row of the ledger says of its filling, if it is not so."""
    start, end, detail = gap.start, gap.end, gap.detail
    filled = Filled.of(detail)
    if filled is None:
        return ""
    since = start + 1 if filled.whole else filled.first
    there = sum(since <= at < end for at, _, _ in deals)  # no two have one millisecond
    return "" if there == filled.deals else f"{start} to {end}: {detail}; there were {there}"
