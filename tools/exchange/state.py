"""What the parts of the exchange share: its market, its connections, what it was told to do.

The parts that serve, feed, replay and answer know this module, and none of them knows the exchange
as tests see it, in ``core``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from tools.exchange.listing import Listing
from tools.exchange.records import Record, Records
from tools.exchange.tape import Tape
from tools.market import CHANNELS, Channel, Market

if TYPE_CHECKING:
    from tools.exchange.connection import Connection
    from tools.exchange.handshakes import Handshake

Unmerged = Literal["sent", "refused", "ignored"]


@attrs.define(eq=False)
class State:
    """The exchange's state, and the two things that every part does with it: send and wait.

    These attributes may be changed at any time:

    - ``handshake``: what new connections meet;
    - ``answer_pings``: False leaves application pings unanswered (connections that go on sending
      them stay open);
    - ``withheld_acks``: channels whose subscriptions work but are not acknowledged;
    - ``unmerged_deals``: what becomes of a subscription that asks for them;
    - ``refusal``: what it says of a contract that does not exist;
    - ``loss``: the share of frames of shared deals that do not reach one of several connections;
    - ``split_bytes``: True sends what new connections get in TCP segments of one byte.

    ``accepted`` counts TCP connections since the start, ``requests`` keeps what clients sent, as
    pairs of connection number and text (if ``keep``). ``lost`` counts frames that did not reach one
    of several connections.
    """

    market: Market
    rate: float = 0.0
    ping_limit: float = 60.0
    listing: Listing = attrs.field(factory=lambda: Listing({}, False, ()))
    split_bytes: bool = False
    shared: bool = False
    loss: float = 0.0
    delays: Sequence[float] = ()
    records: Records = attrs.field(factory=Records)

    handshake: Handshake = attrs.field(default="accept", init=False)
    answer_pings: bool = attrs.field(default=True, init=False)
    withheld_acks: set[Channel] = attrs.field(factory=set, init=False)
    unmerged_deals: Unmerged = attrs.field(default="sent", init=False)
    refusal: str = attrs.field(default="Contract [{symbol}] not exists", init=False)
    accepted: int = attrs.field(default=0, init=False)
    lost: int = attrs.field(default=0, init=False)
    requests: list[tuple[int, str]] = attrs.field(factory=list, init=False)

    chance: random.Random = attrs.field(init=False)
    opened: list[Connection] = attrs.field(factory=list, init=False)
    silenced: set[tuple[str | None, Channel | None]] = attrs.field(factory=set, init=False)
    tape: Tape = attrs.field(factory=Tape, init=False)

    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.chance = random.Random(self.market.seed)

    @property
    def symbols(self) -> list[str]:
        """The symbols that open connections have subscribed to."""
        return sorted({symbol for one in self.opened for symbol in one.subscriptions})

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds.

        It is looked at whenever a connection is accepted, opened or closed, a request has been
        dealt with, or frames have been sent.
        """
        while not condition():
            await self._changed.wait()

    async def subscribed(self, symbol: str, channels: Collection[Channel] = CHANNELS) -> None:
        """Wait until an open connection is subscribed to all these channels of a symbol."""
        await self.until(
            lambda: any(
                set(channels) <= connection.subscriptions.get(symbol, {}).keys()
                for connection in self.opened
            )
        )

    def subscribers(self, symbol: str, channel: Channel | None = None) -> list[Connection]:
        """List the connections with a subscription of a symbol (and channel)."""
        return [
            connection
            for connection in self.opened
            if symbol in connection.subscriptions
            and (channel is None or channel in connection.subscriptions[symbol])
        ]

    def is_silenced(self, symbol: str, channel: Channel) -> bool:
        """Whether nothing is to be sent of a symbol's channel by itself."""
        silences = {(symbol, channel), (symbol, None), (None, channel), (None, None)}
        return not self.silenced.isdisjoint(silences)

    async def transmit(self, connection: Connection, records: list[Record]) -> None:
        """Send recorded frames.

        Nothing is awaited between recording and the queue for the wire's lock, which is fair, so
        that records are in the order of the wire.
        """
        if not records:
            await trio.lowlevel.checkpoint()
            return
        self.records.flush()
        if connection.delay:
            at = trio.current_time() + connection.delay
            connection.late.append((at, [record.frame for record in records]))
            await trio.lowlevel.checkpoint()
            return
        completed = await connection.send([record.frame for record in records])
        for record in records:
            record.completed = completed
        connection.frames += len(records) if completed else 0
        self.notify()

    def notify(self) -> None:
        """Let those who wait in ``until`` look at their conditions."""
        self._changed.set()
        self._changed = trio.Event()
