"""What `verify` finds out: facts first, and what follows from them.

`as_json` gives machines all of it. Its shape is that of the classes here, with these keys on top:

- `version`: 1; grows when a key changes its meaning or goes away, not when one is added;
- `sound`: whether nothing is wrong, which is what the exit code says too;
- `findings`: what is wrong and what is worth a word, as `{"kind", "wrong", "table", "text"}`.

Times are milliseconds since 1970, lengths milliseconds, sizes bytes, prices and volumes texts; what
is not known is null.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import attrs

from mexc_trio.analysis.gaps import GapSummary
from mexc_trio.analysis.survey import Size, Survey
from mexc_trio.clickhouse.index_memory import MUCH, WHEN_LOADED
from mexc_trio.journal.ownership import OtherJournal
from mexc_trio.texts import size
from mexc_trio.verify.findings import Finding, SymbolFacts, of_symbol

VERSION: Final = 1
"""Of the shape of `as_json`."""
_KEYS: Final = {"covered": "live"}
"""Keys of this version that are not the names of their fields."""
SOON: Final = 14
"""Days within which a disk that will be full is worth a word."""


@attrs.frozen
class JournalFacts:
    """The journal of a store."""

    path: Path
    waiting: Mapping[str, int]
    """Rows by table that are not yet in the store."""
    holder: str
    """Who has it open, in which case nothing else is known; empty if nobody."""
    damage: str
    """Why it cannot be read; empty if it can."""


@attrs.frozen
class Disk:
    """Room, now and later."""

    free: int | None
    """Bytes; None if nobody can tell."""
    a_day: Mapping[str, float]
    """Bytes that each table grows by in a day, at its rate of the last days."""

    @property
    def all_a_day(self) -> float:
        """Bytes a day of all tables."""
        return sum(self.a_day.values())

    @property
    def days_left(self) -> float | None:
        """Days until the disk is full; None if nobody can tell."""
        if self.free is None or not self.all_a_day:
            return None
        return self.free / self.all_a_day


@attrs.frozen
class Facts:
    """All that `verify` found out."""

    store: str
    database: str
    tables: Sequence[Survey]
    """The tables of symbols."""
    gaps: GapSummary | None
    """None if there is no ledger."""
    missing: Sequence[str]
    """One sentence for each symbol whose table is not there or not ours."""
    put_aside: Sequence[str]
    """Tables that a repair left behind."""
    sizes: Mapping[str, Size]
    """Of all tables whose size is known."""
    volume: int | None
    """Bytes of the embedded store's whole directory, or of all tables of a server's database."""
    journal: JournalFacts | None
    """None if there is none."""
    symbols: Sequence[SymbolFacts] = ()
    """The same tables as in `tables`, as `inspection` finds them."""
    not_in_order: str = ""
    """Why nobody looked for silences, repeated rows and times that run backwards; else empty."""
    disk: Disk = Disk(None, {})
    other_journals: Sequence[OtherJournal] = ()
    """Journals in the same directory with rows that wait for other stores."""

    @property
    def rows(self) -> int:
        """Rows of the symbols' tables that were read."""
        return sum(table.rows for table in self.tables)

    @property
    def read(self) -> Sequence[Survey]:
        """All tables that were read: those of the symbols and the ledger."""
        return [*self.tables, *([self.gaps.table] if self.gaps else [])]

    @property
    def index_memory(self) -> int:
        """Bytes that the engine takes for the tables' INSERTs from its next start on, about."""
        return WHEN_LOADED * sum(table.inserts for table in self.read)

    @property
    def findings(self) -> list[Finding]:
        """What is wrong, and then what is worth a word."""
        return sorted(self._findings(), key=lambda finding: not finding.wrong)

    def _findings(self) -> Iterator[Finding]:
        for table in self.read:
            if table.damage:
                yield Finding("damaged", True, table.name, _damage(table))
        for text in self.missing:
            yield Finding("missing", True, "", text)
        if self.journal and self.journal.damage:
            yield Finding("journal", True, "", self.journal.damage)
        for symbol in self.symbols:
            yield from of_symbol(symbol)
        if self.not_in_order and self.tables:
            text = (
                "nobody looked for silences without a gap, repeated rows and times that run "
                f"backwards: {self.not_in_order}"
            )
            yield Finding("not looked", False, "", text)
        for journal in self.other_journals:
            text = f"{journal.backlog:,} rows wait in {journal.path} for {journal.whose}"
            yield Finding("journal of another store", False, "", text)
        if self.index_memory > MUCH:
            text = (
                f"the engine keeps an index entry of every INSERT in memory: from its next start "
                f"on {size(self.index_memory)}; mexc-trio compact makes it next to nothing"
            )
            yield Finding("memory", False, "", text)
        left = self.disk.days_left
        if left is not None and left < SOON:
            text = f"the disk is full in {left:.1f} days at the rate of the last days"
            yield Finding("disk", False, "", text)

    @property
    def problems(self) -> list[str]:
        """One sentence for each thing that is wrong; none if all is sound."""
        return [finding.text for finding in self.findings if finding.wrong]

    @property
    def remarks(self) -> list[str]:
        """One sentence for each thing that is worth a word and not wrong."""
        return [finding.text for finding in self.findings if not finding.wrong]


def as_json(facts: Facts) -> str:
    """Return everything as one JSON object; its shape is described at the top of this module."""
    found = facts.findings
    whole: dict[str, Any] = {
        "version": VERSION,
        "sound": not any(finding.wrong for finding in found),
        "findings": found,
    }
    whole |= {field.name: getattr(facts, field.name) for field in attrs.fields(Facts)}
    return json.dumps(_plain(whole), indent=1)


def _plain(value: object) -> Any:
    """Return a value as JSON has it: no SQL of a survey, and of coverage the days suffice."""
    if attrs.has(type(value)):
        fields = attrs.fields(type(value))  # type: ignore[arg-type]
        return {
            _KEYS.get(field.name, field.name): _plain(getattr(value, field.name))
            for field in fields
            if field.name not in ("source", "covered_spans")
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value if value is None or isinstance(value, (int, float, str)) else str(value)


def _damage(table: Survey) -> str:
    of = "" if table.counted is None else f" of {table.counted:,}"
    return f"table {table.name} is damaged, {table.rows:,}{of} rows can be read: {table.damage}"
