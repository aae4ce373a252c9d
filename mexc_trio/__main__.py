"""`python -m mexc_trio` is the command `mexc-trio`."""

import sys

from mexc_trio.cli import main

if __name__ == "__main__":
    sys.exit(main())
