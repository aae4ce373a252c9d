"""Keeps a connection to the exchange: one session after the other, without limit."""

import logging
import random
from collections.abc import Sequence
from typing import Final, Protocol

import attrs
import trio

from mexc_trio.errors import ExchangeError
from mexc_trio.session import Dial, Feed, converse, dial

log = logging.getLogger(__name__)

FIRST_BACKOFF: Final = 1.0
"""Seconds before the first reconnect; doubles up to `LAST_BACKOFF`."""
LAST_BACKOFF: Final = 60.0
HEALTHY: Final = 60.0
"""Seconds after which a connection has proved healthy, so the next backoff is the first again."""


def backoff(attempt: int, jitter: float) -> float:
    """Return the seconds to wait before a reconnect.

    Args:
        attempt: 0 after a healthy connection, one more for each that was not.
        jitter: 0 to 1. Many recorders that were cut off together come back apart.
    """
    longest = min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(attempt, 10))
    return max(FIRST_BACKOFF, longest * (0.5 + jitter / 2))


class Subscriber(Feed, Protocol):
    """A feed that also hears of the connection's errors."""

    @property
    def stopped(self) -> bool:
        """Whether it wants no more messages."""

    def connection_lost(self, error: ExchangeError) -> None:
        """Count an error; the connection is made anew unless this was one too many."""


@attrs.define(eq=False)
class Connection:
    """The connection that one or several symbols share."""

    url: str
    subscribers: Sequence[Subscriber]
    ping_interval: float
    dial: Dial = dial

    async def run(self) -> None:
        """Record until no subscriber is left; sessions end and begin meanwhile."""
        attempt = 0
        while feeds := [s for s in self.subscribers if not s.stopped]:
            began = trio.current_time()
            try:
                await converse(self.url, feeds, self.ping_interval, self.dial)
            except ExchangeError as error:
                if trio.current_time() - began >= HEALTHY:
                    attempt = 0
                pause = backoff(attempt, random.random())  # noqa: S311 - no secret
                attempt += 1
                who = feeds[0].symbol if len(feeds) == 1 else f"{len(feeds)} symbols"
                log.warning("%s: %s; reconnecting in %.1f s", who, error, pause)
                for feed in feeds:
                    feed.connection_lost(error)
            await trio.sleep(pause)
