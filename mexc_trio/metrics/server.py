"""A small HTTP server for pages that anybody may ask for at any time, and that cost little.

It reads the head of a request, answers GET and HEAD, and closes. How many are answered at once, how
long a head may be, and how long all of it may take are bounded: clients that hang, trickle, flood
or take nothing cost nothing but their own answer.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import attrs
import trio

log = logging.getLogger(__name__)

AT_ONCE: Final = 16
"""Requests that are answered at one time; more are turned away. Also answers that wait to be taken:
of more, the oldest is dropped, whose client is slow or takes nothing."""
WAITING: Final = 64
"""Connections whose request has not come. Of more, the one that has been silent for longest is
dropped: who asks at once gets an answer, however many connect and say nothing."""
LONGEST_HEAD: Final = 8192
"""Bytes of a request's line and headers."""
PATIENCE: Final = 10.0
"""Seconds from the connection to the end of the answer: what Prometheus waits for by default."""

_LOCAL: Final = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?", re.IGNORECASE)
_REQUEST: Final = re.compile(r"([A-Z]+) (\S+) HTTP/1\.[01]")


@attrs.frozen
class Response:
    """What is sent."""

    body: bytes
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"


GetPage: TypeAlias = Callable[[str], Awaitable[Response | None]]
"""Returns what there is at a path; None for nothing."""


async def serve(
    listeners: Sequence[trio.SocketListener],
    get_page: GetPage,
    *,
    local: bool,
    patience: float = PATIENCE,
) -> None:
    """Answer until cancelled; the listeners are closed at the end.

    If `local`, to this machine's own names only, so that no site that a browser here looks at can
    read along by giving its own name this machine's address.
    """
    answering = 0
    waiting, sending = _Slots(WAITING), _Slots(AT_ONCE)

    async def request(stream: trio.SocketStream) -> bytes | None:
        """Return the head that comes; None if others came, too, and it took longest."""
        with waiting.one():
            return await _head(stream)
        return None

    async def answered(head: bytes) -> tuple[Response, bool]:
        """Return the answer to a request, and whether with its body."""
        nonlocal answering
        if answering >= AT_ONCE:
            return Response(b"too many requests at once\n", 503), True
        answering += 1
        try:
            return await _answer(head, get_page, local=local)
        finally:
            answering -= 1

    async def handle(stream: trio.SocketStream) -> None:
        try:
            with trio.move_on_after(patience):
                if (head := await request(stream)) is None:
                    return
                answer, with_body = await answered(head)
                with sending.one():
                    await stream.send_all(_encode(answer, with_body=with_body))
                    await stream.send_eof()
        except (trio.BrokenResourceError, OSError):
            pass  # whoever asked has gone
        except Exception:
            log.exception("a request for metrics failed")
        finally:
            await trio.aclose_forcefully(stream)

    await trio.serve_listeners(handle, list(listeners))


@attrs.define(eq=False)
class _Slots:
    """Slots for so many; whoever comes when all are taken gets the one that was taken first."""

    number: int
    _taken: dict[trio.CancelScope, None] = attrs.field(factory=dict, init=False)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Have a slot while the block runs, which is cut off when the slot is lost."""
        if len(self._taken) >= self.number:
            oldest = next(iter(self._taken))
            del self._taken[oldest]
            oldest.cancel()
        with trio.CancelScope() as scope:
            self._taken[scope] = None
            try:
                yield
            finally:
                self._taken.pop(scope, None)


async def _head(stream: trio.abc.ReceiveStream) -> bytes:
    """Return the request's line and headers; nothing if what comes is no request."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = await stream.receive_some(LONGEST_HEAD)
        head += piece
        if not piece or len(head) > LONGEST_HEAD:
            return b""
    return head


async def _answer(head: bytes, get_page: GetPage, *, local: bool) -> tuple[Response, bool]:
    """Return the answer to a request, and whether with its body."""
    first, *fields = head.split(b"\r\n\r\n", 1)[0].decode("latin-1").split("\r\n")
    request = _REQUEST.fullmatch(first)
    if request is None:
        return Response(b"no HTTP request\n", 400), True
    method, target = request.groups()
    headers = {
        name.strip().lower(): text.strip() for name, _, text in (f.partition(":") for f in fields)
    }
    if local and not _LOCAL.fullmatch(headers.get("host", "localhost")):
        return Response(b"this recorder answers to localhost only\n", 403), True
    if method not in ("GET", "HEAD"):
        return Response(b"GET or HEAD\n", 405), True
    try:
        path = urlsplit(target).path
    except ValueError:
        path = ""
    found = await get_page(path)
    return found or Response(b"there is /metrics, /live and /ready\n", 404), method == "GET"


def _encode(answer: Response, *, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (answer.body if with_body else b"")
