"""The rows that a recorder must store for a frame, found out in a way of their own.

This reads frames with the standard library only, so that a mistake in the recorder's decoder is not
repeated here. Numbers stay texts.
"""

from __future__ import annotations

import gzip
import json
import zlib
from decimal import Decimal
from typing import Final, TypeAlias

Row: TypeAlias = tuple[int, str, str]
"""One stored row: milliseconds, message type (``t``, ``d``, ``dp`` or ``dl``), text."""

_NUMBERS: Final = {
    "push.funding.rate": ("fr", "rate"),
    "push.index.price": ("ip", "price"),
    "push.fair.price": ("fp", "price"),
}

LEVELS: Final = 20
"""The deepest order book that ``sub.depth.full`` sends, in levels a side."""


class _Number(str):
    """The text of a JSON number, apart from the text of a JSON string."""

    __slots__ = ()


class _IncompleteError(Exception):
    """A frame lacks what its row needs, so that it is a dead letter."""


class _UnclearError(Exception):
    """A frame of a shape for which no exact row is promised."""


def truth(frame: str | bytes) -> list[Row] | None:
    """Say which rows a recorder must store for a frame, in their order.

    No rows are due for frames other than pushes. None means that the exact rows are not
    determined by the frame alone: broken JSON and binary noise (whose dead letter may carry the
    time of receipt), or good and bad deals mixed in one frame. A gzip'd frame means what its
    content means.
    """
    try:
        text = gzip.decompress(frame).decode() if isinstance(frame, bytes) else frame
        message = json.loads(text, parse_float=_Number, parse_int=_Number)
    except (ValueError, EOFError, OSError, zlib.error):
        return None
    if not isinstance(message, dict) or not isinstance(message.get("channel"), str):
        return None
    if not message["channel"].startswith("push."):
        return []
    try:
        try:
            return _rows(message)
        except _IncompleteError:
            return [(_milliseconds(message.get("ts")), "dl", text[:500])]
    except _UnclearError:
        return None


def _rows(message: dict[str, object]) -> list[Row]:
    data = message.get("data")
    if message["channel"] == "push.deal":
        return _deal_rows(data)
    if not isinstance(data, dict):
        raise _IncompleteError
    if message["channel"] == "push.ticker":
        if data.get("lastPrice") is None:
            raise _IncompleteError
        prices = [_plain(data.get(key)) for key in ("lastPrice", "fairPrice", "indexPrice")]
        values = [*prices, _plain(data.get("holdVol")), _eight_decimals(data.get("fundingRate"))]
        ts = message["ts"] if "ts" in message else data.get("timestamp")
        return [(_milliseconds(ts), "t", "|".join(values))]
    if message["channel"] == "push.depth.full":
        sides = [_side(data.get(key)) for key in ("bids", "asks")]
        return [(_milliseconds(message.get("ts")), "dp", "|".join(sides))]
    if message["channel"] in _NUMBERS:
        mt, key = _NUMBERS[message["channel"]]
        if data.get(key) is None:
            raise _IncompleteError
        return [(_milliseconds(message.get("ts")), mt, _plain(data[key]))]
    raise _IncompleteError


def _deal_rows(data: object) -> list[Row]:
    deals = data if isinstance(data, list) else [data]
    rows = []
    for deal in deals:
        if (
            not isinstance(deal, dict)
            or deal.get("p") is None
            or deal.get("v") is None
            or deal.get("T") not in ("1", "2")
        ):
            if len(deals) == 1:
                raise _IncompleteError
            raise _UnclearError
        text = f"{_plain(deal['p'])}|{_plain(deal['v'])}|{_plain(deal['T'])}"
        rows.append((_milliseconds(deal.get("t")), "d", text))
    if not rows:
        raise _UnclearError
    return rows[::-1]


def _side(levels: object) -> str:
    if not isinstance(levels, list):
        raise _IncompleteError
    return ",".join(_level(level) for level in levels[:LEVELS])


def _level(level: object) -> str:
    if not isinstance(level, list) or len(level) not in (2, 3) or None in level:
        raise _UnclearError
    return f"[{_plain(level[0])},{_plain(level[1])}]"


def _plain(number: object) -> str:
    """Expand an exponent, and leave every other text as it is; what was not sent is empty."""
    if number is None:
        return ""
    if not isinstance(number, _Number):
        raise _UnclearError
    return f"{Decimal(number):f}" if "e" in number.lower() else str(number)


def _eight_decimals(number: object) -> str:
    text = _plain(number)
    return f"{Decimal(text):.8f}" if text else ""


def _milliseconds(number: object) -> int:
    if not isinstance(number, _Number) or not number.isdigit():
        raise _UnclearError
    return int(number)
