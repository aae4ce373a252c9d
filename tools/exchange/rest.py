"""The exchange's REST interface: contracts, deals, candles and books, over HTTP/1.1.

It knows the errors that recorders must live with: a throttle that is HTTP 200, a firewall's page of
HTML, answers that come late, break off or never end.
"""

from __future__ import annotations

import gzip
import http
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import parse_qsl, urlsplit

import attrs
import h11
import msgspec
import trio

from tools.exchange.door import HOST, Door
from tools.exchange.handshakes import html_page
from tools.exchange.tape import MOST_DEALS

if TYPE_CHECKING:
    from tools.exchange.state import State

Trouble = Literal[
    "none", "throttled", "html", "error", "broken", "endless", "hangup", "empty", "foreign", "long"
]
"""What requests meet: answers, or one failure of them.

``throttled`` is the exchange's own complaint, ``html`` a firewall's page with HTTP 403, ``error``
HTTP 500 with a page, ``broken`` JSON that is cut off, ``endless`` a body without an end, ``hangup``
the end of the connection in the middle of an answer. Of deals, ``empty`` is a list of none,
``foreign`` that of another contract, and ``long`` one of 2 MB.
"""

PREFIX: Final = "/api/v1/contract/"
_UNKNOWN: Final = b'{"success":false,"code":1001,"message":"contract not exists"}'
_BAD: Final = b'{"success":false,"code":600,"message":"Parameter error"}'
_THROTTLED: Final = (
    b'{"success":false,"code":510,"message":"Requests are too frequent, please try again later"}'
)
_PIECE: Final = 65536
_LONG: Final = 2_000_000
_SMALL: Final = 1024  # bytes; what is longer is compressed for those who can read it


@attrs.define(eq=False)
class Rest:
    """Answers requests. These attributes may be changed at any time.

    - ``trouble``: what requests meet;
    - ``delay``: seconds before an answer;
    - ``most``: requests in one second that are answered; those above are throttled;
    - ``lag``: seconds for which deals are not told yet;
    - ``ids``: whether deals have their ids, which MEXC's documentation shows them without.

    ``requests`` keeps the time on Trio's clock and the target of each (if ``keep``).
    """

    _exchange: State
    keep: bool = True
    trouble: Trouble = attrs.field(default="none", init=False)
    delay: float = attrs.field(default=0.0, init=False)
    most: int = attrs.field(default=20, init=False)
    lag: float = attrs.field(default=0.0, init=False)
    ids: bool = attrs.field(default=False, init=False)
    requests: list[tuple[float, str]] = attrs.field(factory=list, init=False)
    door: Door = attrs.field(init=False)
    _recent: deque[float] = attrs.field(factory=deque, init=False)
    _streams: set[trio.abc.Stream] = attrs.field(factory=set, init=False)

    @property
    def url(self) -> str:
        """The address for the recorder's ``--rest-url``."""
        return f"http://{HOST}:{self.door.port}"

    async def go_down(self) -> None:
        """Break all connections and refuse new ones, until ``come_back``."""
        await self.door.close()
        for stream in list(self._streams):
            await trio.aclose_forcefully(stream)

    async def come_back(self) -> None:
        """Accept connections again, on the same port."""
        await self.door.open()

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Answer the requests of one connection until it ends."""
        connection = h11.Connection(h11.SERVER)
        self._streams.add(stream)
        try:
            async with stream:
                while request := await _next_request(connection, stream):
                    await self._respond(connection, stream, request)
                    if set(connection.states.values()) != {h11.DONE}:
                        break
                    connection.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass  # the client left, or does not speak HTTP
        finally:
            self._streams.remove(stream)

    async def _respond(
        self, connection: h11.Connection, stream: trio.abc.Stream, request: h11.Request
    ) -> None:
        target = request.target.decode()
        if self.keep:
            self.requests.append((trio.current_time(), target))
        await trio.sleep(self.delay)
        trouble = self.trouble  # it may change while this answer is under way
        status, body = self._answer(request.method, target, trouble)
        if trouble == "broken":
            body = body[: len(body) // 2]
        html = not body.startswith((b"{", b"["))
        headers = [
            ("Content-Type", "text/html" if html else "application/json"),
            ("Vary", "Accept-Encoding"),
        ]
        if len(body) > _SMALL and b"gzip" in dict(request.headers).get(b"accept-encoding", b""):
            body = gzip.compress(body, 1)
            headers.append(("Content-Encoding", "gzip"))
        if trouble != "endless":  # h11 then sends it in chunks
            headers.append(("Content-Length", str(len(body))))
        head = h11.Response(status_code=status.value, reason=status.phrase, headers=headers)
        await _send(connection, stream, head)
        if trouble == "hangup":
            body = body[: len(body) // 2]
        for i in range(0, len(body), _PIECE):
            await _send(connection, stream, h11.Data(body[i : i + _PIECE]))
        while trouble == "endless":
            await _send(connection, stream, h11.Data(b" " * _PIECE))
        if trouble == "hangup":
            connection.send_failed()
        else:
            await _send(connection, stream, h11.EndOfMessage())

    def _answer(
        self, method: bytes, target: str, trouble: Trouble
    ) -> tuple[http.HTTPStatus, bytes]:
        now = trio.current_time()
        while self._recent and self._recent[0] <= now - 1:
            self._recent.popleft()
        self._recent.append(now)
        if trouble in ("html", "error"):
            forbidden = trouble == "html"
            status = http.HTTPStatus.FORBIDDEN if forbidden else http.HTTPStatus(500)
            return status, html_page(status).encode()
        if trouble == "throttled" or len(self._recent) > self.most:
            return http.HTTPStatus.OK, _THROTTLED
        parts = urlsplit(target)
        resource, _, symbol = parts.path.removeprefix(PREFIX).partition("/")
        if method != b"GET" or not parts.path.startswith(PREFIX):
            status = http.HTTPStatus.NOT_FOUND
            return status, html_page(status).encode()
        return http.HTTPStatus.OK, self._resource(resource, symbol, dict(parse_qsl(parts.query)))

    def _resource(self, resource: str, symbol: str, query: Mapping[str, str]) -> bytes:
        exchange, listing = self._exchange, self._exchange.listing
        if resource == "ping":
            return _success(exchange.market.clock())
        if resource == "detail":
            if "symbol" not in query:
                return _success([listing.detail(listed) for listed in listing.states])
            known = query["symbol"] in listing.states
            return _success(listing.detail(query["symbol"])) if known else _UNKNOWN
        if symbol not in listing.states and not listing.exists(symbol):
            return _UNKNOWN
        try:
            limit = min(int(query.get("limit", MOST_DEALS)), MOST_DEALS)
            now = exchange.market.clock() // 1000
            start = int(query["start"]) if "start" in query else None
            end = min(int(query.get("end", now)), now)
        except ValueError:
            return _BAD
        if resource == "deals":
            return _success(msgspec.Raw(self._deals(symbol, limit).encode()))
        if resource == "depth":
            return _success(msgspec.Raw(self._book(symbol, limit).encode()))
        if resource == "kline" and query.get("interval", "Min1") == "Min1":
            columns = exchange.tape.columns(symbol, start, end)
            texts = (f'"{name}":[{",".join(texts)}]' for name, texts in columns.items())
            return _success(msgspec.Raw(f"{{{','.join(texts)}}}".encode()))
        return _BAD

    def _deals(self, symbol: str, limit: int) -> str:
        tape = self._exchange.tape
        until = self._exchange.market.clock() - int(self.lag * 1000) if self.lag else None
        if self.trouble == "foreign":
            symbol = next((other for other in tape.symbols if other != symbol), "")
        listed = tape.deals(symbol, limit, until)
        if self.trouble == "empty":
            listed = []
        deals = []
        for (t, _, text), id_ in listed:
            p, v, side = text.split("|")
            i = f',"i":"{id_}"' if self.ids and id_ else ""
            deals.append(f'{{"p":{p},"v":{v},"T":{side},"O":3,"M":1,"t":{t}{i}}}')
        if self.trouble == "long" and deals:
            deals *= _LONG // len(deals[0])
        return f"[{','.join(deals)}]"

    def _book(self, symbol: str, limit: int) -> str:
        market = self._exchange.market
        asks, bids, version = market.book(symbol, limit)
        return f'{{"asks":{asks},"bids":{bids},"version":{version},"timestamp":{market.clock()}}}'


def _success(data: object) -> bytes:
    return msgspec.json.encode({"success": True, "code": 0, "data": data})


async def _send(connection: h11.Connection, stream: trio.abc.Stream, event: h11.Event) -> None:
    await stream.send_all(connection.send(event) or b"")


async def _next_request(connection: h11.Connection, stream: trio.abc.Stream) -> h11.Request | None:
    """Read a request and the body that it should not have; None is the end of the connection."""
    request = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(_PIECE)))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            return request
        elif isinstance(event, h11.ConnectionClosed):
            return None
