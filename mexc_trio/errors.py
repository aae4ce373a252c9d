"""Every error that this program raises on purpose, in one tree.

A `MexcTrioError` that reaches `cli.main` is shown as one line, `mexc-trio: error: ...`, and ends
the program with the `exit_code` of its class. Anything else that gets there is a bug, and is shown
with its traceback.
"""

import errno
import re
from enum import StrEnum
from typing import ClassVar, Final

from mexc_trio.texts import one_line

INTERRUPTED: Final = 130
"""The exit code of a program that a signal has cut short."""


class MexcTrioError(Exception):
    """Something that the user can be told in one line. Exit code 1 unless a subclass says else."""

    exit_code: ClassVar[int] = 1


class Terminated(MexcTrioError):  # noqa: N818 - says what happened; so do others below
    """SIGTERM or SIGHUP came before there was anything to stop in good order. Exit code 143."""

    exit_code: ClassVar[int] = 143


class UsageError(MexcTrioError):
    """A wrong argument, setting or symbol, found before anything was connected. Exit code 2."""

    exit_code: ClassVar[int] = 2


LONGEST_REASON: Final = 400
"""Letters of what is said of a connection: a URL, and what came from there."""


class Loss(StrEnum):
    """Why a connection to the exchange could not be made or was lost: the words to count by."""

    NOT_CONNECTED = "not connected"
    CLOSED = "closed"
    NO_PONG = "no pong"
    NO_ACKNOWLEDGEMENT = "no acknowledgement"
    SILENT = "silent"
    REFUSED = "refused"
    CLOCK_JUMPED = "clock jumped"
    RENEWED = "renewed"
    """By ourselves, because of new settings."""
    NO_RESOURCES = "no resources"
    """Of our own machine, which has no file or thread to spare, or could not keep what came: no
    error of the connection."""


class ExchangeError(MexcTrioError):
    """The connection to the exchange could not be made, or was lost.

    `reason` is a few words for the log and the table of gaps. Counts as one error of the symbol and
    is followed by a reconnect. Exit code 1 if it ever gets out.
    """

    def __init__(self, reason: str, loss: Loss = Loss.NOT_CONNECTED) -> None:
        reason = one_line(reason, LONGEST_REASON)  # it may quote the exchange
        super().__init__(reason)
        self.reason = reason
        self.loss = loss


class UnknownContract(ExchangeError):  # noqa: N818 - says what is wrong; so do the others below
    """The exchange says that it has no contract `symbol`, which may be wrong. Exit code 1."""

    def __init__(self, symbol: str) -> None:
        super().__init__(f"the exchange knows no contract {symbol}", Loss.REFUSED)


class TooManyErrors(MexcTrioError):  # noqa: N818
    """`symbol` had `count` errors within ten minutes and stops; the others go on. Exit code 1."""

    def __init__(self, symbol: str, count: int) -> None:
        super().__init__(f"{count} errors of {symbol} within ten minutes")


class StoreError(MexcTrioError):
    """ClickHouse, embedded or server, did not do what it was asked to. Exit code 1.

    `code` is ClickHouse's number for it; 0 if it has none.
    """

    code: int = 0


class StoreUnavailable(StoreError):  # noqa: N818
    """It passes: network, timeout, server restarting. Rows wait in the journal. Exit code 1."""


class StoreRejected(StoreError):  # noqa: N818
    """It does not pass by itself: schema, rights, syntax. Retrying alone is no use. Exit code 1."""


class ForeignTable(StoreRejected):
    """A table has a symbol's name and lacks its columns: somebody else made it. Exit code 1."""


class StoreLocked(StoreError):  # noqa: N818
    """Another process holds the embedded store's directory. Exit code 1."""


class TableConflict(StoreError):  # noqa: N818
    """A table holds more rows than anyone accounts for; who else writes to it? Exit code 1."""


class JournalError(MexcTrioError):
    """The journal on disk cannot be opened, read or written. Exit code 1."""


class JournalLocked(JournalError):  # noqa: N818
    """Another process holds the journal: a second recorder on one state directory. Exit code 1."""


class JournalBusy(JournalError):  # noqa: N818
    """Another program has the journal's file locked. It is waited out, if it can. Exit code 1."""


class DiskFull(JournalError):  # noqa: N818
    """Too little disk space to go on recording without losing rows. Exit code 1."""


class TableMissing(StoreError):  # noqa: N818
    """The table, or its database, is not there (any more); it can be created. Exit code 1."""


class TableDamaged(StoreError):  # noqa: N818
    """The engine cannot read a table's files, or not to their end. Exit code 1."""


class FileError(MexcTrioError):
    """A file that a command writes or reads cannot be written or read. Exit code 1."""


def leaves(error: BaseException) -> list[BaseException]:
    """Return the exceptions inside nested groups, which is how nurseries hand them on, in order."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def reason_of(error: BaseException) -> str:
    """Return the operating system's words for what is behind an error, or else its own."""
    while error.__cause__ is not None:  # Trio tries every address of a name, and groups what it met
        error = leaves(error.__cause__)[0]
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return one_line(_without_source(text)) or type(error).__name__


def words_of(error: BaseException) -> str:
    """Return what an error says, or else what was behind it: some libraries' own are silent."""
    behind: BaseException | None = error
    while behind is not None and not (text := one_line(str(behind))):
        behind = behind.__cause__ or behind.__context__
    return type(error).__name__ if behind is None else _without_source(text)


def _without_source(text: str) -> str:
    """Return what OpenSSL says without where in its source: `(_ssl.c:1006)`."""
    return re.sub(r" \(_ssl\.c:\d+\)", "", text)


def out_of_resources(error: BaseException) -> str:
    """Say what the machine has too little of, if that is what an error means; empty if not.

    Files or threads of other programs may be what is too many, and gone in a minute: it is waited
    out, and nobody's fault.
    """
    for leaf in leaves(error):
        if isinstance(leaf, OSError) and leaf.errno in (errno.EMFILE, errno.ENFILE):
            return "too many open files"
        if isinstance(leaf, RuntimeError) and "can't start new thread" in str(leaf):
            return "no more threads to be had"
        if leaf.__cause__ and (shortage := out_of_resources(leaf.__cause__)):
            return shortage
    return ""


def loss_of(error: BaseException) -> Loss:
    """Return why there is no connection, of an error that a try to make one has met with."""
    return Loss.NO_RESOURCES if out_of_resources(error) else Loss.NOT_CONNECTED
