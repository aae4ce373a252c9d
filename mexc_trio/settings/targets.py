"""Where rows go: what `--store` can say, a directory or the URL of a server."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import attrs

from mexc_trio.errors import UsageError
from mexc_trio.settings.values import (
    directory,
    file,
    host_name,
    host_port,
    is_host,
    nearest,
    positive_seconds,
    shown,
    whole,
    yes_or_no,
)


@attrs.frozen
class EmbeddedTarget:
    """The embedded engine, which keeps its tables in `directory`."""

    directory: Path

    @property
    def identity(self) -> str:
        """What names this store, wherever the program is started: the absolute directory."""
        return os.path.realpath(self.directory)

    @property
    def lock_directories(self) -> Sequence[Path]:
        """Where its tables are locked, see `hold_tables`: where no other user can do that."""
        return [self.directory]

    def __str__(self) -> str:
        return str(self.directory)


@attrs.frozen(kw_only=True)
class ServerTarget:
    """A ClickHouse server, spoken to over its native protocol.

    `options` are more keyword arguments for the driver; `SERVER_OPTIONS` lists those that exist.
    """

    host: str
    port: int = 9000
    user: str = "default"
    password: str = attrs.field(default="", repr=False)
    database: str = "mexc_data"
    secure: bool = False
    http_port: int = attrs.field(kw_only=True)
    """Where it answers HTTP, which is how documents such as CSV are read."""
    options: Mapping[str, float | bool | str] = attrs.field(factory=dict, hash=False)
    others: tuple[tuple[str, int], ...] = ()
    """Hosts and ports of more servers, which keep replicas of the same tables."""
    quorum: int = 0
    """How many of them must have the rows of an INSERT before it is acknowledged; 0 for one."""
    known_by: tuple[str, str] = attrs.field(default=("", ""), repr=False)
    """A query and its answer, by which a server is told from another one there; empty for none."""

    @http_port.default
    def _usual_http_port(self) -> int:
        return 8443 if self.secure else 8123

    @property
    def directory(self) -> None:
        """None: its files are the server's."""

    @property
    def identity(self) -> str:
        """What names this store, without secrets: `host:port/database`, of several all hosts."""
        return f"{','.join(one.address for one in self.hosts)}/{self.database}"

    @property
    def lock_directories(self) -> None:
        """Where its tables are locked: where other users' recorders look, too."""

    @property
    def address(self) -> str:
        """The first host and its port."""
        return host_port(self.host, self.port)

    @property
    def hosts(self) -> "list[ServerTarget]":
        """Each host as a server by itself."""
        places = [(self.host, self.port), *self.others]
        return [attrs.evolve(self, host=host, port=port, others=()) for host, port in places]

    def __str__(self) -> str:
        """Return the URL with `***` for the password."""
        scheme = "clickhouses" if self.secure else "clickhouse"
        user = quote(self.user, safe="") + (":***" if self.password else "")
        options = {name: str(value) for name, value in self.options.items()}
        if self.http_port != self._usual_http_port():
            options["http_port"] = str(self.http_port)
        if self.quorum:
            options["quorum"] = str(self.quorum)
        query = "?" + urlencode(options) if options else ""
        return f"{scheme}://{user}@{self.identity}{query}"


StoreTarget: TypeAlias = EmbeddedTarget | ServerTarget

SERVER_OPTIONS: Mapping[str, Callable[[str], float | bool | str]] = {
    "connect_timeout": positive_seconds,
    "send_receive_timeout": positive_seconds,
    "sync_request_timeout": positive_seconds,
}
TLS_OPTIONS: Mapping[str, Callable[[str], float | bool | str]] = {
    "verify": yes_or_no,
    "ca_certs": lambda text: str(file(text)),
    "certfile": lambda text: str(file(text)),
    "keyfile": lambda text: str(file(text)),
    "server_hostname": host_name,
}


# What is not said here becomes a directory, with the password in its name: user@host, host:9000,
# clickhouse//host. And what other databases take for a database in memory.
_LIKE_A_SERVER: Final = re.compile(
    r"[^/]*@|\w+:?//|clickhouses?:|[\w.-]+:\d+(/|$)|\[[\da-f:]+\]", re.IGNORECASE
)
_IN_MEMORY: Final = re.compile(r":memory:|file:", re.IGNORECASE)


def parse_store(text: str) -> StoreTarget:
    """Read a directory, or the URL of a server. No message repeats a password."""
    form = "clickhouse://user:password@host:9000/database (clickhouses:// for TLS)"
    if "://" not in text:
        if _LIKE_A_SERVER.match(text):
            raise UsageError(
                f"a server is written as {form}; a directory of such a name begins with ./"
            )
        if _IN_MEMORY.match(text):
            raise UsageError(f"{shown(text)} is not a path: what is recorded is kept on disk")
        return EmbeddedTarget(directory(text))
    try:
        parts = urlsplit(text)
        # One host, or several that keep replicas.
        hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
        places = [(host.hostname or "", host.port) for host in hosts]
        user, password = unquote(parts.username or "", errors="strict"), parts.password
        password = unquote(password or "", errors="strict")
        pairs = parse_qsl(parts.query, keep_blank_values=True, errors="strict")
    except ValueError:
        # A raw "/", "?", "#" or "[" in a password ends the host early: the likeliest reason.
        raise UsageError(
            f"{shown(text)} is not a URL; special characters in a password are written as %2F"
        ) from None
    if parts.scheme not in ("clickhouse", "clickhouses"):
        raise UsageError(f"{shown(text)} is neither a directory nor {form}")
    misplaced = "@" in parts.path + parts.query + parts.fragment
    unusable = any(not is_host(name) or port == 0 for name, port in places)
    if unusable or misplaced or parts.fragment or re.search(r"\s", text):
        raise UsageError(f"{shown(text)} is not of the form {form}")
    secure = parts.scheme == "clickhouses"
    usual = 9440 if secure else 9000
    (host, port), *others = ((host, port or usual) for host, port in places)
    if len({(host, port), *others}) < len(places):
        raise UsageError(f"{shown(text)} names a host twice")
    database = unquote(parts.path).strip("/") or "mexc_data"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", database):
        raise UsageError(f"{shown(database)} is not the name of a database")
    options = dict(_server_options(pairs, secure=secure))
    names = ("http_port", "quorum")
    more: dict[str, Any] = {name: int(options.pop(name)) for name in names if name in options}
    if more.get("quorum", 0) > len(places):
        raise UsageError(f"{shown(text)} has a quorum of more than its {len(places)} hosts")
    return ServerTarget(
        host=host,
        port=port,
        others=tuple(others),
        user=user or "default",
        password=password,
        database=database,
        secure=secure,
        options=options,
        **more,
    )


def _server_options(
    pairs: Iterable[tuple[str, str]], *, secure: bool
) -> Iterator[tuple[str, float | bool | str]]:
    known = {**SERVER_OPTIONS, **TLS_OPTIONS, "http_port": whole(1, 65535), "quorum": whole(2)}
    seen: set[str] = set()
    for name, text in pairs:
        if name not in known:
            raise UsageError(f"unknown option {shown(name)} in the URL{nearest(name, known)}")
        if name in seen:
            raise UsageError(f"{name} is in the URL twice")
        if name in TLS_OPTIONS and not secure:
            raise UsageError(f"{name} is for TLS, which takes clickhouses://")
        seen.add(name)
        try:
            yield name, known[name](text)
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None
