"""Subscriptions on one connection: what is asked for, how it is answered, and what is asked again.

Acknowledgements name no symbol, and refusals not always. So one symbol's subscriptions are answered
before the next symbol's are sent, and it is certain whose answer it is.
"""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

import attrs
import trio

from mexc_trio.errors import ExchangeError, Loss, UnknownContract
from mexc_trio.exchange.feed import Feed
from mexc_trio.exchange.heard import Heard
from mexc_trio.exchange.messages import method, subscribe, unsubscribe
from mexc_trio.exchange.rate_limiter import RateLimiter
from mexc_trio.exchange.websocket import Socket
from mexc_trio.rows import Channel
from mexc_trio.texts import one_line

log = logging.getLogger(__name__)

ACK_TIMEOUT: Final = 10.0
"""Seconds in which a subscription is to be acknowledged."""
SUBSCRIBE_PAUSE: Final = 0.15
"""Seconds between the subscriptions of two symbols: 20 requests a second were fine (measured)."""


@attrs.define(eq=False)
class DealMode:
    """How deals are subscribed to; one object for all connections."""

    merged: bool = False
    """Whether they are asked for merged, as the exchange sends them unless told otherwise."""

    def only_merged(self, why: str) -> None:
        """Note that the exchange has refused the unmerged ones, and not the merged."""
        if not self.merged:
            log.warning("the exchange refuses unmerged deals (%s); merged ones are recorded", why)
        self.merged = True


@attrs.define(eq=False)
class _Request:
    """Subscriptions of one symbol that wait for their answers."""

    symbol: str
    channels: list[Channel]
    """Those that are not acknowledged."""
    merged: bool
    refused: bool = False
    objection: str = "no answer"
    """What the exchange says to the rest, which is not that it knows no such contract."""
    complete: trio.Event = attrs.field(factory=trio.Event, init=False)
    _left: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._left = len(self.channels)
        if not self._left:
            self.complete.set()

    @property
    def asks_unmerged(self) -> bool:
        """Whether what is asked for is more than every exchange may give."""
        return "deal" in self.channels and not self.merged

    def answered(self) -> None:
        """Count an answer."""
        self._left -= 1
        if not self._left:
            self.complete.set()


@attrs.define(eq=False)
class Subscriptions:
    """The symbols of one connection, and what is asked for them."""

    _socket: Socket
    _nursery: trio.Nursery
    _rate_limiter: RateLimiter
    _deals: DealMode
    _connections: Counter[str]
    """By symbol, how many connections are subscribed to it."""
    _heard: Heard
    """Until when the connection is heard."""
    feeds: dict[str, Feed] = attrs.field(factory=dict, init=False)
    """Those of all symbols that were ever taken in."""
    confirmed: set[str] = attrs.field(factory=set, init=False)
    """Symbols that are subscribed to, and counted as such."""
    # By symbol, what it is subscribed to or about to be.
    _asked: dict[str, set[Channel]] = attrs.field(factory=dict, init=False)
    _asking: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _request: _Request | None = attrs.field(default=None, init=False)
    # Symbols that were refused and are asked for again later.
    _later: set[str] = attrs.field(factory=set, init=False)

    def take_in(self, feed: Feed) -> None:
        """Have a symbol's feed, before anything is asked for it."""
        self.feeds[feed.symbol] = feed
        self._asked.pop(feed.symbol, None)
        _expect(feed, math.inf)  # what has not been asked for is not silent

    async def begin_all(self) -> None:
        """Subscribe to everything."""
        for number, feed in enumerate(list(self.feeds.values())):
            if number:
                await self._rate_limiter.acquire()
            await self._begin(feed)
        if len(self.feeds) > 1:
            wanted = (symbol for symbol, feed in self.feeds.items() if not feed.stopped)
            heard = sum(symbol not in self._later for symbol in wanted)
            log.info("Subscribed to: %d of %d symbols on one connection", heard, len(self.feeds))

    async def join(self, feed: Feed) -> None:
        """Subscribe to a symbol that was taken in later."""
        await self._rate_limiter.acquire()
        await self._begin(feed)

    async def _begin(self, feed: Feed) -> None:
        """Subscribe to all channels of a symbol that is still wanted."""
        if feed.stopped:
            return
        _expect(feed, trio.current_time())
        self._asked[feed.symbol] = {*feed.liveness}
        await self.ask(feed, tuple(feed.liveness))

    async def keep_up(self, feed: Feed) -> None:
        """Subscribe to channels that a symbol has got since, and leave those that are gone."""
        asked = self._asked.get(feed.symbol)
        if asked is None:
            return  # its turn is to come
        for channel in asked - feed.liveness.keys():
            asked.discard(channel)
            await self._socket.send_message(unsubscribe(feed.symbol, channel))
        if new := [channel for channel in feed.liveness if channel not in asked]:
            asked.update(new)
            for channel in new:
                feed.liveness[channel].connected(trio.current_time())
            self._nursery.start_soon(self.ask, feed, new)

    async def ask(self, feed: Feed, channels: Sequence[Channel]) -> None:
        """Subscribe to channels of one symbol and see to it that each is answered."""
        async with self._asking:
            wanted = [channel for channel in channels if channel in feed.liveness]
            request = _Request(feed.symbol, wanted, self._deals.merged)
            with trio.move_on_after(ACK_TIMEOUT):
                # Deals alone that are not answered, or refused, are asked for in the plain way.
                patience = ACK_TIMEOUT / 2 if request.asks_unmerged else math.inf
                await self._send(request, patience)
                if request.asks_unmerged and request.channels == ["deal"] and not request.refused:
                    objection = request.objection
                    request = _Request(feed.symbol, ["deal"], merged=True)
                    await self._send(request)
                    if not (request.channels or request.refused):
                        self._deals.only_merged(objection)
                else:
                    await request.complete.wait()
            self._request = None
        if request.refused:
            self._ask_later(feed)
        elif request.channels:
            raise ExchangeError(
                f"no acknowledgement of {method(request.channels[0])} for {feed.symbol} "
                f"within {ACK_TIMEOUT:g} s",
                Loss.NO_ACKNOWLEDGEMENT,
            )

    async def _send(self, request: _Request, patience: float = math.inf) -> None:
        """Send the subscriptions, and wait for their answers."""
        self._request = request
        for channel in list(request.channels):  # answers take them away
            frame = subscribe(request.symbol, channel, merged=request.merged)
            await self._socket.send_message(frame)
        with trio.move_on_after(patience):
            await request.complete.wait()

    def acknowledged(self, channel: Channel, at: int) -> None:
        """Take an acknowledgement, of that time by the exchange's clock."""
        request = self._request
        if request is not None and channel in request.channels:
            request.channels.remove(channel)
            request.answered()
            if request.symbol not in self.confirmed:
                self.confirmed.add(request.symbol)
                self._connections[request.symbol] += 1
            if channel in (feed := self.feeds[request.symbol]).liveness:  # it is still wanted
                feed.subscribed(channel, at, self._heard)
            level = logging.DEBUG if len(self.feeds) > 1 else logging.INFO
            log.log(level, "Subscribed to: %s for %s", method(channel), request.symbol)

    def refused(self, text: str, unknown: str | None) -> None:
        """Find out whose subscription was refused; what is no such refusal ends the session."""
        request = self._request
        # The documentation's wording names none: it answers what was asked last.
        if request is not None and unknown in ("", request.symbol):
            request.refused = True
            request.answered()
        elif request is not None and request.asks_unmerged and unknown is None:
            request.objection = one_line(text)
            request.answered()
        elif unknown and unknown in self.feeds:
            self._ask_later(self.feeds[unknown])
        else:
            raise ExchangeError(f"the exchange says: {one_line(text)}", Loss.REFUSED)

    def _ask_later(self, feed: Feed) -> None:
        if feed.symbol in self._later:
            return
        self._later.add(feed.symbol)
        self._asked.pop(feed.symbol, None)
        _expect(feed, math.inf)
        pause = feed.refused(UnknownContract(feed.symbol))
        self._nursery.start_soon(self._ask_again, feed, pause)

    async def _ask_again(self, feed: Feed, pause: float) -> None:
        await trio.sleep(pause)
        await self._rate_limiter.acquire()
        self._later.discard(feed.symbol)
        await self._begin(self.feeds[feed.symbol])  # another one, if it has come back meanwhile


def _expect(feed: Feed, since: float) -> None:
    """Let a symbol's channels be awaited from then on; never, if that is infinite."""
    for liveness in feed.liveness.values():
        liveness.connected(since)
