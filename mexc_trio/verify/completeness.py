"""Are the recorded deals all there were? The exchange's one-minute candles are asked.

A minute is compared if the symbol was recorded from `EARLY` before it to `LATE` after it, and the
exchange still has its candle: it keeps those for about a month. Volume, highest and lowest price
must be the same, exactly; of numbers with fifteen digits or more, which the exchange's doubles do
not hold, it is enough that thirteen agree. A minute that a gap of the ledger touches is told apart:
there something is known to be missing.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final

import attrs
import trio

from mexc_trio.analysis.row_counts import DealtMinute
from mexc_trio.exchange.contracts import MOST_CANDLES, Candle, candles_of
from mexc_trio.exchange.rate_limiter import RateLimiter
from mexc_trio.exchange.rest import Client, NoContract, RestError, new_backoff, open_client
from mexc_trio.spans import DAY, MINUTE, SECOND, Span, now, without

log = logging.getLogger(__name__)

KEPT: Final = 31 * DAY
"""Milliseconds; older minutes are not asked for."""
EARLY: Final = 5 * SECOND
"""Milliseconds; a subscription takes a moment after the first row of another channel."""
LATE: Final = 10 * SECOND
"""Milliseconds; the last deals of a minute come after it is over."""
ATTEMPTS: Final = 5
"""Requests in a row without a useful answer that end the comparison."""

_DOUBLE_DIGITS: Final = 15
_DOUBLE_ERROR: Final = Decimal("1e-13")


@attrs.frozen
class CheckedSymbol:
    """One symbol as it was recorded."""

    symbol: str
    table: str
    span: Span
    """From its first row to its last, in milliseconds since 1970."""
    deals: Callable[[Span], Mapping[int, DealtMinute]]
    """Adds up the deals of each minute in a time."""
    gaps: Sequence[Span]
    """Of its deals, in order, without overlaps."""


@attrs.frozen
class Different:
    """A minute whose recorded deals are not what the candle says."""

    start: int
    """Milliseconds since 1970."""
    in_gap: bool
    """Whether a gap of the ledger touches it."""
    recorded: DealtMinute | None
    """None if no deal was recorded."""
    candle: Candle | None
    """None if the exchange has none."""


@attrs.frozen
class Completeness:
    """What the comparison of one symbol showed."""

    table: str
    minutes: int = 0
    """How many were compared."""
    first: int | None = None
    """The first of them, in milliseconds since 1970."""
    last: int | None = None
    different: Sequence[Different] = ()
    """Oldest first."""
    failure: str = ""
    """Why it came to no end; empty if it did."""


async def compare(
    url: str, recorded: Sequence[CheckedSymbol], rate_limiter: RateLimiter | None = None
) -> list[Completeness]:
    """Compare symbol after symbol with the exchange, whose REST interface is at a URL.

    What goes wrong with the exchange is in the result. Raises StoreError if the store gives no
    answer.
    """
    done = []
    gone = ""
    async with open_client(url, rate_limiter=rate_limiter) as client:
        for one in recorded:
            log.info("comparing the deals of %s with the candles of %s", one.symbol, url)
            try:
                if gone:
                    raise RestError(gone)
                done.append(await _compare(client, one))
            except RestError as error:
                done.append(Completeness(one.table, failure=error.reason))
                if not isinstance(error, NoContract):
                    gone = error.reason  # the next symbol would fare no better
    return done


async def _compare(client: Client, recorded: CheckedSymbol) -> Completeness:
    start = max(recorded.span[0] + EARLY, now() - KEPT)
    first, last = -(-start // MINUTE), (recorded.span[1] - LATE) // MINUTE
    candles: dict[int, Candle] = {}
    for begin in range(first, last, MOST_CANDLES):
        end = min(begin + MOST_CANDLES, last) - 1
        for candle in await _candles(client, recorded.symbol, begin * 60, end * 60):
            candles[candle.time // 60] = candle
    wanted = [minute for minute in candles if first <= minute < last]
    if not wanted:
        return Completeness(recorded.table)
    first = min(wanted)  # what the exchange no longer has is no difference
    deals = recorded.deals((first * MINUTE, last * MINUTE))
    different = [
        Different(
            minute * MINUTE, _touched(minute, recorded.gaps), deals.get(minute), candles.get(minute)
        )
        for minute in range(first, last)
        if not _agree(deals.get(minute), candles.get(minute))
    ]
    ends = first * MINUTE, (last - 1) * MINUTE
    return Completeness(recorded.table, last - first, *ends, different)


async def _candles(client: Client, symbol: str, start: int, end: int) -> list[Candle]:
    backoff = new_backoff()
    for attempt in range(ATTEMPTS):
        try:
            return await candles_of(client, symbol, start, end)
        except NoContract:
            raise
        except RestError as error:
            if attempt == ATTEMPTS - 1:
                raise
            pause = error.pause(backoff)
            log.warning("no candles of %s: %s; asking again in %.0f s", symbol, error, pause)
            await trio.sleep(pause)
    raise AssertionError  # not reached


def _touched(minute: int, gaps: Sequence[Span]) -> bool:
    span = (minute * MINUTE, (minute + 1) * MINUTE)
    return without(span, gaps) != [span]


def _agree(deals: DealtMinute | None, candle: Candle | None) -> bool:
    if deals is None:
        return candle is None or not candle.volume
    if candle is None or deals.inexact:
        return False
    numbers = ((deals.volume, candle.volume), (deals.high, candle.high), (deals.low, candle.low))
    return all(_equal(ours, theirs) for ours, theirs in numbers)


def _equal(ours: Decimal, theirs: Decimal) -> bool:
    if ours == theirs:
        return True
    digits = max(len(number.normalize().as_tuple().digits) for number in (ours, theirs))
    return digits >= _DOUBLE_DIGITS and abs(ours - theirs) <= abs(theirs) * _DOUBLE_ERROR
