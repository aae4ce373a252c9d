"""Channels that are recorded on request can be read as all others are, whichever they are."""

import csv
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
import pytest

from mexc_trio import open_store
from mexc_trio.analysis.minutes import Minute, Price
from mexc_trio.channels import ALL, OPTIONAL, USUAL
from mexc_trio.cli.main import main
from mexc_trio.clickhouse import views
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import columns, prepare
from mexc_trio.clickhouse.tables import GAPS, market_table
from mexc_trio.errors import UsageError
from mexc_trio.read.reading import open_reader
from mexc_trio.report import plots, recorded
from mexc_trio.report.source import choose
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget
from tools.typed import EXACT, FLOAT, Numbers

DAY: Final = 1_788_307_200_000
TEXTS: Final = ("0.00010000", "-0.00002400", "64000.123456789012345678", "", "nonsense")
ROWS: Final = {
    name: [(DAY + 30_000 * n, ALL[name].mt, text) for n, text in enumerate(TEXTS)]
    for name in OPTIONAL
}
EACH: Final = pytest.mark.parametrize("name", OPTIONAL)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a store with one symbol of all channels, and another one of the usual; it stays open."""
    path = tmp_path_factory.mktemp("channels") / "data"
    with closing(EmbeddedStore(path)) as store:
        tables = [market_table("btc", recorded=(*USUAL, *OPTIONAL)), market_table("eth")]
        prepare(store, [*tables, GAPS])
        views.create(store, tables)
        rows = [row for those in ROWS.values() for row in those]
        store.append(tables[0], [*rows, (DAY, "d", "5|1|1"), (DAY, "t", "5||||")])
        store.append(tables[1], [(DAY, "d", "5|1|1")])
        yield path


def wanted(name: str, numbers: Numbers) -> list[tuple[int, Any]]:
    """Return what a channel's rows are as columns."""
    return [(ts, numbers.number(text)) for ts, _, text in ROWS[name]]


def test_a_table_has_the_views_of_what_is_recorded(directory: Path) -> None:
    """They come with the channel, stay when it is not recorded any more, and cost nobody else."""
    names = {f"btc_{ALL[name].view}{suffix}" for name in OPTIONAL for suffix in ("", "_exact")}
    with closing(EmbeddedStore(directory)) as store:
        found = columns(store, views=True)
        assert names <= found.keys()
        assert not [name for name in found if name.startswith("eth_") and "rate" in name]
        store.query("CREATE OR REPLACE VIEW mexc_data.btc_fair_prices AS SELECT 1 AS old COMMENT "
                    "'mexc-trio views 0'")  # fmt: skip
        assert views.create(store, ["btc", "eth"]) == ["btc_fair_prices"]


@EACH
@pytest.mark.parametrize(("suffix", "numbers"), [("", FLOAT), ("_exact", EXACT)])
def test_views(directory: Path, name: str, suffix: str, numbers: Numbers) -> None:
    """A number is the text's, or the double nearest to it; what is none is NULL."""
    (column,) = ALL[name].numbers.values()
    with closing(EmbeddedStore(directory)) as store:
        found = store.query(
            f"SELECT toUnixTimestamp64Milli(ts), {column} "
            f"FROM mexc_data.btc_{ALL[name].view}{suffix} ORDER BY ts"
        )
    assert found == wanted(name, numbers)


@EACH
def test_exports_and_python(directory: Path, tmp_path: Path, name: str) -> None:
    """A kind of export bears the view's name; Python takes the name of the channel."""
    view, (column,) = ALL[name].view, ALL[name].numbers.values()
    for out, numbers in (("a.parquet", "float"), ("a.csv", "text")):
        assert main(["export", "BTC_USDT", "--kind", view, "--numbers", numbers, "--store",
                     str(directory), "--out", str(tmp_path / out)]) == 0  # fmt: skip
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column_names == ["ts", "symbol", column]
    assert table.column(column).to_pylist() == [number for _, number in wanted(name, FLOAT)]
    with (tmp_path / "a.csv").open() as file:
        assert [line[column] for line in csv.DictReader(file)] == list(TEXTS)
    with open_store(directory) as store:
        found = store.channel("BTC_USDT", name)
        assert found.column(column).to_pylist() == table.column(column).to_pylist()
        assert store.channel("BTC_USDT", "deal") == store.deals("BTC_USDT")
        with pytest.raises(UsageError, match="choose from ticker, deal, depth, "):
            store.channel("BTC_USDT", "depths")


def test_a_restored_backup_has_the_views_of_what_it_has_rows_of(
    directory: Path, tmp_path: Path
) -> None:
    """Nobody has to record the channel there first; a symbol without it gets none."""
    backup, restored = str(tmp_path / "backup"), tmp_path / "restored"
    assert main(["backup", "--store", str(directory), "--out", backup]) == 0
    assert main(["restore", "--store", str(restored), "--in", backup]) == 0
    with open_store(directory) as before, open_store(restored) as after:
        for name in OPTIONAL:
            for suffix in ("", "_exact"):
                select = f"SELECT * FROM btc_{ALL[name].view}{suffix} ORDER BY ts"
                assert after.sql(select) == before.sql(select)
        views_of_eth = after.sql("SHOW TABLES LIKE 'eth\\\\_%'").column(0).to_pylist()
        assert len(views_of_eth) == 8
        assert after.sql("SELECT * FROM eth_deals").num_rows == 1


def test_amounts_in_coins_are_refused(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There are no amounts in them."""
    out = ["--out", str(tmp_path / "x.csv"), "--store", str(directory)]
    kind = ["--kind", "funding_rates", "--amounts", "coins"]
    assert main(["export", "BTC_USDT", *kind, *out]) == 2
    assert "--amounts coins are computed" in capsys.readouterr().err


def test_the_report_draws_them(directory: Path, tmp_path: Path) -> None:
    """A plot each, of the numbers alone; their rows are counted, and other symbols have none."""
    out = tmp_path / "report.html"
    assert main(["report", "BTC_USDT", "--day", "2026-09-02", "--store", str(directory), "--out",
                 str(out)]) == 0  # fmt: skip
    text = out.read_text()
    for title in ("Funding rate", "Index price", "Fair price"):
        assert f"<h3>{title}</h3>" in text
    with open_reader(Settings(store=EmbeddedTarget(directory))) as reader:
        source = choose(reader, Settings(store=EmbeddedTarget(directory)), ["BTC_USDT", "ETH_USDT"])
        btc, eth = (source.of(one, (DAY, DAY + 86_400_000)) for one in ("BTC_USDT", "ETH_USDT"))
    assert plots.plots_of(eth) == plots.PLOTS
    assert plots.plots_of(btc) == (*plots.PLOTS, *OPTIONAL)
    assert btc.rows == 2 + len(OPTIONAL) * len(TEXTS)
    for name in OPTIONAL:

        def number(one: Minute, name: str = name) -> Price | None:
            return one.numbers.get(name)

        last, low, high = btc.band(number)
        drawn = [value for value in last if not math.isnan(value)]
        assert drawn == [float(text) for text in TEXTS[:3]]
        assert low[0] == high[0] == 0.0001
        assert btc.summary().channels[name] == len(TEXTS)
        minute = recorded.coarser(btc, 1).band(number)
        assert [values[0] for values in minute] == [drawn[2], drawn[1], drawn[2]]
