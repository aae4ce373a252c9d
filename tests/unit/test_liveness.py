"""When a channel's silence is suspicious: rarely for a living channel, soon for a dead one."""

import math
import random
from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from mexc_trio.exchange.liveness import FACTOR, FRAMES_TO_LEARN, LEAST, MOST, Liveness
from mexc_trio.exchange.session import WATCH_INTERVAL
from mexc_trio.rows import Channel


def regular(channel: Channel, pause: float, frames: int = 100) -> tuple[Liveness, float]:
    """Return the liveness of a channel with regular frames, and the time of the last one."""
    liveness = Liveness(channel)
    now = 1000.0
    liveness.connected(now)
    for _ in range(frames):
        now += pause
        liveness.note_frame(now)
    return liveness, now


def noticed(liveness: Liveness, since: float) -> tuple[float, float]:
    """Return after how much silence it is subscribed again, and after how much given up."""
    asked = given_up = None
    now = since
    while given_up is None:
        now += WATCH_INTERVAL
        assert now < since + 10 * MOST
        if liveness.give_up(now):
            given_up = now - since
        elif liveness.subscribe_again(now):
            assert asked is None, "asked twice for one silence"
            asked = now - since
    assert asked is not None
    return asked, given_up


@pytest.mark.parametrize("channel", ["ticker", "deal", "depth"])
def test_a_busy_channel_that_dies_is_noticed_within_a_minute(channel: Channel) -> None:
    """Tens of seconds to the new subscription, and some more to the new connection."""
    liveness, last = regular(channel, 0.3)
    asked, given_up = noticed(liveness, last)
    assert asked <= LEAST + WATCH_INTERVAL
    assert asked + WATCH_INTERVAL < given_up <= 60


def test_a_quiet_channel_is_given_time_by_its_own_measure() -> None:
    """A contract with a deal every two minutes is not suspected after a few of them."""
    liveness, last = regular("deal", 120.0)
    asked, given_up = noticed(liveness, last)
    assert FACTOR * 120 <= asked < FACTOR * 120 + 2 * WATCH_INTERVAL
    assert given_up < 10 * 120


@pytest.mark.parametrize(
    ("channel", "patience"), [("ticker", 60.0), ("depth", 180.0), ("deal", 900.0)]
)
def test_before_a_rhythm_is_known_a_channel_has_the_time_of_a_quiet_one(
    channel: Channel, patience: float
) -> None:
    """A channel that never says anything is noticed, too."""
    liveness = Liveness(channel)
    liveness.connected(50.0)
    assert liveness.patience == patience
    liveness.connected(70.0)
    asked, given_up = noticed(liveness, 70.0)
    assert patience <= asked < patience + 2 * WATCH_INTERVAL
    assert given_up <= 1.5 * patience + WATCH_INTERVAL


def test_a_long_pause_counts_before_the_rhythm_is_known() -> None:
    """Nobody waits for twenty deals of a contract that has one in two hours."""
    liveness = Liveness("deal")
    liveness.connected(0)
    liveness.note_frame(1200.0)
    assert liveness.patience == FACTOR * 1200


def test_a_frame_ends_the_suspicion() -> None:
    """Having been subscribed again and heard of, a channel is asked anew at its next silence."""
    liveness, last = regular("depth", 1.0)
    assert liveness.subscribe_again(last + LEAST)
    liveness.note_frame(last + LEAST + 1)
    assert not liveness.give_up(last + 2 * LEAST)
    assert liveness.silence(last + LEAST + 3) == 2


def test_each_connection_that_did_not_help_doubles_the_patience() -> None:
    """A market that is closed for hours costs a handful of connections, even if each greets us.

    The exchange sends the last book of a closed market on each new connection, so one frame must
    not take the leniency back.
    """
    liveness, now = regular("depth", 1.0)
    connections = []
    closed_until = now + 12 * 3600
    while True:
        _, silent = noticed(liveness, now)
        now += silent
        if now > closed_until:
            break
        connections.append(silent)
        liveness.connected(now)
        liveness.note_frame(now + 0.2)
        now += 0.2
    assert len(connections) <= 12
    assert connections == sorted(connections)
    # When the market is open again, the channel is watched as before.
    liveness.connected(now)
    for _ in range(FRAMES_TO_LEARN):
        now += 1
        liveness.note_frame(now)
    assert liveness.patience < 300


def test_patience_has_an_end() -> None:
    """However quiet a contract is, a dead channel is noticed in the end."""
    liveness, _ = regular("deal", 3 * 3600.0, frames=5)
    assert liveness.patience == MOST
    for _ in range(20):
        liveness.connected(0.0)
        assert liveness.subscribe_again(1e9)
        assert liveness.give_up(1e9)
    assert liveness.patience == MOST


def test_a_long_pause_is_forgotten_in_time() -> None:
    """A bad quarter of an hour does not make a busy channel unwatched for the rest of the day."""
    liveness, now = regular("deal", 0.2)
    now += 600
    liveness.note_frame(now)
    assert liveness.patience == FACTOR * 600
    for _ in range(int(2 * 3600 / 0.2)):
        now += 0.2
        liveness.note_frame(now)
    assert liveness.patience == LEAST


def poisson(mean: float) -> Callable[[random.Random], Iterator[float]]:
    """Make pauses of deals that know nothing of each other."""

    def pauses(chance: random.Random) -> Iterator[float]:
        while True:
            yield chance.expovariate(1 / mean)

    return pauses


def bursts(mean: float) -> Callable[[random.Random], Iterator[float]]:
    """Make pauses of a quiet contract with bursts of two thousand deals in ten minutes."""

    def pauses(chance: random.Random) -> Iterator[float]:
        while True:
            for _ in range(30):
                yield chance.expovariate(1 / mean)
            for _ in range(2000):
                yield chance.expovariate(1 / 0.3)

    return pauses


def nights(mean: float) -> Callable[[random.Random], Iterator[float]]:
    """Make pauses that are ten times as long in the dead of night as at noon."""

    def pauses(chance: random.Random) -> Iterator[float]:
        now = 0.0
        while True:
            night = (1 + math.cos(now / 86400 * 2 * math.pi)) / 2
            pause = chance.expovariate(1 / (mean * 10**night))
            now += pause
            yield pause

    return pauses


@pytest.mark.parametrize(
    "market",
    [
        *(poisson(mean) for mean in (0.2, 5.0, 60.0, 600.0, 3600.0)),
        *(bursts(mean) for mean in (60.0, 240.0)),
        *(nights(mean) for mean in (1.0, 30.0)),
    ],
    ids=["0.2s", "5s", "1min", "10min", "1h", "bursts", "quiet bursts", "nights", "quiet nights"],
)
def test_a_living_channel_is_hardly_ever_suspected(
    market: Callable[[random.Random], Iterator[float]],
) -> None:
    """Once in ten days of a channel at the most, and hardly ever at the cost of a connection."""
    suspected = replaced = 0
    days = 0.0
    for seed in range(20):
        liveness = Liveness("deal")
        now = 0.0
        liveness.connected(now)
        for pause in islice(market(random.Random(seed)), 5000):
            if pause > LEAST and liveness.subscribe_again(now + pause):
                suspected += 1
                if liveness.give_up(now + pause):
                    replaced += 1
                    liveness.connected(now + pause)
            now += pause
            liveness.note_frame(now)
        days += now / 86400
    assert suspected <= days / 10
    assert replaced <= days / 50
