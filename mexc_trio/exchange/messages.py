"""What is said on the exchange's socket: requests as they are sent, and what is received, decoded.

`mexc_trio.exchange.decoding` says which of these a received message is.
"""

import json
import re
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec

from mexc_trio.channels import ALL
from mexc_trio.rows import Channel, Row

DEAD_LETTER_LENGTH: Final = 500
"""Characters of a message that a dead letter keeps."""

PING: Final = '{"method":"ping"}'
"""The application's ping. The exchange closes a socket that sends none for 60-68 seconds,
even one on which data flows (measured), so a WebSocket ping is no substitute."""

_CHANNELS: Final = {one.wire: name for name, one in ALL.items()}


# A third of the time that a NamedTuple takes; no cycle that the collector could find is made of it.
class Data(msgspec.Struct, gc=False):
    """A push: the rows of one frame, in the order in which they are stored."""

    symbol: str
    """The contract the frame names; empty where it cannot be read."""
    channel: Channel | None
    """The channel; None where the frame is of no channel that is recorded."""
    rows: list[Row]
    dead: int = 0
    """How many of `rows` are dead letters."""
    version: int = 0
    """Depth: the book's version. 0 for other channels and where it cannot be read."""
    missed: tuple[Channel, ...] = ()
    """The channels that the dead letters may have belonged to; all of them if nobody can tell."""
    ids: Sequence[int] = ()
    """Deals: the exchange's number of each row's, 0 where there is none; empty if none has one."""
    received: int = 0
    """When the frame was read from the socket, in microseconds since 1970; who reads it sets it."""


class Ack(NamedTuple):
    """A subscription is confirmed. The exchange does not say for which symbol."""

    channel: Channel
    at: int = 0
    """Milliseconds since 1970, on the exchange's clock; 0 where it does not say."""


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


def subscribe(symbol: str, channel: Channel, *, merged: bool = False) -> str:
    """Return the frame that subscribes to one channel of one symbol; harmless if sent again.

    The exchange merges deals unless it is told not to: `merged` leaves it at that, and without it
    the frame asks for every deal.
    """
    param: dict[str, str | int | bool] = {"symbol": symbol, **ALL[channel].parameters}
    if channel == "deal" and not merged:
        param["compress"] = False
    return json.dumps({"method": method(channel), "param": param}, separators=(",", ":"))


def unsubscribe(symbol: str, channel: Channel) -> str:
    """Return the frame that ends one channel of one symbol. The exchange does not confirm it."""
    return json.dumps(
        {"method": "un" + method(channel), "param": {"symbol": symbol}}, separators=(",", ":")
    )


def method(channel: Channel) -> str:
    """Return the exchange's name of the subscription to a channel, such as `sub.deal`."""
    return f"sub.{ALL[channel].wire}"


def subscribed(name: str) -> Channel | None:
    """Return the channel to which `sub.NAME` subscribes; None if it is none that is recorded."""
    return _CHANNELS.get(name)
