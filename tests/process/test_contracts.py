"""What a contract is, is written down beside what is recorded of it, and can be computed with."""

import json
import logging
import math
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import pyarrow.parquet as pq
import pytest
import trio

from mexc_trio import open_store
from mexc_trio.cli.main import main
from mexc_trio.clickhouse import views
from mexc_trio.clickhouse.async_store import AsyncStore
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import prepare
from mexc_trio.clickhouse.tables import CONTRACTS, market_table
from mexc_trio.errors import UsageError
from mexc_trio.record import terms
from mexc_trio.record.recording import Recording
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget
from tests.support.running import DEADLINE, read_embedded, running
from tools.exchange import Rest, open_exchange
from tools.market import Row

BTC, ETH = "BTC_USDT", "ETH_USDT"
NOON: Final = 1_795_176_000_000  # 2026-11-20T12:00Z
ROWS: Final[list[Row]] = [
    (NOON + 1_000, "d", "100.5|3|1"),
    (NOON + 2_000, "dp", "[100,7],[99.5,1]|[101,2]"),
    (NOON + 2_500, "t", "100.5|100|99.5|1000|0.00010000"),
    (NOON + 3_000, "d", "101.5|5|2"),
]
SIZES: Final = [
    (BTC, NOON + 500, "btc", 0.0001, 0.1, 2.0, 1, 0, 0, "{}"),
    (BTC, NOON + 2_800, "btc", 0.001, 0.1, 2.0, 1, 0, 0, "{}"),
]
"""The contract became ten times as big between the deals."""


def rest_of(exchange: Any) -> Rest:
    """Return the REST interface that a test has asked for."""
    assert isinstance(exchange.rest, Rest)
    return exchange.rest


async def until(condition: Any) -> None:
    """Wait until a condition holds."""
    with trio.fail_after(DEADLINE):
        while not await trio.to_thread.run_sync(condition):
            await trio.sleep(0.02)


# --- Written down while recording ----------------------------------------------------------------


async def test_recording_writes_down_what_it_records(tmp_path: Path) -> None:
    """Each recorded contract has a row, with the exchange's numbers, and its views know it."""
    async with (
        open_exchange(contracts=[BTC, ETH, "SOL_USDT"], rest_port=0) as exchange,
        running(
            tmp_path, BTC, ETH, "--url", exchange.url, "--rest-url", rest_of(exchange).url
        ) as program,
    ):
        await exchange.subscribed(BTC)
        await exchange.push(BTC, "deal")
        data = tmp_path / "mexc-data"

        def views_know() -> bool:
            sizes = "SELECT groupUniqArray(contract_size) FROM mexc_data.btc_deals"
            return bool(read_embedded(data, sizes)[0][0] == [0.0001])

        with trio.fail_after(DEADLINE):
            while not (data / "data" / "mexc_data" / "contracts").exists():
                await trio.sleep(0.05)
        await until(views_know)
        found = await trio.to_thread.run_sync(
            read_embedded, data,
            "SELECT symbol, recorded_in, contract_size, tick, lot, price_scale, volume_scale, "
            "state, rest FROM mexc_data.contracts ORDER BY symbol",
        )  # fmt: skip
        assert [row[:8] for row in found] == [
            (BTC, "btc", 0.0001, 0.1, 1.0, 1, 0, 0), (ETH, "eth", 0.01, 0.01, 1.0, 2, 0, 0),
        ]  # fmt: skip
        rest = json.loads(found[0][8])
        assert rest["quoteCoin"] == "USDT"
        assert rest.keys().isdisjoint(("symbol", "contractSize", "priceUnit", "state"))
        assert await program.stop() == 0


def parts(store: AsyncStore, url: str, *symbols: str) -> Recording:
    """Return what the task needs of a recorder."""
    settings = Settings(store=EmbeddedTarget(Path("x")), rest_url=url, refresh=0.01)
    collectors = [
        SimpleNamespace(symbol=symbol, stopped=False, settings=settings.for_symbol(symbol))
        for symbol in symbols
    ]
    found = SimpleNamespace(store=store, collectors=collectors, settings=settings)
    return cast("Recording", found)


async def test_a_row_whenever_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is as before is not written again, whoever asks; what changed is, and is told."""
    monkeypatch.setattr(terms, "BEGIN", 0)
    monkeypatch.setattr(terms, "ALL_AGAIN", 0)
    with closing(EmbeddedStore(tmp_path)) as store:
        count = f"SELECT count() FROM {store.database}.contracts"
        async with open_exchange(contracts=[BTC, ETH], rest_port=0) as exchange:
            rest = rest_of(exchange)
            recording = parts(AsyncStore(store), rest.url, BTC)
            for rows in (1, 2):  # the second one begins anew beside the first one's rows
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(terms.keep_terms, recording)
                    asked = len(rest.requests)
                    with trio.fail_after(DEADLINE):
                        while len(rest.requests) < asked + 4:
                            await trio.sleep(0.01)
                    assert store.query(count) == [(rows,)]
                    exchange.listing.add(BTC, state=3)
                    with caplog.at_level(logging.INFO):
                        await until(
                            lambda: (
                                store.query(count) == [(2,)]
                                and "BTC_USDT: the exchange changed its contract" in caplog.text
                            )
                        )
                    nursery.cancel_scope.cancel()
        states = f"SELECT state FROM {store.database}.contracts ORDER BY as_of"
        assert store.query(states) == [(0,), (3,)]


async def test_many_are_asked_for_by_the_list_and_trouble_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A REST interface that is in trouble is asked again; a line says so, once."""
    monkeypatch.setattr(terms, "BEGIN", 0)
    monkeypatch.setattr("mexc_trio.exchange.rest.RestError.pause", lambda *_: 0.01)
    symbols = [f"{chr(65 + n)}{chr(65 + n)}X_USDT" for n in range(15)]
    with closing(EmbeddedStore(tmp_path)) as store, caplog.at_level(logging.INFO):
        async with open_exchange(contracts=symbols, rest_port=0) as exchange:
            rest = rest_of(exchange)
            rest.trouble = "error"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    terms.keep_terms, parts(AsyncStore(store), rest.url, *symbols, "GONE_USDT")
                )
                with trio.fail_after(DEADLINE):
                    while len(rest.requests) < 3:
                        await trio.sleep(0.01)
                rest.trouble = "none"
                count = f"SELECT count() FROM {store.database}.contracts"
                await until(lambda: store.query(count) == [(15,)])
                nursery.cancel_scope.cancel()
            assert {target.partition("?")[2] for _, target in rest.requests} <= {
                "", "symbol=GONE_USDT",
            }  # fmt: skip
    assert caplog.text.count("contract sizes are not known yet") == 1


# --- Computed with -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Lend a directory with deals before and after a change of the contract, which stays open."""
    directory = tmp_path_factory.mktemp("contracts")
    with closing(EmbeddedStore(directory)) as store:
        prepare(store, [market_table("btc"), market_table("eth"), CONTRACTS])
        store.append(market_table("btc"), ROWS)
        store.append(market_table("eth"), ROWS)
        store.append(CONTRACTS, SIZES)
        store.append(CONTRACTS, [(ETH, NOON + 500, "eth", math.nan, math.nan, 1.0, -1, 0, 0, "{}")])
        views.create(store, ["btc", "eth"])
        yield directory


def export(data: Path, out: Path, *arguments: str) -> int:
    """Export BTC_USDT, or another symbol that is named."""
    symbol = () if arguments[:1] == (ETH,) else (BTC,)
    return main(["export", *symbol, *arguments, "--store", str(data), "--out", str(out)])


def test_views_have_the_size_of_their_time(data: Path) -> None:
    """Turnover in money is one multiplication, right before and after the contract changed."""
    for suffix, number in (("", float), ("_exact", Decimal)):
        found = read_embedded(
            data,
            f"SELECT price * volume * contract_size, tick FROM mexc_data.btc_deals{suffix} "
            "ORDER BY ts",
        )
        wanted = ["0.03015", "0.5075"]
        assert [float(row[0]) for row in found] == pytest.approx(list(map(float, wanted)))
        assert [row[1] for row in found] == [number("0.1")] * 2
    nothing = "SELECT contract_size, tick FROM mexc_data.eth_depths"
    assert read_embedded(data, nothing) == [(None, None)]


def test_exports_in_coins(data: Path, tmp_path: Path) -> None:
    """What counts contracts is multiplied, and nothing else; exact numbers stay exact."""
    out = tmp_path / "x.parquet"
    assert export(data, out, "--kind", "deals", "--amounts", "coins", "--numbers", "exact") == 0
    deals = pq.read_table(out).to_pydict()
    assert deals["volume"] == [Decimal("0.0003"), Decimal("0.005")]
    assert deals["price"] == [Decimal("100.5"), Decimal("101.5")]
    for more, wanted in (
        (
            (),
            {"bid_amounts": [0.0007, 0.0001], "bid_prices": [100, 99.5], "best_ask_amount": 0.0002},
        ),
        (("--flat",), {"bid_amount_1": 0.0007, "bid_price_2": 99.5, "ask_amount_2": None}),
        (("--numbers", "exact"), {"bid_amounts": [Decimal("0.0007"), Decimal("0.0001")]}),
    ):
        assert export(data, out, "--kind", "depths", "--amounts", "coins", "--force", *more) == 0
        (book,) = pq.read_table(out).to_pylist()
        for name, value in cast("dict[str, Any]", wanted).items():
            exact = isinstance(value, list) and isinstance(value[0], Decimal)
            assert book[name] == (value if exact or value is None else pytest.approx(value))
    assert export(data, out, "--kind", "tickers", "--amounts", "coins", "--force") == 0
    assert pq.read_table(out).column("hold_volume").to_pylist() == pytest.approx([0.1])
    line = tmp_path / "x.csv"
    assert export(data, line, "--kind", "candles", "--amounts", "coins", "--interval", "1s") == 0
    volumes = [text.split(",")[6] for text in line.read_text().splitlines()[1:]]
    assert list(map(float, volumes)) == pytest.approx([0.0003, 0.005])


def test_coins_that_cannot_be_computed_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the size is not known, and where digits are wanted as they are, in one line."""
    out = tmp_path / "x.parquet"
    assert export(data, out, ETH, "--kind", "deals", "--amounts", "coins") == 2
    assert "ETH_USDT: how much a contract is was not written down" in capsys.readouterr().err
    assert export(data, out, "--kind", "deals", "--amounts", "coins", "--numbers", "text") == 2
    assert export(data, out, "--kind", "deals", "--amounts", "coin") == 2
    assert "did you mean coins?" in capsys.readouterr().err
    with open_store(data) as store, pytest.raises(UsageError, match="was not written down"):
        store.deals(ETH, amounts="coins")


def test_python_has_coins_and_contracts(data: Path) -> None:
    """The same by the Python interface."""
    with open_store(data) as store:
        assert store.deals(BTC, amounts="coins").column("volume").to_pylist() == pytest.approx(
            [0.0003, 0.005]
        )
        assert store.contracts(BTC).column("contract_size").to_pylist() == [0.0001, 0.001]
        assert store.contracts().num_rows == 3


def test_backtests_are_told_tick_lot_and_size(data: Path, tmp_path: Path) -> None:
    """They are the exchange's, where the file agrees with them, as its volumes do not here."""
    out = tmp_path / "x.npz"
    assert export(data, out, "--kind", "deals") == 0
    about = json.loads(out.with_name("x.npz.json").read_text())
    assert about == {"tick_size": "0.1", "lot_size": "1", "contract_size": "0.001"}
    other = tmp_path / "y.npz"
    assert export(data, other, ETH, "--kind", "deals") == 0
    assert json.loads(other.with_name("y.npz.json").read_text()) == {
        "tick_size": "0.5", "lot_size": "1",
    }  # fmt: skip


def test_contracts_are_backed_up_and_removed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A restored store knows them too, to the last digit; a reset of all data takes them away."""
    backup, restored = tmp_path / "backup", tmp_path / "restored"
    assert main(["backup", "--store", str(data), "--out", str(backup)]) == 0
    assert main(["restore", "--store", str(restored), "--in", str(backup)]) == 0
    select = "SELECT * FROM mexc_data.contracts ORDER BY symbol, as_of"
    assert str(read_embedded(restored, select)) == str(read_embedded(data, select))
    sizes = "SELECT contract_size FROM mexc_data.btc_deals ORDER BY ts"
    assert read_embedded(restored, sizes) == [(0.0001,), (0.001,)]
    assert main(["reset", "--store", str(restored), "--all-data", "--yes"]) == 0
    assert read_embedded(restored, "SHOW TABLES FROM mexc_data") == []
