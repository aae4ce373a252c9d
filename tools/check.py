"""Everything that a change has to pass: `python -m tools.check`.

`--fast` leaves out the tests that start processes and engines: seconds instead of minutes. Other
arguments go to pytest.

Among thousands of tests, many of which start processes and wait for them, a crowded machine can
make one fail. If no more than a handful did, each runs once more, alone. The first failure stays
printed, and is a fault to look into: of the test, or of the program.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

QUICK = (("ruff", "check", "."), ("ruff", "format", "--check", "."))
TYPES = ("mypy",)
TESTS = (
    "pytest",
    # Four at a time keep two cores busy: half of a test's time is waiting for what it has started.
    # A worker that has nothing left takes half of another's.
    "-n", "4", "--dist", "worksteal",
)  # fmt: skip
SOME_FAILED = 1
"""What pytest's exit code is then, and not when it was stopped or asked wrongly."""
AGAIN = ("pytest", "--last-failed")
HANDFUL = 5
"""One fault mostly makes more than one test fail: what it left open is found by the next."""


def started(*arguments: str, nice: int = 0) -> "subprocess.Popen[bytes]":
    """Start a module with arguments; the nicer it is the less it takes from others."""
    print(f"$ {shlex.join(arguments)}", flush=True)
    # Those of this environment, whatever the PATH says.
    command = ["nice", "-n", str(nice), sys.executable, "-m", *arguments]
    # Hundreds of processes import the same modules: one of them compiles each, even if Python is
    # told to keep nothing.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.Popen(command, env=env)  # noqa: S603


def run(*arguments: str) -> int:
    """Run a module with arguments; return its exit code."""
    with started(*arguments) as process:
        return process.wait()


def handful_failed() -> bool:
    """Return whether no more than a handful failed when pytest ran last."""
    try:
        text = Path(".pytest_cache/v/cache/lastfailed").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return 0 < len(json.loads(text)) <= HANDFUL


def main() -> int:
    """Run the checks; return the exit code of one that failed, or 0."""
    typed = sys.argv[1:]
    if "--fast" in typed:
        typed = ["tests/unit", *(word for word in typed if word != "--fast")]
    for check in QUICK:
        if code := run(*check):
            return code
    # Types take one processor for a while, and tests leave some of two: they wait for each other.
    with started(*TYPES, nice=10) as types:
        code = run(*TESTS, *typed)
        if code == SOME_FAILED and handful_failed():
            print("A handful failed; once more, alone:", flush=True)
            code = run(*AGAIN, *typed)
    return code or types.returncode


if __name__ == "__main__":
    sys.exit(main())
