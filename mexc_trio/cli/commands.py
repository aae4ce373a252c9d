"""What records and what looks after that: each command's options, help and the way to its module.

Whatever a command does is in a module of its own, imported when the command runs, so that `--help`
and a wrong argument are answered at once. What cannot be done is raised there as a `MexcTrioError`.
"""

import difflib
from functools import partial
from typing import Annotated

from cyclopts import Parameter

from mexc_trio.cli.options import (
    FILES,
    PROGRAM,
    STORE,
    CommonOptions,
    ConvertOptions,
    DrainOptions,
    Flag,
    JournalOptions,
    RecordOptions,
    SetupOptions,
    Symbols,
    VerifyOptions,
    app,
    begin,
    load_settings,
    value,
)
from mexc_trio.errors import UsageError
from mexc_trio.output import steady_stdout

_FORMATS = ("PrettyCompact", "CSVWithNames", "JSONEachRow", "Parquet", "Vertical")


@app.default
def record(*symbols: Symbols, options: RecordOptions | None = None) -> int:
    """Record MEXC futures market data into ClickHouse: every row once, every gap written down.

    mexc-trio BTC_USDT ETH_USDT records until Ctrl-C. Tables are created when they are missing.
    """
    for text in symbols:
        _refuse_command(text)
    settings = begin(options, symbols, recording=True)
    if not settings.symbols and not settings.follows_list:
        raise UsageError("no symbol given; name at least one, such as BTC_USDT, or use --all")
    for key in ("quote", "shard"):
        if getattr(options, key, None) and not settings.follows_list:
            raise UsageError(f"--{key} narrows --all or a pattern, and there is neither")
    with steady_stdout():
        import trio

        from mexc_trio.metrics.endpoints import serve_endpoints
        from mexc_trio.metrics.events import tell_of_events
        from mexc_trio.metrics.systemd import notifying
        from mexc_trio.record import recorder
        from mexc_trio.record.limits import tune
        from mexc_trio.record.reload import SettingsFile

        if settings.live:
            from mexc_trio.screen.live import show_screen as statistics
        else:
            from mexc_trio.record.watch import print_statistics as statistics
        read = partial(load_settings, options, symbols)
        file = SettingsFile(settings.config, read) if settings.config else None
        tune()

        async def run() -> int:
            async with notifying() as notify_systemd:
                beside = [statistics, serve_endpoints, notify_systemd, tell_of_events]
                return await recorder.record(settings, settings.symbols, beside, file)

        return trio.run(run)


def _refuse_command(text: str) -> None:
    """Tell what a word means that is no symbol but much like a command."""
    if text in ("help", "version"):
        raise UsageError(f"{text!r} is not a symbol; ask with mexc-trio --{text}")
    commands = [name for name in app if not name.startswith("-")]
    for command in difflib.get_close_matches(text, commands, 1, cutoff=0.8):
        raise UsageError(f"{text!r} is not a symbol; commands come first: mexc-trio {command}")
    for command in difflib.get_close_matches(text, commands, 1, cutoff=0.6):
        if text.isalpha():
            symbol = f"{text.upper()}_USDT"
            raise UsageError(
                f"{text!r} is not a symbol; did you mean {symbol}, or mexc-trio {command}?"
            )


@app.command(group_parameters=STORE)
def setup(
    *symbols: Symbols, options: SetupOptions | None = None, drop_system_logs: Flag = False
) -> int:
    """Create the database and the symbols' tables; recording does so by itself too.

    Args:
        drop_system_logs: Drop the server's own log tables, naming each.
    """
    settings = begin(options, symbols)
    if not settings.symbols:
        raise UsageError("no symbol given; name at least one, such as BTC_USDT")
    from mexc_trio.operate.setup import setup

    return setup(settings, settings.symbols, drop_system_logs=drop_system_logs)


@app.command(group_parameters=PROGRAM)
def verify(
    *symbols: Symbols,
    options: VerifyOptions | None = None,
    json: Flag = False,
    against_exchange: Flag = False,
) -> int:
    """Read what is stored in full: how much, how big, how complete, and whether it is sound.

    Without symbols, all tables found. Exit code 1 if something is wrong.

    Args:
        json: Print one JSON object for machines.
        against_exchange: Compare the deals with the exchange's one-minute candles of a month.
    """
    settings = begin(options, symbols)
    import trio

    from mexc_trio.verify.completeness import compare
    from mexc_trio.verify.verify import verify

    return verify(
        settings,
        settings.symbols if symbols else (),
        json=json,
        compare=(lambda *asked: trio.run(compare, *asked)) if against_exchange else None,
    )


@app.command
def drain(*, options: DrainOptions | None = None) -> int:
    """Write what an earlier run left in the journal, without recording."""
    settings = begin(options, ())
    import trio

    from mexc_trio.record.recorder import drain

    return trio.run(drain, settings)


@app.command
def reload(*, options: JournalOptions | None = None) -> int:
    """Have a running recorder read its settings file again, without a gap in what stays.

    Also done by SIGHUP. A file that is wrong changes nothing; what takes a restart is told.
    """
    settings = begin(options, ())
    from mexc_trio.operate.reload import reload

    return reload(settings)


@app.command(group_parameters=FILES)
def sql(
    statement: Annotated[str, Parameter(name="STATEMENT")],
    /,
    *,
    output: Annotated[str | None, value("FORMAT", *_FORMATS, name="--format")] = None,
    options: CommonOptions | None = None,
) -> int:
    """Answer a question in SQL about what is recorded, also while a recorder runs.

    mexc-trio sql "SELECT count() FROM btc". Times are UTC.

    Args:
        statement: SELECT, SHOW, DESCRIBE, ...
        output: Of ClickHouse: PrettyCompact, CSV, JSONEachRow, Parquet and more.
            [default: PrettyCompact on a terminal, else TabSeparated]
    """
    settings = begin(options, ())
    from mexc_trio.query.sql import sql

    return sql(settings, statement, output)


@app.command(group_parameters=FILES)
def reset(
    *symbols: Symbols,
    all_data: Flag = False,
    yes: Flag = False,
    options: JournalOptions | None = None,
) -> int:
    """Remove what was recorded of some symbols, or of all.

    Says what goes, and asks first. Stop the recorder before.

    Args:
        all_data: All tables of recorders, and the ledger of gaps.
        yes: Do not ask.
    """
    settings = begin(options, symbols)
    from mexc_trio.operate.reset import reset

    return reset(settings, settings.symbols if symbols else (), all_data=all_data, yes=yes)


@app.command
def convert(*symbols: Symbols, options: ConvertOptions | None = None) -> int:
    """Move the tables of symbols to another engine, checked row for row.

    A recorder that runs is asked to do it, and goes on recording. What was killed goes on where it
    was: give the command again.
    """
    settings = begin(options, symbols)
    if not symbols or options is None or options.engine is None:
        raise UsageError("name symbols, and the engine: --engine mergetree")
    from mexc_trio.operate.rewriting import convert

    return convert(settings, settings.symbols)


@app.command
def compact(*symbols: Symbols, options: JournalOptions | None = None) -> int:
    """Rewrite tables in large blocks: less disk, and next to none of the engine's memory.

    Without symbols, all. The rows stay as they are, and in their order. A recorder that runs is
    asked to do it, and goes on recording.
    """
    settings = begin(options, symbols)
    from mexc_trio.operate.rewriting import compact

    return compact(settings, settings.symbols if symbols else ())
