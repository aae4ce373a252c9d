"""Reading one setting's value from text, wherever the text came from.

Each reader raises `UsageError` with a message that says what the text is not; the caller puts in
front of it where the text came from. No message repeats what may be a password.
"""

import difflib
import math
import os
import re
import shlex
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from mexc_trio.errors import UsageError

Number = TypeVar("Number", int, float)


def mask(text: str) -> str:
    """Hide whatever may be a user and password, even in a URL that is wrong."""
    return re.sub(r"(?s)://.*@", "://***@", text)


def shown(text: str) -> str:
    """Return `text` fit for a one-line message."""
    text = mask(text)
    return repr(text if len(text) <= 80 else text[:77] + "...")


def host_port(host: str, port: int) -> str:
    """Return a host, which may be an IPv6 address, and its port as they are written."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def nearest(name: str, known: Collection[str]) -> str:
    """Return `; did you mean ...?` if something known is spelt much like `name`, else nothing."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"; did you mean {matches[0]}?" if matches else ""


def whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """Return a reader of whole numbers from `least` on, up to `most` if that is given."""
    rule = f"{least} or more" if most == math.inf else f"{least} to {most}"
    return _number(int, "a whole number", lambda number: least <= number <= most, rule)


def or_auto(read: Callable[[str], int]) -> Callable[[str], int]:
    """Return a reader of what `read` reads, and of `auto`, which is 0."""
    return lambda text: 0 if text.lower() == "auto" else read(text)


def choice(*words: str) -> Callable[[str], str]:
    """Return a reader of one of these words, in any case."""

    def read(text: str) -> str:
        if text.lower() not in words:
            raise UsageError(f"{shown(text)} is not one of {', '.join(words)}")
        return text.lower()

    return read


def yes_or_no(text: str) -> bool:
    """Read a switch, in any of the usual words."""
    word = choice("yes", "no", "true", "false", "on", "off", "1", "0")(text)
    return word in ("yes", "true", "on", "1")


def socket_url(text: str) -> str:
    """Read the address of an exchange's socket."""
    if not is_url(text, ("ws", "wss")) or re.search(r"[@#\s]", text):
        raise UsageError(f"{shown(text)} is not a socket's URL; wss://contract.mexc.com/edge is")
    return text


def is_url(text: str, schemes: Collection[str]) -> bool:
    """Say whether a text is a URL of one of these schemes, with a host and no impossible port."""
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        return False


def is_host(name: str) -> bool:
    """Whether a host's name can be looked up: no part of it is empty, or too long."""
    try:
        return bool(name.encode("idna"))
    except UnicodeError:
        return False


def host_name(text: str) -> str:
    """Read the name of a host."""
    if not is_host(text):
        raise UsageError(f"{shown(text)} is not the name of a host")
    return text


def directory(text: str) -> Path:
    """Read a path at which a directory is or could be."""
    path = _path(text)
    # os.path answers where Path raises: in a directory that may not be read, for a name too long.
    place = next((place for place in (path, *path.parents) if os.path.exists(place)), None)
    if place is not None and not os.path.isdir(place):
        raise UsageError(f"{shown(str(place))} is a file, not a directory")
    return path


def file(text: str) -> Path:
    """Read the path of something that is there."""
    path = _path(text)
    if not os.path.exists(path):
        raise UsageError(f"there is no file {shown(text)}")
    return path


def parse_command(text: str) -> tuple[str, ...]:
    """Read a command's words as a shell would, which runs nothing; empty for none."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"not a command: {error}") from None  # its text may hold a secret
    if words and shutil.which(words[0]) is None:
        raise UsageError(f"{shown(words[0])} is not a program that can be run")
    return words


def new_file(text: str) -> Path:
    """Read the path of a file that is there or could be."""
    path = _path(text)
    if os.path.isdir(path) or not os.path.isdir(path.parent):
        raise UsageError(f"{shown(text)} is not a file in a directory that is there")
    return path


def _path(text: str) -> Path:
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # ~nobody
        path = None
    if path is None or not text:
        raise UsageError(f"{shown(text)} is not a path")
    # An environment file of another system or of a container's may leave these at the ends, and a
    # directory of that name would be made at once.
    if not text.isprintable():
        raise UsageError(f"{shown(text)} is not a path: it has characters that cannot be shown")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        raise UsageError(f"{shown(text)} is not a path: take away the quotes")
    return path


def _number(
    read: Callable[[str], Number], what: str, allowed: Callable[[Number], bool], rule: str
) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        try:
            number = read(text)
        except ValueError:
            raise UsageError(f"{shown(text)} is not {what}") from None
        if not allowed(number):
            raise UsageError(f"{shown(text)} must be {rule}")
        return number

    return parse


def _span(text: str) -> float:
    number = float(text)
    # Thirty years: no clock, database or socket knows what to do with more.
    if not math.isfinite(number) or number > 1e9:
        raise ValueError
    return number


seconds = _number(_span, "a number of seconds", lambda number: number >= 0, "0 or more")
positive_seconds = _number(_span, "a number of seconds", lambda number: number > 0, "more than 0")
ping_seconds = _number(
    _span, "a number of seconds", lambda number: 0 < number < 60, "more than 0 and less than 60"
)
