"""A real recorder tells a real command what somebody should know."""

import json
import signal
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.support.running import BTC, Embedded, Program, Served, running
from tools.clickhouse import ClickHouseServer
from tools.exchange import open_exchange

KEEP = "sh -c 'cat >> told'"


@attrs.frozen
class Told:
    """What such a command has kept."""

    directory: Path

    def events(self) -> list[dict[str, Any]]:
        """Return it."""
        file = self.directory / "told"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    async def until(self, program: Program, event: str) -> dict[str, Any]:
        """Wait for an event of a kind."""
        await program.until(lambda: any(one["event"] == event for one in self.events()))
        return next(one for one in self.events() if one["event"] == event)


async def test_an_outage_of_each_kind_and_the_end(
    clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    """The exchange away, the server away, a stop: who is called learns what and whom."""
    store, told = Served(clickhouse_server), Told(tmp_path)
    store.create("btc")
    async with open_exchange(rate=20.0) as exchange:
        words = ("--store", store.url, "--on-event", KEEP, "--event-after", "1", "--linger", "0.1")
        async with running(tmp_path, BTC, "--url", exchange.url, *words) as program:
            await exchange.subscribed(BTC)
            await program.acknowledged(10)
            await exchange.stop_listening()
            await exchange.drop()
            gap = await told.until(program, "gap")
            assert (gap["symbols"], gap["over"]) == ([BTC], False)
            clickhouse_server.kill()
            await exchange.listen()
            away = await told.until(program, "store away")
            assert away["symbols"] == []
            assert "does not answer" in away["detail"]
            clickhouse_server.start()
            assert await program.stop(signal.SIGTERM) == 0
    last = told.events()[-1]
    assert (last["event"], last["detail"]) == ("stopped", "it was stopped")
    assert "--on-event" not in program.log.split("settings:")[-1].split("\n", 1)[1]


@pytest.mark.parametrize("command", ["sleep 1000", "sh -c 'yes >&2'", "sh -c 'exit 3'"])
async def test_a_command_that_hangs_floods_or_fails_costs_one_warning(
    tmp_path: Path, command: str
) -> None:
    """Every row is stored all the same, and the program ends in time."""
    async with open_exchange(rate=50.0) as exchange:
        words = ("--on-event", command, "--event-after", "0", "--linger", "0.1")
        # The last command, too, is waited for.
        shorter = {"mexc_trio.metrics.events.LAST": 1.0}
        async with running(
            tmp_path, BTC, "--url", exchange.url, *words, constants=shorter
        ) as program:
            await exchange.subscribed(BTC)
            await program.journaled(200)
            exchange.silence()
            await program.journaled(len(exchange.rows(BTC)))
            assert await program.stop() == 0
        assert "Traceback" not in program.log
        assert program.log.count("WARN  --on-event") == 1
    assert Embedded(tmp_path).rows("btc") == exchange.rows(BTC)
