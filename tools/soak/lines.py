"""Lines of one symbol that are broken again and again, or replaced: no deal missing, no gap.

The exchange runs here, with deals that all connections share and books that are sampled for each;
the recorder is a process. One line is broken only while another is subscribed and has been heard.
"""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import attrs
import trio

from mexc_trio.filled import Filled
from tools.exchange import Exchange, open_exchange
from tools.soak.recorder import SYMBOL, Outcome, Place, kill, stop, subscribed, until

if TYPE_CHECKING:
    from mexc_trio.rows import Gap
    from tools.market import Row

PAUSE: Final = 0.3
"""Seconds between two faults, and as much again at random."""
_PATIENCE: Final = 30.0
"""Seconds for deals that are asked for to be stored."""
_HEARD: Final = 20
"""Frames that a line was sent before another one is broken: it is known to live by the first."""


@attrs.frozen
class Trial(Place):
    """What is to be done."""

    lines: int = 2
    """Connections of the symbol."""
    kills: int = 400
    """How often one of them is broken."""
    loss: float = 0.0
    """Share of the frames of deals that do not reach one of the lines."""
    delay: float = 0.0
    """Seconds by which every second connection lags. Those are broken first, and what is on its way
    on them is lost; of what the other one lost of the same, nobody has anything."""
    renewals: int = 0
    """How often the lines are replaced afterwards, because their routes are changed in the settings
    and the recorder is told to read them. Of a single line that is a planned reconnect."""
    rate: float = 500.0
    """Messages a second on each line."""
    seconds: float = 0.0
    """How long to go on after the last kill."""
    deals: int = 0
    """And until so many were sent, however long that takes."""
    seed: int = 1
    """Makes the instants repeatable, as far as processes are."""


@attrs.frozen(kw_only=True)
class Result(Outcome):
    """What came of it."""

    kills: int
    renewals: int
    seconds: float
    deals: int
    """Deals that were sent, each once."""
    lost_on_a_line: int
    """Frames of deals that one line did not get while it was subscribed."""
    missing: int
    twice: int
    """Deals that are stored more often than they were made."""
    strange: int
    """Stored rows that nobody sent."""
    gaps: Sequence[Gap]
    """In the ledger, but for those in deals that both lines had lost and that are there now."""
    books: int
    books_back: int
    """Stored books that are not newer than the one before."""
    books_sent: int
    """Books that were sent on the busiest of the lines."""
    longest_pause: float
    """Seconds between two stored books, at the most, less the longest pause in what was sent."""
    exit_code: int

    @property
    def wrong(self) -> bool:
        """Whether a promise was broken."""
        return bool(
            self.missing or self.twice or self.strange or self.gaps or self.books_back
            or self.exit_code
        )  # fmt: skip


async def try_lines(trial: Trial) -> Result:
    """Do it, and compare."""
    chance = random.Random(trial.seed)
    async with open_exchange(
        rate=trial.rate,
        seed=trial.seed,
        shared=True,
        loss=trial.loss,
        delays=(0.0, trial.delay),
        rest_port=0,
    ) as exchange:
        exchange.silence()
        _configure(trial, "direct")
        assert exchange.rest is not None  # noqa: S101 - it was opened with one
        recorder = await trial.start(
            "--lines", str(trial.lines), "--url", exchange.url, "--rest-url", exchange.rest.url
        )
        try:
            began = await _trouble(trial, exchange, recorder, chance)
            if trial.loss and trial.kills:
                await _until_complete(trial, exchange)
            exchange.silence()
            seconds = trio.current_time() - began
            await trial.until_stored(last_deal(exchange))
            await _until_complete(trial, exchange)
            exit_code = await stop(recorder)
        finally:
            await kill(recorder)
        stored = await trio.to_thread.run_sync(trial.rows)
        gaps = [gap for gap in await trio.to_thread.run_sync(trial.ledger) if not _is_whole(gap)]
        return _compared(exchange, trial, stored, gaps, seconds, exit_code)


async def _trouble(
    trial: Trial, exchange: Exchange, recorder: trio.Process, chance: random.Random
) -> float:
    """Break lines; return when the market opened."""
    await until(exchange, recorder, lambda: len(subscribed(exchange)) == trial.lines)
    began = trio.current_time()
    exchange.resume()
    for _ in range(trial.kills):
        await trio.sleep(PAUSE * (1 + chance.random()))
        await until(exchange, recorder, lambda: heard(exchange) == trial.lines)
        late = [one for one in subscribed(exchange) if one.delay]
        await exchange.drop(chance.choice(late or subscribed(exchange)))
        await until(exchange, recorder, lambda: len(subscribed(exchange)) == trial.lines)
    for number in range(trial.renewals):
        await trio.sleep(PAUSE * (1 + chance.random()))
        before = {one.number for one in subscribed(exchange)}
        _configure(trial, ("from:127.0.0.1", "direct")[number % 2])
        recorder.send_signal(signal.SIGHUP)
        await until(
            exchange,
            recorder,
            lambda those=before: (
                len(subscribed(exchange)) == trial.lines  # type: ignore[misc]
                and not those & {one.number for one in subscribed(exchange)}
            ),
        )
    await trio.sleep(trial.seconds or 2 * PAUSE)
    while len({row for row in exchange.rows(SYMBOL) if row[1] == "d"}) < trial.deals:  # noqa: ASYNC110 - counting takes longer than waiting
        await trio.sleep(PAUSE)
    await until(exchange, recorder, lambda: heard(exchange) == trial.lines)
    return began


async def _until_complete(trial: Trial, exchange: Exchange) -> None:
    """Give what a line lags with the time to come, and what no line brought to be asked for."""
    sent = {row for row in exchange.rows(SYMBOL) if row[1] == "d"}
    with trio.move_on_after(_PATIENCE):
        while sent - set(await trio.to_thread.run_sync(trial.rows)):  # noqa: ASYNC110 - files
            await trio.sleep(PAUSE)


def heard(exchange: Exchange) -> int:
    """Count the lines that are subscribed to everything and have been sent enough since."""
    return sum(one.frames >= _HEARD for one in subscribed(exchange))


def last_deal(exchange: Exchange) -> Row:
    """Return the deal that was sent last."""
    # Only the last frames are read: to read all would keep the exchange from answering pings.
    for record in reversed(exchange.sent(SYMBOL)):
        for row in reversed(record.rows or ()):
            if row[1] == "d":
                return row
    raise RuntimeError("no deal was sent")


def _configure(trial: Trial, route: str) -> None:
    (trial.directory / "settings.ini").write_text(f"[{SYMBOL}]\nroute = {route}\n")


def _compared(
    exchange: Exchange,
    trial: Trial,
    stored: Sequence[Row],
    gaps: Sequence[Gap],
    seconds: float,
    exit_code: int,
) -> Result:
    """Hold what is stored against what was sent."""
    sent: dict[Row, set[int]] = {}
    versions: dict[Row, int] = {}
    books: Counter[int] = Counter()
    for record in exchange.sent(SYMBOL):
        for row in record.rows or ():
            sent.setdefault(row, set()).add(record.connection)
            if row[1] == "dp":
                books[record.connection] += 1
                versions[row] = json.loads(record.frame)["data"]["version"]
    deals = {row for row in sent if row[1] == "d"}
    kept = Counter(stored)
    order = [row for row in stored if row[1] == "dp"]
    known = [versions[row] for row in order if row in versions]
    return Result(
        kills=trial.kills,
        renewals=trial.renewals,
        seconds=round(seconds, 1),
        deals=len(deals),
        lost_on_a_line=exchange.lost,
        missing=len(deals - kept.keys()),
        twice=sum(number - 1 for row, number in kept.items() if row[1] == "d"),
        strange=sum(number for row, number in kept.items() if row not in sent),
        gaps=gaps,
        books=len(order),
        books_back=sum(later <= earlier for earlier, later in pairwise(known)),
        books_sent=max(books.values(), default=0),
        longest_pause=max(0, _pause(order) - _pause(sorted(versions))) / 1000,
        exit_code=exit_code,
    )


def _is_whole(gap: Gap) -> bool:
    filled = Filled.of(gap.detail)
    return filled is not None and filled.whole


def _pause(books: Sequence[Row]) -> int:
    """Return the most milliseconds between one and the next."""
    return max((later[0] - earlier[0] for earlier, later in pairwise(books)), default=0)
