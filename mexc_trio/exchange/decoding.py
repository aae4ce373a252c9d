"""What a message from the exchange's socket means. No I/O.

`decode` is the hot path: it runs once for every message. It never raises, whatever it is given, and
no number passes through a float: the JSON parser hands out the raw text of the values
(`msgspec.Raw`) and the row is cut from that text. Nearly all messages are read in one pass by
`mexc_trio.exchange.usual`; here is what any message means.
"""

import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, TypeAlias

import msgspec
from msgspec import Raw

from mexc_trio.channels import ALL, ChannelFacts
from mexc_trio.exchange.digits import (
    Malformed,
    deal_id,
    funding_rate,
    number,
    side,
    timestamp,
    version,
)
from mexc_trio.exchange.messages import (
    DEAD_LETTER_LENGTH,
    Ack,
    Data,
    Message,
    Pong,
    Refusal,
    Skipped,
    subscribed,
)
from mexc_trio.exchange.usual import MOST_DEALS, read_usual
from mexc_trio.rows import DEAD_LETTER, DEAL, DEPTH, TICKER, Channel, Row

MOST_BYTES: Final = 512 * 1024
"""Bytes of a message that is read at all. The exchange's are a few thousand; what is longer would
hold everything else of the program while it is read, and so is a dead letter unread."""


def decode(frame: bytes, received: int) -> Message:
    """Say what a received message means. Never raises.

    `frame` has the bytes of a text, or of a binary message (MEXC's documentation speaks of gzip);
    `received`, in milliseconds since 1970, is for dead letters without a time of their own.
    """
    if len(frame) > MOST_BYTES:
        return _dead(frame, received, "", None, _EVERY)
    return read_usual(frame) or decode_any(frame, received)


def decode_any(frame: bytes, received: int) -> Message:
    """Do the same without the short way for what is usual."""
    frame = _unzipped(frame)
    if len(frame) > MOST_BYTES:
        return _dead(frame, received, "", None, _EVERY)
    try:
        envelope = _decode_envelope(frame)
    except _UNDECODABLE:
        return _dead(frame, _any_timestamp(frame, received), "", None, _EVERY)
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
    known = subscribed(channel.removeprefix("push."))
    missed = () if channel else _EVERY
    return _dead(frame, at, envelope.symbol, known, missed if known is None else (known,))


def decode_deals(symbol: str, data: Raw) -> Data:
    """Return deals that were asked for, in the form of a push.

    Raises Malformed if this is no list of deals, or of another symbol's.
    """
    try:
        if any(one.symbol not in ("", symbol) for one in _decode_named(data)):
            raise Malformed("it has deals of another symbol")
        deals = _deals(_Envelope("push.deal", symbol, data), None, 0)
    except _UNDECODABLE as error:
        raise Malformed("it is no list of deals") from error
    if deals.dead:
        raise Malformed(f"it has a deal that is none: {deals.rows[-1].m[:60]}")
    return deals


def dead_letter(frame: bytes, symbol: str, received: int, missed: tuple[Channel, ...]) -> Data:
    """Return a message as a dead letter, whatever it means: it came where it does not belong."""
    frame = _unzipped(frame)
    ts = received if len(frame) > MOST_BYTES else _any_timestamp(frame, received)
    return _dead(frame, ts, symbol, None, missed)


_ABSENT: Final = Raw(b"")
_EVERY: Final = tuple(ALL)
"""Whose dead letter it may be if nobody can tell. What is not recorded misses nothing."""

# RecursionError: nested too deeply. UnicodeError: a binary message that is no text.
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


class _Named(msgspec.Struct):
    symbol: str = ""


class _Depth(msgspec.Struct):
    bids: Raw = _ABSENT
    asks: Raw = _ABSENT
    version: Raw = _ABSENT


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_ts = msgspec.json.Decoder(_TsOnly).decode
_decode_ticker = msgspec.json.Decoder(_Ticker).decode
_decode_deal = msgspec.json.Decoder(_Deal).decode
_decode_depth = msgspec.json.Decoder(_Depth).decode
_decode_values = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_named = msgspec.json.Decoder(list[_Named]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode


def _answer(envelope: _Envelope) -> Message:
    channel = envelope.channel
    if channel == "pong":
        return Pong(timestamp(envelope.data) or timestamp(envelope.ts))
    data = _string(envelope.data)
    if channel == "rs.error":
        return Refusal(data)
    if channel.startswith("rs.sub."):
        if data != "success":
            return Refusal(f"{channel}: {data}")
        if (known := subscribed(channel.removeprefix("rs.sub."))) is not None:
            return Ack(known, timestamp(envelope.ts) or 0)
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
    return Data(envelope.symbol, "ticker", [Row(ts, TICKER, text)])


def _deals(envelope: _Envelope, ts: int | None, at: int) -> Data:
    """Look at each deal by itself: keep the good ones, dead-letter the bad with their own text."""
    data = envelope.data
    if bytes(data)[:1] != b"[":  # as in former years
        deal = _decode_deal(data)
        return Data(envelope.symbol, "deal", [_deal(deal)], 0, 0, (), [deal_id(deal.i)])
    good: list[tuple[Row, int]] = []
    bad: list[Row] = []
    # The newest comes first. Sorting is stable, so deals of one millisecond are turned round as
    # well, and an array in the other order would still come out right.
    found = _decode_list(data)
    if len(found) > MOST_DEALS:
        raise Malformed("it has too many deals")
    for raw in reversed(found):
        try:
            deal = _decode_deal(raw)
            good.append((_deal(deal), deal_id(deal.i)))
        except (Malformed, msgspec.DecodeError):
            bad.append(Row(at, DEAD_LETTER, _text_of(bytes(raw))))
    good.sort(key=lambda one: one[0].ts)
    rows, ids = [row for row, _ in good], [id_ for _, id_ in good]
    missed: tuple[Channel, ...] = ("deal",) if bad else ()
    return Data(envelope.symbol, "deal", rows + bad, len(bad), 0, missed, ids)


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


_Decoder: TypeAlias = Callable[[_Envelope, int | None, int], Data]
"""Takes an envelope, its time, and that of its dead letters; raises if it is not what it should."""


def _numbers(facts: ChannelFacts) -> _Decoder:
    """Return the decoder of a channel whose row is numbers out of its data."""

    def decode(envelope: _Envelope, ts: int | None, at: int) -> Data:
        data = _decode_values(envelope.data)
        first, *rest = (number(data.get(key, _ABSENT)) for key in facts.numbers)
        if ts is None or not first:
            raise Malformed
        return Data(envelope.symbol, facts.name, [Row(ts, facts.mt, "|".join([first, *rest]))])

    return decode


_OWN: Final[Mapping[str, _Decoder]] = {"ticker": _ticker, "deal": _deals, "depth": _depth}
_RECORDED: Final[Mapping[str, _Decoder]] = {
    f"push.{one.wire}": _OWN[name] if name in _OWN else _numbers(one) for name, one in ALL.items()
}


def _any_timestamp(frame: bytes, received: int) -> int:
    """Return the `ts` of a message that is otherwise no envelope, else the time of receipt."""
    try:
        ts = timestamp(_decode_ts(frame).ts)
    except _UNDECODABLE:
        ts = None
    return received if ts is None else ts


def _string(raw: Raw) -> str:
    """Return the beginning of a JSON string's value, or of the raw text of anything else."""
    text = bytes(raw)
    if text[:1] == b'"':
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(text, type=str)[:DEAD_LETTER_LENGTH]
    return _text_of(text)


def _unzipped(frame: bytes) -> bytes:
    """Return what is inside, if it is gzip; no text begins like that."""
    if frame[:2] == b"\x1f\x8b":
        with suppress(zlib.error):
            return zlib.decompressobj(wbits=31).decompress(frame, MOST_BYTES + 1)
    return frame


def _text_of(frame: bytes) -> str:
    """Return the beginning of a message as text, with undecodable bytes escaped."""
    # A character has four bytes at the most.
    text = frame[: 4 * DEAD_LETTER_LENGTH].decode("utf-8", "backslashreplace")
    return text[:DEAD_LETTER_LENGTH]


def _dead(
    frame: bytes, ts: int, symbol: str, channel: Channel | None, missed: tuple[Channel, ...]
) -> Data:
    return Data(symbol, channel, [Row(ts, DEAD_LETTER, _text_of(frame))], 1, 0, missed)
