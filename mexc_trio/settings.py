"""What the user can set, and how the four sources of it become one frozen object.

`Settings` is the list of everything there is to set: each field has its default, the function that
reads its value from text, and the sentence that `--help` shows. `load` collects texts from the
command line, the environment, the settings file and the defaults, in this order of precedence, and
reads every one of them with the same function. An error therefore names the value and the place it
came from in the same way wherever that is.

Nothing here connects or writes.
"""

# ruff: noqa: RUF009 - what _setting() returns is an attrs.field()

import configparser
import difflib
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import attrs

from mexc_trio.errors import UsageError
from mexc_trio.symbols import check_tables, parse_symbol, parse_symbols, parse_table, table_name

PREFIX = "MEXC_TRIO_"
FILE = Path("settings.ini")
SECTION = "mexc-trio"

T = TypeVar("T")
Number = TypeVar("Number", int, float)


# Reading values. Each function raises UsageError with a message that says what the text is not; the
# caller puts in front of it where the text came from.


def mask(text: str) -> str:
    """Hide whatever may be a user and password, even in a URL that is wrong."""
    return re.sub(r"(?s)://.*@", "://***@", text)


def _shown(text: str) -> str:
    """Return `text` fit for a one-line message."""
    text = mask(text)
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _number(
    read: Callable[[str], Number], what: str, allowed: Callable[[Number], bool], rule: str
) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        try:
            number = read(text)
        except ValueError:
            raise UsageError(f"{_shown(text)} is not {what}") from None
        if not allowed(number):
            raise UsageError(f"{_shown(text)} must be {rule}")
        return number

    return parse


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _seconds(allowed: Callable[[float], bool], rule: str) -> Callable[[str], float]:
    return _number(_finite, "a number of seconds", allowed, rule)


def _whole(least: int) -> Callable[[str], int]:
    return _number(int, "a whole number", lambda number: number >= least, f"{least} or more")


def _choice(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise UsageError(f"{_shown(text)} is not one of {', '.join(words)}")
        return text.lower()

    return parse


def _yes_or_no(text: str) -> bool:
    word = _choice("yes", "no", "true", "false", "on", "off", "1", "0")(text)
    return word in ("yes", "true", "on", "1")


def _path(text: str) -> Path:
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # ~nobody
        path = None
    if path is None or not text or "\0" in text:
        raise UsageError(f"{_shown(text)} is not a path")
    return path


def _directory(text: str) -> Path:
    path = _path(text)
    # os.path answers where Path raises: in a directory that may not be read, for a name too long.
    place = next((place for place in (path, *path.parents) if os.path.exists(place)), None)
    if place is not None and not os.path.isdir(place):
        raise UsageError(f"{_shown(str(place))} is a file, not a directory")
    return path


def _file(text: str) -> Path:
    path = _path(text)
    if not os.path.exists(path):
        raise UsageError(f"there is no file {_shown(text)}")
    return path


def _socket_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or "@" in text or "#" in text or re.search(r"\s", text):
        raise UsageError(f"{_shown(text)} is not a socket's URL; wss://contract.mexc.com/edge is")
    return text


def _symbols(text: str) -> tuple[str, ...]:
    return parse_symbols(text.replace(",", " ").split())


# Where rows go.


@attrs.frozen
class EmbeddedTarget:
    """The embedded engine, which keeps its tables in `directory`."""

    directory: Path

    @property
    def identity(self) -> str:
        """What names this store, wherever the program is started: the absolute directory."""
        return str(self.directory.resolve())

    def __str__(self) -> str:
        return str(self.directory)


@attrs.frozen(kw_only=True)
class ServerTarget:
    """A ClickHouse server, spoken to over its native protocol.

    `options` are more keyword arguments for the driver; `SERVER_OPTIONS` lists those that exist.
    """

    host: str
    port: int = 9000
    user: str = "default"
    password: str = attrs.field(default="", repr=False)
    database: str = "mexc_data"
    secure: bool = False
    options: Mapping[str, float | bool | str] = attrs.field(factory=dict, hash=False)

    @property
    def identity(self) -> str:
        """What names this store, without secrets: `host:port/database`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}/{self.database}"

    def __str__(self) -> str:
        """Return the URL with `***` for the password."""
        scheme = "clickhouses" if self.secure else "clickhouse"
        user = quote(self.user, safe="") + (":***" if self.password else "")
        options = {name: str(value) for name, value in self.options.items()}
        query = "?" + urlencode(options) if options else ""
        return f"{scheme}://{user}@{self.identity}{query}"


StoreTarget: TypeAlias = EmbeddedTarget | ServerTarget

_TIMEOUT = _seconds(lambda seconds: seconds > 0, "more than 0")
SERVER_OPTIONS: Mapping[str, Callable[[str], float | bool | str]] = {
    "connect_timeout": _TIMEOUT,
    "send_receive_timeout": _TIMEOUT,
    "sync_request_timeout": _TIMEOUT,
}
TLS_OPTIONS: Mapping[str, Callable[[str], float | bool | str]] = {
    "verify": _yes_or_no,
    "ca_certs": lambda text: str(_file(text)),
    "certfile": lambda text: str(_file(text)),
    "keyfile": lambda text: str(_file(text)),
    "server_hostname": str,
}


def parse_store(text: str) -> StoreTarget:
    """Read a directory, or the URL of a server. No message repeats a password."""
    form = "clickhouse://user:password@host:9000/database (clickhouses:// for TLS)"
    if "://" not in text:
        if re.match(r"clickhouses?:", text, re.IGNORECASE):
            raise UsageError(f"a server is written as {form}")
        return EmbeddedTarget(_directory(text))
    try:
        parts = urlsplit(text)
        port = parts.port
        user, password = unquote(parts.username or "", errors="strict"), parts.password
        password = unquote(password or "", errors="strict")
        pairs = parse_qsl(parts.query, keep_blank_values=True, errors="strict")
    except ValueError:
        # A raw "/", "?", "#" or "[" in a password ends the host early: the likeliest reason.
        raise UsageError(
            f"{_shown(text)} is not a URL; special characters in a password are written as %2F"
        ) from None
    if parts.scheme not in ("clickhouse", "clickhouses"):
        raise UsageError(f"{_shown(text)} is neither a directory nor {form}")
    misplaced = "@" in parts.path + parts.query + parts.fragment
    if not parts.hostname or port == 0 or misplaced or parts.fragment or re.search(r"\s", text):
        raise UsageError(f"{_shown(text)} is not of the form {form}")
    secure = parts.scheme == "clickhouses"
    database = unquote(parts.path).strip("/") or "mexc_data"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", database):
        raise UsageError(f"{_shown(database)} is not the name of a database")
    return ServerTarget(
        host=parts.hostname,
        port=port or (9440 if secure else 9000),
        user=user or "default",
        password=password,
        database=database,
        secure=secure,
        options=dict(_server_options(pairs, secure=secure)),
    )


def _server_options(
    pairs: Iterable[tuple[str, str]], *, secure: bool
) -> Iterator[tuple[str, float | bool | str]]:
    known = {**SERVER_OPTIONS, **TLS_OPTIONS}
    seen: set[str] = set()
    for name, text in pairs:
        if name not in known:
            raise UsageError(f"unknown option {_shown(name)} in the URL{_nearest(name, known)}")
        if name in seen:
            raise UsageError(f"{name} is in the URL twice")
        if name in TLS_OPTIONS and not secure:
            raise UsageError(f"{name} is for TLS, which takes clickhouses://")
        seen.add(name)
        try:
            yield name, known[name](text)
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None


# The settings.


def _setting(
    default: str | None, parse: Callable[[str], T], about: str, *, secret: bool = False
) -> Any:
    """Declare a field of Settings. `default` is text, and read like any other."""
    return attrs.field(
        default=None if default is None else parse(default),
        repr=not secret,
        metadata={"text": default, "parse": parse, "about": about},
    )


@attrs.frozen(kw_only=True)
class SymbolSettings:
    """What holds for one symbol."""

    symbol: str
    table: str
    max_errors: int
    linger: float


@attrs.frozen(kw_only=True)
class Settings:
    """Everything that can be set. `load` fills it from all sources; tests may call it directly."""

    symbols: tuple[str, ...] = _setting(
        "", lambda text: _symbols(text) if text else (), "symbols to record if none are given"
    )
    store: StoreTarget = _setting(
        "./mexc-data",
        parse_store,
        "a directory for the embedded ClickHouse engine, or a ClickHouse server:"
        " clickhouse://user:password@host:9000/mexc_data (clickhouses:// for TLS)",
    )
    password: str | None = _setting(
        None, str, "the server's password, for a store whose URL has none", secret=True
    )
    url: str = _setting("wss://contract.mexc.com/edge", _socket_url, "the exchange's socket")
    linger: float = _setting(
        "1.0",
        _seconds(lambda seconds: seconds >= 0, "0 or more"),
        "seconds a row may wait for company before its INSERT; 0 inserts at once",
    )
    ping_interval: float = _setting(
        "15.0",
        _seconds(lambda seconds: 0 < seconds < 60, "more than 0 and less than 60"),
        "seconds between pings; the exchange closes after 60 without one",
    )
    stats_interval: float = _setting(
        "15.0",
        _seconds(lambda seconds: seconds > 0, "more than 0"),
        "seconds between blocks of statistics",
    )
    max_errors: int = _setting(
        "100", _whole(1), "errors of one symbol within ten minutes that stop that symbol"
    )
    duration: float | None = _setting(
        None,
        _seconds(lambda seconds: seconds > 0, "more than 0"),
        "seconds to record, then stop as on Ctrl-C; without it, until then",
    )
    state_dir: Path | None = _setting(
        None,
        _directory,
        "directory of the journal; the embedded store's own, or ./mexc-data for a server",
    )
    journal_sync: bool = _setting(
        "no",
        _yes_or_no,
        "sync the journal to disk at every write, so that it outlives a power cut",
    )
    retention: float = _setting(
        "600.0",
        _seconds(lambda seconds: seconds >= 0, "0 or more"),
        "seconds that rows stay in the journal after the store has acknowledged them",
    )
    min_free_mib: int = _setting(
        "256", _whole(0), "MiB of disk to leave free; recording stops before it uses them"
    )
    symbols_per_connection: int = _setting(
        "1", _whole(1), "symbols that share one connection to the exchange"
    )
    store_connections: int = _setting("4", _whole(1), "connections to a ClickHouse server")
    log_level: str = _setting(
        "info",
        _choice("debug", "info", "warning", "error"),
        "how much to log: debug, info, warning or error",
    )
    config: Path | None = _setting(
        None, _file, "settings file; without it, settings.ini in the current directory if there"
    )

    overrides: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, hash=False)
    """Per symbol, the table, max_errors and linger that its section of the file gives it."""
    sources: Mapping[str, str] = attrs.field(factory=dict, eq=False, repr=False)
    """Where each value came from that is no default; for `describe`."""

    @property
    def state_directory(self) -> Path:
        """Where the journal lives, whether that was set or not."""
        if self.state_dir is not None:
            return self.state_dir
        if isinstance(self.store, EmbeddedTarget):
            return self.store.directory
        return Path("mexc-data")

    @property
    def min_free(self) -> int:
        """Bytes of disk to leave free."""
        return self.min_free_mib * 2**20

    def for_symbol(self, symbol: str) -> SymbolSettings:
        """Return what holds for `symbol`, its own section of the file considered."""
        values: dict[str, Any] = {
            "table": table_name(symbol),
            "max_errors": self.max_errors,
            "linger": self.linger,
        }
        values.update(self.overrides.get(symbol, {}))
        return SymbolSettings(symbol=symbol, **values)

    def describe(self) -> list[str]:
        """Return one line a setting, with its source and without secrets, for the log."""
        shown: dict[str, object] = {key: getattr(self, key) for key in SETTINGS}
        shown["symbols"] = " ".join(self.symbols)
        shown["password"] = "***" if self.password else None
        shown["state_dir"] = self.state_directory
        shown["url"] = mask(self.url)
        shown["journal_sync"] = "yes" if self.journal_sync else "no"
        lines = [
            f"{key} = {'none' if value in (None, '') else value}"
            f" ({self.sources.get(key, 'default')})"
            for key, value in shown.items()
        ]
        for symbol, override in self.overrides.items():
            lines += [
                f"[{symbol}] {key} = {value} ({self.config})" for key, value in override.items()
            ]
        return lines


SETTINGS: Mapping[str, "attrs.Attribute[Any]"] = {
    field.name: field for field in attrs.fields(Settings) if "parse" in field.metadata
}
"""The fields that users can set, by key. Metadata: `text` of the default, `parse`, `about`."""

SYMBOL_SETTINGS: Mapping[str, Callable[[str], Any]] = {
    "table": parse_table,
    "max_errors": SETTINGS["max_errors"].metadata["parse"],
    "linger": SETTINGS["linger"].metadata["parse"],
}
"""The keys of a symbol's own section in the settings file."""


# The sources.


@attrs.frozen
class _Given:
    """A text that some source gives for a setting."""

    text: str
    source: str  # for describe()
    where: str  # for an error

    def read(self, parse: Callable[[str], T]) -> T:
        try:
            return parse(self.text)
        except UsageError as error:
            raise UsageError(f"{self.where}: {error}") from None


def load(
    options: Mapping[str, str] | None = None,
    symbols: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings that hold, or raise UsageError with one line that says what is wrong.

    `options` and `symbols` are those of the command line.
    """
    typed = {
        key: _Given(text, "command line", "--" + key.replace("_", "-"))
        for key, text in (options or {}).items()
    }
    given = {**_from_environment(os.environ if environ is None else environ), **typed}

    sections: dict[str, dict[str, _Given]] = {}
    config = FILE if os.path.exists(FILE) else None
    if "config" in given:
        config = given["config"].read(_file)
    if config is not None:
        sections = _from_file(config)

    main = sections.pop(SECTION, {}) | given
    values: dict[str, Any] = {
        key: text.read(SETTINGS[key].metadata["parse"]) for key, text in main.items()
    }
    sources = {key: text.source for key, text in main.items()}
    values["config"] = config
    if config is not None:
        sources.setdefault("config", "found")
    if typed_symbols := tuple(symbols):
        values["symbols"] = parse_symbols(typed_symbols)
        sources["symbols"] = "command line"
    store = values.get("store")
    if isinstance(store, ServerTarget) and not store.password and values.get("password"):
        values["store"] = attrs.evolve(store, password=values["password"])

    overrides = {
        symbol: {
            key: text.read(SYMBOL_SETTINGS[key])
            for key, text in section.items()
            if key not in given  # the command line and the environment come before any section
        }
        for symbol, section in sections.items()
    }
    settings = Settings(**values, overrides=overrides, sources=sources)
    used = dict.fromkeys((*settings.symbols, *overrides))
    try:
        check_tables({symbol: settings.for_symbol(symbol).table for symbol in used})
    except UsageError as error:
        raise UsageError(f"{config}: {error}; give one of them another table") from None
    return settings


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    """Read the MEXC_TRIO_ variables; an empty one is as good as none."""
    variables = {PREFIX + key.upper(): key for key in SETTINGS}
    given = {}
    for name in sorted(name for name in environ if name.startswith(PREFIX)):
        if name not in variables:
            raise UsageError(f"{name}: there is no such setting{_nearest(name, variables)}")
        if environ[name]:
            given[variables[name]] = _Given(environ[name], "environment", name)
    return given


def _from_file(path: Path) -> dict[str, dict[str, _Given]]:
    """Read a settings file: its sections, by SECTION or symbol; an empty value is as good as none.

    Lines that are wrong are named by number, not quoted: one of them may be the password.
    """
    parser = configparser.ConfigParser(
        delimiters=("=",), interpolation=None, default_section="", empty_lines_in_values=False
    )
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text") from None
    except configparser.DuplicateSectionError as error:
        raise UsageError(f"{path}: line {error.lineno}: [{error.section}] is there twice") from None
    except configparser.DuplicateOptionError as error:
        raise UsageError(
            f"{path}: line {error.lineno}: [{error.section}] {mask(error.option)} is there twice"
        ) from None
    except configparser.MissingSectionHeaderError as error:
        raise UsageError(
            f"{path}: line {error.lineno} is above all sections; [{SECTION}] comes first"
        ) from None
    except configparser.ParsingError as error:
        line = error.errors[0][0]
        raise UsageError(f"{path}: line {line} is neither [section] nor key = value") from None

    sections: dict[str, dict[str, _Given]] = {}
    for title in parser.sections():
        where = f"{path}: [{title}]"
        try:
            section = SECTION if title == SECTION else parse_symbol(title)
        except UsageError:
            raise UsageError(
                f"{mask(where)}: there is no such section;"
                f" [{SECTION}] has the settings, and one such as [BTC_USDT] a symbol's own"
            ) from None
        if section in sections:
            raise UsageError(f"{where}: {section} is there twice")
        known = set(SETTINGS) - {"config"} if section == SECTION else set(SYMBOL_SETTINGS)
        given = sections[section] = {}
        for name, text in parser[title].items():
            option, key = mask(name), name.replace("-", "_")
            if key not in known:
                raise UsageError(f"{where} {option}: there is no such key{_nearest(key, known)}")
            if key in given:
                raise UsageError(f"{where} {option}: is there twice")
            if "\n" in text and key != "symbols":
                raise UsageError(f"{where} {option}: is followed by an indented line")
            if text:
                given[key] = _Given(text, str(path), f"{where} {option}")
    return sections


def _nearest(name: str, known: Collection[str]) -> str:
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"; did you mean {matches[0]}?" if matches else ""
