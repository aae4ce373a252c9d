"""The command `convert`: tables of symbols are moved to another engine, whether one records or not.

A recorder that runs is asked to do it, as for `compact`.
"""

from collections.abc import Sequence

from mexc_trio.clickhouse.conversion import convert as convert_table
from mexc_trio.clickhouse.tables import TableEngine
from mexc_trio.operate.asking import ask_recorder
from mexc_trio.operate.holding import check_ours, exclusive
from mexc_trio.output import say
from mexc_trio.settings import Settings


def convert(settings: Settings, symbols: Sequence[str]) -> int:
    """Move the tables of symbols to the engine that the settings name; return the exit code.

    Raises as `ask_recorder` and `exclusive`, and StoreError if the store refuses.
    """
    engine = TableEngine(settings.engine)
    asked = ask_recorder(settings, symbols, engine)
    if asked is not None:
        return asked
    with exclusive(settings) as (store, journal, hold):
        tables = [settings.for_symbol(symbol).table for symbol in symbols]
        hold(tables)
        for table in tables:
            check_ours(settings, store, journal, table, "convert")
            if journal is not None and table in journal.file.names():
                # Whatever happens, the next recorder looks anew at what it finds.
                queue = journal.queue(table)
                queue.base = None
                queue.checked("")
                journal.flush()
            done = convert_table(store, table, engine, settings.min_free)
            say(f"table {table}: {f'is a {engine} already' if done is None else done}")
    return 0
