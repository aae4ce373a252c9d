"""Which contracts are recorded because they are listed, and how that changes while recording.

Those are all contracts, or those that match a pattern such as `*STOCK_USDT`, beside the symbols
that are given by name. While the exchange gives no list at the start, that of the last run will do,
which is a file in the state directory: which contracts were traded, by which exchange's word, and
when that was asked. What is read there is judged as an answer of the exchange is, so that nothing
worse can come of it.
"""

import fnmatch
import logging
import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Final

import attrs
import msgspec
import trio

from mexc_trio.errors import UsageError
from mexc_trio.exchange.contracts import MOST_CONTRACTS, ON, Contract, contracts_of, list_contracts
from mexc_trio.exchange.rest import MOST_BYTES, Client, RestError, decode, open_client
from mexc_trio.files import open_own, refuse_others, write_own
from mexc_trio.settings import Settings
from mexc_trio.spans import EARLIEST, now
from mexc_trio.symbols import parse_symbol
from mexc_trio.texts import one_line
from mexc_trio.times import time_name

log = logging.getLogger(__name__)


FILE: Final = "contracts.json"
"""Is shorter than the answer from which it was made: 17 KB with 1,200 contracts."""


class LastList(msgspec.Struct, frozen=True):
    """The contracts that were traded, as the file has them."""

    url: str
    """Of the exchange's REST interface."""
    asked: Annotated[int, msgspec.Meta(ge=EARLIEST)]
    """When it was asked, in milliseconds."""
    symbols: Annotated[Sequence[str], msgspec.Meta(min_length=1, max_length=MOST_CONTRACTS)]

    @property
    def contracts(self) -> list[Contract]:
        """The same as an answer of the exchange has them."""
        return [Contract(symbol) for symbol in dict.fromkeys(self.symbols)]


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
        kept = decode(data, LastList)
        if odd := [symbol for symbol in kept.symbols if parse_symbol(symbol) != symbol]:
            raise UsageError(f"{odd[0][:40]!r} is not in upper case")
    except (OSError, msgspec.DecodeError, UsageError) as error:
        reason = one_line(getattr(error, "strerror", None) or str(error))
        log.warning("%s is not used: it is no list of contracts (%s)", path, reason)
        return None
    if kept.url != settings.rest_url:
        return None
    return msgspec.structs.replace(kept, asked=min(kept.asked, now()))


def keep_last(settings: Settings, last: LastList) -> None:
    """Keep a list for the next start, unless nothing is traded; OSError if that cannot be."""
    if last.symbols:
        write_own(settings.state_directory / FILE, msgspec.json.encode(last).decode())


PATIENCE: Final = 10.0
"""Seconds to wait for the first list while there are symbols, given by name, to begin with."""
SHORT_PATIENCE: Final = 3.0
"""The same while there is the list of the last run: nothing of what that has is to be missed."""


@attrs.frozen
class ListingChange:
    """What the newest list has and the one before had not, and the other way round."""

    new: tuple[str, ...]
    gone: tuple[str, ...]
    since: int = attrs.field(default=0, eq=False)
    """When the list before was asked for, in milliseconds."""


@attrs.define(eq=False)
class Discovery:
    """Finds contracts. Get one from `open_discovery`."""

    settings: Settings
    _client: Client
    _found: set[str] = attrs.field(factory=set, init=False)
    _missing: set[str] = attrs.field(factory=set, init=False)
    _asked: int = attrs.field(factory=now, init=False)
    _pause: float = attrs.field(default=0.0, init=False)
    """Seconds until the list is asked for again because there was none; 0 once there is one."""
    _newest: LastList | None = attrs.field(default=None, init=False)
    """What is still to be kept for the next start."""
    _cannot_keep: bool = attrs.field(default=False, init=False)

    async def begin(self) -> tuple[str, ...]:
        """Return what is to be recorded from the start: the given symbols, then those found.

        Without a list of contracts that of the last run does, or else the given ones begin alone;
        `change` finds the others later. Where there is neither it asks until there is a list.
        Raises UsageError if a pattern, or all of them together, matches nothing, our shard has
        none, or others may have put something into the state directory, see `refuse_others`.
        """
        named, last = self.settings.symbols, read_last(self.settings)
        if last and not self._matching(last.contracts):
            last = None
        asked = now()
        if named or last:
            patience = SHORT_PATIENCE if last else PATIENCE
            try:
                with trio.fail_after(patience):
                    contracts: Sequence[Contract] = await contracts_of(self._client)
            except (RestError, trio.TooSlowError) as error:
                self._pause = error.first if isinstance(error, RestError) else 1.0
                reason = str(error) or f"no answer within {patience:g} s"
                return self._without_list(reason, last)
        else:
            contracts = await list_contracts(self._client)
        self._newest = self._list_of(contracts, asked)
        found = self._matching(contracts)
        self._refuse_idle_patterns(contracts, self._wanted(contracts))
        if not found and not named:
            raise UsageError(f"no listed contract belongs to shard {self.settings.shard}")
        self._found = set(found)
        log.info("%d of %d listed contracts match", len(found), len(contracts))
        return tuple(dict.fromkeys((*named, *found)))

    def _without_list(self, reason: str, last: LastList | None) -> tuple[str, ...]:
        """Return what is recorded until there is a list, and tell of it."""
        named = self.settings.symbols
        if last is None:
            log.warning("no list of contracts: %s; recording begins with the others", reason)
            return named
        found = self._matching(last.contracts)
        self._found, self._asked = set(found), last.asked
        log.warning(
            "no list of contracts: %s; until there is one, recording begins with the %d that match "
            "of %s UTC",
            reason, len(found), time_name(last.asked),
        )  # fmt: skip
        return tuple(dict.fromkeys((*named, *found)))

    async def change(self) -> ListingChange:
        """Wait until a list differs from the one before in what matches.

        A contract is gone when two lists in a row lack it: one that breaks off early, or comes
        from a server that is behind, is not to end a recording.
        """
        while True:
            self._keep()
            # Not all recorders at the same second.
            jitter = 0.9 + random.random() / 5  # noqa: S311 - no secret
            await trio.sleep(self._pause or self.settings.refresh * jitter)
            since, at = self._asked, now()
            contracts = await list_contracts(self._client)
            self._pause, self._newest = 0.0, self._list_of(contracts, at)
            matching = self._matching(contracts)
            self._asked = at
            missing = self._found.difference(matching)
            gone = sorted(missing & self._missing)
            new = [symbol for symbol in matching if symbol not in self._found]
            self._missing = missing.difference(gone)
            self._found = self._found.difference(gone).union(new)
            if new or gone:
                return ListingChange(tuple(new), tuple(gone), since)

    def forget(self, symbol: str) -> None:
        """Take a symbol for one that was not listed: the next list has it anew."""
        self._found.discard(symbol)

    def _list_of(self, contracts: Sequence[Contract], asked: int) -> LastList:
        traded = [contract.symbol for contract in contracts if contract.state == ON]
        return LastList(self.settings.rest_url, asked, traded)

    def _keep(self) -> None:
        """Keep the newest list for the next start; that this cannot be done is told once."""
        if self._newest is None:
            return
        try:
            keep_last(self.settings, self._newest)
            self._cannot_keep = False
        except OSError as error:
            if not self._cannot_keep:
                log.warning("the list of contracts is not kept: %s", error.strerror)
            self._cannot_keep = True
        self._newest = None

    def _matching(self, contracts: Sequence[Contract]) -> list[str]:
        """Return those of the symbols that are wanted which belong to our shard."""
        shard, wanted = self.settings.shard, self._wanted(contracts)
        if shard is None:
            return wanted
        chosen = {one: self.settings.for_symbol(one).shard for one in wanted}
        return [symbol for symbol in wanted if shard.has(symbol, chosen[symbol])]

    def _wanted(self, contracts: Sequence[Contract]) -> list[str]:
        """Return the symbols that are found, not those that are given, in the exchange's order."""
        settings = self.settings
        return [
            contract.symbol
            for contract in contracts
            if contract.state == ON
            and contract.symbol not in settings.symbols
            and (not settings.quote or contract.quote in settings.quote)
            and (settings.all or _matches(contract.symbol, settings.patterns))
        ]

    def _refuse_idle_patterns(self, contracts: Sequence[Contract], found: Sequence[str]) -> None:
        listed = [*found, *(c.symbol for c in contracts if c.symbol in self.settings.symbols)]
        quote = f" with quote {' or '.join(self.settings.quote)}" if self.settings.quote else ""
        for pattern in self.settings.patterns:
            if not any(_matches(symbol, [pattern]) for symbol in listed):
                raise UsageError(f"no listed contract{quote} matches {pattern!r}")
        if not listed:
            raise UsageError(f"no contract{quote} is listed at {self._client.url}")


def _matches(symbol: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(symbol, pattern) for pattern in patterns)


@asynccontextmanager
async def open_discovery(settings: Settings) -> AsyncIterator[Discovery]:
    """Open what asks the exchange's REST interface for contracts."""
    async with open_client(settings.rest_url, settings.route[0]) as client:
        yield Discovery(settings, client)
