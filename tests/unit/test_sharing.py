"""Who shares a connection when nobody has decided: quiet symbols do, busy ones and few do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_trio.record.sharing import (
    BUSY,
    FEW,
    MOST_ALONE,
    TOGETHER,
    most_connections,
    share,
)
from mexc_trio.settings import Settings
from mexc_trio.settings.routes import parse_routes

NAMES = [f"C{n}_USDT" for n in range(1200)]


def test_few_symbols_have_a_connection_each() -> None:
    """As many as anybody names by hand."""
    assert share(NAMES[:FEW], {}, 0) == (NAMES[:FEW], [])


def test_many_quiet_symbols_share() -> None:
    """At the first start, when nothing is known of any."""
    alone, together = share(NAMES, {}, 0)
    assert not alone
    assert [len(group) for group in together] == [TOGETHER] * 6


def test_busy_symbols_have_their_own() -> None:
    """The busiest of them; the others share as before."""
    rates = {name: BUSY + 100 - n for n, name in enumerate(NAMES[:50])}
    alone, together = share(NAMES, rates, 0)
    assert alone == NAMES[:MOST_ALONE]
    assert sorted(map(len, together)) == [168, *[TOGETHER] * 5]


def test_one_more_than_a_few_shares() -> None:
    """Years of new listings do not end in a connection each."""
    assert share(NAMES[:1], {}, 0, FEW - 1) == (NAMES[:1], [])
    assert share(NAMES[:1], {}, 0, FEW) == ([], [NAMES[:1]])


@pytest.mark.parametrize("size", [2, 7, 2000])
def test_who_decides_is_obeyed(size: int) -> None:
    """Whatever was measured."""
    alone, together = share(NAMES, {NAMES[0]: 1000.0}, size)
    assert not alone
    assert all(len(group) == size for group in together[:-1])
    assert [name for group in together for name in group] == NAMES


@given(
    st.sets(st.sampled_from(NAMES)).map(sorted),
    st.dictionaries(st.sampled_from(NAMES), st.floats(0, 100)),
    st.sampled_from([0, 0, 1, 5, 200]),
)
def test_each_symbol_has_one_connection(
    symbols: list[str], rates: dict[str, float], size: int
) -> None:
    """And there are never more of them than the limit of open files was asked for."""
    alone, together = share(symbols, rates, size)
    assert sorted([*alone, *(name for group in together for name in group)]) == symbols
    assert all(together)
    settings = Settings(symbols_per_connection=size)
    assert len(alone) + len(together) <= most_connections(settings, symbols)


def test_routes_are_counted_each_for_itself() -> None:
    """Symbols with other routes never share, and the limit of open files is asked for that."""
    routes = {
        name: {"route": parse_routes(f"from:10.0.0.{n}")} for n, name in enumerate(NAMES[:50])
    }
    assert most_connections(Settings(overrides=routes), NAMES) == 50 + 32 + 6
