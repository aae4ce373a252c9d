"""The three pushes as nearly all of them are, each read in one pass of the JSON parser.

What is unusual in the least (an exponent, a deal by itself, a time in quotes, something missing) is
left to `mexc_trio.exchange.decoding`, which says the same of the same message, in two passes and
with more care. In microseconds a message of a busy contract, in one run on a busy machine: deals
take 11.9 in two passes and 4.5 here, a book of 20 levels a side 14.9 and 13.0, a ticker 10.0 and
5.9.
"""

from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Raw

from mexc_trio.exchange.digits import MAX_TS_DIGITS, Malformed, funding_rate, side
from mexc_trio.exchange.messages import Data
from mexc_trio.rows import DEAL, DEPTH, TICKER, Row

MOST_DEALS: Final = 2000
"""Deals of one message. More, which no exchange sends, would hold all else for too long;
they are a dead letter and a gap."""

# What the parser checks takes none of our time. From 1, because it takes -0 for 0.
_Milliseconds = Annotated[int, msgspec.Meta(ge=1, lt=10**MAX_TS_DIGITS)]
_Version = Annotated[int, msgspec.Meta(ge=1, lt=10**18)]

_ABSENT: Final = Raw(b"")
_DIGITS: Final = b"0123456789."
_SIGNED: Final = b"-0123456789."
_BAR: Final = ord("|")
_DIRECTIONS: Final = {1: b"1", 2: b"2"}
# Where the exchange writes the end of the channel's name today: behind the data, before a time of
# thirteen digits. To look it up there takes a tenth of a microsecond, to search for it half a one.
_NAME: Final = slice(-28, -20)
# To search for it in the end only spares half a microsecond more of a book.
_TAIL: Final = 64

# 0.2 microseconds; `Row(...)`, which does the same by way of a function of its own, takes 0.7.
_row: Callable[[tuple[int, str, str]], Row] = partial(tuple.__new__, Row)


# `gc=False`: none of these can be part of a cycle, and the collector need not look at them.
class _Deal(msgspec.Struct, gc=False):
    p: Raw
    v: Raw
    T: Literal[1, 2]
    t: _Milliseconds
    i: str = ""


class _DealPush(msgspec.Struct, gc=False):
    channel: Literal["push.deal"]
    symbol: str
    data: list[_Deal]


class _Book(msgspec.Struct, gc=False):
    bids: Raw
    asks: Raw
    version: _Version


class _DepthPush(msgspec.Struct, gc=False):
    channel: Literal["push.depth.full"]
    symbol: str
    data: _Book
    ts: _Milliseconds


class _Ticker(msgspec.Struct, gc=False):
    lastPrice: Raw  # noqa: N815 - the exchange's names
    fairPrice: Raw = _ABSENT  # noqa: N815
    indexPrice: Raw = _ABSENT  # noqa: N815
    holdVol: Raw = _ABSENT  # noqa: N815
    fundingRate: Raw = _ABSENT  # noqa: N815


class _TickerPush(msgspec.Struct, gc=False):
    channel: Literal["push.ticker"]
    symbol: str
    data: _Ticker
    ts: _Milliseconds


_by_time = attrgetter("t")
_decode_deals = msgspec.json.Decoder(_DealPush).decode
_decode_depth = msgspec.json.Decoder(_DepthPush).decode
_decode_ticker = msgspec.json.Decoder(_TickerPush).decode


def read_usual(message: bytes) -> Data | None:
    """Return what a push means; None if this is none, or not one as it usually is."""
    # This only chooses what is tried: the parser's own way to tell kinds apart reads up to the name
    # first, and then all from the beginning.
    read = _READERS.get(message[_NAME]) or _reader(message)
    try:
        return read(message) if read else None
    except (Malformed, msgspec.DecodeError, RecursionError, UnicodeError):
        return None


def _reader(message: bytes) -> "_Read | None":
    tail = message[-_TAIL:]
    if b'"push.' not in tail:
        tail = message  # as in former years
    return next((_READERS[name[-8:]] for name in _NAMES if name in tail), None)


def _deals(message: bytes) -> Data:
    push = _decode_deals(message)
    deals = push.data
    if len(deals) > MOST_DEALS:
        raise Malformed
    if len(deals) > 1:
        # The newest comes first. Sorting is stable, so deals of one millisecond are turned round as
        # well, and an array in the other order would still come out right.
        deals.reverse()
        deals.sort(key=_by_time)
    rows, ids = [], []
    for deal in deals:
        text = b"|".join((deal.p, deal.v, _DIRECTIONS[deal.T]))
        # A JSON value of digits and points is a number, and `number` returns it as it is. To look
        # at both at once takes a third of the time.
        if text.translate(None, _DIGITS) != b"||":
            raise Malformed
        rows.append(_row((deal.t, DEAL, text.decode())))
        id_ = deal.i
        ids.append(int(id_) if id_.isdigit() and id_.isascii() and len(id_) <= 18 else 0)
    return Data(push.symbol, "deal", rows, 0, 0, (), ids)


def _depth(message: bytes) -> Data:
    push = _decode_depth(message)
    book = push.data
    row = _row((push.ts, DEPTH, f"{side(book.bids)}|{side(book.asks)}"))
    return Data(push.symbol, "depth", [row], 0, book.version)


def _ticker(message: bytes) -> Data:
    push = _decode_ticker(message)
    ticker = push.data
    prices = (ticker.lastPrice, ticker.fairPrice, ticker.indexPrice, ticker.holdVol)
    text = b"|".join(prices)
    if text.translate(None, _SIGNED) != b"|||" or text[0] == _BAR:
        raise Malformed  # no plain numbers, or no last price
    row = _row((push.ts, TICKER, f"{text.decode()}|{funding_rate(ticker.fundingRate)}"))
    return Data(push.symbol, "ticker", [row])


_Read: TypeAlias = Callable[[bytes], Data]
_NAMES: Final = (b'"push.deal"', b'"push.depth.full"', b'"push.ticker"')
_READERS: Final[Mapping[bytes, _Read]] = {
    name[-8:]: read for name, read in zip(_NAMES, (_deals, _depth, _ticker), strict=True)
}
