"""The deals of every contract: the newest hundred, and candles of one minute."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Final

import attrs

from tools.exchange.listing import contract_size

if TYPE_CHECKING:
    from tools.exchange.records import Record
    from tools.market import Row

MOST_DEALS: Final = 100
"""In one answer."""
_KEPT: Final = 10 * MOST_DEALS  # of each contract, for answers that lag behind
MOST_CANDLES: Final = 2_000
"""Of each contract, in one answer as in memory."""
MINUTE: Final = 60
_SUMS: Final = Context(prec=60)  # sums are exact
_DOUBLE: Final = Context(prec=16)  # what the exchange's floating-point numbers can hold


@attrs.define
class Candle:
    """What was dealt in one minute. Prices and volume are those of the deals' own texts."""

    time: int  # seconds since 1970, when the minute began
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal = Decimal(0)  # in contracts
    turnover: Decimal = Decimal(0)  # price times contracts
    before: Decimal = Decimal(0)  # the close of the minute before, as far as it was asked for

    def add(self, price: Decimal, volume: Decimal) -> None:
        """Count a deal."""
        self.high, self.low, self.close = max(self.high, price), min(self.low, price), price
        self.volume = _SUMS.add(self.volume, volume)
        self.turnover = _SUMS.fma(price, volume, self.turnover)


@attrs.define
class _Strip:
    """One contract's deals with their ids, newest first, and its candles, oldest first."""

    deals: deque[tuple[Row, str]] = attrs.field(factory=lambda: deque(maxlen=_KEPT))
    candles: dict[int, Candle] = attrs.field(factory=dict)


@attrs.define(eq=False)
class Tape:
    """What was dealt, whoever heard of it.

    Where several connections are subscribed to one contract, each gets deals of its own, and all
    of them are on the tape; shared deals are on it once.
    """

    _strips: dict[str, _Strip] = attrs.field(factory=dict, init=False)

    @property
    def symbols(self) -> list[str]:
        """What was dealt in."""
        return list(self._strips)

    def listen(self, record: Record) -> None:
        """Add the deals of a frame that is sent."""
        if record.channel in ("deal", None):
            self.add(record.symbol, record.rows or [], ids_of(record.frame))

    def add(self, symbol: str, rows: Sequence[Row], ids: Sequence[str] = ()) -> None:
        """Add deals, oldest first, by the rows that they mean, with their ids if they have some."""
        deals = [row for row in rows if row[1] == "d"]
        if len(ids) != len(deals):
            ids = [""] * len(deals)
        if not deals:
            return
        strip = self._strips.setdefault(symbol, _Strip())
        for deal, id_ in zip(deals, ids, strict=True):
            strip.deals.appendleft((deal, id_))
            milliseconds, _, text = deal
            price, volume = map(Decimal, text.split("|")[:2])
            time = milliseconds // 1000 // MINUTE * MINUTE
            candle = strip.candles.get(time)
            if candle is None:
                candle = strip.candles[time] = Candle(time, price, price, price, price)
                if len(strip.candles) > MOST_CANDLES:
                    del strip.candles[next(iter(strip.candles))]
            candle.add(price, volume)

    def deals(self, symbol: str, limit: int, until: int | None = None) -> list[tuple[Row, str]]:
        """List the newest deals with their ids, newest first, none of them later than `until`."""
        strip = self._strips.get(symbol)
        deals = strip.deals if strip else ()
        return [one for one in deals if until is None or one[0][0] <= until][:limit]

    def candles(self, symbol: str, start: int | None, end: int) -> list[Candle]:
        """List the candles whose minutes begin between two seconds, both included.

        Without a start these are the newest before the end. From the first deal on, a minute
        without a deal has a candle without volume at the last price.
        """
        known = self._strips[symbol].candles if symbol in self._strips else {}
        if not known:
            return []
        first, last = min(known), end // MINUTE * MINUTE
        least = (
            last - (MOST_CANDLES - 1) * MINUTE if start is None else -(-start // MINUTE) * MINUTE
        )
        times = range(max(first, least), last + 1, MINUTE)[:MOST_CANDLES]
        earlier = [time for time in known if time < times.start]
        close = known[max(earlier)].close if earlier else known[first].open
        candles = []
        for time in times:
            candle = known.get(time) or Candle(time, close, close, close, close)
            candles.append(attrs.evolve(candle, before=close))
            close = candle.close
        return candles

    def columns(self, symbol: str, start: int | None, end: int) -> dict[str, list[str]]:
        """Return candles as ``/api/v1/contract/kline`` does: by column, in the wire's numbers.

        ``open`` is the close of the minute before, and counts for ``high`` and ``low``; the
        columns that begin with ``real`` are of the deals alone.
        """
        size = Decimal(contract_size(symbol))
        candles = self.candles(symbol, start, end)
        columns: dict[str, list[Decimal]] = {
            "open": [c.before for c in candles],
            "close": [c.close for c in candles],
            "high": [max(c.high, c.before) for c in candles],
            "low": [min(c.low, c.before) for c in candles],
            "vol": [c.volume for c in candles],
            "amount": [_SUMS.multiply(c.turnover, size) for c in candles],
            "realOpen": [c.open for c in candles],
            "realClose": [c.close for c in candles],
            "realHigh": [c.high for c in candles],
            "realLow": [c.low for c in candles],
        }
        texts = {name: [double(number) for number in numbers] for name, numbers in columns.items()}
        return {"time": [str(c.time) for c in candles], **texts}


def ids_of(frame: str | bytes) -> list[str]:
    """List the ids of the deals of a frame, oldest first; "" for one without."""
    try:
        data = json.loads(frame)["data"]
        return [str(deal.get("i", "")) for deal in reversed(data)]
    except (ValueError, TypeError, KeyError, AttributeError):  # no deals in an array
        return []


def double(number: Decimal) -> str:
    """Write a number as the exchange's Java writes one: ``5587051.0``, ``6.106243567181E7``."""
    number = _DOUBLE.plus(number)
    if not number:
        return "0.0"
    exponent = number.adjusted()
    plain = -3 <= exponent < 7
    digits = f"{number if plain else number.scaleb(-exponent):f}"
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    if "." not in digits:
        digits += ".0"
    return digits if plain else f"{digits}E{exponent}"
