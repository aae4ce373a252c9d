"""Which contracts are recorded because they are listed, and how that changes while recording.

Some symbols are given by name. Others are found among the contracts that the exchange lists: all of
them, or those that match a pattern such as `*STOCK_USDT`. `Discovery` asks for that list now and
then and tells what is new and what is gone.
"""

import fnmatch
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from mexc_trio.errors import UsageError
from mexc_trio.exchange.contracts import ON, Contract, contracts_of, list_contracts
from mexc_trio.exchange.rest import Client, RestError, open_client
from mexc_trio.settings import Settings
from mexc_trio.spans import now

log = logging.getLogger(__name__)

PATIENCE: Final = 10.0
"""Seconds to wait for the first list while there are symbols, given by name, to begin with."""


@attrs.frozen
class Change:
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

    async def begin(self) -> tuple[str, ...]:
        """Return what is to be recorded from the start: the given symbols, then those found.

        Without a list of contracts the given ones begin alone, and `change` finds the others
        later. Where none is given it asks until there is a list.

        Raises:
            UsageError: a pattern, or all of them together, matches nothing.
        """
        named = self.settings.symbols
        contracts: Sequence[Contract] = ()
        if named:
            try:
                with trio.fail_after(PATIENCE):
                    contracts = await contracts_of(self._client)
            except (RestError, trio.TooSlowError) as error:
                reason = str(error) or f"no answer within {PATIENCE:g} s"
                log.warning("no list of contracts: %s; recording begins with the others", reason)
                return named
        else:
            contracts = await list_contracts(self._client)
        found = self._matching(contracts)
        self._refuse_idle_patterns(contracts, found)
        self._found = set(found)
        log.info("%d of %d listed contracts match", len(found), len(contracts))
        return tuple(dict.fromkeys((*named, *found)))

    async def change(self) -> Change:
        """Wait until a list differs from the one before in what matches.

        A contract is gone when two lists in a row lack it: one that breaks off early, or comes
        from a server that is behind, is not to end a recording.
        """
        while True:
            # Not all recorders at the same second.
            jitter = 0.9 + random.random() / 5  # noqa: S311 - no secret
            await trio.sleep(self.settings.refresh * jitter)
            since, at = self._asked, now()
            matching = self._matching(await list_contracts(self._client))
            self._asked = at
            missing = self._found.difference(matching)
            gone = sorted(missing & self._missing)
            new = [symbol for symbol in matching if symbol not in self._found]
            self._missing = missing.difference(gone)
            self._found = self._found.difference(gone).union(new)
            if new or gone:
                return Change(tuple(new), tuple(gone), since)

    def forget(self, symbol: str) -> None:
        """Take a symbol for one that was not listed: the next list has it anew."""
        self._found.discard(symbol)

    def _matching(self, contracts: Sequence[Contract]) -> list[str]:
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
