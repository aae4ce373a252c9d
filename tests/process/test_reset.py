"""Beginning anew: what was recorded of a symbol, or all of it, goes when somebody says so."""

import os
import pty
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio

from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.schema import engines
from tests.support.running import BTC, Embedded, Served, Store, command, environment, running
from tools.clickhouse import ClickHouseServer
from tools.exchange import Exchange, open_exchange
from tools.market import CHANNELS

ETH = "ETH_USDT"


async def reset(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command where nobody can be asked."""
    return await trio.to_thread.run_sync(partial(command, "reset", *arguments, cwd=directory))


async def record(exchange: Exchange, directory: Path, store: str) -> None:
    """Record a few rows of two symbols; leave none in the journal."""
    async with running(directory, BTC, ETH, "--url", exchange.url, "--store", store) as program:
        for symbol in (BTC, ETH):
            await exchange.subscribed(symbol)
            for channel in CHANNELS:
                await exchange.push(symbol, channel)
        await program.journaled(len(exchange.rows(BTC)), "btc")
        await program.journaled(len(exchange.rows(ETH)), "eth")
        assert await program.stop() == 0
        assert "ERROR" not in program.log, program.log


async def test_a_symbol_begins_anew_and_the_others_go_on(tmp_path: Path, store: Store) -> None:
    """Its table is empty in the next run, which takes it neither for lost nor for another's."""
    async with open_exchange() as exchange:
        await record(exchange, tmp_path, store.url)
        before = exchange.rows(BTC), exchange.rows(ETH)
        done = await reset(tmp_path, BTC, "--store", store.url)
        assert done.returncode == 2
        assert f"table btc: {len(before[0])} rows" in done.stdout.decode()
        assert b"nobody can be asked here; --yes agrees to it" in done.stderr
        assert store.rows("btc") == before[0]

        done = await reset(tmp_path, BTC, "--store", store.url, "--yes")
        assert (done.returncode, done.stderr) == (0, b"")
        await record(exchange, tmp_path, store.url)
        with store.opened():
            assert store.rows("btc") == exchange.rows(BTC)[len(before[0]) :]
            assert store.rows("eth") == exchange.rows(ETH)
            causes = {cause for (cause,) in store.select("DISTINCT cause", "gaps")}
        assert causes == {"program stopped"}


async def test_all_data_goes_and_what_is_not_ours_stays(
    clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    """A table of somebody else's beside ours is none of it, and is not named."""
    store = Served(clickhouse_server)
    store.create("btc", "eth")
    clickhouse_server.execute("CREATE TABLE mexc_data.theirs (x Int64) ENGINE = StripeLog")
    try:
        async with open_exchange() as exchange:
            await record(exchange, tmp_path, store.url)
            done = await reset(tmp_path, "--all-data", "--yes", "--store", store.url)
            assert (done.returncode, done.stderr) == (0, b"")
            assert b"theirs" not in done.stdout
            left = "SELECT name FROM system.tables WHERE database = 'mexc_data'"
            assert clickhouse_server.execute(left) == [("theirs",)]
            done = await reset(tmp_path, "theirs_usdt", "--yes", "--store", store.url)
            assert done.returncode == 2
            assert b"it is not one of ours" in done.stderr
            before = len(exchange.rows(BTC))
            await record(exchange, tmp_path, store.url)
            assert store.rows("btc") == exchange.rows(BTC)[before:]
            assert store.select("count()", "gaps") == [(0,)]
    finally:
        clickhouse_server.execute("DROP TABLE mexc_data.theirs")


async def test_nothing_goes_while_a_recorder_runs_or_without_a_word(tmp_path: Path) -> None:
    """It would go on writing; and a command without names means nothing."""
    async with open_exchange() as exchange:
        async with running(tmp_path, BTC, "--url", exchange.url) as program:
            await exchange.subscribed(BTC)
            done = await reset(tmp_path, BTC, "--yes")
            assert done.returncode == 1
            assert b" is in use by process " in done.stderr
            assert await program.stop() == 0
        for arguments in ((), (BTC, "--all-data")):
            done = await reset(tmp_path, *arguments, "--yes")
            assert done.returncode == 2
            assert b"name symbols, or give --all-data" in done.stderr


@pytest.mark.parametrize(("word", "left"), [("no", 1), ("yes", 0)])
async def test_whoever_is_asked_decides(tmp_path: Path, word: str, left: int) -> None:
    """On a terminal the answer is awaited, and only `yes` is one."""
    async with open_exchange() as exchange:
        await record(exchange, tmp_path, "mexc-data")
    with closing(EmbeddedStore(tmp_path / "mexc-data")) as store:  # as a kill may leave it
        store.query("CREATE TABLE mexc_data.btc_compacting AS mexc_data.btc")
        store.query("INSERT INTO mexc_data.btc_compacting SELECT * FROM mexc_data.btc")
        store.query("CREATE TABLE mexc_data.btc_restoring AS mexc_data.btc")
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{word}\n".encode())
        done = await trio.run_process(
            [sys.executable, "-m", "mexc_trio", "reset", BTC],
            cwd=tmp_path, env=environment(), stdin=theirs, capture_stdout=True, check=False,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == left
    if left:
        assert Embedded(tmp_path).rows("btc") == exchange.rows(BTC)
    else:
        assert b"Removed; the next recording begins anew." in done.stdout
        with closing(EmbeddedStore(tmp_path / "mexc-data")) as store:
            assert not engines(store, ["btc", "btc_compacting", "btc_restoring"])
