"""One listed symbol that cannot be recorded keeps no other from being recorded."""

from collections.abc import Sequence

import pytest

from mexc_trio.errors import StoreRejected, UsageError
from mexc_trio.record.admission import admit
from mexc_trio.settings import Settings, SymbolSettings
from mexc_trio.symbols import check_tables

SETTINGS = Settings(overrides={"CLASH_USDT": {"table": "btc"}})
LONG = "X" * 200 + "_USDT"


def check(beside: Sequence[SymbolSettings], new: Sequence[SymbolSettings]) -> None:
    """Look at names, and refuse a table as a store does that has a foreign one."""
    check_tables({one.symbol: one.table for one in (*beside, *new)})
    if any(one.table == "foreign" for one in new):
        raise StoreRejected("table foreign is not one of ours")


def admitted(named: Sequence[str], found: Sequence[str]) -> list[str]:
    """Return the symbols that are let in."""
    first, then = ([SETTINGS.for_symbol(one) for one in symbols] for symbols in (named, found))
    return [one.symbol for one in admit(first, then, check)]


def test_what_was_found_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    """A name too long, another's table, and a table that two would share: one line for each."""
    found = ["ETH_USDT", LONG, "FOREIGN_USDT", "CLASH_USDT", "SOL_USDT"]
    assert admitted(["BTC_USDT"], found) == ["BTC_USDT", "ETH_USDT", "SOL_USDT"]
    assert len(caplog.messages) == 3
    assert all("is listed, and cannot be recorded: " in line for line in caplog.messages)
    assert admitted([], ["FOREIGN_USDT", "ETH_USDT"]) == ["ETH_USDT"]


@pytest.mark.parametrize("symbol", [LONG, "FOREIGN_USDT", "CLASH_USDT"])
def test_what_was_named_is_told_before_anything_begins(symbol: str) -> None:
    """Its user can choose another name, or leave it out."""
    with pytest.raises((UsageError, StoreRejected)):
        admitted(["BTC_USDT", symbol], ["ETH_USDT"])
