"""Which of the journals in a directory is a store's.

A journal remembers whose rows it holds: what the store is, and how it was spelt. So a server that
has got another name goes on with its journal, and two stores that share a directory never get each
other's rows. One of an earlier version remembers neither; it is believed by its file's name.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import attrs

from mexc_trio.errors import JournalError
from mexc_trio.files import refuse_others
from mexc_trio.journal.database import connect_to_read, translated

STORE: Final = "store"
"""The fact that says what the store is; `clickhouse.identity` has more."""
SPELT: Final = "store's name"
"""The fact that says how the store was spelt, without secrets."""


@attrs.frozen
class OtherJournal:
    """A journal that another process may have open."""

    path: Path
    store: str
    """What its store is; empty if it does not say."""
    spelt: str
    """How its store was spelt; empty if it does not say."""
    waiting: Mapping[str, int]
    """Rows by table that are not yet in the store."""

    @property
    def backlog(self) -> int:
        """Rows that are not yet in the store."""
        return sum(self.waiting.values())

    @property
    def whose(self) -> str:
        """Which store's it is, in words."""
        return self.spelt or "a store that it does not name"


@attrs.frozen
class FoundJournal:
    """What was found in a directory."""

    path: Path
    """The journal of the store, which may be still to be made."""
    others: tuple[OtherJournal, ...]
    """Journals of other stores."""


def find_journal(usual: Path, store: str, spelt: str) -> FoundJournal:
    """Find the journal of a store.

    `usual` is the file that it is in if nothing else is known; `store` says what the store is,
    empty if it cannot be asked, and `spelt` how the user wrote it. Raises UsageError as
    `refuse_others`.
    """
    refuse_others(usual.parent)
    found = {one.path: one for one in _journals_beside(usual)}
    ours = [one for one in found.values() if store and one.store == store]
    ours += [one for one in found.values() if one.spelt == spelt]
    ours += [one for one in found.values() if one.path == usual and not one.spelt]
    path = ours[0].path if ours else usual
    number = 1
    while not ours and path in found:  # it is another store's
        number += 1
        path = usual.with_name(f"{usual.stem}-{number}.sqlite")
    return FoundJournal(path, tuple(one for one in found.values() if one.path != path))


def _journals_beside(usual: Path) -> Iterator[OtherJournal]:
    for path in sorted(usual.parent.glob("journal*.sqlite"), key=lambda path: path != usual):
        try:
            yield _look_into(path)
        except JournalError:  # whoever opens it says so
            yield OtherJournal(path, "", "", {})


def _look_into(path: Path) -> OtherJournal:
    with translated(path), closing(connect_to_read(path)) as db:
        told = "SELECT name, value FROM facts WHERE name IN (?, ?)"
        facts = {str(name): str(value) for name, value in db.execute(told, (STORE, SPELT))}
        waiting = db.execute(
            "SELECT name, max(first + n) - acked AS n FROM entries JOIN tables ON tables.id = tbl "
            "GROUP BY tbl HAVING max(first + n) > acked"
        )
        return OtherJournal(
            path,
            facts.get(STORE, ""),
            facts.get(SPELT, ""),
            {str(name): int(n) for name, n in waiting},
        )
