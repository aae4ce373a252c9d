"""Symbols as the exchange writes them, and the names of their tables.

A symbol has one underscore: with `_USDT` it is recorded under its base (`BTC_USDT` in `btc`), which
has none, else under its whole name, which has one. So no two share a table. Names that something
else in the database has are left out: the tables `gaps` and `contracts`, and views such as
`btc_deals` beside `btc`. So `GAPS_USDT` is recorded in `gaps_usdt`, and `BTC_DEALS`, if it ever
comes, in `btc__deals`.
"""

import re
from collections.abc import Iterable, Mapping

from mexc_trio.channels import OPTIONAL_VIEWS
from mexc_trio.errors import UsageError

VIEWS = ("deals", "tickers", "depths", "candles")
"""A table `btc` may have views named `btc_deals`, `btc_tickers` and so on beside it."""
EXACT_VIEWS = tuple(f"{view}_exact" for view in VIEWS)
"""And `btc_deals_exact` and so on."""
ALL_VIEWS = (*VIEWS, *OPTIONAL_VIEWS, *EXACT_VIEWS, *(f"{view}_exact" for view in OPTIONAL_VIEWS))
"""Those and the views of channels that are recorded on request."""

LONGEST_TABLE = 150
"""Letters of a table's name. A table is a file or a directory, whose name has 255 at the most, with
what the engine, and we for a damaged table, add."""

RESERVED_TABLES = frozenset({"gaps", "contracts"})
"""Names of tables that are no symbol's."""

_SYMBOL = re.compile(r"[A-Z0-9]+_[A-Z0-9]+")
_PATTERN = re.compile(r"([A-Z0-9_*?]|\[!?[A-Z0-9_-]+\])+")
_TABLE = re.compile(r"[A-Za-z0-9_]+")
_QUOTES = ("USDT", "USDC", "USDE", "USD1", "USD", "EUR")  # the first that fits is split off


def parse_symbol(text: str) -> str:
    """Return the symbol that `text` means, in upper case; suggest one if it is none.

    >>> parse_symbol("btc_usdt")
    'BTC_USDT'
    """
    if "://" in text:  # and perhaps a password, which is not to be repeated
        raise UsageError("a URL stands where a symbol belongs; is it for --store or --url?")
    symbol = text.strip().upper()
    # upper() makes A to Z of some other letters too, and "ß" is no spelling of "SS".
    if text.isascii() and _SYMBOL.fullmatch(symbol):
        return symbol
    suggestion = _suggestion(symbol) if text.isascii() else None
    hint = f"did you mean {suggestion}?" if suggestion else "symbols look like BTC_USDT"
    raise UsageError(f"{text[:40]!r} is not a symbol; {hint}")


def is_symbol(text: str) -> bool:
    """Say whether `text` is a symbol as the exchange writes them."""
    return _SYMBOL.fullmatch(text) is not None


def is_pattern(text: str) -> bool:
    """Say whether `text` stands for all the symbols that match it, as in a shell."""
    return any(sign in text for sign in "*?[")


def parse_pattern(text: str) -> str:
    """Return the pattern that `text` means, in upper case.

    >>> parse_pattern("*stock_usdt")
    '*STOCK_USDT'
    """
    if not text.isascii() or not _PATTERN.fullmatch(text.upper()):
        raise UsageError(
            f"{text[:40]!r} is not a pattern of symbols; patterns look like '*STOCK_USDT'"
        )
    return text.upper()


def parse_symbols(texts: Iterable[str]) -> tuple[str, ...]:
    """Return symbols and patterns in the order given: at least one, and none of them twice."""
    symbols: list[str] = []
    for text in texts:
        symbol = parse_pattern(text) if is_pattern(text) else parse_symbol(text)
        if symbol in symbols:
            raise UsageError(f"{symbol} is given twice")
        symbols.append(symbol)
    if not symbols:
        raise UsageError("no symbol given; name at least one, such as BTC_USDT")
    return tuple(symbols)


def table_name(symbol: str) -> str:
    """Return the name of the symbol's table, unless the settings give it another.

    >>> [table_name(symbol) for symbol in ("BTC_USDT", "BTC_USD", "GAPS_USDT", "BTC_DEALS")]
    ['btc', 'btc_usd', 'gaps_usdt', 'btc__deals']
    """
    base, quote = symbol.lower().split("_")
    if quote in VIEWS:
        return f"{base}__{quote}"
    if quote == "usdt" and base not in RESERVED_TABLES:
        return base
    return f"{base}_{quote}"


def parse_table(text: str) -> str:
    """Return `text` if a symbol's table can have that name."""
    if not _TABLE.fullmatch(text):
        raise UsageError(f"{text!r} is not a table name; use letters, digits and underscores")
    if text.lower() in RESERVED_TABLES:
        raise UsageError(f"{text!r} is a table that the recorder keeps for itself")
    return text


def check_tables(tables: Mapping[str, str]) -> None:
    """Refuse a table, chosen in the settings, whose name another symbol's table or view has.

    A name that is too long for a table is refused as well, all by UsageError. `tables` maps symbols
    to their tables. Case does not tell two names apart: some file systems, where a table is a file,
    do not either.
    """
    owners: dict[str, str] = {}
    for symbol, table in tables.items():
        if len(table) > LONGEST_TABLE:
            raise UsageError(
                f"{symbol[:20]}... has a name of {len(symbol)} letters, too long for a table: "
                f"give it a table of its own in settings.ini"
            )
        for name in (table, *(f"{table}_{view}" for view in ALL_VIEWS)):
            owner = owners.setdefault(name.lower(), symbol)
            if owner != symbol:
                raise UsageError(f"{owner} and {symbol} would share the name {name.lower()!r}")


def _suggestion(text: str) -> str | None:
    """Guess the symbol from another spelling of it: BTC, BTCUSDT, BTC-USDT, BTC/USDT."""
    match re.findall(r"[A-Z0-9]+", text):
        case [base, quote]:
            return f"{base}_{quote}"
        case [name]:
            for quote in _QUOTES:
                base = name.removesuffix(quote)
                if base != name:
                    return f"{base}_{quote}" if base else None
            return f"{name}_USDT"
    return None
