"""What a table is: its columns and its engine, in one place for all who make or fill one."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import attrs

from mexc_trio import channels

NUMBER: Final = "n"
"""The column of a row's number, of engines that keep no order of their own."""


class TableEngine(StrEnum):
    """How ClickHouse keeps a table's rows."""

    STRIPELOG = "stripelog"
    """One file that grows at its end: rows are known by their number in it."""
    MERGETREE = "mergetree"
    """Sorted parts that are merged: rows are known by the column `n`, see `NUMBER`."""


# INSERTs that a MergeTree remembers: an older one that comes again is stored twice. At one a second
# these are the last quarter of an hour.
_WINDOW: Final = 1000

# Sorted by `n`, by which rows are read and found again. Times nearly always rise with it, so the
# least and the greatest time of a granule say whether a question needs it. Impossible times have at
# most two partitions of their own.
_INDEX: Final = ", INDEX time ts TYPE minmax GRANULARITY 1"
_ORDER: Final = (
    "PARTITION BY toYYYYMM(least(greatest(ts, toDateTime64('2017-01-01 00:00:00', 3, 'UTC')), "
    "toDateTime64('2100-01-01 00:00:00', 3, 'UTC')), 'UTC') "
    f"ORDER BY {NUMBER}"
)
_DEDUPLICATED: Final = f"SETTINGS non_replicated_deduplication_window = {_WINDOW}"
# A week, the default before 25.10: an INSERT of which nobody heard may be under way for so long.
_DEDUPLICATED_BY_REPLICAS: Final = (
    f"SETTINGS replicated_deduplication_window = {_WINDOW}, "
    f"replicated_deduplication_window_seconds = 604800"
)

# The codec that packs texts a tenth better makes an INSERT and the merges of its first minutes a
# third dearer. So rows get it when they are an hour old, in a merge for that alone if need be. From
# 25.4 on a table can name the codec until then.
_RECOMPRESSED: Final = "TTL toDateTime(ts) + INTERVAL 1 HOUR RECOMPRESS CODEC(ZSTD(11))"
_CODEC_UNTIL_THEN: Final = "default_compression_codec = 'ZSTD(3)'"


def _codec(type_: str) -> str:
    """Return what packs a column of a MergeTree table well (measured)."""
    if type_.startswith("DateTime64"):
        return " CODEC(Delta, ZSTD(1))"
    return " CODEC(ZSTD(3))" if type_ == "String" else " CODEC(ZSTD(1))"


@attrs.frozen
class Table:
    """A table that rows are appended to: its name and its columns in the order of the row."""

    name: str
    columns: tuple[tuple[str, str], ...]
    """Pairs of column name and ClickHouse type. A DateTime64(3) takes milliseconds."""
    engine: TableEngine = TableEngine.STRIPELOG
    """What it is made with if it is not there; one that is there keeps its own."""
    channels: tuple[str, ...] = attrs.field(default=channels.USUAL, eq=False)
    """Of a symbol: what is recorded of it, which are the views that it has."""

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names alone."""
        return tuple(name for name, _ in self.columns)

    def definition(self, *, of_ours: bool = False) -> str:
        """Return the SQL of a new table behind its name; `of_ours` if the engine is the wheel's."""
        if self.engine is TableEngine.STRIPELOG:
            return f"({self._plain_columns}) ENGINE = StripeLog"
        if not of_ours:
            return f"({self._numbered_columns()}) ENGINE = MergeTree {_ORDER} {_DEDUPLICATED}"
        return (
            f"({self._numbered_columns(recompressed='String')}) ENGINE = MergeTree {_ORDER} "
            f"{_RECOMPRESSED} {_DEDUPLICATED}, {_CODEC_UNTIL_THEN}"
        )

    def replicated(self, database: str) -> str:
        """Return the same for a table of which each host of a shard keeps a replica."""
        engine = (
            f"ENGINE = ReplicatedMergeTree('/clickhouse/tables/{{shard}}/{database}/{self.name}', "
            f"'{{replica}}')"
        )
        if self.name not in SHARED_TABLES:
            return f"({self._numbered_columns()}) {engine} {_ORDER} {_DEDUPLICATED_BY_REPLICAS}"
        # Their rows are found again by what they say.
        key = ", ".join(f"`{name}`" for name in self.column_names[:2])
        return f"({self._plain_columns}) {engine} ORDER BY ({key}) {_DEDUPLICATED_BY_REPLICAS}"

    @property
    def _plain_columns(self) -> str:
        return ", ".join(f"`{name}` {type_}" for name, type_ in self.columns)

    def _numbered_columns(self, recompressed: str = "") -> str:
        """Return them; those of the type that is packed again have no codec of their own."""
        packed = ", ".join(
            f"`{name}` {type_}{'' if type_ == recompressed else _codec(type_)}"
            for name, type_ in self.columns
        )
        return f"{packed}, {NUMBER} UInt64 CODEC(DoubleDelta, ZSTD(1)){_INDEX}"


@attrs.frozen
class Numbering:
    """What an INSERT into a table of numbered rows has beside the rows."""

    numbers: Sequence[int]
    """One for each row."""
    token: str
    """The same INSERT with the same token is stored once, however often it is sent."""


MARKET_COLUMNS: Final = frozenset({"ts", "mt", "m"})
"""The columns by which a table is known as a symbol's."""


def is_numbered(types: Mapping[str, str]) -> bool:
    """Whether a table with these columns has numbered rows."""
    return types.get(NUMBER) == "UInt64"


def in_order(numbered: bool) -> str:
    """Return the SQL behind a table's name that makes a SELECT return its rows as received.

    Beside it belongs `SETTINGS max_threads = 1`: one thread returns the rows of a StripeLog table
    in the order of insertion, and leaves those of a subquery in their order.
    """
    return f" ORDER BY {NUMBER}" if numbered else ""


WIDE: Final = (("rt", "DateTime64(6)"), ("id", "UInt64"))
"""The columns of wide tables beside the usual three: when the frame was read from the socket (in
microseconds; 0 where nobody knows), and a deal's number or a book's version (0 where there is
none)."""


def is_wide(types: Mapping[str, str]) -> bool:
    """Whether a table with these columns is wide."""
    return types.keys() >= dict(WIDE).keys()


def market_table(
    name: str,
    engine: str = TableEngine.STRIPELOG,
    *,
    wide: bool = False,
    recorded: Sequence[str] = channels.USUAL,
) -> Table:
    """Return the table of one symbol, with columns for the receipt of its rows if `wide`.

    `engine`, one of `TableEngine`'s words, is what a new one is made with; `recorded` are channels.
    """
    columns = (("ts", "DateTime64(3)"), ("mt", channels.enum()), ("m", "String"))
    return Table(
        name, columns + (WIDE if wide else ()), TableEngine(engine), channels=tuple(recorded)
    )


def _columns(definition: str) -> tuple[tuple[str, str], ...]:
    pairs = (column.split() for column in definition.split(","))
    return tuple((name, type_) for name, type_ in pairs)


GAPS: Final = Table(
    "gaps",
    _columns(
        "symbol String, channel String, from DateTime64(3), to DateTime64(3), cause String, "
        "detail String, version_before UInt64, version_after UInt64"
    ),
)
"""The ledger of gaps, in the same database as the symbols' tables; always a StripeLog."""


CONTRACTS: Final = Table(
    "contracts",
    _columns(
        "symbol String, as_of DateTime64(3), recorded_in String, contract_size Float64, "
        "tick Float64, lot Float64, price_scale Int32, volume_scale Int32, state Int32, rest String"
    ),
)
"""What the exchange says of each recorded contract, a row whenever that changes."""

SHARED_TABLES: Final = {table.name: table for table in (GAPS, CONTRACTS)}
"""The tables that have rows of all symbols, by their names."""
