"""A real Prometheus watches a real recorder, and what others do to its port is no trouble."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import attrs
import psutil
import pytest
import trio

from tests.support.faults import TALLY
from tests.support.running import BTC, DEADLINE, Embedded, Program, Served, environment, running
from tools.clickhouse import ClickHouseServer
from tools.exchange import Exchange, open_exchange

INFRA: Final = Path(__file__).parents[2] / "infra"
ETH, NOPE = "ETH_USDT", "NOPE_USDT"

whole_day = pytest.mark.skipif(
    "MEXC_TRIO_TEST_MONITORING" not in os.environ,
    reason="a day of faults, a minute run as a second, wants a machine to itself",
)


@attrs.frozen
class Prometheus:
    """A Prometheus that scrapes every second."""

    url: str

    async def ask(self, path: str, **fields: str) -> Any:
        """Ask its HTTP interface."""
        url = f"{self.url}/api/v1/{path}?{urlencode(fields)}"

        def get() -> Any:
            with urlopen(url, timeout=DEADLINE) as answer:  # noqa: S310 - our own
                return json.load(answer)["data"]

        return await trio.to_thread.run_sync(get)

    async def query(self, expression: str) -> list[Any]:
        """Return the samples that there are now."""
        found = await self.ask("query", query=expression)
        assert isinstance(found["result"], list)
        return found["result"]

    async def until(self, condition: Callable[[list[Any]], bool], expression: str) -> None:
        """Wait until a condition holds for the samples of an expression."""
        with trio.fail_after(DEADLINE):
            while not condition(await self.query(expression)):
                await trio.sleep(0.3)

    async def firing(self) -> set[str]:
        """Return the alerts that fire now."""
        alerts = (await self.ask("alerts"))["alerts"]
        return ours({one["labels"]["alertname"] for one in alerts if one["state"] == "firing"})

    async def until_firing(
        self, *names: str, meanwhile: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint
    ) -> set[str]:
        """Wait until these alerts fire, perhaps with others; return all."""
        with trio.move_on_after(DEADLINE):
            while not (firing := await self.firing()) >= set(names):
                await meanwhile()
                await trio.sleep(0.3)
            return firing
        raise AssertionError(f"{names} do not fire, but {await self.firing()}")

    async def until_nothing_else_fires(
        self, *names: str, meanwhile: Callable[[], Awaitable[object]]
    ) -> None:
        """Wait until these fire alone; a minute is a second here, which any machine may lack."""
        with trio.move_on_after(DEADLINE):
            # What was not well for ten of these minutes follows from it.
            while await self.firing() - {"MexcTrioNotReady"} != set(names):
                await meanwhile()
                await trio.sleep(0.3)
            return
        raise AssertionError(f"{names} do not fire alone, but {await self.firing()}")

    async def until_quiet(self) -> None:
        """Wait until none fires."""
        with trio.move_on_after(DEADLINE):
            while await self.firing():
                await trio.sleep(0.3)
            return
        raise AssertionError(f"{await self.firing()} do not end")


def ours(alerts: set[str]) -> set[str]:
    """Return alerts without that on the disk's last hours: others use it, too."""
    return alerts - {"MexcTrioDiskFills"}


def hurried(rules: str) -> str:
    """Return alerts in which a minute is a second; a rate needs a few of those at the least."""
    seconds = {"m": 1, "h": 60}

    def shorter(match: re.Match[str]) -> str:
        short = int(match[2]) * seconds[match[3]]
        return f"{match[1]}{max(short, 5 if match[1] == '[' else 1)}s"

    return re.sub(r"(\[|for: )(\d+)([mh])\b", shorter, rules).replace("3600", "60")


@asynccontextmanager
async def watching(directory: Path, metrics: str) -> AsyncIterator[Prometheus]:
    """Run a Prometheus that scrapes one recorder."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("there is no prometheus")
    place = directory / "prometheus"
    place.mkdir()
    (place / "alerts.yml").write_text(hurried((INFRA / "prometheus" / "alerts.yml").read_text()))
    configuration = (INFRA / "prometheus" / "prometheus.yml").read_text()
    configuration = configuration.replace("15s", "1s").replace("recorder:9648", metrics)
    (place / "prometheus.yml").write_text(configuration)
    with (directory / "prometheus.log").open("w") as log:
        process = await trio.lowlevel.open_process(
            [
                program, "--config.file=prometheus.yml", "--web.listen-address=127.0.0.1:0",
                "--storage.tsdb.path=data",
            ],
            cwd=place, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        with trio.fail_after(DEADLINE):
            while not (port := listening(process.pid)):
                await trio.sleep(0.1)
        url = f"http://127.0.0.1:{port}"
        with trio.fail_after(DEADLINE):
            # It listens before it answers.
            while not await trio.to_thread.run_sync(is_ready, url):
                await trio.sleep(0.1)
        yield Prometheus(url)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


def is_ready(url: str) -> bool:
    """Return whether a Prometheus has read its data and answers questions."""
    try:
        with urlopen(f"{url}/-/ready", timeout=DEADLINE):  # noqa: S310 - our own
            return True
    except HTTPError:
        return False


def listening(pid: int) -> int | None:
    """Return the port that a process listens at; Prometheus does not log a port it has chosen."""
    for connection in psutil.Process(pid).net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN:
            return int(connection.laddr.port)
    return None


def scraped(program: Program) -> str:
    """Return the address of a recorder's metrics."""
    url = (program.directory / "mexc-data" / "metrics.url").read_text()
    return url.removeprefix("http://").removesuffix("/metrics\n")


@attrs.frozen
class Operator:
    """Whoever changes the recorder's settings."""

    directory: Path
    exchange: Exchange
    store: str

    def write(self, **more: object) -> None:
        """Write the settings file."""
        lines = {
            "url": self.exchange.url, "rest_url": self.exchange.rest and self.exchange.rest.url,
            "store": self.store, "symbols": f"{BTC} {ETH}", "ping_interval": 1,
            "min_free_mib": 1, "linger": 0.2, "max_errors": 1000, **more,
        }  # fmt: skip
        text = "".join(f"{key} = {value}\n" for key, value in lines.items())
        (self.directory / "settings.ini").write_text(f"[mexc-trio]\n{text}")

    async def reload(self, **more: object) -> None:
        """Write it, and have it read again."""
        self.write(**more)
        words = [sys.executable, "-m", "mexc_trio", "reload", "--config", "settings.ini"]
        await trio.run_process(words, cwd=self.directory, env=environment(), capture_stdout=True)

    async def fill_the_disk(self) -> None:
        """Leave less than twice of what is to be left free."""
        free = shutil.disk_usage(self.directory).free >> 20
        await self.reload(min_free_mib=free * 2 // 3)


async def test_the_alerts_that_fire_within_seconds(
    clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    """A real Prometheus sees a real recorder well, and four of its troubles, and no other.

    The dashboard's queries are asked of both. Six more alerts fire in the long day below; those on
    restarts, an old backlog, refused INSERTs and the disk's last hours only in promtool's tests.
    """
    store = Served(clickhouse_server)
    store.create("btc", "eth")
    async with open_exchange(rate=10.0, rest_port=0, contracts=[BTC, ETH]) as exchange:
        operator = Operator(tmp_path, exchange, store.url)
        operator.write()
        async with running(tmp_path) as program:
            await exchange.subscribed(BTC)
            await exchange.subscribed(ETH)
            await program.until((tmp_path / "mexc-data" / "metrics.url").exists)
            async with watching(tmp_path, scraped(program)) as prometheus:
                await prometheus.until(lambda found: len(found) == 1, "mexc_trio_ready == 1")
                await prometheus.until(lambda found: len(found) == 3, "mexc_trio_frames_total > 5")
                await prometheus.until_quiet()
                await every_query_of_the_dashboard_is_answered(prometheus, clickhouse_server)
                await operator.fill_the_disk()
                clickhouse_server.kill()
                told = {"MexcTrioDiskLow", "MexcTrioStoreAway"}
                await prometheus.until_firing(*told)
                # Again and again, because this one fires for fifteen seconds only.
                bad = '{"channel":"push.deal","symbol":"BTC_USDT","data":7}'
                told |= {"MexcTrioDeadLetters"}
                await prometheus.until_nothing_else_fires(
                    *told, meanwhile=lambda: exchange.send(BTC, bad)
                )
                clickhouse_server.start()
                assert await program.stop() == 0
                await prometheus.until_firing("MexcTrioDown")
                TALLY.fault("a minute's faults for Prometheus", 4)


@whole_day
@pytest.mark.timeout(600)
async def test_each_fault_of_a_day_fires_its_alerts_and_no_other(
    clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    """Faults of all kinds one after the other, on a scale of a minute to a second."""
    store = Served(clickhouse_server)
    store.create("btc", "eth")
    told: set[str] = set()

    async with open_exchange(rate=10.0, rest_port=0, contracts=[BTC, ETH]) as exchange:
        operator = Operator(tmp_path, exchange, store.url)
        operator.write()
        async with running(tmp_path) as program:
            await exchange.subscribed(BTC)
            await exchange.subscribed(ETH)
            await program.until((tmp_path / "mexc-data" / "metrics.url").exists)
            async with watching(tmp_path, scraped(program)) as prometheus:

                async def day(fault: str, *alerts: str) -> None:
                    """See that a fault fires its alerts."""
                    await prometheus.until_firing(*alerts)
                    TALLY.fault(fault)
                    told.update(alerts)

                # A calm morning.
                await trio.sleep(15)
                assert await prometheus.firing() == set()
                await every_query_of_the_dashboard_is_answered(prometheus, clickhouse_server)

                await exchange.send(BTC, '{"channel":"push.deal","symbol":"BTC_USDT","data":7}')
                await day("a message that cannot be read", "MexcTrioDeadLetters")
                await prometheus.until_quiet()

                clickhouse_server.kill()
                await day("a server that is away", "MexcTrioStoreAway", "MexcTrioNotReady")
                clickhouse_server.start()
                await prometheus.until_quiet()

                await operator.fill_the_disk()
                await day("a disk that is nearly full", "MexcTrioDiskLow")
                await operator.reload()
                await prometheus.until_quiet()

                await operator.reload(symbols=f"{BTC} {ETH} {NOPE}")
                await day("a symbol that does not exist", "MexcTrioSymbolStopped")
                await prometheus.until_firing("MexcTrioNotReady")
                await operator.reload()
                await prometheus.until_quiet()

                await exchange.stop_listening()
                await exchange.drop()
                await day("an exchange that is away", "MexcTrioNoData")
                await exchange.listen()
                await day("what that cost", "MexcTrioGaps")
                await exchange.until(lambda: exchange.connections >= 2)

                clock = exchange.market.clock
                exchange.market.clock = lambda: clock() - 90_000
                exchange.silence(BTC, "ticker")
                await day("a clock that is off", "MexcTrioClockOff")
                await day("a channel that is silent", "MexcTrioChannelSilent")

                assert await program.stop() == 0
                await day("a recorder that is down", "MexcTrioDown")
                fired = await prometheus.query(
                    'count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[1h]))'
                )
                assert ours({one["metric"]["alertname"] for one in fired}) == told
        # But for what the exchange had sent when it hung up, and the dead letter, which is not its.
        stored = [row for row in store.rows("btc") if row[1] != "dl"]
        sent = exchange.rows(BTC)
        assert set(stored) <= set(sent)
        assert len(sent) - 100 < len(stored) <= len(sent)
        TALLY.rows += len(stored)


async def every_query_of_the_dashboard_is_answered(
    prometheus: Prometheus, server: ClickHouseServer
) -> None:
    """Each panel of the dashboard shows something of a recorder that runs."""
    text = (INFRA / "grafana" / "dashboards" / "mexc-trio.json").read_text()
    targets = [one for panel in json.loads(text)["panels"] for one in panel.get("targets", ())]
    assert len(targets) > 20
    for target in targets:
        if sql := target.get("rawSql"):
            for macro, value in (
                (r"\$__timeFilter\((\w+)\)", r"\1 > now() - 3600"),
                (r"\$__interval_s", "10"),
                (r"FROM `\$table`", "FROM mexc_data.btc"),
                (r"FROM gaps", "FROM mexc_data.gaps"),
            ):
                sql = re.sub(macro, value, sql)
            rows = await trio.to_thread.run_sync(server.execute, sql)
            assert rows or "FROM mexc_data.gaps" in sql, sql
        else:
            expression = (
                target["expr"].replace("$__rate_interval", "10s").replace("$instance", ".*")
            )
            if expression.endswith((" > 0", " == 0")):
                # These are empty while all is well.
                await prometheus.query(expression)
            else:
                await prometheus.until(bool, expression)


async def test_a_thousand_scrapes_at_once_and_some_that_hang_cost_recording_nothing(
    tmp_path: Path,
) -> None:
    """Some are turned away; whoever asks afterwards is answered; every row is stored."""
    async with (
        open_exchange(rate=100.0) as exchange,
        running(tmp_path, BTC, "--url", exchange.url, "--linger", "0.2") as program,
    ):
        await exchange.subscribed(BTC)
        await program.until((tmp_path / "mexc-data" / "metrics.url").exists)
        host, port = scraped(program).split(":")
        outcomes: dict[bytes, int] = {}

        async def scrape(request: bytes) -> None:
            answer = b""
            try:
                async with await trio.open_tcp_stream(host, int(port)) as stream:
                    await stream.send_all(request)
                    async for piece in stream:
                        answer += piece
            except (trio.BrokenResourceError, OSError):
                pass
            status = answer[9:12]
            outcomes[status] = outcomes.get(status, 0) + 1

        whole = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
        began = time.monotonic()
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(scrape, whole if number % 20 else b"GET /metr")
        assert time.monotonic() - began < DEADLINE
        assert outcomes[b"200"] > 0
        assert sum(outcomes.values()) == 1000
        before = outcomes[b"200"]
        await scrape(whole)
        assert outcomes[b"200"] == before + 1
        exchange.silence()
        await program.journaled(len(exchange.rows(BTC)))
        assert await program.stop() == 0
        assert "Traceback" not in program.log
        assert "connection lost" not in program.log
    assert Embedded(tmp_path).rows("btc") == exchange.rows(BTC)
