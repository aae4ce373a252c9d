"""Numbers and books as the exchange wrote them: cut from the raw text of its JSON.

No number passes through a float. `raw` is the text of one JSON value, which the parser has found
to be valid JSON; it is empty where the exchange sent none.
"""

import re
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec
from msgspec import Raw

from mexc_trio.channels import DEPTH_LIMIT

MAX_TS_DIGITS: Final = 13
"""Of milliseconds: from 1970 to 2286. Later times do not fit DateTime64(3) as it is printed."""
# Plain digits that an exponent may add. Prices need a dozen; 1e999999999 would be a gigabyte.
_MAX_EXPONENT: Final = 400
_FUNDING_DECIMALS: Final = 8

_NUMBER_START: Final = b"-0123456789"
# What is left of a side in compact form, without exponents and with three elements a level, when
# its digits are taken away. As the text is valid JSON, nothing else leaves that.
_PLAIN_SIDES: Final = {
    b"[" + b",".join([b"[,,]"] * levels) + b"]": levels for levels in range(1, DEPTH_LIMIT + 1)
}
_THIRD: Final = re.compile(rb",[0-9]++\]")
_DIGITS: Final = b"-0123456789."
# The beginning of a side, up to the last level that is kept.
_KEPT_LEVELS: Final = re.compile(rb"\s*+\[(?:[^][]*+\[[^][]*+\]){%d}" % DEPTH_LIMIT)


class Malformed(Exception):  # noqa: N818 - of pushes it never leaves the decoder
    """A value, or a frame, is not what its channel promises."""


_decode_levels = msgspec.json.Decoder(list[list[Raw]]).decode


def side(raw: Raw) -> str:
    """Return one side of the book as `[price,amount],...`, best first, at most 20 levels.

    The usual form is cut at its third elements: 3.2 microseconds, where cutting it at each comma
    takes 3.5, and to make forty lists of levels 12. Everything else (white space, exponents, two
    elements) goes level by level.
    """
    text = bytes(raw)
    if levels := _PLAIN_SIDES.get(text.translate(None, _DIGITS)):
        parts = _THIRD.split(text)  # "[[1.5,20" and ",[1.4,10" and "]"
        if len(parts) == levels + 1:
            return b"]".join(parts)[1:-1].decode()
    return _level_by_level(text)


def _level_by_level(text: bytes) -> str:
    # A book of three million levels is cut before lists are made of it.
    if kept := _KEPT_LEVELS.match(text):
        text = kept[0] + b"]"
    try:
        levels = _decode_levels(text)
    except msgspec.DecodeError as error:
        raise Malformed from error
    parts: list[str] = []
    for level in levels:
        if len(level) not in (2, 3):
            raise Malformed
        price, amount = number(level[0]), number(level[1])
        if not price or not amount:
            raise Malformed
        parts.append(f"[{price},{amount}]")
    return ",".join(parts)


def number(raw: Raw) -> str:
    """Return a number in plain digits, exactly as written; empty where there is none."""
    text = bytes(raw)
    if not text or text == b"null":
        return ""
    if text[0] not in _NUMBER_START:
        raise Malformed
    if b"e" in text or b"E" in text:
        return _plain_digits(text.decode())
    return text.decode()


def _plain_digits(text: str) -> str:
    """Expand an exponent: `9.75E+4` is `97500`. Decimal moves the point and rounds nothing."""
    try:
        value = Decimal(text)
    except InvalidOperation as error:  # an exponent beyond even Decimal's range
        raise Malformed from error
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or abs(exponent) > _MAX_EXPONENT + len(text):
        raise Malformed
    return format(value, "f")


def funding_rate(raw: Raw) -> str:
    """Return the rate with exactly eight decimals, rounded half to even where it has more."""
    text = number(raw)
    if not text:
        return ""
    whole, _, decimals = text.partition(".")
    if len(decimals) > _FUNDING_DECIMALS:
        return format(Decimal(text), f".{_FUNDING_DECIMALS}f")
    return f"{whole}.{decimals.ljust(_FUNDING_DECIMALS, '0')}"


def timestamp(raw: Raw) -> int | None:
    """Return milliseconds, from a number or (in MEXC's documentation) a string of digits."""
    text = bytes(raw)
    if text[:1] == b'"':
        text = text[1:-1]
    if not text.isdigit() or len(text) > MAX_TS_DIGITS:
        return None
    return int(text)


def version(raw: Raw) -> int:
    """Return a book's version, 0 where there is none that fits the journal's 64 bits."""
    text = bytes(raw)
    return int(text) if text.isdigit() and len(text) <= 18 else 0


def deal_id(raw: Raw) -> int:
    """Return a deal's id, a string of digits or a number; 0 where it has none that fits."""
    text = bytes(raw)
    if text[:1] == b'"':
        text = text[1:-1]
    return int(text) if text.isdigit() and len(text) <= 18 else 0
