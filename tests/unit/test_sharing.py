"""Who shares a connection when nobody has decided: quiet symbols do, busy ones and few do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_trio.record.sharing import BUSY, FEW, MOST_ALONE, TOGETHER, most_connections, share

NAMES = [f"C{n}_USDT" for n in range(1200)]


def test_few_symbols_have_a_connection_each() -> None:
    """As many as anybody names by hand."""
    assert share(NAMES[:FEW], {}, 0) == [[name] for name in NAMES[:FEW]]


def test_many_quiet_symbols_share() -> None:
    """At the first start, when nothing is known of any."""
    groups = share(NAMES, {}, 0)
    assert [len(group) for group in groups] == [TOGETHER] * 6


def test_busy_symbols_have_their_own() -> None:
    """The busiest of them; the others share as before."""
    rates = {name: BUSY + 100 - n for n, name in enumerate(NAMES[:50])}
    groups = share(NAMES, rates, 0)
    assert groups[:MOST_ALONE] == [[name] for name in NAMES[:MOST_ALONE]]
    assert sorted(map(len, groups[MOST_ALONE:])) == [168, *[TOGETHER] * 5]


@pytest.mark.parametrize("size", [1, 7, 2000])
def test_who_decides_is_obeyed(size: int) -> None:
    """Whatever was measured."""
    groups = share(NAMES, {NAMES[0]: 1000.0}, size)
    assert all(len(group) == size for group in groups[:-1])
    assert [name for group in groups for name in group] == NAMES


@given(
    st.sets(st.sampled_from(NAMES)).map(sorted),
    st.dictionaries(st.sampled_from(NAMES), st.floats(0, 100)),
    st.sampled_from([0, 0, 1, 5, 200]),
)
def test_each_symbol_has_one_connection(
    symbols: list[str], rates: dict[str, float], size: int
) -> None:
    """And there are never more of them than the limit of open files was asked for."""
    groups = share(symbols, rates, size)
    assert sorted(name for group in groups for name in group) == symbols
    assert all(groups)
    assert len(groups) <= most_connections(len(symbols), size)
