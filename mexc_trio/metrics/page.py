"""The page of metrics, in Prometheus' text format. The only module that knows prometheus_client.

That library takes eight microseconds a sample, which is nothing for a hundred of them and a fifth
of a second of everybody's time for those of 1,200 symbols. So the lines of symbols are made here;
their labels are letters, digits and an underscore, which need no escaping.
"""

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from statistics import median
from typing import Any, Final, TypeAlias

import attrs
import trio
from prometheus_client import CollectorRegistry, ProcessCollector, registry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest

from mexc_trio import __version__
from mexc_trio.channels import ALL
from mexc_trio.clickhouse.insert_counters import BOUNDS, Outcome
from mexc_trio.errors import Loss
from mexc_trio.metrics.snapshot import Snapshot, SymbolState, pieces
from mexc_trio.record.collector import Collector
from mexc_trio.rows import MESSAGE_TYPES, OPTIONAL_TYPES, Cause

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PIECE: Final = 100
"""Symbols whose lines are made in one piece: half a millisecond."""

_PREFIX: Final = "mexc_trio_"
_OTHER: Final = "other"


async def render(snapshot: Snapshot, collectors: Sequence[Collector]) -> bytes:
    """Return the page, with each symbol as it is now; other tasks run in between."""
    parts = []
    for part in _parts(snapshot, collectors):
        parts.append(part)
        await trio.lowlevel.checkpoint()
    return b"".join(parts)


def _parts(snapshot: Snapshot, collectors: Sequence[Collector]) -> Iterator[bytes]:
    for family in _families(snapshot):
        yield generate_latest(_SingleFamily([family]))
    yield generate_latest(_PROCESS)
    for name, kind, about, samples in _SYMBOL_FAMILIES:
        name = _PREFIX + name
        yield f"# HELP {name} {about}\n# TYPE {name} {kind}\n".encode()
        for some in pieces(collectors, PIECE):
            lines = [
                f'{name}{{symbol="{one.symbol}"{labels}}} {number}\n'
                for one in some
                for labels, number in samples(one, snapshot)
            ]
            yield "".join(lines).encode()


@attrs.frozen(eq=False)
class _SingleFamily(registry.Collector):
    """What the library takes for a registry: its own renders all in one piece."""

    _families: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        return self._families


# Memory, processor time, open files: of this process, where /proc has them.
_PROCESS: Final = CollectorRegistry(auto_describe=False)
ProcessCollector(registry=_PROCESS)


def _families(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield all but the symbols' own. Each label's every value is there from the start."""
    build = {"version": __version__, "python": platform.python_version()}
    yield InfoMetricFamily(f"{_PREFIX}build", "What is running.", build)
    yield _gauge(
        "ready", "Whether every symbol has fresh data and the store answers.", snapshot.ready
    )
    yield from _exchange(snapshot)
    yield from _clock(snapshot)
    yield from _gaps(snapshot)
    yield from _store(snapshot)
    yield from _disk(snapshot)


def _exchange(snapshot: Snapshot) -> Iterator[Metric]:
    lines = {one: (one.line, one.route) for one in snapshot.line_counters}
    connected = {line: snapshot.connected[one] for one, line in lines.items()}
    losses = {(*line, why): one.losses[why] for one, line in lines.items() for why in Loss}
    frames, rows = (
        {channel or _OTHER: counted[channel] for channel in (*ALL, None)}
        for counted in (snapshot.frames, snapshot.rows)
    )
    silent = {channel: snapshot.silent[channel] for channel in ALL}
    delays = {channel: seconds for channel, seconds in snapshot.delays.items() if seconds}
    medians = {channel: median(seconds) for channel, seconds in delays.items()}
    longest = {channel: max(seconds) for channel, seconds in delays.items()}
    states = {state: snapshot.states[state] for state in SymbolState}
    yield _gauge("symbols", "Symbols by what they do.", states, "state")
    about = "Channels that are recorded, of all symbols together."
    yield _gauge("recorded_channels", about, snapshot.channels)
    about = "Symbols whose data is coming, by line and route."
    yield _gauge("connected_symbols", about, connected, "line", "route")
    about = "Connections that were lost or could not be made, by reason."
    yield _counter("reconnects", about, losses, "line", "route", "reason")
    yield _counter("frames", "Frames with rows that came.", frames, "channel")
    yield _counter("rows", "Rows that came, dead letters included.", rows, "channel")
    yield _counter("dead_letters", "Messages that could not be read.", snapshot.dead)
    about = "Losses of a symbol's line while another had it, which left no gap."
    yield _counter("covered_losses", about, snapshot.covered)
    about = "When the last frame of any symbol came."
    yield _gauge("last_frame_timestamp_seconds", about, snapshot.last, "channel")
    about = "Symbols whose channel is silent for longer than is usual for it."
    yield _gauge("silent_symbols", about, silent, "channel")
    about = "From the exchange's time to receipt, of the last frame of each symbol within a minute."
    yield _gauge("exchange_delay_median_seconds", about, medians, "channel")
    yield _gauge("exchange_delay_max_seconds", "The longest of the same.", longest, "channel")


def _clock(snapshot: Snapshot) -> Iterator[Metric]:
    clocks = [one.clock for one in snapshot.line_counters if one.clock is not None]
    if clocks:
        clock = min(clocks, key=lambda sample: sample.round_trip)
        about = (
            "How far this machine's clock is ahead of the exchange's, give or take half the round "
            "trip."
        )
        yield _gauge("clock_offset_seconds", about, clock.offset)
        about = "From a ping to its pong, when the clocks were compared."
        yield _gauge("clock_round_trip_seconds", about, clock.round_trip)


def _gaps(snapshot: Snapshot) -> Iterator[Metric]:
    gaps = {cause: snapshot.gaps[cause] for cause in Cause}
    seconds = {cause: snapshot.gap_milliseconds[cause] / 1000 for cause in Cause}
    whole = snapshot.filled["whole"]
    filled = {"whole": whole, "part": snapshot.filled["gaps"] - whole}
    yield _counter("gaps", "Gaps written to the table of gaps.", gaps, "cause")
    about = "Their length; of one in all channels of a symbol once."
    yield _counter("gap_seconds", about, seconds, "cause")
    yield _counter("filled_gaps", "Those in deals that were filled afterwards.", filled, "how")
    yield _counter("filled_deals", "Deals that were fetched for them.", snapshot.filled["deals"])


def _store(snapshot: Snapshot) -> Iterator[Metric]:
    stored = {mt: snapshot.stored[mt] for mt in (*MESSAGE_TYPES, *OPTIONAL_TYPES)}
    inserts = snapshot.inserts
    outcomes = {outcome: inserts.outcomes[outcome] for outcome in Outcome}
    bounds = [*map(str, BOUNDS), "+Inf"]
    buckets = list(zip(bounds, accumulate(inserts.buckets), strict=True))
    yield _gauge("store_up", "Whether the store answers.", snapshot.away is None)
    yield _gauge("store_away_seconds", "Since when it does not; else 0.", snapshot.away or 0.0)
    yield _counter("stored_rows", "Rows that the store has acknowledged.", stored, "type")
    about = "INSERTs by how they ended; unavailable means that nobody answered."
    yield _counter("inserts", about, outcomes, "outcome")
    yield HistogramMetricFamily(
        f"{_PREFIX}insert_seconds", "How long INSERTs took.", buckets, inserts.seconds
    )
    yield _gauge("backlog_rows", "Rows in the journal that the store lacks.", snapshot.backlog)
    about = "Since the oldest of them was received."
    yield _gauge("backlog_age_seconds", about, snapshot.backlog_age)


def _disk(snapshot: Snapshot) -> Iterator[Metric]:
    yield _gauge("journal_bytes", "Size of the journal's files.", snapshot.journal)
    yield _gauge("disk_free_bytes", "Free where the journal lies.", snapshot.disk_free)
    about = "With less than this free, recording stops."
    yield _gauge("disk_bound_bytes", about, snapshot.disk_bound)


_Values: TypeAlias = float | Mapping[Any, float]
"""One number, or one for each value of the label, or for each combination of the labels' values."""


def _family(
    kind: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    about: str,
    values: _Values,
    *labels: str,
) -> Metric:
    family = kind(_PREFIX + name, about, labels=labels)
    for key, value in values.items() if isinstance(values, Mapping) else [((), values)]:
        family.add_metric((key,) if isinstance(key, str) else key, value)
    return family


_gauge = partial(_family, GaugeMetricFamily)
_counter = partial(_family, CounterMetricFamily)


# The symbols' own, in the form of the page: more labels, if any, and a number.
_Samples: TypeAlias = Iterator[tuple[str, object]]


def _ready(collector: Collector, snapshot: Snapshot) -> _Samples:
    if collector.failure is not None or not collector.stopped:  # else nobody wants it any more
        yield "", 0 if collector.symbol in snapshot.troubled else 1


def _rows(collector: Collector, _: Snapshot) -> _Samples:
    for channel in collector.liveness:
        yield f',channel="{channel}"', collector.received[channel]


def _last(collector: Collector, _: Snapshot) -> _Samples:
    to_wall = time.time() - trio.current_time()
    for channel in collector.liveness:
        if (heard := collector.heard(channel)) is not None:
            yield f',channel="{channel}"', f"{heard + to_wall:.3f}"


def _backlog(collector: Collector, _: Snapshot) -> _Samples:
    yield "", collector.queue.backlog


def _written(collector: Collector, _: Snapshot) -> _Samples:
    yield "", collector.ledger.written.total()


_SYMBOL_FAMILIES: Final[
    tuple[tuple[str, str, str, Callable[[Collector, Snapshot], _Samples]], ...]
] = (
    ("symbol_ready", "gauge", "Whether the symbol has fresh data.", _ready),
    ("symbol_rows_total", "counter", "Rows that came.", _rows),
    ("symbol_last_frame_timestamp_seconds", "gauge", "When the last frame came.", _last),
    ("symbol_backlog_rows", "gauge", "Rows in the journal that the store lacks.", _backlog),
    ("symbol_gaps_total", "counter", "Gaps written to the table of gaps.", _written),
)
