"""The contracts that the exchange lists, and what its REST interface says of each."""

from __future__ import annotations

import fnmatch
import itertools
import re
import zlib
from collections.abc import Collection, Iterator
from typing import Final

import attrs
import msgspec

from tools.contract import starting_price

SYMBOL: Final = re.compile(r"[A-Z0-9]+_[A-Z0-9]+")
ON: Final = 0
"""The state of a contract that is traded; others are about to be settled, settled or paused."""

# What people record most, and one of each kind of name that has surprised a recorder.
_FIRST: Final = (
    "BTC_USDT",
    "ETH_USDT",
    "SOL_USDT",
    "BTC_USDC",
    "BTC_USD",
    "1000BONK_USDT",
    "SKHYNIXSTOCK_USDT",
    "XRP_USDT",
    "DOGE_USDT",
    "1000000MOG_USDT",
    "ETH_USDC",
    "ETH_USD",
    "BTC_USD1",
    "NVIDIASTOCK_USDT",
    "TESLASTOCK_USDT",
    "PEPE_USDT",
    "SUI_USDT",
    "1INCH_USDT",
    "SOL_USDC",
    "GAPS_USDT",
)
_SIZES: Final = {
    "BTC_USDT": "0.0001",
    "ETH_USDT": "0.01",
    "SOL_USDT": "0.1",
    "BTC_USDC": "1E-5",
    "BTC_USD": "100",
    "ETH_USD": "10",
    "1000000MOG_USDT": "1E+7",
}


def believable(count: int) -> list[str]:
    """Name so many contracts: well-known and odd ones first, most of them in USDT."""
    return list(itertools.islice(itertools.chain(_FIRST, _invented()), count))


def _invented() -> Iterator[str]:
    syllables = ("BO", "KA", "LU", "MI", "NEX", "PO", "RA", "SU", "TRI", "VEL", "ZO")
    for number, parts in enumerate(itertools.product(syllables, repeat=4), 1):
        quote = "USD" if not number % 60 else "USDC" if not number % 20 else "USDT"
        yield f"{''.join(parts)}{'STOCK' if not number % 25 else ''}_{quote}"


def contract_size(symbol: str) -> str:
    """Return how much of the base one contract is: a power of ten worth a few units of quote."""
    if symbol in _SIZES:
        return _SIZES[symbol]
    units, decimals = starting_price(symbol)
    exponent = decimals - len(str(units)) + 1
    return "1" + "0" * exponent if exponent >= 0 else f"0.{'1':0>{-exponent}}"


@attrs.define(eq=False)
class Listing:
    """Which contracts there are.

    ``states`` maps those that are listed to their states. ``complete`` says that no others can be
    subscribed to; otherwise every well-formed one can, except those that match a pattern of
    ``unknown`` or have been taken off the list.
    """

    states: dict[str, int]
    complete: bool
    unknown: Collection[str]
    _gone: set[str] = attrs.field(factory=set, init=False)

    def exists(self, symbol: str) -> bool:
        """Say whether a symbol can be subscribed to."""
        if symbol in self.states:
            return self.states[symbol] == ON
        if self.complete or symbol in self._gone:
            return False
        if any(fnmatch.fnmatchcase(symbol, pattern) for pattern in self.unknown):
            return False
        return SYMBOL.fullmatch(symbol) is not None

    def add(self, symbol: str, state: int = ON) -> None:
        """List a contract, or change its state."""
        self.states[symbol] = state
        self._gone.discard(symbol)

    def remove(self, symbol: str) -> None:
        """Take a contract off the list: it vanishes."""
        self.states.pop(symbol, None)
        self._gone.add(symbol)

    def detail(self, symbol: str) -> dict[str, object]:
        """Describe a contract as ``/api/v1/contract/detail`` does."""
        base, quote = symbol.split("_")
        _, decimals = starting_price(symbol)
        number = zlib.crc32(symbol.encode())
        unit = "0." + "1".zfill(decimals) if decimals else "1"
        return {
            "symbol": symbol,
            "displayName": f"{symbol}永续",
            "displayNameEn": f"{symbol} PERPETUAL",
            "positionOpenType": 3,
            "baseCoin": base,
            "quoteCoin": quote,
            "baseCoinName": base,
            "quoteCoinName": quote,
            "futureType": 1,
            "settleCoin": base if quote == "USD" else quote,
            "contractSize": _number(contract_size(symbol)),
            "minLeverage": 1,
            "maxLeverage": 500 if base in ("BTC", "ETH") else 50,
            "countryConfigContractMaxLeverage": 0,
            "priceScale": decimals,
            "volScale": 0,
            "amountScale": 4,
            "priceUnit": _number(unit),
            "volUnit": 1,
            "minVol": 1,
            "maxVol": 400_000,
            "bidLimitPriceRate": _number("0.1"),
            "askLimitPriceRate": _number("0.1"),
            "takerFeeRate": _number("0.0004"),
            "makerFeeRate": _number("0.0001"),
            "maintenanceMarginRate": _number("0.001"),
            "initialMarginRate": _number("0.002"),
            "riskBaseVol": 4_500_000,
            "riskIncrVol": 0,
            "riskLimitType": "BY_VOLUME",
            "indexOrigin": ["BITGET", "BYBIT", "BINANCE", "HTX", "OKX", "MEXC", "KUCOIN"],
            "state": self.states.get(symbol, ON),
            "isNew": False,
            "isHot": False,
            "isHidden": False,
            "conceptPlate": ["mc-trade-zone-pow"],
            "maxNumOrders": [200, 50],
            "marketOrderMaxLevel": 20,
            "triggerProtect": _number("0.1"),
            "automaticDelivery": 0,
            "apiAllowed": False,
            "depthStepList": [unit, "1", "10", "100"],
            "limitMaxVol": 2_500_000,
            "id": number % 10_000,
            "vid": f"{number:032x}",
            "createTime": 1_591_242_684_000 + number,
            "openingTime": 0,
            "showBeforeOpen": True,
            "feeRateMode": "TIERED",
            "riskLimitCustom": [
                {"level": 1, "maxVol": 50_000, "mmr": _number("0.001"), "maxLeverage": 500},
                {"level": 2, "maxVol": 250_000, "mmr": _number("0.01"), "maxLeverage": 100},
            ],
            "type": 1,
        }


def _number(text: str) -> msgspec.Raw:
    """Put a number on the wire digit for digit."""
    return msgspec.Raw(text.encode())
