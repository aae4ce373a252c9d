"""Many symbols on two lines, and faults of every kind: then all that was made against all rows.

The exchange runs here, and goes on dealing in contracts that nobody hears; the recorder is a
process. Most faults take one connection, some take all, some are the recorder's own or those of
what it writes to. In the end each deal is stored once, or lacking inside a row of the ledger.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import trio

from mexc_trio import open_store
from mexc_trio.record.causes import SILENT_ELSEWHERE
from tools.exchange import open_exchange
from tools.soak.made import Comparison, Made
from tools.soak.recorder import SYMBOL, Outcome, kill, text_of
from tools.soak.trouble import PATIENCE, Soak, Trouble

if TYPE_CHECKING:
    from mexc_trio.rows import Gap

_CLOSE: Final = 3_000
"""Milliseconds around a time without any line in which a gap is no surprise."""
_ALL_LINES: Final = "no pong"
"""Begins the detail of gaps of a fault that strikes all lines, open as the exchange sees them."""


@attrs.frozen(kw_only=True)
class Result(Outcome):
    """What came of it."""

    seconds: float
    symbols: int
    faults: dict[str, int]
    comparison: Comparison
    gaps: dict[str, int]
    """Rows of the ledger by channel and cause."""
    needless: Sequence[Gap]
    """Those of lost connections at a time when a line lived and was answered."""
    uncertain: int
    """The same where that line's channel was silent for longer than is usual, as the row says."""
    wrongs: Sequence[str]
    """What is wrong, as `mexc-trio verify` says."""
    exit_code: int

    @property
    def wrong(self) -> bool:
        """Whether a promise was broken."""
        it = self.comparison
        return bool(
            it.unaccounted or it.twice or it.strange or it.books_back or it.untrue
            or self.needless or self.wrongs or self.exit_code
        )  # fmt: skip

    def __str__(self) -> str:
        known = attrs.asdict(self, recurse=False)
        return text_of(known | attrs.asdict(known.pop("comparison")))


async def try_everything(soak: Soak) -> Result:
    """Do it, and compare."""
    symbols = [SYMBOL, *(f"C{number:03}_USDT" for number in range(1, soak.symbols))]
    made = Made()
    async with (
        open_exchange(
            rate=soak.rate, seed=soak.seed, shared=True, rest_port=0, keep=False
        ) as exchange,
        trio.open_nursery() as nursery,
    ):
        exchange.records.listeners.append(made.note)
        trouble = Trouble(soak, exchange, made, symbols)
        began = trio.current_time()
        try:
            await trouble.start()
            await trouble.whole()
            nursery.start_soon(trouble.look)
            await trouble.run()
            exchange.silence()
            seconds = trio.current_time() - began
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True), trio.fail_after(PATIENCE):
                await trio.sleep(2)
                recorder = trouble.recorder
                assert recorder is not None  # noqa: S101 - it was started
                recorder.send_signal(signal.SIGINT)
                exit_code = await recorder.wait()
        finally:
            if trouble.recorder is not None:
                await kill(trouble.recorder)
    return _compared(soak, trouble, seconds, exit_code)


def _compared(soak: Soak, trouble: Trouble, seconds: float, exit_code: int) -> Result:
    """Hold every row against what was made, and each gap against who was heard."""
    comparison = Comparison()
    soak.run("drain").check_returncode()  # what the store did not take in time is in the journal
    ledger = soak.ledger()
    target = soak.store if "://" in soak.store else Path(soak.directory, soak.store)
    with open_store(target) as store:
        for symbol in trouble.symbols:
            table = symbol.removesuffix("_USDT").lower()
            columns = store.sql(
                f"SELECT toUnixTimestamp64Milli(ts), toString(mt), m FROM {table} "  # noqa: S608
                f"SETTINGS max_threads = 1"
            ).to_pydict()
            rows = list(zip(*columns.values(), strict=True))
            comparison.add(symbol, trouble.made, rows, ledger)
    lost = [
        gap
        for gap in ledger
        if gap.cause == "connection lost"
        and not gap.detail.startswith(_ALL_LINES)
        and not any(
            gap.start - _CLOSE <= at <= gap.end + _CLOSE for at in trouble.blind[gap.symbol]
        )
    ]
    needless = [gap for gap in lost if SILENT_ELSEWHERE not in gap.detail]
    return Result(
        seconds=round(seconds, 1),
        symbols=len(trouble.symbols),
        faults=dict(trouble.done),
        comparison=comparison,
        gaps=dict(Counter(f"{gap.channel}, {gap.cause}" for gap in ledger)),
        needless=needless,
        uncertain=len(lost) - len(needless),
        wrongs=soak.wrongs(),
        exit_code=exit_code,
    )
