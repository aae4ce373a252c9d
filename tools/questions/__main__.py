"""`python -m tools.questions`."""

import sys

from tools.questions.day import main

if __name__ == "__main__":
    sys.exit(main())
