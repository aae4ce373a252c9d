"""The free space of the disk: told in time, seldom, and with the time that is left."""

import pytest

from mexc_trio.errors import DiskFull
from mexc_trio.record.disk import HOUR, FreeSpace

MIB = 2**20


def test_a_word_at_twice_the_bound_and_then_one_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reads the log has time to do something, and is told how much."""
    space = FreeSpace()
    free, second = 600 * MIB, 0
    while free >= 256 * MIB:
        space.check(free, 256 * MIB, float(second), "/srv")
        second += 2
        free -= MIB // 18  # 100 MiB an hour
    with pytest.raises(DiskFull, match="only 255 MiB are free at /srv, the bound is 256 MiB"):
        space.check(free, 256 * MIB, float(second), "/srv")
    assert caplog.messages == [
        f"only {left} MiB are free at /srv, and recording stops at 256 MiB, in about {hours} hours "
        f"at the present rate"
        for left, hours in [(511, 2.6), (411, 1.6), (311, 0.6)]
    ]


def test_no_time_is_told_that_nobody_knows(caplog: pytest.LogCaptureFixture) -> None:
    """Just started, or while others make room; after that it is told anew."""
    space = FreeSpace()
    space.check(300 * MIB, 256 * MIB, 0.0, "/srv")
    space.check(310 * MIB, 256 * MIB, HOUR, "/srv")
    space.check(900 * MIB, 256 * MIB, HOUR + 1, "/srv")
    space.check(300 * MIB, 256 * MIB, HOUR + 2, "/srv")
    lines = ["only 300", "only 310", "only 300"]
    assert [message[:8] for message in caplog.messages] == lines
    assert not any("hours" in message for message in caplog.messages[:2])


def test_no_bound_is_no_word(caplog: pytest.LogCaptureFixture) -> None:
    """`--min-free-mib 0` is a choice."""
    FreeSpace().check(0, 0, 0.0, "/srv")
    assert not caplog.messages
