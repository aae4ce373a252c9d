"""A store held against the exchange's candles, by all of `verify`."""

import time
from pathlib import Path

import trio

from mexc_trio.clickhouse import open_store
from mexc_trio.clickhouse.schema import prepare
from mexc_trio.clickhouse.tables import GAPS, market_table
from mexc_trio.rows import Gap, Row
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget
from mexc_trio.spans import HOUR, MINUTE, SECOND
from mexc_trio.verify.completeness import compare
from mexc_trio.verify.text_tables import compared
from mexc_trio.verify.verdict import report
from mexc_trio.verify.verify import gather
from tools.exchange import open_exchange

START = (int(time.time() * SECOND) - 3 * HOUR) // MINUTE * MINUTE
LENGTH = HOUR


async def test_a_store_against_the_exchange(tmp_path: Path) -> None:
    """From the rows of a real store: exact sums, gaps of the ledger, words and exit code."""
    volumes = ("1", "61062435.671810000000000000000000", "0.000000000000000003", "2384")
    rows = [
        Row(START + i * 20_000, "d", f"{60_000 + i % 7}.{i % 5}0|{volumes[i % 4]}|{1 + i % 2}")
        for i in range(LENGTH // 20_000)
    ]

    def fill_and_look(*gone: int) -> str:
        store = open_store(settings)
        try:
            store.query("DROP DATABASE IF EXISTS mexc_data")
            prepare(store, [market_table("btc"), GAPS])
            ends = [Row(START - 10_000, "t", "1||||"), Row(START + LENGTH + 10_000, "t", "1||||")]
            kept = [row for i, row in enumerate(rows) if i not in gone]
            store.append(market_table("btc"), [ends[0], *kept, ends[1]])
            gaps = [
                Gap("BTC_USDT", "all", START - 10_000, START + 15_000, "connection lost", "", 0, 0),
                Gap("BTC_USDT", "ticker", START, START + LENGTH + 10_000, "test", "", 0, 0),
            ]
            store.append(GAPS, gaps)
        finally:
            store.close()
        facts = gather(settings, (), lambda *asked: trio.run(compare, *asked))
        (symbol,) = facts.symbols
        assert compared([symbol])
        return report(facts)

    async with open_exchange(rest_port=0) as exchange:
        exchange.tape.add("BTC_USDT", [(row.ts, row.mt, row.m) for row in rows])
        assert exchange.rest is not None
        settings = Settings(store=EmbeddedTarget(tmp_path / "data"), rest_url=exchange.rest.url)
        sound = await trio.to_thread.run_sync(fill_and_look)
        said = await trio.to_thread.run_sync(fill_and_look, 0, 99, 100)
    assert sound.startswith(f"1 table, {len(rows) + 2} rows, sound\n")
    assert "against the exchange  minutes  different  in gaps" in sound
    said = " ".join(said.split())
    assert (
        "1 problem: BTC_USDT: the deals of 1 minute are not what the exchange's candles say, "
        "and no gap in the ledger says why; the first is "
    ) in said
    assert " BTC_USDT: the deals of 1 minute in known gaps are not what the exchange" in said
    assert "in a gap" in said
