"""What `verify` found out, as text: the verdict first, then the numbers behind it."""

from collections.abc import Sequence

from mexc_trio.analysis.gaps import GapSummary
from mexc_trio.analysis.survey import Size, Survey
from mexc_trio.channels import BY_TYPE
from mexc_trio.rows import DEAD_LETTER, MESSAGE_TYPES
from mexc_trio.texts import UNKNOWN, fitted, number_of, printable, seconds, size, time_text, wrapped
from mexc_trio.verify import text_tables
from mexc_trio.verify.facts import Facts, JournalFacts

_TITLES = {**BY_TYPE, DEAD_LETTER: "dead"}


def report(facts: Facts) -> str:
    """Return the whole report."""
    parts = [_verdict(facts)]
    if facts.tables:
        parts.append(_rows(facts.tables))
        parts += [text_tables.days(facts.symbols), text_tables.rates(facts.symbols)]
    if facts.read:
        parts.append(_storage(facts))
    if facts.gaps:
        parts.append(_gaps(facts.gaps))
    parts += [text_tables.dead_letters(facts.symbols), text_tables.compared(facts.symbols)]
    text = "\n\n".join("\n".join(part) for part in parts if part)
    return "\n".join(part for line in text.split("\n") for part in wrapped(printable(line)))


def _verdict(facts: Facts) -> list[str]:
    tables = number_of(len(facts.tables), "table")
    rows = number_of(facts.rows, "row")
    problems = facts.problems
    if problems:
        lines = [f"{tables}, {rows} can be read, {number_of(len(problems), 'problem')}:"]
        lines += [f"  {problem}" for problem in problems]
        if any(table.damage for table in facts.read):
            lines.append(
                "  the next recording into a damaged table keeps the rows that can be read, and "
                "the damaged table under another name"
            )
    elif facts.tables:
        lines = [f"{tables}, {rows}, sound"]
    else:
        lines = ["empty: no symbol was recorded yet"]
    lines.append(f"{facts.store}, database {facts.database}")
    if facts.journal:
        lines += _journal(facts.journal)
    lines += [f"{name}: {_put_aside(facts.sizes.get(name))}" for name in facts.put_aside]
    return lines + facts.remarks


def _put_aside(known: Size | None) -> str:
    takes = f" and takes {size(known.total)}" if known else ""
    return f"was left by a repair{takes}; drop it when you no longer need it"


def _journal(journal: JournalFacts) -> list[str]:
    if journal.holder:
        return [f"a recorder is running, so the newest rows may not be counted: {journal.holder}"]
    if not journal.waiting:
        return []
    tables = ", ".join(f"{name} {rows:,}" for name, rows in journal.waiting.items())
    rows = number_of(sum(journal.waiting.values()), "row")
    place = f"{journal.path} ({tables})"
    return [f"{rows} wait in {place}: the next run writes them, or: mexc-trio drain"]


def _rows(tables: Sequence[Survey]) -> list[str]:
    types = [mt for mt in MESSAGE_TYPES if mt != "dl" or any("dl" in t.by_key for t in tables)]
    # A table made by hand may have types of its own.
    types += sorted({mt for table in tables for mt in table.by_key}.difference(MESSAGE_TYPES))
    head = ["table", "rows", *(_TITLES.get(mt, mt) for mt in types), "oldest", "newest"]
    rows = [(one.name, one.rows, one.by_key, one.oldest, one.newest) for one in tables]
    if len(tables) > 1:
        totals = {mt: sum(one.by_key.get(mt, 0) for one in tables) for mt in types}
        oldest = min((one.oldest for one in tables if one.oldest is not None), default=None)
        newest = max((one.newest for one in tables if one.newest is not None), default=None)
        rows.append(("all", sum(one.rows for one in tables), totals, oldest, newest))
    lines = [
        [name, f"{number:,}", *(f"{by_type.get(mt, 0):,}" for mt in types), *map(time_text, ends)]
        for name, number, by_type, *ends in rows
    ]
    return fitted([head, *lines])


def _storage(facts: Facts) -> list[str]:
    if not facts.sizes:
        return ["storage: not known to this server"]
    files = any(one.data is not None for one in facts.sizes.values())
    head = ["storage", *(["data.bin", "index"] if files else []), "in all", "bytes a row"]
    lines = [[*head, "a day", "a month"]]
    for table in facts.read:
        known = facts.sizes.get(table.name)
        rows = table.rows if table.counted is None else table.counted
        a_row = f"{known.total / rows:,.1f}" if known and rows else UNKNOWN
        growth = _growth(facts.disk.a_day.get(table.name))
        lines.append([table.name, *_size(known, files=files), a_row, *growth])
    if facts.volume is not None:
        parts = [UNKNOWN] * 2 * files + [size(facts.volume), UNKNOWN]
        lines.append(["whole volume", *parts, *_growth(facts.disk.all_a_day or None)])
    text = fitted(lines)
    if facts.index_memory:
        inserts = number_of(sum(table.inserts for table in facts.read), "INSERT")
        text.append(f"{inserts}, for which the engine takes {size(facts.index_memory)} of memory")
    if facts.disk.free is None:
        return text
    left = facts.disk.days_left
    enough = "" if left is None else f", enough for {left:,.0f} days at this rate"
    return [*text, f"{size(facts.disk.free)} are free{enough}"]


def _growth(a_day: float | None) -> list[str]:
    return [UNKNOWN, UNKNOWN] if a_day is None else [size(a_day), size(a_day * 30)]


def _size(known: Size | None, *, files: bool) -> list[str]:
    if known is None:
        return [UNKNOWN] * (1 + 2 * files)
    parts = [known.data, known.index, known.total] if files else [known.total]
    return [UNKNOWN if part is None else size(part) for part in parts]


def _gaps(gaps: GapSummary) -> list[str]:
    number = sum(line.gaps for line in gaps.causes)
    if not number:
        return [f"gaps: {'the ledger is damaged' if gaps.table.damage else 'none in the ledger'}"]
    causes = [
        ["gaps", "cause", "number", "longest"],
        *(
            [line.symbol, line.cause, f"{line.gaps:,}", f"{seconds(line.longest)} s"]
            for line in gaps.causes
        ),
        ["all", "", f"{number:,}", ""],
    ]
    filled: list[str] = []
    if gaps.filled.gaps:
        known = gaps.filled
        filled = [
            f"{number_of(known.gaps, 'gap')} in deals filled afterwards, {known.whole:,} whole",
            f"with {number_of(known.deals, 'deal')}; filled time counts as covered for deals",
        ]
    longest = [["longest gaps", "from", "seconds", "cause", "channels"]]
    for gap in gaps.longest:
        lasted, channels = seconds(gap.end - gap.start), " ".join(sorted(gap.channels))
        longest.append([gap.symbol, time_text(gap.start), lasted, gap.cause, channels])
    return [*fitted(causes, texts=2), *filled, "", *fitted(longest, texts=2, keys=2)]
