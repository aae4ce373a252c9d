"""Asks the exchange for the deals that fell into gaps, the busiest symbol's first.

The exchange tells only the last hundred deals of each contract, so a second counts; and it answers
only so many requests a second from one address. So symbols with the same routes form one queue, and
the one with the most deals a second comes next: of a quiet one nothing is lost meanwhile. Deals
that a line may have lost while another lives are asked for in the same way, after those of gaps.

A gap is filled once or, when that has failed a few times or for too long, written as it is. What
the exchange says may lag behind its socket, and is then asked for again.
"""

import importlib
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio
from trio_util import RepeatedEvent

from mexc_trio.exchange.backfill import MOST_DEALS, Deal
from mexc_trio.exchange.decoding import decode_deals
from mexc_trio.exchange.digits import Malformed
from mexc_trio.exchange.rate_limiter import RateLimiter
from mexc_trio.record.collector import Collector
from mexc_trio.rows import Gap
from mexc_trio.settings.routes import Route
from mexc_trio.texts import number_of, time_text

if TYPE_CHECKING:
    from mexc_trio.exchange.rest import Client

log = logging.getLogger(__name__)

DELAY: Final = 1.0
"""Seconds after the end of a gap in which the socket may still bring deals of its last moment."""
ATTEMPTS: Final = 4
"""How often the exchange is asked for one symbol's deals."""
LONGEST: Final = 300.0
"""Seconds after which a gap is written as it is, whoever has not yet been asked."""
TIMEOUT: Final = 10.0
"""Seconds for a request, its answer included."""
MOST_BYTES: Final = 2**20
"""Of an answer, which usually has 10 KB."""
_SWEEP: Final = 1.0
_LAGS: Final = "the exchange's list has none of the deals that have come since"


@attrs.define(eq=False)
class _Fetch:
    """The deals of a symbol that are to be fetched."""

    collector: Collector
    until: float
    """When it is given up."""
    due: float
    """When it may be asked for."""
    complete: float
    """When the last of its gaps is `DELAY` old."""
    gaps: int
    """How many, and uncertain time counts as one."""
    attempts: int = 0
    is_asked: bool = False
    """Whether an answer is waited for, or about to be used."""


@attrs.define(eq=False)
class Backfill:
    """Fills the gaps of all symbols."""

    url: str
    """The REST interface."""
    longest: float = LONGEST
    _fetches: dict[str, _Fetch] = attrs.field(factory=dict, init=False)
    _limiters: dict[Route, RateLimiter] = attrs.field(factory=dict, init=False)
    _served: set[tuple[Route, ...]] = attrs.field(factory=set, init=False)
    _changed: RepeatedEvent = attrs.field(factory=RepeatedEvent, init=False)

    def request(self, collector: Collector) -> None:
        """Fill the gaps that a symbol holds; may be called again and again."""
        now, gaps = trio.current_time(), collector.ledger.pending.wanted
        fetch = self._fetches.get(collector.symbol)
        if fetch is None or fetch.collector is not collector:
            fetch = _Fetch(collector, now + self.longest, now, now + DELAY, gaps)
            self._fetches[collector.symbol] = fetch
            self._changed.set()
        elif gaps > fetch.gaps:
            fetch.complete, fetch.gaps = now + DELAY, gaps

    async def run(self) -> None:
        """Fill what is wanted, until cancelled."""
        self._served.clear()
        for fetch in self._fetches.values():
            fetch.is_asked = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sweep)
            while True:
                wanted = {fetch.collector.settings.route for fetch in self._fetches.values()}
                for routes in wanted - self._served:
                    self._served.add(routes)
                    nursery.start_soon(self._serve, nursery, routes)
                await self._changed.wait()

    async def _serve(self, nursery: trio.Nursery, routes: tuple[Route, ...]) -> None:
        """Ask for the symbols of some routes until none waits."""
        # In a thread, because the HTTP client takes a while to load, and most do without it.
        loaded = partial(importlib.import_module, "mexc_trio.exchange.rest")
        rest = await trio.to_thread.run_sync(loaded)
        backoff, place, failures = rest.new_backoff(), 0, 0
        limits = rest.RequestLimits(TIMEOUT, MOST_BYTES)
        async with AsyncExitStack() as stack:
            clients: dict[Route, Client] = {}
            while (fetch := await self._next_fetch(routes)) is not None:
                route = routes[place]
                if route not in clients:
                    limiter = self._rate_limiter(route, rest.REQUEST_INTERVAL)
                    opened = rest.open_client(self.url, route, limiter, limits)
                    clients[route] = await stack.enter_async_context(opened)
                fetch.is_asked = True
                fetch.attempts += 1
                try:
                    answer = await _deals(clients[route], fetch.collector.symbol)
                except rest.NoContract as error:
                    self._give_up(fetch, error.reason)
                except rest.RestError as error:
                    failures, place = failures + 1, (place + 1) % len(routes)
                    # The next route is tried at once; when all have failed it is time to wait.
                    pause = 0.0 if failures % len(routes) else error.pause(backoff)
                    self._ask_again(fetch, pause, error.reason)
                    await trio.sleep(pause)
                except Malformed as error:
                    self._ask_again(fetch, _pause(fetch), f"its answer is none: {error}")
                else:
                    failures = 0
                    backoff.reset()
                    nursery.start_soon(self._fill, fetch, answer)
            self._served.discard(routes)

    async def _next_fetch(self, routes: tuple[Route, ...]) -> _Fetch | None:
        """Return who comes next, once it is time; None if nobody waits any more."""
        while fetches := [
            fetch for fetch in self._fetches.values() if fetch.collector.settings.route == routes
        ]:
            now = trio.current_time()
            waiting = [fetch for fetch in fetches if not fetch.is_asked]
            ready = [fetch for fetch in waiting if fetch.due <= now]
            if ready:
                return max(ready, key=_urgency)
            with trio.move_on_at(min((fetch.due for fetch in waiting), default=now + LONGEST)):
                await self._changed.wait()
        return None

    async def _fill(self, fetch: _Fetch, answer: Sequence[Deal]) -> None:
        """Fill gaps with an answer."""
        await trio.sleep_until(fetch.complete)
        collector = fetch.collector
        ledger = collector.ledger
        before = len(ledger.pending.gaps)
        deals = ledger.fill(answer) if ledger.pending.wanted else 0
        collector.received["deal"] += deals
        left = len(ledger.pending.gaps)
        if deals and not before:
            text = "%s: %s fetched that no line had brought"
            log.info(text, collector.symbol, number_of(deals, "deal"))
        if before > left:
            log.info(
                "%s: %s of %s fetched afterwards",
                collector.symbol, number_of(deals, "deal"), number_of(before - left, "gap"),
            )  # fmt: skip
        if ledger.pending.wanted:
            self._ask_again(fetch, _pause(fetch), _LAGS)
        else:
            self._forget(fetch)

    def _ask_again(self, fetch: _Fetch, pause: float, why: str) -> None:
        """Ask once more for a symbol after a pause, unless it was asked for too often."""
        if fetch.attempts >= ATTEMPTS:
            self._give_up(fetch, why)
            return
        log.info("%s: what is asked for is not there yet: %s", fetch.collector.symbol, why)
        fetch.is_asked, fetch.due = False, trio.current_time() + pause
        self._changed.set()

    def _give_up(self, fetch: _Fetch, why: str) -> None:
        _log_given_up([fetch.collector.ledger.give_up()], why)
        self._forget(fetch)

    def _forget(self, fetch: _Fetch) -> None:
        if self._fetches.get(fetch.collector.symbol) is fetch:
            del self._fetches[fetch.collector.symbol]
        self._changed.set()

    async def _sweep(self) -> None:
        """Give up what has become useless to wait for."""
        while True:
            await trio.sleep(_SWEEP)
            now = trio.current_time()
            late, past = [], []
            for fetch in list(self._fetches.values()):
                ledger = fetch.collector.ledger
                if fetch.is_asked:
                    continue
                if now >= fetch.until:
                    late.append(ledger.give_up())
                else:
                    past.append(ledger.give_up(until=ledger.pending.last_deals.oldest))
                if not ledger.pending.wanted:
                    self._forget(fetch)
            _log_given_up(late, f"the exchange could not be asked within {self.longest:g} s")
            why = f"{MOST_DEALS} deals have come since, and it tells no more"
            _log_given_up(past, why, logging.INFO)

    def _rate_limiter(self, route: Route, interval: float) -> RateLimiter:
        address = attrs.evolve(route, via=None)  # of ours, which is what the exchange counts by
        return self._limiters.setdefault(address, RateLimiter(interval))


async def _deals(client: "Client", symbol: str) -> list[Deal]:
    """Ask for a symbol's last deals; return them, oldest first.

    Raises RestError where there is no useful answer, Malformed if it is no list of its deals.
    """
    deals = decode_deals(symbol, await client.get(f"deals/{symbol}"))
    return list(zip(deals.rows, deals.ids, strict=True))[-MOST_DEALS:]


def _urgency(fetch: _Fetch) -> tuple[bool, float]:
    pending = fetch.collector.ledger.pending
    return bool(pending.gaps), pending.last_deals.rate


def _pause(fetch: _Fetch) -> float:
    return 2.0 ** (fetch.attempts - 1)


def _log_given_up(
    given_up: Sequence[tuple[list[Gap], Gap | None]], why: str, level: int = logging.WARNING
) -> None:
    """Say in a line each which gaps are not filled, and what else stays uncertain."""
    gaps = [gap for several, _ in given_up for gap in several]
    uncertain = [gap for _, gap in given_up if gap is not None]
    not_asked = "not looked through for more deals"
    for those, one, several, end in (
        (gaps, "gap in deals", "gaps in deals", "not filled"),
        (uncertain, "time of a lost line", "times of lost lines", not_asked),
    ):
        if not those:
            continue
        which = f"{those[0].symbol}: the {one} from {time_text(those[0].start)} is"
        if len(those) > 1:
            symbols = list(dict.fromkeys(gap.symbol for gap in those))
            few = ", ".join(symbols[:3]) + (" ..." if len(symbols) > 3 else "")
            which = f"{number_of(len(those), one, several)} ({few}) are"
        log.log(level, "%s %s: %s", which, end, why)
