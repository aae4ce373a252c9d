"""Where the messages of one symbol go, and what befalls its connection."""

from collections.abc import Mapping
from typing import Protocol

from mexc_trio.errors import ExchangeError, UnknownContract
from mexc_trio.exchange.heard import Heard
from mexc_trio.exchange.liveness import Liveness
from mexc_trio.exchange.messages import Data
from mexc_trio.rows import Channel


class Feed(Protocol):
    """What a connection calls for one of its symbols."""

    @property
    def symbol(self) -> str:
        """The contract, as the exchange writes it."""

    @property
    def liveness(self) -> Mapping[Channel, Liveness]:
        """Of each channel that is to be subscribed to, whether it is alive."""

    @property
    def stopped(self) -> bool:
        """Whether it wants no more messages."""

    def data(self, message: Data) -> None:
        """Take the rows of a frame."""

    def subscribed(self, channel: Channel, since: int, heard: Heard) -> None:
        """Note that the exchange has confirmed a subscription on this connection.

        `since` is in its milliseconds, 0 if it does not say, and `heard` until when the connection
        is heard.
        """

    def skipped(self) -> None:
        """Count a frame that holds nothing to record."""

    def unreadable(self) -> None:
        """Note that a frame that may have been for this symbol went to another as a dead letter."""

    def silent(self, channel: Channel, seconds: float) -> None:
        """Note that a channel has been silent for longer than is usual for it."""

    def refused(self, error: UnknownContract) -> float:
        """Note that the exchange denies the contract; return the seconds until it is asked again.

        It denies contracts that exist, too, while it restarts.
        """

    def connection_lost(self, error: ExchangeError) -> None:
        """Count an error; the connection is made anew unless this was one too many."""

    def replacement(self) -> "Feed | None":
        """Return the same for a connection that is made beside this one, to replace it.

        None where two connections at once are of no use: then the old one is broken first.
        """

    def has_taken_over(self) -> bool:
        """Whether a replacement has all that the replaced one has, so that nothing is lost."""

    def retire(self, error: ExchangeError) -> None:
        """Hear no more: a replacement goes on, or this is one whose connection has failed."""
