"""What a received frame means, to the last digit, and that no frame whatsoever is too much."""

import gzip
import itertools
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mexc_trio.channels import ALL, OPTIONAL
from mexc_trio.exchange import decoding, messages
from mexc_trio.exchange.decoding import MOST_BYTES, dead_letter, decode, decode_any
from mexc_trio.exchange.messages import Ack, Data, Message, Pong, Refusal, Skipped
from mexc_trio.exchange.usual import MOST_DEALS
from mexc_trio.rows import CHANNELS, MESSAGE_TYPES, Channel, Row
from tools import market

NOW = 1_789_498_322_165
RECEIVED = 1_700_000_000_000


def envelope(channel: str, data: str, ts: str = f'"ts":{NOW}', symbol: str = "BTC_USDT") -> str:
    """Write a push as the exchange does, around raw JSON."""
    parts = [f'"symbol":"{symbol}"', f'"data":{data}', f'"channel":"push.{channel}"', ts]
    return "{" + ",".join(part for part in parts if part) + "}"


def ticker(**fields: str) -> str:
    """Write a ticker with these fields, given as raw JSON."""
    return envelope("ticker", "{" + ",".join(f'"{k}":{v}' for k, v in fields.items()) + "}")


def deal(p: str = "1.5", v: str = "2", side: str = "1", t: str = f"{NOW}") -> str:
    """Write one deal."""
    return f'{{"p":{p},"v":{v},"T":{side},"O":3,"M":1,"t":{t},"i":"16005949690","cts":"{NOW}"}}'


def depth(bids: str, asks: str, ts: str = f'"ts":{NOW}', version: str = "7") -> str:
    """Write a book."""
    return envelope("depth.full", f'{{"asks":{asks},"bids":{bids},"version":{version}}}', ts)


def meaning(frame: str | bytes) -> Message:
    """Decode a message; the short way for what is usual is to say the same as the long one."""
    data = frame.encode() if isinstance(frame, str) else frame
    message = decode(data, RECEIVED)
    assert message == decode_any(data, RECEIVED)
    return message


def decoded(frame: str | bytes) -> Data:
    """Decode a push."""
    message = meaning(frame)
    assert isinstance(message, Data)
    return message


def rows(frame: str | bytes) -> list[Row]:
    """Decode a push to its rows."""
    return decoded(frame).rows


def assert_dead(frame: str | bytes, ts: int = NOW) -> None:
    """See that a frame becomes one dead letter, with its own text."""
    message = decoded(frame)
    text = frame if isinstance(frame, str) else frame.decode()
    assert message.rows == [Row(ts, "dl", text[:500])]
    assert message.dead == 1


def assert_storable(message: messages.Message) -> None:
    """See that any store and the journal can keep what a message holds."""
    if isinstance(message, Refusal):
        message.text.encode()
        assert len(message.text) <= 600
    if not isinstance(message, Data):
        return
    assert message.dead == sum(row.mt == "dl" for row in message.rows)
    assert bool(message.missed) <= bool(message.dead)
    assert 0 <= message.version < 2**63
    for row in message.rows:
        assert isinstance(row.ts, int)
        assert 0 <= row.ts < 10**13
        assert row.mt in MESSAGE_TYPES
        row.m.encode()
        assert row.mt != "dl" or len(row.m) <= 500


# --- Requests ---


@pytest.mark.parametrize(
    ("channel", "frame"),
    [
        ("ticker", '{"method":"sub.ticker","param":{"symbol":"BTC_USDT"}}'),
        ("deal", '{"method":"sub.deal","param":{"symbol":"BTC_USDT","compress":false}}'),
        ("depth", '{"method":"sub.depth.full","param":{"symbol":"BTC_USDT","limit":20}}'),
    ],
)
def test_requests_are_those_of_the_protocol(channel: Channel, frame: str) -> None:
    """Subscriptions are the exchange's, to the letter, and are undone by the same name."""
    assert messages.subscribe("BTC_USDT", channel) == frame
    undo = json.loads(messages.unsubscribe("BTC_USDT", channel))
    assert undo["method"] == "un" + json.loads(frame)["method"] == "un" + messages.method(channel)
    assert undo["param"]["symbol"] == "BTC_USDT"
    assert messages.PING == '{"method":"ping"}'


# --- Answers ---


def test_acknowledgements_pongs_and_strangers_are_no_rows() -> None:
    """Only pushes are rows; what nobody knows counts as skipped."""
    assert meaning('{"channel":"pong","data":1,"ts":2}') == Pong(1)
    assert meaning('{"channel":"pong","data":"x","ts":2}') == Pong(2)
    assert meaning('{"channel":"pong"}') == Pong(None)
    assert meaning('{"channel":"clientId","data":"abc","ts":1}') == Skipped()
    assert meaning('{"channel":"rs.personal.order","data":{}}') == Skipped()
    assert meaning('{"channel":"rs.unsub.deal","data":"success"}') == Skipped()
    assert meaning('{"channel":"rs.sub.kline","data":"success"}') == Skipped()


@pytest.mark.parametrize("ts", [f"{NOW}", f'"{NOW}"', "null"])
@pytest.mark.parametrize(
    ("name", "channel"), [("ticker", "ticker"), ("deal", "deal"), ("depth.full", "depth")]
)
def test_acknowledgement_of_each_channel(name: str, channel: Channel, ts: str) -> None:
    """The time is a string in the documentation and a number on the wire."""
    said = meaning(f'{{"channel":"rs.sub.{name}","data":"success","ts":{ts}}}')
    assert said == Ack(channel, 0 if ts == "null" else NOW)


@pytest.mark.parametrize(
    ("data", "unknown"),
    [
        ('"Contract [NOPE_USDT] not exists"', "NOPE_USDT"),
        ('"Contract doesn\'t exist!"', ""),
        ('"more than 60 seconds no response, close the channel"', None),
        ("null", None),
        ('{"code":1}', None),
        ('"' + "Contract [" * 40_000 + '"', None),
    ],
    ids=["captured", "documented", "no-ping", "null", "object", "endless"],
)
def test_refusals(data: str, unknown: str | None) -> None:
    """An unknown contract is recognised in both wordings, and nothing else is taken for one."""
    message = meaning(f'{{"channel":"rs.error","data":{data},"ts":1}}')
    assert isinstance(message, Refusal)
    assert message.unknown_contract == unknown
    assert_storable(message)


def test_a_subscription_that_did_not_succeed_is_a_refusal() -> None:
    """An acknowledgement that does not say success is none."""
    message = meaning('{"channel":"rs.sub.deal","data":"error","ts":1}')
    assert message == Refusal("rs.sub.deal: error")


# --- Tickers ---


def test_ticker() -> None:
    """Five numbers in the order of the row format; the rest of the ticker is left out."""
    frame = ticker(
        symbol='"BTC_USDT"',
        lastPrice="77526.0",
        bid1="1",
        fairPrice="77527",
        indexPrice="77528.10",
        holdVol="546882118",
        fundingRate="0.000072",
        timestamp="5",
    )
    assert decoded(frame) == Data(
        "BTC_USDT",
        "ticker",
        [Row(NOW, "t", "77526.0|77527|77528.10|546882118|0.00007200")],
        0,
        0,
    )


@pytest.mark.parametrize("nothing", ["", "null"])
def test_what_a_ticker_lacks_is_empty_and_never_zero(nothing: str) -> None:
    """A missing number and a null are both nothing."""
    names = ("fairPrice", "indexPrice", "holdVol", "fundingRate")
    fields = dict.fromkeys(names, nothing) if nothing else {}
    assert rows(ticker(lastPrice="1.50", **fields)) == [Row(NOW, "t", "1.50||||")]


@pytest.mark.parametrize("nothing", [{}, {"lastPrice": "null"}, {"lastPrice": '"1.5"'}])
def test_ticker_without_last_price_is_a_dead_letter(nothing: dict[str, str]) -> None:
    """Its first number is what makes it one."""
    frame = ticker(fairPrice="1", **nothing)
    assert_dead(frame)
    assert decoded(frame).missed == ("ticker",)


def test_ticker_time_is_the_envelopes_else_its_own() -> None:
    """MEXC's documentation shows tickers without the envelope's time."""
    data = '{"lastPrice":1,"timestamp":123456}'
    assert rows(envelope("ticker", data))[0].ts == NOW
    assert rows(envelope("ticker", data, ts=""))[0].ts == 123456
    assert rows(envelope("ticker", data, ts='"ts":null'))[0].ts == 123456
    assert_dead(envelope("ticker", '{"lastPrice":1}', ts=""), ts=RECEIVED)


@pytest.mark.parametrize(
    ("rate", "stored"),
    [
        ("-0.000012", "-0.00001200"),
        ("0", "0.00000000"),
        ("-1", "-1.00000000"),
        ("0.12345678", "0.12345678"),
        ("1.2E-5", "0.00001200"),
        ("-7.5E-5", "-0.00007500"),
        ("0.000072000000000000000000000000000000", "0.00007200"),
        ("0.000000125", "0.00000012"),  # half to even
        ("0.000000135", "0.00000014"),
        ("0.00000012500000000000000000000000000000000001", "0.00000013"),
        ("-0.000000001", "-0.00000000"),
    ],
)
def test_funding_rate_has_eight_decimals(rate: str, stored: str) -> None:
    """Always, in plain digits, and with its sign."""
    assert rows(ticker(lastPrice="1", fundingRate=rate))[0].m == f"1||||{stored}"


# --- Deals ---


def test_one_row_a_deal_at_its_own_time() -> None:
    """A frame holds one object, as until 2025, or an array of them."""
    expected = [Row(5, "d", "1.50|2|1")]
    assert rows(envelope("deal", deal("1.50", "2", "1", "5"))) == expected
    assert rows(envelope("deal", f"[{deal('1.50', '2', '1', '5')}]")) == expected
    assert decoded(envelope("deal", deal())).channel == "deal"


def test_deals_of_one_frame_are_stored_oldest_first() -> None:
    """The newest comes first on the wire, also among deals of one millisecond."""
    deals = [deal("4", t="30"), deal("3", t="20"), deal("2", t="20"), deal("1", t="10")]
    stored = rows(envelope("deal", f"[{','.join(deals)}]"))
    assert [row.m for row in stored] == ["1|2|1", "2|2|1", "3|2|1", "4|2|1"]
    assert [row.ts for row in stored] == [10, 20, 20, 30]


def test_an_array_in_another_order_still_comes_out_by_time() -> None:
    """The order of the exchange's arrays is an observation, not a promise."""
    deals = [deal("1", t="10"), deal("3", t="30"), deal("2", t="20")]
    assert [row.ts for row in rows(envelope("deal", f"[{','.join(deals)}]"))] == [10, 20, 30]


BAD_DEALS = {
    "no price": '{"v":2,"T":1,"t":5}',
    "null price": '{"p":null,"v":2,"T":1,"t":5}',
    "price as text": '{"p":"1.5","v":2,"T":1,"t":5}',
    "no volume": '{"p":1,"T":1,"t":5}',
    "volume in an array": '{"p":1,"v":[2],"T":1,"t":5}',
    "no direction": '{"p":1,"v":2,"t":5}',
    "direction 0": '{"p":1,"v":2,"T":0,"t":5}',
    "direction 3": '{"p":1,"v":2,"T":3,"t":5}',
    "direction as text": '{"p":1,"v":2,"T":"1","t":5}',
    "direction 1.0": '{"p":1,"v":2,"T":1.0,"t":5}',
    "no time": '{"p":1,"v":2,"T":1}',
    "time of 14 digits": '{"p":1,"v":2,"T":1,"t":99999999999999}',
    "negative time": '{"p":1,"v":2,"T":1,"t":-5}',
    "exponent bomb": '{"p":1e999999999,"v":2,"T":1,"t":5}',
    "exponent beyond any number": '{"p":1e-99999999999999999999999,"v":2,"T":1,"t":5}',
    "null": "null",
    "number": "7",
    "array": "[]",
    "text": '"x"',
}


@pytest.mark.parametrize("bad", BAD_DEALS.values(), ids=BAD_DEALS.keys())
def test_a_bad_deal_is_a_dead_letter_and_the_good_ones_are_kept(bad: str) -> None:
    """By itself it takes its frame with it; among good ones it alone is set aside."""
    if bad != "[]":
        assert_dead(envelope("deal", bad))
    frame = envelope("deal", f"[{deal('3', t='30')}, {bad} ,{deal('1', t='10')}]")
    message = decoded(frame)
    assert message.rows == [Row(10, "d", "1|2|1"), Row(30, "d", "3|2|1"), Row(NOW, "dl", bad)]
    assert (message.channel, message.dead, message.missed) == ("deal", 1, ("deal",))


def test_a_bad_deal_without_the_envelopes_time_has_the_time_of_receipt() -> None:
    """A dead letter has a time in every case, and keeps 500 characters of what it was."""
    long = '{"x":"' + "é" * 600 + '"}'
    message = decoded(envelope("deal", f"[{deal()},{long}]", ts=""))
    assert message.rows == [Row(NOW, "d", "1.5|2|1"), Row(RECEIVED, "dl", long[:500])]


def test_an_empty_array_of_deals_is_nothing() -> None:
    """No rows, and no dead letter: the frame says that nothing happened."""
    assert decoded(envelope("deal", "[]")) == Data("BTC_USDT", "deal", [], 0, 0, (), [])


def test_each_deal_comes_with_the_exchanges_number_of_it() -> None:
    """As a string, as a number, or not at all: the same place in `ids` as its row in `rows`."""
    parts = {30: ',"i":"16005949690"', 20: ',"i":7', 10: "", 5: ',"i":null', 4: ',"i":"x"'}
    deals = [f'{{"p":1,"v":2,"T":1,"t":{t}{part}}}' for t, part in parts.items()]
    message = decoded(envelope("deal", f"[{','.join(deals)}]"))
    assert [row.ts for row in message.rows] == [4, 5, 10, 20, 30]
    assert list(message.ids) == [0, 0, 0, 7, 16005949690]
    mixed = decoded(envelope("deal", f"[{','.join(deals)},{{}}]"))
    assert (mixed.dead, list(mixed.ids)) == (1, [0, 0, 0, 7, 16005949690])
    assert list(decoded(envelope("deal", deals[0])).ids) == [16005949690]


# --- Books ---


def levels(n: int, elements: int = 3) -> tuple[str, str]:
    """Write levels as the exchange does and as they are stored."""
    wanted = [f"[{100 + i}.{i},{i + 1}" for i in range(n)]
    sent = [f"{level},{i % 3}]" if elements == 3 else f"{level}]" for i, level in enumerate(wanted)]
    return f"[{','.join(sent)}]", ",".join(f"{level}]" for level in wanted)


@pytest.mark.parametrize("elements", [2, 3])
@pytest.mark.parametrize("n", [1, 2, 19, 20])
def test_book(n: int, elements: int) -> None:
    """Bids first, best first, the third element of a level dropped where there is one."""
    bids, stored_bids = levels(n, elements)
    asks, stored_asks = levels(1)
    message = decoded(depth(bids, asks))
    assert message == Data(
        "BTC_USDT", "depth", [Row(NOW, "dp", f"{stored_bids}|{stored_asks}")], 0, 7
    )


def test_book_of_more_than_twenty_levels_is_cut() -> None:
    """At most 20 a side are stored, the best."""
    sent, _ = levels(25)
    _, stored = levels(20)
    assert rows(depth(sent, sent))[0].m == f"{stored}|{stored}"


@pytest.mark.parametrize(
    ("bids", "asks", "stored"),
    [
        ("[]", "[[1,2,3]]", "|[1,2]"),
        ("[[1,2,3]]", "[]", "[1,2]|"),
        ("[]", "[]", "|"),
        ("[ [ 1.0 , 2 , 3 ] , [4,5,6] ]", "[[1,2,3]]", "[1.0,2],[4,5]|[1,2]"),
        ("[[9.75E+4,1e1,3],[1,2]]", "[[1,2,3],[4,5]]", "[97500,10],[1,2]|[1,2],[4,5]"),
        ("[[1,2],[3,4,5]]", "[[1,2,3],[4,5],[6,7,8]]", "[1,2],[3,4]|[1,2],[4,5],[6,7]"),
        ('[[1,2,"x"]]', "[[1,2,null]]", "[1,2]|[1,2]"),
        ("[[-1,0,0]]", "[[1,0,0]]", "[-1,0]|[1,0]"),
    ],
    ids=["no bids", "no asks", "neither", "spaces", "exponents", "mixed", "odd third", "zeros"],
)
def test_odd_books(bids: str, asks: str, stored: str) -> None:
    """A side may be empty, levels may have two or three elements, JSON may have spaces."""
    assert rows(depth(bids, asks)) == [Row(NOW, "dp", stored)]


@pytest.mark.parametrize(
    "side",
    ["null", "1", '"x"', "{}", "[1,2]", "[[1]]", "[[1,2,3,4]]", "[[]]", "[[null,1,1]]",
     '[["1",2,3]]', "[[[1],2,3]]", "[[1e999999999,2,3]]"],
)  # fmt: skip
def test_a_side_that_is_none_makes_a_dead_letter(side: str) -> None:
    """Half a book is no book."""
    good = "[[1,2,3]]"
    for frame in (depth(side, good), depth(good, side)):
        assert_dead(frame)
        assert decoded(frame).missed == ("depth",)


def test_a_book_lacks_nothing() -> None:
    """Without bids, asks or a time it is a dead letter."""
    assert_dead(envelope("depth.full", '{"bids":[[1,2,3]]}'))
    assert_dead(envelope("depth.full", '{"asks":[[1,2,3]]}'))
    assert_dead(depth("[]", "[]", ts=""), ts=RECEIVED)


@pytest.mark.parametrize(
    ("written", "version"),
    [("5220571685", 5220571685), ("null", 0), ('"x"', 0), ("1.5", 0), ("-1", 0), ("9" * 19, 0)],
)
def test_version_is_read_where_it_fits(written: str, version: int) -> None:
    """A version that the journal could not keep in 64 bits is unknown, not an error."""
    assert decoded(depth("[]", "[]", version=written)).version == version


# --- The rest ---


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_channel_of_numbers_is_an_entry_of_the_table(name: str) -> None:
    """Its row is the numbers that the entry names, digit for digit; anything else is dead."""
    facts = ALL[name]
    data = ",".join(f'"{key}":-1.50E-5' for key in facts.numbers)
    message = decoded(envelope(facts.wire, "{" + data + "}"))
    (row,) = message.rows
    assert (message.channel, row.mt, row.m) == (name, facts.mt, "-0.0000150")
    for bad in ("{}", "[]", "5", "null", '{"price":"1","rate":"1"}', '{"price":null,"rate":null}'):
        dead = decoded(envelope(facts.wire, bad))
        assert [row.mt for row in dead.rows] == ["dl"], bad
        assert dead.missed == (name,)


def test_unknown_push_is_a_dead_letter_that_misses_nothing_of_ours() -> None:
    """What the exchange may invent is kept; no recorded channel lacks anything because of it."""
    frame = envelope("kline", '{"c":1}')
    assert_dead(frame)
    message = decoded(frame)
    assert (message.symbol, message.channel, message.missed) == ("BTC_USDT", None, ())


@pytest.mark.parametrize(
    ("frame", "ts"),
    [
        ("", RECEIVED),
        ("x", RECEIVED),
        ("null", RECEIVED),
        ("[]", RECEIVED),
        ("{}", RECEIVED),
        ('{"ts":17}', 17),
        ('{"channel":5,"ts":17}', 17),
        ('{"channel":5,"ts":"17"}', 17),
        ('{"channel":"push.deal","symbol":7,"data":[],"ts":17}', 17),
        (depth("[[1,2,3]]", "[[1,2,3]]")[:60], RECEIVED),
        ("\x00\x01", RECEIVED),
        ("[" * 100_000, RECEIVED),
        ('{"channel":"push.deal","data":' + "[" * 100_000 + "]" * 100_000 + "}", RECEIVED),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_a_dead_letter_of_any_channel(frame: str, ts: int) -> None:
    """It has the frame's time if that can be read, and may have been for every channel."""
    assert_dead(frame, ts)
    assert decoded(frame).missed == tuple(ALL)


def test_a_dead_letter_keeps_500_characters() -> None:
    """Characters, not bytes, and none of them torn."""
    text = "é€😀" * 400
    assert rows(text) == [Row(RECEIVED, "dl", text[:500])]
    assert rows(text.encode()) == [Row(RECEIVED, "dl", text[:500])]


def test_frames_that_came_where_they_do_not_belong_are_kept_whole() -> None:
    """A frame of another contract is a dead letter, whatever it means."""
    frame = envelope("deal", deal(), symbol="ETH_USDT")
    message = dead_letter(frame.encode(), "ETH_USDT", RECEIVED, ())
    assert message == Data("ETH_USDT", None, [Row(NOW, "dl", frame)], 1, 0, ())


def test_binary_frames_may_be_text_or_gzip() -> None:
    """MEXC's documentation speaks of gzip; a broken one is a dead letter."""
    frame = envelope("deal", deal())
    assert rows(frame.encode()) == rows(frame)
    assert rows(gzip.compress(frame.encode())) == rows(frame)
    for broken in (b"\x1f\x8b123", gzip.compress(frame.encode())[:40], b"\xff\xfe\x00"):
        message = decoded(broken)
        assert message.dead == 1
        assert_storable(message)


def test_a_gzip_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes that mean a gigabyte cost no gigabyte: what is beyond the bound is not read.

    The frame is cut there, which makes it a dead letter.
    """
    frame = envelope("deal", deal() + " " * 1000)
    assert decoded(gzip.compress(frame.encode())).dead == 0
    monkeypatch.setattr(decoding, "MOST_BYTES", 1000)
    assert rows(gzip.compress(frame.encode())) == [Row(RECEIVED, "dl", frame[:500])]


def test_so_many_deals_and_no_more() -> None:
    """A frame of many deals is kept; one that would hold everything else is refused in a moment."""
    deals = [deal(t=str(NOW - i)) for i in range(MOST_DEALS)]
    stored = rows(envelope("deal", f"[{','.join(deals)}]"))
    assert len(stored) == MOST_DEALS
    assert [row.ts for row in stored] == sorted(row.ts for row in stored)
    for more in (deal(), "{}", "1"):
        message = decoded(envelope("deal", f"[{','.join([*deals, more])}]"))
        assert (message.symbol, message.dead, message.missed) == ("BTC_USDT", 1, ("deal",))
        assert_storable(message)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_frame_that_is_too_long_is_not_read(pack: Callable[[bytes], bytes]) -> None:
    """It would hold everything else while it is; what it was for is not known then."""
    frame = envelope("ticker", '{"lastPrice":1}').encode()
    frame += b" " * (MOST_BYTES - len(frame))
    assert decoded(pack(frame)).dead == 0
    message = decoded(pack(frame + b" "))
    assert (message.symbol, message.dead, message.missed) == ("", 1, tuple(ALL))
    assert [row.ts for row in message.rows] == [RECEIVED]
    assert_storable(message)


def test_keys_may_come_in_any_order() -> None:
    """Their order has changed over the years."""
    parts = ['"channel":"push.deal"', f'"data":[{deal()}]', '"symbol":"X"', f'"ts":{NOW}', '"n":{}']
    for order in itertools.permutations(parts):
        assert rows("{" + " , ".join(order) + "}") == [Row(NOW, "d", "1.5|2|1")]


# --- Numbers, in every form ---


@st.composite
def numbers(draw: st.DrawFn) -> tuple[str, str]:
    """Draw the text of a JSON number, and the text that is to be stored for it.

    The stored text is made by moving the point with string operations alone.
    """
    sign = draw(st.sampled_from(["", "-"]))
    whole = draw(st.one_of(st.just("0"), st.integers(1, 10**12).map(str), st.integers(1, 9).map(
        lambda digit: str(digit) * 1000)))  # fmt: skip
    fraction = draw(
        st.one_of(
            st.just(""),
            st.text("0123456789", min_size=1, max_size=18),
            st.just("0" * 30),
            st.just("5" + "0" * 29),
        )
    )
    plain = sign + whole + (f".{fraction}" if fraction else "")
    exponent = draw(st.one_of(st.none(), st.integers(-40, 40)))
    if exponent is None:
        return plain, plain
    mark = draw(st.sampled_from(["e", "E"]))
    plus = draw(st.sampled_from(["", "+"])) if exponent >= 0 else ""
    digits = whole + fraction
    point = len(whole) + exponent
    if point <= 0:
        stored = "0." + "0" * -point + digits
    elif point >= len(digits):
        stored = digits + "0" * (point - len(digits))
    else:
        stored = f"{digits[:point]}.{digits[point:]}"
    before, dot, after = stored.partition(".")
    before = before.lstrip("0") or "0"
    return f"{plain}{mark}{plus}{exponent}", sign + before + dot + after


@settings(deadline=None)
@given(numbers(), numbers(), numbers(), numbers())
def test_numbers_survive_digit_for_digit(
    a: tuple[str, str], b: tuple[str, str], c: tuple[str, str], d: tuple[str, str]
) -> None:
    """In tickers, deals and books; and what is stored is worth what was sent."""
    for sent, stored in (a, b, c, d):
        assert Decimal(sent) == Decimal(stored)
        assert "e" not in stored.lower()
    frame = ticker(lastPrice=a[0], fairPrice=b[0], indexPrice=c[0], holdVol=d[0])
    assert rows(frame)[0].m == f"{a[1]}|{b[1]}|{c[1]}|{d[1]}|"
    frame = envelope("deal", f"[{deal(a[0], b[0], t='2')},{deal(c[0], d[0], '2', t='1')}]")
    assert [row.m for row in rows(frame)] == [f"{c[1]}|{d[1]}|2", f"{a[1]}|{b[1]}|1"]
    bids = f"[[{a[0]},{b[0]},1],[{c[0]},{d[0]},{a[0]}]]"
    asks = f"[[{d[0]},{a[0]}]]"
    stored = f"[{a[1]},{b[1]}],[{c[1]},{d[1]}]|[{d[1]},{a[1]}]"
    assert rows(depth(bids, asks))[0].m == stored


@settings(deadline=None)
@given(numbers())
def test_any_funding_rate_has_eight_decimals(rate: tuple[str, str]) -> None:
    """Rounded to the nearest where it has more, and never through a float."""
    sent, stored = rate
    text = rows(ticker(lastPrice="1", fundingRate=sent))[0].m.removeprefix("1||||")
    whole, _, decimals = text.partition(".")
    assert len(decimals) == 8
    assert whole.removeprefix("-").isdigit()
    assert text.startswith("-") == sent.startswith("-")
    # Whole numbers of the last digit's unit, because Decimal's own arithmetic would round.
    sent_whole, _, sent_decimals = stored.removeprefix("-").partition(".")
    unit = max(len(sent_decimals), 8)
    exact = int(sent_whole + sent_decimals.ljust(unit, "0"))
    rounded = int((whole + decimals).removeprefix("-")) * 10 ** (unit - 8)
    assert 2 * abs(exact - rounded) <= 10 ** (unit - 8)


# --- Anything at all ---

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
keys = ["lastPrice", "fairPrice", "fundingRate", "p", "v", "T", "t", "bids", "asks", "version"]
objects = st.dictionaries(st.sampled_from(keys), json_values, max_size=6)
near_frames = st.fixed_dictionaries(
    {},
    optional={
        "channel": st.sampled_from(
            ["push.ticker", "push.deal", "push.depth.full", "push.x", "pong", "rs.error",
             "rs.sub.deal", "clientId", ""]
        ) | json_values,
        "symbol": st.just("BTC_USDT") | json_values,
        "data": objects | st.lists(objects | json_values, max_size=4) | json_values,
        "ts": st.just(NOW) | json_values,
    },
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(near_frames, st.data())
def test_no_json_is_too_much(value: Any, data: st.DataObject) -> None:
    """Anything that resembles a frame, whole or cut off, is rows, an answer or nothing."""
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    text = text[: data.draw(st.integers(len(text) // 2, len(text)))]
    assert_storable(meaning(text.encode("utf-8", "surrogatepass")))


@settings(deadline=None)
@given(
    st.binary()
    | st.binary().map(lambda data: gzip.compress(data, mtime=0))
    | st.text().map(str.encode)
)
def test_no_bytes_are_too_much(frame: bytes) -> None:
    """Noise is a dead letter that can be stored."""
    assert_storable(meaning(frame))
    assert_storable(dead_letter(frame, "", RECEIVED, CHANNELS))


def test_torn_characters_are_escaped() -> None:
    """What no store could keep ends up as plain text in the dead letter."""
    assert rows(b"a\xed\xa0\x80b") == [Row(RECEIVED, "dl", r"a\xed\xa0\x80b")]
    assert len(rows(b"\xff" * 5000)[0].m) == 500


# --- Against an independent reading ---


@pytest.mark.parametrize(
    ("channel", "oddity"),
    [(channel, odd) for channel in market.CHANNELS for odd in ("", *market.ODDITIES[channel])],
)
def test_the_simulated_market_is_read_as_it_reads_itself(
    channel: market.Channel, oddity: str
) -> None:
    """Every oddity the exchange is known for, against a decoder made of nothing but `json`."""
    made = market.Market(seed=7)
    for symbol in ("BTC_USDT", "TINY_USDT", "1000BONK_USDT"):
        for _ in range(20):
            frame = made.frame(symbol, channel, oddity=oddity)
            expected = market.truth(frame)
            assert expected
            message = decoded(frame)
            assert [tuple(row) for row in message.rows] == expected
            assert message.symbol == symbol
            assert message.channel == channel.removesuffix(".full")
            assert message.dead == 0
            # And as the exchange might send it in binary.
            assert meaning(gzip.compress(frame.encode())) == message
