"""Whether a symbol exists, by the exchange's list, when the socket says that it does not.

The socket may be wrong while the exchange is maintained. So a symbol is given up only if the list
lacks it too, and nothing was ever recorded of it: then it is most likely misspelt. Where the list
cannot be had, nothing is given up.
"""

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from mexc_trio.settings.routes import DIRECT, Route

log = logging.getLogger(__name__)

FRESH: Final = 60.0
"""Seconds for which one list answers for all symbols."""

Exists = Callable[[str], Awaitable[bool | None]]
"""Says whether the exchange lists a symbol; None if it cannot be asked."""


@attrs.define(eq=False)
class KnownContracts:
    """Asks the REST interface at `url` for its list, at most once in `FRESH` seconds."""

    url: str
    route: Route = DIRECT
    _symbols: set[str] | None = attrs.field(default=None, init=False)
    _asked: float = attrs.field(default=-math.inf, init=False)
    _lock: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    async def has(self, symbol: str) -> bool | None:
        """Return whether the exchange lists a symbol; None if it could not be asked."""
        async with self._lock:
            if trio.current_time() - self._asked > FRESH:
                self._symbols = await self._ask()
                self._asked = trio.current_time()
        return None if self._symbols is None else symbol in self._symbols

    async def _ask(self) -> set[str] | None:
        # Here, because the HTTP client takes a while to load, and most do without it.
        from mexc_trio.exchange.contracts import contracts_of
        from mexc_trio.exchange.rest import RestError, open_client

        try:
            async with open_client(self.url, self.route) as client:
                return {contract.symbol for contract in await contracts_of(client)}
        except RestError as error:
            log.info("whether a contract exists cannot be found out: %s", error)
            return None
