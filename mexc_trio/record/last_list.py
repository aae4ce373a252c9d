"""The list of contracts of the last run, for a start at which the exchange does not give one.

It is a file in the state directory: which contracts were traded, by which exchange's word, and when
that was asked. What is read there is judged as an answer of the exchange is, so that nothing worse
can come of it.
"""

import logging
import os
from collections.abc import Sequence
from typing import Annotated, Final

import attrs
import msgspec

from mexc_trio.errors import UsageError
from mexc_trio.exchange.contracts import MOST_CONTRACTS, ON, Contract
from mexc_trio.exchange.rest import MOST_BYTES, decode
from mexc_trio.files import open_own, refuse_others, write_own
from mexc_trio.settings import Settings
from mexc_trio.spans import EARLIEST, now
from mexc_trio.symbols import parse_symbol
from mexc_trio.texts import one_line

log = logging.getLogger(__name__)

FILE: Final = "contracts.json"
"""Is shorter than the answer from which it was made: 17 KB with 1,200 contracts."""


class _Kept(msgspec.Struct):
    url: str
    asked: Annotated[int, msgspec.Meta(ge=EARLIEST)]
    symbols: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MOST_CONTRACTS)]


@attrs.frozen
class LastList:
    """The contracts that were traded, and when that was asked, in milliseconds."""

    contracts: Sequence[Contract]
    asked: int


def read_last(settings: Settings) -> LastList | None:
    """Return the last list of this exchange; None without one, and, with a line, for a broken one.

    Raises UsageError if others may have put something into its directory, see `refuse_others`.
    """
    path = settings.state_directory / FILE
    refuse_others(path.parent)
    if not os.path.lexists(path):
        return None
    try:
        with open(open_own(path, os.O_RDONLY), "rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise UsageError(f"it has more than {MOST_BYTES >> 20} MiB")
        kept = decode(data, _Kept)
        if odd := [symbol for symbol in kept.symbols if parse_symbol(symbol) != symbol]:
            raise UsageError(f"{odd[0][:40]!r} is not in upper case")
    except (OSError, msgspec.DecodeError, UsageError) as error:
        reason = one_line(getattr(error, "strerror", None) or str(error))
        log.warning("%s is not used: it is no list of contracts (%s)", path, reason)
        return None
    if kept.url != settings.rest_url:
        return None
    contracts = [Contract(symbol) for symbol in dict.fromkeys(kept.symbols)]
    return LastList(contracts, min(kept.asked, now()))


def keep_last(settings: Settings, last: LastList) -> None:
    """Keep a list for the next start, unless nothing is traded; OSError if that cannot be."""
    symbols = [contract.symbol for contract in last.contracts if contract.state == ON]
    if symbols:
        kept = _Kept(settings.rest_url, last.asked, symbols)
        write_own(settings.state_directory / FILE, msgspec.json.encode(kept).decode())
