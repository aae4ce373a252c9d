"""A table is replaced by another one with the same rows: what compaction and conversion share.

The rows go into a second table beside the first. When that one has been compared with the first,
row for row and in order, and lies on the disk, the two change names in one step. So whatever dies
in between leaves under the table's name one whole table with the same rows: the old or the new.
"""

from typing import Final

import attrs

from mexc_trio.clickhouse import repair
from mexc_trio.clickhouse.schema import Readable, Store, count, known_sizes, literal, qualified
from mexc_trio.errors import StoreRejected, StoreUnavailable, TableConflict, TableDamaged
from mexc_trio.texts import size

INSERT: Final = "INSERT INTO {copy} ("
"""How the statement begins that fills the second table."""


@attrs.frozen
class Rewritten:
    """What became of a table."""

    rows: int
    before: int
    """Bytes of its files."""
    after: int

    def __str__(self) -> str:
        return (
            f"{self.rows:,} rows rewritten, compared one by one; {size(self.before)} before, "
            f"{size(self.after)} now"
        )


@attrs.frozen
class Rewriting:
    """One table, the one that is to take its place, and a word for what is done."""

    store: Store
    table: str
    copy: str
    done: str
    """What happens to the table, as in a sentence: `compacted`."""

    def check_room(self, needed: int, least_free: int) -> None:
        """Raise StoreRejected if so many bytes have no room beside what is to stay free."""
        free = int(self.store.query("SELECT min(free_space) FROM system.disks")[0][0])
        # Twice, because recording goes on into the journal meanwhile, and stops at the least.
        if free < needed + 2 * least_free:
            raise StoreRejected(
                f"table {self.table} is not {self.done}: its copy may take {size(needed)}, and "
                f"{size(free)} of disk are free, of which {size(2 * least_free)} are left alone"
            )

    def digest(self, source: str, rows: int, names: str) -> tuple[int, int, int]:
        """Return the `digest` of the table; TableDamaged if it cannot be read in full."""
        try:
            whole = digest(self.store, source, rows, names)
            damage = "" if whole[0] == rows else f"{whole[0]} of {rows} rows are there"
        except (TableDamaged, StoreUnavailable) as error:
            damage = repair.damage(error)
        if damage:
            raise TableDamaged(
                f"table {self.table} cannot be read in full, and is not {self.done}: {damage}; a "
                f"recording puts it right, as far as that can be done"
            )
        return whole

    def check_copy(self, source: str, rows: int, names: str, whole: tuple[int, int, int]) -> int:
        """Check that the copy is what was copied, and on the disk; return the bytes of its files.

        One that differs is dropped. Raises StoreRejected, also if the user may not have the files
        synced.
        """
        found = digest(self.store, source, rows, names)
        if count(self.store, self.copy) != rows or found != whole:
            self.store.query(f"DROP TABLE {qualified(self.store, self.copy)}")
            raise StoreRejected(
                f"{self.store.name}: the copy of table {self.table} is not what was copied; the "
                f"table stays as it is"
            )
        self._sync()
        return size_of(self.store, self.copy)

    def _sync(self) -> None:
        if self.store.fingerprint(self.copy):
            return
        try:
            self.store.query("SYSTEM SYNC FILE CACHE")
        except StoreRejected as error:
            raise StoreRejected(
                f"{error}: a table is {self.done} only if the new one is on the disk before the "
                f"old one goes; GRANT SYSTEM SYNC FILE CACHE ON *.* lets the user see to that"
            ) from error

    def exchange(self, rows: int) -> None:
        """Have the two change names.

        Raises TableConflict if the table had other than so many rows; then they change back.
        """
        change = (
            f"EXCHANGE TABLES {qualified(self.store, self.table)} "
            f"AND {qualified(self.store, self.copy)}"
        )
        self.store.query(change)
        try:
            self.check_unchanged(self.copy, rows)
        except TableConflict:
            self.store.query(change)
            raise

    def check_unchanged(self, name: str, rows: int) -> None:
        """Raise TableConflict if the table, by the name that it has now, has not so many rows."""
        if count(self.store, name) != rows:
            raise TableConflict(
                f"table {self.table} at {self.store.name} got rows while it was {self.done}, and "
                f"stays as it is: something else writes to it"
            )


def stop(store: Store, table: str, copy: str) -> None:
    """End the long statements of a rewriting under way; who waits for them gets a StoreError."""
    insert = literal(INSERT.format(copy=qualified(store, copy)))
    store.query(f"KILL QUERY WHERE startsWith(query, {insert}) AND user = currentUser()")
    for read in (table, copy):
        repair.stop_reading(store, read)


def size_of(store: Readable, table: str) -> int:
    """Return the bytes of a table's files."""
    return known_sizes(store).get(table) or 0


def digest(store: Readable, source: str, rows: int, names: str) -> tuple[int, int, int]:
    """Return numbers that are equal for tables with the same rows in the same order alone.

    `source` is a table's name as SQL, and how it is ordered, `rows` how many of it are read, and
    `names` its columns as SQL. The first number is how many rows there are.
    """
    if not rows:
        return 0, 0, 0
    place = "rowNumberInAllBlocks()"
    found = store.query(
        f"{repair.READ_IN_FULL}({place}, {names})), groupBitXor(sipHash64({place}, {names})) FROM "
        f"(SELECT {names} FROM {source} LIMIT {rows}) "
        # One thread returns the blocks in the order of insertion.
        f"SETTINGS max_threads = 1"
    )
    return int(found[0][0]), int(found[0][1]), int(found[0][2])
