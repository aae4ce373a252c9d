"""Makes `python -m tools.proxy` work."""

import sys

from tools.proxy.program import main

sys.exit(main())
