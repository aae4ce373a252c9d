"""Whether what people ask of the data is answered right: on a day of a busy contract, see `day`."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any, Final

EPOCH: Final = datetime.fromtimestamp(0, UTC)


class WrongAnswerError(AssertionError):
    """An answer is not what the raw texts say."""


def rows_of(table: Any) -> list[tuple[Any, ...]]:
    """Return the rows of an Arrow table as Python has them, which is how people get answers."""
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def same(answer: Any, wanted: Any) -> None:
    """Compare to nine digits, which is what a difference of two prices leaves.

    Args:
        answer: numbers, texts, times, in lists and tuples.
        wanted: the same, with times in milliseconds.

    Raises:
        WrongAnswerError: they differ, or there is nothing to compare.
    """
    if isinstance(wanted, list | tuple):
        if not len(answer) == len(wanted) > 0:
            raise WrongAnswerError(f"{len(answer)} instead of {len(wanted)}")
        for a, w in zip(answer, wanted, strict=True):
            same(a, w)
        return
    if isinstance(wanted, str):
        alike = answer == wanted
    elif isinstance(answer, datetime):
        alike = answer == EPOCH + timedelta(milliseconds=int(wanted))
    else:
        alike = math.isclose(float(answer), float(wanted), rel_tol=1e-9)
    if not alike:
        raise WrongAnswerError(f"{answer} instead of {wanted}")
