"""Keeps a connection to the exchange: one session after the other, without limit."""

import logging
import math
from collections.abc import Sequence
from typing import Final

import attrs
import trio

from mexc_trio.backoff import Backoff
from mexc_trio.errors import ExchangeError, Loss
from mexc_trio.exchange.feed import Feed
from mexc_trio.exchange.session import Endpoint, SessionOptions, run_session
from mexc_trio.exchange.subscribing import SUBSCRIBE_PAUSE

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
POLL: Final = 0.1
"""Seconds between two checks whether it has."""
GO_BACK: Final = 3600.0
"""Seconds on another endpoint than the first until that one is tried again."""


@attrs.define(eq=False)
class Connection:
    """The connection that one or several symbols share."""

    endpoints: Sequence[Endpoint]
    """At least one. The next is taken when there is no connection to one, or no healthy one."""
    feeds: Sequence[Feed]
    options: SessionOptions
    name: str = ""
    """What tells it from others of the same symbols, for the log."""
    renewing: trio.Lock = attrs.field(factory=trio.Lock)
    """Held while a connection is replaced: lines that share it are replaced one at a time."""
    go_back: float = GO_BACK
    # The session that there is, and what it is called by.
    _session: "_RunningSession | None" = attrs.field(default=None, init=False)
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    # Those that have joined while a replacement is due and has no session yet; None at other times.
    _waiting: list[Feed] | None = attrs.field(default=None, init=False)

    def join(self, feed: Feed) -> None:
        """Record one more from now on. The session that there is subscribes to it in seconds."""
        self.feeds = [*(one for one in self.feeds if not one.stopped), feed]
        if self._waiting is not None:
            self._waiting.append(feed)
        elif self._session is not None:
            self._session.feeds.append(feed)

    def renew(self, endpoints: Sequence[Endpoint], why: str) -> None:
        """Take other endpoints: a new connection is made, and then the old one is broken."""
        self.endpoints = endpoints
        if self._session is not None:
            self._session.ask_to_replace(ExchangeError(why, Loss.RENEWED))

    async def run(self) -> None:
        """Record until no feed is left; sessions end and begin meanwhile."""
        backoff = Backoff(SHORTEST_BACKOFF, LONGEST_BACKOFF, jitter=1.0)
        number = 0
        async with trio.open_nursery() as self._nursery:
            while feeds := [one for one in self.feeds if not one.stopped]:
                # A thousand connections are not dialled at once.
                await self.options.rate_limiter.acquire()
                session = self._begin(self.endpoints[number % len(self.endpoints)], feeds)
                await self._wait_for_change(session)
                while session.error is None:
                    if session.why_replace is None:
                        session = await self._try_to_go_back(session)
                    else:
                        session = await self._replace(session, session.why_replace, backoff)
                    await self._wait_for_change(session)
                is_healthy = trio.current_time() - session.began >= HEALTHY
                if is_healthy:
                    backoff.reset()
                pause = backoff.next()
                self._tell_lost(session, session.error)
                left = any(not feed.stopped for feed in session.feeds)
                what_next = f"reconnecting in {pause:.1f} s" if left else "not reconnecting"
                log.warning("%s: %s; %s", self._name_of(session), session.error, what_next)
                if not is_healthy:
                    number += 1
                await trio.sleep(pause)

    def _begin(self, endpoint: Endpoint, feeds: list[Feed]) -> "_RunningSession":
        """Start a session; one that it is to replace goes on meanwhile."""
        assert self._nursery is not None  # noqa: S101 - open while this runs
        session = self._session = _RunningSession(endpoint, feeds)
        self._waiting = None
        self._nursery.start_soon(self._run_session, session)
        return session

    async def _run_session(self, session: "_RunningSession") -> None:
        with session.scope:
            try:
                await run_session(
                    session.endpoint, session.feeds, self.options, session.ask_to_replace
                )
            except ExchangeError as error:
                session.error = error
        session.ended.set()
        session.changed.set()

    async def _wait_for_change(self, session: "_RunningSession") -> None:
        """Wait until a session has ended, is to be replaced, or was long on another endpoint."""
        is_first = session.endpoint is self.endpoints[0]
        with trio.move_on_after(math.inf if is_first else self.go_back):
            await session.changed.wait()

    async def _try_to_go_back(self, old: "_RunningSession") -> "_RunningSession":
        """Try once to go back to the first endpoint; return the session that there is then.

        Each line has a first one of its own: while they all are on one, its loss is everybody's.
        """
        why = ExchangeError("the first route is tried again", Loss.RENEWED)
        async with self.renewing:
            if old.error is None and (replacements := _replacements(old, why)):
                return await self._begin_beside(old, replacements, self.endpoints[0], why) or old
        return old

    async def _replace(
        self, old: "_RunningSession", why: ExchangeError, backoff: Backoff
    ) -> "_RunningSession":
        """Make a new connection, trying while the old one lives; return the one that goes on."""
        place = 0
        async with self.renewing:
            while old.error is None:
                replacements = _replacements(old, why)
                if not replacements:
                    await old.cancel(why)
                    return old
                endpoint = self.endpoints[place % len(self.endpoints)]
                if new := await self._begin_beside(old, replacements, endpoint, why):
                    return new
                place += 1
                with trio.move_on_after(backoff.next()):
                    await old.ended.wait()
        return old

    async def _begin_beside(
        self,
        old: "_RunningSession",
        replacements: list[Feed],
        endpoint: Endpoint,
        why: ExchangeError,
    ) -> "_RunningSession | None":
        """Make a new connection beside an old one and break that; None if it fails."""
        number, self._waiting = len(replacements), []
        with trio.move_on_after(WARM_UP):
            await old.ended.wait()
        await self.options.rate_limiter.acquire()
        log.info("%s: %s; making a new connection first", self._name_of(old), why)
        new = self._begin(endpoint, [*replacements, *self._waiting])
        with trio.move_on_after(TAKE_OVER + 2 * SUBSCRIBE_PAUSE * len(replacements)):
            await _wait_for_take_over(new, old)
        if new.error is not None:
            self._go_on_with(old, new, number)
            return None
        await self._leave(old, why)
        self.feeds = new.feeds
        return new

    async def _leave(self, old: "_RunningSession", why: ExchangeError) -> None:
        """Break a connection that another one has replaced."""
        if old.error is not None:  # it has broken by itself
            self._tell_lost(old, old.error)
            log.warning("%s: %s; the new connection goes on", self._name_of(old), old.error)
        else:
            await old.cancel(why)
            old.endpoint.counters.losses[why.loss] += 1
            log.info("%s: a new connection has replaced the old one", self._name_of(old))
        for feed in old.feeds:
            feed.retire(old.error or why)

    def _go_on_with(self, old: "_RunningSession", new: "_RunningSession", number: int) -> None:
        """Go on with the old connection: the new one, with so many replacements, has failed."""
        assert new.error is not None  # noqa: S101 - that is how it ended
        new.endpoint.counters.losses[new.error.loss] += 1
        log.warning("%s: no new connection: %s", self._name_of(old), new.error)
        for replacement in new.feeds[:number]:
            replacement.retire(new.error)
        old.feeds += new.feeds[number:]  # those that have joined meanwhile
        for feed in old.feeds:
            for liveness in feed.liveness.values():
                liveness.connected(trio.current_time())
        if new.why_replace is not None and new.why_replace.loss is Loss.RENEWED:
            old.ask_to_replace(new.why_replace)  # its endpoints were changed meanwhile
        self._session = old

    def _tell_lost(self, session: "_RunningSession", error: ExchangeError) -> None:
        session.endpoint.counters.losses[error.loss] += 1
        for feed in session.feeds:
            feed.connection_lost(error)

    def _name_of(self, session: "_RunningSession") -> str:
        feeds = session.feeds
        symbols = feeds[0].symbol if len(feeds) == 1 else f"{len(feeds)} symbols"
        return f"{symbols}, {self.name}" if self.name else symbols


def _replacements(old: "_RunningSession", why: ExchangeError) -> list[Feed]:
    """Return the feeds of a connection that is to replace another; none if one feed has none."""
    living = [one for one in old.feeds if not one.stopped]
    replacements = [replacement for one in living if (replacement := one.replacement()) is not None]
    if len(replacements) == len(living):
        return replacements
    for replacement in replacements:
        replacement.retire(why)
    return []


async def _wait_for_take_over(new: "_RunningSession", old: "_RunningSession") -> None:
    """Wait until a session has all that another one has, or either has ended."""
    while not (new.ended.is_set() or old.ended.is_set()):
        if all(one.stopped or one.has_taken_over() for one in new.feeds):
            return
        await trio.sleep(POLL)


@attrs.define(eq=False)
class _RunningSession:
    """One session, as long as anybody has to do with it."""

    endpoint: Endpoint
    feeds: list[Feed]
    began: float = attrs.field(factory=trio.current_time, init=False)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    error: ExchangeError | None = attrs.field(default=None, init=False)
    """What has ended it."""
    why_replace: ExchangeError | None = attrs.field(default=None, init=False)
    """Why it is to be replaced although it works."""
    changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when it is to be replaced or has ended."""
    ended: trio.Event = attrs.field(factory=trio.Event, init=False)

    def ask_to_replace(self, why: ExchangeError) -> None:
        """Note that it is to be replaced."""
        self.why_replace = self.why_replace or why
        self.changed.set()

    async def cancel(self, why: ExchangeError) -> None:
        """End it, and wait for that."""
        self.scope.cancel()
        await self.ended.wait()
        self.error = self.error or why
