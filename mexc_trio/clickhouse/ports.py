"""Ports that nobody listens on, for an engine of our own."""

import random
import socket
from typing import Final

from mexc_trio.errors import StoreError
from mexc_trio.settings.address import LOOPBACK

# Below the range that Linux (32768 and up) and macOS give to outgoing connections. A client that
# keeps dialling a dead local port inside that range sooner or later gets the port as its own
# source, and connects to itself.
_RANGE: Final = range(20_000, 32_000)


def free_port(wanted: int = 0) -> int:
    """Return a free port of the loopback interface: the one that is wanted, if it can be had.

    Raises StoreError if there is none.
    """
    # Not what a program that seeds its random numbers would choose each time.
    for port in (wanted, *random.SystemRandom().sample(_RANGE, 200)):
        if port and is_free(LOOPBACK, port):
            return port
    raise StoreError(f"no port between {_RANGE.start} and {_RANGE.stop} is free for the engine")


def is_free(host: str, port: int) -> bool:
    """Return whether nobody listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # A listener of a moment ago leaves connections in TIME_WAIT; they are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
