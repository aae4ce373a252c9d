"""The command `sql`: one statement, and its answer on standard output."""

import os
import signal
import sys
from contextlib import closing
from typing import Final

from mexc_trio.query.hints import hinting
from mexc_trio.read.reading import open_reader
from mexc_trio.settings import Settings
from mexc_trio.texts import shown

FOR_PEOPLE: Final = "PrettyCompact"
FOR_PROGRAMS: Final = "TabSeparated"


def sql(settings: Settings, statement: str, format: str | None) -> int:  # noqa: A002
    """Run a statement and write its answer; return the exit code.

    The statement is SELECT, SHOW, DESCRIBE, EXISTS or EXPLAIN. Without a format of ClickHouse the
    answer is a table on a terminal and tab-separated values elsewhere, as of clickhouse-client.
    Raises UsageError if there is no such store, StoreError if the statement failed.
    """
    people = sys.stdout.isatty()
    name = format or (FOR_PEOPLE if people else FOR_PROGRAMS)
    out = sys.stdout.buffer
    # Python hears of Ctrl-C when the engine has answered, which may be never; nothing is written
    # here that could be left half done.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with (
        open_reader(settings) as reader,
        closing(reader.stream(statement, name)) as pieces,
        hinting(statement, reader, settings),
    ):
        for piece in pieces:
            out.write(shown(piece) if people else piece)
            # A slow answer is seen as it comes.
            out.flush()
    return os.EX_OK
