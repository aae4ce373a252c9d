"""Contracts that are recorded because they are listed: which, from when, until when."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import msgspec
import pytest
import trio
import trio.testing

from mexc_trio.errors import UsageError
from mexc_trio.exchange.rest import Client, RestError
from mexc_trio.record.discovery import PATIENCE, SHORT_PATIENCE, Discovery, ListingChange, read_last
from mexc_trio.settings import Settings
from mexc_trio.settings.description import describe
from mexc_trio.settings.sources import load
from mexc_trio.settings.words import Shard

Answer = Sequence[str] | RestError | None
"""Symbols that are listed (with a `!` those that are paused), an error, or no answer ever."""


class Listing:
    """Stands in for the REST client; gives one answer after the other, the last one for ever."""

    url = "http://exchange"

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)

        self.not_understood: set[str] = set()

    async def get(self, path: str) -> msgspec.Raw:
        """Stand in for Client.get."""
        assert path == "detail"
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, RestError):
            raise answer
        if answer is None:
            await trio.sleep_forever()
            raise AssertionError
        listed = [{"symbol": text.strip("!"), "state": 4 if "!" in text else 0} for text in answer]
        return msgspec.Raw(msgspec.json.encode(listed))


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a state directory of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mexc-data").mkdir()


def discovery(listing: Listing, **settings: Any) -> Discovery:
    """Return a discovery that asks the listing every ten seconds."""
    return Discovery(Settings(refresh=10.0, **settings), cast("Client", listing))


LISTED = ("BTC_USDT", "ETH_USDT", "BTC_USDC", "AASTOCK_USDT", "BBSTOCK_USDT", "CCSTOCK_USDT!")


@pytest.mark.parametrize(
    ("settings", "symbols"),
    [
        ({"all": True}, LISTED[:5]),
        ({"all": True, "quote": ("USDC",)}, LISTED[2:3]),
        ({"all": True, "quote": ("USDC", "EUR")}, LISTED[2:3]),
        ({"patterns": ("*STOCK_USDT",)}, LISTED[3:5]),
        ({"patterns": ("BTC_*", "A?STOCK_USDT")}, ("BTC_USDT", "BTC_USDC", "AASTOCK_USDT")),
        ({"patterns": ("BTC_*",), "quote": ("USDC",)}, ("BTC_USDC",)),
        ({"patterns": ("[!AB]*",)}, ("ETH_USDT",)),
        # Those given by name come first, once, listed or not, whatever their quote.
        (
            {"symbols": ("BTC_USDC", "NEW_USD"), "patterns": ("BTC_*",), "quote": ("USDT",)},
            ("BTC_USDC", "NEW_USD", "BTC_USDT"),
        ),
        ({"symbols": ("BTC_USDT",), "patterns": ("BTC_USD?",)}, ("BTC_USDT", "BTC_USDC")),
        # Each belongs to one of two shards, by a rule that must never change, and is recorded
        # elsewhere only if its own section or the command line says so.
        ({"all": True, "shard": Shard(1, 2)}, ("BTC_USDT", "ETH_USDT", "BBSTOCK_USDT")),
        ({"all": True, "shard": Shard(2, 2)}, ("BTC_USDC", "AASTOCK_USDT")),
        (
            {"all": True, "shard": Shard(2, 2), "overrides": {"ETH_USDT": {"shard": 2}}},
            ("ETH_USDT", "BTC_USDC", "AASTOCK_USDT"),
        ),
        (
            {"all": True, "shard": Shard(1, 2), "overrides": {"ETH_USDT": {"shard": 2}}},
            ("BTC_USDT", "BBSTOCK_USDT"),
        ),
        (
            {"symbols": ("ETH_USDT",), "patterns": ("*STOCK_USDT",), "shard": Shard(2, 2)},
            ("ETH_USDT", "AASTOCK_USDT"),
        ),
    ],
)
async def test_what_is_recorded_from_the_start(
    settings: dict[str, object], symbols: tuple[str, ...]
) -> None:
    """Contracts that are traded and match, in the exchange's order."""
    assert await discovery(Listing(LISTED), **settings).begin() == symbols


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"patterns": ("*STOKC_USDT",)}, "no listed contract matches '*STOKC_USDT'"),
        ({"patterns": ("BTC_*", "X*")}, "no listed contract matches 'X*'"),
        ({"patterns": ("CC*",)}, "no listed contract matches 'CC*'"),  # it is paused
        (
            {"patterns": ("ETH_*",), "quote": ("USDC", "USD")},
            "no listed contract with quote USDC or USD matches 'ETH_*'",
        ),
        (
            {"patterns": ("BTC_USDT",), "shard": Shard(2, 2)},
            "no listed contract belongs to shard 2/2",
        ),
        (
            {"all": True, "quote": ("EUR",)},
            "no contract with quote EUR is listed at http://exchange",
        ),
    ],
)
async def test_nothing_that_matches_is_a_mistake(settings: dict[str, object], text: str) -> None:
    """A pattern that is misspelt is told of at the start, not found out days later."""
    with pytest.raises(UsageError) as caught:
        await discovery(Listing(LISTED), **settings).begin()
    assert str(caught.value) == text


async def test_patterns_alone_wait_for_the_list(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a list there is nothing to record, so it asks until there is one."""
    down = RestError("down")
    found = await discovery(Listing(down, down, LISTED), patterns=("ETH*",)).begin()
    assert found == ("ETH_USDT",)
    assert [text.split(";")[0] for text in caplog.messages][:2] == [
        "no list of contracts: down",
        "no list of contracts: down",
    ]


@pytest.mark.parametrize("answer", [RestError("down"), None])
async def test_symbols_given_by_name_do_not_wait(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    """They begin at once or after a short patience, and the others follow with the list."""
    one = discovery(Listing(answer, LISTED), symbols=("BTC_USDT",), patterns=("ETH*",))
    assert await one.begin() == ("BTC_USDT",)
    assert trio.current_time() <= PATIENCE
    assert "recording begins with the others" in caplog.text
    assert await one.change() == ListingChange(("ETH_USDT",), ())


async def test_new_listings_are_found(autojump_clock: trio.testing.MockClock) -> None:
    """The list is asked for at its interval, and only what is new is told."""
    one = discovery(Listing(["A_USDT"], ["A_USDT"], ["B_USDT", "A_USDT", "C_USDT!"]), all=True)
    await one.begin()
    assert await one.change() == ListingChange(("B_USDT",), ())
    assert trio.current_time() == pytest.approx(2 * 10, rel=0.1)
    with trio.move_on_after(1000) as waiting:
        await one.change()
    assert waiting.cancelled_caught


async def test_gone_is_what_two_lists_lack(autojump_clock: trio.testing.MockClock) -> None:
    """One short list ends no recording; a contract that stays away, or is paused, is let go."""
    full, short = ["A_USDT", "B_USDT", "C_USDT"], ["A_USDT", "B_USDT!"]
    one = discovery(Listing(full, ["A_USDT"], full, short, short, full), all=True)
    await one.begin()
    assert await one.change() == ListingChange((), ("B_USDT", "C_USDT"))
    assert trio.current_time() == pytest.approx(4 * 10, rel=0.1)
    assert await one.change() == ListingChange(("B_USDT", "C_USDT"), ())


async def test_symbols_given_by_name_are_never_let_go(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Who names a contract wants it, whatever the list says."""
    one = discovery(Listing(["A_USDT", "B_USDT"], ["B_USDT"]), symbols=("A_USDT",), all=True)
    assert await one.begin() == ("A_USDT", "B_USDT")
    with trio.move_on_after(1000) as waiting:
        await one.change()
    assert waiting.cancelled_caught


async def test_an_outage_of_the_interface_changes_nothing(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What is recorded stays so while there is no list, with a line for each attempt."""
    down = RestError("down")
    one = discovery(Listing(["A_USDT"], down, down, ["A_USDT", "B_USDT"]), all=True)
    await one.begin()
    assert await one.change() == ListingChange(("B_USDT",), ())
    assert sum("asking again" in text for text in caplog.messages) == 2


# --- The list of the last run ---


async def ran_before(*symbols: str) -> None:
    """Have an earlier run keep a list, as it does while it follows it."""
    one = discovery(Listing(symbols), all=True)
    await one.begin()
    with trio.move_on_after(1):
        await one.change()


@pytest.mark.parametrize(("answer", "most"), [(RestError("down"), 0.0), (None, SHORT_PATIENCE)])
@pytest.mark.parametrize("named", [(), ("BTC_USDT",)])
async def test_last_list_does_while_there_is_none(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture,
    answer: Answer, most: float, named: tuple[str, ...],
) -> None:  # fmt: skip
    """Recording begins at once with what it has, and one line says from when it is."""
    await ran_before("BTC_USDT", "ETH_USDT", "BTC_USDC")
    caplog.clear()
    began = trio.current_time()
    one = discovery(Listing(answer), symbols=named, patterns=("*_USDT",))
    assert await one.begin() == ("BTC_USDT", "ETH_USDT")
    assert trio.current_time() - began == pytest.approx(most)
    (line,) = caplog.messages
    number = 2 - len(named)
    assert f"until there is one, recording begins with the {number} that match of 20" in line


async def test_new_list_takes_the_place_of_the_last_as_soon_as_it_comes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It is not waited for as long as between two lists, and what is gone is gone of two."""
    await ran_before("BTC_USDT", "OLD_USDT")
    before = read_last(Settings())
    assert before is not None
    down = RestError("down")
    one = discovery(Listing(down, down, ["BTC_USDT", "NEW_USDT"]), all=True)
    one.settings = attrs.evolve(one.settings, refresh=300.0)
    await one.begin()
    began = trio.current_time()
    change = await one.change()
    assert (change.new, change.gone, change.since) == (("NEW_USDT",), (), before.asked)
    assert trio.current_time() - began < 10
    assert await one.change() == ListingChange((), ("OLD_USDT",))
    assert trio.current_time() - began > 200


async def test_new_list_is_kept_in_place_of_the_last(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whichever run it was that had it."""
    await ran_before("BTC_USDT")
    await ran_before("ETH_USDT", "OFF_USDT!")
    found = read_last(Settings())
    assert found is not None
    assert [contract.symbol for contract in found.contracts] == ["ETH_USDT"]


async def test_last_list_in_which_nothing_matches(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Is no reason to refuse anything: the pattern may be newer than the list."""
    await ran_before("BTC_USDT")
    one = discovery(Listing(RestError("down"), ["BTC_USDT", "NEW_USDT"]), patterns=("NEW*",))
    assert await one.begin() == ("NEW_USDT",)


async def test_list_that_cannot_be_kept_is_told_once(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Recording does not need it."""
    listing = Listing(["A_USDT"], ["A_USDT"], ["A_USDT", "B_USDT"])
    one = discovery(listing, all=True, state_dir=Path("missing"))
    await one.begin()
    assert await one.change() == ListingChange(("B_USDT",), ())
    assert sum("is not kept" in text for text in caplog.messages) == 1


# --- Settings ---


def test_patterns_stand_among_the_symbols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the command line and in the file; what is typed comes in place of what the file has."""
    monkeypatch.chdir(tmp_path)
    Path("settings.ini").write_text(
        "[mexc-trio]\nsymbols = BTC_USDT, *stock_usdt\nall = yes\nquote = usdt usdc\n"
    )
    found = load(environ={})
    assert (found.symbols, found.patterns) == (("BTC_USDT",), ("*STOCK_USDT",))
    assert (found.all, found.follows_list, found.quote) == (True, True, ("USDT", "USDC"))
    assert "symbols = BTC_USDT *STOCK_USDT, all = yes, quote = USDT USDC" in describe(found)[0]
    typed = load({}, ["eth_usdt"], {})
    assert (typed.symbols, typed.patterns, typed.all) == (("ETH_USDT",), (), False)
    assert not typed.follows_list
    both = load({"all": "yes"}, ["ETH_USDT", "[AB]*_usdc"], {})
    assert (both.symbols, both.patterns, both.all) == (("ETH_USDT",), ("[AB]*_USDC",), True)


@pytest.mark.parametrize("text", ["*_USDT,", "BTC USDT*", "*é", "[", "[]", "a*/b", "*" + "-"])
def test_what_is_no_pattern(text: str) -> None:
    """A typing error in a pattern is named, and not taken for one that matches nothing."""
    with pytest.raises(UsageError, match="is not a pattern of symbols"):
        load({}, [text], {})


def test_pattern_given_twice() -> None:
    """As with symbols."""
    with pytest.raises(UsageError, match=r"\*_USDT is given twice"):
        load({}, ["*_usdt", "*_USDT"], {})
