"""The ledger of holes, read: how many for which cause, and the longest."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from mexc_trio.rows import Cause, Channel
from mexc_trio.store.schema import GAPS, Readable, Table, literal
from mexc_trio.store.survey import Survey, survey, time_sql

LONGEST: Final = 5
"""How many of the longest holes are told one by one."""


@attrs.frozen
class HolesOfACause:
    """The holes that one symbol has for one cause."""

    symbol: str
    cause: str
    holes: int
    longest: int
    """Milliseconds."""


@attrs.frozen
class Hole:
    """One hole; times in milliseconds since 1970."""

    symbol: str
    channels: tuple[str, ...]
    """More than one if they have it at the same time for the same cause."""
    start: int
    end: int
    cause: str
    detail: str


@attrs.frozen
class LedgerHole:
    """A hole of a symbol as the ledger has it."""

    channel: str
    """A `Channel`, or `all`."""
    start: int
    end: int
    rhythm: bool
    """Whether it was written because the channel was silent, and for no other reason."""


@attrs.frozen
class Holes:
    """What the ledger says of the symbols that were asked for."""

    table: Survey
    causes: Sequence[HolesOfACause]
    longest: Sequence[Hole]


def holes(
    store: Readable,
    types: Mapping[str, str],
    symbols: Sequence[str],
    directory: Path | None = None,
) -> Holes:
    """Read the ledger in full.

    Args:
        store: where it is.
        types: the types of its columns there.
        symbols: whose holes to tell of; none for all. A hole that was found while the symbol was
            not recorded bears the name of the table.
        directory: the embedded store's, where the files can be looked at; None for a server.

    Raises:
        StoreError: there was no answer.
    """
    whole = Table(GAPS.name, tuple(types.items()))
    table = survey(store, whole, "cause", ("from", "to"), directory)
    if not table.rows:
        return Holes(table, [], [])
    start, end = _times(types)
    where = f"WHERE {_among(symbols)}" if symbols else ""
    causes = store.query(
        f"SELECT symbol, cause, count(), max({end} - {start}) FROM {table.source} {where} "
        f"GROUP BY symbol, cause ORDER BY symbol, cause"
    )
    # One outage is a hole in each channel, and must not fill the list three times.
    longest = store.query(
        f"SELECT symbol, channel, {start} AS a, {end} AS b, cause, detail FROM {table.source} "
        f"{where} ORDER BY b - a DESC, a, symbol, channel LIMIT {LONGEST * 4}"
    )
    return Holes(
        table,
        [HolesOfACause(symbol, cause, int(n), int(ms)) for symbol, cause, n, ms in causes],
        _merged([Hole(s, (c,), int(a), int(b), why, text) for s, c, a, b, why, text in longest]),
    )


def recorded_symbols(store: Readable, holes: Holes) -> list[str]:
    """Return whose holes the ledger has: symbols, and names of tables."""
    if not holes.table.rows:
        return []
    found = store.query(f"SELECT DISTINCT symbol FROM {holes.table.source} ORDER BY symbol")
    return [str(symbol) for (symbol,) in found]


def of_one(
    store: Readable, types: Mapping[str, str], holes: Holes, names: Sequence[str]
) -> list[LedgerHole]:
    """Return all holes of one symbol, by the names that it goes under.

    Raises:
        StoreError: there was no answer.
    """
    if not holes.table.rows:
        return []
    start, end = _times(types)
    found = store.query(
        f"SELECT channel, {start}, {end}, cause = {literal(Cause.CHANNEL_SILENT)} "
        f"FROM {holes.table.source} WHERE {_among(names)}"
    )
    return [LedgerHole(str(c), int(a), int(b), bool(silent)) for c, a, b, silent in found]


def starts_sql(
    types: Mapping[str, str], holes: Holes, names: Sequence[str], channel: Channel
) -> str:
    """Return the SELECT for the starts of one channel's holes in milliseconds."""
    start, _ = _times(types)
    return (
        f"SELECT {start} FROM {holes.table.source} WHERE {_among(names)} "
        f"AND channel IN ('{channel}', 'all')"
    )


def _times(types: Mapping[str, str]) -> tuple[str, str]:
    return time_sql("from", types["from"]), time_sql("to", types["to"])


def _among(symbols: Sequence[str]) -> str:
    return f"symbol IN ({', '.join(map(literal, symbols))})"


def _merged(found: Sequence[Hole]) -> list[Hole]:
    """Return the holes, longest first, those of several channels at one time as one."""
    merged: list[Hole] = []
    for hole in found:
        for number, known in enumerate(merged):
            if (
                (hole.symbol, hole.cause) == (known.symbol, known.cause)
                and not set(hole.channels) & set(known.channels)
                and hole.start < known.end
                and known.start < hole.end
            ):
                merged[number] = attrs.evolve(
                    known,
                    channels=known.channels + hole.channels,
                    start=min(known.start, hole.start),
                    end=max(known.end, hole.end),
                )
                break
        else:
            merged.append(hole)
    return merged[:LONGEST]
