"""Where one channel of a symbol has come to, as its ledger of gaps knows it."""

import attrs

from mexc_trio.rows import Cause, Channel


@attrs.define
class OpenGap:
    """A gap that no row has ended yet."""

    cause: Cause
    detail: str
    start: int
    """Milliseconds: the channel's last row before; 0 if it is since the ledger was opened."""
    version: int


@attrs.define
class Mark:
    """The last row of one channel, and the gap that is open after it."""

    channel: Channel
    ts: int = 0
    """Milliseconds; 0 if there was none yet."""
    version: int = 0
    gap: OpenGap | None = None
