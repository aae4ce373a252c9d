"""What is said of a store that answers and refuses rows: a line a minute, not one a table."""

import logging
import math
from typing import Final

import attrs
import trio

from mexc_trio.clickhouse.tables import Table
from mexc_trio.errors import StoreError

log = logging.getLogger(__name__)

SAY_AGAIN: Final = 60.0
"""Seconds until the same trouble with a store that comes and goes is worth another line."""


@attrs.define(eq=False)
class Refusals:
    """The refusals of one store. A thousand tables that are refused for one reason are one line."""

    # When one of its kind was said last, and how many were not said since.
    _said: dict[tuple[type[StoreError], int], tuple[float, int]] = attrs.field(
        factory=dict, init=False
    )

    def say(self, table: Table, error: StoreError) -> None:
        """Say that rows of a table are held back: at once, and once a minute while it lasts."""
        now, kind = trio.current_time(), (type(error), error.code)
        said_at, unsaid = self._said.get(kind, (-math.inf, 0))
        if now - said_at < SAY_AGAIN:
            self._said[kind] = said_at, unsaid + 1
            return
        self._said[kind] = now, 0
        others = f" (and {unsaid} refusals of the same kind since the last line)" if unsaid else ""
        log.warning(
            "table %s: %s; its rows wait in the journal, and it is tried again%s",
            table.name, error, others,
        )  # fmt: skip
