"""The commands, their help, their one-line errors and exit codes; the only `trio.run`.

Whatever a command does is in a module of its own, imported when the command runs, so that `--help`
and a wrong argument are answered at once.
"""

import difflib
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, TypeAlias

import attrs
import cyclopts
from cyclopts import Group, Parameter

from mexc_trio import __version__
from mexc_trio.errors import INTERRUPTED, MexcTrioError, UsageError, leaves
from mexc_trio.logs import end_with, start_logging
from mexc_trio.output import steady_stderr, steady_stdout
from mexc_trio.settings import SETTINGS, Settings
from mexc_trio.settings.sources import load
from mexc_trio.settings.values import mask
from mexc_trio.texts import printable

_STORE = Group("Where rows go", sort_key=1)
_RECORD = Group("Recording", sort_key=2)
_LIMITS = Group("Limits", sort_key=3)
_PROGRAM = Group("Program", sort_key=4)
_FILES = Group("Files", sort_key=0)

_EPILOGUE = (
    "Every option is also a key of settings.ini and an environment variable: --ping-interval is"
    " ping_interval in the file and MEXC_TRIO_PING_INTERVAL in the environment. The command line"
    " comes first, then the environment, the file, the default. A server's password is best kept in"
    " MEXC_TRIO_PASSWORD or in the file."
    "\n\n"
    "Exit codes: 0 done, or stopped by Ctrl-C, SIGTERM, SIGHUP or --duration; 1 a symbol was"
    " stopped by its errors, or the command failed; 2 wrong arguments or settings, or a store that"
    " does not work at the first start; 130 a second Ctrl-C."
)

_COMMANDS = (
    "setup", "verify", "sql", "drain", "export", "backup", "restore", "report", "reload", "reset",
)  # fmt: skip

app = cyclopts.App(
    name="mexc-trio",
    version=__version__,
    usage="Usage: mexc-trio SYMBOL... [OPTIONS]\n       mexc-trio COMMAND [SYMBOL...] [OPTIONS]",
    help_format="plaintext",
    help_epilogue=_EPILOGUE,
    group_commands=Group("Commands", sort_key=0),
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    verbose=False,
    suppress_keyboard_interrupt=False,
)
app.register_install_completion_command(help="Install completion for the shell that is in use.")


def _option(key: str, group: Group, metavar: str) -> Parameter:
    """Describe the option that sets `key` in the words of Settings itself."""
    about, default = (SETTINGS[key].metadata[name] for name in ("about", "text"))
    text = about[0].upper() + about[1:] + "."
    return Parameter(
        help=f"{text} [default: {default}]" if default else text,
        group=group,
        metavar=metavar,
        show_default=False,
    )


Symbols: TypeAlias = Annotated[
    str,
    Parameter(
        name="SYMBOL",
        help="Contracts such as BTC_USDT, in upper or lower case. Recording also takes patterns"
        " such as '*STOCK_USDT', which stand for all listed contracts that match.",
    ),
]


# The options' values stay text: settings.py reads them in the way it reads every other source.
@Parameter(name="*")
@attrs.frozen(kw_only=True)
class CommonOptions:
    """Options of every command."""

    store: Annotated[str | None, _option("store", _STORE, "DIR|URL")] = None
    config: Annotated[str | None, _option("config", _PROGRAM, "FILE")] = None
    log_level: Annotated[str | None, _option("log_level", _PROGRAM, "LEVEL")] = None
    log_format: Annotated[str | None, _option("log_format", _PROGRAM, "FORMAT")] = None


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class JournalOptions(CommonOptions):
    """Options of the commands that look at the journal."""

    state_dir: Annotated[str | None, _option("state_dir", _STORE, "DIR")] = None


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class VerifyOptions(JournalOptions):
    """Options of verify."""

    rest_url: Annotated[str | None, _option("rest_url", _RECORD, "URL")] = None


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class DrainOptions(JournalOptions):
    """Options of the commands that write rows."""

    store_connections: Annotated[str | None, _option("store_connections", _STORE, "NUMBER")] = None
    retention: Annotated[str | None, _option("retention", _LIMITS, "SECONDS")] = None


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class RecordOptions(DrainOptions):
    """Options of recording: all of them."""

    log_file: Annotated[str | None, _option("log_file", _PROGRAM, "FILE")] = None
    url: Annotated[str | None, _option("url", _RECORD, "URL")] = None
    route: Annotated[tuple[str, ...] | None, _option("route", _RECORD, "ROUTE")] = None
    all: Annotated[bool | None, _option("all", _RECORD, "")] = None
    quote: Annotated[str | None, _option("quote", _RECORD, "CURRENCY")] = None
    rest_url: Annotated[str | None, _option("rest_url", _RECORD, "URL")] = None
    refresh: Annotated[str | None, _option("refresh", _RECORD, "SECONDS")] = None
    channels: Annotated[str | None, _option("channels", _RECORD, "NAMES")] = None
    linger: Annotated[str | None, _option("linger", _RECORD, "SECONDS")] = None
    deals: Annotated[str | None, _option("deals", _RECORD, "all|merged")] = None
    ping_interval: Annotated[str | None, _option("ping_interval", _RECORD, "SECONDS")] = None
    stats_interval: Annotated[str | None, _option("stats_interval", _RECORD, "SECONDS")] = None
    live: Annotated[bool | None, _option("live", _RECORD, "")] = None
    duration: Annotated[str | None, _option("duration", _RECORD, "SECONDS")] = None
    symbols_per_connection: Annotated[
        str | None, _option("symbols_per_connection", _RECORD, "NUMBER")
    ] = None
    listen: Annotated[str | None, _option("listen", _RECORD, "HOST:PORT|off")] = None
    metrics: Annotated[str | None, _option("metrics", _RECORD, "HOST:PORT|off")] = None
    journal_sync: Annotated[bool | None, _option("journal_sync", _LIMITS, "")] = None
    max_errors: Annotated[str | None, _option("max_errors", _LIMITS, "NUMBER")] = None
    min_free_mib: Annotated[str | None, _option("min_free_mib", _LIMITS, "MIB")] = None


@app.default
def record(*symbols: Symbols, options: RecordOptions | None = None) -> int:
    """Record MEXC futures market data into ClickHouse: every row once, every gap written down.

    mexc-trio BTC_USDT ETH_USDT records until Ctrl-C. Tables are created when they are missing.
    """
    for text in symbols:
        _refuse_command(text)
    settings = _start(options, symbols, recording=True)
    if not settings.symbols and not settings.finds:
        raise UsageError("no symbol given; name at least one, such as BTC_USDT, or use --all")
    if settings.quote and options and options.quote and not settings.finds:
        raise UsageError("--quote narrows --all or a pattern, and there is neither")
    with steady_stdout():
        import trio

        from mexc_trio.metrics import systemd
        from mexc_trio.metrics.answer import answer
        from mexc_trio.record.recorder import record
        from mexc_trio.record.reload import SettingsFile

        if settings.live:
            from mexc_trio.screen.live import show_screen as statistics
        else:
            from mexc_trio.record.watch import print_statistics as statistics
        beside = [statistics, answer, systemd.keep_telling]
        read = partial(_load, options, symbols)
        file = SettingsFile(settings.config, read) if settings.config else None
        return trio.run(record, settings, settings.symbols, beside, file)


def _refuse_command(text: str) -> None:
    """Tell what a word means that is no symbol but much like a command."""
    if text in ("help", "version"):
        raise UsageError(f"{text!r} is not a symbol; ask with mexc-trio --{text}")
    for command in difflib.get_close_matches(text, _COMMANDS, 1, cutoff=0.8):
        raise UsageError(f"{text!r} is not a symbol; commands come first: mexc-trio {command}")
    for command in difflib.get_close_matches(text, _COMMANDS, 1, cutoff=0.6):
        if text.isalpha():
            symbol = f"{text.upper()}_USDT"
            raise UsageError(
                f"{text!r} is not a symbol; did you mean {symbol}, or mexc-trio {command}?"
            )


@app.command
def setup(
    *symbols: Symbols,
    options: CommonOptions | None = None,
    drop_system_logs: Annotated[
        bool,
        Parameter(
            help="Drop the server's own log tables, naming each.",
            group=_STORE,
            negative=(),
            show_default=False,
        ),
    ] = False,
) -> int:
    """Create the database and the symbols' tables; recording does so by itself too."""
    settings = _start(options, symbols)
    if not settings.symbols:
        raise UsageError("no symbol given; name at least one, such as BTC_USDT")
    from mexc_trio.setup import setup

    return setup(settings, settings.symbols, drop_system_logs=drop_system_logs)


@app.command
def verify(
    *symbols: Symbols,
    options: VerifyOptions | None = None,
    json: Annotated[
        bool,
        Parameter(
            help="Print one JSON object for machines.",
            group=_PROGRAM,
            negative=(),
            show_default=False,
        ),
    ] = False,
    against_exchange: Annotated[
        bool,
        Parameter(
            help="Compare the deals with the exchange's one-minute candles of the last month.",
            group=_PROGRAM,
            negative=(),
            show_default=False,
        ),
    ] = False,
) -> int:
    """Read what is stored in full: how much, how big, how complete, and whether it is sound.

    Without symbols, all tables found. Exit code 1 if something is wrong.
    """
    settings = _start(options, symbols)
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
    settings = _start(options, ())
    import trio

    from mexc_trio.record.recorder import drain

    return trio.run(drain, settings)


@app.command
def reload(*, options: JournalOptions | None = None) -> int:
    """Have a running recorder read its settings file again: symbols and limits, without a gap.

    Also done by SIGHUP. A file that is wrong changes nothing; what takes a restart is told.
    """
    settings = _start(options, ())
    from mexc_trio.operate.reload import reload

    return reload(settings)


@app.command
def sql(
    statement: Annotated[str, Parameter(name="STATEMENT", help="SELECT, SHOW, DESCRIBE, ...")],
    /,
    *,
    output: Annotated[
        str | None,
        Parameter(
            name="--format",
            help="Of ClickHouse: PrettyCompact, CSV, JSONEachRow, Parquet and more."
            " [default: PrettyCompact on a terminal, else TabSeparated]",
            group=_FILES,
            metavar="FORMAT",
            show_default=False,
        ),
    ] = None,
    options: CommonOptions | None = None,
) -> int:
    """Answer a question in SQL about what is recorded, also while a recorder runs.

    mexc-trio sql "SELECT count() FROM btc". Times are UTC.
    """
    settings = _start(options, ())
    from mexc_trio.query.sql import sql

    return sql(settings, statement, output)


def _file_option(name: str, text: str, metavar: str = "", *, hyphen: bool = False) -> Parameter:
    """Describe an option that is no setting; its value may begin with a hyphen if `hyphen`."""
    return Parameter(
        name=name, help=text, group=_FILES, metavar=metavar, negative=(), show_default=False,
        allow_leading_hyphen=hyphen,
    )  # fmt: skip


@app.command
def reset(
    *symbols: Symbols,
    all_data: Annotated[
        bool, _file_option("--all-data", "All tables of recorders, and the ledger of gaps.")
    ] = False,
    yes: Annotated[bool, _file_option("--yes", "Do not ask.")] = False,
    options: JournalOptions | None = None,
) -> int:
    """Remove what was recorded, of some symbols or of all, and begin anew.

    Says what goes, and asks first. Stop the recorder before.
    """
    settings = _start(options, symbols)
    from mexc_trio.operate.reset import reset

    return reset(settings, settings.symbols if symbols else (), all_data=all_data, yes=yes)


@app.command
def export(
    *symbols: Symbols,
    out: Annotated[
        str,
        _file_option(
            "--out",
            "The file to write; by day, the directory; - is standard output.",
            "PATH",
            hyphen=True,
        ),
    ],
    kind: Annotated[
        str | None,
        _file_option(
            "--kind", "deals, tickers, depths, candles, gaps, or raw, the table's rows.", "KIND"
        ),
    ] = None,
    file_format: Annotated[
        str | None,
        _file_option(
            "--format",
            "parquet, csv, jsonl, or deals and books as hftbacktest or nautilus reads them. "
            "[default: as the file's name ends, else parquet]",
            "FORMAT",
        ),
    ] = None,
    numbers: Annotated[
        str | None,
        _file_option(
            "--numbers",
            "float: the nearest double; exact: Decimals; text: the exchange's digits. "
            "[default: float]",
            "WHICH",
        ),
    ] = None,
    start: Annotated[
        str | None,
        _file_option("--from", "From this time on: 2026-11-20 or 2026-11-20T09:30, UTC.", "TIME"),
    ] = None,
    end: Annotated[
        str | None, _file_option("--to", "Up to this time, itself not included.", "TIME")
    ] = None,
    interval: Annotated[
        str | None,
        _file_option("--interval", "Length of a candle: 1s, 5m, 4h, 1d. [default: 1m]", "LENGTH"),
    ] = None,
    by_day: Annotated[
        bool,
        _file_option("--by-day", "One file a day (UTC); days that are complete are kept."),
    ] = False,
    flat: Annotated[
        bool, _file_option("--flat", "Levels of books as columns: bid_price_1 and so on.")
    ] = False,
    latency_ms: Annotated[
        int | None,
        _file_option(
            "--latency-ms",
            "For backtests: from the exchange's time to the local one. [default: 0]",
            "MILLISECONDS",
        ),
    ] = None,
    force: Annotated[bool, _file_option("--force", "Write over files that are there.")] = False,
    options: CommonOptions | None = None,
) -> int:
    """Write recorded rows as files for research, in the order of time.

    Works while a recorder runs. Rows of one millisecond are in the order of receipt. A run that was
    interrupted leaves no half-written file; with --by-day the next one goes on where it stopped.
    """
    from mexc_trio.export.request import parse_requests

    settings = _start(options, symbols)
    requests = parse_requests(
        settings.symbols if symbols else (), kind=kind, format=file_format,
        numbers=numbers, out=Path(out), start=start, end=end,
        interval=interval, by_day=by_day, flat=flat, latency_ms=latency_ms, force=force,
    )  # fmt: skip
    from mexc_trio.export.export import export

    return export(settings, requests)


@app.command
def backup(
    *symbols: Symbols,
    out: Annotated[str, _file_option("--out", "The directory to make.", "DIR")],
    options: CommonOptions | None = None,
) -> int:
    """Copy tables and the ledger of gaps into files, checked row for row.

    Without symbols, all tables. Works while a recorder runs: it takes the rows there were at the
    start.
    """
    settings = _start(options, symbols)
    from mexc_trio.backup.backup import backup

    return backup(settings, settings.symbols if symbols else (), Path(out))


@app.command
def restore(
    *symbols: Symbols,
    source: Annotated[str, _file_option("--in", "The directory that backup made.", "DIR")],
    append: Annotated[
        bool, _file_option("--append", "Add to tables that have rows, after those.")
    ] = False,
    options: JournalOptions | None = None,
) -> int:
    """Put a backup's tables into a store, of either kind, checked row for row.

    Without symbols, all tables of the backup. Stop the recorder first.
    """
    settings = _start(options, symbols)
    from mexc_trio.backup.restore import restore

    return restore(settings, settings.symbols if symbols else (), Path(source), append=append)


@app.command
def report(
    *symbols: Symbols,
    out: Annotated[str, _file_option("--out", "The page to write.", "FILE")],
    day: Annotated[
        str | None, _file_option("--day", "Day in UTC: 2026-11-21. [default: yesterday]", "DAY")
    ] = None,
    png: Annotated[
        str | None, _file_option("--png", "A directory for the plots as PNG files, too.", "DIR")
    ] = None,
    force: Annotated[bool, _file_option("--force", "Write over files that are there.")] = False,
    options: CommonOptions | None = None,
) -> int:
    """Draw one day as a page: price with its gaps, rates, pauses, spread, growth.

    Without symbols, all of that day. Works while a recorder runs. The page needs no network.
    """
    settings = _start(options, symbols)
    from mexc_trio.report.report import parse_day, report

    return report(
        settings, settings.symbols if symbols else (), parse_day(day), Path(out),
        pictures=None if png is None else Path(png), force=force,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    with steady_stderr():
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    try:
        result = app(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except cyclopts.UnusedCliTokensError as error:
        command = " ".join(("mexc-trio", *(error.command_chain or ())))
        words = " ".join(map(repr, error.unused_tokens or ()))
        hint = "; the statement goes in quotes" if command == "mexc-trio sql" else ""
        return _fail(mask(f"{command} takes no {words}{hint}"), UsageError.exit_code)
    except cyclopts.CycloptsError as error:
        return _fail(mask(str(error)), UsageError.exit_code)
    except BrokenPipeError:
        # The reader of our output has seen enough, as in `mexc-trio verify | head`. Without this,
        # the interpreter would complain when it flushes on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return MexcTrioError.exit_code
    except BaseException as error:
        causes = leaves(error)
        ours = [cause for cause in causes if isinstance(cause, MexcTrioError)]
        interrupts = [cause for cause in causes if isinstance(cause, KeyboardInterrupt)]
        if len(ours) + len(interrupts) < len(causes):
            raise  # a bug, whose traceback is wanted
        if interrupts:
            return _fail("interrupted", INTERRUPTED)
        # A group may hold the same error several times, once for each symbol that met it.
        text = "; ".join(dict.fromkeys(map(str, ours)))
        return _fail(text, max(cause.exit_code for cause in ours))
    return result if isinstance(result, int) else 0


def _start(
    options: CommonOptions | None, symbols: tuple[str, ...], *, recording: bool = False
) -> Settings:
    """Turn the command line into settings, and start the log."""
    settings = _load(options, symbols)
    if symbols and settings.patterns and not recording:
        raise UsageError(f"{settings.patterns[0]!r} is a pattern; only recording takes patterns")
    # What a command has to say is for whoever typed it.
    file = settings.log_file if recording else None
    start_logging(settings.log_level, settings.log_format, file)
    return settings


def _load(options: CommonOptions | None, symbols: tuple[str, ...]) -> Settings:
    """Turn the command line into settings."""
    typed = attrs.asdict(options) if options else {}
    texts = {
        key: ",".join(value) if isinstance(value, tuple) else str(value)
        for key, value in typed.items()
        if value is not None
    }
    return load(texts, symbols)


def _fail(text: str, exit_code: int) -> int:
    end_with(printable(" ".join(text.split())))
    return exit_code
