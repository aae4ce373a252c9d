"""One connection to the exchange, from its first subscription to its end.

Whatever ends it leaves as one `ExchangeError` whose reason says which: a missing acknowledgement or
pong, a silent channel, a close, or that there was no connection at all.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, NoReturn

import attrs
import trio

from mexc_trio.channels import ALL
from mexc_trio.errors import ExchangeError, Loss
from mexc_trio.exchange.counters import LineCounters
from mexc_trio.exchange.decoding import dead_letter, decode
from mexc_trio.exchange.feed import Feed
from mexc_trio.exchange.heard import Heard
from mexc_trio.exchange.messages import PING, Ack, Data, Pong, Refusal, Skipped, unsubscribe
from mexc_trio.exchange.rate_limiter import RateLimiter
from mexc_trio.exchange.subscribing import SUBSCRIBE_PAUSE, DealMode, Subscriptions
from mexc_trio.exchange.websocket import Socket, dial

log = logging.getLogger(__name__)

PONG_TIMEOUT: Final = 10.0
"""Seconds in which a ping is to be answered."""
WATCH_INTERVAL: Final = 5.0
"""Seconds between two checks of the clock and of the silence of the channels."""
_END: Final = 4096
"""Bytes at each end of a message in which the envelope is."""
CLOCK_JUMP: Final = 10.0
"""Seconds by which the wall clock may run ahead of Trio's before the machine must have slept."""

Dial = Callable[[str], AbstractAsyncContextManager[Socket]]


@attrs.frozen(eq=False)
class Endpoint:
    """The exchange's socket, and the route by which it is reached."""

    url: str
    dial: Dial = dial
    """Opens the connection."""
    counters: LineCounters = attrs.field(factory=LineCounters)
    """May be shared by all connections of one line and route."""


@attrs.frozen(eq=False)
class SessionOptions:
    """How a session is held. Sessions may share one, and then share its limiter."""

    ping_interval: float
    """Seconds between pings."""
    flush: Callable[[], None]
    """Called when the feeds have what one read has brought, before anything is waited for."""
    rate_limiter: RateLimiter = attrs.field(factory=lambda: RateLimiter(SUBSCRIBE_PAUSE))
    """Spaces out subscriptions, by symbols."""
    deals: DealMode = attrs.field(factory=DealMode)
    """How deals are asked for."""


async def run_session(
    endpoint: Endpoint,
    feeds: Sequence[Feed],
    options: SessionOptions,
    replace: Callable[[ExchangeError], None] | None = None,
) -> NoReturn:
    """Connect, subscribe to all channels of the feeds' symbols and hand on what comes.

    Args:
        endpoint: where to connect, and how.
        feeds: one for each symbol on this connection, at least one. Those that are added later are
            subscribed to within `WATCH_INTERVAL`.
        options: the caller has acquired their rate limiter for the first symbol.
        replace: told, once, that the connection works and is to be replaced all the same. If None,
            the connection ends then.

    Raises:
        ExchangeError: the connection could not be made or has ended.
    """
    async with endpoint.dial(endpoint.url) as socket, trio.open_nursery() as nursery:
        counters, heard = endpoint.counters, Heard()
        subscriptions = Subscriptions(
            socket, nursery, options.rate_limiter, options.deals, counters.symbols, heard
        )
        session = _Session(socket, nursery, subscriptions, heard, feeds, options, counters, replace)
        nursery.start_soon(subscriptions.begin_all)
        nursery.start_soon(session.heartbeat)
        nursery.start_soon(session.watch)
        try:
            await session.receive()
        finally:
            counters.symbols.subtract(subscriptions.confirmed)
    raise AssertionError("receive() never returns")  # pragma: no cover


@attrs.define(eq=False)
class _Session:
    _socket: Socket
    _nursery: trio.Nursery
    _subscriptions: Subscriptions
    _heard: Heard
    _feeds: Sequence[Feed]
    _options: SessionOptions
    _counters: LineCounters
    _replace: Callable[[ExchangeError], None] | None
    # How many of those are taken in.
    _known: int = attrs.field(default=0, init=False)
    # The feeds that are to be heard. One that was stopped while others share the connection stays
    # among those of the subscriptions: what is on the way belongs to it and to nobody else.
    _wanted: dict[str, Feed] = attrs.field(factory=dict, init=False)
    # The scope of the heartbeat. Its deadline is when the first unanswered ping has been so for
    # too long.
    _pong_due: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    # When the newest ping was sent, by this machine's clock and by Trio's; None once answered.
    _pinged: tuple[float, float] | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._take_in_new()

    def _take_in_new(self) -> Sequence[Feed]:
        """Return what was added to the feeds."""
        new = self._feeds[self._known :]
        self._known += len(new)
        for feed in new:
            self._wanted[feed.symbol] = feed
            self._subscriptions.take_in(feed)
        return new

    async def heartbeat(self) -> None:
        """Ping, and insist on answers."""
        due = trio.current_time()
        with self._pong_due as scope:
            while True:
                scope.deadline = min(scope.deadline, trio.current_time() + PONG_TIMEOUT)
                self._pinged = time.time(), trio.current_time()
                await self._socket.send_message(PING)
                due += self._options.ping_interval
                await trio.sleep_until(due)
        raise ExchangeError(f"no pong within {PONG_TIMEOUT:g} s", Loss.NO_PONG)

    async def watch(self) -> None:
        """Look after what nobody tells us: a machine that slept, channels that went silent."""
        while True:
            wall, steady = time.time(), trio.current_time()
            await trio.sleep(WATCH_INTERVAL)
            # A machine that slept has lost the connection, and would learn it minutes later.
            slept = (time.time() - wall) - (trio.current_time() - steady)
            if slept > CLOCK_JUMP:
                reason = f"the clock jumped by {slept:.0f} s, as after a suspend"
                raise ExchangeError(reason, Loss.CLOCK_JUMPED)
            await self._leave_the_stopped()
            for feed in [*self._wanted.values()]:
                await self._subscriptions.keep_up(feed)
            for feed in self._take_in_new():
                self._nursery.start_soon(self._subscriptions.join, feed)
            if silence := self._answer_silence():
                if self._replace is None:
                    raise silence
                self._replace(silence)
                self._replace = lambda error: None  # it has been said

    async def receive(self) -> NoReturn:
        """Decode every message for its symbol's feed, and flush what one read has brought."""
        feeds, flush = self._subscriptions.feeds, self._options.flush

        def take(messages: Sequence[bytes]) -> None:
            at, now = time.time_ns() // 1000, trio.current_time()
            received = at // 1000
            try:
                for text in messages:
                    message = decode(text, received)
                    if isinstance(message, Data):
                        message.received = at
                        feed = feeds.get(message.symbol)
                        if feed is None:
                            self._astray(text, message, received)
                        else:
                            _give(feed, message, now)
                    else:
                        self._answered(message)
                if isinstance(message, Data) and message.rows and not message.dead:
                    self._heard.note(message.rows[-1].ts, now)
            finally:
                flush()

        await self._socket.receive(take)

    def _astray(self, frame: bytes, message: Data, received: int) -> None:
        """Give somebody a push that names none of our symbols: nothing is thrown away."""
        feeds = self._wanted or self._subscriptions.feeds
        first = next(iter(feeds.values()))
        if message.symbol:  # of a contract that nobody asked for: nothing of ours is missing
            first.data(_dead(message, dead_letter(frame, message.symbol, received, ())))
            return
        # What names it stands at one of the ends; a long frame is not searched for each symbol.
        ends = frame if len(frame) < 2 * _END else frame[:_END] + frame[-_END:]
        named = [feed for symbol, feed in feeds.items() if f'"{symbol}"'.encode() in ends]
        possible = named or list(feeds.values())
        if len(possible) == 1:
            _give(possible[0], message, trio.current_time())
            return
        possible[0].data(_dead(message, dead_letter(frame, "", received, tuple(ALL))))
        for feed in possible[1:]:
            feed.unreadable()

    def _answered(self, message: Ack | Pong | Refusal | Skipped) -> None:
        match message:
            case Pong(at):
                self._pong_due.deadline = math.inf
                self._heard.note(at or 0, trio.current_time())
                if self._pinged is not None and at is not None:
                    sent, began = self._pinged
                    self._counters.clock_seen(at / 1000, sent, trio.current_time() - began)
                self._pinged = None
            case Ack(channel, at):
                self._heard.note(at, trio.current_time())
                self._subscriptions.acknowledged(channel, at)
            case Refusal(text):
                self._subscriptions.refused(text, message.unknown_contract)
            case Skipped():
                next(iter(self._subscriptions.feeds.values())).skipped()

    async def _leave_the_stopped(self) -> None:
        for symbol, feed in list(self._wanted.items()):
            if feed.stopped:
                del self._wanted[symbol]
                for channel in [*feed.liveness]:
                    await self._socket.send_message(unsubscribe(symbol, channel))

    def _answer_silence(self) -> ExchangeError | None:
        """Subscribe again to what has gone silent; return why to give up if that did not help."""
        now, why = trio.current_time(), None
        for symbol, feed in list(self._wanted.items()):
            for channel, liveness in feed.liveness.items():
                if liveness.give_up(now):
                    why = why or ExchangeError(
                        f"{channel} of {symbol} silent for {liveness.silence(now):.0f} s, "
                        f"and subscribing again did not help",
                        Loss.SILENT,
                    )
                if liveness.subscribe_again(now):
                    feed.silent(channel, liveness.silence(now))
                    self._nursery.start_soon(self._subscriptions.ask, feed, (channel,))
        return why


def _dead(message: Data, letter: Data) -> Data:
    """Return what stands for a message that came where it does not belong."""
    letter.received = message.received
    return letter


def _give(feed: Feed, message: Data, now: float) -> None:
    """Give a feed what is for it: rows, unless they are of a channel that it has not asked for."""
    liveness = feed.liveness.get(message.channel or "")
    if not message.rows or (liveness is None and message.channel is not None):
        feed.skipped()
        return
    if liveness is not None:
        liveness.note_frame(now)
    feed.data(message)
