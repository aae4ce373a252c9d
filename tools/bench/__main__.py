"""`python -m tools.bench`: run a benchmark and print its report."""

import sys
from typing import Annotated

import cyclopts
import msgspec
from cyclopts import Parameter

from tools.bench.exchange import exchange
from tools.bench.journal import journal
from tools.bench.latency import latency
from tools.bench.processes import processes
from tools.bench.questions import questions
from tools.bench.report import BenchError, Report, say
from tools.bench.scaling import scaling
from tools.bench.start import start
from tools.bench.storage import storage
from tools.bench.throughput import throughput
from tools.clickhouse import ServerError

app = cyclopts.App(
    name="python -m tools.bench",
    help="Benchmarks of mexc-trio. Each prints its figures with ratios from the same run.",
    help_format="plaintext",
    version_flags=[],
    default_parameter=Parameter(consume_multiple=True, negative=()),
    result_action="return_value",
)
for benchmark in (
    throughput,
    latency,
    storage,
    exchange,
    scaling,
    processes,
    start,
    journal,
    questions,
):
    app.command(benchmark)


@app.meta.default
def run(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)], json: bool = False
) -> int:
    """Run one benchmark.

    Args:
        tokens: its name and options.
        json: print the report as one JSON document instead of a table.
    """
    report = app(tokens)
    if not isinstance(report, Report):  # the help was asked for
        return 0
    print(msgspec.json.encode(report.as_json()).decode() if json else report.table())
    return 0


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        return int(app.meta(result_action="return_value") or 0)
    except (BenchError, ServerError) as error:
        say("\n".join([f"bench: {error}", *getattr(error, "__notes__", ())]))
        return 1


if __name__ == "__main__":
    sys.exit(main())
