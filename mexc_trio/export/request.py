"""What an export is asked for, and the checks that need no store."""

import re
import tempfile
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final

import attrs

from mexc_trio.channels import OPTIONAL_VIEWS
from mexc_trio.errors import UsageError
from mexc_trio.spans import DAY, HOUR, MINUTE, SECOND
from mexc_trio.times import day_name, parse_option_time

KINDS: Final = ("deals", "tickers", "depths", "candles", *OPTIONAL_VIEWS, "raw", "gaps")
FORMATS: Final = ("parquet", "csv", "jsonl", "hftbacktest", "nautilus")
BACKTESTS: Final = ("hftbacktest", "nautilus")
"""Those of backtests, which have deals and books."""
NUMBERS: Final = ("float", "exact", "text")
AMOUNTS: Final = ("contracts", "coins")

STANDARD_OUTPUT: Final = Path("-")
"""The file that stands for it."""

_SUFFIXES: Final = {"hftbacktest": "npz"}
_FORMAT_OF: Final = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".npz": "hftbacktest",
}  # fmt: skip
_UNITS: Final = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}


@attrs.frozen(kw_only=True)
class ExportRequest:
    """An export of one symbol as the user asked for it."""

    symbol: str
    kinds: tuple[str, ...]
    """One of `KINDS`; for hftbacktest deals, depths, or both in one file."""
    format: str
    numbers: str
    """One of `NUMBERS`: the nearest double, exact Decimals, or the exchange's digits as texts."""
    amounts: str
    """One of `AMOUNTS`: contracts, or coins."""
    out: Path
    """The file; by day, the directory."""
    start: int | None
    """Milliseconds; None from the first row on."""
    end: int | None
    """Milliseconds, not itself part of the range; None up to the last row."""
    interval: int
    """Milliseconds of a candle."""
    by_day: bool
    flat: bool
    """Whether the levels of a book are columns, `bid_price_1` and so on, and not arrays."""
    latency: int | None
    """Milliseconds from the exchange's time to the local one, for hftbacktest."""
    force: bool

    @property
    def directory(self) -> Path:
        """Where files are written, and where there is room for them."""
        if self.out == STANDARD_OUTPUT:
            return Path(tempfile.gettempdir())
        return self.out if self.by_day else self.out.parent

    def file_of(self, day: int | None) -> Path:
        """Return the file of a day, given in milliseconds; without days the one file."""
        if day is None:
            return self.out
        suffix = _SUFFIXES.get(self.format, self.format)
        return self.out / f"{self.symbol}-{'-'.join(self.kinds)}-{day_name(day)}.{suffix}"

    def files_of(self, day: int | None) -> list[Path]:
        """Return the same, and what stands beside it: of hftbacktest, what the contract is."""
        file = self.file_of(day)
        beside = [file.with_name(f"{file.name}.json")] if self.format == "hftbacktest" else []
        return [file, *beside]


def parse_requests(
    symbols: Sequence[str],
    *,
    kind: str | None,
    format: str | None,  # noqa: A002
    numbers: str | None,
    amounts: str | None,
    out: Path,
    start: str | None,
    end: str | None,
    interval: str | None,
    by_day: bool,
    flat: bool,
    latency_ms: int | None,
    force: bool,
) -> list[ExportRequest]:
    """Turn the command line's texts into requests, one a symbol; they may share a file.

    Raises UsageError, which names the text that is wrong.
    """
    chosen = _choice("--format", format or _format(out, by_day=by_day), FORMATS)
    kinds = _kinds(kind, chosen)
    if str(out).startswith("-") and out != STANDARD_OUTPUT:
        raise UsageError(f"--out {out}: a file's name, or - for standard output")
    if not symbols and kinds != ("gaps",):
        raise UsageError("no symbol given; name at least one, such as BTC_USDT")
    if flat and kinds != ("depths",):
        raise UsageError("--flat is about the levels of books: it goes with --kind depths")
    if latency_ms is not None and chosen not in BACKTESTS:
        raise UsageError(
            "--latency-ms makes local times: it goes with --format hftbacktest or nautilus"
        )
    if chosen == "nautilus" and (by_day or out == STANDARD_OUTPUT):
        raise UsageError("a catalog of nautilus is a directory, to which each export adds files")
    if latency_ms is not None and not 0 <= latency_ms <= DAY:
        raise UsageError(f"--latency-ms {latency_ms}: milliseconds, 0 or more")
    if by_day and (out == STANDARD_OUTPUT or kinds == ("gaps",)):
        raise UsageError("--by-day makes files of a symbol's rows; neither --out - nor gaps do")
    if chosen == "hftbacktest" and len(symbols) > 1 and not by_day:
        raise UsageError("a file for hftbacktest has one symbol; give one, or use --by-day")
    if interval is not None and kinds != ("candles",):
        raise UsageError("--interval is the length of candles: it goes with --kind candles")
    step = _interval(interval or "1m")
    if by_day and DAY % step:
        raise UsageError(f"--interval {interval}: a day is no whole number of those; omit --by-day")
    first = None if start is None else parse_option_time("--from", start)
    last = None if end is None else parse_option_time("--to", end)
    if first is not None and last is not None and first >= last:
        raise UsageError(
            f"--from {start} is not before --to {end}; the time of --to is not part of the range, "
            f"so one day is --from 2026-11-20 --to 2026-11-21"
        )
    which = _choice("--numbers", numbers or NUMBERS[0], NUMBERS)
    unit = _choice("--amounts", amounts or AMOUNTS[0], AMOUNTS)
    countless = kinds[0] in ("raw", "gaps", *OPTIONAL_VIEWS)
    if unit == "coins" and (which == "text" or chosen in BACKTESTS or countless):
        raise UsageError(
            "--amounts coins are computed: it goes with deals, tickers, depths or candles, in "
            "--numbers float or exact, and with files for people, not for backtests"
        )
    return [
        ExportRequest(
            symbol=symbol, kinds=kinds, format=chosen, numbers=which, amounts=unit,
            out=out / symbol if by_day and len(symbols) > 1 else out,
            start=first, end=last, interval=step, by_day=by_day, flat=flat, latency=latency_ms,
            force=force,
        )
        for symbol in symbols or ("",)
    ]  # fmt: skip


def _format(out: Path, *, by_day: bool) -> str:
    """Return the format of a file by its ending."""
    if out == STANDARD_OUTPUT:
        return "csv"
    return "parquet" if by_day else _FORMAT_OF.get(out.suffix.lower(), "parquet")


def _kinds(kind: str | None, chosen: str) -> tuple[str, ...]:
    if chosen in BACKTESTS:
        if kind is None:
            return ("deals", "depths")
        if kind not in ("deals", "depths"):
            raise UsageError(
                f"--format {chosen} takes --kind deals or depths, not {kind}; without --kind it "
                f"has both, which is what a backtest needs"
            )
    elif kind is None:
        raise UsageError(f"--kind is missing: one of {', '.join(KINDS)}")
    return (_choice("--kind", kind, KINDS),)


def _choice(option: str, text: str, choices: Sequence[str]) -> str:
    if text in choices:
        return text
    close = get_close_matches(text, choices, 1)
    hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(choices)}"
    raise UsageError(f"{option} {text!r}: {hint}")


def _interval(text: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text)
    if match is None:
        raise UsageError(f"--interval {text!r}: write a number and s, m, h or d, such as 1m or 4h")
    return int(match[1]) * _UNITS[match[2]]
