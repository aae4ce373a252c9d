"""What the exchange says of its contracts: which it lists, and candles of their deals."""

import logging
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import attrs
import msgspec
import trio

from mexc_trio.exchange.rest import Client, RestError, decode, in_thread_if_long, new_backoff
from mexc_trio.symbols import is_symbol
from mexc_trio.texts import one_line

log = logging.getLogger(__name__)

ON: Final = 0
"""The state of a contract that is traded."""

MOST_CONTRACTS: Final = 20_000
"""That are listed; MEXC lists 1,200."""
MOST_DIGITS: Final = 100
"""Of a candle's number, before or after the point."""
MOST_CANDLES: Final = 2000
"""In one answer."""


class Contract(msgspec.Struct, frozen=True):
    """A contract that the exchange lists."""

    symbol: str
    state: int = ON
    """`ON`, or another number while it cannot be traded."""

    @property
    def quote(self) -> str:
        """What its price is in: USDT for most, USD for those that are settled in their base."""
        return self.symbol.rpartition("_")[2]


@attrs.frozen
class Candle:
    """What the exchange says of the deals of one minute, digit for digit."""

    time: int
    """Seconds since 1970, when the minute began."""
    volume: Decimal
    """In contracts."""
    high: Decimal
    """Of the deals alone. A candle's own high and low count the close of the minute before too."""
    low: Decimal


class _Columns(msgspec.Struct):
    time: list[int]
    vol: list[Decimal]
    high: list[Decimal]
    low: list[Decimal]
    realHigh: list[Decimal] = []  # noqa: N815 - the exchange's spelling
    realLow: list[Decimal] = []  # noqa: N815


async def contracts_of(client: Client) -> list[Contract]:
    """Ask once for all contracts; RestError where there is no useful answer."""
    data = await client.get("detail")
    found, odd = await in_thread_if_long(len(bytes(data)), _contracts, client.url, data)
    if not client.not_understood.issuperset(odd):
        log.warning(
            "%s lists %d contracts that are not understood, such as %s",
            client.url, len(odd), one_line(odd[0]),
        )  # fmt: skip
    client.not_understood = set(odd)
    if not found:
        raise RestError(f"{client.url} lists no contract at all")
    return list(found.values())


def entries(url: str, data: msgspec.Raw) -> list[msgspec.Raw]:
    """Return the entries of a list of contracts, as they came.

    Raises RestError if it is no list, or longer than an exchange's can be.
    """
    try:
        found = decode(data, list[msgspec.Raw])
    except msgspec.DecodeError as error:
        raise RestError(f"{url}: the list of contracts is none: {error}") from error
    if len(found) > MOST_CONTRACTS:
        raise RestError(f"{url} lists {len(found):,} contracts; that cannot be")
    return found


def _contracts(url: str, data: msgspec.Raw) -> tuple[dict[str, Contract], list[str]]:
    """Return the contracts of a list by their symbols, and how those begin that are odd."""
    found: dict[str, Contract] = {}
    odd: list[str] = []
    for detail in entries(url, data):
        try:
            contract = decode(detail, Contract)
            if not is_symbol(contract.symbol):
                raise msgspec.DecodeError("no symbol")
        except msgspec.DecodeError:
            odd.append(bytes(detail)[:60].decode("utf-8", "replace"))
        else:
            found[contract.symbol] = contract
    return found, odd


async def candles_of(client: Client, symbol: str, start: int, end: int) -> list[Candle]:
    """Ask once for candles of one minute, `MOST_CANDLES` at the most, oldest first.

    Their minutes begin at `start` or later and at `end` or earlier, in seconds since 1970. Raises
    NoContract if the exchange does not list the contract, RestError where there is no useful
    answer.
    """
    data = await client.get(f"kline/{symbol}", interval="Min1", start=start, end=end)
    try:
        columns = decode(data, _Columns)
        highs, lows = columns.realHigh or columns.high, columns.realLow or columns.low
        rows = list(zip(columns.time, columns.vol, highs, lows, strict=True))
        if not all(map(_is_believable, (*columns.vol, *highs, *lows))):
            raise ValueError("a number of them cannot be")
    except (msgspec.DecodeError, ValueError) as error:
        raise RestError(f"{client.url}: the candles of {symbol} are none: {error}") from error
    return sorted((Candle(*row) for row in rows), key=lambda candle: candle.time)


def _is_believable(number: Decimal) -> bool:
    """Whether it can be compared and shown: 1E+999999999 would be a text of a gigabyte."""
    return number.is_finite() and abs(number.adjusted()) <= MOST_DIGITS


async def list_contracts(client: Client) -> Sequence[Contract]:
    """Ask for all contracts until there is an answer, with a line in the log for each failure."""
    backoff = new_backoff()
    while True:
        try:
            return await contracts_of(client)
        except RestError as error:
            pause = error.pause(backoff)
            log.warning("no list of contracts: %s; asking again in %.0f s", error, pause)
            await trio.sleep(pause)
