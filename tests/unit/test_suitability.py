"""Tables that somebody else has made: what would never be stored, or twice, is refused at once."""

import pytest

from mexc_trio.clickhouse.suitability import can_be_read, why_unsuitable
from mexc_trio.clickhouse.tables import GAPS, market_table

OURS = dict(market_table("btc").columns)


@pytest.mark.parametrize(
    "types",
    [
        {},
        {"ts": "DateTime64(3, 'UTC')"},
        {"mt": "LowCardinality(String)", "m": "LowCardinality(String)"},
        {"mt": "Enum16('t' = 1, 'd' = 2, 'dp' = 3, 'dl' = 4, 'more' = 5)"},
        {"another": "Float64"},
    ],
)
@pytest.mark.parametrize("engine", ["StripeLog", "Log", ""])
def test_tables_as_one_may_make_them(types: dict[str, str], engine: str) -> None:
    """Rows go into them exactly."""
    assert not why_unsuitable(market_table("btc").columns, {**OURS, **types}, engine)
    assert not why_unsuitable(GAPS.columns, dict(GAPS.columns), engine)


@pytest.mark.parametrize(
    ("types", "why"),
    [
        ({"ts": "DateTime"}, "has DateTime for column ts, which must be DateTime64(3)"),
        ({"ts": "Int64"}, "has Int64 for column ts"),
        ({"ts": "DateTime64(6)"}, "DateTime64(6) for column ts"),
        ({"ts": "Nullable(DateTime64(3))"}, "Nullable"),
        ({"mt": "Enum8('t' = 1, 'd' = 2)"}, "for column mt"),
        ({"mt": "Enum8('t' = 1, 'dp' = 3, 'dl' = 4)"}, "for column mt"),
        ({"m": "FixedString(8)"}, "for column m"),
    ],
)
def test_types_that_do_not_take_our_values(types: dict[str, str], why: str) -> None:
    """Nothing would ever be stored, and it would look like an outage."""
    assert why in why_unsuitable(market_table("btc").columns, {**OURS, **types}, "StripeLog")


@pytest.mark.parametrize(
    "engine",
    ["ReplacingMergeTree", "ReplicatedMergeTree", "Buffer", "Distributed", "View",
     "MaterializedView", "Null", "Memory", "Merge"],
)  # fmt: skip
def test_engines_that_lose_count_or_order(engine: str) -> None:
    """An INSERT with an unknown outcome could not be resolved: rows would be lost, or twice."""
    assert f"is a {engine}" in why_unsuitable(market_table("btc").columns, OURS, engine)


WINDOW = "MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 1000"


def test_a_mergetree_needs_numbers_and_a_memory() -> None:
    """Without them a row could not be found again, or an INSERT be stored twice."""
    columns = market_table("btc").columns
    numbered = {**OURS, "n": "UInt64"}
    assert not why_unsuitable(columns, numbered, WINDOW)
    assert "without a column n UInt64" in why_unsuitable(columns, OURS, WINDOW)
    assert "without a column n UInt64" in why_unsuitable(columns, {**OURS, "n": "Int64"}, WINDOW)
    for engine in ("MergeTree ORDER BY n", WINDOW.replace("1000", "0")):
        assert "does not know an INSERT again" in why_unsuitable(columns, numbered, engine)


@pytest.mark.parametrize(
    ("engine", "why"),
    [("Distributed", "passes rows on"), ("Buffer", "in memory"), ("Memory", "go with the server"),
     ("View", "no table")],
)  # fmt: skip
def test_what_is_no_place_for_rows_is_told_why(engine: str, why: str) -> None:
    """Who gave it is to know what to give instead."""
    assert why in why_unsuitable(market_table("btc").columns, OURS, engine)


def test_what_can_be_read_though_it_was_made_by_hand() -> None:
    """Types that are like ours will do for readers; what is none is somebody else's table."""
    columns = [("ts", "DateTime64(3)"), ("mt", "Enum8('t'=1)"), ("n", "UInt64")]
    alike = {"ts": "DateTime64(6, 'UTC')", "mt": "LowCardinality(String)", "n": "Int32", "x": "Map"}
    assert can_be_read(columns, alike)
    for name, type_ in (("ts", "Nullable(DateTime64(3))"), ("mt", "UInt8"), ("n", "String")):
        assert not can_be_read(columns, {**alike, name: type_})
