"""What a market of many symbols has made, and what of it is stored or told to be missing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import attrs
import msgspec

from mexc_trio.filled import Filled

if TYPE_CHECKING:
    from mexc_trio.rows import Gap
    from tools.exchange.records import Record
    from tools.market import Row


def says_missing(gap: Gap, at: int) -> bool:
    """Whether a row of the ledger says that deals may be missing at a time, in milliseconds."""
    if gap.channel not in ("deal", "all"):
        return False
    filled = Filled.of(gap.detail)
    return gap.start <= at < (gap.end if filled is None else filled.since(gap.start))


class _Version(msgspec.Struct):
    version: int


class _Book(msgspec.Struct):
    data: _Version


_books = msgspec.json.Decoder(_Book)


@attrs.define(eq=False)
class Made:
    """Rows that were made, by symbol; of those that are no deals only what tells them apart."""

    deals: defaultdict[str, set[Row]] = attrs.field(factory=lambda: defaultdict(set))
    others: defaultdict[str, dict[int, int]] = attrs.field(factory=lambda: defaultdict(dict))
    """The version of a book, 0 of another row."""
    unreadable: Counter[str] = attrs.field(factory=Counter)
    """Frames that mean no rows."""

    def note(self, record: Record) -> None:
        """Note what is sent."""
        rows = record.rows
        if rows is None:
            self.unreadable[record.symbol] += 1
        for row in rows or ():
            if row[1] == "d":
                self.deals[record.symbol].add(row)
            else:
                version = _books.decode(record.frame).data.version if row[1] == "dp" else 0
                self.others[record.symbol][hash(row)] = version


@attrs.define
class Comparison:
    """What came of it, over all symbols."""

    deals: int = 0
    rows: int = 0
    missing: int = 0
    """Deals that are not stored."""
    unaccounted: list[str] = attrs.field(factory=list)
    """Those of them that the ledger does not say are missing."""
    twice: int = 0
    strange: int = 0
    """Stored rows that nobody made."""
    dead_letters: int = 0
    books_back: int = 0
    """Stored books that are not newer than the one before."""
    untrue: list[str] = attrs.field(factory=list)
    """What the ledger says was filled and was not so."""

    def add(self, symbol: str, made: Made, stored: Sequence[Row], ledger: Iterable[Gap]) -> None:
        """Compare one symbol."""
        deals, others = made.deals[symbol], made.others[symbol]
        told = [gap for gap in ledger if gap.symbol == symbol]
        kept = Counter(row for row in stored if row[1] == "d")
        versions: list[int] = []
        for row in stored:
            if row[1] == "dl":
                self.dead_letters += 1
            elif row[1] != "d":
                version = others.get(hash(row))
                self.strange += version is None
                versions += [version] if version else []
        self.deals += len(deals)
        self.rows += len(stored)
        self.strange += len(kept.keys() - deals)
        self.twice += kept.total() - len(kept)
        missing = sorted(deals - kept.keys())
        self.missing += len(missing)
        self.unaccounted += [
            f"{symbol} {row}"
            for row in missing
            if not any(says_missing(gap, row[0]) for gap in told)
        ]
        self.books_back += sum(later <= earlier for earlier, later in pairwise(versions))
        for gap in told:
            filled = Filled.of(gap.detail)
            if filled is not None and filled.whole:
                there = [row for row in missing if gap.start < row[0] < gap.end]
                self.untrue += [f"{gap}: {len(there)} missing"] if there else []


def in_turn(records: Iterable[Record], stored: Sequence[Row]) -> tuple[int, list[Row]]:
    """Hold the rows of a symbol's one line against those of each of its connections in turn.

    Returns how many are not the ones that were sent next, and those at the ends of connections that
    were not received.
    """
    sent: dict[int, list[Row]] = {}
    for record in records:
        sent.setdefault(record.connection, []).extend(record.rows or ())
    at = 0
    unheard: list[Row] = []
    for number in sorted(sent):
        rows = sent[number]
        n = 0
        while n < len(rows) and at < len(stored) and rows[n] == stored[at]:
            n, at = n + 1, at + 1
        unheard += rows[n:]
    return len(stored) - at, unheard
