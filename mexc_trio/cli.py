"""The commands, their help, their one-line errors and exit codes; the only `trio.run`.

Whatever a command does is in a module of its own, imported when the command runs, so that `--help`
and a wrong argument are answered at once.
"""

import difflib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, TypeAlias

import attrs
import cyclopts
from cyclopts import Group, Parameter

from mexc_trio import __version__
from mexc_trio.errors import MexcTrioError, UsageError
from mexc_trio.settings import SETTINGS, Settings, load, mask

INTERRUPTED = 130

_STORE = Group("Where rows go", sort_key=1)
_RECORD = Group("Recording", sort_key=2)
_LIMITS = Group("Limits", sort_key=3)
_PROGRAM = Group("Program", sort_key=4)

_EPILOGUE = (
    "Every option is also a key of settings.ini and an environment variable: --ping-interval is"
    " ping_interval in the file and MEXC_TRIO_PING_INTERVAL in the environment. The command line"
    " comes first, then the environment, the file, the default. A server's password is best kept in"
    " MEXC_TRIO_PASSWORD or in the file."
    "\n\n"
    "Exit codes: 0 done, or stopped by Ctrl-C, SIGTERM or --duration; 1 a symbol was stopped by its"
    " errors, or the command failed; 2 wrong arguments or settings; 130 a second Ctrl-C."
)

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
    str, Parameter(name="SYMBOL", help="Contracts such as BTC_USDT, in upper or lower case.")
]


# The options' values stay text: settings.py reads them in the way it reads every other source.
@Parameter(name="*")
@attrs.frozen(kw_only=True)
class CommonOptions:
    """Options of every command."""

    store: Annotated[str | None, _option("store", _STORE, "DIR|URL")] = None
    config: Annotated[str | None, _option("config", _PROGRAM, "FILE")] = None
    log_level: Annotated[str | None, _option("log_level", _PROGRAM, "LEVEL")] = None


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class DrainOptions(CommonOptions):
    """Options of the commands that write rows."""

    state_dir: Annotated[str | None, _option("state_dir", _STORE, "DIR")] = None
    store_connections: Annotated[str | None, _option("store_connections", _STORE, "NUMBER")] = None
    retention: Annotated[str | None, _option("retention", _LIMITS, "SECONDS")] = None


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class RecordOptions(DrainOptions):
    """Options of recording: all of them."""

    url: Annotated[str | None, _option("url", _RECORD, "URL")] = None
    linger: Annotated[str | None, _option("linger", _RECORD, "SECONDS")] = None
    ping_interval: Annotated[str | None, _option("ping_interval", _RECORD, "SECONDS")] = None
    stats_interval: Annotated[str | None, _option("stats_interval", _RECORD, "SECONDS")] = None
    duration: Annotated[str | None, _option("duration", _RECORD, "SECONDS")] = None
    symbols_per_connection: Annotated[
        str | None, _option("symbols_per_connection", _RECORD, "NUMBER")
    ] = None
    journal_sync: Annotated[bool | None, _option("journal_sync", _LIMITS, "")] = None
    max_errors: Annotated[str | None, _option("max_errors", _LIMITS, "NUMBER")] = None
    min_free_mib: Annotated[str | None, _option("min_free_mib", _LIMITS, "MIB")] = None


@app.default
def record(*symbols: Symbols, options: RecordOptions | None = None) -> int:
    """Record MEXC futures market data into ClickHouse: every row once, every hole written down.

    mexc-trio BTC_USDT ETH_USDT records until Ctrl-C. Tables are created when they are missing.
    """
    for text in symbols:
        for command in difflib.get_close_matches(text, ("setup", "verify", "drain"), 1, cutoff=0.8):
            raise UsageError(f"{text!r} is not a symbol; commands come first: mexc-trio {command}")
    settings = _start(options, symbols, needs_symbols=True)
    import trio

    from mexc_trio.recorder import record

    return trio.run(record, settings, settings.symbols)


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
    settings = _start(options, symbols, needs_symbols=True)
    from mexc_trio.setup import setup

    return setup(settings, settings.symbols, drop_system_logs=drop_system_logs)


@app.command
def verify(*symbols: Symbols, options: CommonOptions | None = None) -> int:
    """Read what is stored in full and say how much it is, how big, and whether it is sound.

    Without symbols, all tables found.
    """
    settings = _start(options, symbols)
    from mexc_trio.verify import verify

    return verify(settings, settings.symbols if symbols else ())


@app.command
def drain(*, options: DrainOptions | None = None) -> int:
    """Write what an earlier run left in the journal, without recording."""
    settings = _start(options, ())
    import trio

    from mexc_trio.recorder import drain

    return trio.run(drain, settings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        result = app(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        return _fail(mask(str(error)), UsageError.exit_code)
    except BrokenPipeError:
        # The reader of our output has seen enough, as in `mexc-trio verify | head`. Without this,
        # the interpreter would complain when it flushes on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return MexcTrioError.exit_code
    except BaseException as error:
        causes = list(_leaves(error))
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
    options: CommonOptions | None, symbols: tuple[str, ...], *, needs_symbols: bool = False
) -> Settings:
    """Turn the command line into settings, and start the log."""
    typed = attrs.asdict(options) if options else {}
    texts = {key: str(value) for key, value in typed.items() if value is not None}
    settings = load(texts, symbols)
    if needs_symbols and not settings.symbols:
        raise UsageError("no symbol given; name at least one, such as BTC_USDT")
    start_logging(settings.log_level)
    return settings


def start_logging(level: str) -> None:
    """Send the log to standard error, which leaves standard output to the statistics."""
    handler = logging.StreamHandler()
    formatter = logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)-5s %(message)s")
    formatter.datefmt = "%Y-%m-%d %H:%M:%S"
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.addLevelName(logging.WARNING, "WARN")  # keeps texts aligned
    logging.getLogger("trio-websocket").setLevel(max(logging.INFO, logging.root.level))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in a group of groups, or the error that is none."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _fail(text: str, exit_code: int) -> int:
    print(f"mexc-trio: error: {' '.join(text.split())}", file=sys.stderr)  # noqa: T201
    return exit_code
