"""What was sent: each push frame's number, its rows, and its line in the log file."""

from __future__ import annotations

import base64
import functools
import json
from collections import defaultdict
from collections.abc import Callable
from typing import TextIO

import attrs

from tools.market import Row, truth


@attrs.define
class Record:
    """One push frame on its way to one connection.

    ``n`` counts all frames of the exchange, from 1. ``channel`` is None for frames that were
    handed to ``Exchange.send``. ``completed`` says that the frame was handed to the network in
    full, which is not yet that it arrived.
    """

    n: int
    connection: int
    symbol: str
    channel: str | None
    frame: str | bytes
    replayed: bool = False
    completed: bool = False

    @functools.cached_property
    def rows(self) -> list[Row] | None:
        """The rows that a recorder must store; None where they are unknown (see ``truth``)."""
        return None if self.replayed else truth(self.frame)

    def line(self) -> str:
        """Write the record as one line of JSON, as the log file has it."""
        text = self.frame if isinstance(self.frame, str) else None
        entry: dict[str, object] = {
            "n": self.n,
            "connection": self.connection,
            "symbol": self.symbol,
            "channel": self.channel,
            "frame": text,
            "rows": self.rows,
        }
        if isinstance(self.frame, bytes):
            entry["base64"] = base64.b64encode(self.frame).decode()
        return json.dumps(entry, ensure_ascii=False) + "\n"


@attrs.define(eq=False)
class Records:
    """The records of an exchange's frames, by symbol.

    ``log`` takes one line of JSON for each frame. ``keep`` False keeps no record in memory.
    ``listeners`` are called with each record as it is made, with that of a shared frame once.
    """

    log: TextIO | None = None
    keep: bool = True
    count: int = attrs.field(default=0, init=False)
    listeners: list[Callable[[Record], None]] = attrs.field(factory=list, init=False)
    _by_symbol: defaultdict[str, list[Record]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._by_symbol = defaultdict(list)

    def of(self, symbol: str) -> list[Record]:
        """List a symbol's records, in the order of sending."""
        return list(self._by_symbol[symbol])

    def add(
        self,
        connection: int,
        symbol: str,
        channel: str | None,
        frame: str | bytes,
        *,
        replayed: bool = False,
        again: bool = False,
    ) -> Record:
        """Record a frame that is about to be sent; ``again`` if another connection gets it, too."""
        self.count += 1
        record = Record(self.count, connection, symbol, channel, frame, replayed)
        if self.keep:
            self._by_symbol[symbol].append(record)
        if self.log is not None:
            self.log.write(record.line())
        for listener in () if again else self.listeners:
            listener(record)
        return record

    def flush(self) -> None:
        """Hand the log's lines to the operating system."""
        if self.log is not None:
            self.log.flush()
