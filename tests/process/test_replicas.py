"""Several hosts in --store: each row once on all replicas, whichever of them is away when."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path

import attrs
import pytest
import trio

from mexc_trio.cli.main import main
from mexc_trio.clickhouse import replicas
from mexc_trio.clickhouse.async_store import AsyncStore
from mexc_trio.clickhouse.tables import TableEngine, market_table
from mexc_trio.journal import Queue, open_journal
from mexc_trio.record.writer import Writer
from mexc_trio.rows import Gap
from tests.support.faults import TALLY, chance, compare, compare_gaps, repetitions
from tests.support.faults import recording as recording_of_all
from tests.support.replicas import (
    Pair,
    PairStore,
    needs_a_pair,
    needs_zookeeper,
    replica_config,
    replicated_pair,
    zookeeper,
)
from tests.support.running import DEADLINE
from tools.clickhouse import HOST, ClickHouseServer, free_port

BTC = market_table("btc", TableEngine.MERGETREE)


@pytest.fixture(scope="module")
def shared_pair() -> Iterator[Pair]:
    """Lend the module's pair."""
    with replicated_pair() as pair:
        yield pair


@pytest.fixture
def pair(shared_pair: Pair) -> Pair:
    """Lend the pair with an empty table, and both of its servers up."""
    first, second = shared_pair.servers
    second.execute("SYSTEM SYNC REPLICA mexc_data.btc")
    first.execute("TRUNCATE TABLE mexc_data.btc")
    return shared_pair


@attrs.define(eq=False)
class Recording:
    """A writer at work, with its queue."""

    queue: Queue
    async_store: AsyncStore
    store: PairStore
    lost: list[str]
    name: str
    """What its rows have and no other test's: a table knows again what it had before."""

    def receive(self, rows: int) -> None:
        """Put so many rows into the journal, no two of them equal."""
        first = self.queue.end
        self.queue.append([self.row(n) for n in range(first, first + rows)])

    def row(self, n: int) -> tuple[int, str, str]:
        """Return a row by its number."""
        return 1_700_000_000_000 + n, "d", f"{n}|{self.name}"

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds."""
        with trio.fail_after(DEADLINE):
            while not condition():
                await trio.sleep(0.02)

    async def written(self) -> None:
        """Wait until the store has acknowledged all."""
        await self.until(lambda: not self.queue.backlog)


@asynccontextmanager
async def recording(
    pair: Pair, directory: Path, *, quorum: bool = False
) -> AsyncIterator[Recording]:
    """Write what is received into the pair."""
    lost: list[str] = []
    with (
        closing(pair.store(quorum=quorum)) as store,
        open_journal(directory / "journal.sqlite") as journal,
    ):
        async_store, queue = AsyncStore(store), journal.queue("btc")

        def gap(cause: object, detail: str, start: int, end: int) -> None:
            lost.append(detail)

        writer = Writer(BTC, queue, async_store, 0.02, lambda rows: None, gap)
        async with trio.open_nursery() as nursery:
            for task in (
                async_store.keep_asking,
                async_store.scheduler.run,
                journal.keep_flushing,
                writer.run,
            ):
                nursery.start_soon(task)
            yield Recording(queue, async_store, store, lost, directory.name)
            nursery.cancel_scope.cancel()


async def whole(pair: Pair, now: Recording) -> None:
    """See that both replicas have each row once, under its number."""
    expected = [(n, *now.row(n)) for n in range(now.queue.end)]
    for server in (0, 1):

        def there(server: int = server) -> bool:
            return len(pair.rows(server)) >= len(expected)

        await now.until(there)
    for server in (0, 1):
        pair.servers[server].execute("SYSTEM SYNC REPLICA mexc_data.btc")
        assert pair.rows(server) == expected
    assert not now.lost
    TALLY.rows += 2 * len(expected)


@needs_a_pair
async def test_another_host_is_written_to_while_one_is_dead(pair: Pair, tmp_path: Path) -> None:
    """Recording into the tables goes on, and the dead one has all when it is back."""
    async with recording(pair, tmp_path) as now:
        for _ in range(5):
            now.receive(20)
            await now.written()
        pair.servers[1].execute("SYSTEM SYNC REPLICA mexc_data.btc")
        pair.servers[0].kill()
        TALLY.fault("replica killed")
        for _ in range(5):
            now.receive(20)
            await now.written()
        assert len(pair.rows(1)) == 200
        await trio.to_thread.run_sync(pair.revive, 0)
        await whole(pair, now)


@needs_a_pair
async def test_a_replica_that_lags_is_never_taken_for_one_that_lost_rows(
    pair: Pair, tmp_path: Path
) -> None:
    """What only the dead host has comes when it is back; until then nothing is appended again."""
    async with recording(pair, tmp_path) as now:
        now.receive(20)
        await now.written()
        pair.servers[1].pause()  # it fetches nothing from now on
        now.receive(30)
        await now.written()
        pair.servers[0].kill()
        TALLY.fault("replica killed that another had not caught up with")
        pair.servers[1].resume()
        now.receive(50)
        # What it lacks is seen, and not missing: some looks later nothing was written.
        looks = now.store.looks
        await now.until(lambda: now.store.looks > looks + 5)
        assert now.queue.backlog
        assert len(pair.rows(1)) < 50
        await trio.to_thread.run_sync(pair.revive, 0)
        await now.written()
        await whole(pair, now)


@needs_a_pair
async def test_with_a_quorum_rows_are_acknowledged_when_both_have_them(
    pair: Pair, tmp_path: Path
) -> None:
    """While one is dead they wait in the journal; nothing is uncertain afterwards."""
    async with recording(pair, tmp_path, quorum=True) as now:
        now.receive(20)
        await now.written()
        assert len(pair.rows(0)) == len(pair.rows(1)) == 20
        pair.servers[1].kill()
        TALLY.fault("replica of a quorum killed")
        now.receive(20)
        await now.until(lambda: now.async_store.away_since is not None)
        looks = now.store.looks
        await now.until(lambda: now.store.looks > looks + 5)
        assert now.queue.backlog  # whether or not the first has them: one is not enough
        await trio.to_thread.run_sync(pair.revive, 1)
        now.receive(20)
        await now.written()
        await whole(pair, now)


@needs_a_pair
async def test_keeper_may_be_lost(pair: Pair, tmp_path: Path) -> None:
    """Replicas are read-only without it: rows wait in the journal, and nothing is uncertain."""
    async with recording(pair, tmp_path) as now:
        now.receive(20)
        await now.written()
        pair.keeper.kill()
        TALLY.fault("ZooKeeper killed")
        now.receive(20)
        await now.until(lambda: now.async_store.away_since is not None)
        assert now.queue.backlog
        pair.keeper.start()
        now.receive(20)
        await now.written()
        await whole(pair, now)


@needs_a_pair
async def test_a_part_that_keeper_may_not_have_is_no_proof(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows can be read where they were sent, and the server removes them some minutes later.

    So they are not acknowledged: they go again to the other replica, and that they are twice where
    they were sent first ends with that part.
    """
    monkeypatch.setattr(replicas, "PATIENCE", 2.0)
    async with recording(pair, tmp_path) as now:
        now.receive(20)
        await now.written()
        pair.servers[1].kill()
        pair.way.armed.set()
        now.receive(20)
        assert await trio.to_thread.run_sync(pair.way.cut.wait, DEADLINE)
        TALLY.fault("ZooKeeper lost in the commit of an INSERT")
        await now.until(lambda: len(pair.all_rows(0)) == 40)
        pair.way.cut.clear()
        looks = now.store.looks
        await now.until(lambda: now.store.looks > looks + 5 or not now.queue.backlog)
        assert now.queue.backlog == 20
        await trio.to_thread.run_sync(pair.revive, 1)
        await now.written()
        await whole(pair, now)
        pair.servers[0].kill()
        await trio.to_thread.run_sync(pair.revive, 0)
        assert len(pair.all_rows(0)) == 40
        await whole(pair, now)


@needs_a_pair
async def test_faults_at_random(pair: Pair, tmp_path: Path) -> None:
    """Killed, frozen, without Keeper, one after another and in between: each row once on both."""
    instants = chance("replicas")
    async with recording(pair, tmp_path) as now:
        for _ in range(repetitions(4)):
            which = instants.randrange(2)
            server = pair.servers[which]
            fault = instants.choice(("killed", "frozen", "without Keeper"))
            now.receive(instants.randrange(1, 200))
            await trio.sleep(instants.uniform(0, 0.1))
            if fault == "killed":
                server.kill()
            elif fault == "frozen":
                server.pause()
            else:
                pair.keeper.kill()
            now.receive(instants.randrange(1, 200))
            await trio.sleep(instants.uniform(0, 2))
            if fault == "killed":
                await trio.to_thread.run_sync(pair.revive, which)
            elif fault == "frozen":
                server.resume()
            else:
                await trio.to_thread.run_sync(pair.keeper.start)
            now.receive(instants.randrange(1, 200))
            TALLY.fault(f"replica {fault}")
            if instants.random() < 0.7:
                await now.written()
        await now.written()
        await whole(pair, now)


@needs_a_pair
def test_a_whole_recorder_writes_each_row_once(pair: Pair, tmp_path: Path) -> None:
    """Through the death of each replica, its own and Keeper's; what it did not hear is in gaps."""
    module, half = "tests.support.old_recorder", ("--rate", "500")
    with recording_of_all(tmp_path, module=module, exchange=half) as (exchange, recorder):
        recorder.store = pair.url
        recorder.start()
        recorder.stores(100)
        for number in (1, 0):
            pair.servers[number].kill()
            if number:
                recorder.stores(300)  # the other one takes them
            else:
                recorder.says("is used now, in place of another replica")
            pair.revive(number)
            recorder.stores(300)
            recorder.catches_up()
            TALLY.fault("replica of a whole recorder killed")
        recorder.kill()
        recorder.start()
        recorder.stores(100)
        pair.keeper.kill()
        recorder.waits_for_store()
        pair.keeper.start()
        recorder.catches_up()
        recorder.stop()
        TALLY.fault("kill -9 of a recorder on replicas")
        TALLY.fault("ZooKeeper of a whole recorder killed")
        for server in (0, 1):
            pair.servers[server].execute("SYSTEM SYNC REPLICA mexc_data.btc")
            pair.servers[server].execute("SYSTEM SYNC REPLICA mexc_data.gaps")
            rows = pair.rows(server)
            assert [row[0] for row in rows] == list(range(len(rows)))
            found = compare(exchange.connections(), [row[1:] for row in rows])
            gaps = pair.servers[server].execute(
                "SELECT symbol, channel, `from`, `to`, cause, detail, version_before, "
                "version_after FROM mexc_data.gaps"
            )
            compare_gaps(found.segments, [Gap(*gap) for gap in gaps])


def test_hosts_that_are_no_replicas_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Two servers that know nothing of each other would have half of the rows each."""
    with ClickHouseServer() as first, ClickHouseServer() as second:
        url = f"{first.url.split('/mexc_data')[0]},{HOST}:{second.tcp_port}/mexc_data"
        arguments = ["setup", "BTC_USDT", "--store", url]
        assert main(arguments) == 1
        assert "No macro 'shard'" in capsys.readouterr().err
        for server in (first, second):
            server.execute(
                "CREATE TABLE mexc_data.btc (ts DateTime64(3), mt String, m String, n UInt64) "
                "ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 9"
            )
        assert main(arguments) == 1
        assert "of which each host would have rows of its own" in capsys.readouterr().err


def test_readers_take_the_host_that_answers(
    clickhouse_server: ClickHouseServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever only reads has an answer as long as one host lives."""
    port = f":{clickhouse_server.tcp_port}/"
    for hosts in (f"{port[:-1]},{HOST}:{free_port()}/", f":{free_port()},{HOST}{port}"):
        url = clickhouse_server.url.replace(port, hosts)
        assert main(["sql", "SELECT 6 * 7", "--store", url]) == 0
        assert "42" in capsys.readouterr().out


@needs_zookeeper
def test_a_current_server_takes_the_statements(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables and views are made on both hosts, and Keeper knows them as replicas of one table.

    The wheel's server stops there: it does not fetch from others, and so takes no rows.
    """
    with zookeeper() as keeper, ExitStack() as stack:
        servers = []
        for number in (1, 2):
            config_d = tmp_path / str(number)
            config_d.mkdir()
            (config_d / "replica.xml").write_text(replica_config(keeper.port, number))
            servers.append(stack.enter_context(ClickHouseServer(config_d=config_d)))
        first, second = servers
        url = f"{first.url.split('/mexc_data')[0]},{HOST}:{second.tcp_port}/mexc_data"
        assert main(["setup", "BTC_USDT", "--wide", "--store", url]) == 0
        assert "New in database mexc_data" in capsys.readouterr().out
        for server in servers:
            assert server.execute(
                "SELECT table, zookeeper_path, total_replicas FROM system.replicas ORDER BY table"
            ) == [(name, f"/clickhouse/tables/01/mexc_data/{name}", 2) for name in ("btc", "gaps")]
            assert server.execute("SELECT * FROM mexc_data.btc_deals") == []
        assert main(["setup", "BTC_USDT", "--store", url]) == 0
        assert "Nothing is new" in capsys.readouterr().out
