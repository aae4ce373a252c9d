"""The frames that a load consists of, and the rows that must be stored of them.

The frames are built before anything is measured: a pool of a busy contract's frames, written for a
symbol that is as good as any, which is replaced by each real one. A pool is the same in every
process that builds it, so the process that sends and the one that checks need not talk about it.
"""

import functools
import hashlib
import itertools
import struct
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import attrs

from tools.market import Market, Row, truth

POOL: Final = 20_000
"""Distinct frames; a longer load begins again with the first."""
_PLACEHOLDER: Final = "BTC_USDT"
_BEGIN: Final = 1_790_000_000_000  # milliseconds since 1970
_STEP: Final = 75  # milliseconds between frames, about what a busy contract has


class Fingerprint(NamedTuple):
    """What a table holds: how many rows, and a hash of all of them in their order."""

    rows: int
    digest: str


def fingerprint(rows: Iterable[tuple[int | str, ...]]) -> Fingerprint:
    """Read rows (ts in milliseconds, mt, m) and return their fingerprint."""
    digest, count = hashlib.sha256(), 0
    for row in rows:
        digest.update(_row_bytes(row))
        count += 1
    return Fingerprint(count, digest.hexdigest())


def _row_bytes(row: tuple[int | str, ...]) -> bytes:
    return "{}\t{}\t{}\n".format(*row).encode()


@attrs.frozen
class Pool:
    """Frames of one busy contract, and the rows of each."""

    texts: tuple[bytes, ...]
    rows: tuple[tuple[Row, ...], ...]

    @property
    def average_bytes(self) -> float:
        """Bytes of a frame, on average."""
        return sum(map(len, self.texts)) / len(self.texts)

    @property
    def rows_per_frame(self) -> float:
        """Rows of a frame, on average: a deal frame may hold several deals."""
        return sum(map(len, self.rows)) / len(self.rows)

    def writer(self, symbol: str, *, prebuilt: bool) -> Callable[[int], bytes]:
        """Return what makes the symbol's n-th frame, ready for the socket.

        Args:
            symbol: whose frames.
            prebuilt: build all of them now, for a receiver that takes them as fast as it can.
        """
        name, placeholder = symbol.encode(), _PLACEHOLDER.encode()
        texts, size = self.texts, len(self.texts)

        def build(n: int) -> bytes:
            return websocket_frame(texts[n % size].replace(placeholder, name))

        if not prebuilt:
            return build
        built = [build(n) for n in range(size)]
        return lambda n: built[n % size]

    def row_count(self, frames: int) -> int:
        """Return how many rows the first `frames` frames of a symbol make."""
        return sum(len(rows) for rows in itertools.islice(itertools.cycle(self.rows), frames))

    def expected(self, frames: int) -> Fingerprint:
        """Return the fingerprint of a table that has the first `frames` frames of a symbol."""
        sent = itertools.islice(itertools.cycle(self.rows), frames)
        return fingerprint(row for rows in sent for row in rows)


@functools.cache
def pool(size: int = POOL) -> Pool:
    """Build a pool: 4 % tickers, 69 % deals, 27 % books of 20 levels a side."""
    times = itertools.count(_BEGIN, _STEP)
    market = Market(seed=1, clock=lambda: next(times))
    texts = [market.frame(_PLACEHOLDER, market.draw_channel(_PLACEHOLDER)) for _ in range(size)]
    rows: list[tuple[Row, ...]] = []
    for text in texts:
        meant = truth(text)
        assert meant  # noqa: S101 - a market without oddities leaves nothing unclear
        rows.append(tuple(meant))
    return Pool(tuple(text.encode() for text in texts), tuple(rows))


def websocket_frame(payload: bytes) -> bytes:
    """Return a text message as a server puts it on the wire (RFC 6455, section 5.2)."""
    if len(payload) < 126:
        return struct.pack("!BB", 0x81, len(payload)) + payload
    return struct.pack("!BBH", 0x81, 126, len(payload)) + payload
