"""A table that is rewritten has the same rows in the same order, whatever dies on the way."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest
import trio
from clickhouse_driver import Client

from mexc_trio.clickhouse import compaction, repair, schema
from mexc_trio.clickhouse.async_store import AsyncStore
from mexc_trio.clickhouse.compaction import compact, copy_of
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.index_memory import WHILE_RUNNING
from mexc_trio.clickhouse.schema import Store
from mexc_trio.clickhouse.tables import Table, market_table
from mexc_trio.errors import (
    StoreError,
    StoreRejected,
    StoreUnavailable,
    TableConflict,
    TableDamaged,
    TableMissing,
)
from mexc_trio.journal import Journal, Queue, open_journal
from mexc_trio.record.rewriting import keep_rewriting
from mexc_trio.rows import RowTuple
from mexc_trio.settings import Settings
from tests.support.faults import TALLY, until
from tests.support.running import server_store
from tools.clickhouse import DATABASE, ClickHouseServer

if TYPE_CHECKING:
    from mexc_trio.record.recording import Recording

BTC = market_table("btc")
COPY = copy_of("btc")
STRANGE: RowTuple = (1, "d", "1|1|1")


@pytest.fixture(params=["embedded", "server"])
def store(request: pytest.FixtureRequest, kept_data: Path) -> Iterator[Store]:
    """Open either store with an empty table."""
    if request.param == "embedded":
        opened: Store = EmbeddedStore(kept_data)
    else:
        server: ClickHouseServer = request.getfixturevalue("clickhouse_server")
        for table in ("btc", COPY):
            server.execute(f"DROP TABLE IF EXISTS {DATABASE}.{table}")
        opened = server_store(server.url)
    with closing(opened):
        schema.prepare(opened, [BTC])
        yield opened


def fill(store: Store, inserts: int = 40) -> list[RowTuple]:
    """Append rows of which no two are equal, in INSERTs of one to seven; return them."""
    at = schema.count(store, "btc")
    made: list[RowTuple] = []
    for number in range(inserts):
        first = at + len(made)
        rows = [row(i) for i in range(first, first + 1 + number % 7)]
        store.append(BTC, rows)
        made += rows
    return made


def row(number: int) -> RowTuple:
    """Return a row like no other."""
    return 1_700_000_000_000 + number, "d", f"{number}|1|2"


def content(store: Store, table: Table = BTC) -> list[RowTuple]:
    """Return all rows in the order of insertion."""
    return repair.rows_at(store, table, 0, 1_000_000)


def blocks(store: Store) -> int:
    """Return in how many pieces the rows are stored."""
    return int(store.query(f"SELECT uniqExact(blockNumber()) FROM {DATABASE}.btc")[0][0])


class Died(StoreUnavailable):
    """Whoever compacted was killed, or the engine was."""


@attrs.define
class Mortal:
    """A store whose user dies after one of its statements."""

    real: Store
    last: int = 1000
    """Which statement; it is still done."""
    made: int = 0
    """How many it has made."""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement, if alive."""
        self.made += 1
        if self.made > self.last:
            raise Died("it died")
        answer = self.real.query(sql)
        if self.made == self.last:
            raise Died("it died")
        return answer

    def fingerprint(self, table: str) -> str:
        """Do as the store does."""
        return self.real.fingerprint(table)

    @property
    def name(self) -> str:
        """As the store's."""
        return self.real.name

    @property
    def database(self) -> str:
        """As the store's."""
        return self.real.database


@attrs.define
class Killer(Mortal):
    """Kills the engine together with its user."""

    server: ClickHouseServer = attrs.field(kw_only=True)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement, if alive."""
        try:
            return super().query(sql)
        except Died:
            self.server.kill()
            raise


@attrs.define
class Intruded(Mortal):
    """A table that gets a row from elsewhere at the moment of a statement."""

    statement: str = attrs.field(kw_only=True)
    came: bool = False

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement, and let the row in before it."""
        if sql.startswith(self.statement) and not self.came:
            self.came = True
            self.real.append(BTC, [STRANGE])
        return super().query(sql)


@attrs.define
class Careless(Mortal):
    """An engine that copies something else."""

    copies: str = attrs.field(kw_only=True)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement, or another one."""
        if sql.startswith("INSERT INTO"):
            sql = f"{sql.partition(' LIMIT ')[0]} {self.copies}"
        return super().query(sql)


class Limited(Mortal):
    """A user who may do much, but not have files synced."""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement, if he may."""
        if sql.startswith("SYSTEM SYNC"):
            raise StoreRejected("not enough privileges (ClickHouse error 497)")
        return super().query(sql)


def test_the_rows_stay_and_their_blocks_become_few(store: Store) -> None:
    """Also when it is done again, goes on growing, and with columns of somebody else's."""
    before = fill(store)
    assert blocks(store) == 40
    done = compact(store, "btc", 0)
    assert (done.rows, blocks(store)) == (len(before), 1)
    assert done.after < done.before
    assert content(store) == before
    after = before + fill(store, 3)
    assert content(store) == after
    assert blocks(store) == 4
    compact(store, "btc", 0)
    assert content(store) == after
    assert blocks(store) == 1
    assert not schema.engines(store, [COPY])


def test_blocks_are_of_a_size_that_a_reader_can_hold(store: Store) -> None:
    """Neither one for each INSERT nor one for all; and the order is that of the rows."""
    rows = [row(number) for number in range(300_000)]
    for first in range(0, len(rows), 30_000):
        store.append(BTC, rows[first : first + 30_000])
    compact(store, "btc", 0)
    assert 3 <= blocks(store) <= 5
    assert content(store) == rows


def test_an_empty_table_and_all_columns_of_an_old_one(store: Store) -> None:
    """What a table has beyond the columns that are recorded is copied, and compared, as well."""
    compact(store, "btc", 0)
    assert content(store) == []
    store.query(f"DROP TABLE {DATABASE}.btc")
    store.query(
        f"CREATE TABLE {DATABASE}.btc (extra UInt8, ts DateTime64(3), mt String, m String) "
        f"ENGINE = StripeLog"
    )
    for n in range(3):
        store.query(f"INSERT INTO {DATABASE}.btc VALUES ({n}, {n}, 'd', '{n}|1|1')")
    compact(store, "btc", 0)
    assert store.query(f"SELECT extra, mt, m FROM {DATABASE}.btc") == [
        (n, "d", f"{n}|1|1") for n in range(3)
    ]


def test_whoever_dies_at_any_statement_leaves_a_whole_table(store: Store) -> None:
    """At each one: under the table's name are all rows in order, and the next attempt succeeds."""
    rows = fill(store, 10)
    for last in itertools.count(1):
        mortal = Mortal(store, last)
        try:
            compact(mortal, "btc", 0)  # type: ignore[arg-type]
        except Died:
            pass
        else:
            break
        TALLY.fault("a compaction ended at one of its statements")
        assert content(store) == rows
        TALLY.rows += len(rows)
        rows += fill(store, 2)  # the recorder goes on meanwhile
        assert content(store) == rows
        if last % 3 == 0:
            compact(store, "btc", 0)
            assert content(store) == rows
    assert last > 15, "not at each of them"
    assert not schema.engines(store, [COPY])


def test_the_engine_is_killed_at_any_statement(tmp_path: Path) -> None:
    """It is started again with a whole table, the old one or the new."""
    with ClickHouseServer() as server, closing(server_store(server.url)) as store:
        schema.prepare(store, [BTC])
        rows = fill(store, 10)
        for last in range(6, 40, 3):
            try:
                compact(Killer(store, last, server=server), "btc", 0)  # type: ignore[arg-type]
            except Died:
                TALLY.fault("the engine killed in a compaction")
                server.start()
                with suppress(StoreUnavailable):  # one that has just answered is not asked first
                    store.query("SELECT 1")
            else:
                break
            assert content(store) == rows
            TALLY.rows += len(rows)
            rows += fill(store, 2)
        compact(store, "btc", 0)
        assert content(store) == rows


@pytest.mark.parametrize("statement", ["CREATE TABLE", "EXCHANGE"])
def test_rows_that_come_meanwhile_are_not_lost(store: Store, statement: str) -> None:
    """Somebody else who writes to the table is found: before the tables are exchanged, or after."""
    rows = fill(store, 5)
    with pytest.raises(TableConflict, match=r"table btc .* got rows while it was compacted"):
        compact(Intruded(store, statement=statement), "btc", 0)  # type: ignore[arg-type]
    assert content(store) == [*rows, STRANGE]


def test_a_reader_in_the_middle_reads_on(kept_data: Path) -> None:
    """What he began to read is the table as it was, to its end."""
    with closing(EmbeddedStore(kept_data)) as store:
        schema.prepare(store, [BTC])
        rows = fill(store, 60)
        sql = f"SELECT m, sleepEachRow(0.002) FROM {DATABASE}.btc"
        sql += " SETTINGS max_threads = 1, max_block_size = 1"
        who = store.target
        with Client(who.host, who.port, user=who.user, password=who.password) as client:
            reading = client.execute_iter(sql)
            read = [next(reading)]
            compact(store, "btc", 0)
            assert content(store) == rows
            read += reading
        assert [text for text, _ in read] == [text for _, _, text in rows]


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    """In one line that says so; nothing of it is touched."""
    with closing(EmbeddedStore(tmp_path / "store")) as store:
        schema.prepare(store, [BTC])
        fill(store)
        data = tmp_path / "store" / "data" / DATABASE / "btc" / "data.bin"
        with data.open("r+b") as file:
            file.seek(data.stat().st_size - 40)
            file.write(bytes(40))
        before = data.read_bytes()
        with pytest.raises(TableDamaged, match="table btc cannot be read in full, and is not comp"):
            compact(store, "btc", 0)
        assert data.read_bytes() == before
        assert not schema.engines(store, [COPY])


def test_a_copy_that_is_not_the_same_is_thrown_away(store: Store) -> None:
    """Whatever went wrong with it: another order, another row, one too few."""
    rows = fill(store)
    for copies in ("ORDER BY m DESC", "LIMIT 20", "WHERE 0"):
        with pytest.raises(StoreRejected, match="is not what was copied; the table stays as it is"):
            compact(Careless(store, copies=copies), "btc", 0)  # type: ignore[arg-type]
        assert content(store) == rows
        assert not schema.engines(store, [COPY])


def test_a_disk_that_is_too_full_is_refused_before_anything_is_written(store: Store) -> None:
    """And the line says how much it takes and what there is."""
    rows = fill(store)
    with pytest.raises(StoreRejected, match=r"not compacted: its copy may take .* kB, and "):
        compact(store, "btc", 2**50)
    assert content(store) == rows
    assert not schema.engines(store, [COPY])


def test_what_cannot_be_compacted_is_told(store: Store) -> None:
    """A table of another engine, one that is not there, and a name that somebody else has taken."""
    with pytest.raises(TableMissing, match="has no table nothing"):
        compact(store, "nothing", 0)
    store.query(f"CREATE TABLE {DATABASE}.other AS {DATABASE}.btc ENGINE = Memory")
    try:
        with pytest.raises(StoreRejected, match="table other is a Memory; only a StripeLog"):
            compact(store, "other", 0)
    finally:
        store.query(f"DROP TABLE {DATABASE}.other")
    rows = fill(store, 3)
    store.query(f"CREATE TABLE {DATABASE}.{COPY} AS {DATABASE}.btc")
    for _ in range(2):
        store.query(f"INSERT INTO {DATABASE}.{COPY} SELECT * FROM {DATABASE}.btc")
    with pytest.raises(StoreRejected, match="btc_compacting has more rows than btc, so no comp"):
        compact(store, "btc", 0)
    # On a server, nothing but a compaction cares for the order of an INSERT's rows.
    assert sorted(content(store, market_table(COPY))) == sorted(rows * 2)
    store.query(f"DROP TABLE {DATABASE}.{COPY}")


def test_only_an_atomic_database_exchanges_tables(clickhouse_server: ClickHouseServer) -> None:
    """In others a table could be gone for a moment, or for good."""
    clickhouse_server.execute("CREATE DATABASE IF NOT EXISTS plain ENGINE = Memory")
    url = clickhouse_server.url.replace(f"/{DATABASE}?", "/plain?")
    with closing(server_store(url)) as store:
        store.query("CREATE TABLE plain.btc (ts DateTime64(3), mt String, m String) ENGINE = Log")
        with pytest.raises(StoreError, match="only a StripeLog"):
            compact(store, "btc", 0)
        store.query("DROP TABLE plain.btc")
        store.query(
            "CREATE TABLE plain.btc (ts DateTime64(3), mt String, m String) ENGINE = StripeLog"
        )
        with pytest.raises(StoreRejected, match="database plain is Memory; only in an Atomic one"):
            compact(store, "btc", 0)
    clickhouse_server.execute("DROP DATABASE plain")


@attrs.define
class Noted(Mortal):
    """Notes the order in which things are done."""

    order: list[str] = attrs.field(factory=list)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Note the words with which a statement begins, and run it."""
        self.order.append(" ".join(sql.split()[:2]))
        return super().query(sql)

    def fingerprint(self, table: str) -> str:
        """Note whose files are synced, if they can be."""
        if fingerprint := super().fingerprint(table):
            self.order.append(f"synced {table}")
        return fingerprint


def test_the_new_table_is_on_the_disk_before_it_takes_the_name(store: Store) -> None:
    """After a power loss, what was only in the machine's memory would be gone, and the old too."""
    fill(store, 5)
    noted = Noted(store)
    compact(noted, "btc", 0)  # type: ignore[arg-type]
    synced = f"synced {COPY}" if isinstance(store, EmbeddedStore) else "SYSTEM SYNC"
    steps = ["CREATE TABLE", "INSERT INTO", synced, "EXCHANGE TABLES", "DROP TABLE"]
    assert [one for one in noted.order if one in steps] == steps


def test_a_user_without_the_right_to_sync_is_told_what_he_lacks(store: Store) -> None:
    """Without the new table on the disk the old one must not go."""
    if isinstance(store, EmbeddedStore):
        pytest.skip("its files are synced here")
    rows = fill(store, 5)
    with pytest.raises(StoreRejected, match="GRANT SYSTEM SYNC FILE CACHE"):
        compact(Limited(store), "btc", 0)  # type: ignore[arg-type]
    assert content(store) == rows


def test_tables_beside_a_symbols_are_known_by_their_names() -> None:
    """So that reports, backups and verify do not take them for symbols' tables."""
    beside: Sequence[str] = (COPY, "btc_damaged_20261121_101112", "eth_repaired_20261121_101112")
    assert all(map(compaction.is_leftover, beside))
    assert not any(map(compaction.is_leftover, ("btc", "btc_usd", "compacting", "damaged_btc")))


@attrs.define
class Collected:
    """A symbol, as far as it is looked at."""

    queue: Queue
    symbol: str = "BTC_USDT"


@attrs.define
class Parts:
    """A recording, as far as it is looked at."""

    journal: Journal
    store: AsyncStore
    collectors: list[Collected]
    settings: Settings = attrs.field(factory=lambda: Settings(compact_mib=1, min_free_mib=0))
    backlog: int = 0


async def test_tables_are_rewritten_by_themselves(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When INSERTs take more memory than they may; those of earlier runs are known by the store.

    What a compaction that died has left beside the table goes at the first look.
    """
    monkeypatch.setattr("mexc_trio.record.rewriting.POLL", 0.05)
    monkeypatch.setattr("mexc_trio.record.rewriting.INTERVAL", 0.1)
    rows = fill(store)
    store.query(f"CREATE TABLE {DATABASE}.{COPY} AS {DATABASE}.btc")
    with open_journal(tmp_path / "journal.sqlite") as journal:
        queue = journal.queue("btc")
        queue.move_head(0, len(rows))
        parts = Parts(journal, AsyncStore(store), [Collected(queue)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_rewriting, cast("Recording", parts))
            queue.verified = True
            await until("it is looked at", lambda: queue.inserts >= 38)
            assert blocks(store) == 40
            await until("what is left goes", lambda: not schema.engines(store, [COPY]))
            queue.inserts += 2**20 // WHILE_RUNNING
            await until("it is rewritten", lambda: queue.inserts == 0)
            nursery.cancel_scope.cancel()
    assert blocks(store) == 1
    assert content(store) == rows
