"""The table of channels: all that is to be known of each stream that can be recorded.

A new channel whose rows are numbers out of its data is an entry here and nothing else: from it
follow its subscription, decoder, type of message, liveness, views, kind of export, place in the
Python interface and plot. Its type of message is one that no other has; tables that are new then
have room for it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

import attrs


@attrs.frozen
class ChannelFacts:
    """One stream of a symbol."""

    name: str
    """What we call it: in settings, in the log, in the table of gaps."""
    wire: str
    """What the exchange calls it: `sub.`, `unsub.` and `push.` stand before that."""
    mt: str
    """The type of its rows, in the column `mt`."""
    number: int
    """That type's number in the column's Enum. Tables keep it for ever."""
    patience: float
    """Seconds of silence that are usual until the channel has shown its rhythm."""
    view: str
    """What its rows are called as columns: `deals`, in the view `btc_deals` and in exports."""
    numbers: Mapping[str, str] = attrs.field(factory=dict)
    """Keys of its data whose numbers make a row, in their order, the first of which must be there,
    and the columns that they become. The first one is plotted. Empty for the channels that have a
    decoder of their own."""
    unit: str = ""
    """What that number is, in a plot; `{quote}` is the symbol's quote currency."""
    parameters: Mapping[str, int] = attrs.field(factory=dict)
    """What a subscription says beside the symbol."""
    usual: bool = False
    """Whether it is recorded unless the user chooses channels."""


DEPTH_LIMIT: Final = 20
"""Levels a side of the order book that are asked for and kept."""

# Tickers come every 1-3 s on every contract, books of quiet contracts 4-6 s apart (captured);
# deals may be rare. Nobody has captured the cadence of the others yet.
_TABLE: Final = (
    ChannelFacts("ticker", "ticker", "t", 1, 60.0, "tickers", usual=True),
    ChannelFacts("deal", "deal", "d", 2, 900.0, "deals", usual=True),
    ChannelFacts(
        "depth",
        "depth.full",
        "dp",
        3,
        180.0,
        "depths",
        parameters={"limit": DEPTH_LIMIT},
        usual=True,
    ),
    ChannelFacts(
        "funding", "funding.rate", "fr", 5, 3600.0, "funding_rates", {"rate": "funding_rate"}
    ),
    ChannelFacts(
        "index", "index.price", "ip", 6, 180.0, "index_prices", {"price": "index_price"}, "{quote}"
    ),
    ChannelFacts(
        "fair", "fair.price", "fp", 7, 180.0, "fair_prices", {"price": "fair_price"}, "{quote}"
    ),
)

ALL: Final[Mapping[str, ChannelFacts]] = {one.name: one for one in _TABLE}
"""Every channel that can be recorded, by its name."""
USUAL: Final = tuple(one.name for one in _TABLE if one.usual)
"""The channels that are recorded unless the user chooses."""
OPTIONAL: Final = tuple(one.name for one in _TABLE if not one.usual)
"""The others."""
OPTIONAL_VIEWS: Final[Mapping[str, str]] = {ALL[name].view: name for name in OPTIONAL}
"""The channels that are recorded on request, by what their rows are called as columns."""
BY_TYPE: Final[Mapping[str, str]] = {one.mt: one.name for one in _TABLE}
"""The channels' names by the types of their rows."""

_DEAD_LETTER: Final = ("dl", 4)


def enum() -> str:
    """Return the ClickHouse type of the column `mt` in new tables: it has room for all."""
    values = sorted([*((one.mt, one.number) for one in _TABLE), _DEAD_LETTER], key=lambda v: v[1])
    return f"Enum8({', '.join(f'{mt!r} = {number}' for mt, number in values)})"


def without_room(type_: str, names: Iterable[str]) -> list[str]:
    """Return those of some channels whose rows a table cannot have.

    `type_` is the type of its column `mt`.
    """
    if not type_.startswith("Enum"):
        return []
    return [name for name in names if f"'{ALL[name].mt}' = " not in type_]


def with_room(type_: str) -> str:
    """Return the type of a column `mt` that has all values of another one, and room for all rows.

    A type of somebody else's, whose values are not among ours, is returned as it is.
    """
    ours = enum()
    values = re.findall(r"'\w+' = -?\d+", type_)
    known = {*values} <= {*re.findall(r"'\w+' = -?\d+", ours)}
    return ours if known and type_ == f"Enum8({', '.join(values)})" else type_
