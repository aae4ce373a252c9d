"""A TCP proxy that breaks connections at chosen bytes, for tests of what survives it.

In a test:

    async with open_proxy("127.0.0.1", server.tcp_port) as proxy:
        armed = proxy.arm(Fault(Direction.TO_SERVER, 100, Kind.CUT, pattern=b"INSERT"))
        ...                      # a client of proxy.port sends its INSERT
        await armed.fired.wait()

On the command line, until Ctrl-C:

    python -m tools.proxy --listen :9001 --to 127.0.0.1:9000 --fault cut:to-server:100:INSERT

All of the proxy belongs to Trio's thread; another thread calls `trio.from_thread.run_sync`.
"""

from tools.proxy.core import LOOPBACK, Proxy, open_proxy
from tools.proxy.faults import Direction, Fault, Kind

__all__ = ["LOOPBACK", "Direction", "Fault", "Kind", "Proxy", "open_proxy"]
