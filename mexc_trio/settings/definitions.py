"""What the user can set: each setting with its default, its reader and its sentence for `--help`.

`Settings` is the list of everything there is to set. `mexc_trio.settings.sources` fills it; tests
may call it directly. Nothing here connects or writes.
"""

# ruff: noqa: RUF009 - what _setting() returns is an attrs.field()

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs

from mexc_trio.channels import ALL, USUAL
from mexc_trio.settings.address import Address, parse_address
from mexc_trio.settings.routes import Route, parse_routes
from mexc_trio.settings.symbol import SymbolSettings
from mexc_trio.settings.targets import EmbeddedTarget, StoreTarget, parse_store
from mexc_trio.settings.values import (
    choice,
    directory,
    file,
    new_file,
    or_auto,
    parse_command,
    ping_seconds,
    positive_seconds,
    seconds,
    socket_url,
    whole,
    yes_or_no,
)
from mexc_trio.settings.words import (
    Shard,
    parse_channels,
    parse_quotes,
    parse_rest_url,
    parse_shard,
    parse_symbol_list,
)
from mexc_trio.symbols import parse_table, table_name

DEFAULT: Final = "default"
"""The source of a setting that no source gives."""

T = TypeVar("T")


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
class Settings:
    """Everything that can be set. `load` fills it from all sources; tests may call it directly."""

    # Each has its default and its reader, and then its sentence.
    # fmt: off
    symbols: tuple[str, ...] = _setting(
        "", parse_symbol_list, "symbols to record if none are given"
    )
    store: StoreTarget = _setting(
        "./mexc-data", parse_store,
        "a directory for the embedded ClickHouse engine, or a ClickHouse server:"
        " clickhouse://user:password@host:9000/mexc_data (clickhouses:// for TLS)",
    )
    password: str | None = _setting(
        None, str, "the server's password, for a store whose URL has none", secret=True
    )
    url: str = _setting("wss://contract.mexc.com/edge", socket_url, "the exchange's socket")
    route: tuple[Route, ...] = _setting(
        "direct", parse_routes,
        "how the exchange is reached: direct, socks5://user:password@host:port, http://host:port or"
        " from:ADDRESS, each with ' via wss://...' if its exchange is another. Of several, the next"
        " is taken when one fails",
    )
    all: bool = _setting("no", yes_or_no, "record every contract that the exchange lists")
    quote: tuple[str, ...] | None = _setting(
        None, parse_quotes, "of the listed contracts, record only those with this quote currency"
    )
    shard: Shard | None = _setting(
        None, parse_shard, "of the listed contracts, record only those of this shard, such as 1/2"
    )
    rest_url: str = _setting(
        "https://contract.mexc.com", parse_rest_url,
        "the exchange's REST interface: its contracts, and deals that fell into gaps",
    )
    refresh: float = _setting(
        "300.0", positive_seconds, "seconds between two requests for the list of contracts"
    )
    channels: tuple[str, ...] = _setting(
        ",".join(USUAL), parse_channels, f"which channels to record: some of {', '.join(ALL)}"
    )
    lines: int = _setting(
        "1", whole(1),
        "connections for each symbol, merged into one stream; they take the routes in turn",
    )
    backfill: bool = _setting(
        "yes", yes_or_no,
        "when a gap in deals ends, fetch those that the REST interface still has",
    )
    linger: float = _setting(
        "1.0", seconds,
        "seconds that a row may wait for others to be inserted with; 0 inserts at once",
    )
    deals: str = _setting(
        "all", choice("all", "merged"),
        "every deal, or merged ones, as the exchange sends them unless it is asked for all",
    )
    ping_interval: float = _setting(
        "15.0", ping_seconds, "seconds between pings; the exchange closes after 60 without one"
    )
    stats_interval: float = _setting(
        "15.0", seconds, "seconds between blocks of statistics; 0 shows them at the end only"
    )
    live: bool = _setting(
        "no", yes_or_no, "show a live screen instead of blocks, where standard output is a terminal"
    )
    max_errors: int = _setting(
        "100", whole(1), "errors of one symbol within ten minutes that stop that symbol"
    )
    duration: float | None = _setting(
        None, positive_seconds,
        "seconds to record, then stop as on Ctrl-C; without it, until Ctrl-C",
    )
    state_dir: Path | None = _setting(
        None, directory,
        "directory of the journal; the embedded store's own, or ./mexc-data for a server",
    )
    journal_sync: bool = _setting(
        "no", yes_or_no,
        "sync the journal to disk within 100 ms, so that a power cut costs little of it",
    )
    retention: float = _setting(
        "600.0", seconds,
        "seconds that rows stay in the journal after the store has acknowledged them",
    )
    listen: Address | None = _setting(
        "127.0.0.1:0", parse_address,
        "where the embedded engine answers readers over HTTP while it records: host:port, a port,"
        " or off; port 0 is a free one",
    )
    metrics: Address | None = _setting(
        "127.0.0.1:0", parse_address,
        "where a recorder answers /metrics, /live and /ready: host:port, a port, or off; port 0 is"
        " a free one, and the file metrics.url in the state directory says which",
    )
    on_event: tuple[str, ...] | None = _setting(
        None, parse_command,
        "a command that is run with a line of JSON on its standard input when recording stops, a"
        " symbol has no data or the store is away for longer than --event-after, or the disk is"
        " low",
    )
    event_after: float = _setting(
        "300.0", seconds,
        "seconds without data, or without the store, after which --on-event is told",
    )
    reader_password: str | None = _setting(
        None, str, "the password of user reader at that address; a random one if none", secret=True
    )
    min_free_mib: int = _setting(
        "256", whole(0), "MiB of disk to leave free; recording stops before it uses them"
    )
    compact_mib: int = _setting(
        "64", whole(0),
        "rewrite tables in large blocks when their INSERTs take more MiB of the engine's memory"
        " than this; 0 for never",
    )
    symbols_per_connection: int = _setting(
        "auto", or_auto(whole(1)),
        "symbols that share one connection to the exchange, or auto: of more than twenty symbols"
        " the quiet ones share",
    )
    engine: str = _setting(
        "stripelog", choice("stripelog", "mergetree"),
        "how new tables of symbols keep rows: stripelog, one file, or mergetree, with an index",
    )
    cluster: str | None = _setting(
        None, str, "a cluster of ClickHouse: new tables are made on all of its shards"
    )
    wide: bool = _setting(
        "no", yes_or_no, "give new tables the time of receipt and the exchange's number of each row"
    )
    store_connections: int = _setting("4", whole(1), "connections to a ClickHouse server")
    log_level: str = _setting(
        "info", choice("debug", "info", "warning", "error"),
        "how much to log: debug, info, warning or error",
    )
    log_format: str = _setting(
        "text", choice("text", "json"), "how to log: text for people, or json, an object a line"
    )
    log_file: Path | None = _setting(
        None, new_file,
        "a file to log to while recording, instead of standard error; a new one is begun at 16"
        " MiB, and five older ones are kept",
    )
    config: Path | None = _setting(
        None, file, "settings file; without it, settings.ini in the current directory if there"
    )
    # fmt: on

    patterns: tuple[str, ...] = ()
    """Patterns that stood among the symbols: contracts that match are recorded, too."""
    overrides: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, hash=False)
    """Per symbol, what its section of the file gives it: some of `SYMBOL_SETTINGS`."""
    sources: Mapping[str, str] = attrs.field(factory=dict, eq=False, repr=False)
    """Where each value came from that is no default; for `describe`."""
    overridden: Mapping[str, str] = attrs.field(factory=dict, eq=False, repr=False)
    """What the file sets in vain, and what comes before it: the command line or the environment."""

    @property
    def follows_list(self) -> bool:
        """Whether contracts are recorded because they are listed."""
        return self.all or bool(self.patterns)

    @property
    def backfills(self) -> bool:
        """Whether deals that fell into gaps are fetched; for another `url` with its `rest_url`."""
        same = self.url == SETTINGS["url"].default or self.rest_url != SETTINGS["rest_url"].default
        return self.backfill and same

    @property
    def state_directory(self) -> Path:
        """Where the journal lives, whether that was set or not."""
        return self.state_dir or self.store.directory or Path("mexc-data")

    @property
    def journal_path(self) -> Path:
        """The journal's file: one for each store, so that a directory may serve several."""
        if isinstance(self.store, EmbeddedTarget):
            return self.state_directory / "journal.sqlite"
        parts = (self.store.host, str(self.store.port), self.store.database)
        return self.state_directory / f"journal-{'-'.join(parts).replace(':', '_')}.sqlite"

    @property
    def min_free(self) -> int:
        """Bytes of disk to leave free."""
        return self.min_free_mib * 2**20

    def for_symbol(self, symbol: str) -> SymbolSettings:
        """Return what holds for `symbol`, its own section of the file considered."""
        same = ("max_errors", "linger", "route", "channels", "engine", "wide")
        values = {"table": table_name(symbol), **{key: getattr(self, key) for key in same}}
        values.update(self.overrides.get(symbol, {}))
        return SymbolSettings(symbol=symbol, **values)

    def engine_of(self, table: str) -> str:
        """Return the engine with which a missing table is made; its symbol need not be recorded."""
        chosen = (self.for_symbol(symbol) for symbol in self.overrides)
        return next((one.engine for one in chosen if one.table == table), self.engine)


SETTINGS: Mapping[str, "attrs.Attribute[Any]"] = {
    field.name: field for field in attrs.fields(Settings) if "parse" in field.metadata
}
"""The fields that users can set, by key. Metadata: `text` of the default, `parse`, `about`."""

SYMBOL_SETTINGS: Mapping[str, Callable[[str], Any]] = {
    **{
        key: SETTINGS[key].metadata["parse"]
        for key in ("max_errors", "linger", "route", "channels", "engine")
    },
    "table": parse_table,
    "shard": whole(1),
}
"""The keys of a symbol's own section in the settings file."""
