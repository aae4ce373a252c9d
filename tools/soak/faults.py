"""Hundreds of faults over one recording, one after another and into each other; then every row.

The exchange runs here; the recorder is a process that writes into an engine of its own, or into a
server behind a proxy that breaks the network at any byte of an INSERT. A reader asks meanwhile. In
the end the table has what was received on each connection, in its order and each row once, and what
was lost on its way is told in `gaps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import attrs
import trio

from mexc_trio.channels import BY_TYPE
from mexc_trio.clickhouse.tables import in_order
from tools.exchange import open_exchange
from tools.proxy import LOOPBACK, open_proxy
from tools.soak.breaking import Breaking, Faults
from tools.soak.made import in_turn
from tools.soak.recorder import SYMBOL, Outcome, Place, kill, stop

if TYPE_CHECKING:
    from tools.clickhouse import ClickHouseServer
    from tools.market import Row

IMPATIENT: Final = "&send_receive_timeout=2&sync_request_timeout=2&connect_timeout=2"
"""The program waits for 10 s unless it is told."""


@attrs.frozen(kw_only=True)
class Result(Outcome):
    """What came of it."""

    seconds: float
    faults: dict[str, int]
    answers: dict[str, int]
    """What the reader got."""
    connections: int
    """To the exchange."""
    rows: int
    """Rows that are stored."""
    wrong_rows: int
    """Those that are not the ones that were sent next."""
    unheard: int
    """Rows that were sent, and lost on their way to a recorder that was killed or cut off."""
    untold: Sequence[Row]
    """Those of them that no row of `gaps` tells of."""
    wrongs: Sequence[str]
    """What is wrong, as `mexc-trio verify` says."""
    exit_code: int

    @property
    def wrong(self) -> bool:
        """Whether a promise was broken."""
        return bool(self.wrong_rows or self.untold or self.wrongs or self.exit_code)


async def try_faults(trial: Faults, server: ClickHouseServer | None = None) -> Result:
    """Do it, and compare. Before a server, where rows go if there is one, is a proxy."""
    async with AsyncExitStack() as stack:
        opened = open_exchange(rate=trial.rate, seed=trial.seed)
        exchange = await stack.enter_async_context(opened)
        proxy, place = None, Place(trial.directory, trial.store)
        if server is not None:
            port = server.tcp_port
            proxy = await stack.enter_async_context(open_proxy(LOOPBACK, port))
            url = server.url.replace(f":{port}/", f":{proxy.port}/")
            place = Place(trial.directory, url + IMPATIENT)
        trouble = Breaking(trial, exchange, place, server, proxy)
        began = trio.current_time()
        try:
            await trouble.start()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trouble.read)
                nursery.start_soon(trouble.listen)
                await trouble.run()
                nursery.cancel_scope.cancel()
            seconds = trio.current_time() - began
            exchange.silence()
            await trouble.heard()
            await trouble.written()
            exit_code = await stop(trouble.recorder)
        finally:
            await kill(trouble.recorder)
        return _compared(trouble, seconds, exit_code)


def _compared(trouble: Breaking, seconds: float, exit_code: int) -> Result:
    trial, exchange = trouble.trial, trouble.exchange
    stored, ledger = trial.rows(in_order(trial.engine == "mergetree")), trial.ledger()
    wrong, unheard = in_turn(exchange.sent(SYMBOL), stored)
    return Result(
        seconds=round(seconds, 1),
        faults=dict(sorted(trouble.done.items())),
        answers=dict(trouble.answers),
        connections=exchange.accepted,
        rows=len(stored),
        wrong_rows=wrong,
        unheard=len(unheard),
        untold=[
            row
            for row in unheard
            if not any(
                gap.channel in (BY_TYPE[row[1]], "all") and gap.start <= row[0] <= gap.end
                for gap in ledger
            )
        ],
        wrongs=trial.wrongs(),
        exit_code=exit_code,
    )
