"""Work at the end of each of Trio's turns.

In a turn Trio lets every task go on that can. Then it waits, for the network or for time. What is
done in between is done for all tasks of the turn together, and before anything is waited for.
"""

from collections.abc import Callable
from typing import NoReturn

import attrs
import trio


async def at_end_of_each_turn(act: Callable[[], None]) -> NoReturn:
    """Call `act` at the end of each turn, until cancelled.

    Trio looks for tasks that can go on before it calls: if `act` wakes one, that one is heard when
    the wait is over, and not before.

    Raises:
        Exception: what `act` raised; it is not called again.
    """
    instrument = _AtEnd(act)
    trio.lowlevel.add_instrument(instrument)
    try:
        await instrument.failed.wait()
    finally:
        trio.lowlevel.remove_instrument(instrument)
    assert instrument.error is not None  # noqa: S101 - it set the event
    raise instrument.error


@attrs.define(eq=False)
class _AtEnd(trio.abc.Instrument):
    # A task would do, one that waits until all others do. It took three turns more for each frame
    # that came alone: a fifth of the time until it was journaled.
    act: Callable[[], None]
    error: Exception | None = None
    failed: trio.Event = attrs.field(factory=trio.Event, init=False)

    def before_io_wait(self, timeout: float) -> None:
        if self.error is not None:
            return
        try:
            self.act()
        except Exception as error:  # noqa: BLE001 - Trio would log it, and go on without us
            self.error = error
            trio.lowlevel.current_trio_token().run_sync_soon(self.failed.set)
