"""All symbols together: what runs, in which nurseries, and how it ends.

A signal cancels the symbols' nurseries; each writer, on its way out, writes what is left of its
queue, for a bounded time; then the gaps ledger's writer does the same; then the services stop. What
could not be written is in the journal, and the next run writes it.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from mexc_trio.clickhouse.tables import GAPS, market_table
from mexc_trio.errors import DiskFull, JournalError, StoreError, leaves
from mexc_trio.journal import Queue
from mexc_trio.record import disk, watch
from mexc_trio.record.groups import Groups
from mexc_trio.record.limits import allow_connections
from mexc_trio.record.listings import follow_listings
from mexc_trio.record.opening import has_journal, open_recording
from mexc_trio.record.recording import Companion, Recording
from mexc_trio.record.reload import CONFIG, SettingsFile, follow_settings
from mexc_trio.record.rewriting import keep_rewriting
from mexc_trio.record.sharing import keep_measuring, most_connections
from mexc_trio.record.stats import statistics
from mexc_trio.record.terms import keep_terms
from mexc_trio.record.wide import was_wide
from mexc_trio.record.writer import DRAIN_TIMEOUT, LEDGER_DRAIN_TIMEOUT, Writer
from mexc_trio.rows import Cause, Gap
from mexc_trio.settings import Settings
from mexc_trio.settings.description import describe
from mexc_trio.signals import stoppable
from mexc_trio.supervise import beside, supervise, supervised

if TYPE_CHECKING:
    from mexc_trio.record.discovery import Discovery

log = logging.getLogger(__name__)

# The journal's note of how the last run ended.
_END: Final = "end"
_RUNNING: Final = "running"


async def record(
    settings: Settings,
    symbols: Sequence[str],
    companions: Sequence[Companion] = (),
    file: SettingsFile | None = None,
) -> int:
    """Record until stopped; return the exit code.

    `symbols` are what to record, unless the exchange's list says. `companions` run from the start
    to the end. `file` is read again at SIGHUP; without one that signal ends the program. Raises
    MexcTrioError if recording cannot be started, or the disk or the journal gives out.
    """
    discovery, ask = None, file.ask if file else None
    async with AsyncExitStack() as stack:
        if settings.follows_list:
            # Here, because the HTTP client takes a while to load, and most do without it.
            from mexc_trio.record.discovery import open_discovery

            discovery = await stack.enter_async_context(open_discovery(settings))
            found = await _first_symbols(discovery, ask)
            if found is None:
                return 0
            symbols = found
        connections = most_connections(settings, symbols) + settings.store_connections
        allow_connections(connections, more=settings.follows_list)
        recording, running = await stack.enter_async_context(_started(settings, symbols, ask))
        for line in describe(settings):  # only now: what is refused is one line, and why
            log.info("settings: %s", line)
        recording.journal.file.remember(CONFIG, str(file.path.resolve()) if file else "")
        stack.callback(_report_end, recording)
        apart = (supervised(one.__module__, partial(one, recording)) for one in companions)
        async with beside(*apart):
            try:
                await _run(recording, running, discovery, file)
            except BaseException as error:
                full = any(isinstance(leaf, DiskFull) for leaf in leaves(error))
                recording.end = Cause.DISK_FULL.value if full else f"it failed: {leaves(error)[0]}"
                raise
            recording.end = "it was stopped"
    return 1 if any(one.failure or one.refusal for one in recording.collectors) else 0


async def _first_symbols(
    discovery: "Discovery", reload: Callable[[], None] | None
) -> Sequence[str] | None:
    """Return what is to be recorded; None if a signal came before that was known."""
    async with stoppable(lambda: None, reload) as waiting:
        with waiting:
            return await discovery.begin()
    return None


async def drain(settings: Settings) -> int:
    """Write what earlier runs left in the journal, without recording; return the exit code.

    Raises MexcTrioError if it cannot be started, or the store refuses the rows.
    """
    if not await trio.to_thread.run_sync(has_journal, settings):
        log.info("nothing waits: there is no journal of this store in %s", settings.state_directory)
        return 0
    async with _started(settings, ()) as (recording, running):
        left = recording.backlog
        async with beside(*_services(recording)):
            with running:
                await _write_leftovers(recording)
                # Last, because the others may find gaps.
                await _writer(recording, recording.gaps).until_empty()
        rest = recording.backlog
        log.info("%d rows written to %s, %d wait", left - rest, recording.store.name, rest)
        return 1 if rest else 0


@asynccontextmanager
async def _started(
    settings: Settings, symbols: Sequence[str], reload: Callable[[], None] | None = None
) -> AsyncIterator[tuple[Recording, trio.CancelScope]]:
    """Make everything ready; give also the scope that SIGINT or SIGTERM cancels."""
    recording: Recording | None = None

    def last_words() -> None:
        if recording is not None:
            recording.restore_terminal()
            recording.journal.outbox.flush_if_unlocked()
            log.warning(
                "second signal: not waiting; the next run writes up to %d rows from the journal",
                recording.backlog,
            )

    with ExitStack() as stack:
        async with stoppable(last_words, reload) as running:
            # In a thread, so that signals are heard while an engine loads or a server is silent.
            recording = await trio.to_thread.run_sync(
                stack.enter_context, open_recording(settings, symbols)
            )
            yield recording, running


async def _run(
    recording: Recording,
    running: trio.CancelScope,
    discovery: "Discovery | None",
    file: SettingsFile | None,
) -> None:
    settings = recording.settings
    _open_gaps(recording)
    # From right to left is the order in which they end.
    async with (
        beside(*_services(recording), supervised("contracts", partial(keep_terms, recording))),
        beside(supervised("table gaps", _writer(recording, recording.gaps).run)),
        beside(supervised("rows of earlier runs", partial(_write_leftovers, recording))),
    ):
        if settings.duration is not None:
            running.deadline = trio.current_time() + settings.duration
        with running:
            # A signal ends a compaction together with the symbols, whose writers may wait for it.
            compacting = supervised("rewriting", partial(keep_rewriting, recording))
            async with beside(compacting), trio.open_nursery() as nursery:
                groups = Groups(recording, nursery)
                groups.begin(recording.collectors)
                if discovery is not None:
                    following = partial(follow_listings, recording, discovery, groups.begin)
                    nursery.start_soon(supervise, "list of contracts", following)
                if file is not None:
                    changing = partial(follow_settings, recording, discovery, file, groups)
                    nursery.start_soon(supervise, "settings", changing)


def _services(recording: Recording) -> Iterator[Callable[[], Awaitable[None]]]:
    """Yield the tasks that all writers need."""
    journal = recording.journal
    yield journal.keep_flushing  # without it nothing is kept: if it fails, all do
    if recording.settings.journal_sync:
        yield supervised("journal", journal.keep_syncing)
    yield supervised("journal", journal.keep_purging)
    if recording.settings.backfills:
        yield supervised("backfill", recording.backfill.run)
    yield supervised("rates of symbols", partial(keep_measuring, recording))
    yield supervised("disk", partial(disk.keep_checking, recording))
    yield supervised("store", recording.store.keep_asking)
    yield supervised("schedule of INSERTs", recording.store.scheduler.run)
    yield supervised("outages", partial(watch.report_outages, recording))


async def _write_leftovers(recording: Recording) -> None:
    """Write the rows that earlier runs left of tables that no symbol of this one has."""
    async with trio.open_nursery() as nursery:
        for queue in list(recording.leftovers):
            nursery.start_soon(_write_leftover, recording, queue)


async def _write_leftover(recording: Recording, queue: Queue) -> None:
    """Write a table's rows of earlier runs. Until that is done no symbol may have the table.

    What prevents it, such as another recorder that has the table now, is told and ends here: the
    rows stay in the journal, and the next run tries again.
    """
    try:
        recording.locks.hold([queue.name])
        await _writer(recording, queue).until_empty()
    except StoreError as error:
        log.error(
            "table %s: %s; %d rows of an earlier run stay in %s",
            queue.name, error, queue.backlog, recording.journal.path,
        )  # fmt: skip
    else:
        recording.leftovers.remove(queue)
        recording.locks.release([queue.name])


def _writer(recording: Recording, queue: Queue) -> Writer:
    """Return a writer for a table that no symbol of this run has: the ledger, or a leftover."""
    engine = recording.settings.engine_of(queue.name)
    wide = bool(was_wide(queue))
    table = GAPS if queue.name == GAPS.name else market_table(queue.name, engine, wide=wide)

    def gap(cause: Cause, detail: str, start: int, end: int) -> None:
        recording.gaps.collect(
            [Gap(queue.name, "all", start, max(start, end), cause, detail, 0, 0)]
        )

    timeout = LEDGER_DRAIN_TIMEOUT if table is GAPS else DRAIN_TIMEOUT
    linger = recording.settings.linger
    return Writer(table, queue, recording.store, linger, lambda rows: None, gap, timeout)


def _open_gaps(recording: Recording) -> None:
    """Open the gap since the last run, and note that this one has begun."""
    end = recording.journal.file.fact(_END)
    cause = Cause.DISK_FULL if end == Cause.DISK_FULL else Cause.PROGRAM_STOPPED
    detail = "it was killed, or the machine stopped" if end == _RUNNING else end
    for collector in recording.collectors:
        collector.ledger.program_started(cause, detail)
        if collector.ledger.pending.wanted:
            recording.backfill.request(collector)
    recording.journal.file.remember(_END, _RUNNING)


def _report_end(recording: Recording) -> None:
    """Show the statistics of all, tell of what is not written yet, and note how the run ended."""
    stats = [recording.stats_of(collector) for collector in recording.collectors]
    watch.show(statistics(stats, recording.seconds, final=True))
    if backlog := recording.backlog:
        log.warning(
            "%d rows are not yet in %s; they are safe in %s, and the next run writes them "
            "(or: mexc-trio drain)",
            backlog, recording.store.name, recording.journal.path,
        )  # fmt: skip
    with suppress(JournalError):  # if it is the journal that failed, it has been said
        recording.journal.file.remember(_END, recording.end)
