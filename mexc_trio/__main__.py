"""`python -m mexc_trio` is the command `mexc-trio`."""

import sys

from mexc_trio.errors import INTERRUPTED


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        # It takes a moment, in which a Ctrl-C is no bug either.
        from mexc_trio.cli import commands
    except KeyboardInterrupt:
        return INTERRUPTED
    return commands.main()


if __name__ == "__main__":
    sys.exit(main())
