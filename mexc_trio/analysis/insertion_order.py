"""One table read in the order of insertion: pauses, times that run backwards, rows stored twice.

One thread reads a StripeLog table in that order, and a MergeTree's rows bear their numbers. So a
window function sees each row beside the one before it, and memory does not grow with the table. Nor
does it in the search for rows that are stored twice: while each row of a type is later than the one
before, none is. An INSERT that was done twice shows as a *step*: its first row goes back in time,
or stands still, and another row like it stands elsewhere. So the steps are looked for first, then
rows like those at the steps, and only around steps that have one is each row compared with others.

What counts as what:

- Time may run *backwards* by `TOLERANCE` between two rows of a type. Deals of one moment come from
  several machines of the exchange, in frames that may overtake one another; and a line that was
  stalled brings late, until its ping is overdue, what another one lacked. A step back from the
  last row before a gap of the ledger is no fault: a new connection may begin with what was sent
  last. Nor is one to the first of the deals that were fetched for a gap afterwards.
- A ticker or a book is *repeated* if a row with its time and its text stands before it: the
  exchange stamps each with a time of its own. At the start of a gap it counts as *resent*, for the
  same reason. The same text with another time is the exchange's own business.
- Deals bear no number that would tell them apart, and one order that is filled by several others
  makes deals of one time and one text. So those are a remark: *alike*. Deals are *repeated* if two
  rows that follow one another and differ in time stand in the table again, both as far behind: so
  looks an INSERT that was done twice, and nothing that the exchange does.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from mexc_trio.channels import ALL
from mexc_trio.clickhouse.schema import TIME, Readable
from mexc_trio.clickhouse.tables import NUMBER
from mexc_trio.errors import StoreError
from mexc_trio.rhythm import PAUSE
from mexc_trio.rows import CHANNELS, DEAD_LETTER, DEAL, DEPTH, TICKER, Channel
from mexc_trio.spans import Span, union

TOLERANCE: Final[Mapping[Channel, int]] = {"ticker": 2_000, "deal": 60_000, "depth": 2_000}
"""Milliseconds by which time may run backwards between two rows of a type."""
MOST_PAUSES: Final = 500_000
"""Of a channel; later ones are not told."""

_MOST_REPEATED: Final = 1_000_000
_MOST_STEPS: Final = 10_000
_MOST_RANGES: Final = 50
_MOST_SECONDS: Final = 15_000  # in a statement, which may have 256 KiB
_MOST_LOOKED_AT: Final = 200
_FAR: Final = 3_600_000  # milliseconds after a longer step back in which rows are compared
_ONE_THREAD: Final = "SETTINGS max_threads = 1"
_READONLY: Final = 164  # ClickHouse's number for that error


@attrs.frozen
class Backwards:
    """Steps back in time of one channel, by more than its tolerance."""

    steps: int
    furthest: int
    """Milliseconds of the longest step; 0 without any."""
    at: int
    """Milliseconds since 1970: the row from which the longest step went back."""


@attrs.frozen
class Repeated:
    """Rows that are in the table more than once; the first of each is not counted."""

    rows: Mapping[Channel, int]
    """Those that cannot be the exchange's doing."""
    first: int | None
    """The time of the first of them, in milliseconds since 1970."""
    resent: int
    """Tickers and books that the exchange sent again after a gap."""
    alike: int
    """Deals of the same time and text as the deal before them."""
    at_least: bool
    """Whether there may be more: they are so many that not all of them were looked at."""


@attrs.frozen
class InsertionOrder:
    """What reading a table in the order of insertion showed."""

    pauses: Mapping[Channel, Sequence[Span]]
    """From the row before to the row after, those longer than `PAUSE`."""
    backwards: Mapping[Channel, Backwards]
    repeated: Repeated


@attrs.frozen
class _Steps:
    """What one channel's pass showed."""

    pauses: list[Span]
    backwards: Backwards
    suspicious: int  # steps back or on the spot
    alike: int


def why_not(store: Readable) -> str:
    """Return why this store cannot be read in order; empty if it can."""
    try:
        store.query(f"SELECT 1 {_ONE_THREAD}")
    except StoreError as error:
        if error.code != _READONLY:
            raise
        return "that needs max_threads = 1, and this user may not set it (readonly = 1)"
    return ""


@attrs.frozen
class OrderedRows:
    """Rows of a table that can be read in the order of insertion."""

    sql: str
    """What stands behind FROM."""
    numbered: bool

    @property
    def order(self) -> str:
        """What stands in a window to see the rows in their order."""
        return f"ORDER BY {NUMBER} " if self.numbered else ""

    @property
    def number(self) -> str:
        """The SQL of a row's number."""
        return NUMBER if self.numbered else "rowNumberInAllBlocks()"


def read_order(
    store: Readable, source: OrderedRows, starts: Mapping[Channel, str], fills: str
) -> InsertionOrder:
    """Read a table in the order of insertion, from a store to which `why_not` has no objection.

    `starts` has the SELECT of each channel for the starts of its gaps, in milliseconds; `fills` is
    one for the times of the first deals that were fetched for gaps. Raises StoreError where there
    is no answer.
    """
    none = "SELECT toInt64(0)"
    found = {
        name: _steps(store, source, name, starts[name], fills if name == "deal" else none)
        for name in CHANNELS
    }
    return InsertionOrder(
        {name: steps.pauses for name, steps in found.items()},
        {name: steps.backwards for name, steps in found.items()},
        _repeated(store, source, found, starts),
    )


def _steps(
    store: Readable, source: OrderedRows, channel: Channel, starts: str, fills: str
) -> _Steps:
    hashed = channel == "deal"
    far = f"back > {TOLERANCE[channel]}"
    wrong = f"({far} AND before NOT IN ({starts}) AND at NOT IN ({fills}))"
    pause = f"back < -{PAUSE[channel]}"
    row = store.query(
        f"SELECT countIf({far}), countIf({wrong}), maxIf(back, {wrong}), "
        f"argMaxIf(before, back, {wrong}), countIf({_may_be_repeated(channel)}), "
        f"{'countIf(back = 0 AND h = h_before)' if hashed else '0'}, "
        f"groupArrayIf({MOST_PAUSES})(before, {pause}), groupArrayIf({MOST_PAUSES})(at, {pause}) "
        f"FROM ({_next_to_previous(source, channel, hashed=hashed)}) {_ONE_THREAD}"
    )[0]
    all_steps, steps, furthest, at, suspicious, alike = (int(value) for value in row[:6])
    pauses = [(int(a), int(b)) for a, b in zip(row[6], row[7], strict=True)]
    if all_steps:
        pauses = _without_filled(store, source, channel, pauses)
    wrongs = Backwards(steps, furthest, at) if steps else Backwards(0, 0, 0)
    return _Steps(pauses, wrongs, suspicious, alike)


def _without_filled(
    store: Readable, source: OrderedRows, channel: Channel, pauses: Sequence[Span]
) -> list[Span]:
    """Leave out pauses whose rows stand elsewhere in the table, since time ran backwards.

    Only the longest are looked at, because the others worry nobody.
    """
    longest = sorted(pauses, key=lambda pause: pause[0] - pause[1])[:_MOST_LOOKED_AT]
    if not longest:
        return []
    inside = ", ".join(f"countIf(at > {start} AND at < {end})" for start, end in longest)
    counts = store.query(
        f"SELECT {inside} FROM (SELECT {TIME} AS at FROM {source.sql} "
        f"WHERE mt = '{ALL[channel].mt}')"
    )[0]
    filled = {pause for pause, n in zip(longest, counts, strict=True) if int(n)}
    return [pause for pause in pauses if pause not in filled]


def _next_to_previous(source: OrderedRows, channel: Channel, *, hashed: bool) -> str:
    """Return the SQL that shows each row's time beside that of the row before of its type."""
    more = ", h, lagInFrame(h) OVER w AS h_before" if hashed else ""
    columns = ", cityHash64(m) AS h" if hashed else ""
    columns += f", {NUMBER}" if source.numbered else ""
    return (
        f"SELECT at, lagInFrame(at, 1, at - 1) OVER w AS before, before - at AS back{more} "
        f"FROM (SELECT {TIME} AS at{columns} "
        f"FROM {source.sql} WHERE mt = '{ALL[channel].mt}') "
        f"WINDOW w AS ({source.order}ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)"
    )


def _may_be_repeated(channel: Channel) -> str:
    """Return the SQL of the steps around which a row may be there twice."""
    return "back > 0" if channel == "deal" else "back >= 0"


def _repeated(
    store: Readable,
    source: OrderedRows,
    found: Mapping[Channel, _Steps],
    starts: Mapping[Channel, str],
) -> Repeated:
    alike = found["deal"].alike
    steps = _steps_to_repeated(store, source, found)
    spans = union((at, min(before + 1, at + _FAR)) for at, before in steps)
    where, complete = _in_spans(spans)
    at_least = not complete or len(steps) == _MOST_STEPS or any(b - a > _FAR for a, b in steps)
    if not spans:
        return Repeated(dict.fromkeys(CHANNELS, 0), None, 0, alike, at_least=False)
    # All rows are numbered, also those that are of no interest.
    numbered = (
        f"SELECT toString(mt) AS k, {TIME} AS at, cityHash64(m) AS h, {source.number} AS n "
        f"FROM {source.sql}"
    )
    # Deals of one text without a row in between are known already.
    repeated = (
        f"SELECT k, at, count() - 1 AS more, min(n) AS first, max(n) - min(n) AS far "
        f"FROM ({numbered}) WHERE k != '{DEAD_LETTER}' AND ({where}) GROUP BY k, at, h "
        f"HAVING more > 0 AND NOT (k = '{DEAL}' AND far = more) LIMIT {_MOST_REPEATED}"
    )
    again = " OR ".join(
        f"(k = '{ALL[name].mt}' AND at IN ({starts[name]}))" for name in CHANNELS if name != "deal"
    )
    groups = (
        f"SELECT sumIf(more, k = '{TICKER}' AND NOT again) AS tickers, "
        f"sumIf(more, k = '{DEAL}') AS deals, sumIf(more, k = '{DEPTH}' AND NOT again) AS depths, "
        f"sumIf(more, again) AS resents, arraySort(groupArray((first, at))) AS a, "
        f"arrayExists((x, y) -> y.1 = x.1 + 1 AND x.2 != y.2, arrayPopBack(a), arrayPopFront(a)) "
        f"AS whole, minIf(at, k != '{DEAL}' AND NOT again) AS first_other, "
        f"minIf(at, k = '{DEAL}') AS first_deal "
        f"FROM (SELECT *, {again} AS again FROM ({repeated})) GROUP BY far, intDiv(at, 60000)"
    )
    row = store.query(
        f"SELECT sum(tickers), sumIf(deals, whole), sum(depths), sum(resents), "
        f"sumIf(deals, NOT whole), minIf(first_other, tickers + depths > 0), "
        f"minIf(first_deal, whole AND deals > 0) FROM ({groups}) "
        f"{_ONE_THREAD}"
    )[0]
    tickers, deals, depths, resent, more_alike, first_other, first_deal = map(int, row)
    firsts = [first_other] * (tickers + depths > 0) + [first_deal] * (deals > 0)
    rows: dict[Channel, int] = {"ticker": tickers, "deal": deals, "depth": depths}
    return Repeated(rows, min(firsts, default=None), resent, alike + more_alike, at_least)


def _steps_to_repeated(
    store: Readable, source: OrderedRows, found: Mapping[Channel, _Steps]
) -> list[Span]:
    """Return the steps to a row like which there is another: the earlier time, then the later."""
    steps = " UNION ALL ".join(
        f"SELECT at, before, cityHash64('{ALL[name].mt}', at, h) AS row_hash "
        f"FROM ({_next_to_previous(source, name, hashed=True)}) WHERE {_may_be_repeated(name)}"
        for name, one in found.items()
        if one.suspicious
    )
    if not steps:
        return []
    row_hash = f"cityHash64(toString(mt), {TIME}, cityHash64(m))"
    rows = f"SELECT {row_hash} AS row_hash FROM {source.sql}"
    likes = (
        f"SELECT row_hash FROM ({rows}) WHERE row_hash IN (SELECT row_hash FROM ({steps})) "
        f"GROUP BY row_hash HAVING count() > 1"
    )
    answer = store.query(
        f"SELECT at, before FROM ({steps}) WHERE row_hash IN ({likes}) LIMIT {_MOST_STEPS} "
        f"{_ONE_THREAD}"
    )
    return [(int(at), int(before)) for at, before in answer]


def _in_spans(spans: Sequence[Span]) -> tuple[str, bool]:
    """Return the SQL for being in one of the spans, and whether that is all of them."""
    if len(spans) <= _MOST_RANGES:
        ranges = (f"(at >= {start} AND at < {end})" for start, end in spans)
        return " OR ".join(ranges), True
    seconds = {s for start, end in spans for s in range(start // 1000, (end - 1) // 1000 + 1)}
    some = sorted(seconds)[:_MOST_SECONDS]
    return f"intDiv(at, 1000) IN ({', '.join(map(str, some))})", len(some) == len(seconds)
