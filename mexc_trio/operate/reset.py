"""The command `reset`: removes what was recorded, of some symbols or of all, and begins anew.

It says first what goes, and asks. No recorder may run meanwhile: the locks that recorders hold
against each other are held here. What is not ours, such as tables of another form, stays.
"""

import sys
from collections.abc import Sequence

import attrs

from mexc_trio import texts
from mexc_trio.clickhouse.compaction import leftovers_of
from mexc_trio.clickhouse.schema import Store, columns, count, engines, known_sizes, qualified
from mexc_trio.clickhouse.suitability import why_unsuitable
from mexc_trio.clickhouse.tables import SHARED_TABLES, market_table
from mexc_trio.clickhouse.views import ours
from mexc_trio.errors import StoreError, UsageError
from mexc_trio.journal import Journal
from mexc_trio.operate.exclusive import open_exclusively, recorded_tables
from mexc_trio.output import say
from mexc_trio.settings import Settings
from mexc_trio.symbols import ALL_VIEWS


@attrs.frozen
class _Doomed:
    """A table that is to go."""

    name: str
    rows: int | None
    """None if they cannot be counted."""
    size: int | None
    waiting: int
    """Rows in the journal that the table lacks."""
    views: tuple[str, ...]

    def __str__(self) -> str:
        rows = "rows that cannot be counted" if self.rows is None else f"{self.rows:,} rows"
        size = "" if self.size is None else f", {texts.size(self.size)}"
        waiting = f", and {self.waiting:,} rows that wait in the journal" if self.waiting else ""
        return f"table {self.name}: {rows}{size}{waiting}"


def reset(settings: Settings, symbols: Sequence[str], *, all_data: bool, yes: bool) -> int:
    """Remove tables, their views and what the journal knows of them; return the exit code.

    With `all_data` these are all tables that are ours, and the ledger of gaps; with `yes` nobody is
    asked. Raises UsageError if nothing is named, or nobody can be asked, StoreLocked or
    JournalLocked if a recorder runs, StoreError if the store does not answer, or refuses.
    """
    if bool(symbols) == all_data:
        raise UsageError("name symbols, or give --all-data")
    with open_exclusively(settings) as (store, journal, hold):
        names = (
            recorded_tables(store)
            if all_data
            else [settings.for_symbol(one).table for one in symbols]
        )
        hold([name for name in names if name not in SHARED_TABLES])
        if not all_data:  # beside a new table they would be taken for somebody else's
            names += [left for name in names for left in leftovers_of(name)]
        doomed = _inspect(store, journal, names)
        if not doomed:
            say(f"{store.name}: nothing of that is there")
            return 0
        say(f"From {store.name} go for good:")
        for table in doomed:
            say(f"  {table}")
        if not all_data:
            say("The tables of all symbols, gaps and contracts, keep what they say of them.")
        if not yes and not _confirmed():
            say("Nothing is removed.")
            return 1
        for table in doomed:
            for host in store.hosts or (store,):
                for view in table.views:
                    host.query(f"DROP VIEW IF EXISTS {qualified(store, view)}")
                # At once, or Keeper knows the replica for minutes in which it cannot be made anew.
                host.query(f"DROP TABLE IF EXISTS {qualified(store, table.name)} SYNC")
            if journal is not None and table.name in journal.file.names():
                journal.queue(table.name).begin_anew()
                journal.flush()
        say("Removed; the next recording begins anew.")
    return 0


def _inspect(store: Store, journal: Journal | None, names: Sequence[str]) -> list[_Doomed]:
    """Return what there is of some tables."""
    found = columns(store, tables=names)
    kinds = engines(store, list(found)) if found else {}
    waiting = {queue.name: queue.backlog for queue in journal.queues()} if journal else {}
    sizes, views = known_sizes(store), ours(store)
    doomed = []
    for name in names:
        if name not in found:
            continue
        if name not in SHARED_TABLES:
            table = market_table(name)
            if reason := why_unsuitable(table.columns, found[name], kinds.get(name, "")):
                raise UsageError(f"table {name} at {store.name} {reason}: it is not one of ours")
        try:
            rows: int | None = count(store, name)
        except StoreError:  # damaged, which is a reason to be rid of it
            rows = None
        beside = [f"{name}_{view}" for view in ALL_VIEWS]
        doomed.append(
            _Doomed(
                name, rows, sizes.get(name), waiting.get(name, 0),
                tuple(view for view in beside if view in views),
            )
        )  # fmt: skip
    return doomed


def _confirmed() -> bool:
    """Ask; whoever cannot be asked has not agreed."""
    if not sys.stdin.isatty():
        raise UsageError("nobody can be asked here; --yes agrees to it")
    sys.stdout.write("Type yes to remove it: ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() == "yes"
