"""Recording what the exchange lists, as its user has it: `--all`, patterns, comings and goings."""

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from mexc_trio.record.discovery import FILE
from tests.support.running import (
    DEADLINE,
    Embedded,
    Served,
    Store,
    environment,
    final_statistics,
    running,
)
from tools.clickhouse import ClickHouseServer
from tools.exchange import Exchange, Rest, open_exchange
from tools.market import CHANNELS

BTC, ETH, NEW = "BTC_USDT", "ETH_USDT", "NEW_USDT"


def rest_of(exchange: Exchange) -> Rest:
    """Return the REST interface that a test has asked for."""
    assert exchange.rest is not None
    return exchange.rest


def addresses(exchange: Exchange) -> tuple[str, ...]:
    """Return the options that lead to the exchange."""
    return ("--url", exchange.url, "--rest-url", rest_of(exchange).url, "--refresh", "0.3")


async def test_all_contracts_of_a_quote(tmp_path: Path) -> None:
    """One command records every listed contract that is asked for, and no other."""
    wanted = [BTC, "1000BONK_USDT", "GAPS_USDT"]
    async with (
        open_exchange(contracts=[*wanted, "BTC_USDC", "BTC_USD"], rest_port=0) as exchange,
        running(tmp_path, "--all", "--quote", "usdt", *addresses(exchange)) as program,
    ):
        for symbol in wanted:
            await exchange.subscribed(symbol)
            for channel in CHANNELS:
                await exchange.push(symbol, channel)
        await program.journaled(sum(len(exchange.rows(symbol)) for symbol in wanted))
        assert exchange.symbols == sorted(wanted)
        assert await program.stop() == 0
        assert "3 of 5 listed contracts match" in program.log
        store = Embedded(tmp_path)
        with store.opened():
            for symbol, table in zip(wanted, ("btc", "1000bonk", "gaps_usdt"), strict=True):
                assert store.rows(table) == exchange.rows(symbol)


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Lend one of the two stores."""
    if request.param == "embedded":
        return Embedded(tmp_path)
    served = Served(request.getfixturevalue("clickhouse_server"))
    served.create("btc", "eth", "new")
    return served


@pytest.mark.parametrize(("size", "store"), [(1, "embedded"), (2, "server")], indirect=["store"])
async def test_contracts_come_and_go_while_recording(
    tmp_path: Path, size: int, store: Store
) -> None:
    """A new listing is picked up, a delisted one let go and taken up again when it is back.

    All of it is stored, what was missed is written down, and the others keep their connection.
    """
    async with (
        open_exchange(contracts=[BTC, ETH, "BTC_USDC"], rest_port=0) as exchange,
        running(
            tmp_path, "*_USDT", *addresses(exchange), "--symbols-per-connection", str(size),
            "--stats-interval", "0.2", "--store", store.url,
        ) as program,
    ):  # fmt: skip

        async def push(*symbols: str) -> None:
            for symbol in symbols:
                await exchange.subscribed(symbol)
                for channel in CHANNELS:
                    await exchange.push(symbol, channel)
            await program.journaled(sum(len(exchange.rows(one)) for one in (BTC, ETH, NEW)))

        await push(BTC, ETH)
        exchange.list_contract(NEW)
        await push(NEW)
        exchange.delist(ETH)
        await program.until(lambda: f"{ETH}: the exchange lists it no longer" in program.log)
        await program.until(lambda: f"{ETH} STATISTICS (Final" in program.output)
        await push(BTC, NEW)
        exchange.list_contract(ETH)
        await push(BTC, ETH, NEW)
        assert exchange.accepted == {1: 4, 2: 2}[size]  # who comes back takes the free place
        assert await program.stop() == 0
        assert "Traceback" not in program.log
        with store.opened():
            for symbol in (BTC, ETH, NEW):
                assert store.rows(symbol.partition("_")[0].lower()) == exchange.rows(symbol)
                total = final_statistics(program.output, symbol)["Total Records Appended"]
                assert total == len(exchange.rows(symbol))
            ledger = store.select("symbol, channel, cause, detail", "gaps")
        # What the exchange was asked for afterwards may be told behind it, if it has answered yet.
        gaps = {(*row, str(detail).partition("; ")[0]) for *row, detail in ledger}
        new = ("newly listed", "it was not on the exchange's list before")
        gone = ("symbol stopped", "the exchange lists it no longer")
        assert gaps == {
            (symbol, channel, *what)
            for symbol, what in ((NEW, new), (ETH, gone), (ETH, new))
            for channel in ("ticker", "deal", "depth")
        }


async def test_many_contracts_share_connections_and_new_ones_join(tmp_path: Path) -> None:
    """Nobody has to know of it: one line says what was chosen, and all of it is stored."""
    contracts = [f"A{n}_USDT" for n in range(25)]
    async with (
        open_exchange(contracts=contracts, rest_port=0) as exchange,
        running(tmp_path, "--all", *addresses(exchange)) as program,
    ):
        for symbol in contracts:
            await exchange.subscribed(symbol)
        exchange.list_contract(NEW)
        for symbol in (NEW, contracts[0]):
            await exchange.subscribed(symbol)
            await exchange.push(symbol, "deal")
        assert exchange.accepted == 1
        await program.journaled(sum(len(exchange.rows(one)) for one in (NEW, contracts[0])))
        assert await program.stop() == 0
        assert program.log.count("connections: 1 for 25 symbols; 0 have one of their own") == 1
        store = Embedded(tmp_path)
        with store.opened():
            assert store.rows("new") == exchange.rows(NEW)
            assert store.rows("a0") == exchange.rows(contracts[0])


async def test_symbol_that_is_refused_before_it_leaves_the_list(tmp_path: Path) -> None:
    """A contract that was found and is then unknown has been delisted: that is no failure."""
    async with (
        open_exchange(contracts=[BTC, ETH], unknown=(), rest_port=0) as exchange,
        running(tmp_path, "--all", *addresses(exchange)) as program,
    ):
        await exchange.subscribed(ETH)
        await exchange.subscribed(BTC)
        rest_of(exchange).trouble = "error"  # the list does not tell yet
        exchange.delist(ETH)
        await exchange.drop()
        await program.until(lambda: f"the exchange knows no contract {ETH}" in program.log)
        rest_of(exchange).trouble = "none"
        asked = len(rest_of(exchange).requests)
        await program.until(lambda: len(rest_of(exchange).requests) > asked + 2)
        await exchange.subscribed(BTC)
        assert await program.stop() == 0


async def test_listed_symbols_that_cannot_be_recorded(
    clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    """A foreign table of that name, or a name that no table can have: each is refused alone."""
    store = Served(clickhouse_server)
    store.create("btc", "new")
    clickhouse_server.execute("DROP TABLE IF EXISTS mexc_data.eth")
    clickhouse_server.execute("CREATE TABLE mexc_data.eth (theirs Int64) ENGINE = StripeLog")
    long = "X" * 220 + "_USDT"
    async with open_exchange(contracts=[BTC, ETH, long], rest_port=0) as exchange:
        for start in range(2):  # a start beside a journal forgives a store more, but not this
            async with running(
                tmp_path, "--all", *addresses(exchange), "--store", store.url
            ) as program:
                await exchange.subscribed(BTC)
                await exchange.push(BTC, "deal")
                sent = len(exchange.rows(BTC))
                await program.until(lambda sent=sent: len(store.rows("btc")) == sent)  # type: ignore[misc]
                if not start:
                    exchange.list_contract(NEW)
                await exchange.subscribed(NEW)
                assert await program.stop() == 0
            assert store.rows("btc") == exchange.rows(BTC)
            told = [line for line in program.log.splitlines() if "ERROR" in line]
            assert len(told) == 2
            assert "ETH_USDT: is listed, and cannot be recorded: table mexc_data.eth" in told[0]
            assert "a name of 225 letters, too long for a table" in told[1]
            assert "ETH_USDT" not in exchange.symbols
    clickhouse_server.execute("DROP TABLE mexc_data.eth")


# --- The start ---


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["*STOKC_USDT"], "no listed contract matches '*STOKC_USDT'"),
        (["BTC_USDT", "QQ*"], "no listed contract matches 'QQ*'"),
        (["--all", "--quote", "EUR"], "no contract with quote EUR is listed at {url}"),
    ],
)
async def test_nothing_that_matches(tmp_path: Path, arguments: list[str], text: str) -> None:
    """One line and exit code 2, before anything is connected to or written."""
    async with (
        open_exchange(rest_port=0) as exchange,
        running(tmp_path, *arguments, *addresses(exchange)) as program,
    ):
        assert await program.ended() == 2
        error = program.log.splitlines()[-1]
        assert error == f"mexc-trio: error: {text.format(url=rest_of(exchange).url)}"
        assert exchange.accepted == 0
        assert not (tmp_path / "mexc-data").exists()


@pytest.mark.parametrize("fault", ["down", "throttled", "html"])
async def test_symbols_given_by_name_need_no_list(tmp_path: Path, fault: str) -> None:
    """They are recorded at once, with a line about the list, which may come later."""
    async with open_exchange(contracts=[BTC, ETH], rest_port=0) as exchange:
        rest = rest_of(exchange)
        if fault == "down":
            await rest.go_down()
        else:
            rest.trouble = "throttled" if fault == "throttled" else "html"
        async with running(tmp_path, BTC, "--all", *addresses(exchange)) as program:
            await exchange.subscribed(BTC)
            await exchange.push(BTC, "deal")
            await program.journaled(len(exchange.rows(BTC)))
            (line,) = [text for text in program.log.splitlines() if "no list" in text]
            assert "recording begins with the others" in line
            if fault == "down":
                await rest.come_back()
                await exchange.subscribed(ETH)
            assert await program.stop() == 0
            assert "Traceback" not in program.log


async def test_a_pattern_alone_waits_for_the_list(tmp_path: Path) -> None:
    """It says so with each attempt, and records when the list is there."""
    async with open_exchange(contracts=[BTC, ETH], rest_port=0) as exchange:
        await rest_of(exchange).go_down()
        async with running(tmp_path, "BTC*", *addresses(exchange)) as program:
            await program.until(lambda: "asking again in" in program.log)
            await rest_of(exchange).come_back()
            await exchange.subscribed(BTC)
            assert await program.stop() == 0


async def test_list_of_the_last_run_does_until_there_is_one(tmp_path: Path) -> None:
    """A restart while the exchange gives no list misses seconds, and what is listed since follows.

    A file that is none of ours does no harm: that start waits, as the first did.
    """
    kept = tmp_path / "mexc-data" / FILE
    async with open_exchange(contracts=[BTC, ETH], rest_port=0) as exchange:
        rest = rest_of(exchange)
        async with running(tmp_path, "--all", *addresses(exchange)) as program:
            await exchange.subscribed(ETH)
            await program.until(kept.exists)
            assert await program.stop() == 0
        sound = kept.read_bytes()
        await rest.go_down()
        async with running(tmp_path, "--all", *addresses(exchange)) as program:
            for symbol in (BTC, ETH):
                await exchange.subscribed(symbol)
                await exchange.push(symbol, "deal")
            await program.journaled(len(exchange.rows(BTC)) + len(exchange.rows(ETH)))
            (line,) = [text for text in program.log.splitlines() if "until there is one" in text]
            assert " WARN " in line
            exchange.list_contract(NEW)
            await rest.come_back()
            await exchange.subscribed(NEW)
            await program.until(lambda: b"NEW_USDT" in kept.read_bytes())
            assert await program.stop() == 0
            assert "Traceback" not in program.log
        await rest.go_down()
        kept.write_bytes(sound.replace(b"_USDT", b"'); DROP"))
        async with running(tmp_path, "--all", *addresses(exchange)) as program:
            await program.until(lambda: "asking again in" in program.log)
            assert program.log.count("contracts.json is not used") == 1
            await rest.come_back()
            await exchange.subscribed(NEW)
            assert await program.stop() == 0


async def test_waiting_for_the_list_can_be_stopped(tmp_path: Path) -> None:
    """At once, with exit code 0 and nothing written."""
    async with open_exchange(rest_port=0) as exchange:
        rest_of(exchange).trouble = "html"  # which makes for long pauses
        async with running(tmp_path, "--all", *addresses(exchange)) as program:
            await program.until(lambda: "asking again in" in program.log)
            with trio.fail_after(DEADLINE):
                assert await program.stop(signal.SIGTERM) == 0
            assert not (tmp_path / "mexc-data").exists()


async def test_too_many_symbols_for_the_limit_of_open_files(tmp_path: Path) -> None:
    """A clear line before anything is connected to; the limit is raised where it may be."""
    contracts = [f"A{n}_USDT" for n in range(300)]
    async with open_exchange(contracts=contracts, rest_port=0) as exchange:
        command = [sys.executable, "-m", "mexc_trio", "--all", *addresses(exchange)]
        command += ["--symbols-per-connection", "1"]
        outcome = await trio.run_process(
            ["sh", "-c", f"ulimit -n 256; exec {shlex.join(command)}"],
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_stderr=True,
            check=False,
        )
        error = outcome.stderr.decode().splitlines()[-1]
        assert error == (
            "mexc-trio: error: 304 connections need 432 open files, and the limit is 256 (hard "
            "limit 256): raise it with ulimit -n 432, or share connections with "
            "--symbols-per-connection"
        )
        assert outcome.returncode == 2
        assert exchange.accepted == 0
        assert not (tmp_path / "mexc-data").exists()
