"""A believable MEXC futures market: frames as the exchange writes them.

``Market.frame`` writes one push frame of a symbol: a ticker, deals or a 20-level order book on a
random walk, now and then with an oddity the exchange is known for (exponents, padding, a single
deal in place of an array, missing fields and so on; ``ODDITIES`` names them all). ``truth``, of a
module of its own, says which rows a recorder must store for a frame.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from typing import Final, Literal

import attrs

from tools.contract import Contract, decimal_text, with_exponent, with_zeros
from tools.truth import LEVELS, Row, truth

__all__ = [
    "CHANNELS",
    "LEVELS",
    "MIX",
    "ODDITIES",
    "OPTIONAL",
    "Channel",
    "Market",
    "Row",
    "truth",
    "wall_clock_ms",
]

Channel = Literal["ticker", "deal", "depth.full", "funding.rate", "index.price", "fair.price"]
CHANNELS: Final[tuple[Channel, ...]] = ("ticker", "deal", "depth.full")
"""The channels that make a busy contract's stream."""
OPTIONAL: Final[tuple[Channel, ...]] = ("funding.rate", "index.price", "fair.price")
"""Channels that send frames only when a test pushes them."""

MIX: Final[Mapping[Channel, float]] = {"ticker": 0.04, "deal": 0.69, "depth.full": 0.27}
"""Share of each channel among the frames of a busy contract such as BTC_USDT."""

_NUMBER_ODDITIES: Final = ("exponent", "padded", "trailing-zeros", "decimals")
ODDITIES: Final[Mapping[Channel, tuple[str, ...]]] = {
    "ticker": (*_NUMBER_ODDITIES, "old-envelope", "missing", "no-ts", "negative-funding"),
    "deal": (*_NUMBER_ODDITIES, "old-envelope", "single", "batch", "no-id"),
    "depth.full": (*_NUMBER_ODDITIES, "old-envelope", "empty-side", "two-elements"),
}
"""The oddities of each channel, by the names that ``Market.frame`` takes."""

_DECIMALS: Final = 10
_FINE_PRICE: Final = 15036  # 0.0000015036
_FIRST_TRADE_ID: Final = 16_005_949_690


def wall_clock_ms() -> int:
    """Milliseconds since 1970, the unit of every time on this exchange."""
    return time.time_ns() // 1_000_000


def _plainly(text: str) -> str:
    return text


@attrs.define
class Market:
    """Writes the push frames of any symbol.

    ``seed`` makes the walks, the mix and the oddities repeatable, for each symbol by itself.
    ``oddities`` is the share of frames, 0 to 1, that carry one. ``clock`` tells the milliseconds
    since 1970.
    """

    seed: int = 1
    oddities: float = 0.0
    clock: Callable[[], int] = wall_clock_ms
    _contracts: dict[str, Contract] = attrs.field(factory=dict, init=False)

    def draw_channel(self, symbol: str) -> Channel:
        """Draw the channel of a symbol's next frame from the mix of a busy contract."""
        draw = self._contract(symbol).chance.random()
        for channel, share in MIX.items():
            draw -= share
            if draw < 0:
                return channel
        return "deal"  # the shares add up to 1 but for rounding

    def frame(
        self,
        symbol: str,
        channel: Channel,
        *,
        limit: int = LEVELS,
        merged: bool = False,
        oddity: str | None = None,
    ) -> str:
        """Write a symbol's next frame of one channel.

        ``limit`` bounds the levels of a depth frame. ``merged`` makes one deal of neighbours at one
        price and of one direction (what the real exchange merges, nobody has shown). ``oddity``
        asks for one of ``ODDITIES``; an empty text asks for none, and None leaves it to chance.
        """
        contract = self._contract(symbol)
        chance = contract.chance
        if oddity is None:
            odd = chance.random() < self.oddities
            oddity = chance.choice(ODDITIES[channel]) if odd and channel in ODDITIES else ""
        elif oddity and oddity not in ODDITIES.get(channel, ()):
            raise ValueError(f"no oddity of {channel}: {oddity!r}")
        contract.step()
        if channel == "deal":
            ts, data = _deals(contract, self.clock(), oddity, merged=merged)
        elif channel == "depth.full":
            ts, data = _depth(contract, self.clock(), oddity, limit)
        elif channel == "ticker":
            ts, data = _ticker(contract, self.clock(), oddity)
        else:
            ts, data = _number(contract, self.clock(), channel)
        # The order of the keys has changed over the years; both are still to be expected.
        if oddity in ("old-envelope", "single"):
            return f'{{"channel":"push.{channel}","data":{data},"symbol":"{symbol}","ts":{ts}}}'
        if oddity == "no-ts":
            return f'{{"channel":"push.{channel}","data":{data},"symbol":"{symbol}"}}'
        return f'{{"symbol":"{symbol}","data":{data},"channel":"push.{channel}","ts":{ts}}}'

    def book(self, symbol: str, limit: int) -> tuple[str, str, int]:
        """Write a symbol's order book as it stands: asks, bids and the version it has.

        The frames that come after it are what they would have been without.
        """
        contract = copy.deepcopy(self._contract(symbol))
        asks, bids = (_levels(contract, direction, "", limit) for direction in (+1, -1))
        return f"[{asks}]", f"[{bids}]", contract.version

    def _contract(self, symbol: str) -> Contract:
        contract = self._contracts.get(symbol)
        if contract is None:
            contract = self._contracts[symbol] = Contract.of(symbol, self.seed, self.clock())
        return contract


def _writer(contract: Contract, oddity: str) -> Callable[[str], str]:
    """Choose how the numbers of one frame are written."""
    if oddity == "exponent":
        return with_exponent
    if oddity == "padded":
        return lambda text: with_zeros(text, 30)
    if oddity == "trailing-zeros":
        # They differ within one message: 0.080550 stands beside 0.08039.
        return lambda text: with_zeros(text, int(contract.chance.random() * 3)).removesuffix(".")
    return _plainly


def _price_scale(contract: Contract, oddity: str) -> tuple[int, int]:
    """Return the units and the decimals in which one frame's prices are written."""
    if oddity != "decimals" or contract.decimals >= _DECIMALS:
        return contract.price, contract.decimals
    # Many more than usual, of the same price: whoever looks at it finds a market that can be.
    return contract.price * 10 ** (_DECIMALS - contract.decimals) + _FINE_PRICE, _DECIMALS


def _deals(contract: Contract, now: int, oddity: str, *, merged: bool) -> tuple[int, str]:
    chance = contract.chance
    draw = chance.random()
    if oddity == "single":
        count = 1
    elif oddity == "batch":
        count = 5 + int(draw * 20)
    else:
        count = 1 if draw < 0.7 else 2 + int(chance.random() * 3)
    write = _writer(contract, oddity)
    price, decimals = _price_scale(contract, oddity)
    times = contract.times(now, count)
    made: list[tuple[int, int, int, int, int]] = []
    for t in reversed(times):  # the newest comes first
        draw = chance.random()
        units, volume = price + int(draw * 3), 1 + int(300 * draw * draw)
        # Trade ids are not in the order of time, and leave some out; each is of one deal.
        contract.trades += 1
        trade_id = _FIRST_TRADE_ID + 40 * (contract.trades ^ 1) + int(draw * 40)
        side = 1 if chance.random() < 0.5 else 2
        if merged and made and made[-1][:2] == (units, side):
            newer = made.pop()
            made.append((units, side, newer[2] + volume, *newer[3:]))
        else:
            made.append((units, side, volume, t, trade_id))
    deals = []
    for units, side, volume, t, trade_id in made:
        p, v = write(decimal_text(units, decimals)), write(str(volume))
        if oddity == "single":  # as captured until 2025: keys in alphabetical order, no id
            deals.append(f'{{"M":1,"O":3,"T":{side},"p":{p},"t":{t},"v":{v}}}')
        else:
            ids = "" if oddity == "no-id" else f',"i":"{trade_id}","cts":"{t}"'
            deals.append(f'{{"p":{p},"v":{v},"T":{side},"O":3,"M":1,"t":{t}{ids}}}')
    return times[-1], deals[0] if oddity == "single" else f"[{','.join(deals)}]"


def _depth(contract: Contract, now: int, oddity: str, limit: int) -> tuple[int, str]:
    (ts,) = contract.times(now, 1)
    contract.version += 1 + int(contract.chance.random() * 30)
    asks = _levels(contract, +1, oddity, limit)
    bids = _levels(contract, -1, oddity, limit)
    if oddity == "empty-side":
        asks, bids = ("", bids) if contract.chance.random() < 0.5 else (asks, "")
    return ts, f'{{"cts":{ts - 4},"asks":[{asks}],"bids":[{bids}],"version":{contract.version}}}'


def _levels(contract: Contract, direction: int, oddity: str, limit: int) -> str:
    """Write one side of the book, best first: upwards from the price, or downwards."""
    random_ = contract.chance.random
    write = _writer(contract, oddity)
    price, decimals = _price_scale(contract, oddity)
    levels = []
    for _ in range(limit):
        draw = random_()
        price += direction * (1 + int(draw * 3))
        p, v = write(decimal_text(price, decimals)), write(str(1 + int(draw * 90_000)))
        orders = "" if oddity == "two-elements" else f",{1 + int(draw * 9)}"
        levels.append(f"[{p},{v}{orders}]")
    return ",".join(levels)


def _number(contract: Contract, now: int, channel: Channel) -> tuple[int, str]:
    (ts,) = contract.times(now, 1)
    if channel == "funding.rate":
        return ts, f'{{"rate":{decimal_text(contract.funding, 6)},"symbol":"{contract.symbol}"}}'
    price = decimal_text(*_price_scale(contract, ""))
    return ts, f'{{"price":{price},"symbol":"{contract.symbol}"}}'


def _ticker(contract: Contract, now: int, oddity: str) -> tuple[int, str]:
    chance = contract.chance
    (ts,) = contract.times(now, 1)
    contract.funding = min(max(contract.funding + int(chance.random() * 21) - 10, -750), 750)
    contract.hold += int(chance.random() * 2001) - 1000
    funding = contract.funding
    if oddity == "negative-funding":
        funding = -abs(funding) - 1
    write = _writer(contract, oddity)
    price, decimals = _price_scale(contract, oddity)

    def priced(units: int) -> str:
        return write(decimal_text(units, decimals))

    fields = {
        "symbol": f'"{contract.symbol}"',
        "lastPrice": priced(price),
        "riseFallRate": "-0.0270",
        "fairPrice": priced(price + 3),
        "indexPrice": priced(price + 5),
        "volume24": "311051901",
        "amount24": "2606920596.04",
        "maxBidPrice": priced(price + price // 10),
        "minAskPrice": priced(price - price // 10),
        "lower24Price": priced(price - price // 50),
        "high24Price": priced(price + price // 50),
        "timestamp": str(ts),
        "bid1": priced(price - 1),
        "ask1": priced(price),
        "holdVol": write(str(contract.hold)),
        "riseFallValue": "-0.390",
        "fundingRate": write(decimal_text(funding, 6)),
        "zone": '"UTC+8"',
        "riseFallRates": "[-0.0270,-0.0594,0.1172,-0.3674,0.3499,0.0065]",
        "riseFallRatesOfTimezone": "[-0.0238,-0.0153,-0.0270]",
    }
    if oddity == "missing":
        optional = ["fairPrice", "indexPrice", "holdVol", "fundingRate"]
        for key in chance.sample(optional, 1 + int(chance.random() * len(optional))):
            del fields[key]
    return ts, "{" + ",".join(f'"{key}":{text}' for key, text in fields.items()) + "}"
