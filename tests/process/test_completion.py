"""Tab completes commands, choices and the symbols that are recorded, in a real shell."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mexc_trio.cli import main as _commands  # noqa: F401 - with which the app has them
from mexc_trio.cli.options import app
from tests.support.running import DEADLINE, environment


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a directory with settings and a store, and the program on the way to be found."""
    for table in ("sol", "btc_usd", "sol_deals", "gaps"):
        (tmp_path / "mexc-data" / "data" / "mexc_data" / table).mkdir(parents=True)
    (tmp_path / "settings.ini").write_text("[mexc-trio]\nsymbols = DOGE_USDT\n[PEPE_USDT]\n")
    program = tmp_path / "bin" / "mexc-trio"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mexc_trio "$@"\n')
    program.chmod(0o755)
    return tmp_path


def offered(place: Path, line: str) -> set[str]:
    """Return what bash would offer at the end of a line."""
    (place / "completion").write_text(app.generate_completion(shell="bash"))  # noqa: S604
    words = line.split(" ")
    script = (
        f"source ./completion; COMP_WORDS=({' '.join(map(shlex.quote, words))}); "
        f"COMP_CWORD={len(words) - 1}; COMP_LINE={shlex.quote(line)}; COMP_POINT={len(line)}; "
        "COMPREPLY=(); _mexc_trio mexc-trio; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = f"{place / 'bin'}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-c", script], cwd=place, env=environment(PATH=path), text=True,
        capture_output=True, timeout=DEADLINE, check=True,
    )  # fmt: skip
    return set(ran.stdout.split())


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("mexc-trio exp", {"export"}),
        ("mexc-trio export BTC_USDT --kind d", {"deals", "depths"}),
        ("mexc-trio export --amounts ", {"contracts", "coins"}),
        ("mexc-trio export --interval ", {"1s", "1m", "5m", "1h", "4h", "1d"}),
        ("mexc-trio --log-level w", {"warning"}),
        ("mexc-trio convert BTC_USDT --engine m", {"mergetree"}),
        ("mexc-trio verify ", {"DOGE_USDT", "PEPE_USDT", "BTC_USD", "SOL_USDT"}),
        ("mexc-trio report s", {"sol_usdt"}),
    ],
)
def test_tab(place: Path, line: str, wanted: set[str]) -> None:
    """Values are offered as well as commands and options."""
    assert offered(place, line) == wanted


def test_tab_where_nothing_was_recorded(place: Path) -> None:
    """It shows how symbols look; a store that is named is the one that is looked into."""
    assert "BTC_USDT" in offered(place, "mexc-trio verify --config /dev/null --store x ")
