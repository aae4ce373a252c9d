"""What the exchange's REST interface says of contracts: sizes, steps, scales, and all the rest.

The list that `contracts` reads has the same entries; here nothing of them is left out.
"""

import math
from collections.abc import Collection
from typing import Any, Final

import attrs
import msgspec

from mexc_trio.exchange.rest import Client, NoContract, RestError

FEW: Final = 10
"""Contracts that are asked for one by one, 2 KB each. For more of them it is the list, 2 MB."""
UNKNOWN: Final = -1
"""Stands for a scale or state that the exchange does not say. A size or step is then no number."""


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
    """Ask once for the terms of some contracts; those that are not listed are left out.

    Raises:
        RestError: there was no useful answer.
    """
    entries: list[msgspec.Raw] = []
    if len(symbols) > FEW:
        try:
            entries = msgspec.json.decode(await client.get("detail"), type=list[msgspec.Raw])
        except msgspec.DecodeError as error:
            raise RestError(f"{client.url}: the list of contracts is none: {error}") from error
    else:
        for symbol in symbols:
            try:
                entries.append(await client.get("detail", symbol=symbol))
            except NoContract:
                continue
    found = (_read(entry) for entry in entries)
    return [terms for terms in found if terms is not None and terms.symbol in symbols]


def _read(entry: msgspec.Raw) -> Terms | None:
    """Read one entry of the list; None if it is none."""
    try:
        fields: dict[str, msgspec.Raw] = msgspec.json.decode(entry, type=dict[str, msgspec.Raw])
        symbol = msgspec.json.decode(fields.pop("symbol"), type=str)
    except (msgspec.DecodeError, KeyError, RecursionError, UnicodeDecodeError):
        return None
    known: dict[str, Any] = {
        name: _number(fields.pop(key, None), type_) for name, (key, type_) in _KEYS.items()
    }
    rest = msgspec.json.encode(dict(sorted(fields.items()))).decode("utf-8", "replace")
    return Terms(symbol, **known, rest=rest)


def _number(text: msgspec.Raw | None, type_: type[float] | type[int]) -> float | int:
    """Read a number, also one that stands in quotes; what is none is unknown."""
    try:
        return type_(float(bytes(text or b"").strip(b'"')))
    except (ValueError, OverflowError):
        return math.nan if type_ is float else UNKNOWN
