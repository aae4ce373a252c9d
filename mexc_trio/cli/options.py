"""The command line's frame, and the options that are settings, in the settings' own words."""

from typing import Annotated, Final, TypeAlias

import attrs
import cyclopts
from cyclopts import Group, Parameter

from mexc_trio import __version__
from mexc_trio.channels import ALL
from mexc_trio.cli.completion import symbols, words
from mexc_trio.errors import UsageError
from mexc_trio.logs import start_logging
from mexc_trio.settings import SETTINGS, Settings
from mexc_trio.settings.sources import load

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


STORE = Group("Where rows go", sort_key=1)
RECORD = Group("Recording", sort_key=2)
LIMITS = Group("Limits", sort_key=3)
PROGRAM = Group("Program", sort_key=4)
FILES = Group("Files", sort_key=0)


_CHOICES: Final = {
    "log_level": ("debug", "info", "warning", "error"), "log_format": ("text", "json"),
    "deals": ("all", "merged"), "engine": ("stripelog", "mergetree"), "channels": tuple(ALL),
    "listen": ("off",), "metrics": ("off",), "route": ("direct", "socks5://", "http://", "from:"),
}  # fmt: skip
"""What Tab offers for the value of an option."""


def _option(key: str, group: Group, metavar: str) -> Parameter:
    """Describe the option that sets `key` in the words of Settings itself."""
    about, default = (SETTINGS[key].metadata[name] for name in ("about", "text"))
    text = about[0].upper() + about[1:] + "."
    return Parameter(
        help=f"{text} [default: {default}]" if default else text,
        group=group,
        metavar=metavar,
        show_default=False,
        completer=words(*_CHOICES[key]) if key in _CHOICES else None,
    )


Symbols: TypeAlias = Annotated[
    str,
    Parameter(
        name="SYMBOL",
        help="Contracts such as BTC_USDT, in upper or lower case. Recording also takes patterns"
        " such as '*STOCK_USDT', which stand for all listed contracts that match.",
        completer=symbols,
    ),
]


# The options' values stay text: settings.py reads them in the way it reads every other source.
@Parameter(name="*")
@attrs.frozen(kw_only=True)
class CommonOptions:
    """Options of every command."""

    store: Annotated[str | None, _option("store", STORE, "DIR|URL")] = None
    config: Annotated[str | None, _option("config", PROGRAM, "FILE")] = None
    log_level: Annotated[str | None, _option("log_level", PROGRAM, "LEVEL")] = None
    log_format: Annotated[str | None, _option("log_format", PROGRAM, "FORMAT")] = None


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class SetupOptions(CommonOptions):
    """Options of setup."""

    engine: Annotated[str | None, _option("engine", STORE, "stripelog|mergetree")] = None
    cluster: Annotated[str | None, _option("cluster", STORE, "NAME")] = None
    wide: Annotated[bool | None, _option("wide", STORE, "")] = None


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class JournalOptions(CommonOptions):
    """Options of the commands that look at the journal."""

    state_dir: Annotated[str | None, _option("state_dir", STORE, "DIR")] = None


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class ConvertOptions(JournalOptions):
    """Options of convert."""

    engine: Annotated[str | None, _option("engine", STORE, "stripelog|mergetree")] = None


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class VerifyOptions(JournalOptions):
    """Options of verify."""

    rest_url: Annotated[str | None, _option("rest_url", RECORD, "URL")] = None


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class DrainOptions(JournalOptions):
    """Options of the commands that write rows."""

    store_connections: Annotated[str | None, _option("store_connections", STORE, "NUMBER")] = None
    retention: Annotated[str | None, _option("retention", LIMITS, "SECONDS")] = None


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class RecordOptions(DrainOptions):
    """Options of recording: all of them."""

    engine: Annotated[str | None, _option("engine", STORE, "stripelog|mergetree")] = None
    cluster: Annotated[str | None, _option("cluster", STORE, "NAME")] = None
    wide: Annotated[bool | None, _option("wide", STORE, "")] = None
    log_file: Annotated[str | None, _option("log_file", PROGRAM, "FILE")] = None
    url: Annotated[str | None, _option("url", RECORD, "URL")] = None
    route: Annotated[tuple[str, ...] | None, _option("route", RECORD, "ROUTE")] = None
    all: Annotated[bool | None, _option("all", RECORD, "")] = None
    quote: Annotated[str | None, _option("quote", RECORD, "CURRENCY")] = None
    shard: Annotated[str | None, _option("shard", RECORD, "NUMBER/SHARDS")] = None
    rest_url: Annotated[str | None, _option("rest_url", RECORD, "URL")] = None
    refresh: Annotated[str | None, _option("refresh", RECORD, "SECONDS")] = None
    channels: Annotated[str | None, _option("channels", RECORD, "NAMES")] = None
    lines: Annotated[str | None, _option("lines", RECORD, "NUMBER")] = None
    backfill: Annotated[bool | None, _option("backfill", RECORD, "")] = None
    linger: Annotated[str | None, _option("linger", RECORD, "SECONDS")] = None
    deals: Annotated[str | None, _option("deals", RECORD, "all|merged")] = None
    ping_interval: Annotated[str | None, _option("ping_interval", RECORD, "SECONDS")] = None
    stats_interval: Annotated[str | None, _option("stats_interval", RECORD, "SECONDS")] = None
    live: Annotated[bool | None, _option("live", RECORD, "")] = None
    duration: Annotated[str | None, _option("duration", RECORD, "SECONDS")] = None
    symbols_per_connection: Annotated[
        str | None, _option("symbols_per_connection", RECORD, "NUMBER")
    ] = None
    listen: Annotated[str | None, _option("listen", RECORD, "HOST:PORT|off")] = None
    metrics: Annotated[str | None, _option("metrics", RECORD, "HOST:PORT|off")] = None
    on_event: Annotated[str | None, _option("on_event", PROGRAM, "COMMAND")] = None
    event_after: Annotated[str | None, _option("event_after", PROGRAM, "SECONDS")] = None
    journal_sync: Annotated[bool | None, _option("journal_sync", LIMITS, "")] = None
    max_errors: Annotated[str | None, _option("max_errors", LIMITS, "NUMBER")] = None
    compact_mib: Annotated[str | None, _option("compact_mib", LIMITS, "MIB")] = None
    min_free_mib: Annotated[str | None, _option("min_free_mib", LIMITS, "MIB")] = None


Flag: TypeAlias = Annotated[bool, Parameter(negative=(), show_default=False)]
"""An option of a command that is no setting. The command's docstring says what it means."""


def value(metavar: str, *choices: str, name: str | None = None) -> Parameter:
    """Describe the value of such an option."""
    completer = words(*choices) if choices else None
    return Parameter(name=name, metavar=metavar, show_default=False, completer=completer)


def begin(
    options: CommonOptions | None, symbols: tuple[str, ...], *, recording: bool = False
) -> Settings:
    """Turn the command line into settings, and start the log."""
    settings = load_settings(options, symbols)
    if symbols and settings.patterns and not recording:
        raise UsageError(f"{settings.patterns[0]!r} is a pattern; only recording takes patterns")
    # What a command has to say is for whoever typed it.
    file = settings.log_file if recording else None
    start_logging(settings.log_level, settings.log_format, file)
    return settings


def load_settings(options: CommonOptions | None, symbols: tuple[str, ...]) -> Settings:
    """Turn the command line into settings."""
    typed = attrs.asdict(options) if options else {}
    texts = {
        key: ",".join(value) if isinstance(value, tuple) else str(value)
        for key, value in typed.items()
        if value is not None
    }
    return load(texts, symbols)
