"""The recorded deals held against the exchange's candles, on the simulated exchange."""

import time
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal

import msgspec
import pytest

from mexc_trio.analysis.row_counts import DealtMinute
from mexc_trio.backoff import Backoff
from mexc_trio.exchange.contracts import candles_of
from mexc_trio.exchange.rate_limiter import RateLimiter
from mexc_trio.exchange.rest import REQUEST_INTERVAL, RestError, open_client
from mexc_trio.rows import Row
from mexc_trio.spans import DAY, HOUR, MINUTE, SECOND, Span
from mexc_trio.verify import completeness
from mexc_trio.verify.completeness import ATTEMPTS, CheckedSymbol, Completeness, compare
from tools.exchange import Exchange, Rest, open_exchange

START = (int(time.time() * SECOND) - 3 * HOUR) // MINUTE * MINUTE
LENGTH = HOUR
MINUTES = LENGTH // MINUTE


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    """Lend an exchange with a REST interface."""
    async with open_exchange(rest_port=0) as exchange:
        yield exchange


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the long pauses out of repeated requests."""
    monkeypatch.setattr(RestError, "pause", lambda *_: 0.01)


def deals(start: int = START, length: int = LENGTH) -> list[Row]:
    """Return deals, one in 20 seconds; their numbers are of every kind that the exchange has."""
    volumes = ("1", "61062435.671810000000000000000000", "0.000000000000000003", "2384")
    return [
        Row(start + i * 20_000, "d", f"{60_000 + i % 7}.{i % 5}0|{volumes[i % 4]}|{1 + i % 2}")
        for i in range(length // 20_000)
    ]


def plain(rows: Sequence[Row]) -> list[tuple[int, str, str]]:
    """Return rows as the exchange keeps them."""
    return [(row.ts, row.mt, row.m) for row in rows]


def recorded(
    rows: Sequence[Row], symbol: str = "BTC_USDT", gaps: Sequence[Span] = (), length: int = LENGTH
) -> CheckedSymbol:
    """Return a symbol as it would come from a store, added up in Python."""
    minutes: dict[int, list[tuple[Decimal, Decimal]]] = {}
    for ts, _, m in rows:
        price, volume, _ = m.split("|")
        minutes.setdefault(ts // MINUTE, []).append((Decimal(price), Decimal(volume)))
    return CheckedSymbol(
        symbol,
        symbol.lower(),
        (START - 10 * SECOND, START + length + 10 * SECOND),
        lambda span: {
            minute: DealtMinute(
                sum((v for _, v in some), Decimal(0)),
                max(p for p, _ in some),
                min(p for p, _ in some),
                inexact=False,
            )
            for minute, some in minutes.items()
            if span[0] <= minute * MINUTE < span[1]
        },
        gaps,
    )


async def one(rest: Rest, rows: Sequence[Row], gaps: Sequence[Span] = ()) -> Completeness:
    """Compare one symbol."""
    (result,) = await compare(rest.url, [recorded(rows, gaps=gaps)], RateLimiter(0.0))
    return result


async def test_all_that_was_dealt_is_no_difference(exchange: Exchange, rest: Rest) -> None:
    """Candles in doubles with exponents agree with texts of thirty digits."""
    exchange.tape.add("BTC_USDT", plain(deals()))
    result = await one(rest, deals())
    assert (result.minutes, result.different, result.failure) == (MINUTES, [], "")
    assert (result.first, result.last) == (START, START + LENGTH - MINUTE)


@pytest.mark.parametrize("lost", [0, 1, 100, 3 * MINUTES - 1])
async def test_a_deal_that_is_missing(exchange: Exchange, rest: Rest, lost: int) -> None:
    """Its minute is named, with what the exchange has and what was recorded."""
    rows = deals()
    exchange.tape.add("BTC_USDT", plain(rows))
    gone = rows.pop(lost)
    (minute,) = (await one(rest, rows)).different
    assert minute.start == gone.ts // MINUTE * MINUTE
    assert not minute.in_gap
    assert minute.recorded is not None
    assert minute.candle is not None
    assert minute.recorded.volume < minute.candle.volume


async def test_a_deal_too_many_and_a_minute_too_many(exchange: Exchange, rest: Rest) -> None:
    """More than the exchange has is a difference as well."""
    rows = deals()
    kept = [row for row in rows if row.ts // MINUTE != START // MINUTE + 20]
    exchange.tape.add("BTC_USDT", plain(kept))
    different = (await one(rest, [*rows, rows[0]])).different
    assert [minute.start for minute in different] == [START, START + 20 * MINUTE]


async def test_the_smallest_deal_that_is_missing(exchange: Exchange, rest: Rest) -> None:
    """A hundred-thousandth of a contract among sixty million is a difference."""
    small = Row(START + 90_000, "d", "60004.40|0.00001|1")
    exchange.tape.add("BTC_USDT", plain([*deals(), small]))
    (minute,) = (await one(rest, deals())).different
    assert minute.start == START + MINUTE


@pytest.mark.parametrize(("price", "extreme"), [("70000", "high"), ("50000.5", "low")])
async def test_a_price_that_was_another(
    exchange: Exchange, rest: Rest, price: str, extreme: str
) -> None:
    """The same volume at another price is a difference where it is the highest or the lowest."""
    rows = deals()
    exchange.tape.add("BTC_USDT", plain(rows))
    rows[10] = rows[10]._replace(m=f"{price}|" + rows[10].m.split("|", 1)[1])
    (minute,) = (await one(rest, rows)).different
    assert minute.start == START + 3 * MINUTE
    assert getattr(minute.recorded, extreme) == Decimal(price)


async def test_minutes_in_known_gaps_are_told_apart(exchange: Exchange, rest: Rest) -> None:
    """A minute that a gap touches is no accusation."""
    rows = deals()
    exchange.tape.add("BTC_USDT", plain(rows))
    some = [row for i, row in enumerate(rows) if i not in (31, 32, 33, 100)]
    gaps = [(rows[30].ts, rows[34].ts)]
    different = (await one(rest, some, gaps)).different
    assert [(minute.start - START, minute.in_gap) for minute in different] == [
        (10 * MINUTE, True),
        (11 * MINUTE, True),
        (33 * MINUTE, False),
    ]


async def test_only_whole_minutes_count(exchange: Exchange, rest: Rest) -> None:
    """A minute in which recording began or ended is not compared, nor what is no longer kept."""
    rows = deals()
    exchange.tape.add("BTC_USDT", plain(rows))
    whole = recorded(rows[5:-5])
    span = (START + 90 * SECOND, START + LENGTH - 90 * SECOND)
    started = CheckedSymbol("BTC_USDT", "btc", span, whole.deals, [])
    (result,) = await compare(rest.url, [started], RateLimiter(0.0))
    assert (result.minutes, result.different) == (MINUTES - 4, [])
    old = CheckedSymbol("BTC_USDT", "btc", (START - 40 * DAY, START - 35 * DAY), whole.deals, [])
    (result,) = await compare(rest.url, [old], RateLimiter(0.0))
    assert (result.minutes, result.different, result.failure) == (0, (), "")


async def test_more_minutes_than_one_answer_has(exchange: Exchange, rest: Rest) -> None:
    """Each minute is asked for once, in as few requests as there can be."""
    length = 150 * MINUTE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(completeness, "MOST_CANDLES", 40)
        exchange.tape.add("BTC_USDT", plain(deals(length=length)))
        whole = recorded(deals(length=length), length=length)
        (result,) = await compare(rest.url, [whole], RateLimiter(0.0))
    assert (result.minutes, result.different) == (150, [])
    assert len(rest.requests) == 4


async def test_trouble_that_passes(
    exchange: Exchange, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A throttle and a firewall are waited out, at the pace that the exchange bears."""
    exchange.tape.add("BTC_USDT", plain(deals()))
    rest.trouble = "throttled"
    pauses: list[tuple[float, float]] = []

    def pause(error: RestError, backoff: Backoff) -> float:
        rest.trouble = "none" if pauses else "html"
        pauses.append((error.first, error.longest))
        return 0.01

    monkeypatch.setattr(RestError, "pause", pause)
    (result,) = await compare(rest.url, [recorded(deals())])
    assert (result.failure, result.minutes) == ("", MINUTES)
    assert pauses == [(5.0, 120.0), (60.0, 900.0)]
    times = [at for at, _ in rest.requests]
    # Each may be late by itself on a busy machine, and the next one early by as much.
    assert times[-1] - times[0] > 0.5 * REQUEST_INTERVAL * (len(times) - 1)


@pytest.mark.usefixtures("hasty")
async def test_trouble_that_stays(exchange: Exchange, rest: Rest) -> None:
    """After a few attempts it is given up in words, and the other symbols with it."""
    rest.trouble = "html"
    both = [recorded(deals()), recorded(deals(), symbol="ETH_USDT")]
    results = await compare(rest.url, both, RateLimiter(0.0))
    assert ["HTTP 403" in result.failure for result in results] == [True, True]
    assert len(rest.requests) == ATTEMPTS


@pytest.mark.usefixtures("hasty")
async def test_a_contract_that_is_gone(exchange: Exchange, rest: Rest) -> None:
    """A delisted contract cannot be compared; the others are."""
    exchange.tape.add("BTC_USDT", plain(deals()))
    both = [recorded(deals(), symbol="NOPE_USDT"), recorded(deals())]
    first, second = await compare(rest.url, both, RateLimiter(0.0))
    assert "contract not exists" in first.failure
    assert (second.failure, second.minutes) == ("", MINUTES)
    assert len(rest.requests) == 2


async def test_candles_digit_for_digit(exchange: Exchange, rest: Rest) -> None:
    """No number of a candle passes through a float on our side."""
    text = b'{"time":[60],"vol":[6.106243567181E7],"high":[1.0E-7],"low":[12345678901234567890.1]}'

    async def get(*_: object, **__: object) -> msgspec.Raw:
        return msgspec.Raw(text)

    async with open_client(rest.url) as client:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(client), "get", get)
            (candle,) = await candles_of(client, "BTC_USDT", 0, 60)
    assert (candle.time, candle.volume) == (60, Decimal("61062435.67181"))
    assert (candle.high, candle.low) == (Decimal("0.0000001"), Decimal("12345678901234567890.1"))


@pytest.mark.parametrize("number", [b'"NaN"', b'"sNaN"', b'"Infinity"', b"1e999999999", b"1e-999"])
async def test_candles_that_cannot_be(exchange: Exchange, rest: Rest, number: bytes) -> None:
    """What cannot be compared or written out ends in a sentence, as any other odd answer."""
    text = b'{"time":[60],"vol":[%b],"high":[1],"low":[1]}' % number

    async def get(*_: object, **__: object) -> msgspec.Raw:
        return msgspec.Raw(text)

    async with open_client(rest.url) as client:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(client), "get", get)
            with pytest.raises(RestError, match="the candles of BTC_USDT are none: a number"):
                await candles_of(client, "BTC_USDT", 0, 60)
