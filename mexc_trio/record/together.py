"""The symbols that share connections: their nursery, and the lines that it holds.

Each line is a connection of its own and fails alone, as does each symbol.
"""

from functools import partial

import trio

from mexc_trio.exchange.connection import Connection, Way
from mexc_trio.record import watch
from mexc_trio.record.collector import Collector
from mexc_trio.record.groups import Group
from mexc_trio.record.lines import Lines
from mexc_trio.record.recording import Recording
from mexc_trio.record.stats import final_report
from mexc_trio.supervise import supervise


async def record_together(recording: Recording, group: Group) -> None:
    """Record the symbols of a group, on a connection for each line, until all are stopped."""
    settings = recording.settings
    renewing = trio.Lock()

    def ways(line: int) -> list[Way]:
        one = (group.living or group.collectors)[0]
        return recording.ways(line, one, throttled=group.most > 1)

    symbols_lines = [_lines_of(recording, one) for one in group.collectors]
    connections = [
        Connection(
            ways(line),
            [lines.feeds[line] for lines in symbols_lines],
            settings.ping_interval,
            recording.journal.flush_if_unlocked,
            recording.rate_limiter,
            recording.deals,
            f"line {line + 1}" if settings.lines > 1 else "",
            renewing,
        )
        for line in range(settings.lines)
    ]

    def broken(line: int, error: Exception) -> None:
        for collector in group.collectors:
            for feed in list(recording.lines[collector.symbol].feeds):
                if feed.name == str(line + 1):
                    feed.broken(error)

    def renew(why: str) -> None:
        for line, connection in enumerate(connections):
            connection.renew(ways(line), why)

    group.renew = renew
    who = group.collectors[0].symbol if group.most == 1 else "several symbols"
    async with trio.open_nursery() as nursery:
        for line, connection in enumerate(connections):
            name = f"{who}: connection of line {line + 1}"
            nursery.start_soon(supervise, name, connection.run, partial(broken, line))
        async with trio.open_nursery() as symbols:

            def take_in(collector: Collector) -> None:
                lines = _lines_of(recording, collector)
                for connection, feed in zip(connections, lines.feeds, strict=True):
                    connection.join(feed)
                symbols.start_soon(_record_symbol, recording, collector)

            for collector in group.collectors:
                symbols.start_soon(_record_symbol, recording, collector)
            group.take_in = take_in
        nursery.cancel_scope.cancel()


def _lines_of(recording: Recording, collector: Collector) -> Lines:
    settings = recording.settings
    lines = Lines(collector, settings.lines, settings.ping_interval, recording.deals)
    recording.lines[collector.symbol] = lines
    return lines


async def _record_symbol(recording: Recording, collector: Collector) -> None:
    await collector.run()
    # It was stopped by its errors. If it was the last one, the program's end says the same.
    if not collector.has_successor and any(not other.stopped for other in recording.collectors):
        watch.show(final_report([recording.line(collector)], recording.seconds))
