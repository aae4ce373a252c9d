"""Keeps a connection to the exchange: one session after the other, without limit."""

import logging
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Final, Protocol

import attrs
import trio

from mexc_trio.backoff import Backoff
from mexc_trio.errors import ExchangeError
from mexc_trio.exchange.deals import Deals
from mexc_trio.exchange.rate_limiter import RateLimiter
from mexc_trio.exchange.session import SUBSCRIBE_PAUSE, Dial, Feed, converse
from mexc_trio.exchange.tally import Tally
from mexc_trio.exchange.websocket import dial

log = logging.getLogger(__name__)

SHORTEST_BACKOFF: Final = 1.0
LONGEST_BACKOFF: Final = 30.0
"""Seconds before a reconnect. As much again, at random, keeps recorders apart."""
HEALTHY: Final = 60.0
"""Seconds after which a connection has proved healthy, so the next backoff is the first again."""


class Subscriber(Feed, Protocol):
    """A feed that also hears of the connection's errors."""

    def connection_lost(self, error: ExchangeError) -> None:
        """Count an error; the connection is made anew unless this was one too many."""


@attrs.frozen(eq=False)
class Way:
    """One way to the exchange."""

    url: str
    dial: Dial = dial
    tally: Tally = attrs.field(factory=Tally)
    """Counts what happens; of all connections of one line and route, if they share it."""


@attrs.define(eq=False)
class Connection:
    """The connection that one or several symbols share."""

    ways: Sequence[Way]
    """At least one. The next is taken when there is no connection by one, or no healthy one."""
    subscribers: Sequence[Subscriber]
    ping_interval: float
    flush: Callable[[], None]
    """Called when the subscribers have what one read has brought."""
    pace: RateLimiter = attrs.field(factory=lambda: RateLimiter(SUBSCRIBE_PAUSE))
    """Spaces out subscriptions; of all connections, if they share it."""
    deals: Deals = attrs.field(factory=Deals)
    """How deals are asked for; by all connections, if they share it."""
    name: str = ""
    """What tells it from others of the same symbols, for the log."""
    # Those of the session that there is.
    _feeds: list[Subscriber] = attrs.field(factory=list, init=False)

    def join(self, subscriber: Subscriber) -> None:
        """Record one more from now on. The session that there is subscribes to it in seconds."""
        self.subscribers = [*(one for one in self.subscribers if not one.stopped), subscriber]
        self._feeds.append(subscriber)

    async def run(self) -> None:
        """Record until no subscriber is left; sessions end and begin meanwhile."""
        backoff = Backoff(SHORTEST_BACKOFF, LONGEST_BACKOFF, jitter=1.0)
        ways = cycle(self.ways)
        way = next(ways)
        while feeds := [one for one in self.subscribers if not one.stopped]:
            await self.pace.turn()  # a thousand connections are not dialled at once
            began = trio.current_time()
            self._feeds = feeds
            try:
                await converse(
                    way.url,
                    feeds,
                    self.ping_interval,
                    self.flush,
                    way.dial,
                    self.pace,
                    way.tally,
                    self.deals,
                )
            except ExchangeError as error:
                is_healthy = trio.current_time() - began >= HEALTHY
                if is_healthy:
                    backoff.reset()
                pause = backoff.next()
                self._lost(way, feeds, error, pause)
                if not is_healthy:
                    way = next(ways)
            await trio.sleep(pause)

    def _lost(
        self, way: Way, feeds: Sequence[Subscriber], error: ExchangeError, pause: float
    ) -> None:
        way.tally.losses[error.loss] += 1
        for feed in feeds:
            feed.connection_lost(error)
        who = feeds[0].symbol if len(feeds) == 1 else f"{len(feeds)} symbols"
        if self.name:
            who = f"{who}, {self.name}"
        left = any(not feed.stopped for feed in feeds)
        what_next = f"reconnecting in {pause:.1f} s" if left else "not reconnecting"
        log.warning("%s: %s; %s", who, error, what_next)
