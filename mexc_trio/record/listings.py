"""Symbols that come and go while recording, as the exchange lists and delists them.

Each new one gets a collector, a table and a connection; each that is gone has its nursery ended,
with what was received written and its statistics shown. The others notice nothing of it.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from mexc_trio.errors import StoreError, UsageError
from mexc_trio.record.admission import log_left_out
from mexc_trio.record.collector import Collector
from mexc_trio.record.recording import Recording

if TYPE_CHECKING:
    from mexc_trio.record.discovery import Discovery, ListingChange

log = logging.getLogger(__name__)

DELISTED: Final = "the exchange lists it no longer"


async def follow_listings(
    recording: Recording, discovery: "Discovery", begin: Callable[[Sequence[Collector]], None]
) -> None:
    """Do what the list of contracts says, whenever it changes. Runs until cancelled.

    `discovery` has begun already; `begin` starts the nurseries of new collectors.
    """
    while True:
        change = await discovery.change()
        for collector in recording.collectors:
            if collector.symbol in change.gone:
                collector.let_go(DELISTED)
        new: list[Collector] = []
        left = list(change.new)
        try:
            while left:
                if taken := await _take_in(recording, discovery, change, left[0]):
                    new.append(taken)
                del left[0]
        finally:
            begin(new)
            for symbol in left:  # something went wrong: the next list has them anew
                discovery.forget(symbol)


async def _take_in(
    recording: Recording, discovery: "Discovery", change: "ListingChange", symbol: str
) -> Collector | None:
    """Make ready a symbol that is listed anew; None if its table is not to be had."""
    table = recording.settings.for_symbol(symbol).table
    if recording.has_leftover(table):
        log.info("%s: is listed, and waits for table %s's rows of an earlier run", symbol, table)
        discovery.forget(symbol)
        return None
    try:
        collector = await recording.add(symbol)
    except (UsageError, StoreError) as error:
        log_left_out(symbol, error)
        return None
    collector.ledger.listed(change.since, "it was not on the exchange's list before")
    log.info("%s: is listed now and recorded in table %s", symbol, table)
    return collector
