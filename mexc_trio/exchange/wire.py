"""The exchange's socket protocol without I/O: what to send, and what a received frame means.

`decode` is the hot path: it runs once for every frame. It never raises, whatever it is
given, and no number passes through a float: the JSON parser hands out the raw text of the
values (`msgspec.Raw`) and the row is cut from that text.
"""

import json
import re
import zlib
from collections.abc import Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Raw

from mexc_trio.exchange.digits import (
    DEPTH_LIMIT,
    MAX_TS_DIGITS,
    Malformed,
    deal_id,
    funding_rate,
    is_plain,
    number,
    side,
    timestamp,
    version,
)
from mexc_trio.rows import CHANNELS, DEAD_LETTER, DEAL, DEPTH, TICKER, Channel, Row

DEAD_LETTER_LENGTH: Final = 500
"""Characters of a message that a dead letter keeps."""

PING: Final = '{"method":"ping"}'
"""The application's ping. The exchange closes a socket that sends none for 60-68 seconds,
even one on which data flows (measured), so a WebSocket ping is no substitute."""

_METHODS: Final[dict[Channel, str]] = {
    "ticker": "sub.ticker",
    "deal": "sub.deal",
    "depth": "sub.depth.full",
}
_CHANNELS: Final = {method: channel for channel, method in _METHODS.items()}

# A message of 2 MiB is legal; a gzip bomb is not a message.
_MAX_UNZIPPED: Final = 64 * 1024 * 1024


class Data(NamedTuple):
    """A push: the rows of one frame, in the order in which they are stored."""

    symbol: str
    """The contract the frame names; empty where it cannot be read."""
    channel: Channel | None
    """The channel; None where the frame is of no channel that is recorded."""
    rows: list[Row]
    dead: int
    """How many of `rows` are dead letters."""
    version: int
    """Depth: the book's version. 0 for other channels and where it cannot be read."""
    missed: tuple[Channel, ...] = ()
    """The channels that the dead letters may have belonged to; all of them if nobody can tell."""
    ids: Sequence[int] = ()
    """Deals: the exchange's number of each row's, 0 where there is none; empty if none has one."""


class Ack(NamedTuple):
    """A subscription is confirmed. The exchange does not say for which symbol."""

    channel: Channel


class Pong(NamedTuple):
    """The answer to a ping; now and then two come."""

    at: int | None
    """Milliseconds since 1970, on the exchange's clock; None where it does not say."""


class Refusal(NamedTuple):
    """`rs.error`: the exchange says no, in words."""

    text: str
    """At most `DEAD_LETTER_LENGTH` characters."""

    @property
    def unknown_contract(self) -> str | None:
        """The symbol that the exchange does not list, if that is what it says.

        On the wire: `Contract [NOPE_USDT] not exists` (captured). MEXC's documentation shows
        `Contract doesn't exist!`, which names none: then this is an empty string.
        """
        match = re.search(r"Contract \[(.*?)\] not exist", self.text)
        if match:
            return match[1]
        return "" if "Contract doesn't exist" in self.text else None


class Skipped(NamedTuple):
    """A frame that is neither data nor an answer, such as `clientId`. Harmless."""


Message: TypeAlias = Data | Ack | Pong | Refusal | Skipped


def subscribe(symbol: str, channel: Channel) -> str:
    """Return the frame that subscribes to one channel of one symbol.

    Sending it again is harmless: the exchange acknowledges again and sends nothing twice.
    """
    param: dict[str, str | int] = {"symbol": symbol}
    if channel == "depth":
        param["limit"] = DEPTH_LIMIT
    return json.dumps({"method": _METHODS[channel], "param": param}, separators=(",", ":"))


def unsubscribe(symbol: str, channel: Channel) -> str:
    """Return the frame that ends one channel of one symbol. The exchange does not confirm it."""
    return json.dumps(
        {"method": "un" + _METHODS[channel], "param": {"symbol": symbol}}, separators=(",", ":")
    )


def method(channel: Channel) -> str:
    """Return the exchange's name of the subscription to a channel, such as `sub.deal`."""
    return _METHODS[channel]


def decode(frame: str | bytes, received: int) -> Message:
    """Say what a received frame means. Never raises.

    Args:
        frame: a text frame, or the bytes of a binary one (MEXC's documentation speaks of gzip).
        received: the time of receipt in milliseconds since 1970, for dead letters without a
            time of their own.
    """
    text = frame if isinstance(frame, str) else _text_of(frame)
    try:
        envelope = _decode_envelope(text)
    except _UNDECODABLE:
        return _dead(text, _any_timestamp(text, received), "", None, CHANNELS)
    channel = envelope.channel
    if channel and not channel.startswith("push."):
        return _answer(envelope)
    ts = timestamp(envelope.ts)
    at = received if ts is None else ts
    recorded = _RECORDED.get(channel)
    if recorded is not None:
        try:
            return recorded(envelope, ts, at)
        except (Malformed, *_UNDECODABLE):
            pass
    known = _CHANNELS.get("sub." + channel.removeprefix("push."))
    missed = () if channel else CHANNELS
    return _dead(text, at, envelope.symbol, known, missed if known is None else (known,))


def dead_letter(
    frame: str | bytes, symbol: str, received: int, missed: tuple[Channel, ...]
) -> Data:
    """Return a frame as a dead letter, whatever it means: it came where it does not belong."""
    text = frame if isinstance(frame, str) else _text_of(frame)
    return _dead(text, _any_timestamp(text, received), symbol, None, missed)


_ABSENT: Final = Raw(b"")

# RecursionError: nested too deeply. UnicodeError: a str with lone surrogates, which no
# WebSocket hands out but a caller may.
_UNDECODABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeError)


class _Envelope(msgspec.Struct):
    # The order of the keys has changed over the years; a struct reads them by name.
    channel: str = ""
    symbol: str = ""
    data: Raw = _ABSENT
    ts: Raw = _ABSENT


class _TsOnly(msgspec.Struct):
    ts: Raw = _ABSENT


class _Ticker(msgspec.Struct):
    lastPrice: Raw = _ABSENT  # noqa: N815 - the exchange's names
    fairPrice: Raw = _ABSENT  # noqa: N815
    indexPrice: Raw = _ABSENT  # noqa: N815
    holdVol: Raw = _ABSENT  # noqa: N815
    fundingRate: Raw = _ABSENT  # noqa: N815
    timestamp: Raw = _ABSENT


class _Deal(msgspec.Struct):
    p: Raw = _ABSENT
    v: Raw = _ABSENT
    T: Raw = _ABSENT
    t: Raw = _ABSENT
    i: Raw = _ABSENT


class _PlainDeal(msgspec.Struct):
    """A deal as nearly all are: the parser's own checks spare half of the time of ours."""

    p: Raw
    v: Raw
    T: Literal[1, 2]
    t: Annotated[int, msgspec.Meta(ge=0, lt=10**MAX_TS_DIGITS)]
    i: Raw = _ABSENT


class _Depth(msgspec.Struct):
    bids: Raw = _ABSENT
    asks: Raw = _ABSENT
    version: Raw = _ABSENT


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_ts = msgspec.json.Decoder(_TsOnly).decode
_decode_ticker = msgspec.json.Decoder(_Ticker).decode
_decode_deal = msgspec.json.Decoder(_Deal).decode
_decode_plain_deals = msgspec.json.Decoder(list[_PlainDeal]).decode
_decode_depth = msgspec.json.Decoder(_Depth).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_by_time = attrgetter("t")


def _answer(envelope: _Envelope) -> Message:
    channel = envelope.channel
    if channel == "pong":
        return Pong(timestamp(envelope.data) or timestamp(envelope.ts))
    data = _string(envelope.data)[:DEAD_LETTER_LENGTH]
    if channel == "rs.error":
        return Refusal(data)
    if channel.startswith("rs.sub."):
        subscribed = _CHANNELS.get(channel.removeprefix("rs."))
        if data != "success":
            return Refusal(f"{channel}: {data}")
        if subscribed is not None:
            return Ack(subscribed)
    return Skipped()


def _ticker(envelope: _Envelope, ts: int | None, at: int) -> Data:
    ticker = _decode_ticker(envelope.data)
    last = number(ticker.lastPrice)
    if ts is None:
        # MEXC's documentation shows tickers without the envelope's ts; captures have it.
        ts = timestamp(ticker.timestamp)
    if ts is None or not last:
        raise Malformed
    text = (
        f"{last}|{number(ticker.fairPrice)}|{number(ticker.indexPrice)}|"
        f"{number(ticker.holdVol)}|{funding_rate(ticker.fundingRate)}"
    )
    return Data(envelope.symbol, "ticker", [Row(ts, TICKER, text)], 0, 0)


def _deals(envelope: _Envelope, ts: int | None, at: int) -> Data:
    data = envelope.data
    single = bytes(data)[:1] != b"["
    try:
        deals = _decode_plain_deals(data)
        if len(deals) > 1:
            # The newest comes first. Sorting is stable, so deals of one millisecond are turned
            # round as well, and an array in the other order would still come out right.
            deals.reverse()
            deals.sort(key=_by_time)
        rows = [_plain_deal(deal) for deal in deals]
        ids = [deal_id(deal.i) for deal in deals]
    except (Malformed, msgspec.DecodeError):
        if single:
            deal = _decode_deal(data)
            return Data(envelope.symbol, "deal", [_deal(deal)], 0, 0, (), [deal_id(deal.i)])
        return _deals_one_by_one(envelope, at)
    return Data(envelope.symbol, "deal", rows, 0, 0, (), ids)


def _deals_one_by_one(envelope: _Envelope, at: int) -> Data:
    """Look at each deal by itself: keep the good ones, dead-letter the bad with their own text."""
    good: list[tuple[Row, int]] = []
    bad: list[Row] = []
    for raw in reversed(_decode_list(envelope.data)):
        try:
            deal = _decode_deal(raw)
            good.append((_deal(deal), deal_id(deal.i)))
        except (Malformed, msgspec.DecodeError):
            bad.append(Row(at, DEAD_LETTER, _text_of(bytes(raw))[:DEAD_LETTER_LENGTH]))
    good.sort(key=lambda one: one[0].ts)
    rows, ids = [row for row, _ in good], [id_ for _, id_ in good]
    missed: tuple[Channel, ...] = ("deal",) if bad else ()
    return Data(envelope.symbol, "deal", rows + bad, len(bad), 0, missed, ids)


def _plain_deal(deal: _PlainDeal) -> Row:
    price, volume = bytes(deal.p), bytes(deal.v)
    if not is_plain(price) or not is_plain(volume):
        raise Malformed
    return Row(deal.t, DEAL, f"{price.decode()}|{volume.decode()}|{deal.T}")


def _deal(deal: _Deal) -> Row:
    ts = timestamp(deal.t)
    price = number(deal.p)
    volume = number(deal.v)
    direction = bytes(deal.T)
    if ts is None or not price or not volume or direction not in (b"1", b"2"):
        raise Malformed
    return Row(ts, DEAL, f"{price}|{volume}|{direction.decode()}")


def _depth(envelope: _Envelope, ts: int | None, at: int) -> Data:
    if ts is None:
        raise Malformed
    depth = _decode_depth(envelope.data)
    row = Row(ts, DEPTH, f"{side(depth.bids)}|{side(depth.asks)}")
    return Data(envelope.symbol, "depth", [row], 0, version(depth.version))


_RECORDED: Final = {"push.ticker": _ticker, "push.deal": _deals, "push.depth.full": _depth}


def _any_timestamp(text: str, received: int) -> int:
    """Return the `ts` of a frame that is otherwise no envelope, else the time of receipt."""
    try:
        ts = timestamp(_decode_ts(text).ts)
    except _UNDECODABLE:
        ts = None
    return received if ts is None else ts


def _string(raw: Raw) -> str:
    """Return a JSON string's value, or the raw text of anything else."""
    text = bytes(raw)
    if text[:1] == b'"':
        try:
            return msgspec.json.decode(text, type=str)
        except msgspec.DecodeError:
            pass
    return _text_of(text)


def _text_of(frame: bytes) -> str:
    """Return a binary frame as text: unzipped if it is gzip, undecodable bytes escaped."""
    if frame[:2] == b"\x1f\x8b":
        with suppress(zlib.error):
            frame = zlib.decompressobj(wbits=31).decompress(frame, _MAX_UNZIPPED)
    return frame.decode("utf-8", "backslashreplace")


def _dead(
    text: str, ts: int, symbol: str, channel: Channel | None, missed: tuple[Channel, ...]
) -> Data:
    # The round trip escapes lone surrogates, which no store and no journal could keep.
    kept = text[:DEAD_LETTER_LENGTH].encode("utf-8", "backslashreplace").decode()
    return Data(symbol, channel, [Row(ts, DEAD_LETTER, kept[:DEAD_LETTER_LENGTH])], 1, 0, missed)
