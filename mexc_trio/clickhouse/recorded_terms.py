"""What the table `contracts` says of a symbol's table: contract size and tick, since when.

Both may change, seldom. Rows of a time before anything was written down have the first ones, too.
"""

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Final, Literal, TypeAlias

import attrs

from mexc_trio.clickhouse.schema import Readable, columns, literal, milliseconds, qualified
from mexc_trio.clickhouse.suitability import can_be_read
from mexc_trio.clickhouse.tables import CONTRACTS
from mexc_trio.clickhouse.view_sql import NumberSql

Field: TypeAlias = Literal["contract_size", "tick"]
FIELDS: Final[tuple[Field, ...]] = ("contract_size", "tick")
"""What views have of them."""


@attrs.frozen
class RecordedTerms:
    """The terms of one contract from one time on."""

    as_of: int
    """Milliseconds."""
    contract_size: float
    """How much of the base one contract of volume is; not a number if the exchange did not say."""
    tick: float
    """The step of prices."""
    lot: float
    """The step of volumes, in contracts."""


def read_terms(store: Readable, tables: Sequence[str]) -> dict[str, list[RecordedTerms]]:
    """Return what is known of some symbols' tables, by table and in the order of time."""
    types = columns(store, tables=[CONTRACTS.name]).get(CONTRACTS.name)
    if types is None or not can_be_read(CONTRACTS.columns, types) or not tables:
        return {}
    found: dict[str, list[RecordedTerms]] = {}
    for table, *terms in store.query(
        f"SELECT recorded_in, {milliseconds('as_of')} AS at, contract_size, tick, "
        f"lot FROM {qualified(store, CONTRACTS.name)} "
        f"WHERE recorded_in IN ({', '.join(map(literal, tables))}) ORDER BY at"
    ):
        found.setdefault(str(table), []).append(
            RecordedTerms(int(terms[0]), *map(float, terms[1:]))
        )
    return found


def in_force(terms: Sequence[RecordedTerms], start: int, end: int) -> tuple[RecordedTerms, ...]:
    """Return which terms hold in a range of milliseconds, each with since when within it.

    `terms` are in the order of time.
    """
    found: list[RecordedTerms] = []
    for one in terms:
        if not found or one.as_of <= start:
            found = [attrs.evolve(one, as_of=start)]
        elif one.as_of < end and _all_digits(one) != _all_digits(found[-1]):
            found.append(one)
    return tuple(found)


def _all_digits(terms: RecordedTerms) -> list[str]:
    return [digits(number) for number in (terms.contract_size, terms.tick, terms.lot)]


def digits(number: float) -> str:
    """Return the shortest digits of a number, without an exponent; empty if it is none."""
    return f"{Decimal(repr(number)):f}".removesuffix(".0") if math.isfinite(number) else ""


def sql(terms: Sequence[RecordedTerms], field: Field, ts: str, numbers: NumberSql) -> str:
    """Return the SQL of a number at a row's time; NULL where it is not known.

    `terms` are in the order of time, `ts` is the SQL of the row's time, and `numbers` says what a
    number becomes.
    """
    changes: list[tuple[int, str]] = []
    for one in terms:
        text = digits(getattr(one, field))
        if not changes or changes[-1][1] != text:
            changes.append((one.as_of, text))
    values = [numbers.number(literal(text)) for _, text in changes] or [numbers.number("''")]
    until = [f"{ts} < fromUnixTimestamp64Milli({at})" for at, _ in changes[1:]]
    if not until:
        return values[0]
    cases = (part for pair in zip(until, values, strict=False) for part in pair)
    return f"multiIf({', '.join(cases)}, {values[-1]})"
