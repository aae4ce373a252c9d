"""What the ledger of gaps says of deals that were fetched afterwards: the end of a row's `detail`.

It is a text because tables of earlier versions have no column for it, and theirs cannot get one.
"""

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple, Self

from mexc_trio.errors import UsageError
from mexc_trio.times import parse_time

_TEXT: Final = re.compile(r"; filled( whole)?: (\d+) deals?(?: from (\S+))?$")

FILLED_SQL: Final = "(channel = 'deal' AND position(detail, '; filled') > 0)"
"""Whether deals of a gap were fetched afterwards."""
WHOLE_SQL: Final = "position(detail, '; filled whole') > 0"
"""Whether nothing of it is missing any more."""
DEALS_SQL: Final = "toUInt64OrZero(extract(detail, '; filled(?: whole)?: ([0-9]+) deal'))"
"""How many deals were fetched."""
FIRST_SQL: Final = "extract(detail, '; filled(?: whole)?: [0-9]+ deals? from ([^ ]+)$')"
"""The time of the first of them as text; empty without any."""


class Filled(NamedTuple):
    """How far a gap in deals was filled."""

    deals: int
    """How many were fetched. They are in the table, behind those that came before."""
    first: int
    """Milliseconds: the first of them; 0 if a whole gap had none."""
    whole: bool
    """Whether nothing is missing any more. Else nothing is from the first one's millisecond on."""

    def since(self, start: int) -> int:
        """Return from when on a gap that began at `start` is filled, in milliseconds."""
        return start if self.whole else self.first + 1

    def text(self) -> str:
        """Return what stands at the end of the detail."""
        whole = " whole" if self.whole else ""
        deals = f"{self.deals} deal{'' if self.deals == 1 else 's'}"
        return f"; filled{whole}: {deals}{f' from {_time(self.first)}' if self.deals else ''}"

    @classmethod
    def of(cls, detail: str) -> Self | None:
        """Read it; None if the gap was not filled."""
        found = _TEXT.search(detail)
        if found is None:
            return None
        try:
            first = parse_time(found[3]) if found[3] else 0
        except UsageError:
            return None
        return cls(int(found[2]), first, bool(found[1]))


def _time(milliseconds: int) -> str:
    at = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03}Z"
