"""Misbehaviour at a set time, as the command line asks for it."""

from __future__ import annotations

import contextlib
import gzip
import math
import re
from typing import TYPE_CHECKING, Final

import attrs
import trio

from tools.exchange.listing import SYMBOL
from tools.market import CHANNELS, Channel

if TYPE_CHECKING:
    from tools.exchange.core import Exchange
    from tools.exchange.handshakes import Handshake
    from tools.exchange.rest import Rest, Trouble

_FAILED_HANDSHAKES: Final[dict[str, Handshake]] = {
    "hangup": "close",
    "stall": "stall",
    "garbage": "garbage",
    "http403": "403",
    "http503": "503",
}
_REST_TROUBLES: Final[dict[str, Trouble]] = {
    "restthrottled": "throttled",
    "resthtml": "html",
    "rest500": "error",
    "restbroken": "broken",
    "restendless": "endless",
    "resthangup": "hangup",
    "restempty": "empty",
    "restforeign": "foreign",
    "restlong": "long",
}
_SLOW_SECONDS: Final = 60.0
_LAG_SECONDS: Final = 5.0
FAULTS: Final = {
    "drop": "break all connections by TCP reset",
    "close": "close all connections with a close frame",
    "silent": "send no data; pings are answered",
    "nopong": "do not answer pings",
    "noack": "do not acknowledge subscriptions",
    "refuse": "refuse new TCP connections",
    "hangup": "accept new TCP connections and close them at once",
    "stall": "accept new TCP connections and never answer their handshake",
    "garbage": "answer handshakes with bytes that are no HTTP",
    "http403": "answer handshakes with HTTP 403",
    "http503": "answer handshakes with HTTP 503",
    "brokenjson": "send each subscribed symbol a frame that is cut off in the middle",
    "binary": "send each subscribed symbol a binary frame of noise",
    "gzip": "send each subscribed symbol a gzip'd binary frame of deals",
    "huge": "send each subscribed symbol a frame of 2 MiB",
    "list": "list a contract",
    "delist": "take a contract off the list and send nothing of it any more",
    "restdown": "refuse REST connections",
    "restslow": f"answer REST requests after {_SLOW_SECONDS:g} seconds",
    "restthrottled": "answer REST requests with the exchange's complaint, code 510",
    "resthtml": "answer REST requests with HTTP 403 and a firewall's page",
    "rest500": "answer REST requests with HTTP 500 and a page",
    "restbroken": "answer REST requests with JSON that is cut off",
    "restendless": "answer REST requests with a body that has no end",
    "resthangup": "break REST connections in the middle of an answer",
    "restempty": "answer REST requests for deals with an empty list",
    "restforeign": "answer REST requests for deals with another contract's",
    "restlong": "answer REST requests for deals with 2 MB of them",
    "restlag": f"answer REST requests for deals without those of the last {_LAG_SECONDS:g} seconds",
}
"""What each kind of fault does, by name."""


@attrs.frozen
class Fault:
    """One misbehaviour at a set time, in seconds after the start.

    ``channel`` is that of silent and noack, ``symbol`` that of list and delist.
    """

    kind: str
    channel: Channel | None
    symbol: str
    at: float
    duration: float

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read ``KIND[/WHAT]@SECONDS[:DURATION]``; ValueError says what is wrong with it."""
        number = r"(\d+(?:\.\d+)?)"
        match = re.fullmatch(rf"(\w+)(?:/([\w.]+))?@{number}(?::{number})?", text)
        if match is None:
            raise ValueError(f"fault {text!r} is not of the form KIND[/WHAT]@SECONDS[:DURATION]")
        kind, what, at, duration = match.groups()
        if kind not in FAULTS:
            raise ValueError(f"unknown fault {kind!r}; there are {', '.join(FAULTS)}")
        channel = next((known for known in CHANNELS if known == what), None)
        if kind in ("list", "delist"):
            if what is None or not SYMBOL.fullmatch(what):
                raise ValueError(f"fault {text!r}: {kind} takes a symbol, as in {kind}/BTC_USDT@5")
        elif what is not None and (channel is None or kind not in ("silent", "noack")):
            raise ValueError(
                f"fault {text!r}: only silent and noack take one of the channels "
                f"{', '.join(CHANNELS)}"
            )
        symbol = what or ""
        return cls(kind, channel, symbol, float(at), float(duration) if duration else math.inf)

    @property
    def needs_rest(self) -> bool:
        """Whether it is of no use without the REST interface."""
        return self.kind.startswith("rest")

    async def strike(self, exchange: Exchange) -> None:
        """Wait for the time, misbehave, and stop misbehaving after the duration."""
        await trio.sleep(self.at)
        match self.kind:
            case "drop":
                await exchange.drop()
            case "close":
                await exchange.close()
            case "silent":
                exchange.silence(channel=self.channel)
                await trio.sleep(self.duration)
                exchange.resume(channel=self.channel)
            case "nopong":
                exchange.answer_pings = False
                await trio.sleep(self.duration)
                exchange.answer_pings = True
            case "noack":
                withheld = {self.channel} if self.channel else set(CHANNELS)
                exchange.withheld_acks |= withheld
                await trio.sleep(self.duration)
                exchange.withheld_acks -= withheld
            case "refuse":
                await exchange.stop_listening()
                await trio.sleep(self.duration)
                await exchange.listen()
            case "list":
                exchange.list_contract(self.symbol)
            case "delist":
                exchange.delist(self.symbol)
            case "brokenjson" | "binary" | "gzip" | "huge":
                for symbol in exchange.symbols:
                    with contextlib.suppress(LookupError):  # it may have left by now
                        await exchange.send(symbol, self._payload(exchange, symbol))
            case _ if self.needs_rest:
                await self._strike_rest(exchange.rest)
            case _:
                exchange.handshake = _FAILED_HANDSHAKES[self.kind]
                await trio.sleep(self.duration)
                exchange.handshake = "accept"

    async def _strike_rest(self, rest: Rest | None) -> None:
        if rest is None:
            raise ValueError(f"{self.kind} needs the REST interface")
        if self.kind == "restdown":
            await rest.go_down()
            await trio.sleep(self.duration)
            await rest.come_back()
        elif self.kind == "restlag":
            rest.lag = _LAG_SECONDS
            await trio.sleep(self.duration)
            rest.lag = 0.0
        elif self.kind == "restslow":
            rest.delay = _SLOW_SECONDS
            await trio.sleep(self.duration)
            rest.delay = 0.0
        else:
            rest.trouble = _REST_TROUBLES[self.kind]
            await trio.sleep(self.duration)
            rest.trouble = "none"

    def _payload(self, exchange: Exchange, symbol: str) -> str | bytes:
        frame = exchange.market.frame(symbol, "deal", oddity="")
        if self.kind == "brokenjson":
            return frame[: len(frame) // 2]
        if self.kind == "binary":
            return bytes(range(256))
        if self.kind == "gzip":
            return gzip.compress(frame.encode())
        return frame[:-1] + " " * 2**21 + "}"  # still JSON, and its rows are known
