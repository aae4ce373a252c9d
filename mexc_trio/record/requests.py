"""What a command asks of a recorder that runs: to rewrite tables, which it alone can do safely.

It asks by a file beside the journal, and the answer is a fact in the journal: neither needs a port,
and what was asked of a recorder that died is done by the next.
"""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from mexc_trio.clickhouse.tables import TableEngine
from mexc_trio.errors import UsageError
from mexc_trio.files import write_own

log = logging.getLogger(__name__)

ANSWER: Final = "rewriting"
"""What the journal calls what became of the last request, as `RewritingProgress` has it."""


class RewritingRequest(msgspec.Struct, frozen=True):
    """What somebody asks of a running recorder."""

    id: str
    symbols: tuple[str, ...]
    """Whose tables; all that are recorded if none."""
    engine: TableEngine | None = None
    """What they are moved to; if None they stay what they are, and are compacted."""

    def leave(self, journal: Path) -> None:
        """Put it where the recorder looks; UsageError if it cannot be written there."""
        place = _path(journal)
        try:
            write_own(place, msgspec.json.encode(self).decode())
        except OSError as error:
            raise UsageError(f"cannot write {place}: {error.strerror}") from error

    def take_back(self, journal: Path) -> None:
        """Ask for it no longer; what is under way goes on."""
        if RewritingRequest.found(journal) == self:
            _path(journal).unlink(missing_ok=True)

    @classmethod
    def found(cls, journal: Path) -> "RewritingRequest | None":
        """Return what is asked; what cannot be read is told, and thrown away."""
        try:
            return msgspec.json.decode(_path(journal).read_bytes(), type=cls)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            log.warning("what %s asks for cannot be read: %s", _path(journal), error)
            with suppress(OSError):
                _path(journal).unlink()
            return None


class RewritingProgress(msgspec.Struct):
    """What has become of a request so far."""

    id: str = ""
    done: list[str] = []
    """A sentence for each table that was rewritten."""
    failed: list[str] = []
    """A sentence for each that was not."""
    ended: bool = False

    @classmethod
    def read(cls, fact: str) -> "RewritingProgress":
        """Return what a journal says."""
        return msgspec.json.decode(fact, type=cls) if fact else cls()


def _path(journal: Path) -> Path:
    # Not where recorders of before look, who know of compactions alone.
    return journal.with_suffix(".request")
