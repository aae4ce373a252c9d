"""The log: what a line looks like, and where it goes."""

import logging
from typing import Any

from mexc_trio.texts import printable


def start_logging(level: str) -> None:
    """Send the log to standard error, which leaves standard output to the statistics."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.addLevelName(logging.WARNING, "WARN")  # keeps texts aligned
    # It logs every frame at DEBUG.
    logging.getLogger("trio-websocket").setLevel(max(logging.INFO, logging.root.level))


class LineFormatter(logging.Formatter):
    """Time, level and text, one line each; a traceback is more lines.

    Others' words are in it, and it is read on terminals and by programs: what would move a cursor,
    change a colour or begin a line is escaped.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)-5s %(message)s", "%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line of a record, without its traceback."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Return a traceback, in which an exception may quote anything."""
        return "\n".join(map(printable, super().formatException(ei).split("\n")))
