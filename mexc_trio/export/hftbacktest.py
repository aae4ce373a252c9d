"""Deals and books in the format that hftbacktest's own tools read: an .npz of feed events.

One event is 64 bytes: what it is, when on the exchange and when at the local machine (nanoseconds),
price, amount. Three things to know:

- The format's prices are floats of 64 bits. They are read from the exchange's digits one by one.
- `local_ts` is the time of receipt, where tables are wide, see `local_time`.
- Books are told as changes, see `books`. Each file begins with a clear and the whole book, so that
  it can be read alone, and ends with a clear if books are missing at its end. Files of days that
  follow each other can be read as one: neither clock goes back from one to the next.

Beside the file stands what a backtest is to be told of the contract: tick, lot and size as the
table `contracts` has them. Where it has none, or the file has numbers between them, tick and lot
are the greatest steps of which all prices and all amounts in the file are multiples.
"""

import logging
import math
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final

from mexc_trio.clickhouse.recorded_terms import RecordedTerms, digits
from mexc_trio.export.books import BIDS, Books, in_units
from mexc_trio.export.local_time import LocalClock
from mexc_trio.rows import DEAL
from mexc_trio.spans import EARLIEST, LATEST
from mexc_trio.texts import trimmed

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

log = logging.getLogger(__name__)

DEPTH_EVENT: Final = 1
TRADE_EVENT: Final = 2
DEPTH_CLEAR_EVENT: Final = 3
DEPTH_SNAPSHOT_EVENT: Final = 4
BUY_EVENT: Final = 1 << 29
SELL_EVENT: Final = 1 << 28
# Seen by the exchange and by the local machine.
BOTH: Final = (1 << 31) | (1 << 30)

_FIELDS: Final = [
    ("ev", "u8"), ("exch_ts", "i8"), ("local_ts", "i8"), ("px", "f8"), ("qty", "f8"),
    ("order_id", "u8"), ("ival", "i8"), ("fval", "f8"),
]  # fmt: skip
_COPY: Final = 1 << 20
_DECIMALS: Final = 18
_MOST_SEEN: Final = 100_000
_FLUSH: Final = 50_000

Event = tuple[int, int, int, float, float, int, int, float]


@contextmanager
def open_events(
    file: BinaryIO, gaps: Sequence[int], local: LocalClock, terms: Sequence[RecordedTerms]
) -> "Iterator[tuple[Callable[[pa.Table], None], Mapping[str, str]]]":
    """Lend what writes rows, with the columns of `ExportSource.rows`, as `data` of an .npz.

    And what is to stand beside it, which is known when the block has ended. `gaps` are when gaps in
    the books begin that are in the file, or at its end, in order, in milliseconds. Of `terms`, what
    is known of the contract, the last ones count.
    """
    about: dict[str, str] = {}
    # The events are spooled: their number stands at the beginning of `data`.
    with tempfile.TemporaryFile(dir=_directory(file)) as spool:
        events = _Events(spool, gaps, local)
        yield events.write, about
        about |= events.finish(terms[-1] if terms else None)
        _archive(spool, events.number, file)


def _archive(spool: IO[bytes], events: int, file: BinaryIO) -> None:
    """Turn the spool into the archive."""
    from numpy.lib import format as npy

    header: Mapping[str, Any] = {
        "descr": npy.dtype_to_descr(_dtype()),
        "fortran_order": False,
        "shape": (events,),
    }
    spool.seek(0)
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, True, 1) as archive,
        archive.open("data.npy", "w", force_zip64=True) as data,
    ):
        # hftbacktest reads no later version.
        npy.write_array_header_1_0(data, header)  # type: ignore[arg-type]
        shutil.copyfileobj(spool, data, _COPY)


class _Events:
    """The events of a file, as they are written into a spool."""

    def __init__(self, spool: IO[bytes], gaps: Sequence[int], local: LocalClock) -> None:
        self.number = 0
        self._spool = spool
        self._books = Books(gaps)
        self._local = local
        self._tick, self._lot = _Step(), _Step()
        self._impossible = 0

    def write(self, table: "pa.Table") -> None:
        events: list[Event] = []
        columns = (column.to_pylist() for column in table.columns[:4])
        for ts, mt, m, received in zip(*columns, strict=True):
            if not EARLIEST <= ts < LATEST:  # the format's nanoseconds end in 2262
                self._impossible += 1
                continue
            events += self._clears(ts)
            local = self._local.of(ts, received)
            if mt == DEAL:
                events.append(self._deal(ts, local, m))
            else:
                self._depth(events, ts, local, m)
            if len(events) >= _FLUSH:
                self._flush(events)
        self._flush(events)

    def finish(self, terms: RecordedTerms | None) -> dict[str, str]:
        """Write the last clears; return what a backtest is to be told of the contract."""
        self._flush(self._clears(LATEST))
        if self._impossible:
            log.warning("%d rows have an impossible time and are left out", self._impossible)
        if terms is None:
            return {"tick_size": self._tick.text, "lot_size": self._lot.text}
        said = {
            "tick_size": self._tick.or_coarser(known := digits(terms.tick)),
            "lot_size": self._lot.or_coarser(digits(terms.lot)),
            "contract_size": digits(terms.contract_size),
        }
        if known and known != (tick := said["tick_size"]):
            log.warning(
                "prices lie between the contract's ticks of %s: tick_size is %s", known, tick
            )
        return {name: text for name, text in said.items() if text}

    def _flush(self, events: list[Event]) -> None:
        import numpy as np

        self.number += len(events)
        self._spool.write(np.array(events, dtype=_dtype()).tobytes())
        events.clear()

    def _clears(self, ts: int) -> list[Event]:
        """Return the clears of gaps that begin before a time."""
        return [
            _event(DEPTH_CLEAR_EVENT, at, self._local.after(at), 0.0, 0.0)
            for at in self._books.gaps_before(ts)
        ]

    def _depth(self, events: list[Event], ts: int, local: int, m: str) -> None:
        for change in self._books.become(m):
            if change.action == "clear":
                events.append(_event(DEPTH_CLEAR_EVENT, ts, local, 0.0, 0.0))
                continue
            if change.action != "delete":
                self._tick.add(change.price)
                self._lot.add(change.amount)
            kind = DEPTH_SNAPSHOT_EVENT if change.snapshot else DEPTH_EVENT
            side = BUY_EVENT if change.side == BIDS else SELL_EVENT
            price, amount = float(change.price), float(change.amount)
            events.append(_event(kind | side, ts, local, price, amount))

    def _deal(self, ts: int, local: int, m: str) -> Event:
        price, volume, direction = m.split("|")
        self._tick.add(price)
        self._lot.add(volume)
        side = BUY_EVENT if direction == "1" else SELL_EVENT
        return _event(TRADE_EVENT | side, ts, local, float(price), float(volume))


def _event(ev: int, ts: int, local: int, price: float, amount: float) -> Event:
    return (ev | BOTH, ts * 1_000_000, local, price, amount, 0, 0, 0.0)


class _Step:
    """The greatest step of which all numbers that were added are multiples."""

    def __init__(self) -> None:
        self._units = 0
        self._seen: set[str] = set()

    def add(self, text: str) -> None:
        if text in self._seen:
            return
        if len(self._seen) < _MOST_SEEN:
            self._seen.add(text)
        self._units = math.gcd(self._units, in_units(text, _DECIMALS))

    def or_coarser(self, text: str) -> str:
        """Return a step that somebody knows if all numbers are multiples of it, else our own."""
        known = in_units(text, _DECIMALS) if text else 0
        return text if known and not self._units % known else self.text

    @property
    def text(self) -> str:
        """The step in digits; `0` if there were no numbers."""
        digits = str(self._units).zfill(_DECIMALS + 1)
        return trimmed(f"{digits[:-_DECIMALS]}.{digits[-_DECIMALS:]}")


def _dtype() -> "np.dtype[np.void]":
    import numpy as np

    return np.dtype(_FIELDS, align=True)


def _directory(file: BinaryIO) -> str | None:
    """Return where a file is, so that a big spool does not fill the disk of /tmp."""
    from pathlib import Path

    name = getattr(file, "name", None)
    return str(Path(name).parent) if isinstance(name, str) else None
