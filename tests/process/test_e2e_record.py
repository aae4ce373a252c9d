"""The recorder as its user has it, against the simulated exchange, into both stores."""

import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from pathlib import Path

import pytest
import trio

from mexc_trio.cli.main import main
from mexc_trio.clickhouse import open_store
from mexc_trio.clickhouse.schema import prepare
from mexc_trio.clickhouse.tables import GAPS, market_table
from mexc_trio.journal import open_journal
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget
from tests.support.running import (
    DEADLINE,
    OLD_MARKET,
    Embedded,
    Program,
    Served,
    Store,
    counts,
    final_statistics,
    running,
)
from tools.clickhouse import ClickHouseServer
from tools.exchange import Exchange, Handshake, open_exchange
from tools.market import CHANNELS, ODDITIES

BTC, ETH = "BTC_USDT", "ETH_USDT"
STOPPING_SECONDS = 30.0


def stored_as_sent(
    store: Store, exchange: Exchange, program: Program, symbols: Sequence[str] = (BTC, ETH)
) -> None:
    """Check that each table holds the rows sent, digit for digit and in order, and is counted."""
    with store.opened():
        for symbol in symbols:
            rows = store.rows(symbol.removesuffix("_USDT").lower())
            assert rows == exchange.rows(symbol)
            assert final_statistics(program.output, symbol).items() >= counts(rows).items()


def rows_sent(exchange: Exchange, *symbols: str) -> int:
    """Count the rows that the frames sent so far must give."""
    return sum(len(exchange.rows(symbol)) for symbol in symbols)


@pytest.mark.parametrize(
    ("store", "number", "oddities"),
    [("embedded", signal.SIGINT, 0.1), ("server", signal.SIGTERM, 1.0)],
    indirect=["store"],
)
async def test_what_is_sent_is_stored(
    store: Store, tmp_path: Path, number: int, oddities: float
) -> None:
    """Every row once, to the last digit and in order, whatever oddities the exchange has.

    Stopped by Ctrl-C or SIGTERM it ends within seconds with exit code 0, and its final statistics
    are the tables.
    """
    # A write for each byte takes so much time that more frames would be sent in ever larger pieces
    # on a crowded machine, and hold up the pongs for longer than they may take.
    split = oddities < 1
    rate, enough = (5, 40) if split else (50, 200)
    async with (
        open_exchange(rate=rate, oddities=oddities, split_bytes=split) as exchange,
        running(
            tmp_path, BTC, ETH, "--url", exchange.url, "--store", store.url, forked=False
        ) as program,
    ):
        await program.until(lambda: all(rows_sent(exchange, one) > enough for one in (BTC, ETH)))
        exchange.silence()
        await program.journaled(rows_sent(exchange, BTC, ETH))
        began = time.monotonic()
        assert await program.stop(number) == 0
        assert time.monotonic() - began < STOPPING_SECONDS
        stored_as_sent(store, exchange, program)
        assert store.select("*", "gaps") == []
        assert "Traceback" not in program.log


async def test_names_that_look_like_numbers(tmp_path: Path) -> None:
    """Tables `4` and `1e5` are recorded, have views, and are verified as any other."""
    symbols = ["4_USDT", "1E5_USDT"]
    async with open_exchange(rate=50, oddities=0.0) as exchange:
        (tmp_path / "settings.ini").write_text(
            f"[mexc-trio]\nurl = {exchange.url}\nsymbols = 4_usdt 1e5_usdt\n"
            "[1E5_USDT]\nlinger = 0\n"
        )
        async with running(tmp_path) as program:
            await program.until(lambda: all(len(exchange.rows(one)) > 20 for one in symbols))
            exchange.silence()
            await program.journaled(rows_sent(exchange, *symbols))
            assert await program.stop() == 0
            store = Embedded(tmp_path)
            stored_as_sent(store, exchange, program, symbols)
    data = str(tmp_path / "mexc-data")
    with store.opened():
        assert main(["verify", *symbols, "--store", data]) == 0
        for symbol, table in zip(symbols, ("4", "1e5"), strict=True):
            deals = [text.split("|")[0] for _, mt, text in exchange.rows(symbol) if mt == "d"]
            prices = store.select("toString(price)", f"{table}_deals_exact")
            assert [Decimal(str(price)) for (price,) in prices] == list(map(Decimal, deals))


async def test_a_stop_in_full_flow(store: Store, tmp_path: Path) -> None:
    """Stopped in the middle of the stream it has stored all that it received: no gap before."""
    async with (
        open_exchange(rate=1000, oddities=0.1) as exchange,
        running(tmp_path, BTC, ETH, "--url", exchange.url, "--store", store.url) as program,
    ):
        await program.until(lambda: rows_sent(exchange, BTC) > 500 < rows_sent(exchange, ETH))
        at_least = {symbol: len(exchange.rows(symbol)) for symbol in (BTC, ETH)}
        await program.journaled(sum(at_least.values()))
        began = time.monotonic()
        assert await program.stop() == 0
        assert time.monotonic() - began < STOPPING_SECONDS
        total = 0
        with store.opened():
            for symbol, table in ((BTC, "btc"), (ETH, "eth")):
                rows = store.rows(table)
                assert rows == exchange.rows(symbol)[: len(rows)]
                assert final_statistics(program.output, symbol).items() >= counts(rows).items()
                total += len(rows)
        assert total >= sum(at_least.values())


async def test_a_set_duration(store: Store, tmp_path: Path) -> None:
    """--duration ends it as Ctrl-C does; statistics come at their interval before that."""
    for duration in ("1.5", "6", "30"):  # on a slow machine the first rows come late
        directory = tmp_path / duration
        directory.mkdir()
        if isinstance(store, Embedded):
            store = Embedded(directory)
        store.create("btc")
        async with (
            open_exchange(rate=50) as exchange,
            running(
                directory, BTC, "--url", exchange.url, "--store", store.url,
                "--duration", duration, "--stats-interval", "0.5", "--linger", "0.1",
            ) as program,
        ):  # fmt: skip
            assert await program.ended() == 0
            rows = store.rows("btc")
            assert rows == exchange.rows(BTC)[: len(rows)]
            assert final_statistics(program.output, BTC).items() >= counts(rows).items()
            assert program.output.count(f"{BTC} STATISTICS (Final, ") == 1
        if rows and program.output.count(f"{BTC} STATISTICS (Last ") >= 2:
            break
    else:
        raise AssertionError(program.output)


async def test_every_oddity_by_name(tmp_path: Path) -> None:
    """Each oddity of the exchange is stored as it must be, not only those that chance brought."""
    store = Embedded(tmp_path)
    async with (
        open_exchange() as exchange,
        running(tmp_path, "btc_usdt", "--url", exchange.url, "--symbols-per-connection", "3")
        as program,
    ):  # fmt: skip
        await program.until(lambda: BTC in exchange.symbols)
        await exchange.subscribed(BTC)
        for channel in CHANNELS:
            for oddity in ("", *ODDITIES[channel]):
                await exchange.push(BTC, channel, oddity=oddity)
        await program.journaled(rows_sent(exchange, BTC))
        assert await program.stop() == 0
        stored_as_sent(store, exchange, program, [BTC])
        assert (tmp_path / "mexc-data/data/mexc_data/btc/data.bin").stat().st_size > 0


# One of several symbols.


async def test_a_symbol_that_does_not_exist(store: Store, tmp_path: Path) -> None:
    """It is named in one line, the others go on, and the exit code says that not all went well."""
    async with (
        open_exchange(rest_port=0) as exchange,
        running(
            tmp_path, "NOPE_USDT", BTC, "--url", exchange.url, "--store", store.url,
            *rest_of(exchange),
        ) as program,
    ):  # fmt: skip
        await program.until(lambda: exchange.symbols == [BTC] and "NOPE_USDT: " in program.log)
        await program.until(lambda: "NOPE_USDT STATISTICS (Final" in program.output)
        await exchange.subscribed(BTC)
        await exchange.push(BTC, "deal")
        await program.journaled(1)
        assert await program.stop() == 1
        assert "ERROR NOPE_USDT: the exchange knows no contract NOPE_USDT" in program.log
        assert final_statistics(program.output, "NOPE_USDT")["Errors"] == 1
        stored_as_sent(store, exchange, program, [BTC])
        assert "Traceback" not in program.log


def rest_of(exchange: Exchange) -> tuple[str, str]:
    """Return the option that names the exchange's REST interface."""
    assert exchange.rest is not None
    return ("--rest-url", exchange.rest.url)


async def test_no_symbol_exists(tmp_path: Path) -> None:
    """When no symbol is left the program ends by itself."""
    arguments = ("NOPE_USDT", "NOPE2_USDT", "--symbols-per-connection", "2")
    async with (
        open_exchange(rest_port=0) as exchange,
        running(tmp_path, *arguments, "--url", exchange.url, *rest_of(exchange)) as program,
    ):
        assert await program.ended() == 1
        for symbol in ("NOPE_USDT", "NOPE2_USDT"):
            assert f"the exchange knows no contract {symbol}" in program.log


async def test_too_many_errors_stop_one_symbol(store: Store, tmp_path: Path) -> None:
    """What a stopped symbol had is stored and counted; the other symbol goes on."""
    (tmp_path / "settings.ini").write_text(f"[{BTC}]\nmax_errors = 1\n")
    async with (
        open_exchange() as exchange,
        running(tmp_path, BTC, ETH, "--url", exchange.url, "--store", store.url) as program,
    ):
        for symbol in (BTC, ETH):
            await exchange.subscribed(symbol)
            await exchange.push(symbol, "deal")
        await program.journaled(rows_sent(exchange, BTC, ETH))
        await exchange.drop()
        await program.until(lambda: f"{BTC} STATISTICS (Final" in program.output)
        await exchange.subscribed(ETH)
        assert exchange.symbols == [ETH]
        await exchange.push(ETH, "depth.full")
        await program.journaled(rows_sent(exchange, BTC, ETH))
        assert await program.stop() == 1
        stored_as_sent(store, exchange, program)
        assert f"1 errors of {BTC} within ten minutes" in program.log
        causes = store.select("symbol, cause", "gaps")
        assert (BTC, "connection lost") in causes or (BTC, "symbol stopped") in causes


async def test_more_than_four_symbols_share_a_table_of_statistics(tmp_path: Path) -> None:
    """Five blocks would fill the screen: one line a symbol, and one for all."""
    symbols = [f"S{number}_USDT" for number in range(5)]
    async with (
        open_exchange(rate=20) as exchange,
        running(
            tmp_path, *symbols, "--url", exchange.url,
            "--symbols-per-connection", "2", "--linger", "0",
        ) as program,
    ):  # fmt: skip
        await program.until(lambda: all(rows_sent(exchange, symbol) > 10 for symbol in symbols))
        exchange.silence()
        await program.journaled(rows_sent(exchange, *symbols))
        assert await program.stop() == 0
        report = program.output.splitlines()[-11:]
        assert report[1].startswith("STATISTICS (Final, ")
        lines = {line.split()[0]: line.split()[1:] for line in report[4:-1]}
        store = Embedded(tmp_path)
        with store.opened():
            for symbol in symbols:
                rows = store.rows(symbol.removesuffix("_USDT").lower())
                assert rows == exchange.rows(symbol)
                total, ticker, deal, depth, dead, *_ = map(float, lines[symbol])
                assert [total, ticker, deal, depth, dead] == list(counts(rows).values())
        assert int(lines["all"][0]) == rows_sent(exchange, *symbols)


# Reconnects.


Strike = Callable[[Exchange, Program], Awaitable[None]]


async def _drop(exchange: Exchange, program: Program) -> None:
    await exchange.drop()


async def _cut(exchange: Exchange, program: Program) -> None:
    await exchange.drop(reset=False)


async def _close(exchange: Exchange, program: Program) -> None:
    await exchange.close(1001, "maintenance")


async def _refuse(exchange: Exchange, program: Program) -> None:
    await exchange.stop_listening()
    await exchange.drop()
    await program.until(lambda: "Connection refused" in program.log)
    await exchange.listen()


def _fail_handshake(handshake: Handshake) -> Strike:
    async def strike(exchange: Exchange, program: Program) -> None:
        exchange.handshake = handshake
        accepted = exchange.accepted
        await exchange.drop()
        await exchange.until(lambda: exchange.accepted > accepted)
        exchange.handshake = "accept"

    return strike


async def test_reconnects_lose_nothing_that_was_received(
    clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    """Whatever ends a connection: one line, a new one, every row once, and the gap on record.

    One recorder for each fault, all at the same time, because each waits before it reconnects.
    """
    faults: dict[str, tuple[Strike, str]] = {
        "DROP": (_drop, "connection lost without a close frame"),
        "CUT": (_cut, "connection lost without a close frame"),
        "CLOSE": (_close, "closed by the exchange: 1001"),
        "REFUSE": (_refuse, "Connection refused"),
        "GARBAGE": (_fail_handshake("garbage"), "does not speak WebSocket"),
        "HANGUP": (_fail_handshake("close"), "hung up"),
        "FIREWALL": (_fail_handshake("403"), "answers HTTP 403"),
    }

    async def lose_and_regain(name: str) -> None:
        symbol, (strike, words) = f"{name}_USDT", faults[name]
        directory = tmp_path / name
        directory.mkdir()
        # A database each, since it has one ledger of gaps.
        store = Served(clickhouse_server, f"mexc_{name.lower()}")
        store.create(name.lower())
        async with (
            open_exchange() as exchange,
            running(directory, symbol, "--url", exchange.url, "--store", store.url) as program,
        ):
            for attempt in (1, 2):
                await program.until(lambda: symbol in exchange.symbols)
                await exchange.subscribed(symbol)
                for channel in CHANNELS:
                    await exchange.push(symbol, channel)
                await program.journaled(rows_sent(exchange, symbol))
                if attempt == 1:
                    await strike(exchange, program)
            # A stop gives the ledger a second, which a crowded machine may need for other things.
            await program.until(lambda: len(store.select("symbol", "gaps")) == len(CHANNELS))
            assert await program.stop() == 0
            stored_as_sent(store, exchange, program, [symbol])
            lost = [line for line in program.log.splitlines() if " WARN " in line]
            assert any(words in line for line in lost), program.log
            assert all("reconnecting in" in line for line in lost), program.log
            assert "Traceback" not in program.log
        assert store.select("symbol, channel, cause", "gaps") == [
            (symbol, channel, "connection lost") for channel in ("ticker", "deal", "depth")
        ]

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            for name in faults:
                nursery.start_soon(lose_and_regain, name)


async def test_rows_of_a_table_that_somebody_else_has_now(
    clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    """A symbol that moved to another process left rows here: they wait, told, and nothing ends.

    While the other process has the table, and after it has written to it, which makes the rows
    impossible to place. The symbols of this process are recorded meanwhile.
    """
    store = Served(clickhouse_server)
    store.create("btc", "eth")
    async with open_exchange() as exchange:
        options = ("--url", exchange.url, "--store", store.url, "--linger", "0")

        async def record_once(symbol: str, *state: str) -> Program:
            async with running(tmp_path, symbol, *options, *state) as program:
                await exchange.subscribed(symbol)
                await exchange.push(symbol, "deal")
                await program.until(lambda: store_has(symbol))
                assert await program.stop() == 0
                return program

        def store_has(symbol: str) -> bool:
            table = symbol.removesuffix("_USDT").lower()
            return len(store.rows(table)) == rows_sent(exchange, symbol)

        await record_once(ETH)
        (path,) = (tmp_path / "mexc-data").glob("journal*.sqlite")
        with open_journal(path) as journal:
            journal.queue("eth").append([(1, "d", "1|1|1"), (2, "d", "2|2|2")])
        other = tmp_path / "other"
        other.mkdir()
        async with running(other, ETH, *options, "--state-dir", "state") as mover:
            await mover.until(lambda: "is recorded" in mover.log or "Subscribed" in mover.log)
            program = await record_once(BTC)
            told = [line for line in program.log.splitlines() if "ERROR" in line]
            assert len(told) == 1
            assert f"is being recorded by process {mover.process.pid}" in told[0]
            assert f"2 rows of an earlier run stay in mexc-data/{path.name}" in told[0]
            await exchange.push(ETH, "deal")
            await mover.until(lambda: store_has(ETH))
            assert await mover.stop() == 0
        program = await record_once(BTC)
        told = [line for line in program.log.splitlines() if "ERROR" in line]
        assert len(told) == 1
        assert "something else writes to it" in told[0]
        assert "2 rows of an earlier run to write" in program.log
        assert "Traceback" not in program.log
        async with running(tmp_path, "drain", "--store", store.url) as drain:
            assert await drain.ended() == 1
            assert "something else writes to it" in drain.log
            assert "0 rows written to" in drain.log
        with open_journal(path) as journal:
            assert journal.queue("eth").backlog == 2
        assert store.rows("btc") == exchange.rows(BTC)
        assert store.rows("eth") == exchange.rows(ETH)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sets another process's limits")
async def test_files_run_out_for_a_while(store: Store, tmp_path: Path) -> None:
    """Other programs may take them all: it is waited out, and is no error that stops a symbol.

    The connection is lost meanwhile and cannot be made anew; the limit of two errors is not met.
    """
    async with (
        open_exchange() as exchange,
        running(
            tmp_path, BTC, "--url", exchange.url, "--store", store.url, "--max-errors", "2",
            "--linger", "0", forked=isinstance(store, Served),  # else something is left to import
        ) as program,
    ):  # fmt: skip
        await exchange.subscribed(BTC)
        await exchange.push(BTC, "deal")
        await program.journaled(rows_sent(exchange, BTC))
        pid = program.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        await exchange.drop()
        await program.until(lambda: program.log.count("Too many open files; reconnecting") >= 2)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        await exchange.subscribed(BTC)
        await exchange.push(BTC, "depth.full")
        await program.journaled(rows_sent(exchange, BTC))
        assert await program.stop() == 0
        assert "Traceback" not in program.log
        stored_as_sent(store, exchange, program, [BTC])


async def test_optional_channels_and_a_table_without_room(tmp_path: Path) -> None:
    """A table that is older than a channel goes on without it, and a converted one has room.

    The line in the log says how; nothing of what was recorded before is lost on the way.
    """
    store = Embedded(tmp_path)
    settings = Settings(store=EmbeddedTarget(tmp_path / "mexc-data"))
    made = open_store(settings)
    prepare(made, [market_table("eth"), GAPS])
    made.query(f"CREATE TABLE mexc_data.btc {OLD_MARKET}")
    made.close()

    async def record(*expected: str) -> Program:
        async with running(
            tmp_path, BTC, "--channels", "deal,funding,fair", "--url", exchange.url
        ) as program:
            await exchange.subscribed(BTC, expected)  # type: ignore[arg-type]
            for channel in expected:
                await exchange.push(BTC, channel)  # type: ignore[arg-type]
            await program.journaled(rows_sent(exchange, BTC))
            assert await program.stop() == 0
        assert store.rows("btc") == exchange.rows(BTC)
        return program

    async def run(*arguments: str) -> None:
        async with running(tmp_path, *arguments) as program:
            assert await program.ended() == 0, program.log

    async with open_exchange() as exchange:
        program = await record("deal")
        (line,) = [text for text in program.log.splitlines() if "has no room" in text]
        assert "BTC_USDT: table btc is older than funding, fair" in line
        said = line.split("; mexc-trio ")[1].split(" makes room")[0]
        await run(*said.split())
        program = await record("deal", "funding.rate", "fair.price")
        assert "has no room" not in program.log
        assert "Funding Messages: 1 → btc/data.bin" in program.output
        await run("verify")
