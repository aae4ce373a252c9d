"""Who shares a connection when nobody has decided: quiet symbols do, busy ones and few do not."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_trio.record.sharing import (
    BUSY,
    FEW,
    MOST_ALONE,
    TOGETHER,
    alone,
    most_connections,
)
from mexc_trio.settings import Settings
from mexc_trio.settings.routes import parse_routes

NAMES = [f"C{n}_USDT" for n in range(1200)]


def test_few_symbols_have_a_connection_each() -> None:
    """As many as anybody names by hand."""
    assert alone(NAMES[:FEW], {}, 0) == set(NAMES[:FEW])


def test_many_quiet_symbols_share() -> None:
    """At the first start, when nothing is known of any."""
    assert not alone(NAMES, {}, 0)


def test_busy_symbols_have_their_own() -> None:
    """The busiest of them; the others share as before."""
    rates = {name: BUSY + 100 - n for n, name in enumerate(NAMES[:50])}
    assert alone(NAMES, rates, 0) == set(NAMES[:MOST_ALONE])


def test_one_more_than_a_few_shares() -> None:
    """Years of new listings do not end in a connection each."""
    assert alone(NAMES[:1], {}, 0, FEW - 1) == {NAMES[0]}
    assert not alone(NAMES[:1], {}, 0, FEW)


@pytest.mark.parametrize("size", [2, 7, 2000])
def test_who_decides_is_obeyed(size: int) -> None:
    """Whatever was measured."""
    assert not alone(NAMES, {NAMES[0]: 1000.0}, size)


@given(
    st.sets(st.sampled_from(NAMES)).map(sorted),
    st.dictionaries(st.sampled_from(NAMES), st.floats(0, 100)),
    st.sampled_from([0, 0, 1, 5, 200]),
)
def test_there_are_never_more_connections_than_the_limit_of_open_files_was_asked_for(
    symbols: list[str], rates: dict[str, float], size: int
) -> None:
    """However busy they are."""
    apart = alone(symbols, rates, size)
    shared = math.ceil((len(symbols) - len(apart)) / (size or TOGETHER))
    settings = Settings(symbols_per_connection=size)
    assert len(apart) + shared <= most_connections(settings, symbols)


def test_routes_are_counted_each_for_itself() -> None:
    """Symbols with other routes never share, and the limit of open files is asked for that."""
    routes = {
        name: {"route": parse_routes(f"from:10.0.0.{n}")} for n, name in enumerate(NAMES[:50])
    }
    assert most_connections(Settings(overrides=routes), NAMES) == 50 + 32 + 6
