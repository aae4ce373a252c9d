"""Symbols that come while recording: when their table is to be had, and when it is not."""

import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing

from mexc_trio.errors import StoreLocked, StoreRejected
from mexc_trio.locks import TableLocks
from mexc_trio.record import reload
from mexc_trio.record.collector import Collector
from mexc_trio.record.discovery import Discovery, ListingChange
from mexc_trio.record.groups import Groups
from mexc_trio.record.listings import follow_listings
from mexc_trio.record.opening import open_recording
from mexc_trio.record.recording import Recording
from mexc_trio.record.reload import ANSWER, SettingsFile, follow_settings
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget
from tests.support.running import DEADLINE

NEW, OTHER = "NEW_USDT", "OTHER_USDT"


class Changes:
    """Stands in for a discovery: tells of one change after the other, then of none."""

    def __init__(self, *changes: ListingChange) -> None:
        self.changes = list(changes)
        self.forgotten: list[str] = []
        self.told = trio.Event()

    async def change(self) -> ListingChange:
        """Stand in for Discovery.change."""
        if not self.changes:
            self.told.set()
            await trio.sleep_forever()
        return self.changes.pop(0)

    def forget(self, symbol: str) -> None:
        """Stand in for Discovery.forget."""
        self.forgotten.append(symbol)


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recording]:
    """Open a recording of BTC_USDT whose store is never asked."""

    class Silent:
        name, database, concurrency = "nowhere", "mexc_data", 1
        replicated, hosts, quorum, one_thread = False, (), 0, False

        def query(self, sql: str) -> list[tuple[str, ...]]:
            """Answer as an empty server of today."""
            if "foreign" in sql:
                raise StoreRejected("table foreign has no column ts: it is not one of ours")
            return [("26.9.1.1",)] if "version()" in sql else []

        def close(self) -> None:
            """Do nothing."""

    monkeypatch.setattr("mexc_trio.record.opening.open_store", lambda *_, **__: Silent())
    monkeypatch.setattr("mexc_trio.record.opening._make_ready", lambda *_, **__: None)
    settings = Settings(
        store=EmbeddedTarget(tmp_path),
        overrides={"CLASH_USDT": {"table": "btc"}},
    )
    level = logging.root.level  # which settings that are read again may change
    with open_recording(settings, ["BTC_USDT"]) as opened:
        yield opened
    logging.root.setLevel(level)


async def follow_to_the_end(
    recording: Recording, *changes: ListingChange
) -> tuple[Changes, list[str]]:
    """Follow some changes; return what was done about them."""
    source = Changes(*changes)
    begun: list[str] = []

    def begin(collectors: Sequence[Collector]) -> None:
        begun.extend(collector.symbol for collector in collectors)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow_listings, recording, cast("Discovery", source), begin)
        with trio.fail_after(DEADLINE):
            await source.told.wait()
        nursery.cancel_scope.cancel()
    return source, begun


async def test_new_symbols_begin(recording: Recording) -> None:
    """Each with a collector, a table of its own, and the gap since the list before."""
    source, begun = await follow_to_the_end(recording, ListingChange((NEW, OTHER), (), since=7))
    assert begun == [NEW, OTHER]
    assert [one.settings.table for one in recording.collectors] == ["btc", "new", "other"]
    assert source.forgotten == []


async def test_table_with_rows_of_an_earlier_run_is_waited_for(recording: Recording) -> None:
    """Two writers of one table would store rows twice; the symbol comes with a later list."""
    leftover = recording.journal.queue("new")
    recording.leftovers.append(leftover)
    source, begun = await follow_to_the_end(recording, ListingChange((NEW, OTHER), ()))
    assert (begun, source.forgotten) == ([OTHER], [NEW])
    recording.leftovers.remove(leftover)
    _, begun = await follow_to_the_end(recording, ListingChange((NEW,), ()))
    assert begun == [NEW]


async def test_table_that_is_not_to_be_had(
    recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log for a table of another symbol or recorder; the others begin."""

    class Locks(TableLocks):
        def hold(self, tables: Sequence[str]) -> None:
            if "new" in tables:
                raise StoreLocked("table new is being recorded by process 7")

    recording.locks = Locks("nowhere", [], -1)
    long = "X" * 200 + "_USDT"
    change = ListingChange(("CLASH_USDT", "FOREIGN_USDT", long, NEW, OTHER), ())
    _, begun = await follow_to_the_end(recording, change)
    assert begun == [OTHER]
    assert [one.symbol for one in recording.collectors] == ["BTC_USDT", OTHER]
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    clash, foreign, longest, held = errors
    assert clash == (
        "CLASH_USDT: is listed, and cannot be recorded: "
        "BTC_USDT and CLASH_USDT would share the name 'btc'"
    )
    assert foreign == (
        "FOREIGN_USDT: is listed, and cannot be recorded: "
        "table foreign has no column ts: it is not one of ours"
    )
    assert "a name of 205 letters, too long for a table" in longest
    assert held == (
        "NEW_USDT: is listed, and cannot be recorded: table new is being recorded by process 7"
    )


async def test_symbol_that_is_back_goes_on_where_it_was(recording: Recording) -> None:
    """After its old nursery has ended, as is wanted then; with its queue, ledger and counts."""
    (before,) = recording.collectors
    before.counts.skipped = 3
    before.let_go("it is gone")
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def end() -> None:
            await trio.testing.wait_all_tasks_blocked()
            assert recording.collectors == [before]
            recording.settings = attrs.evolve(recording.settings, linger=7.0)
            before.ended.set()

        _, begun = await follow_to_the_end(recording, ListingChange(("BTC_USDT",), ()))
    assert begun == ["BTC_USDT"]
    (after,) = recording.collectors
    assert after is not before
    assert (after.queue, after.ledger, after.counts) == (before.queue, before.ledger, before.counts)
    assert (after.stopped, after.failure, after.settings.linger) == (False, None, 7.0)


async def test_symbol_that_is_back_takes_its_own_place(recording: Recording) -> None:
    """Also if another one is taken back while its end is waited for."""
    (before,) = recording.collectors
    first = await recording.add(NEW)
    recording.collectors.sort(key=lambda one: one is not first)
    before.let_go("it is gone")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recording.add, "BTC_USDT")
        await trio.testing.wait_all_tasks_blocked()
        recording.withdraw(first)
        await recording.add(OTHER)
        before.ended.set()
    assert [one.symbol for one in recording.collectors] == ["BTC_USDT", OTHER]
    assert before not in recording.collectors


async def test_a_symbol_that_breaks_the_program_is_taken_in_later(recording: Recording) -> None:
    """Those before it begin; it and those after it come with a later list."""
    source = Changes(ListingChange((NEW, "BAD_USDT", OTHER), ()))
    begun: list[str] = []

    class Locks(TableLocks):
        def hold(self, tables: Sequence[str]) -> None:
            if "bad" in tables:
                raise ZeroDivisionError

    recording.locks = Locks("nowhere", [], -1)

    def begin(collectors: Sequence[Collector]) -> None:
        begun.extend(collector.symbol for collector in collectors)

    with pytest.raises(ZeroDivisionError):
        await follow_listings(recording, cast("Discovery", source), begin)
    assert (begun, source.forgotten) == ([NEW], ["BAD_USDT", OTHER])


# And as the settings file says, which may be read again.


class Reloads:
    """A settings file that is read again, and what that did."""

    def __init__(self, recording: Recording, nursery: trio.Nursery) -> None:
        self.recording = recording
        self.wanted = recording.settings
        self.begun: list[str] = []
        self.file = SettingsFile(Path("settings.ini"), lambda: self.wanted)
        begun = self.begun

        class Begun(Groups):
            """Connects nobody."""

            def begin(self, collectors: Sequence[Collector]) -> None:
                begun.extend(collector.symbol for collector in collectors)

            def make_views(self, collectors: Sequence[Collector]) -> None:
                pass

        nursery.start_soon(follow_settings, recording, None, self.file, Begun(recording, nursery))

    async def read(self, **changes: Any) -> str:
        """Change the file and have it read; return what is said about it."""
        before = self.recording.journal.file.fact(ANSWER)
        self.wanted = attrs.evolve(self.wanted, config=Path("settings.ini"), **changes)
        self.file.ask()
        with trio.fail_after(DEADLINE):
            while self.recording.journal.file.fact(ANSWER) == before:
                await trio.sleep(0.001)
        return self.recording.journal.file.fact(ANSWER).split(" ", 1)[1]


async def test_limits_change_while_the_table_and_what_needs_a_restart_stay(
    recording: Recording, nursery: trio.Nursery
) -> None:
    """What takes effect is what the recorder shows from then on."""
    reloads = Reloads(recording, nursery)
    said = await reloads.read(
        symbols=("BTC_USDT",), max_errors=7, retention=1.5, min_free_mib=3, ping_interval=9.0,
        overrides={"BTC_USDT": {"table": "other", "linger": 0.25}},
    )  # fmt: skip
    assert said == (
        "ok max_errors = 7; min_free_mib = 3; retention = 1.5; own settings of BTC_USDT "
        "CLASH_USDT; ping_interval, table of BTC_USDT takes a restart"
    )
    (btc,) = recording.collectors
    assert (btc.settings.max_errors, btc.settings.linger, btc.settings.table) == (7, 0.25, "btc")
    assert recording.journal.retention == 1.5
    assert recording.settings.min_free == 3 * 2**20
    assert recording.settings.ping_interval == 15.0


async def test_a_settings_file_that_does_not_end_is_not_waited_for(
    recording: Recording, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe in its place, or a disk that hangs, keeps nobody from stopping or reading it later."""
    reloads, hangs = Reloads(recording, nursery), threading.Event()
    answered = reloads.file.read

    def hang() -> Settings:
        hangs.wait()
        return answered()

    reloads.file.read = hang
    with monkeypatch.context() as patched:
        patched.setattr(reload, "PATIENCE", 0.05)
        for _ in range(3):  # the second one finds the first still reading
            said = await reloads.read()
            assert said == "error settings.ini cannot be read within 0.05 s; nothing is changed"
    hangs.set()
    assert await reloads.read(symbols=("BTC_USDT",), max_errors=7) == "ok max_errors = 7"
    hangs.clear()
    reloads.file.ask()
    await trio.testing.wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()
    hangs.set()


async def test_symbols_that_cannot_all_come_do_not_come_at_all(
    recording: Recording, nursery: trio.Nursery
) -> None:
    """Half a change would be one that nobody has written down."""
    reloads = Reloads(recording, nursery)
    said = await reloads.read(symbols=("BTC_USDT", NEW, "FOREIGN_USDT"), max_errors=7)
    assert said.startswith("error table foreign has no column ts")
    assert said.endswith("; nothing is changed")
    assert [one.symbol for one in recording.collectors] == ["BTC_USDT"]
    assert recording.settings.max_errors == 100
    recording.leftovers.append(recording.journal.queue("new"))
    assert "rows of an earlier run" in await reloads.read(symbols=("BTC_USDT", NEW))
    recording.leftovers.clear()
    assert await reloads.read(symbols=("BTC_USDT", NEW)) == f"ok recording {NEW}; max_errors = 7"
    assert reloads.begun == [NEW]


async def test_a_symbol_that_was_stopped_begins_again(
    recording: Recording, nursery: trio.Nursery
) -> None:
    """Whoever has removed the cause needs no restart of all the others."""
    reloads = Reloads(recording, nursery)
    await reloads.read(symbols=("BTC_USDT", NEW))
    stopped = recording.collectors[1]
    stopped.stop(StoreRejected("no such table"))
    stopped.ended.set()
    assert await reloads.read() == f"ok recording {NEW}"
    assert recording.collectors[1] is not stopped
    assert not recording.collectors[1].stopped
