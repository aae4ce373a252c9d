"""What the fault tests share: real processes, and a comparison of what was sent and what is stored.

The simulated exchange runs in a process of its own and writes a line for each frame before it sends
it. That file is the truth, and the recorder has no part in it. No two rows of it are equal, so a
duplicate, a gap or a change of order cannot hide.
"""

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    closing,
    contextmanager,
    nullcontext,
    suppress,
)
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import attrs
import trio

from mexc_trio.clickhouse import schema
from mexc_trio.clickhouse.tables import GAPS, market_table
from mexc_trio.journal import open_journal
from mexc_trio.journal.file import remember
from mexc_trio.record.rewriting import RewritingRequest
from mexc_trio.rows import Gap, RowTuple
from tests.support.forks import HASTY, Constants, Fork, fork
from tests.support.running import (
    DEADLINE,
    command_text,
    engine_pid,
    environment,
    held_open,
    read_all_embedded,
    server_store,
)
from tools.clickhouse import DATABASE, ClickHouseServer

ROOT: Final = Path(__file__).parents[2]
SYMBOL: Final = "BTC_USDT"
TABLE: Final = "btc"

LOOK: Final = 0.04
"""Seconds between two looks at a condition: each asks a journal or a server, which is not free."""

REPEAT: Final = float(os.environ.get("MEXC_TRIO_TEST_REPEAT", "1"))
"""Multiplies the number of faults of each test."""
SEED: Final = os.environ.get("MEXC_TRIO_TEST_SEED", "")
"""Of the instants at which they come; one that is drawn if it is not given."""

_CHANNEL_OF: Final = {"t": "ticker", "d": "deal", "dp": "depth"}


def repetitions(number: int) -> int:
    """Return how often to do what is done `number` times by default."""
    return max(1, round(number * REPEAT))


def chance(name: str) -> random.Random:
    """Return a test's source of random instants. Its seed is printed, and can be given again."""
    seed = SEED or str(random.SystemRandom().randrange(10**6))
    print(f"{name}: MEXC_TRIO_TEST_SEED={seed}")
    return random.Random(f"{seed} {name}")


@attrs.define
class Tally:
    """How much the fault tests have done; printed at the end of the run."""

    faults: dict[str, int] = attrs.field(factory=dict)
    """Faults injected, by kind."""
    rows: int = 0
    """Rows that were compared with what was sent."""
    notes: list[str] = attrs.field(factory=list)
    """What was measured on the way."""

    def fault(self, kind: str, number: int = 1) -> None:
        """Count faults."""
        self.faults[kind] = self.faults.get(kind, 0) + number


TALLY: Final = Tally()


async def until(
    what: str, condition: Callable[[], object], seconds: float = DEADLINE, *, fail: bool = True
) -> bool:
    """Do as `wait_until` does, and let other tasks run."""
    with trio.move_on_after(seconds):
        while not condition():
            await trio.sleep(LOOK)
        return True
    assert not fail, f"{what}: not within {seconds:g} s"
    return False


def wait_until(
    what: str, condition: Callable[[], object], seconds: float = DEADLINE, *, fail: bool = True
) -> bool:
    """Look at a condition until it is true; after so many seconds fail, or return False."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            assert not fail, f"{what}: not within {seconds:g} s"
            return False
        time.sleep(LOOK)
    return True


class Sent(NamedTuple):
    """One row as the exchange sent it."""

    row: RowTuple
    version: int


@attrs.define(eq=False)
class Exchange:
    """The simulated exchange in a process of its own. Entering starts it, leaving ends it."""

    directory: Path
    # Of a busy contract it is the fiftyfold, and leaves a slow machine half of its time: what comes
    # while a test waits, and is compared at its end, costs more the longer all of it takes.
    options: Sequence[str] = ("--rate", "500", "--oddities", "0")
    url: str = attrs.field(init=False, default="")
    _seen: int = attrs.field(init=False, default=0)
    _process: Fork | None = attrs.field(init=False, default=None)

    @property
    def log(self) -> Path:
        """One line for each frame."""
        return self.directory / "exchange.log"

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        said = self.directory / "exchange.out"
        with said.open("wb") as out:
            self._process = fork(
                "tools.exchange", ["--port", "0", "--log", str(self.log), *self.options],
                env=environment(PYTHONUNBUFFERED="1"), cwd=ROOT, stdout=out.fileno(),
                stderr=out.fileno(),
            )  # fmt: skip
        wait_until("the exchange listens", lambda: "ws://" in said.read_text() or self._has_ended())
        found = re.search(r"ws://\S+", said.read_text())
        assert found, said.read_text()
        self.url = found[0]
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def look(self) -> None:
        """Remember how much was sent until now."""
        self._seen = self.log.stat().st_size if self.log.exists() else 0

    def sends(self) -> None:
        """Wait until something was sent since."""
        wait_until(
            "rows are sent", lambda: self.log.exists() and self.log.stat().st_size > self._seen
        )

    def feed(self, recorder: "Recorder") -> None:
        """Start a recorder, and wait until something was sent to it."""
        self.look()
        recorder.start()
        self.sends()

    def connections(self, symbol: str = SYMBOL) -> list[list[Sent]]:
        """Return what was sent for a symbol, one list a connection, in order."""
        found: dict[int, list[Sent]] = {}
        with self.log.open(encoding="utf-8") as lines:
            for line in lines:
                if not line.endswith("\n"):
                    break
                entry = json.loads(line)
                if entry["symbol"] != symbol:
                    continue
                version = 0
                if entry["channel"] == "depth.full":
                    version = json.loads(entry["frame"])["data"].get("version", 0)
                rows = found.setdefault(entry["connection"], [])
                rows += [Sent((ts, mt, m), version) for ts, mt, m in entry["rows"] or ()]
        return [found[number] for number in sorted(found)]


@attrs.define(eq=False)
class Recorder:
    """The program as a process; it may be killed and started again in the same directory."""

    directory: Path
    url: str
    store: str = ""
    """A server's URL; the embedded store in the directory if empty."""
    options: Sequence[str] = ()
    symbols: Sequence[str] = (SYMBOL,)
    linger: str = "0.05"
    variables: dict[str, str] = attrs.field(factory=dict)
    engine: str = "stripelog"
    """Of tables that are not there yet."""
    module: str = "mexc_trio"
    """What is run."""
    constants: Constants = attrs.field(factory=dict)
    """What is to be other than in the program, besides `HASTY`."""
    _process: Fork | None = attrs.field(init=False, default=None)
    _had_said: int = attrs.field(init=False, default=0)  # bytes of the log, in earlier runs

    @property
    def state(self) -> Path:
        """The directory of the journal and, if embedded, the tables."""
        return self.directory / "mexc-data"

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return next(iter(self.state.glob("journal*.sqlite")), self.state / "journal.sqlite")

    @property
    def log(self) -> Path:
        """What it said on standard error, over all its runs."""
        return self.directory / "recorder.err"

    def start(self, *options: str) -> Self:
        """Start it."""
        return self.run(
            *self.symbols, "--url", self.url, "--state-dir", str(self.state),
            "--linger", self.linger, "--stats-interval", "3600", "--engine", self.engine,
            *self.options, *options,
        )  # fmt: skip

    def run(self, *arguments: str) -> Self:
        """Start the program with these arguments and the store."""
        assert not self.is_running
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log, (self.directory / "recorder.out").open("ab") as out:
            self._had_said = log.tell()
            self._process = fork(
                self.module, [*arguments, "--store", self.store or str(self.state)],
                env=environment(**self.variables), cwd=self.directory, stdout=out.fileno(),
                stderr=log.fileno(), constants={**HASTY, **self.constants},
            )  # fmt: skip
        return self

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process is not None
        return self._process.pid

    def run_for(self, seconds: float) -> bool:
        """Let it run for so many seconds; return whether it is still running."""
        return not wait_until("", lambda: not self.is_running, seconds, fail=False)

    def stores(self, rows: int = 1) -> None:
        """Wait until so many more rows are acknowledged."""
        least = self.acked() + rows
        wait_until(f"{rows} rows are stored", lambda: self.acked() >= least)

    def says(self, text: str, times: int = 1) -> None:
        """Wait until it has said something so many times."""
        wait_until(f"{text!r}", lambda: self.said().count(text) >= times)

    def waits_for_store(self, rows: int = 300) -> None:
        """Wait until more than so many rows wait in the journal."""
        wait_until(f"{rows} rows wait", lambda: self.backlog() > rows)

    def catches_up(self) -> None:
        """Wait until next to nothing waits in the journal."""
        wait_until("it catches up", lambda: self.backlog() < 300)

    def kill(self) -> None:
        """Kill it at once, as `kill -9` does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def kill_engine(self) -> None:
        """Kill the embedded engine at once, if it has not ended by itself."""
        with suppress(ProcessLookupError):
            os.kill(engine_pid(self.state), signal.SIGKILL)

    def asked(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Give a command for its store, whether it runs or not."""
        self.directory.mkdir(parents=True, exist_ok=True)
        where = ["--store", self.store or str(self.state), "--state-dir", str(self.state)]
        return command_text(*command, *where, cwd=self.directory)

    def signal(self, number: int = signal.SIGINT) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float = DEADLINE) -> int:
        """Wait for its end; return the exit code."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not end within {seconds:g} s\n{self.said()}") from None

    def stop(self, seconds: float = DEADLINE, *, leaves_rows: bool = False) -> None:
        """Stop it as Ctrl-C does, and see that it ends well, with nothing left to be written.

        A stop has its bound, which on a crowded machine is too short for what waits. Where rows are
        not meant to be left, they are written by a command that has none.
        """
        # Before that Python may still be importing, and Ctrl-C is an error: nothing was begun.
        wait_until("it listens to signals", lambda: b"metrics at " in self._says_now())
        self.signal()
        code = self.wait(seconds)
        assert code == 0, f"exit code {code}\n{self.said()}"
        if not leaves_rows and self.backlog():
            self.run("drain", "--state-dir", str(self.state))
            assert self.wait() == 0, self.said()

    def said(self) -> str:
        """Return all that it said on standard error."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def _says_now(self) -> bytes:
        """Return what it has said since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._had_said)
            return log.read()

    def memory(self) -> int:
        """Return the most memory that the running process ever had, in bytes. Linux only."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM")

    def backlog(self) -> int:
        """Return how many journaled rows are not acknowledged, as another process sees it."""
        try:
            with closing(sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True)) as db:
                found = db.execute(
                    "SELECT last - acked FROM tables JOIN (SELECT tbl, max(first + n) AS last "
                    "FROM entries GROUP BY tbl) ON tbl = id"
                ).fetchall()
        except sqlite3.OperationalError:
            return 0  # it is being made
        return sum(max(0, waiting) for (waiting,) in found)

    def acked(self) -> int:
        """Return how many rows of the table the store has acknowledged."""
        try:
            with closing(sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True)) as db:
                found = db.execute("SELECT acked FROM tables WHERE name = ?", (TABLE,)).fetchone()
        except sqlite3.OperationalError:
            return 0  # it is being made
        return found[0] if found else 0

    def forget_the_machines_start(self) -> None:
        """Let the journal of the ended process believe that the machine was started since."""
        with closing(sqlite3.connect(self.journal)) as db, db:
            remember(db, "boot", "another")

    def first_kept(self) -> int:
        """Return the first position of the table's queue whose row the journal still holds."""
        with closing(sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True)) as db:
            (found,) = db.execute(
                "SELECT min(first) FROM entries JOIN tables ON tables.id = tbl WHERE name = ?",
                (TABLE,),
            ).fetchone()
        return found or 0

    def journaled(self) -> list[RowTuple]:
        """Return the rows that the journal of the ended process still holds."""
        copy = self.directory / "copy"
        copy.mkdir(exist_ok=True)
        for old in copy.iterdir():
            old.unlink()
        for part in self.journal.parent.glob(f"{self.journal.name}*"):
            if part.suffix != ".lock" and "damaged" not in part.name:
                (copy / part.name).write_bytes(part.read_bytes())
        with open_journal(copy / self.journal.name) as journal:
            queue = journal.queue(TABLE)
            return [row for entry in queue.since(queue.first_kept()) for row in entry.rows]


def make_tables(server: ClickHouseServer, *tables: str, engine: str = "stripelog") -> None:
    """Make the tables on a server."""
    with closing(server_store(server.url)) as store:
        made = [market_table(table, engine) for table in tables or (TABLE,)]
        schema.prepare(store, [*made, GAPS])


def ask(recorder: Recorder, server: ClickHouseServer | None, sql: str) -> list[tuple[Any, ...]]:
    """Ask the store of a recorder, whether or not somebody has it open."""
    (answer,) = ask_all(recorder, server, sql)
    return answer


def ask_all(
    recorder: Recorder, server: ClickHouseServer | None, *statements: str
) -> list[list[tuple[Any, ...]]]:
    """Ask it more than one thing."""
    if server is not None:
        return [server.execute(sql) for sql in statements]
    return read_all_embedded(recorder.state, *statements)


def _rows_of(recorder: Recorder, table: str) -> str:
    order = " ORDER BY n" if recorder.engine == "mergetree" else ""
    return (
        f"SELECT toUnixTimestamp64Milli(ts), mt, m FROM {DATABASE}.{table}{order} "
        f"SETTINGS max_threads = 1"
    )


_GAPS: Final = (
    f"SELECT symbol, channel, toUnixTimestamp64Milli(`from`), toUnixTimestamp64Milli(`to`), "
    f"cause, detail, version_before, version_after FROM {DATABASE}.gaps"
)


def stored(
    recorder: Recorder, server: ClickHouseServer | None, table: str = TABLE
) -> list[RowTuple]:
    """Return a table's rows in the order of insertion."""
    return ask(recorder, server, _rows_of(recorder, table))


def stored_gaps(recorder: Recorder, server: ClickHouseServer | None) -> list[Gap]:
    """Return the table `gaps`."""
    return [Gap(*row) for row in ask(recorder, server, _GAPS)]


def opened(recorder: Recorder, server: ClickHouseServer | None) -> AbstractContextManager[None]:
    """Hold the store of a recorder that has ended open for several questions."""
    return held_open(recorder.state) if server is None else nullcontext()


@attrs.frozen
class Comparison:
    """What a comparison of the exchange's log with a table showed."""

    segments: list[list[Sent]]
    """The rows stored of each connection: the first ones that were sent on it."""
    missing: list[int]
    """Of each connection, how many rows at its end are not stored."""

    @property
    def rows(self) -> int:
        """Rows stored."""
        return sum(map(len, self.segments))


def compare(connections: Sequence[Sequence[Sent]], table: Sequence[RowTuple]) -> Comparison:
    """See that a table holds the first rows of each connection in turn, in order and each once.

    The end of a connection may be missing: it was still in the socket when the recorder was killed.
    """
    at = 0
    segments: list[list[Sent]] = []
    missing: list[int] = []
    for sent in connections:
        n = 0
        while n < len(sent) and at + n < len(table) and sent[n].row == table[at + n]:
            n += 1
        segments.append(list(sent[:n]))
        missing.append(len(sent) - n)
        at += n
    if at != len(table):
        everything = {
            one.row: (c, i) for c, rows in enumerate(connections) for i, one in enumerate(rows)
        }
        where = [everything.get(row) for row in table[max(0, at - 2) : at + 3]]
        raise AssertionError(
            f"row {at} of {len(table)} is not the next that was sent; around it (connection, row "
            f"of that): {where}; stored of each connection: {list(map(len, segments))}, "
            f"not stored: {missing}"
        )
    TALLY.rows += len(table)
    return Comparison(segments, missing)


def expected_gaps(segments: Sequence[Sequence[Sent]]) -> list[tuple[str, int, int, int, int]]:
    """Return channel, from, to and versions of the gap before each connection but the first."""
    last: dict[str, Sent] = {}
    gaps: list[tuple[str, int, int, int, int]] = []
    for segment in segments:
        seen: set[str] = set()
        for one in segment:
            channel = _CHANNEL_OF.get(str(one.row[1]))
            if channel is None:
                continue
            if channel not in seen and channel in last:
                before = last[channel]
                start, end = int(before.row[0]), int(one.row[0])
                gaps.append((channel, start, max(start, end), before.version, one.version))
            seen.add(channel)
            last[channel] = one
    return gaps


def compare_gaps(
    segments: Sequence[Sequence[Sent]], gaps: Sequence[Gap], symbol: str = SYMBOL
) -> None:
    """See that the table `gaps` names the gap between two connections, of each channel, once.

    Two more may be there: of a channel that was lost before its first row, up to that; and of one
    that was lost when the recorder was stopped, up to the stop.
    """
    expected = sorted(expected_gaps(segments))
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for one in (one for segment in segments for one in segment):
        channel = _CHANNEL_OF.get(str(one.row[1]), "")
        first.setdefault(channel, int(one.row[0]))
        last[channel] = int(one.row[0])
    found = sorted(
        (g.channel, g.start, g.end, g.version_before, g.version_after)
        for g in gaps
        if g.symbol == symbol and g.channel != "all"
    )
    starts = {(gap[0], gap[1]): gap[2] for gap in expected}
    extra = [
        gap
        for gap in found
        if gap not in expected
        and gap[1] >= first.get(gap[0], 0)
        and gap[1] != last.get(gap[0])
        and gap[2] > starts.get((gap[0], gap[1]), 0)
    ]
    missing = [gap for gap in expected if found.count(gap) != expected.count(gap)]
    assert not missing, f"gaps that are not in the table as often as they should: {missing[:5]}"
    assert not extra, f"in the table, but no gaps: {extra[:5]}"
    TALLY.rows += len(found)


def compare_all(
    exchange: Exchange, recorder: Recorder, server: ClickHouseServer | None
) -> Comparison:
    """Compare rows and gaps of the one symbol with what was sent."""
    rows, gaps = ask_all(recorder, server, _rows_of(recorder, TABLE), _GAPS)
    found = compare(exchange.connections(), rows)
    compare_gaps(found.segments, [Gap(*row) for row in gaps])
    return found


def kill_in_rewriting(
    victim: str,
    recorder: Recorder,
    server: ClickHouseServer | None,
    requests: Iterable[RewritingRequest],
    instants: random.Random,
) -> None:
    """Ask for rewritings while rows come, and kill the recorder or the engine within each.

    In the end the recorder runs.
    """
    for request in requests:
        if not recorder.is_running:
            recorder.start()
        recorder.stores(50)
        request.leave(recorder.journal)
        recorder.run_for(instants.uniform(0, 0.5))
        if victim == "recorder":
            recorder.kill()
        elif server is not None:
            server.kill()
            server.start()
        else:
            recorder.kill_engine()
    if not recorder.is_running:
        recorder.start()


@contextmanager
def recording(
    directory: Path, server: ClickHouseServer | None = None, **options: Any
) -> Iterator[tuple[Exchange, Recorder]]:
    """Run an exchange, and hand out a recorder for it that is killed at the end."""
    exchange_options = options.pop("exchange", None)
    with ExitStack() as stack:
        exchange = Exchange(directory / "exchange")
        if exchange_options is not None:
            exchange.options = exchange_options
        stack.enter_context(exchange)
        store = server.url if server is not None else ""
        recorder = Recorder(directory / "recorder", exchange.url, store, **options)
        stack.callback(lambda: recorder.kill() if recorder.is_running else None)
        try:
            yield exchange, recorder
        except BaseException:
            print(recorder.said()[-6000:])
            raise
