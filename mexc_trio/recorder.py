"""All symbols together: what starts, what runs beside them, and how it ends.

The order of the end is the point. A signal cancels the symbols' nurseries; each writer, on its way
out, writes what is left of its queue, for a bounded time; then the gaps ledger's writer does the
same; then the services stop. What could not be written is in the journal, and the next run writes
it.
"""

import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import attrs
import trio
from trio_util import periodic

from mexc_trio.collector import Collector
from mexc_trio.connection import Connection
from mexc_trio.errors import (
    DiskFull,
    JournalError,
    StoreError,
    StoreUnavailable,
    leaves,
)
from mexc_trio.gaps import Cause, Ledger
from mexc_trio.journal import Journal, Queue, open_journal
from mexc_trio.locks import hold_tables
from mexc_trio.rows import Gap
from mexc_trio.settings import EmbeddedTarget, Settings
from mexc_trio.stats import Counts, Line, duration, final_report, interval_report
from mexc_trio.store import open_store
from mexc_trio.store.gate import Gate
from mexc_trio.store.schema import GAPS, market_table, prepare
from mexc_trio.writer import Writer

log = logging.getLogger(__name__)

PURGE_INTERVAL: Final = 10.0
DISK_INTERVAL: Final = 2.0
OUTAGE_REPORT_INTERVAL: Final = 60.0
INTERRUPTED: Final = 130

# The journal's note of how the last run ended.
_END: Final = "end"
_RUNNING: Final = "running"


@attrs.define(eq=False)
class Recording:
    """The parts of a recorder that is running."""

    settings: Settings
    journal: Journal
    gate: Gate
    collectors: list[Collector]
    gaps: Queue
    leftovers: list[Queue]
    """Queues with rows of earlier runs whose tables are not recorded in this one."""
    began: float = attrs.field(factory=time.monotonic)

    def lines(self, before: Sequence[Counts] | None = None) -> list[Line]:
        """Return what the statistics say of each symbol, since `before` or in all."""
        now = time.time()
        lines: list[Line] = []
        for number, collector in enumerate(self.collectors):
            oldest = collector.queue.oldest_waiting()
            counts = collector.counts
            lines.append(
                Line(
                    collector.symbol,
                    collector.settings.table,
                    counts.since(before[number]) if before else counts,
                    collector.queue.backlog,
                    max(0.0, now - oldest / 1000) if oldest else 0.0,
                    collector.ledger.written,
                )
            )
        return lines

    def backlog(self) -> int:
        """Return how many rows wait in the journal, of all tables."""
        return sum(queue.backlog for queue in self.journal.queues())


async def record(settings: Settings, symbols: tuple[str, ...]) -> int:
    """Record until stopped; return the exit code.

    Raises:
        MexcTrioError: it could not be started, or the disk or the journal gave out.
    """
    log.info("settings: %s", "; ".join(settings.describe()))
    with ExitStack() as stack:
        recording = _open(stack, settings, symbols)
        end = "it was stopped"
        try:
            await _run(recording)
        except BaseException as error:
            full = any(isinstance(leaf, DiskFull) for leaf in leaves(error))
            end = Cause.DISK_FULL if full else f"it failed: {leaves(error)[0]}"
            raise
        finally:
            _say_good_bye(recording)
            with suppress(JournalError):  # if it is the journal that failed, it has been said
                recording.journal.remember(_END, end)
        return 1 if any(c.failure for c in recording.collectors) else 0


async def drain(settings: Settings) -> int:
    """Write what earlier runs left in the journal, without recording; return the exit code.

    Raises:
        MexcTrioError: it could not be started, or the store refuses the rows.
    """
    with ExitStack() as stack:
        recording = _open(stack, settings, ())
        left = recording.backlog()
        if not left:
            log.info("nothing waits in %s", recording.journal.path)
            return 0
        async with _stoppable(recording) as running, _services(recording):
            with running:
                async with trio.open_nursery() as nursery:
                    for queue in recording.leftovers:
                        nursery.start_soon(_writer(recording, queue).until_empty)
        rest = recording.backlog()
        log.info("%d rows written to %s, %d wait", left - rest, recording.gate.name, rest)
        return 1 if rest else 0


def journal_path(settings: Settings) -> Path:
    """Return the journal's file: one for each store, so a directory may serve several."""
    if isinstance(settings.store, EmbeddedTarget):
        name = "journal.sqlite"
    else:
        parts = [settings.store.host, str(settings.store.port), settings.store.database]
        name = f"journal-{'-'.join(parts)}.sqlite".replace("/", "_").replace(":", "_")
    return settings.state_directory / name


def _open(stack: ExitStack, settings: Settings, symbols: Sequence[str]) -> Recording:
    """Open journal and store and make ready all that is recorded."""
    chosen = [settings.for_symbol(symbol) for symbol in symbols]
    path = journal_path(settings)
    # Before the journal: when the directory is refused, nothing is to be left in it.
    store = open_store(settings)
    stack.callback(store.close)
    known = path.exists()
    tables = [*(market_table(symbol.table) for symbol in chosen), GAPS]
    try:
        prepare(store, tables)
    except StoreUnavailable as error:
        # A store that was written to before may be away. One that was never reached may be a
        # misspelt host or a wrong password, which nobody wants to learn days later.
        if not known:
            raise StoreError(
                f"{error}. At the first start the store must answer; check --store"
            ) from error
        log.warning("%s; recording goes on into the journal", error)
    if not isinstance(settings.store, EmbeddedTarget):
        stack.enter_context(
            hold_tables(settings.store.identity, [symbol.table for symbol in chosen])
        )
    journal = stack.enter_context(open_journal(path, retention=settings.retention))
    if journal.damaged:
        log.error("the journal was damaged and is kept as %s; a new one is begun", journal.damaged)
    gaps = journal.queue(GAPS.name)
    gate = Gate(store)
    collectors = [
        Collector(s, queue := journal.queue(s.table), Ledger(s.symbol, queue, gaps), gate)
        for s in chosen
    ]
    recorded = {GAPS.name, *(symbol.table for symbol in chosen)}
    leftovers = [
        q for q in journal.queues() if q.backlog and (q.name not in recorded or not chosen)
    ]
    for queue in journal.queues():
        if queue.backlog:
            log.info(
                "table %s: %d rows of an earlier run will be written", queue.name, queue.backlog
            )
    return Recording(settings, journal, gate, collectors, gaps, leftovers)


async def _run(recording: Recording) -> None:
    settings = recording.settings
    _open_holes(recording)
    size = settings.symbols_per_connection
    collectors = recording.collectors
    async with _stoppable(recording) as running, _services(recording) as services:
        services.start_soon(_print_statistics, recording)
        for queue in recording.leftovers:
            services.start_soon(_writer(recording, queue).run)
        if settings.duration is not None:
            running.deadline = trio.current_time() + settings.duration
        with running:
            async with trio.open_nursery() as nursery:
                for first in range(0, len(collectors), size):
                    group = collectors[first : first + size]
                    nursery.start_soon(_record_group, settings, group)


async def _record_group(settings: Settings, collectors: Sequence[Collector]) -> None:
    """Be the nursery of the symbols on one connection."""
    connection = Connection(settings.url, collectors, settings.ping_interval)
    if len(collectors) == 1:
        await collectors[0].run(connection.run)
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        async with trio.open_nursery() as symbols:
            for collector in collectors:
                symbols.start_soon(collector.run)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _stoppable(recording: Recording) -> AsyncIterator[trio.CancelScope]:
    """Make a scope that SIGINT or SIGTERM cancels; a second one ends the process."""
    running = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        await nursery.start(_stop_on_signal, running, recording)
        yield running
        nursery.cancel_scope.cancel()


async def _stop_on_signal(
    running: trio.CancelScope,
    recording: Recording,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    # Not KeyboardInterrupt, which leaves nurseries as a nested group and strikes anywhere.
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            if not running.cancel_called:
                log.info("%s: writing what is left", signal.Signals(number).name)
                running.cancel()
                continue
            # An INSERT in a thread cannot be cancelled, so there is nothing gentler. Nothing is
            # lost: what was received is in the journal, as after any kill.
            recording.journal.flush()
            log.warning(
                "second signal: not waiting; the next run writes up to %d rows from the journal",
                recording.backlog(),
            )
            sys.stdout.flush()
            os._exit(INTERRUPTED)


@asynccontextmanager
async def _services(recording: Recording) -> AsyncIterator[trio.Nursery]:
    """Run what all symbols need, and the ledger's writer, which ends after theirs."""
    journal, gate = recording.journal, recording.gate
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.keep_flushing)
        if recording.settings.journal_sync:
            nursery.start_soon(journal.keep_syncing)
        nursery.start_soon(gate.keep_asking)
        nursery.start_soon(_every, PURGE_INTERVAL, journal.purge)
        nursery.start_soon(_every, DISK_INTERVAL, lambda: _look_at_disk(recording))
        nursery.start_soon(_report_outages, recording)
        async with trio.open_nursery() as later:
            later.start_soon(_writer(recording, recording.gaps).run)
            yield later
            later.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


def _writer(recording: Recording, queue: Queue) -> Writer:
    """Return a writer for a table that no symbol of this run has: the ledger, or a leftover."""
    table = GAPS if queue.name == GAPS.name else market_table(queue.name)

    def hole(cause: Cause, detail: str, start: int, end: int) -> None:
        recording.gaps.append([Gap(queue.name, "all", start, max(start, end), cause, detail, 0, 0)])

    return Writer(table, queue, recording.gate, recording.settings.linger, lambda rows: None, hole)


def _open_holes(recording: Recording) -> None:
    """Open the hole since the last run, and note that this one has begun."""
    end = recording.journal.fact(_END)
    cause = Cause.DISK_FULL if end == Cause.DISK_FULL else Cause.PROGRAM_STOPPED
    detail = "it was killed, or the machine stopped" if end == _RUNNING else end
    for collector in recording.collectors:
        collector.ledger.program_started(cause, detail)
    recording.journal.remember(_END, _RUNNING)


async def _every(seconds: float, call: Callable[[], object]) -> None:
    async with aclosing(periodic(seconds)) as ticks:
        async for _ in ticks:
            call()


def _look_at_disk(recording: Recording) -> None:
    """Stop while there is still room for what has to be written on the way out."""
    path, least = recording.journal.path, recording.settings.min_free
    free = shutil.disk_usage(path.parent).free
    if free < least:
        raise DiskFull(
            f"only {free >> 20} MiB are free at {path.parent}, the bound is {least >> 20} MiB: "
            f"recording stops; free some space, or lower --min-free-mib, and start again"
        )
    if not path.exists():
        raise JournalError(f"journal {path} was removed while recording; start again")


async def _print_statistics(recording: Recording) -> None:
    before = [collector.counts.copy() for collector in recording.collectors]
    since = time.monotonic()
    async with aclosing(periodic(recording.settings.stats_interval)) as ticks:
        async for elapsed, _ in ticks:
            if not elapsed:
                continue
            now = time.monotonic()
            _show(interval_report(recording.lines(before), now - since))
            before = [collector.counts.copy() for collector in recording.collectors]
            since = now


async def _report_outages(recording: Recording) -> None:
    """Say once a minute that the store is away, and once that it has been caught up with."""
    away_since, said = 0.0, 0.0
    async with aclosing(periodic(1)) as ticks:
        async for _ in ticks:
            gate, now = recording.gate, time.time()
            if gate.away_since is not None:
                if not away_since:
                    away_since = said = gate.away_since
                if now - said >= OUTAGE_REPORT_INTERVAL:
                    said = now
                    log.warning(
                        "%s has been away for %s; %d rows wait in the journal",
                        gate.name, duration(now - away_since), recording.backlog(),
                    )  # fmt: skip
            elif away_since and _caught_up(recording, now):
                log.info("%s is back; caught up after %s", gate.name, duration(now - away_since))
                away_since = 0.0


def _caught_up(recording: Recording, now: float) -> bool:
    least = (now - recording.settings.linger - 2) * 1000
    oldest = [queue.oldest_waiting() for queue in recording.journal.queues()]
    return all(at is None or at > least for at in oldest)


def _say_good_bye(recording: Recording) -> None:
    _show(final_report(recording.lines(), time.monotonic() - recording.began))
    backlog = recording.backlog()
    if backlog:
        log.warning(
            "%d rows are not yet in %s; they are safe in %s, and the next run writes them "
            "(or: mexc-trio drain)",
            backlog, recording.gate.name, recording.journal.path,
        )  # fmt: skip


def _show(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
