"""What the exchange's REST interface says of contracts: sizes, steps, scales, and all the rest.

The list that `contracts` reads has the same entries; here nothing of them is left out.
"""

import math
from collections.abc import Collection
from typing import Any, Final

import attrs
import msgspec

from mexc_trio.exchange.contracts import entries
from mexc_trio.exchange.rest import Client, NoContract, decode, in_thread_if_long

FEW: Final = 10
"""Contracts that are asked for one by one, 2 KB each. For more of them it is the list, 2 MB."""
UNKNOWN: Final = -1
"""Stands for a scale or state that the exchange does not say. A size or step is then no number."""
_MOST: Final = 2**31
"""What scales and states stay below in the table: one that did not fit would refuse all rows."""


@attrs.frozen
class Terms:
    """What the exchange says of one contract now."""

    symbol: str
    contract_size: float
    """How much of the base one contract of volume is."""
    tick: float
    """The step of prices."""
    lot: float
    """The step of volumes, in contracts."""
    price_scale: int
    """Decimals of a price."""
    volume_scale: int
    """Decimals of a volume."""
    state: int
    rest: str
    """Everything else, as JSON: the exchange's own texts, keys in their order."""


_KEYS: Final = {
    "contract_size": ("contractSize", float), "tick": ("priceUnit", float),
    "lot": ("volUnit", float), "price_scale": ("priceScale", int),
    "volume_scale": ("volScale", int), "state": ("state", int),
}  # fmt: skip


async def ask_terms(client: Client, symbols: Collection[str]) -> list[Terms]:
    """Ask once for the terms of those of these contracts that are listed.

    Raises RestError where there is no useful answer.
    """
    if len(symbols) > FEW:
        data = await client.get("detail")
        return await in_thread_if_long(len(bytes(data)), _listed, client.url, data, symbols)
    found: list[Terms] = []
    for symbol in symbols:
        try:
            terms = _read(await client.get("detail", symbol=symbol))
        except NoContract:
            continue
        if terms is not None and terms.symbol in symbols:
            found.append(terms)
    return found


def _listed(url: str, data: msgspec.Raw, symbols: Collection[str]) -> list[Terms]:
    """Return the terms of those symbols that a list has."""
    found = map(_read, entries(url, data))
    return [terms for terms in found if terms is not None and terms.symbol in symbols]


def _read(entry: msgspec.Raw) -> Terms | None:
    """Read one entry of the list; None if it is none."""
    try:
        fields = decode(entry, dict[str, msgspec.Raw])
        symbol = decode(fields.pop("symbol"), str)
    except (msgspec.DecodeError, KeyError):
        return None
    known: dict[str, Any] = {
        name: _number(fields.pop(key, None), type_) for name, (key, type_) in _KEYS.items()
    }
    rest = msgspec.json.encode(dict(sorted(fields.items()))).decode("utf-8", "replace")
    return Terms(symbol, **known, rest=rest)


def _number(text: msgspec.Raw | None, type_: type[float] | type[int]) -> float | int:
    """Read a number, also one that stands in quotes; what is none is unknown."""
    try:
        number = float(bytes(text or b"").strip(b'"'))
    except ValueError:
        number = math.nan
    if type_ is float:
        return number if math.isfinite(number) else math.nan
    return int(number) if abs(number) < _MOST else UNKNOWN
