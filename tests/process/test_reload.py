"""Settings that change while recording, as an operator changes them."""

import os
import pty
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.support.running import BTC, DEADLINE, Embedded, Program, command, environment, running
from tools.exchange import Exchange, open_exchange
from tools.market import CHANNELS, Channel

ETH, SOL, ADA = "ETH_USDT", "SOL_USDT", "ADA_USDT"


def write(directory: Path, url: str, symbols: str, sections: str = "", **more: object) -> None:
    """Write the settings file, in one go as editors do."""
    lines = [f"{key} = {value}" for key, value in {"url": url, "symbols": symbols, **more}.items()]
    new = directory / "new"
    new.write_text("\n".join(["[mexc-trio]", *lines, sections, ""]))
    new.replace(directory / "settings.ini")


async def reload(directory: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command."""
    return await trio.to_thread.run_sync(partial(command, "reload", *options, cwd=directory))


async def test_symbols_come_and_go_while_hundreds_of_messages_a_second_flow(tmp_path: Path) -> None:
    """What stays is not touched: not its connection, not one of its rows."""
    async with open_exchange(rate=150.0) as exchange:
        write(tmp_path, exchange.url, f"{BTC} {ETH}")
        async with running(tmp_path) as program:
            await exchange.subscribed(BTC)
            await exchange.subscribed(ETH)
            await program.journaled(500)
            write(tmp_path, exchange.url, f"{BTC} {SOL}", linger=0.3, ping_interval=12)
            done = await reload(tmp_path)
            assert done.returncode == 0, done.stderr
            assert done.stdout.decode().split(": ", 1)[1] == (
                f"recording {SOL}; no longer {ETH}; linger = 0.3; ping_interval takes a restart\n"
            )
            await exchange.subscribed(SOL)
            await exchange.until(lambda: len(exchange.rows(SOL)) > 200)
            write(tmp_path, exchange.url, f"{BTC} {ETH} {SOL}")
            assert (await reload(tmp_path)).returncode == 0
            await exchange.until(lambda: exchange.accepted == 4)
            await exchange.subscribed(ETH)
            exchange.silenced.add((None, None))
            await program.journaled(len(exchange.rows(BTC)), "btc")
            await program.journaled(len(exchange.rows(SOL)), "sol")
            assert await program.stop() == 0
            assert "Traceback" not in program.log
        store = Embedded(tmp_path)
        with store.opened():
            assert store.rows("btc") == exchange.rows(BTC)
            assert store.rows("sol") == exchange.rows(SOL)
            assert set(store.rows("eth")) <= set(exchange.rows(ETH))
            gaps = set(store.select("symbol, cause, detail", "gaps"))
        assert gaps == {
            (ETH, "symbol stopped", "the settings do not name it any more"),
            (ETH, "symbol stopped", "the settings did not name it"),
        }


async def test_what_nohup_has_started_is_reloaded_as_well(tmp_path: Path) -> None:
    """SIGHUP is ignored there because of the terminal, not because of who asks for a reload.

    He is told what he has changed in vain.
    """
    async with open_exchange(rate=50.0) as exchange:
        write(tmp_path, exchange.url, BTC)
        with (tmp_path / "log.txt").open("w") as log, (tmp_path / "output.txt").open("w") as out:
            process = await trio.lowlevel.open_process(
                ["/bin/sh", "-c", "trap '' HUP; exec \"$0\" -m mexc_trio", sys.executable],
                cwd=tmp_path, env=environment(MEXC_TRIO_STATS_INTERVAL="20"), stdout=out,
                stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        program = Program(process, tmp_path)
        try:
            await program.journaled(10)
            write(tmp_path, exchange.url, BTC, linger=0.3, stats_interval=7)
            done = await reload(tmp_path)
            assert done.stdout.decode().endswith(
                ": linger = 0.3; stats_interval stays as the environment says\n"
            ), done.stderr
            assert await program.stop(signal.SIGTERM) == 0
        finally:
            if process.poll() is None:
                process.kill()


async def test_routes_and_channels_change_and_who_keeps_them_is_not_touched(
    tmp_path: Path,
) -> None:
    """One goes on by another route, one with other channels, and neither has a gap."""

    def section(symbol: str, **keys: str) -> str:
        return "\n".join([f"[{symbol}]", *(f"{key} = {text}" for key, text in keys.items())])

    async with open_exchange(rate=50.0, shared=True) as exchange:
        names = f"{BTC} {ETH} {SOL}"
        write(tmp_path, exchange.url, names, linger=0.2)
        async with running(tmp_path) as program:
            for symbol in (BTC, ETH, SOL):
                await exchange.subscribed(symbol)
            await exchange.push(ETH, "ticker")  # of which there are few
            await program.journaled(300)
            write(tmp_path, exchange.url, names, linger=0.2, sections=section(
                BTC, route="from:127.0.0.1", max_errors="7"
            ) + "\n" + section(ETH, channels="deal,funding", table="ether"))  # fmt: skip
            done = await reload(tmp_path)
            assert done.returncode == 0, done.stderr
            assert done.stdout.decode().split(": ", 1)[1] == (
                f"own settings of {BTC} {ETH}; table of {ETH} takes a restart\n"
            )
            with trio.fail_after(DEADLINE):
                await exchange.until(
                    lambda: channels_of(exchange, ETH) == [{"deal", "funding.rate"}]
                )
            await says(program, f"{BTC}: a new connection has replaced the old one")
            exchange.silence()
            await program.journaled(len(exchange.rows(SOL)), "sol")
            for symbol in (BTC, ETH):
                await last_deal(program, exchange, symbol)
            await exchange.push(ETH, "funding.rate")
            await program.last_journaled(exchange.rows(ETH)[-1])
            assert await program.stop() == 0
            assert "Traceback" not in program.log
            assert program.output.count("(Final") <= 3
    store = Embedded(tmp_path)
    assert exchange.accepted == 4, "other channels need no other connection"
    with store.opened():
        assert store.rows("sol") == exchange.rows(SOL)
        for symbol in (BTC, ETH):
            each_deal_is_there_once(exchange, store, symbol)
        assert {row[1] for row in store.rows("eth")} == {"t", "d", "dp", "fr"}
        assert store.rows("eth")[-1][1] == "fr"
        assert store.select("*", "gaps") == []


async def test_who_shares_connections_goes_on_without_a_gap(tmp_path: Path) -> None:
    """By other routes, all at once or some of them, with other channels, beside a new one."""
    shared: dict[str, Any] = {"lines": 2, "symbols_per_connection": 4, "linger": 0.2}
    names = f"{BTC} {ETH} {SOL}"
    async with open_exchange(rate=20.0, shared=True) as exchange:

        async def are_subscribed(
            symbols: str, *channels: Channel, accepted: int, connections: int = 2
        ) -> None:
            """Wait until so many connections, of so many that there ever were, have all this."""
            wanted = {symbol: [{*channels}] * 2 for symbol in symbols.split()}
            with trio.fail_after(DEADLINE):
                await exchange.until(
                    lambda: (
                        exchange.accepted >= accepted
                        and exchange.connections == connections
                        and {one: channels_of(exchange, one) for one in exchange.symbols} == wanted
                    )
                )

        write(tmp_path, exchange.url, names, **shared)
        async with running(tmp_path) as program:
            await are_subscribed(names, *CHANNELS, accepted=2)
            apart = ""
            for symbol in (SOL, ETH):  # the one to connections of its own, the other to those
                apart += f"[{symbol}]\nroute = from:127.0.0.2\n"
                write(tmp_path, exchange.url, names, apart, **shared)
                program.process.send_signal(signal.SIGHUP)
                await are_subscribed(names, *CHANNELS, accepted=4, connections=4)
                await says(program, f"{symbol}: new connections have replaced the old ones")
            more = f"{names} {ADA}"
            write(tmp_path, exchange.url, more, **shared, route="from:127.0.0.1")
            program.process.send_signal(signal.SIGHUP)
            await are_subscribed(more, *CHANNELS, accepted=8, connections=4)
            write(tmp_path, exchange.url, names, **shared, channels="deal,funding")
            program.process.send_signal(signal.SIGHUP)
            await are_subscribed(names, "deal", "funding.rate", accepted=12, connections=4)
            exchange.silence()
            for symbol in (BTC, ETH, SOL):
                await last_deal(program, exchange, symbol)
            assert await program.stop() == 0
            assert "Traceback" not in program.log
    store = Embedded(tmp_path)
    with store.opened():
        for symbol in (BTC, ETH, SOL):
            each_deal_is_there_once(exchange, store, symbol)
            assert set(store.rows(symbol[:3].lower())) <= set(exchange.rows(symbol))
        assert {symbol for (symbol,) in store.select("symbol", "gaps")} <= {ADA}


async def last_deal(program: Program, exchange: Exchange, symbol: str) -> None:
    """Send a deal on each connection, and wait for it: all before it have come as well."""
    before = len(exchange.rows(symbol))
    await exchange.push(symbol, "deal")
    for row in exchange.rows(symbol)[before:]:
        await program.last_journaled(row)


def channels_of(exchange: Exchange, symbol: str) -> list[set[Channel]]:
    """List what connections are subscribed to of a symbol."""
    return [{*one.subscriptions[symbol]} for one in exchange.subscribers(symbol)]


def each_deal_is_there_once(exchange: Exchange, store: Embedded, symbol: str) -> None:
    """Compare what was sent with what is stored."""
    deals = [row for row in store.rows(symbol[:3].lower()) if row[1] == "d"]
    assert len(deals) == len(set(deals))
    assert set(deals) == {row for row in exchange.rows(symbol) if row[1] == "d"}


async def says(program: Program, text: str) -> None:
    """Wait for a word in the log."""
    await program.until(lambda: text in program.log)


async def test_a_file_that_is_wrong_changes_nothing(tmp_path: Path) -> None:
    """Broken, empty or gone: the recorder says why and goes on as it was."""
    async with open_exchange() as exchange:
        write(tmp_path, exchange.url, BTC)
        async with running(tmp_path, "--linger", "0.1") as program:
            await exchange.subscribed(BTC)
            for text, why in (
                (
                    "[mexc-trio]\nsymbols = BTC_USDT\nmax_errors = few\n",
                    "'few' is not a whole number",
                ),
                ("[mexc-trio]\nsymbols = BTCUSDT\n", "'BTCUSDT' is not a symbol"),
                ("", "no symbol is left to record"),
                (
                    "[mexc-trio]\nsymbols = BTC_USDT AAA_USDT\n[AAA_USDT]\ntable = btc\n",
                    "share the name 'btc'",
                ),
            ):
                (tmp_path / "settings.ini").write_text(text)
                program.process.send_signal(signal.SIGHUP)
                await says(program, why)
                said = [line for line in program.log.splitlines() if why in line]
                assert all(line.endswith("; nothing is changed") for line in said)
            (tmp_path / "settings.ini").write_bytes(b"\xff")
            done = await reload(tmp_path)
            assert done.returncode == 2
            assert b"settings.ini: is not UTF-8 text" in done.stderr
            (tmp_path / "settings.ini").unlink()
            program.process.send_signal(signal.SIGHUP)
            await says(program, "settings.ini is gone; nothing is changed")
            await exchange.push(BTC, "deal")
            await program.journaled(len(exchange.rows(BTC)))
            assert await program.stop() == 0
        assert Embedded(tmp_path).rows("btc") == exchange.rows(BTC)


async def test_who_cannot_be_told_is_not(tmp_path: Path) -> None:
    """A recorder without a settings file would end at the signal, so it gets none."""
    async with open_exchange() as exchange:
        async with running(tmp_path, BTC, "--url", exchange.url) as program:
            await exchange.subscribed(BTC)
            done = await reload(tmp_path)
            assert (done.returncode, done.stdout) == (2, b"")
            assert b"there is no settings file" in done.stderr
            write(tmp_path, exchange.url, BTC)
            done = await reload(tmp_path)
            assert done.returncode == 2
            assert b"and its settings did not come from" in done.stderr
            assert program.process.poll() is None
            assert await program.stop(signal.SIGHUP) == 0  # nothing to read again: a clean stop
        done = await reload(tmp_path)
        assert (done.returncode, b"no recorder runs in" in done.stderr) == (2, True)


async def test_a_closed_terminal_stops_also_with_a_settings_file(tmp_path: Path) -> None:
    """Nobody who closes a window has asked for settings to be read."""
    async with open_exchange() as exchange:
        write(tmp_path, exchange.url, BTC)
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(tmp_path)
            words = [sys.executable, "-m", "mexc_trio", "--stats-interval", "60"]
            os.execve(sys.executable, words, environment())  # noqa: S606
        text = b""
        try:
            with trio.fail_after(DEADLINE):
                await exchange.subscribed(BTC)
                os.kill(pid, signal.SIGHUP)  # from somewhere else: read again
                while b"settings read again: nothing new" not in text:
                    text += await trio.to_thread.run_sync(
                        os.read, terminal, 4096, abandon_on_cancel=True
                    )
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            os.close(terminal)
            _, status = await trio.to_thread.run_sync(os.waitpid, pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
