"""Where a recorder listens."""

import ipaddress
import re
from typing import Final

import attrs

from mexc_trio.errors import UsageError
from mexc_trio.settings.values import host_port, is_host, shown

LOOPBACK: Final = "127.0.0.1"


@attrs.frozen
class Address:
    """A host and a port; port 0 is any that is free."""

    host: str = LOOPBACK
    port: int = 0

    @property
    def is_loopback(self) -> bool:
        """Whether nobody on other machines can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def reachable(self, port: int) -> str:
        """Return the address as a program on this machine dials it."""
        host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return host_port(host, port)

    def __str__(self) -> str:
        return host_port(self.host, self.port)


def parse_address(text: str) -> Address | None:
    """Read `host:port`, `port` or `off`, which is None."""
    if text.lower() == "off":
        return None
    match = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.]+\]|[\w.-]+):)?(\d{1,5})", text)
    host = ((match and match[1]) or LOOPBACK).strip("[]")
    if not match or int(match[2]) > 65535 or not is_host(host):
        raise UsageError(f"{shown(text)} is not host:port, a port, or off")
    return Address(host, int(match[2]))
