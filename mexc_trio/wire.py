"""The exchange's socket protocol without I/O: what to send, and what a received frame means.

`decode` is the hot path: it runs once for every frame. It never raises, whatever it is
given, and no number passes through a float: the JSON parser hands out the raw text of the
values (`msgspec.Raw`) and the row is cut from that text.
"""

import json
import re
import zlib
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Raw

from mexc_trio.rows import DEAD_LETTER, DEAL, DEPTH, TICKER, Channel, Row

DEPTH_LIMIT: Final = 20
"""Levels a side of `sub.depth.full` that are asked for and kept."""

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
# Milliseconds: from 1970 to 2286. Later times do not fit DateTime64(3) as ClickHouse prints it.
_MAX_TS_DIGITS: Final = 13
# Plain digits that an exponent may add. Prices need a dozen; 1e999999999 would be a gigabyte.
_MAX_EXPONENT: Final = 400
_FUNDING_DECIMALS: Final = 8

_NUMBER_START: Final = b"-0123456789"
# A whole side of the book in compact form and without exponents. The quantifiers are possessive:
# the pattern either matches in one pass or fails at once.
_PLAIN_SIDE: Final = re.compile(rb"\[(?:\[[-0-9.]++,[-0-9.]++(?:,[-0-9.]++)?+\],?+)*+\]")
_THIRD_ELEMENT: Final = re.compile(rb"(\[[-0-9.]++,[-0-9.]++),[-0-9.]++\]")
_LAST_ELEMENT: Final = re.compile(rb",[-0-9.]++\]")


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


class Ack(NamedTuple):
    """A subscription is confirmed. The exchange does not say for which symbol."""

    channel: Channel


class Pong(NamedTuple):
    """The answer to a ping; now and then two come."""


class Refusal(NamedTuple):
    """`rs.error`: the exchange says no, in words."""

    text: str

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
        return _dead(text, _any_timestamp(text, received), "", None)
    channel = envelope.channel
    if channel and not channel.startswith("push."):
        return _answer(envelope)
    ts = _timestamp(envelope.ts)
    at = received if ts is None else ts
    recorded = _RECORDED.get(channel)
    if recorded is not None:
        try:
            return recorded(envelope, ts, at)
        except (_Malformed, *_UNDECODABLE):
            pass
    return _dead(text, at, envelope.symbol, _CHANNELS.get("sub." + channel.removeprefix("push.")))


def dead_letter(frame: str | bytes, symbol: str, received: int) -> Data:
    """Return a frame as a dead letter, whatever it means: it came where it does not belong."""
    text = frame if isinstance(frame, str) else _text_of(frame)
    return _dead(text, _any_timestamp(text, received), symbol, None)


class _Malformed(Exception):  # noqa: N818 - never leaves this module
    """The frame is not what its channel promises."""


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


class _Depth(msgspec.Struct):
    bids: Raw = _ABSENT
    asks: Raw = _ABSENT
    version: Raw = _ABSENT


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_ts = msgspec.json.Decoder(_TsOnly).decode
_decode_ticker = msgspec.json.Decoder(_Ticker).decode
_decode_deal = msgspec.json.Decoder(_Deal).decode
_decode_deals = msgspec.json.Decoder(list[_Deal]).decode
_decode_depth = msgspec.json.Decoder(_Depth).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_levels = msgspec.json.Decoder(list[list[Raw]]).decode


def _answer(envelope: _Envelope) -> Message:
    channel = envelope.channel
    if channel == "pong":
        return Pong()
    data = _string(envelope.data)
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
    last = _number(ticker.lastPrice)
    if ts is None:
        # MEXC's documentation shows tickers without the envelope's ts; captures have it.
        ts = _timestamp(ticker.timestamp)
    if ts is None or not last:
        raise _Malformed
    text = (
        f"{last}|{_number(ticker.fairPrice)}|{_number(ticker.indexPrice)}|"
        f"{_number(ticker.holdVol)}|{_funding_rate(ticker.fundingRate)}"
    )
    return Data(envelope.symbol, "ticker", [Row(ts, TICKER, text)], 0, 0)


def _deals(envelope: _Envelope, ts: int | None, at: int) -> Data:
    data = envelope.data
    single = bytes(data)[:1] != b"["
    try:
        rows = [_deal(d) for d in ([_decode_deal(data)] if single else _decode_deals(data))]
    except (_Malformed, msgspec.DecodeError):
        if single:
            raise
        return _deals_one_by_one(envelope, at)
    if len(rows) > 1:
        # The newest comes first. Sorting is stable, so deals of one millisecond are turned
        # round as well, and an array in the other order would still come out right.
        rows.reverse()
        rows.sort(key=_by_ts)
    return Data(envelope.symbol, "deal", rows, 0, 0)


def _deals_one_by_one(envelope: _Envelope, at: int) -> Data:
    """Keep the good deals of a frame and dead-letter the bad ones, each with its own text."""
    good: list[Row] = []
    bad: list[Row] = []
    for raw in reversed(_decode_list(envelope.data)):
        try:
            good.append(_deal(_decode_deal(raw)))
        except (_Malformed, msgspec.DecodeError):
            bad.append(Row(at, DEAD_LETTER, _text_of(bytes(raw))[:DEAD_LETTER_LENGTH]))
    good.sort(key=_by_ts)
    return Data(envelope.symbol, "deal", good + bad, len(bad), 0)


def _by_ts(row: Row) -> int:
    return row.ts


def _deal(deal: _Deal) -> Row:
    ts = _timestamp(deal.t)
    price = _number(deal.p)
    volume = _number(deal.v)
    direction = bytes(deal.T)
    if ts is None or not price or not volume or direction not in (b"1", b"2"):
        raise _Malformed
    return Row(ts, DEAL, f"{price}|{volume}|{direction.decode()}")


def _depth(envelope: _Envelope, ts: int | None, at: int) -> Data:
    if ts is None:
        raise _Malformed
    depth = _decode_depth(envelope.data)
    row = Row(ts, DEPTH, f"{_side(bytes(depth.bids))}|{_side(bytes(depth.asks))}")
    return Data(envelope.symbol, "depth", [row], 0, _version(bytes(depth.version)))


_RECORDED: Final = {"push.ticker": _ticker, "push.deal": _deals, "push.depth.full": _depth}


def _side(raw: bytes) -> str:
    """Return one side of the book as `[price,amount],...`, best first, at most 20 levels.

    The common form is cut by pattern, which spares forty lists a frame. Everything else
    (white space, exponents, two elements beside three, too many levels) goes level by level.
    """
    if _PLAIN_SIDE.fullmatch(raw):
        levels = raw.count(b"[") - 1
        if 0 < levels <= DEPTH_LIMIT:
            if raw.count(b",") == 3 * levels - 1:  # every level has its third element
                return _LAST_ELEMENT.sub(b"]", raw)[1:-1].decode()
            return _THIRD_ELEMENT.sub(rb"\1]", raw)[1:-1].decode()
    try:
        levels_raw = _decode_levels(raw)
    except msgspec.DecodeError as error:
        raise _Malformed from error
    parts: list[str] = []
    for level in levels_raw[:DEPTH_LIMIT]:
        if len(level) not in (2, 3):
            raise _Malformed
        price, amount = _number(level[0]), _number(level[1])
        if not price or not amount:
            raise _Malformed
        parts.append(f"[{price},{amount}]")
    return ",".join(parts)


def _number(raw: Raw) -> str:
    """Return a number in plain digits, exactly as written; empty where there is none."""
    text = bytes(raw)
    if not text or text == b"null":
        return ""
    if text[0] not in _NUMBER_START:
        raise _Malformed
    if b"e" in text or b"E" in text:
        return _plain_digits(text.decode())
    return text.decode()


def _plain_digits(text: str) -> str:
    """Expand an exponent: `9.75E+4` is `97500`. Decimal moves the point and rounds nothing."""
    try:
        number = Decimal(text)
    except InvalidOperation as error:  # an exponent beyond even Decimal's range
        raise _Malformed from error
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or abs(exponent) > _MAX_EXPONENT + len(text):
        raise _Malformed
    return format(number, "f")


def _funding_rate(raw: Raw) -> str:
    """Return the rate with exactly eight decimals, rounded half to even where it has more."""
    text = _number(raw)
    if not text:
        return ""
    whole, _, decimals = text.partition(".")
    if len(decimals) > _FUNDING_DECIMALS:
        return format(Decimal(text), f".{_FUNDING_DECIMALS}f")
    return f"{whole}.{decimals.ljust(_FUNDING_DECIMALS, '0')}"


def _timestamp(raw: Raw) -> int | None:
    """Return milliseconds, from a number or (in MEXC's documentation) a string of digits."""
    text = bytes(raw)
    if text[:1] == b'"':
        text = text[1:-1]
    if not text.isdigit() or len(text) > _MAX_TS_DIGITS:
        return None
    return int(text)


def _any_timestamp(text: str, received: int) -> int:
    """Return the `ts` of a frame that is otherwise no envelope, else the time of receipt."""
    try:
        ts = _timestamp(_decode_ts(text).ts)
    except _UNDECODABLE:
        ts = None
    return received if ts is None else ts


def _version(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) <= 19 else 0


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


def _dead(text: str, ts: int, symbol: str, channel: Channel | None) -> Data:
    # The round trip escapes lone surrogates, which no store and no journal could keep.
    kept = text[:DEAD_LETTER_LENGTH].encode("utf-8", "backslashreplace").decode()
    return Data(symbol, channel, [Row(ts, DEAD_LETTER, kept[:DEAD_LETTER_LENGTH])], 1, 0)
