"""Writes down what the exchange says of each recorded contract: at first, and when that changes.

Contract size and steps are what turns contracts into coins and money. They come from the REST
interface, which recording itself does without: whatever goes wrong here is told and tried again. No
journal keeps these rows, since the exchange can be asked again: what the table `contracts` lacks is
found by looking into it.
"""

import importlib
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import attrs
import trio

from mexc_trio.clickhouse.tables import CONTRACTS
from mexc_trio.errors import ForeignTable, StoreError
from mexc_trio.record.recording import Recording
from mexc_trio.record.wide import table_of
from mexc_trio.rows import RowTuple
from mexc_trio.spans import now

if TYPE_CHECKING:
    from mexc_trio.exchange.terms import Terms

log = logging.getLogger(__name__)

BEGIN: Final = 1.0
"""Seconds until it is asked first: recording begins before that."""
ALL_AGAIN: Final = 3600.0
"""Seconds until all contracts are asked for again; new ones every `refresh` seconds."""


async def keep_terms(recording: Recording) -> None:
    """Keep the table `contracts` up to date. Runs until cancelled, or until it is refused."""
    settings = recording.settings
    if "url" in settings.sources and "rest_url" not in settings.sources:
        return  # another exchange than the one whose REST interface is known
    await trio.sleep(BEGIN)
    # In a thread, because the HTTP client takes a while to load.
    await trio.to_thread.run_sync(importlib.import_module, "mexc_trio.exchange.terms")
    from mexc_trio.exchange.rest import RestError, new_backoff, open_client
    from mexc_trio.exchange.terms import ask_terms

    backoff, said, all_again = new_backoff(), "", 0.0
    async with open_client(settings.rest_url, settings.route[0]) as client:
        while True:
            try:
                known = await _stored(recording)
                wanted = [one.symbol for one in recording.collectors if not one.stopped]
                if trio.current_time() < all_again:
                    wanted = [symbol for symbol in wanted if symbol not in known]
                else:
                    all_again = trio.current_time() + ALL_AGAIN
                if wanted:
                    await _write(recording, await ask_terms(client, wanted), known)
                backoff, said = new_backoff(), ""
            except ForeignTable as error:
                log.warning("contract sizes are not written down: %s", error)
                return
            except (RestError, StoreError) as error:
                all_again = 0.0
                if str(error) != said:
                    said = str(error)
                    log.info("contract sizes are not known yet, and asked for again: %s", said)
                await trio.sleep(
                    error.pause(backoff) if isinstance(error, RestError) else backoff.next()
                )
            else:
                await trio.sleep(settings.refresh)


async def _stored(recording: Recording) -> dict[str, RowTuple]:
    """Return what the table says of each symbol by now, without the time; make it if missing."""
    await recording.store.available()
    await recording.store.prepare([CONTRACTS])
    await recording.store.until_conclusive(CONTRACTS)
    sound = await recording.store.make_sound(CONTRACTS)
    rows = await recording.store.rows_at(CONTRACTS, 0, sound.rows)
    return {str(row[0]): _without_time(row) for row in sorted(rows, key=lambda row: row[1])}


async def _write(
    recording: Recording, found: "Sequence[Terms]", known: dict[str, RowTuple]
) -> None:
    """Write down what is not known yet, and have the views know it, too."""
    at, tables = now(), {one.symbol: table_of(one.settings) for one in recording.collectors}
    rows: list[RowTuple] = []
    for terms in found:
        symbol, *others = attrs.astuple(terms)
        if symbol not in tables:
            continue  # it was taken back meanwhile
        row = (symbol, at, tables[symbol].name, *others)
        # As texts, because what is no number equals nothing.
        if str(known.get(symbol)) != str(_without_time(row)):
            rows.append(row)
    if not rows:
        return
    await recording.store.append(CONTRACTS, rows)
    for row in rows:
        if row[0] in known:
            log.info("%s: the exchange changed its contract; see table contracts", row[0])
    with suppress(StoreError):
        await recording.store.create_views([tables[str(row[0])] for row in rows])


def _without_time(row: RowTuple) -> RowTuple:
    symbol, _, *others = row
    return (symbol, *others)
