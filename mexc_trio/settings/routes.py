"""By which way the exchange is reached: what `--route` can say."""

import ipaddress
import re
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, cast
from urllib.parse import unquote, urlsplit

import attrs

from mexc_trio.errors import UsageError
from mexc_trio.settings.values import host_port, is_host, shown, socket_url

Kind: TypeAlias = Literal["direct", "socks5", "http", "from"]

_FORMS: Final = "direct, socks5://user:password@host:port, http://host:port or from:ADDRESS"
_PORTS: Final = {"socks5": 1080, "http": 8080}


@attrs.frozen
class Route:
    """One way to the exchange."""

    kind: Kind = "direct"
    """Directly, through a SOCKS5 proxy or an HTTP proxy (CONNECT), or from one of our addresses."""
    host: str = ""
    """The proxy, or our address; empty for a direct one."""
    port: int = 0
    user: str = ""
    password: str = attrs.field(default="", repr=False)
    via: str | None = None
    """The exchange's socket on this route, where it is not that of the others."""

    @property
    def proxy_url(self) -> str:
        """The proxy without user and password; empty if there is none."""
        if self.kind not in _PORTS:
            return ""
        return f"{self.kind}://{host_port(self.host, self.port)}"

    def __str__(self) -> str:
        """Return the route as it is written, with `***` for user and password."""
        text = {"direct": "direct", "from": f"from:{self.host}"}.get(self.kind, self.proxy_url)
        if self.user or self.password:
            text = text.replace("://", "://***@")
        return f"{text} via {self.via}" if self.via else text


DIRECT: Final = Route()


def parse_routes(text: str) -> tuple[Route, ...]:
    """Read routes, separated by commas. No message repeats a password."""
    return tuple(_parse(part) for part in text.split(","))


def routes_text(routes: Sequence[Route]) -> str:
    """Return routes as they are written, without secrets."""
    return ", ".join(map(str, routes))


def _parse(text: str) -> Route:
    # White space ends a URL, so the word is never a part of one.
    way, *rest = re.split(r"\s+via\s+", text.strip())
    if len(rest) > 1:
        raise UsageError(f"{shown(text)} has several exchanges; one stands behind via")
    via = socket_url(rest[0]) if rest else None
    if way.lower() == "direct":
        return Route(via=via)
    if way.lower().startswith("from:"):
        return Route("from", _own_address(way[5:]), via=via)
    return attrs.evolve(_proxy(way), via=via)


def _own_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip().strip("[]")))
    except ValueError:
        raise UsageError(f"{shown(text)} is not an IP address, as from: takes") from None


def _proxy(text: str) -> Route:
    try:
        parts = urlsplit(text)
        kind, port = parts.scheme, parts.port
        user = unquote(parts.username or "", errors="strict")
        password = unquote(parts.password or "", errors="strict")
    except ValueError:
        # A raw "/", "," or "#" in a password ends the host early: the likeliest reason.
        raise UsageError(
            f"{shown(text)} is not a URL; special characters in a password are written as %2F"
        ) from None
    if kind not in ("socks5", "http"):
        raise UsageError(f"{shown(text)} is no route; there are {_FORMS}")
    misplaced = parts.path.strip("/") or parts.query or parts.fragment
    host = parts.hostname or ""
    if not is_host(host) or port == 0 or misplaced or re.search(r"\s", text):
        raise UsageError(f"{shown(text)} is not of the form {kind}://user:password@host:port")
    if any(len(part.encode()) > 255 for part in (user, password)):
        raise UsageError(f"user and password of {shown(text)} have 255 bytes at the most")
    return Route(cast("Kind", kind), host, port or _PORTS[kind], user, password)
