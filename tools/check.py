"""Everything that a change has to pass: `python -m tools.check`.

`--fast` leaves out the tests that start processes and engines: seconds instead of minutes. Other
arguments go to pytest.

Among thousands of tests, many of which start processes and wait for them, a crowded machine can
make one fail. If no more than a handful did, each runs once more, alone. The first failure stays
printed, and is a fault to look into: of the test, or of the program.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path

CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    # Two at a time: with four, two cores are so crowded that tests fail that wait for something,
    # and it takes hardly less. A worker that has nothing left takes half of another's.
    ("pytest", "-n", "2", "--dist", "worksteal"),
)
SOME_FAILED = 1
"""What pytest's exit code is then, and not when it was stopped or asked wrongly."""
AGAIN = ("pytest", "--last-failed")
HANDFUL = 5
"""One fault mostly makes more than one test fail: what it left open is found by the next."""


def run(*arguments: str) -> int:
    """Run a module with arguments; return its exit code."""
    print(f"$ {shlex.join(arguments)}", flush=True)
    # Those of this environment, whatever the PATH says.
    return subprocess.run([sys.executable, "-m", *arguments], check=False).returncode  # noqa: S603


def handful_failed() -> bool:
    """Return whether no more than a handful failed when pytest ran last."""
    try:
        text = Path(".pytest_cache/v/cache/lastfailed").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return 0 < len(json.loads(text)) <= HANDFUL


def main() -> int:
    """Run the checks in turn; return the exit code of the first that fails."""
    typed = sys.argv[1:]
    if "--fast" in typed:
        typed = ["tests/unit", *(word for word in typed if word != "--fast")]
    code = 0
    for check in CHECKS:
        code = run(*check, *(typed if check[0] == "pytest" else []))
        if code:
            break
    if code == SOME_FAILED and check == CHECKS[-1] and handful_failed():
        print("A handful failed; once more, alone:", flush=True)
        code = run(*AGAIN, *typed)
    return code


if __name__ == "__main__":
    sys.exit(main())
