"""The program for a pair of old servers: `python -m tests.support.old_recorder ARGUMENTS...`.

It is the same with the same arguments; only what these servers do not know is left out of what they
are asked, see `tests.support.replicas`.
"""

import sys

from mexc_trio.__main__ import main
from mexc_trio.clickhouse import replicas, server
from tests.support.replicas import PairStore

if __name__ == "__main__":
    vars(server).update(MINIMUM_VERSION=(18, 16))
    vars(replicas).update(ReplicatedStore=PairStore)
    sys.exit(main())
