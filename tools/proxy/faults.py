"""What is to go wrong, and the bytes after which it does."""

import enum

import attrs
import trio


class Direction(enum.Enum):
    """Which way bytes travel."""

    TO_SERVER = "to-server"
    TO_CLIENT = "to-client"

    @property
    def opposite(self) -> "Direction":
        """The other way."""
        return Direction.TO_CLIENT if self is Direction.TO_SERVER else Direction.TO_SERVER


class Kind(enum.Enum):
    """What a fault does to its connection."""

    CUT = "cut"  # both sides see a reset
    CLOSE = "close"  # both sides see an orderly end
    HALF_CLOSE = "half-close"  # this direction ends; the other goes on
    STALL = "stall"  # nothing moves any more, nothing ends, until resume()
    DELAY = "delay"  # this direction pauses for `seconds`, once
    SWALLOW = "swallow"  # the client's bytes go on, the answer to them does not arrive; then cut
    REFUSE = "refuse"  # this connection goes on; new ones are refused


@attrs.frozen
class Fault:
    r"""Something to go wrong once `after_bytes` more bytes have travelled in `direction`.

    Bytes count from the moment of arming, over all connections; with a `pattern`, from the end of
    its next appearance, on the connection where it appeared. Exactly the bytes up to the position
    are passed on before the fault strikes. Zero bytes without a pattern strikes when the next byte
    comes, before passing it on.

    `until` is for SWALLOW: the cut waits for an answer that ends with it (default: for any answer).
    `b"\x05"` is ClickHouse's word for a finished query, where progress reports may come before.
    """

    direction: Direction
    after_bytes: int = attrs.field(validator=attrs.validators.ge(0))
    kind: Kind
    pattern: bytes = b""
    seconds: float = 0.0
    until: bytes = b""


@attrs.define(eq=False)
class Armed:
    """A fault that waits for its position; `fired` is set once it has struck."""

    fault: Fault
    fired: trio.Event = attrs.field(init=False, factory=trio.Event)
    _remaining: int = attrs.field(init=False)
    _bound_to: object = attrs.field(init=False, default=None)
    # The last bytes of each connection, for a pattern that arrives in two pieces.
    _tails: dict[object, bytes] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._remaining = self.fault.after_bytes

    def due(self, connection: object, data: bytes) -> int | None:
        """Return the offset in `data` at which the fault strikes, None if not within it."""
        start = self._counting_from(connection, data)
        if start is None or start + self._remaining > len(data):
            return None
        return start + self._remaining

    def advance(self, connection: object, data: bytes) -> None:
        """Take notice of bytes that are passed on without the fault striking within them."""
        start = self._counting_from(connection, data)
        if start is not None:
            if self.fault.pattern:
                self._bound_to = connection
            self._remaining -= len(data) - start
        elif self._bound_to is None:
            keep = len(self.fault.pattern) - 1
            tail = self._tails.get(connection, b"") + data
            self._tails[connection] = tail[-keep:] if keep else b""

    def forget(self, connection: object) -> None:
        """Start over with the pattern if its connection ended before the position."""
        self._tails.pop(connection, None)
        if self._bound_to is connection:
            self._bound_to = None
            self._remaining = self.fault.after_bytes

    def _counting_from(self, connection: object, data: bytes) -> int | None:
        """Return the offset in `data` from which bytes count, None if they do not count."""
        if not self.fault.pattern or self._bound_to is connection:
            return 0
        if self._bound_to is not None:
            return None
        tail = self._tails.get(connection, b"")
        found = (tail + data).find(self.fault.pattern)
        return None if found < 0 else found + len(self.fault.pattern) - len(tail)
