"""Symbols and the names of their tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_trio.errors import UsageError
from mexc_trio.symbols import (
    RESERVED_TABLES,
    VIEWS,
    check_tables,
    parse_symbol,
    parse_symbols,
    parse_table,
    table_name,
)

part = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=1, max_size=12)
quote = st.sampled_from(["USDT", "USDC", "USD", "GAPS", *(view.upper() for view in VIEWS)]) | part
base = st.sampled_from(["GAPS", "BTC", "1INCH"]) | part
symbols = st.builds("{}_{}".format, base, quote)


@given(symbols)
def test_a_symbol_is_accepted_in_any_case(symbol: str) -> None:
    """Lower case and space around it are no reason to refuse a symbol."""
    assert parse_symbol(symbol) == symbol
    assert parse_symbol(f" {symbol.lower()}\n") == symbol


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("BTCUSDT", "BTC_USDT"),
        ("btcusdt", "BTC_USDT"),
        ("BTC", "BTC_USDT"),
        ("BTCUSD", "BTC_USD"),
        ("ETHUSDC", "ETH_USDC"),
        ("BTC-USDT", "BTC_USDT"),
        ("btc/usdc", "BTC_USDC"),
        ("BTC__USDT", "BTC_USDT"),
        ("_BTC", "BTC_USDT"),
    ],
)
def test_another_spelling_gets_a_suggestion(text: str, suggestion: str) -> None:
    """Who types BTCUSDT or BTC learns what to type."""
    with pytest.raises(UsageError, match=f"did you mean {suggestion}[?]$"):
        parse_symbol(text)


@pytest.mark.parametrize("text", ["", "_", "USDT", "A_B_C", "BTC_USDT_PERP", "ß_USDT", "BTC_€"])
def test_what_is_no_symbol_at_all_gets_an_example(text: str) -> None:
    """Where nothing can be guessed, nothing is guessed; letters outside A to Z are not replaced."""
    with pytest.raises(UsageError, match=r"is not a symbol; symbols look like BTC_USDT$"):
        parse_symbol(text)


@given(st.text())
def test_any_text_is_a_symbol_or_one_line(text: str) -> None:
    """No text gets another error than UsageError, or an error of several lines."""
    try:
        symbol = parse_symbol(text)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - the other outcome is right too
    else:
        assert parse_symbol(symbol) == symbol


def test_a_url_among_the_symbols_is_not_repeated() -> None:
    """A store's URL in the wrong place does not put its password on the screen."""
    with pytest.raises(UsageError) as caught:
        parse_symbol("clickhouse://me:secret@host/db")
    assert "secret" not in str(caught.value)


def test_symbols_keep_their_order() -> None:
    """The symbols are recorded in the order given."""
    assert parse_symbols(["eth_usdt", "BTC_USDT"]) == ("ETH_USDT", "BTC_USDT")


def test_a_symbol_twice_is_named() -> None:
    """Two recorders on one table would store every row twice."""
    with pytest.raises(UsageError, match="BTC_USDT is given twice"):
        parse_symbols(["BTC_USDT", "ETH_USDT", "btc_usdt"])


def test_no_symbol_is_an_error() -> None:
    """Recording nothing is a mistake."""
    with pytest.raises(UsageError, match="no symbol given"):
        parse_symbols([])


@pytest.mark.parametrize(
    ("symbol", "table"),
    [
        ("BTC_USDT", "btc"),
        ("BTC_USD", "btc_usd"),
        ("BTC_USDC", "btc_usdc"),
        ("1INCH_USDT", "1inch"),
        ("GAPS_USDT", "gaps_usdt"),
        ("BTC_DEALS", "btc__deals"),
    ],
)
def test_table_names(symbol: str, table: str) -> None:
    """The names that the README promises, and those that had to make way."""
    assert table_name(symbol) == table


@given(st.sets(symbols, min_size=2))
def test_symbols_never_meet_in_the_database(found: set[str]) -> None:
    """No two symbols share a table, none takes a reserved one or a view of another's."""
    tables = {symbol: table_name(symbol) for symbol in found}
    check_tables(tables)
    assert RESERVED_TABLES.isdisjoint(tables.values())
    assert all(parse_table(table) == table for table in tables.values())


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [("btc", "btc", "btc"), ("btc", "BTC", "btc"), ("btc_deals", "btc", "btc_deals")],
)
def test_a_chosen_table_that_meets_another_is_refused(first: str, second: str, name: str) -> None:
    """A table chosen in the settings cannot be another symbol's table or view."""
    with pytest.raises(UsageError, match=f"BTC_USDT and ETH_USDT would share the name '{name}'"):
        check_tables({"BTC_USDT": first, "ETH_USDT": second})


@pytest.mark.parametrize("text", ["", "a b", "a.b", "a`b", "gaps", "Gaps", "btc\n", "naïve"])
def test_what_is_no_table_is_refused(text: str) -> None:
    """A table's name needs no thought about quoting, and is none that the recorder uses itself."""
    with pytest.raises(UsageError):
        parse_table(text)
