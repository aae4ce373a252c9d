"""The commands that turn what is recorded into files, and backups into tables again."""

from pathlib import Path
from typing import Annotated

from mexc_trio.channels import OPTIONAL_VIEWS
from mexc_trio.cli.app import app
from mexc_trio.cli.options import CommonOptions, JournalOptions, Symbols, begin, command_option
from mexc_trio.export.request import AMOUNTS, FORMATS, KINDS, NUMBERS, parse_requests


@app.command
def export(
    *symbols: Symbols,
    out: Annotated[
        str,
        command_option(
            "--out",
            "The file to write; by day, the directory; - is standard output.",
            "PATH",
            hyphen=True,
        ),
    ],
    kind: Annotated[
        str | None,
        command_option(
            "--kind",
            f"deals, tickers, depths, candles, gaps, or raw, the table's rows; of channels on "
            f"request {', '.join(OPTIONAL_VIEWS)}.",
            "KIND",
            choices=KINDS,
        ),
    ] = None,
    file_format: Annotated[
        str | None,
        command_option(
            "--format",
            "parquet, csv, jsonl, or deals and books as hftbacktest or nautilus reads them. "
            "[default: as the file's name ends, else parquet]",
            "FORMAT",
            choices=FORMATS,
        ),
    ] = None,
    numbers: Annotated[
        str | None,
        command_option(
            "--numbers",
            "float: the nearest double; exact: Decimals; text: the exchange's digits. "
            "[default: float]",
            "WHICH",
            choices=NUMBERS,
        ),
    ] = None,
    amounts: Annotated[
        str | None,
        command_option(
            "--amounts",
            "contracts, as the exchange counts, or coins: times the contract's size. "
            "[default: contracts]",
            "UNIT",
            choices=AMOUNTS,
        ),
    ] = None,
    start: Annotated[
        str | None,
        command_option("--from", "From this time on: 2026-11-20 or 2026-11-20T09:30, UTC.", "TIME"),
    ] = None,
    end: Annotated[
        str | None, command_option("--to", "Up to this time, itself not included.", "TIME")
    ] = None,
    interval: Annotated[
        str | None,
        command_option(
            "--interval",
            "Length of a candle: 1s, 5m, 4h, 1d. [default: 1m]",
            "LENGTH",
            choices=("1s", "1m", "5m", "1h", "4h", "1d"),
        ),
    ] = None,
    by_day: Annotated[
        bool, command_option("--by-day", "One file a day (UTC); days that are complete are kept.")
    ] = False,
    flat: Annotated[
        bool, command_option("--flat", "Levels of books as columns: bid_price_1 and so on.")
    ] = False,
    latency_ms: Annotated[
        int | None,
        command_option(
            "--latency-ms",
            "For backtests: from the exchange's time to the local one. [default: 0]",
            "MILLISECONDS",
        ),
    ] = None,
    force: Annotated[bool, command_option("--force", "Write over files that are there.")] = False,
    options: CommonOptions | None = None,
) -> int:
    """Write recorded rows as files for research, in the order of time.

    Works while a recorder runs. Rows of one millisecond are in the order of receipt. A run that was
    interrupted leaves no half-written file; with --by-day the next one goes on where it stopped.
    """
    settings = begin(options, symbols)
    requests = parse_requests(
        settings.symbols if symbols else (), kind=kind, format=file_format,
        numbers=numbers, amounts=amounts, out=Path(out), start=start, end=end,
        interval=interval, by_day=by_day, flat=flat, latency_ms=latency_ms, force=force,
    )  # fmt: skip
    from mexc_trio.export.export import export

    return export(settings, requests)


@app.command
def backup(
    *symbols: Symbols,
    out: Annotated[str, command_option("--out", "The directory to make.", "DIR")],
    options: CommonOptions | None = None,
) -> int:
    """Copy tables and the ledger of gaps into files, checked row for row.

    Without symbols, all tables. Works while a recorder runs: it takes the rows there were at the
    start.
    """
    settings = begin(options, symbols)
    from mexc_trio.backup.backup import backup

    return backup(settings, settings.symbols if symbols else (), Path(out))


@app.command
def restore(
    *symbols: Symbols,
    source: Annotated[str, command_option("--in", "The directory that backup made.", "DIR")],
    append: Annotated[
        bool, command_option("--append", "Add to tables that have rows, after those.")
    ] = False,
    options: JournalOptions | None = None,
) -> int:
    """Put a backup's tables into a store, of either kind, checked row for row.

    Without symbols, all tables of the backup. Stop the recorder first.
    """
    settings = begin(options, symbols)
    from mexc_trio.backup.restore import restore

    return restore(settings, settings.symbols if symbols else (), Path(source), append=append)


@app.command
def report(
    *symbols: Symbols,
    out: Annotated[str, command_option("--out", "The page to write.", "FILE")],
    day: Annotated[
        str | None, command_option("--day", "Day in UTC: 2026-11-21. [default: yesterday]", "DAY")
    ] = None,
    start: Annotated[
        str | None, command_option("--from", "In place of a day: 2026-11-20T09:30, in UTC.", "TIME")
    ] = None,
    end: Annotated[
        str | None, command_option("--to", "Up to this time, with --from. [default: now]", "TIME")
    ] = None,
    png: Annotated[
        str | None, command_option("--png", "A directory for the plots as PNG files, too.", "DIR")
    ] = None,
    force: Annotated[bool, command_option("--force", "Write over files that are there.")] = False,
    options: CommonOptions | None = None,
) -> int:
    """Draw a day, or any time, as a page: price with its gaps, rates, pauses, spread, growth.

    Without symbols, all of that time; of more than four, each has a page of its own. Works while a
    recorder runs. The pages need no network.
    """
    settings = begin(options, symbols)
    from mexc_trio.report.report import parse_range, report

    return report(
        settings, settings.symbols if symbols else (), parse_range(day, start, end), Path(out),
        pictures=None if png is None else Path(png), force=force,
    )  # fmt: skip
