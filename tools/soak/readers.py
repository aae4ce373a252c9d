"""A recording with readers at work: what it costs over time, and every row compared.

The exchange runs here; the recorder and its engine are processes. Readers ask over HTTP and the
native protocol without a pause, some for more than they may have. What is sent is written to a file
as it is made, so that hours of it need no memory, and is held against the table row for row.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import attrs
import psutil
import trio

from tools.exchange import open_exchange
from tools.soak.recorder import Outcome, Place, kill, stop, subscribed, text_of, until

if TYPE_CHECKING:
    from tools.exchange.records import Record

STATEMENTS: Final = (
    "SELECT ts, price, volume, side FROM btc_deals ORDER BY ts DESC LIMIT 5",
    "SELECT * FROM btc_candles(interval = 60)",
    "SELECT max(length(m)), uniqExact(m) FROM btc WHERE ts > now() - 600",
    "SELECT m FROM btc ORDER BY cityHash64(m) LIMIT 10 FORMAT Null",
    # Refused, each for another reason.
    "SELECT groupArray(repeat('x', 1000)) FROM numbers(100000000)",
    "SELECT count() FROM numbers(1000000000000) SETTINGS max_execution_time = 5",
    "SELECT file('/etc/hostname')",
)
_LOOK: Final = 10.0
"""Seconds between two samples of memory and backlog."""
_AHEAD: Final = 200_000
"""Rows that are looked through for one that should be the next."""


@attrs.frozen(kw_only=True)
class Reading(Place):
    """What is to be done."""

    rate: float = 1000.0
    """Messages a second."""
    seconds: float = 3600.0
    """How long."""
    readers: int = 3
    """How many ask, each one statement after another."""
    seed: int = 1
    """Makes the market repeatable."""


@attrs.frozen
class Sample:
    """At the processes, at one moment."""

    at: float
    """Seconds since the beginning."""
    engine: float
    """Memory (resident) in MB of 1,000,000 bytes, as all of these."""
    recorder: float
    backlog: int
    """Rows in the journal that the engine has not acknowledged."""


@attrs.frozen(kw_only=True)
class Result(Outcome):
    """What came of it."""

    seconds: float
    frames: int
    rows: int
    missing: int
    """Rows that were sent and are not stored, or not in their place."""
    strange: int
    """Stored rows that were not sent, or are stored again."""
    gaps: Sequence[object]
    answers: dict[str, str]
    """Of each statement, how often it ended in which way."""
    samples: Sequence[str]
    largest_backlog: int
    inserts: str
    """How many took how long at the most, by the recorder's own metrics."""
    exit_code: int

    @property
    def wrong(self) -> bool:
        """Whether a promise was broken."""
        return bool(self.missing or self.strange or self.gaps or self.exit_code)

    def __str__(self) -> str:
        known = attrs.asdict(self, recurse=False)
        lines = [*(f"{name}: {text}" for name, text in known.pop("answers").items())]
        lines += known.pop("samples")
        return "\n".join([*lines, text_of(known)])


async def try_readers(reading: Reading) -> Result:
    """Do it, and compare."""
    sent, answers = reading.directory / "sent.txt", Counter[tuple[str, str]]()
    samples: list[Sample] = []
    with sent.open("w", encoding="utf-8") as file:

        def note(record: Record) -> None:
            for row in record.rows or ():
                file.write(json.dumps(row) + "\n")

        async with open_exchange(rate=reading.rate, seed=reading.seed, keep=False) as exchange:
            exchange.records.listeners.append(note)
            exchange.silence()
            recorder = await reading.start("--url", exchange.url)
            try:
                await until(exchange, recorder, lambda: bool(subscribed(exchange)))
                began = trio.current_time()
                exchange.resume()
                with trio.move_on_after(reading.seconds):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_sample, reading, recorder.pid, samples)
                        for number in range(reading.readers):
                            nursery.start_soon(_read, reading, number, answers)
                exchange.silence()
                seconds = trio.current_time() - began
                await trio.sleep(5)
                inserts = await trio.to_thread.run_sync(_inserts, reading)
                exit_code = await stop(recorder, 120)
            finally:
                await kill(recorder)
            frames = exchange.frames
    rows, missing, strange = _compared(sent, reading)
    return Result(
        seconds=round(seconds, 1), frames=frames, rows=rows, missing=missing, strange=strange,
        gaps=reading.ledger(), answers=_told(answers), samples=some_of(samples),
        largest_backlog=max((one.backlog for one in samples), default=0), inserts=inserts,
        exit_code=exit_code,
    )  # fmt: skip


async def _read(reading: Reading, number: int, answers: Counter[tuple[str, str]]) -> None:
    """Ask one statement after another."""
    at = number
    while True:
        sql = STATEMENTS[at % len(STATEMENTS)]
        answers[sql, await trio.to_thread.run_sync(ask_as_reader, reading, sql)] += 1
        at += 1
        await trio.sleep(0.2)


def ask_as_reader(place: Place, sql: str) -> str:
    """Ask the recorder's engine as a reader; return how it ended."""
    with suppress(OSError, http.client.HTTPException):
        url = urlsplit((place.directory / place.store / "http.url").read_text().strip())
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=120)
        login = {"X-ClickHouse-User": url.username or "",
                 "X-ClickHouse-Key": unquote(url.password or "")}  # fmt: skip
        with suppress(json.JSONDecodeError):
            connection.request("POST", "/", sql.encode(), login)
            answer = connection.getresponse()
            answer.read()
            connection.close()
            code = answer.getheader("X-ClickHouse-Exception-Code")
            return "answered" if answer.status == 200 else f"refused ({code})"
    return "no answer"


async def _sample(reading: Reading, pid: int, samples: list[Sample]) -> None:
    began = time.monotonic()
    recorder = psutil.Process(pid)
    while True:
        await trio.sleep(_LOOK)
        memory = [one.memory_info().rss / 1e6 for one in (recorder, *recorder.children())]
        metrics = await trio.to_thread.run_sync(_metrics, reading)
        backlog = int(float(metrics.get("mexc_trio_backlog_rows", "0")))
        at = time.monotonic() - began
        samples.append(Sample(at, sum(memory[1:]), memory[0], backlog))
        with (reading.directory / "samples.txt").open("a") as file:
            file.write(f"{samples[-1]}\n")


def _metrics(reading: Reading) -> dict[str, str]:
    url = urlsplit((reading.directory / reading.store / "metrics.url").read_text().strip())
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return {name: value for name, _, value in (line.rpartition(" ") for line in lines)}


def _inserts(reading: Reading) -> str:
    """Return the metrics' own count of INSERTs, by seconds that they took at the most."""
    found = re.compile(r'mexc_trio_insert_seconds_bucket\{le="(.+)"\}').fullmatch
    counted = [(match[1], n) for name, n in _metrics(reading).items() if (match := found(name))]
    return ", ".join(f"{bound} s: {float(n):.0f}" for bound, n in counted)


def some_of(samples: Sequence[Sample]) -> list[str]:
    """Return a line for about each twelfth of the time."""
    return [
        f"after {one.at:5.0f} s: engine {one.engine:5.0f} MB, recorder {one.recorder:4.0f} MB, "
        f"backlog {one.backlog}"
        for one in [*samples[:: max(1, len(samples) // 12)], *samples[-1:]]
    ]


def _told(answers: Counter[tuple[str, str]]) -> dict[str, str]:
    told: dict[str, str] = {}
    for (sql, how), number in sorted(answers.items()):
        told[sql[:60]] = f"{told.get(sql[:60], '')} {how}: {number}".strip()
    return told


def _compared(sent: Path, reading: Reading) -> tuple[int, int, int]:
    """Hold the table against what was sent, in its order; return rows, missing, strange."""
    stored = reading.directory / "stored.txt"
    sql = "SELECT toInt64(toUnixTimestamp64Milli(ts)), mt, m FROM btc SETTINGS max_threads = 1"
    with stored.open("wb") as file:
        reading.run_into(file, "sql", sql, "--format", "JSONCompactEachRow").check_returncode()
    rows = missing = strange = 0
    with sent.open(encoding="utf-8") as ours, stored.open(encoding="utf-8") as theirs:
        due: deque[object] = deque()
        lines = map(json.loads, ours)
        for at, *texts in map(json.loads, theirs):
            rows, row = rows + 1, [int(at), *texts]
            passed = _passed(due, lines, row)
            if passed is None:
                strange += 1
            else:
                missing += passed
        missing += len(due) + sum(1 for _ in lines)
    return rows, missing, strange


def _passed(due: deque[object], lines: Iterator[object], row: object) -> int | None:
    """Go on behind the row that is asked for; return how many were passed, None if it is not there.

    What was read and is not passed stays due.
    """
    for place in range(_AHEAD):
        if place == len(due):
            line = next(lines, None)
            if line is None:
                return None
            due.append(line)
        if due[place] == row:
            for _ in range(place + 1):
                due.popleft()
            return place
    return None
