"""What runs beside the symbols: statistics, and a word about outages."""

import logging
import sys
import time
from contextlib import aclosing
from typing import Final

from trio_util import periodic

from mexc_trio.record.recording import Recording
from mexc_trio.record.stats import elapsed, statistics

log = logging.getLogger(__name__)

OUTAGE_INTERVAL: Final = 60.0
"""Seconds between two lines about a store that stays away."""


def show(text: str) -> None:
    """Print statistics at once, also into a file or a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def print_statistics(recording: Recording) -> None:
    """Print a block for each interval, if any, of the symbols that are still recorded."""
    if not recording.settings.stats_interval:
        return
    before = {collector.symbol: collector.counts.copy() for collector in recording.collectors}
    since = time.monotonic()
    async with aclosing(periodic(recording.settings.stats_interval)) as ticks:
        async for since_start, _ in ticks:
            running = [collector for collector in recording.collectors if not collector.stopped]
            if not since_start or not running:
                continue
            now = time.monotonic()
            stats = [recording.stats_of(one, before.get(one.symbol)) for one in running]
            show(statistics(stats, now - since))
            before = {one.symbol: one.counts.copy() for one in recording.collectors}
            since = now


async def report_outages(recording: Recording) -> None:
    """Say once a minute that the store is away, and once that it has been caught up with."""
    store = recording.store
    away_since, said = 0.0, 0.0
    async with aclosing(periodic(1)) as ticks:
        async for _ in ticks:
            now = time.time()
            if store.away_since is not None:
                if not away_since:
                    away_since = said = store.away_since
                if now - said >= OUTAGE_INTERVAL:
                    said = now
                    log.warning(
                        "%s has been away for %s; %d rows wait in the journal",
                        store.name, elapsed(now - away_since), recording.backlog,
                    )  # fmt: skip
            elif away_since and _caught_up(recording, now):
                log.info("%s is back; caught up after %s", store.name, elapsed(now - away_since))
                away_since = 0.0


def _caught_up(recording: Recording, now: float) -> bool:
    least = (now - recording.settings.linger - 2) * 1000
    oldest = [queue.oldest_waiting() for queue in recording.journal.queues()]
    return all(at is None or at > least for at in oldest)
