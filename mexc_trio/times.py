"""Times as people write them: in UTC, and milliseconds since 1970 in here."""

from datetime import UTC, date, datetime
from typing import Final, TypeAlias

from mexc_trio.errors import UsageError

Time: TypeAlias = str | date | int
"""A text such as `2026-11-21` or `2026-11-21T09:30:00`, a date or datetime (pandas' Timestamp is
one), or milliseconds since 1970. What has no time zone is in UTC."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time(time: Time) -> int:
    """Return a time in milliseconds.

    Raises:
        UsageError: it is none, or before 1970.

    >>> parse_time("1970-01-02")
    86400000
    """
    if isinstance(time, int):
        return time
    moment = _moment(time)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - _EPOCH
    milliseconds = (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
    if milliseconds < 0:
        raise UsageError(f"{str(time)!r} is before 1970")
    return milliseconds


def parse_option_time(option: str, text: str) -> int:
    """Return the time of an option in milliseconds; UsageError, which names it, if it is none."""
    try:
        return parse_time(text)
    except UsageError as error:
        raise UsageError(f"{option} {error}") from error


def _moment(time: str | date) -> datetime:
    if isinstance(time, str):
        try:
            return datetime.fromisoformat(time)
        except ValueError as error:
            raise UsageError(
                f"{time!r} is no time; write 2026-11-21 or 2026-11-21T09:30:00, in UTC"
            ) from error
    if isinstance(time, datetime):
        return time
    return datetime(time.year, time.month, time.day, tzinfo=UTC)


def day_name(milliseconds: int) -> str:
    """Return the date of a time, in UTC, such as 2026-11-21."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).date().isoformat()


def time_name(milliseconds: int) -> str:
    """Return a time in UTC such as 2026-11-21 09:30:00."""
    return datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
