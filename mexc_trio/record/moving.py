"""A symbol that moves to the connections of another group, because its routes are others now.

It is heard on both until the new ones have all that the old ones have, and leaves those then: a
route that does not work costs nothing.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

import trio
from trio_util import wait_any

from mexc_trio.errors import ExchangeError, Loss
from mexc_trio.exchange.connection import POLL, TAKE_OVER
from mexc_trio.record.lines import Lines, OneLine

log = logging.getLogger(__name__)

_MOVED: Final = "it has other routes than its neighbours"


def replacements_of(lines: Lines) -> list[OneLine]:
    """Return a feed for each line, for connections that a symbol moves to."""
    moved = trio.Event()
    present = {feed.name: feed for feed in reversed(lines.feeds)}
    return [present[str(line + 1)].replacement(moved) for line in range(lines.number)]


async def until_gone(lines: Lines, moved: trio.Event) -> None:
    """Wait until a symbol has ended, or moved from these connections to others.

    If it has moved to these, it leaves the others meanwhile.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_take_over, lines, moved)
        await wait_any(lines.collector.ended.wait, moved.wait)
        nursery.cancel_scope.cancel()


async def _take_over(lines: Lines, moved: trio.Event) -> None:
    """Let a symbol leave the connections that it has beside these, line by line."""
    left = {feed.moved for feed in lines.feeds} - {moved}
    if not left:
        return

    def here(name: str) -> list[OneLine]:
        return [feed for feed in lines.feeds if feed.name == name and feed.moved is moved]

    def is_heard(name: str) -> bool:
        return any(feed.is_subscribed for feed in here(name))

    def has_all(name: str) -> bool:
        return any(feed.has_taken_over() for feed in here(name))

    for name in [feed.name for feed in lines.feeds if feed.moved is moved]:
        await _until(partial(is_heard, name))  # however long that takes: it is heard on the others
        with trio.move_on_after(TAKE_OVER):
            await _until(partial(has_all, name))
        for feed in list(lines.feeds):
            if feed.name == name and feed.moved in left:
                feed.has_moved(ExchangeError(_MOVED, Loss.RENEWED))
    log.info("%s: new connections have replaced the old ones: %s", lines.collector.symbol, _MOVED)
    for event in left:
        event.set()


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what it looks at is no event
        await trio.sleep(POLL)
