"""One listed symbol that cannot be recorded keeps no other from being recorded."""

from collections.abc import Sequence

import attrs
import pytest

from mexc_trio import channels
from mexc_trio.errors import StoreRejected, UsageError
from mexc_trio.record.admission import admit, with_room
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


def test_an_older_table_records_what_it_has_room_for(caplog: pytest.LogCaptureFixture) -> None:
    """The others of its channels are named in one line that says what to do."""
    old = "Enum8('t' = 1, 'd' = 2, 'dp' = 3, 'dl' = 4)"
    btc = attrs.evolve(SETTINGS.for_symbol("BTC_USDT"), channels=tuple(channels.ALL), table="btc")
    eth = attrs.evolve(btc, symbol="ETH_USDT", table="eth")
    sol = attrs.evolve(btc, symbol="SOL_USDT", table="sol")
    types = {"btc": {"mt": old}, "eth": {"mt": channels.enum()}, "sol": {"mt": "String"}}
    chosen = with_room([btc, eth, sol], types)
    assert [one.channels for one in chosen] == [channels.USUAL, eth.channels, sol.channels]
    (line,) = caplog.messages
    assert line.startswith("BTC_USDT: table btc is older than funding, index, fair and has no room")
    assert "mexc-trio convert BTC_USDT --engine stripelog makes room" in line


def test_room_is_made_where_values_keep_their_numbers() -> None:
    """A table of somebody else's stays as it is: a value of another number would be another one."""
    assert channels.with_room("Enum8('t' = 1, 'd' = 2, 'dp' = 3, 'dl' = 4)") == channels.enum()
    for type_ in (
        channels.enum(), "String", "Enum8('t' = 1, 'd' = 2, 'dp' = 4, 'dl' = 3)",
        "Enum8('t' = 1, 'd' = 2, 'dp' = 3, 'dl' = 4, 'x' = 5)",
        "Enum16('t' = 1, 'd' = 2, 'dp' = 3, 'dl' = 4)",
    ):  # fmt: skip
        assert channels.with_room(type_) == type_


def test_the_table_of_channels_gives_each_a_type_of_its_own() -> None:
    """Tables keep names and numbers for ever; those of the usual channels are the first four."""
    facts = channels.ALL.values()
    numbers = [one.number for one in facts]
    assert len({one.mt for one in facts}) == len(set(numbers)) == len(facts)
    assert 4 not in numbers
    first = "Enum8('t' = 1, 'd' = 2, 'dp' = 3, 'dl' = 4, "
    assert channels.enum().startswith(first)
