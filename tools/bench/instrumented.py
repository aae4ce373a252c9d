"""The recorder with a stopwatch: `python -m tools.bench.instrumented FILE ARGUMENTS...`.

It is the same program with the same arguments, in which three calls note the time when they are
done: the read from the exchange's socket, the journal's flush, and the INSERT. A row counts as
visible when its INSERT is acknowledged. That a SELECT sees it from then on is proved for the first
INSERTs by one that follows at once; for all of them it would take longer than what is measured,
because an old server counts a table by reading it. The notes go to FILE at the end.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
import msgspec
import trio

from mexc_trio.cli.main import main
from mexc_trio.clickhouse import schema
from mexc_trio.clickhouse.server import ServerStore
from mexc_trio.clickhouse.tables import Numbering, Table
from mexc_trio.exchange.tls import TlsStream
from mexc_trio.journal import Queue
from mexc_trio.journal.outbox import Outbox
from mexc_trio.rows import RowTuple

PROVED: Final = 50
"""INSERTs that are followed by a SELECT."""


@attrs.frozen
class Notes:
    """Pairs of a moment (`time.monotonic`) and how far things were then."""

    received: list[tuple[float, int]] = attrs.field(factory=list)
    """Bytes read from the exchange."""
    journaled: list[tuple[float, int]] = attrs.field(factory=list)
    """Rows of the recorded table in the journal's file."""
    visible: list[tuple[float, int]] = attrs.field(factory=list)
    """Rows of the recorded table whose INSERT is acknowledged."""
    unseen: list[int] = attrs.field(factory=list)
    """Rows that a SELECT right after their INSERT did not see: none, for each that was tried."""


def instrument(table: str, *, secure: bool) -> Notes:
    """Make the recorder's parts note what becomes of a table's rows; return the notes."""
    notes = Notes()
    receive, flush = trio.SocketStream.receive_some, Outbox.flush
    decrypt = TlsStream.receive_some
    carried, at = 0, 0.0

    async def noted_receive(self: trio.SocketStream, max_bytes: int | None = None) -> bytes:
        nonlocal carried, at
        data = await receive(self, max_bytes)
        at = time.monotonic()
        if not secure:
            carried += len(data)
            notes.received.append((at, carried))
        return bytes(data)

    async def noted_decrypt(self: TlsStream, max_bytes: int | None = None) -> bytes:
        nonlocal carried
        data = await decrypt(self, max_bytes)
        carried += len(data)
        notes.received.append((at, carried))  # when it came, and how much it turned out to be
        return data

    def noted_flush(self: Outbox) -> None:
        touched = [
            queue for queue in self.unwritten if isinstance(queue, Queue) and queue.name == table
        ]
        flush(self)
        for queue in touched:
            notes.journaled.append((time.monotonic(), queue.end))

    trio.SocketStream.receive_some = noted_receive  # type: ignore[method-assign]
    TlsStream.receive_some = noted_decrypt  # type: ignore[method-assign]
    Outbox.flush = noted_flush  # type: ignore[method-assign]
    _note_appends(table, notes)
    return notes


def _note_appends(name: str, notes: Notes) -> None:
    append = ServerStore.append

    def noted_append(
        self: ServerStore,
        table: Table,
        rows: Sequence[RowTuple],
        numbering: Numbering | None = None,
    ) -> None:
        append(self, table, rows, numbering)
        if table.name == name:
            stored = len(rows) + (notes.visible[-1][1] if notes.visible else 0)
            notes.visible.append((time.monotonic(), stored))
            if len(notes.unseen) < PROVED:
                notes.unseen.append(stored - schema.count(self, name))

    ServerStore.append = noted_append  # type: ignore[method-assign]


if __name__ == "__main__":
    file, table, *arguments = sys.argv[1:]
    noted = instrument(table, secure=any(part.startswith("wss:") for part in arguments))
    code = main(arguments)
    Path(file).write_bytes(msgspec.msgpack.encode(attrs.asdict(noted)))
    sys.exit(code)
