"""The last run's list of contracts, for a start at which the exchange gives none."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mexc_trio.exchange.contracts import MOST_CONTRACTS
from mexc_trio.exchange.rest import MOST_BYTES
from mexc_trio.record.discovery import FILE, LastList, keep_last, read_last
from mexc_trio.settings import Settings
from mexc_trio.spans import now

ASKED = 1_764_000_000_000
BTC, ETH = "BTC_USDT", "ETH_USDT"


def in_directory(path: Path, url: str = "http://exchange") -> Settings:
    """Return settings with that state directory."""
    return Settings(state_dir=path, rest_url=url)


def kept(**changes: Any) -> bytes:
    """Return the contents of a file, some of it changed."""
    sound = {"url": "http://exchange", "asked": ASKED, "symbols": ["BTC_USDT"]}
    return msgspec.json.encode(sound | changes)


def test_what_is_traded_is_kept(tmp_path: Path) -> None:
    """In a file of our own; a list in which nothing is traded does not take its place."""
    mine = in_directory(tmp_path)
    assert read_last(mine) is None
    keep_last(mine, LastList(mine.rest_url, ASKED, [ETH, BTC]))
    keep_last(mine, LastList(mine.rest_url, ASKED + 1, []))
    assert read_last(mine) == LastList(mine.rest_url, ASKED, [ETH, BTC])
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_another_exchange_has_another_list(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Which is no fault, and needs no word."""
    mine = in_directory(tmp_path)
    keep_last(mine, LastList(mine.rest_url, ASKED, [BTC]))
    assert read_last(in_directory(tmp_path, "http://other")) is None
    assert not caplog.messages


def test_a_list_is_never_of_the_future(tmp_path: Path) -> None:
    """New contracts would begin with a gap that ends before it began."""
    (tmp_path / FILE).write_bytes(kept(asked=9_000_000_000_000))
    found = read_last(in_directory(tmp_path))
    assert found is not None
    assert found.asked <= now()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"[]", b"\xff\xfe", kept()[:-1], kept() + b"x", b"[" * 100_000,
        kept(symbols=[]), kept(symbols="BTC_USDT"), kept(symbols=[1]), kept(symbols=["btc_usdt"]),
        kept(symbols=["../../etc"]), kept(symbols=["BTC_USDT", "*"]), kept(symbols=["\x1b[2J"]),
        kept(symbols=[f"A{n}_USDT" for n in range(MOST_CONTRACTS + 1)]),
        kept(asked=0), kept(asked="now"), kept(url=None), kept() + b" " * MOST_BYTES,
    ],
    ids=lambda content: str(content[:40]),
)  # fmt: skip
def test_what_is_no_list_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """One line says so, in plain letters, and the start goes on as without it."""
    (tmp_path / FILE).write_bytes(content)
    assert read_last(in_directory(tmp_path)) is None
    (line,) = caplog.messages
    assert f"{FILE} is not used: it is no list of contracts (" in line
    assert line.isprintable()
    assert len(line) < 500


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(max_size=200), st.integers(0, 200), st.integers(0, 200))
def test_whatever_stands_there(tmp_path: Path, noise: bytes, start: int, end: int) -> None:
    """A file of noise, or of a list with noise in it, does no harm: symbols are symbols."""
    sound = kept(symbols=["BTC_USDT", "ETH_USDT"])
    (tmp_path / FILE).write_bytes(sound[:start] + noise + sound[end:])
    found = read_last(in_directory(tmp_path))
    assert found is None or all("_" in contract.symbol for contract in found.contracts)


@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to(path.parent / "sound"),
        lambda path: path.hardlink_to(path.parent / "sound"),
    ],
    ids=["directory", "pipe", "symbolic link", "hard link"],
)
def test_what_is_no_file_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Callable[[Path], None]
) -> None:
    """Nobody leads the reading elsewhere, and nothing holds it up."""
    (tmp_path / "sound").write_bytes(kept())
    make(tmp_path / FILE)
    assert read_last(in_directory(tmp_path)) is None
    assert len(caplog.messages) == 1
