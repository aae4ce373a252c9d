"""The command `setup`: database and tables, made before anything is recorded."""

import re
from contextlib import closing
from typing import Final

from mexc_trio.clickhouse import open_store, views
from mexc_trio.clickhouse.preparing import prepare_all
from mexc_trio.clickhouse.schema import Store, engines, quoted
from mexc_trio.clickhouse.suitability import table_engine
from mexc_trio.clickhouse.tables import GAPS
from mexc_trio.errors import StoreError, StoreRejected
from mexc_trio.output import say
from mexc_trio.record.stats import data_file
from mexc_trio.record.wide import table_of
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget

# What the server calls its log tables. After an upgrade that changes one's columns it renames the
# old one to query_log_0, and so on.
_LOG_TABLE: Final = re.compile(r"(\w+_log|dead_letter_queue)(_\d+)?")

# 164: the user's profile is read-only. 497: a right is missing.
_FORBIDDEN: Final = ("(ClickHouse error 164)", "(ClickHouse error 497)")


def setup(settings: Settings, symbols: tuple[str, ...], *, drop_system_logs: bool) -> int:
    """Create what is missing of the database and the tables, and say so; return the exit code."""
    chosen = [settings.for_symbol(symbol) for symbol in symbols]
    tables = [table_of(one) for one in chosen]
    with closing(open_store(settings)) as store:
        try:
            created = prepare_all(store, [*tables, GAPS])
        except StoreError as error:
            raise _with_user(error, settings, "create database and tables") from error
        typed = views.create(store, tables)
        kinds = engines(store, [symbol.table for symbol in chosen])
        for symbol in chosen:
            rows = data_file(symbol.table, table_engine(kinds.get(symbol.table, "")))
            name = _short_name(symbol.symbol)
            say(f"{name} data: {symbol.table} table → {rows} (continuous growth)")
        if typed:
            say(f"Typed views: {', '.join(typed)}")
        where = f"database {store.database}, {store.name}"
        say(f"New in {where}: {', '.join(created)}" if created else f"Nothing is new in {where}")
        if drop_system_logs:
            _drop_system_logs(store, settings)
    return 0


def _drop_system_logs(store: Store, settings: Settings) -> None:
    if isinstance(settings.store, EmbeddedTarget):
        say("System log tables: the embedded engine has none")
        return
    found = store.query("SELECT name, engine FROM system.tables WHERE database = 'system'")
    logs = sorted(
        name
        for name, engine in found
        if _LOG_TABLE.fullmatch(name) and str(engine).endswith("MergeTree")
    )
    if not logs:
        say("System log tables: there are none")
        return
    refused: list[StoreError] = []
    for name in logs:
        try:
            store.query(f"DROP TABLE IF EXISTS system.{quoted(name)}")
        except StoreError as error:
            if any(code in str(error) for code in _FORBIDDEN):
                raise _with_user(error, settings, f"drop system.{name}") from error
            refused.append(error)  # such as a table that is too big to be dropped so easily
        else:
            say(f"Dropped system.{name}")
    if refused:
        raise StoreRejected("; ".join(map(str, refused)))
    say(
        "The server begins those anew that its configuration has; "
        "infra/clickhouse/config.d/system-logs.xml turns them off"
    )


def _with_user(error: StoreError, settings: Settings, what: str) -> StoreError:
    """Return the error with the user's name, if it is that user who may not."""
    if isinstance(settings.store, EmbeddedTarget):
        return error
    if not any(code in str(error) for code in _FORBIDDEN):
        return error
    return StoreRejected(f"user {settings.store.user!r} has no right to {what}: {error}")


def _short_name(symbol: str) -> str:
    """Return what people call a symbol: its base, unless the quote is an unusual one."""
    base, quote = symbol.split("_")
    return base if quote == "USDT" else symbol
