"""What a row is, of a symbol and of the ledger of gaps, and the names that they consist of."""

from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

from mexc_trio import channels

Channel: TypeAlias = str
"""The name of a stream that can be recorded; see `mexc_trio.channels`."""

CHANNELS: Final = channels.USUAL
"""The three streams that are recorded of each symbol unless somebody says which."""

TICKER: Final = "t"
DEAL: Final = "d"
DEPTH: Final = "dp"
DEAD_LETTER: Final = "dl"

MESSAGE_TYPES: Final = (TICKER, DEAL, DEPTH, DEAD_LETTER)
"""The values of the column `mt` that every table has room for."""

OPTIONAL_TYPES: Final = tuple(channels.ALL[name].mt for name in channels.OPTIONAL)
"""The values of the channels that are recorded on request."""


RowTuple: TypeAlias = tuple[int | float | str, ...]
"""A row as the stores take it: `Row` and `Gap` are such tuples."""


class Row(NamedTuple):
    """One row of a symbol's table."""

    ts: int
    """Milliseconds since 1970, on the exchange's clock (a dead letter without a readable
    time: on ours)."""
    mt: str
    """One of `MESSAGE_TYPES` or `OPTIONAL_TYPES`."""
    m: str
    """The message in the narrow form of its type: numbers as the exchange wrote them,
    separated by `|`."""


class Cause(StrEnum):
    """Why data could have been missed: the values of the column `cause`."""

    PROGRAM_STOPPED = "program stopped"
    CONNECTION_LOST = "connection lost"
    CHANNEL_SILENT = "channel silent"
    CLOCK_JUMPED = "clock jumped"
    DECODE_ERRORS = "decode errors"
    REFUSED = "subscription refused"
    PROGRAM_FAILED = "program failed"
    DISK_FULL = "disk full"
    SYMBOL_STOPPED = "symbol stopped"
    NEWLY_LISTED = "newly listed"
    JOURNAL_LOST = "journal lost"
    TABLE_SHORTER = "table shorter than expected"
    TABLE_DAMAGED = "table damaged"
    TABLE_DROPPED = "table dropped"


class Gap(NamedTuple):
    """One row of the table `gaps`: a time in which something could have been missed."""

    symbol: str
    channel: str
    """A `Channel`, or `all`."""
    start: int
    """Milliseconds: the channel's last row before the gap."""
    end: int
    """Milliseconds: the channel's first row after the gap."""
    cause: str
    """A `Cause`."""
    detail: str
    version_before: int
    """Depth: the version of the last book before the gap. 0 is unknown."""
    version_after: int
    """Depth: the version of the first book after the gap. 0 is unknown."""
