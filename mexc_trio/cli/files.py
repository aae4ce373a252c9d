"""The commands that turn what is recorded into files, and backups into tables again."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mexc_trio.channels import OPTIONAL_VIEWS
from mexc_trio.cli.options import (
    FILES,
    CommonOptions,
    Flag,
    JournalOptions,
    Symbols,
    app,
    begin,
    value,
)
from mexc_trio.export.request import AMOUNTS, FORMATS, KINDS, NUMBERS, parse_requests

_KIND = (
    "deals, tickers, depths, candles, gaps, or raw, the table's rows; of channels on request "
    f"{', '.join(OPTIONAL_VIEWS)}."
)


@app.command(group_parameters=FILES)
def export(
    *symbols: Symbols,
    out: Annotated[str, value("PATH"), Parameter(allow_leading_hyphen=True)],
    kind: Annotated[str | None, value("KIND", *KINDS), Parameter(help=_KIND)] = None,
    file_format: Annotated[str | None, value("FORMAT", *FORMATS, name="--format")] = None,
    numbers: Annotated[str | None, value("WHICH", *NUMBERS)] = None,
    amounts: Annotated[str | None, value("UNIT", *AMOUNTS)] = None,
    start: Annotated[str | None, value("TIME", name="--from")] = None,
    end: Annotated[str | None, value("TIME", name="--to")] = None,
    interval: Annotated[str | None, value("LENGTH", "1s", "1m", "5m", "1h", "4h", "1d")] = None,
    by_day: Flag = False,
    flat: Flag = False,
    latency_ms: Annotated[int | None, value("MILLISECONDS")] = None,
    force: Flag = False,
    options: CommonOptions | None = None,
) -> int:
    """Write recorded rows as files for research, in the order of time.

    Works while a recorder runs. Rows of one millisecond are in the order of receipt. A run that was
    interrupted leaves no half-written file; with --by-day the next one goes on where it stopped.

    Args:
        out: The file to write; by day, the directory; - is standard output.
        file_format: parquet, csv, jsonl, or deals and books as hftbacktest or nautilus reads them.
            [default: as the file's name ends, else parquet]
        numbers: float: the nearest double; exact: Decimals; text: the exchange's digits.
            [default: float]
        amounts: contracts, as the exchange counts, or coins: times the contract's size.
            [default: contracts]
        start: From this time on: 2026-11-20 or 2026-11-20T09:30, UTC.
        end: Up to this time, itself not included.
        interval: Length of a candle: 1s, 5m, 4h, 1d. [default: 1m]
        by_day: One file a day (UTC); days that are complete are kept.
        flat: Levels of books as columns: bid_price_1 and so on.
        latency_ms: For backtests: from the exchange's time to the local one. [default: 0]
        force: Write over files that are there.
    """
    settings = begin(options, symbols)
    requests = parse_requests(
        settings.symbols if symbols else (), kind=kind, format=file_format,
        numbers=numbers, amounts=amounts, out=Path(out), start=start, end=end,
        interval=interval, by_day=by_day, flat=flat, latency_ms=latency_ms, force=force,
    )  # fmt: skip
    from mexc_trio.export.export import export

    return export(settings, requests)


@app.command(group_parameters=FILES)
def backup(
    *symbols: Symbols, out: Annotated[str, value("DIR")], options: CommonOptions | None = None
) -> int:
    """Copy tables and the ledger of gaps into files, checked row for row.

    Without symbols, all tables. Works while a recorder runs: it takes the rows there were at the
    start.

    Args:
        out: The directory to make.
    """
    settings = begin(options, symbols)
    from mexc_trio.backup.backup import backup

    return backup(settings, settings.symbols if symbols else (), Path(out))


@app.command(group_parameters=FILES)
def restore(
    *symbols: Symbols,
    source: Annotated[str, value("DIR", name="--in")],
    append: Flag = False,
    options: JournalOptions | None = None,
) -> int:
    """Put a backup's tables into a store, of either kind, checked row for row.

    Without symbols, all tables of the backup. Stop the recorder first.

    Args:
        source: The directory that backup made.
        append: Add to tables that have rows, after those.
    """
    settings = begin(options, symbols)
    from mexc_trio.backup.restore import restore

    return restore(settings, settings.symbols if symbols else (), Path(source), append=append)


@app.command(group_parameters=FILES)
def report(
    *symbols: Symbols,
    out: Annotated[str, value("FILE")],
    day: Annotated[str | None, value("DAY")] = None,
    start: Annotated[str | None, value("TIME", name="--from")] = None,
    end: Annotated[str | None, value("TIME", name="--to")] = None,
    png: Annotated[str | None, value("DIR")] = None,
    force: Flag = False,
    options: CommonOptions | None = None,
) -> int:
    """Draw a day, or any time, as a page: price with its gaps, rates, pauses, spread, growth.

    Without symbols, all of that time; of more than four, each has a page of its own. Works while a
    recorder runs. The pages need no network.

    Args:
        out: The page to write.
        day: Day in UTC: 2026-11-21. [default: yesterday]
        start: In place of a day: 2026-11-20T09:30, in UTC.
        end: Up to this time, with --from. [default: now]
        png: A directory for the plots as PNG files, too.
        force: Write over files that are there.
    """
    settings = begin(options, symbols)
    from mexc_trio.report.report import parse_range, report

    return report(
        settings, settings.symbols if symbols else (), parse_range(day, start, end), Path(out),
        pictures=None if png is None else Path(png), force=force,
    )  # fmt: skip
