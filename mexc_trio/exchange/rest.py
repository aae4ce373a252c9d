"""The exchange's REST interface, by the only user of the HTTP client.

An answer is HTTP 200 with `success`, and so is most of what goes wrong: the throttle is code 510. A
firewall in front of it answers 403 with a page of HTML. `Client.get` makes one `RestError` of
whatever happens, with the seconds after which it is worth asking again. httpx2 is the maintained
line of httpx; it runs on Trio itself and has types.
"""

import logging
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, NamedTuple, ParamSpec, TypeVar

import attrs
import httpx2
import msgspec
import trio

from mexc_trio import __version__
from mexc_trio.backoff import Backoff
from mexc_trio.errors import ExchangeError, words_of
from mexc_trio.exchange.rate_limiter import RateLimiter
from mexc_trio.exchange.tls import trusting
from mexc_trio.settings.routes import DIRECT, Route
from mexc_trio.texts import one_line

T = TypeVar("T")
P = ParamSpec("P")
# It logs every request at INFO.
logging.getLogger("httpx2").setLevel(logging.WARNING)
logging.getLogger("httpcore2").setLevel(logging.WARNING)

REQUEST_INTERVAL: Final = 0.25
"""Seconds between the beginnings of two requests: four a second from one address are clean."""
TIMEOUT: Final = 30.0
"""Seconds for a whole request, its answer included."""
MOST_BYTES: Final = 16 * 1024 * 1024
"""An answer may be so long, unpacked. The list of 1,200 contracts has 2.3 MB."""
MOST_PARTS: Final = 500_000
"""So many commas may be in an answer. The same list has about 70,000."""
_SMALL: Final = 16_384
"""Bytes that are decoded in Trio's thread; packed ones, be they few, are unpacked in another."""

_THROTTLED: Final = 510
_THROTTLED_PAUSES: Final = (5.0, 120.0)
_BLOCKED_PAUSES: Final = (60.0, 900.0)  # a firewall lets go only of those who stay away
_NO_CONTRACT: Final = 1001
_PREFIX: Final = "/api/v1/contract/"


class RequestLimits(NamedTuple):
    """What a request may take; by default as much as the list of contracts needs."""

    seconds: float = TIMEOUT
    """For the whole of it, its answer included."""
    size: int = MOST_BYTES
    """Bytes of the answer, unpacked."""


USUAL_LIMITS: Final = RequestLimits()


class RestError(ExchangeError):
    """A request had no useful answer, but may have one later.

    `first` are the seconds to wait before asking again, `longest` what that may grow to.
    """

    def __init__(self, reason: str, first: float = 1.0, longest: float = 60.0) -> None:
        super().__init__(reason)
        self.first = first
        self.longest = longest

    def pause(self, backoff: Backoff) -> float:
        """Return the seconds to wait before the next attempt; `backoff` counts those in a row."""
        backoff.first, backoff.longest = self.first, self.longest
        return backoff.next()


def new_backoff() -> Backoff:
    """Return what `RestError.pause` takes before the first attempt."""
    return Backoff(1.0, 60.0, jitter=0.5)


class NoContract(RestError):  # noqa: N818 - says what is wrong
    """The exchange does not list the contract that was asked for."""


class _Answer(msgspec.Struct):
    success: bool
    code: int = 0
    message: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


@attrs.define(eq=False)
class Client:
    """Asks one exchange. Get one from `open_client`."""

    url: str
    _http: httpx2.AsyncClient
    _rate_limiter: RateLimiter
    _limits: RequestLimits
    not_understood: set[str] = attrs.field(factory=set, init=False)
    """What its last list had of that kind, by how it begins."""

    async def get(self, path: str, **query: str | int) -> msgspec.Raw:
        """Ask once for `/api/v1/contract/PATH`, when the limiter allows; return the answer's data.

        `query` has the parameters. Raises NoContract if the exchange does not list the contract
        that is asked about, RestError where there is no useful answer within the limits.
        """
        await self._rate_limiter.acquire()
        seconds, size = self._limits
        try:
            with trio.fail_after(seconds):
                status, body, packed = await self._fetch(path, query)
        except trio.TooSlowError:
            raise RestError(f"{self.url} did not answer within {seconds:g} s") from None
        except httpx2.HTTPError as error:
            raise RestError(f"{self.url}: {words_of(error)}") from error
        if packed:
            body = await in_thread_if_long(size, self._unpacked, body)
        return await in_thread_if_long(len(body), self._data, status, body)

    async def _fetch(self, path: str, query: dict[str, str | int]) -> tuple[int, bytes, bool]:
        """Return the status, the answer, and whether that is packed."""
        body, most = bytearray(), self._limits.size
        async with self._http.stream("GET", f"{self.url}{_PREFIX}{path}", params=query) as answer:
            # Cancelled and not left, because the client does not close the generators beneath.
            with trio.CancelScope() as reading:
                async for piece in answer.aiter_raw():
                    body += piece
                    if len(body) > most:
                        reading.cancel()
            if len(body) > most:
                raise self._too_long()
            packed = answer.headers.get("Content-Encoding") == "gzip"
            return answer.status_code, bytes(body), packed

    def _unpacked(self, body: bytes) -> bytes:
        # Not by the client, which would unpack without a bound.
        unpacker = zlib.decompressobj(zlib.MAX_WBITS + 16)  # 16 is gzip
        try:
            unpacked = unpacker.decompress(body, self._limits.size)
        except zlib.error as error:
            raise RestError(f"{self.url}: an answer that cannot be unpacked: {error}") from error
        if unpacker.unconsumed_tail:
            raise self._too_long()
        return unpacked

    def _too_long(self) -> RestError:
        return RestError(f"{self.url}: an answer of more than {self._limits.size >> 20} MiB")

    def _data(self, status: int, body: bytes) -> msgspec.Raw:
        if status == httpx2.codes.FORBIDDEN:
            reason = f"{self.url} answers HTTP 403: a firewall keeps us out"
            raise RestError(reason, *_BLOCKED_PAUSES)
        if status == httpx2.codes.TOO_MANY_REQUESTS:
            raise RestError(f"{self.url} answers HTTP 429: too many requests", *_THROTTLED_PAUSES)
        if status != httpx2.codes.OK:
            raise RestError(f"{self.url} answers HTTP {status}; is --rest-url right?")
        # Decoding many small parts holds up the whole program, in a thread as well.
        if body.count(b",") > MOST_PARTS:
            raise RestError(f"{self.url}: an answer of more than {MOST_PARTS:,} parts")
        try:
            answer = decode(body, _Answer)
        except msgspec.DecodeError as error:
            raise RestError(f"{self.url} answers what is no JSON of its kind: {error}") from error
        if answer.success:
            return answer.data
        said = f"{self.url} says: {answer.message[:200] or 'nothing'} (code {answer.code})"
        if answer.code == _NO_CONTRACT:
            raise NoContract(said)
        raise RestError(said, *(_THROTTLED_PAUSES if answer.code == _THROTTLED else ()))


@asynccontextmanager
async def open_client(
    url: str,
    route: Route = DIRECT,
    rate_limiter: RateLimiter | None = None,
    limits: RequestLimits = USUAL_LIMITS,
) -> AsyncIterator[Client]:
    """Open a client of the REST interface at a URL such as https://contract.mexc.com.

    The rate limiter spaces out requests; clients on the same route may share one. `limits` are for
    each request.
    """
    through = route.proxy_url
    # The environment's proxies are not those of the socket to the exchange, so not these either.
    async with httpx2.AsyncClient(
        transport=httpx2.AsyncHTTPTransport(
            verify=trusting(),
            trust_env=False,
            proxy=httpx2.Proxy(through, auth=(route.user, route.password)) if through else None,
            local_address=route.host if route.kind == "from" else None,
        ),
        timeout=None,  # Client.get bounds the whole of it
        follow_redirects=True,
        event_hooks={"request": [partial(_refuse_plain, url)]},
        trust_env=False,
        headers={"Accept-Encoding": "gzip", "User-Agent": f"mexc-trio/{__version__}"},
    ) as http:
        yield Client(url.rstrip("/"), http, rate_limiter or RateLimiter(REQUEST_INTERVAL), limits)


async def _refuse_plain(url: str, request: httpx2.Request) -> None:
    """Raise RestError for a redirect that leaves TLS: it could lead to any program nearby."""
    if url.lower().startswith("https:") and request.url.scheme != "https":
        where = one_line(str(request.url))
        raise RestError(f"{url} redirects to {where}, which is not https: not followed")


async def in_thread_if_long(
    size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return what a function makes of an answer; a long one in a thread, so that frames come."""
    if size <= _SMALL:
        return function(*args, **kwargs)
    results: list[T] = []
    errors: list[Exception] = []

    def call() -> None:
        try:
            results.append(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it is raised again below
            errors.append(error)

    # Trio would hold an error that comes out of the thread, and that by its traceback the answer,
    # until garbage is next looked for; many long answers could come until then.
    await trio.to_thread.run_sync(call)
    if errors:
        raise errors.pop()
    return results.pop()


def decode(data: bytes | msgspec.Raw, type_: type[T]) -> T:
    """Return JSON as a type. Whatever is wrong with it is a `msgspec.DecodeError`."""
    try:
        return msgspec.json.decode(data, type=type_)
    except (RecursionError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(str(error)) from error
