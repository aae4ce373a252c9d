"""Everything that a change has to pass: `python -m tools.check`.

`--fast` leaves out the tests that start processes and engines: seconds instead of minutes. Other
arguments go to pytest.
"""

import shlex
import subprocess
import sys

CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    # Two at a time: with four, two cores are so crowded that tests fail that wait for something,
    # and it takes hardly less. A worker that has nothing left takes half of another's.
    ("pytest", "-n", "2", "--dist", "worksteal"),
)


def main() -> int:
    """Run the checks in turn; return the exit code of the first that fails."""
    typed = sys.argv[1:]
    if "--fast" in typed:
        typed = ["tests/unit", *(word for word in typed if word != "--fast")]
    for check in CHECKS:
        arguments = [*check, *(typed if check[0] == "pytest" else [])]
        print(f"$ {shlex.join(arguments)}", flush=True)
        # Those of this environment, whatever the PATH says.
        code = subprocess.run([sys.executable, "-m", *arguments], check=False).returncode  # noqa: S603
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
