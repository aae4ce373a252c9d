"""The log: what a line looks like, and where it goes."""

import errno
import json
import logging
import math
import os
import stat
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from mexc_trio.errors import UsageError
from mexc_trio.files import may_be_a_trap
from mexc_trio.output import SteadyOutput
from mexc_trio.texts import printable

LARGEST: Final = 16 * 2**20
"""Bytes of a file; then the next one is begun."""
KEPT: Final = 5
"""Older files that are kept beside it: `NAME.1` is the last one before."""
QUIET: Final = 60.0
"""Seconds between two words about lines that are lost: a full disk has room for a line at times."""


class RotatingOutput(SteadyOutput):
    """Text into a file at `path`, whose writers never wait.

    A file that is moved or removed by others, such as logrotate, is made again; one that cannot be
    made, for its directory is gone or its disk is full, costs what could not be written.

    Raises:
        OSError: it cannot be made, is no file, or may be a trap.
    """

    GONE: ClassVar[tuple[int, ...]] = ()  # what is wrong with a file's disk may pass

    def __init__(self, path: Path, *, largest: int = LARGEST, kept: int = KEPT) -> None:
        if may_be_a_trap(path):
            raise OSError(errno.EPERM, "another user has put it where everybody may write")
        self._path = path.resolve()
        self._largest = largest
        self._kept = kept
        self._told, self._works = -math.inf, True
        self._file = open(self._open(), "a", encoding="utf-8")  # noqa: SIM115 - closed below
        super().__init__(self._file, f"log in {path}")

    def close(self) -> None:
        """Write what is left, and close the file unless its disk still keeps us waiting."""
        super().close()
        if self.idle:
            self._file.close()

    def _open(self) -> int:
        # A link was the user's wish at the start. One that comes into the file's place later may be
        # anybody's who can write to the directory, and leads where he wants to be written.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        flags |= os.O_NOFOLLOW
        fd = os.open(self._path, flags, 0o640)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(0, "it is a device or a pipe")
        return fd

    def _prepare(self, size: int) -> None:
        """Check that the file is in its place, and has room."""
        here = os.fstat(self._fd)
        try:
            in_place = os.path.samestat(here, self._path.lstat())
        except FileNotFoundError:
            in_place = False
        if in_place and here.st_size and here.st_size + size > self._largest:
            self._shift()
            in_place = False
        if not in_place:
            fd = self._open()
            os.dup2(fd, self._fd, inheritable=False)
            os.close(fd)

    def _failed(self, error: OSError) -> None:
        now = time.monotonic()
        if self._works and now - self._told >= QUIET:
            self._told, self._works = now, False
            with suppress(OSError, ValueError):  # it may be on the same disk, or closed
                sys.stderr.write(f"log file {self._path}: {error.strerror}; its lines are lost\n")

    def _worked(self) -> None:
        self._works = True

    def _shift(self) -> None:
        names = [self._path, *(Path(f"{self._path}.{n}") for n in range(1, self._kept + 1))]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            with suppress(FileNotFoundError):
                newer.replace(older)


TEXT: Final = "text"
JSON: Final = "json"

# What syslog calls debug, informational, warning, error and critical.
_PRIORITIES: Final[Mapping[int, int]] = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


def start_logging(level: str, form: str = TEXT, file: Path | None = None) -> None:
    """Begin to log, in `TEXT` for people or `JSON` for programs, to a file or to standard error.

    `level` says how much. Standard output is for the statistics. Raises UsageError if the file
    cannot be written.
    """
    journal = file is None and _is_journal()
    formatter = JsonFormatter() if form == JSON else LineFormatter(dated=not journal)
    handler = _LogFile(file) if file else logging.StreamHandler()
    handler.setFormatter(_Prioritized(formatter) if journal else formatter)
    if isinstance(handler.stream, SteadyOutput):
        handler.stream.note = partial(_dropped, handler)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.addLevelName(logging.WARNING, "WARN")  # keeps texts aligned
    # It logs every frame at DEBUG.
    logging.getLogger("trio-websocket").setLevel(max(logging.INFO, logging.root.level))


def _dropped(handler: logging.Handler, lines: int) -> str:
    """Return the line that stands for those which nobody took."""
    text = f"{lines:,} lines of this log were dropped, which nobody took"
    return handler.format(_record(logging.WARNING, text))


def _record(level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord(__name__, level, __file__, 0, text, None, None)


def end_with(error: str) -> None:
    """Say why the program ends: on standard error, and in the log where that is a file."""
    text = f"mexc-trio: error: {error}"
    prefix = f"<{_PRIORITIES[logging.ERROR]}>" if _is_journal() else ""
    for handler in logging.root.handlers:
        if isinstance(handler, _LogFile):
            logging.getLogger(__name__).error("%s", error)
        form = handler.formatter
        form = form.inner if isinstance(form, _Prioritized) else form
        if isinstance(form, JsonFormatter):  # for programs to the last line
            text = form.format(_record(logging.ERROR, error))
    print(f"{prefix}{text}", file=sys.stderr)  # noqa: T201


class LineFormatter(logging.Formatter):
    """Time, level and text, one line each; a traceback is more lines.

    Others' words are in it, and it is read on terminals and by programs: what would move a cursor,
    change a colour or begin a line is escaped.
    """

    def __init__(self, *, dated: bool = True) -> None:
        time = "%(asctime)s.%(msecs)03d " if dated else ""
        super().__init__(time + "%(levelname)-5s %(message)s", "%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line of a record, without its traceback."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Return a traceback, in which an exception may quote anything."""
        return "\n".join(map(printable, super().formatException(ei).split("\n")))


class JsonFormatter(logging.Formatter):
    """One object a line: time (UTC), level, logger, message, and exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        time = datetime.fromtimestamp(record.created, UTC)
        said = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": "warning" if record.levelname == "WARN" else record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said)


class _Prioritized(logging.Formatter):
    """Begins each line with what the system's journal takes for its priority, and does not show."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.inner = formatter

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        text = self.inner.format(record)
        return "\n".join(prefix + line for line in text.split("\n"))


class _LogFile(logging.StreamHandler[RotatingOutput]):
    """Writes into a file that is begun anew when it has grown, and that nobody waits for."""

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(RotatingOutput(path))
        except OSError as error:
            raise UsageError(f"cannot write the log file {path}: {error.strerror}") from error

    def close(self) -> None:
        """Write what is left; logging calls it at the end of the program."""
        self.stream.close()
        super().close()


def _is_journal() -> bool:
    """Whether standard error leads to the system's journal, which says so in this variable."""
    try:
        where = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{where.st_dev}:{where.st_ino}"
