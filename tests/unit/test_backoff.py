"""Pauses that grow."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_trio.backoff import Backoff


@given(st.integers(1, 2000), st.floats(0.01, 100), st.floats(1, 1000), st.floats(0, 1))
def test_pauses_are_bounded(attempts: int, first: float, times: float, jitter: float) -> None:
    """However often it fails: never below the first, never above the longest and its jitter."""
    backoff = Backoff(first, first * times, jitter)
    pauses = [backoff.next() for _ in range(attempts)]
    assert all(first <= pause <= first * times * (1 + jitter) for pause in pauses)


def test_pauses_double_and_begin_anew() -> None:
    """One, two, four, up to the longest; after a success from the first again."""
    backoff = Backoff(1, 30)
    assert [backoff.next() for _ in range(8)] == [1, 2, 4, 8, 16, 30, 30, 30]
    backoff.reset()
    assert backoff.next() == 1


def test_those_who_failed_together_come_back_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the share of jitter, by chance."""
    monkeypatch.setattr(random, "random", lambda: 0.5)
    assert Backoff(2, 30, jitter=0.5).next() == 2.5
