"""Typed views beside each symbol's table: the same rows as columns of numbers.

Beside `btc` stand `btc_tickers`, `btc_deals`, `btc_depths`, and `btc_candles(interval = 60)`, whose
parameter is the length of a candle in seconds. They have Float64; `btc_deals_exact` and so on have
Decimals. They store nothing; see `view_sql` for what is in them. All but candles have the size and
tick of the contract as the table `contracts` has them, and are made anew when those change.
Channels that are recorded on request have a view each where they are, such as `btc_funding_rates`.
"""

import hashlib
import logging
from collections.abc import Sequence
from typing import Final

from mexc_trio.channels import ALL, BY_TYPE, OPTIONAL, USUAL
from mexc_trio.clickhouse.cluster import stores_over_all_shards
from mexc_trio.clickhouse.recorded_terms import FIELDS, RecordedTerms, read_terms, sql
from mexc_trio.clickhouse.schema import Store, columns, literal, prepare, qualified
from mexc_trio.clickhouse.tables import Table, is_numbered, is_wide, market_table
from mexc_trio.clickhouse.view_sql import EXACT, FLOATS, NumberSql, definitions
from mexc_trio.errors import StoreError
from mexc_trio.symbols import ALL_VIEWS, VIEWS

log = logging.getLogger(__name__)

_MARK: Final = "mexc-trio views"
"""How the comment of our views begins. A fingerprint of the definition follows, by which a view of
an earlier version is known, and replaced."""

# Asked for the newest rows, the engine skips what is older than those that it has found so far, but
# each of its streams begins with the oldest rows of its part. So it is given many, the last of
# which begins near the end of an indexed table: of 20 million rows it reads one million, and the
# last deal comes ten times as soon. Commands have one thread in an engine of ours, and one thread
# has one stream, so there the views ask for two.
_STREAMS: Final = "max_streams_to_max_threads_ratio = 8"
_THREADS: Final = "max_threads = 2"


def create(store: Store, tables: Sequence[str | Table]) -> list[str]:
    """Create the views of these tables that are missing; return the names of the new ones.

    A table that is given by its name has those of the usual channels. A view of an older definition
    is replaced; a table or view of somebody else's is left alone. Views are a convenience: what
    prevents them is logged in one line, and never raised.
    """
    created: dict[str, None] = {}
    wanted = [market_table(table) if isinstance(table, str) else table for table in tables]
    with stores_over_all_shards(store) as over_shards:
        for host in (*(store.hosts or (store,)), *over_shards):
            try:
                created |= dict.fromkeys(_create(host, wanted))
            except StoreError as error:
                log.warning("typed views beside the tables could not be created: %s", error)
    return list(created)


def create_with_tables(store: Store, tables: Sequence[Table]) -> None:
    """Create what is missing of tables and of the views beside them."""
    prepare(store, tables)
    create(store, tables)


def as_recorded(store: Store, table: str) -> Table:
    """Return a table that no recorder here has filled, with the channels that its rows are of."""
    types = ", ".join(literal(ALL[name].mt) for name in OPTIONAL)
    found = store.query(
        f"SELECT DISTINCT CAST(mt, 'String') AS type FROM {qualified(store, table)} "
        f"WHERE type IN ({types})"
    )
    return market_table(table, recorded=(*USUAL, *(BY_TYPE[str(type_)] for (type_,) in found)))


def _create(store: Store, tables: Sequence[Table]) -> list[str]:
    if not tables:
        return []
    database = literal(store.database)
    found = store.query(f"SELECT name, comment FROM system.tables WHERE database = {database}")
    comments = {str(name): str(comment) for name, comment in found}
    names = [table.name for table in tables]
    present = columns(store, tables=names)
    terms = read_terms(store, names)
    created: list[str] = []
    many = f"{_THREADS}, {_STREAMS}" if store.one_thread else _STREAMS
    for known in tables:
        table = known.name
        source, types = qualified(store, table), present.get(table, {})
        has_numbers = is_numbered(types)
        selects = {
            f"{view}{suffix}": select
            for suffix, numbers in (("", FLOATS), ("_exact", EXACT))
            for view, select in definitions(
                source, numbers, numbered=has_numbers, wide=is_wide(types),
                more=_terms(terms.get(table, ()), numbers),
            ).items()
        }  # fmt: skip
        wanted = {*VIEWS, *(ALL[channel].view for channel in known.channels)}
        for view in ALL_VIEWS:
            name, select = f"{table}_{view}", selects[view]
            if view.removesuffix("_exact") not in wanted and name not in comments:
                continue
            if has_numbers and not view.startswith("candles"):
                select += f" SETTINGS {many}"
            comment = comments.get(name)
            current = f"{_MARK} {hashlib.sha256(select.encode()).hexdigest()[:16]}"
            if comment == current:
                continue
            if comment is not None and not comment.startswith(_MARK):
                log.warning("%s: %s is not ours, so there is no such view", store.name, name)
                continue
            replace = "" if comment is None else "OR REPLACE "
            store.query(
                f"CREATE {replace}VIEW {qualified(store, name)} AS {select} "
                f"COMMENT {literal(current)}"
            )
            created.append(name)
    return created


def _terms(terms: Sequence[RecordedTerms], numbers: NumberSql) -> str:
    """Return the SQL of what is known of the contract at the time of each row."""
    return "".join(f", {sql(terms, field, 'ts', numbers)} AS {field}" for field in FIELDS)


def ours(store: Store) -> set[str]:
    """Return the names of all views that `create` has made."""
    found = store.query(
        f"SELECT name, comment FROM system.tables WHERE database = {literal(store.database)}"
    )
    return {str(name) for name, comment in found if str(comment).startswith(_MARK)}
