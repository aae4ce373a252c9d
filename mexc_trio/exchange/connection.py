"""Keeps a connection to the exchange: one session after the other, without limit."""

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import attrs
import trio

from mexc_trio.backoff import Backoff
from mexc_trio.errors import ExchangeError, Loss
from mexc_trio.exchange.deals import Deals
from mexc_trio.exchange.feed import Feed
from mexc_trio.exchange.rate_limiter import RateLimiter
from mexc_trio.exchange.session import Dial, converse
from mexc_trio.exchange.subscribing import SUBSCRIBE_PAUSE
from mexc_trio.exchange.tally import Tally
from mexc_trio.exchange.websocket import dial

log = logging.getLogger(__name__)

SHORTEST_BACKOFF: Final = 1.0
LONGEST_BACKOFF: Final = 30.0
"""Seconds before a reconnect. As much again, at random, keeps recorders apart."""
HEALTHY: Final = 60.0
"""Seconds after which a connection has proved healthy, so the next backoff is the first again."""
WARM_UP: Final = 2.0
"""Seconds for which what the old connection brings is remembered before there is a new one."""
TAKE_OVER: Final = 30.0
"""Seconds that a new connection may take to have all that the old one has."""
LOOK: Final = 0.1
"""Seconds between two looks at whether it has."""


class Subscriber(Feed, Protocol):
    """A feed that also hears of the connection's errors."""

    def connection_lost(self, error: ExchangeError) -> None:
        """Count an error; the connection is made anew unless this was one too many."""

    def heir(self) -> "Subscriber | None":
        """Return the same for a connection that is made beside this one, to replace it.

        None where two connections at once are of no use: then the old one is broken first.
        """

    def has_taken_over(self) -> bool:
        """Whether an heir has all that is had of who it is to replace, so that nothing is lost."""

    def replaced(self, error: ExchangeError) -> None:
        """Hear no more: an heir goes on, or this one was an heir and its connection has failed."""


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
    rate_limiter: RateLimiter = attrs.field(factory=lambda: RateLimiter(SUBSCRIBE_PAUSE))
    """Spaces out subscriptions; of all connections, if they share it."""
    deals: Deals = attrs.field(factory=Deals)
    """How deals are asked for; by all connections, if they share it."""
    name: str = ""
    """What tells it from others of the same symbols, for the log."""
    renewing: trio.Lock = attrs.field(factory=trio.Lock)
    """Held while a connection is replaced; lines that share it are so one at a time."""
    # The session that there is, and what it is called by.
    _session: "_Session | None" = attrs.field(default=None, init=False)
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)

    def join(self, subscriber: Subscriber) -> None:
        """Record one more from now on. The session that there is subscribes to it in seconds."""
        self.subscribers = [*(one for one in self.subscribers if not one.stopped), subscriber]
        if self._session is not None:
            self._session.feeds.append(subscriber)

    def renew(self, ways: Sequence[Way], why: str) -> None:
        """Take other ways: a new connection is made, and then the old one is broken."""
        self.ways = ways
        if self._session is not None:
            self._session.wear(ExchangeError(why, Loss.RENEWED))

    async def run(self) -> None:
        """Record until no subscriber is left; sessions end and begin meanwhile."""
        backoff = Backoff(SHORTEST_BACKOFF, LONGEST_BACKOFF, jitter=1.0)
        number = 0
        async with trio.open_nursery() as self._nursery:
            while feeds := [one for one in self.subscribers if not one.stopped]:
                await self.rate_limiter.turn()  # a thousand connections are not dialled at once
                session = self._begin(self.ways[number % len(self.ways)], feeds)
                await session.changed.wait()
                while session.error is None:
                    session = await self._replaced(session, backoff)
                    await session.changed.wait()
                is_healthy = session.age >= HEALTHY
                if is_healthy:
                    backoff.reset()
                pause = backoff.next()
                left = self._lost(session, session.error)
                what_next = f"reconnecting in {pause:.1f} s" if left else "not reconnecting"
                log.warning("%s: %s; %s", self._who(session), session.error, what_next)
                if not is_healthy:
                    number += 1
                await trio.sleep(pause)

    def _begin(self, way: Way, feeds: list[Subscriber]) -> "_Session":
        """Start a session; it may outlive its successor's beginning, or fail beside it."""
        assert self._nursery is not None  # noqa: S101 - open while this runs
        session = self._session = _Session(way, feeds)
        self._nursery.start_soon(self._converse, session)
        return session

    async def _converse(self, session: "_Session") -> None:
        with session.scope:
            try:
                await converse(
                    session.way.url,
                    session.feeds,
                    self.ping_interval,
                    self.flush,
                    session.way.dial,
                    self.rate_limiter,
                    session.way.tally,
                    self.deals,
                    session.wear,
                )
            except ExchangeError as error:
                session.error = error
        session.ended.set()
        session.changed.set()

    async def _replaced(self, old: "_Session", backoff: Backoff) -> "_Session":
        """Make a new connection before a worn one is broken; return what there is then.

        A new one that fails is tried again while the old one lives.
        """
        assert old.worn is not None  # noqa: S101 - that is what the caller has seen
        place = 0
        async with self.renewing:
            while old.error is None:
                living = [one for one in old.feeds if not one.stopped]
                heirs = [heir for one in living if (heir := one.heir()) is not None]
                if not heirs or len(heirs) < len(living):
                    for heir in heirs:
                        heir.replaced(old.worn)
                    old.scope.cancel()
                    await old.ended.wait()
                    old.error = old.error or old.worn
                    return old
                number = len(heirs)
                with trio.move_on_after(WARM_UP):
                    await old.ended.wait()
                await self.rate_limiter.turn()
                log.info("%s: %s; making a new connection first", self._who(old), old.worn)
                new = self._begin(self.ways[place % len(self.ways)], heirs)
                with trio.move_on_after(TAKE_OVER + 2 * SUBSCRIBE_PAUSE * len(heirs)):
                    await _taken_over(new, old)
                if new.error is None:
                    await self._leave(old)
                    self.subscribers = new.feeds
                    return new
                self._withdraw(new, old, number)
                place += 1
                with trio.move_on_after(backoff.next()):
                    await old.ended.wait()
        return old

    async def _leave(self, old: "_Session") -> None:
        """Break a connection that another one has replaced."""
        assert old.worn is not None  # noqa: S101 - else there would be no other
        if old.error is not None:  # it has broken by itself
            self._lost(old, old.error)
            log.warning("%s: %s; the new connection goes on", self._who(old), old.error)
        else:
            old.scope.cancel()
            await old.ended.wait()
            old.error = old.worn
            old.way.tally.losses[old.worn.loss] += 1
            log.info("%s: a new connection has replaced the old one", self._who(old))
        for feed in old.feeds:
            feed.replaced(old.error)

    def _withdraw(self, new: "_Session", old: "_Session", number: int) -> None:
        """Go on with the old connection: the new one, with so many heirs, has failed."""
        assert new.error is not None  # noqa: S101 - that is how it ended
        new.way.tally.losses[new.error.loss] += 1
        log.warning("%s: no new connection: %s", self._who(old), new.error)
        for heir in new.feeds[:number]:
            heir.replaced(new.error)
        old.feeds += new.feeds[number:]  # those that have joined meanwhile
        for feed in old.feeds:
            for pulse in feed.pulses.values():
                pulse.connected(trio.current_time())
        self._session = old

    def _lost(self, session: "_Session", error: ExchangeError) -> bool:
        """Tell the subscribers; return whether any are left."""
        session.way.tally.losses[error.loss] += 1
        for feed in session.feeds:
            feed.connection_lost(error)
        return any(not feed.stopped for feed in session.feeds)

    def _who(self, session: "_Session") -> str:
        feeds = session.feeds
        who = feeds[0].symbol if len(feeds) == 1 else f"{len(feeds)} symbols"
        return f"{who}, {self.name}" if self.name else who


async def _taken_over(new: "_Session", old: "_Session") -> None:
    """Wait until a session has all that another one has, or either has ended."""
    while True:
        if new.ended.is_set() or old.ended.is_set():
            return
        if all(one.stopped or one.has_taken_over() for one in new.feeds):
            return
        await trio.sleep(LOOK)


@attrs.define(eq=False)
class _Session:
    """One session, as long as anybody has to do with it."""

    way: Way
    feeds: list[Subscriber]
    began: float = attrs.field(factory=trio.current_time, init=False)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    error: ExchangeError | None = attrs.field(default=None, init=False)
    """What has ended it."""
    worn: ExchangeError | None = attrs.field(default=None, init=False)
    """Why it is to be replaced although it works."""
    changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when it is worn or has ended."""
    ended: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return trio.current_time() - self.began

    def wear(self, error: ExchangeError) -> None:
        """Note that it is to be replaced."""
        if self.worn is None:
            self.worn = error
        self.changed.set()
