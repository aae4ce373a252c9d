"""The exchange's REST interface: which contracts it lists. The only user of the HTTP client.

An answer is HTTP 200 with `success`, and so is most of what goes wrong: the throttle is code 510. A
firewall in front of it answers 403 with a page of HTML. `Client.get` makes one `RestError` of
whatever happens, with the seconds after which it is worth asking again.

httpx2 is the maintained line of httpx, whose last release was in 2024; it runs on Trio itself and
has types.
"""

import logging
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Final, NamedTuple, Self, TypeVar

import attrs
import httpx2
import msgspec
import trio

from mexc_trio import __version__
from mexc_trio.backoff import Backoff
from mexc_trio.errors import ExchangeError, UsageError
from mexc_trio.exchange.rate_limiter import RateLimiter
from mexc_trio.exchange.tls import trusting, without_source
from mexc_trio.settings.routes import DIRECT, Route
from mexc_trio.symbols import parse_symbol
from mexc_trio.texts import one_line

log = logging.getLogger(__name__)

T = TypeVar("T")
# It logs every request at INFO.
logging.getLogger("httpx2").setLevel(logging.WARNING)
logging.getLogger("httpcore2").setLevel(logging.WARNING)

PACE: Final = 0.25
"""Seconds between the beginnings of two requests: four a second from one address are clean."""
TIMEOUT: Final = 30.0
"""Seconds for a whole request, its answer included."""
MOST_BYTES: Final = 64 * 1024 * 1024
"""An answer may be so long, unpacked. The list of 1,200 contracts has 2.3 MB."""
ON: Final = 0
"""The state of a contract that is traded."""

MOST_CANDLES: Final = 2000
"""In one answer."""

_THROTTLED: Final = 510
_NO_CONTRACT: Final = 1001
_PREFIX: Final = "/api/v1/contract/"


class Limits(NamedTuple):
    """What a request may take."""

    seconds: float
    """For the whole of it, its answer included."""
    size: int
    """Bytes of the answer, unpacked."""


class RestError(ExchangeError):
    """A request had no answer that is of use. It may have one later.

    `first` and `longest` are seconds: the pause after it, and what that may grow to.
    """

    def __init__(self, reason: str, first: float = 1.0, longest: float = 60.0) -> None:
        super().__init__(reason)
        self.first = first
        self.longest = longest

    def pause(self, backoff: Backoff) -> float:
        """Return the seconds to wait before the next attempt; `backoff` counts those in a row."""
        backoff.first, backoff.longest = self.first, self.longest
        return backoff.next()

    @classmethod
    def throttled(cls, reason: str) -> Self:
        """Return the error for too many requests."""
        return cls(reason, 5.0, 120.0)

    @classmethod
    def blocked(cls, reason: str) -> Self:
        """Return the error of a firewall, which lets go only of those who stay away."""
        return cls(reason, 60.0, 900.0)


def new_backoff() -> Backoff:
    """Return what `RestError.pause` takes before the first attempt."""
    return Backoff(1.0, 60.0, jitter=0.5)


class NoContract(RestError):  # noqa: N818 - says what is wrong
    """The exchange does not list the contract that was asked for."""


@attrs.frozen
class Contract:
    """A contract that the exchange lists."""

    symbol: str
    state: int
    """`ON`, or another number while it cannot be traded."""
    size: Decimal | None
    """How much of the base one contract of volume is; None if the exchange does not say."""

    @property
    def quote(self) -> str:
        """What its price is in: USDT for most, USD for those that are settled in their base."""
        return self.symbol.rpartition("_")[2]


@attrs.frozen
class Candle:
    """What the exchange says of the deals of one minute, digit for digit."""

    time: int
    """Seconds since 1970, when the minute began."""
    volume: Decimal
    """In contracts."""
    high: Decimal
    """Of the deals alone. A candle's own high and low count the close of the minute before too."""
    low: Decimal


class _Answer(msgspec.Struct):
    success: bool
    code: int = 0
    message: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Detail(msgspec.Struct):
    symbol: str
    state: int = ON
    # Read from the digits, not through a float.
    contractSize: Decimal | None = None  # noqa: N815 - the exchange's spelling


class _Columns(msgspec.Struct):
    time: list[int]
    vol: list[Decimal]
    high: list[Decimal]
    low: list[Decimal]
    realHigh: list[Decimal] = []  # noqa: N815 - the exchange's spelling
    realLow: list[Decimal] = []  # noqa: N815


@attrs.define(eq=False)
class Client:
    """Asks one exchange. Get one from `open_client`."""

    url: str
    _http: httpx2.AsyncClient
    _pace: RateLimiter
    _limits: Limits | None = None
    _told: set[str] = attrs.field(factory=set, init=False)
    """How entries begin that were not understood in the last list."""

    async def get(self, path: str, **query: str | int) -> msgspec.Raw:
        """Ask once, not sooner than the pace allows; return the answer's data.

        Args:
            path: what follows `/api/v1/contract/`.
            query: the parameters.

        Raises:
            RestError: there was no useful answer within the limits.
        """
        await self._pace.turn()
        seconds = self._bounds.seconds
        try:
            with trio.fail_after(seconds):
                status, body = await self._fetch(path, query)
        except trio.TooSlowError:
            raise RestError(f"{self.url} did not answer within {seconds:g} s") from None
        except httpx2.HTTPError as error:
            raise RestError(f"{self.url}: {_why(error)}") from error
        return self._data(status, body)

    async def contracts(self) -> list[Contract]:
        """Ask once for all contracts.

        Raises:
            RestError: there was no useful answer.
        """
        data = await self.get("detail")
        try:
            details = _decode(data, list[msgspec.Raw])
        except msgspec.DecodeError as error:
            raise RestError(f"{self.url}: the list of contracts is none: {error}") from error
        found: dict[str, Contract] = {}
        odd: list[str] = []
        for detail in details:
            try:
                read = _decode(detail, _Detail)
                if parse_symbol(read.symbol) != read.symbol:
                    raise UsageError("not in upper case")
            except (msgspec.DecodeError, UsageError):
                odd.append(bytes(detail)[:60].decode("utf-8", "replace"))
            else:
                found[read.symbol] = Contract(read.symbol, read.state, read.contractSize)
        if not self._told.issuperset(odd):
            log.warning(
                "%s lists %d contracts that are not understood, such as %s",
                self.url, len(odd), one_line(odd[0]),
            )  # fmt: skip
        self._told = set(odd)
        if not found:
            raise RestError(f"{self.url} lists no contract at all")
        return list(found.values())

    async def candles(self, symbol: str, start: int, end: int) -> list[Candle]:
        """Ask once for candles of one minute, oldest first.

        Args:
            symbol: the contract.
            start: seconds since 1970; the first minute begins then or later.
            end: the last minute begins then or earlier. An answer has at most `MOST_CANDLES`.

        Raises:
            NoContract: the exchange does not list the contract.
            RestError: there was no useful answer.
        """
        data = await self.get(f"kline/{symbol}", interval="Min1", start=start, end=end)
        try:
            columns = _decode(data, _Columns)
            highs, lows = columns.realHigh or columns.high, columns.realLow or columns.low
            rows = list(zip(columns.time, columns.vol, highs, lows, strict=True))
        except (msgspec.DecodeError, ValueError) as error:
            raise RestError(f"{self.url}: the candles of {symbol} are none: {error}") from error
        return sorted((Candle(*row) for row in rows), key=lambda candle: candle.time)

    @property
    def _bounds(self) -> Limits:
        return self._limits or Limits(TIMEOUT, MOST_BYTES)

    async def _fetch(self, path: str, query: dict[str, str | int]) -> tuple[int, bytes]:
        body, most = bytearray(), self._bounds.size
        async with self._http.stream("GET", f"{self.url}{_PREFIX}{path}", params=query) as answer:
            # Cancelled and not left, because the client does not close the generators beneath.
            with trio.CancelScope() as reading:
                async for piece in answer.aiter_raw():
                    body += piece
                    if len(body) > most:
                        reading.cancel()
            if len(body) > most:
                raise self._too_long()
            if answer.headers.get("Content-Encoding") == "gzip":
                return answer.status_code, self._unpacked(body)
            return answer.status_code, bytes(body)

    def _unpacked(self, body: bytearray) -> bytes:
        # Not by the client, which would unpack without a bound.
        unpacker = zlib.decompressobj(zlib.MAX_WBITS + 16)  # 16 is gzip
        try:
            unpacked = unpacker.decompress(body, self._bounds.size)
        except zlib.error as error:
            raise RestError(f"{self.url}: an answer that cannot be unpacked: {error}") from error
        if unpacker.unconsumed_tail:
            raise self._too_long()
        return unpacked

    def _too_long(self) -> RestError:
        return RestError(f"{self.url}: an answer of more than {self._bounds.size >> 20} MiB")

    def _data(self, status: int, body: bytes) -> msgspec.Raw:
        if status == httpx2.codes.FORBIDDEN:
            raise RestError.blocked(f"{self.url} answers HTTP 403: a firewall keeps us out")
        if status == httpx2.codes.TOO_MANY_REQUESTS:
            raise RestError.throttled(f"{self.url} answers HTTP 429: too many requests")
        if status != httpx2.codes.OK:
            raise RestError(f"{self.url} answers HTTP {status}; is --rest-url right?")
        try:
            answer = _decode(body, _Answer)
        except msgspec.DecodeError as error:
            raise RestError(f"{self.url} answers what is no JSON of its kind: {error}") from error
        if answer.success:
            return answer.data
        said = f"{self.url} says: {answer.message[:200] or 'nothing'} (code {answer.code})"
        if answer.code == _NO_CONTRACT:
            raise NoContract(said)
        raise RestError.throttled(said) if answer.code == _THROTTLED else RestError(said)


@asynccontextmanager
async def open_client(
    url: str,
    route: Route = DIRECT,
    pace: RateLimiter | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[Client]:
    """Open a client of a REST interface.

    Args:
        url: where it is, such as https://contract.mexc.com.
        route: how it is reached.
        pace: spaces out requests; of all clients on a route, if they share it.
        limits: for each request; None is those that suit the list of contracts.
    """
    proxy = (
        httpx2.Proxy(route.proxy_url, auth=(route.user, route.password))
        if route.proxy_url
        else None
    )
    transport = None
    if route.kind == "from":
        transport = httpx2.AsyncHTTPTransport(
            verify=trusting(), trust_env=False, local_address=route.host
        )
    # The environment's proxies are not those of the socket to the exchange, so not these either.
    async with httpx2.AsyncClient(
        proxy=proxy,
        transport=transport,
        timeout=None,  # Client.get bounds the whole of it
        follow_redirects=True,
        trust_env=False,
        verify=trusting(),
        headers={"Accept-Encoding": "gzip", "User-Agent": f"mexc-trio/{__version__}"},
    ) as http:
        yield Client(url.rstrip("/"), http, pace or RateLimiter(PACE), limits)


async def list_contracts(client: Client) -> Sequence[Contract]:
    """Ask for all contracts until there is an answer, with a line in the log for each failure."""
    backoff = new_backoff()
    while True:
        try:
            return await client.contracts()
        except RestError as error:
            pause = error.pause(backoff)
            log.warning("no list of contracts: %s; asking again in %.0f s", error, pause)
            await trio.sleep(pause)


def _why(error: BaseException) -> str:
    """Return what an error says, or else what was behind it: the client's own are often silent."""
    behind: BaseException | None = error
    while behind is not None and not (text := one_line(str(behind))):
        behind = behind.__cause__ or behind.__context__
    return type(error).__name__ if behind is None else without_source(text)


def _decode(data: bytes | msgspec.Raw, type_: type[T]) -> T:
    """Return JSON as a type. Whatever is wrong with it is a `msgspec.DecodeError`."""
    try:
        return msgspec.json.decode(data, type=type_)
    except (RecursionError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(str(error)) from error
