"""What the exchange says of its contracts: which it lists, and candles of their deals."""

import logging
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import attrs
import msgspec
import trio

from mexc_trio.errors import UsageError
from mexc_trio.exchange.rest import Client, RestError, decode, new_backoff
from mexc_trio.symbols import parse_symbol
from mexc_trio.texts import one_line

log = logging.getLogger(__name__)

ON: Final = 0
"""The state of a contract that is traded."""

MOST_CANDLES: Final = 2000
"""In one answer."""


@attrs.frozen
class Contract:
    """A contract that the exchange lists."""

    symbol: str
    state: int
    """`ON`, or another number while it cannot be traded."""
    size: Decimal | None
    """How much of the base one contract of volume is; None if the exchange does not say."""

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


class _Detail(msgspec.Struct):
    symbol: str
    state: int = ON
    # Read from the digits, not through a float.
    contractSize: Decimal | None = None  # noqa: N815 - the exchange's spelling


class _Columns(msgspec.Struct):
    time: list[int]
    vol: list[Decimal]
    high: list[Decimal]
    low: list[Decimal]
    realHigh: list[Decimal] = []  # noqa: N815 - the exchange's spelling
    realLow: list[Decimal] = []  # noqa: N815


async def contracts_of(client: Client) -> list[Contract]:
    """Ask once for all contracts.

    Raises:
        RestError: there was no useful answer.
    """
    data = await client.get("detail")
    try:
        details = decode(data, list[msgspec.Raw])
    except msgspec.DecodeError as error:
        raise RestError(f"{client.url}: the list of contracts is none: {error}") from error
    found: dict[str, Contract] = {}
    odd: list[str] = []
    for detail in details:
        try:
            read = decode(detail, _Detail)
            if parse_symbol(read.symbol) != read.symbol:
                raise UsageError("not in upper case")
        except (msgspec.DecodeError, UsageError):
            odd.append(bytes(detail)[:60].decode("utf-8", "replace"))
        else:
            found[read.symbol] = Contract(read.symbol, read.state, read.contractSize)
    if not client.told.issuperset(odd):
        log.warning(
            "%s lists %d contracts that are not understood, such as %s",
            client.url, len(odd), one_line(odd[0]),
        )  # fmt: skip
    client.told = set(odd)
    if not found:
        raise RestError(f"{client.url} lists no contract at all")
    return list(found.values())


async def candles_of(client: Client, symbol: str, start: int, end: int) -> list[Candle]:
    """Ask once for candles of one minute, oldest first.

    Args:
        client: whom to ask.
        symbol: the contract.
        start: seconds since 1970; the first minute begins then or later.
        end: the last minute begins then or earlier. An answer has at most `MOST_CANDLES`.

    Raises:
        NoContract: the exchange does not list the contract.
        RestError: there was no useful answer.
    """
    data = await client.get(f"kline/{symbol}", interval="Min1", start=start, end=end)
    try:
        columns = decode(data, _Columns)
        highs, lows = columns.realHigh or columns.high, columns.realLow or columns.low
        rows = list(zip(columns.time, columns.vol, highs, lows, strict=True))
    except (msgspec.DecodeError, ValueError) as error:
        raise RestError(f"{client.url}: the candles of {symbol} are none: {error}") from error
    return sorted((Candle(*row) for row in rows), key=lambda candle: candle.time)


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
