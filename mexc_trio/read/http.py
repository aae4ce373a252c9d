"""ClickHouse's HTTP interface to a recorder's store, for reading: an ASGI application.

What curl, clickhouse-connect, Grafana or `mexc-trio sql` send to a ClickHouse server they can send
here: a statement in the URL or in the body, `default_format`, `database`, `param_x`, and the
engine's settings as far as they do no harm. Errors carry ClickHouse's code and text.
"""

import re
import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import parse_qsl

import attrs
import trio

from mexc_trio.clickhouse.window import Answer, Window
from mexc_trio.errors import StoreError, StoreUnavailable

Message: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = list[tuple[str, str]]
T = TypeVar("T")

RUNNING: Final = 2
"""Statements that run at once: they share the processor with recording."""
WAITING: Final = 30.0
"""Seconds that a statement waits for its turn."""
BODY: Final = 2**20
"""Bytes of a statement."""
PIECE: Final = 2**16
"""Bytes handed to the network at once; a client has to take each within a bounded time."""

_TOO_MANY: Final = 202
_UNKNOWN: Final = 1002

# The engine's settings that change only how an answer looks, or make it smaller.
_SETTINGS: Final = re.compile(
    r"output_format_(?!parallel|arrow_parallel|parquet_parallel)\w+|date_time_output_format|"
    r"session_timezone|max_result_rows|result_overflow_mode|extremes|join_use_nulls"
)
_STATUS: Final = {
    **dict.fromkeys((36, 42, 43, 53, 62, 69, 70, 115, 456, 457), 400),
    **dict.fromkeys((164, 348, 497), 403),
    **dict.fromkeys((46, 47, 50, 60, 63, 73, 81), 404),
    _TOO_MANY: 429,
    48: 501,
    159: 504,
}
"""HTTP's status for ClickHouse's errors; 500 for the others."""

_MEDIA: Final = (
    ("JSONEachRow", "application/x-ndjson"),
    ("JSONCompactEachRow", "application/x-ndjson"),
    ("JSON", "application/json"),
    ("CSV", "text/csv"),
    ("TSV", "text/tab-separated-values"),
    ("TabSeparated", "text/tab-separated-values"),
    ("ArrowStream", "application/vnd.apache.arrow.stream"),
    ("Parquet", "application/vnd.apache.parquet"),
    ("Native", "application/octet-stream"),
    ("RowBinary", "application/octet-stream"),
)
"""The media types of formats, by how their names begin."""

_LOCAL: Final = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?", re.IGNORECASE)


@attrs.frozen
class Request:
    """A statement and what came with it."""

    sql: str
    format: str
    database: str
    query_id: str
    parameters: Mapping[str, str]
    settings: Mapping[str, str]

    @classmethod
    def of(cls, scope: Message, body: bytes) -> "Request":
        """Read it from a request's URL, headers and body."""
        fields = dict(
            parse_qsl(scope["query_string"].decode("latin-1"), True, errors="surrogateescape")
        )
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        text = body.decode("utf-8", "surrogateescape")
        # As ClickHouse has it: the URL's part first, the body after it.
        sql = "\n".join(part for part in (fields.get("query", ""), text) if part.strip())
        return cls(
            sql,
            fields.get("default_format") or headers.get("x-clickhouse-format") or "TabSeparated",
            fields.get("database") or headers.get("x-clickhouse-database") or "",
            fields.get("query_id") or str(uuid.uuid4()),
            {k.removeprefix("param_"): v for k, v in fields.items() if k.startswith("param_")},
            {k: v for k, v in fields.items() if _SETTINGS.fullmatch(k)},
        )


@attrs.define(eq=False)
class Interface:
    """The application: one for each store."""

    window: Window
    display_name: str
    loopback: bool
    """Whether only this machine can reach it; then it answers to no other name than this one."""
    _turns: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(RUNNING))
    _threads: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(2 * RUNNING), init=False
    )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        if self.loopback and not _is_local(scope):
            await self._reply(send, 403, "this recorder answers to localhost only\n")
        elif path in ("/ping", "/replicas_status"):
            await self._reply(send, 200, "Ok.\n")
        elif path != "/":
            await self._reply(send, 404, f"There is no handle {path}\n")
        elif method not in ("GET", "POST", "HEAD"):
            await self._reply(send, 405, "GET or POST\n")
        elif (body := await _body(receive)) is None:
            await self._reply(send, 413, f"a statement has at most {BODY} bytes\n")
        else:
            request = Request.of(scope, body)
            if request.sql:
                await self._answer(request, receive, send)
            else:
                await self._reply(send, 200, "Ok.\n")

    async def _answer(self, request: Request, receive: Receive, send: Send) -> None:
        try:
            async with self._turn():
                answer = await self._in_thread(partial(self._begin, request))
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._watch, receive, answer, nursery.cancel_scope)
                        await self._stream(answer, request, send)
                        nursery.cancel_scope.cancel()
                finally:
                    answer.close()
        except StoreError as error:
            await self._reply_error(send, error, request)

    def _begin(self, request: Request) -> Answer:
        return self.window.answer(
            request.sql,
            request.format,
            database=request.database,
            parameters=request.parameters,
            settings=request.settings,
        )

    async def _stream(self, answer: Answer, request: Request, send: Send) -> None:
        """Run a statement and send its answer, or the error."""
        tag = secrets.token_hex(8)
        pieces = answer.pieces()
        started = False
        try:
            piece = await self._in_thread(lambda: next(pieces, b""))
            await _start(send, 200, self._headers(answer.format, request.query_id, tag))
            started = True
            while piece:
                await _send_body(send, piece)
                piece = await self._in_thread(lambda: next(pieces, b""))
            await send({"type": "http.response.body"})
        except StoreError as error:
            if not started:
                await self._reply_error(send, error, request)
                return
            # ClickHouse's way to say it in the middle. There is no last chunk then, so that any
            # other client sees that the answer is not whole.
            text = self._error_text(error)
            end = f"\r\n__exception__\r\n{tag}\r\n{text}{len(text)} {tag}\r\n__exception__\r\n"
            await _send_body(send, end.encode("utf-8", "replace"))
        finally:
            with trio.CancelScope(shield=True):
                await self._in_thread(pieces.close)

    async def _watch(self, receive: Receive, answer: Answer, scope: trio.CancelScope) -> None:
        """End the statement when its client hangs up, or when all ends."""
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
            scope.cancel()
        finally:
            # A thread in the engine cannot be cancelled; the engine ends it.
            with trio.CancelScope(shield=True):
                await self._in_thread(answer.cancel)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        with trio.move_on_after(WAITING) as scope:
            await self._turns.acquire()
        if scope.cancelled_caught:
            error = StoreUnavailable(f"{RUNNING} other statements are running; try again later")
            error.code = _TOO_MANY
            raise error
        try:
            yield
        finally:
            self._turns.release()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(call, limiter=self._threads)

    async def _reply_error(self, send: Send, error: StoreError, request: Request) -> None:
        headers = self._headers("", request.query_id)
        headers.append(("X-ClickHouse-Exception-Code", str(error.code or _UNKNOWN)))
        text = self._error_text(error)
        await _start(send, _STATUS.get(error.code, 500), headers)
        await send({"type": "http.response.body", "body": text.encode("utf-8", "replace")})

    async def _reply(self, send: Send, status: int, text: str) -> None:
        await _start(send, status, self._headers())
        await send({"type": "http.response.body", "body": text.encode()})

    def _headers(self, format_: str = "", query_id: str = "", tag: str = "") -> Headers:
        media = next((m for name, m in _MEDIA if format_.startswith(name)), "text/plain")
        headers = [
            ("Content-Type", f"{media}; charset=UTF-8" if media.startswith("text/") else media),
            ("X-ClickHouse-Server-Display-Name", self.display_name),
            ("X-ClickHouse-Timezone", "UTC"),
        ]
        optional = {"Query-Id": query_id, "Format": format_, "Exception-Tag": tag}
        return headers + [(f"X-ClickHouse-{k}", v) for k, v in optional.items() if v]

    def _error_text(self, error: StoreError) -> str:
        text = str(error).removeprefix(f"{self.window.store.name}: ")
        text = text.removesuffix(f" (ClickHouse error {error.code})")
        return f"Code: {error.code or _UNKNOWN}. DB::Exception: {text}\n"


def _is_local(scope: Message) -> bool:
    """Return whether a request names this machine, and not a site that points to it."""
    host = next((value for name, value in scope["headers"] if name == b"host"), b"localhost")
    return _LOCAL.fullmatch(host.decode("latin-1")) is not None


async def _body(receive: Receive) -> bytes | None:
    """Return a request's body; None if it is too long."""
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > BODY:
            return None
        if not message.get("more_body"):
            return body


async def _start(send: Send, status: int, headers: Headers) -> None:
    # What a client may put into a header, such as a query's id, does not break it.
    encoded = [(k.lower().encode(), re.sub(r"[^\x20-\x7e]", "?", v).encode()) for k, v in headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def _send_body(send: Send, data: bytes) -> None:
    for first in range(0, len(data), PIECE):
        part = data[first : first + PIECE]
        await send({"type": "http.response.body", "body": part, "more_body": True})
