"""A store's directory that somebody else made has nothing that the engine would obey, or write to.

What a recorder makes passes: each test of a process that opens a store again would fail else.
"""

import os
from pathlib import Path

import pytest

from mexc_trio.clickhouse.store_files import refuse_strange_files
from mexc_trio.errors import StoreRejected

UUID = "_ UUID '7e46b928-8384-421e-999e-835fe29d56af'"
COLUMNS = "\n(\n    `ts` DateTime64(3),\n    `mt` Enum8('t' = 1, 'd' = 2),\n    `m` String\n)"
DICTIONARY = f"CREATE DICTIONARY {UUID}\n(\n    `a` UInt64\n)\nPRIMARY KEY a\nSOURCE"
TABLE = f"ATTACH TABLE {UUID}"
MERGETREE = (
    f"{TABLE}\n(\n    `ts` DateTime64(3) CODEC(Delta(8), ZSTD(1)),\n    `n` UInt64,\n"
    "    INDEX time ts TYPE minmax GRANULARITY 1\n)\nENGINE = MergeTree\n"
    "PARTITION BY toYYYYMM(least(greatest(ts, toDateTime64('2017-01-01 00:00:00', 3, 'UTC')), "
    "toDateTime64('2100-01-01 00:00:00', 3, 'UTC')), 'UTC')\nORDER BY n\n"
    "SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 8192\n"
)


def put(store: Path, text: str) -> Path:
    """Make a directory with one definition."""
    path = store / "store" / "7e4" / "7e46b928-8384-421e-999e-835fe29d56af" / "x.sql"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"ATTACH DATABASE {UUID}\nENGINE = Atomic\n",
        f"{TABLE}{COLUMNS}\nENGINE = StripeLog\n",
        f"ATTACH VIEW {UUID}{COLUMNS}\nCOMMENT 'mexc-trio views 84b3'\nAS WITH '\\'' AS q SELECT 1",
        MERGETREE,
    ],
)
def test_what_a_recorder_makes(tmp_path: Path, text: str) -> None:
    """It passes."""
    put(tmp_path, text)
    refuse_strange_files(tmp_path, "store")


@pytest.mark.parametrize(
    "text",
    [
        f"{DICTIONARY}(EXECUTABLE(COMMAND 'id' FORMAT 'CSV'))",
        # The engine reads the same word in each of these.
        f"{DICTIONARY}(`\\x65xecutable`(COMMAND 'id' FORMAT 'CSV'))",
        f"{DICTIONARY}(`exec\\Nutable`(COMMAND 'id' FORMAT 'CSV'))",
        f"/* {TABLE} */ {DICTIONARY}(LIBRARY(PATH 'x.so'))",
        f"{TABLE}{COLUMNS}\nENGINE = `\\x45xecutable`('x.sh', 'CSV')\n",
        f"{TABLE}{COLUMNS}\nENGINE = URL('http://127.0.0.1/', 'CSV')\n",
        f"{TABLE}{COLUMNS}\nENGINE = MergeTree\nORDER BY m\nSETTINGS disk = disk(type = 'web')\n",
        f"{TABLE}\n(\n    `a` String DEFAULT dictGet('d', 'b', 1)\n)\nENGINE = StripeLog\n",
        # Something else hidden before what can be seen: behind a comment, or in a text.
        f"{TABLE}\n(\n    `a` Int8) ENGINE = URL('a') --\n)\nENGINE = StripeLog\n",
        f"{TABLE}\n(\n    `a` Int8) ENGINE = URL('a') /*\n)\nENGINE = StripeLog\n*/",
        f"{TABLE}\n(\n    `a` Int8) AS url('a'\n)\nENGINE = StripeLog\n",
        f"{TABLE}\n(\n    `a` Enum8('\n    `b` Int8\n)\nENGINE = Log\n' = 1)) ENGINE = URL('')",
        f"ATTACH MATERIALIZED VIEW {UUID} TO a{COLUMNS}\nAS SELECT 1\n",
        f"ATTACH VIEW {UUID}{COLUMNS}\nDEFINER = recorder SQL SECURITY DEFINER\nAS SELECT 1\n",
        "CREATE FUNCTION f AS x -> x\n",
        # To judge these would take hours, or all memory.
        pytest.param(
            f"{TABLE}\n(\n    INDEX i a TYPE {200_000 * 'a'}!\n)\nENGINE = Log\n", id="a long word"
        ),
        pytest.param(f"{TABLE}{COLUMNS}\nENGINE = Log{300_000 * ' '}", id="a long text"),
    ],
)
def test_what_a_stranger_makes(tmp_path: Path, text: str) -> None:
    """It is refused, however it is spelt, and the error says where it is."""
    path = put(tmp_path, text)
    with pytest.raises(StoreRejected, match=f"{path} is no definition of ours"):
        refuse_strange_files(tmp_path, "store")


@pytest.mark.parametrize(
    "place", ["engine/conf.d", "engine/users.d", "engine/config.d", "user_defined", "access"]
)
def test_configuration_beside_ours(tmp_path: Path, place: str) -> None:
    """The engine reads what lies there too: a user without a password, who may do anything."""
    (tmp_path / place).mkdir(parents=True)
    refuse_strange_files(tmp_path, "store")
    path = tmp_path / place / "x.xml"
    path.touch()
    with pytest.raises(StoreRejected, match=f"{path} could have the engine run a program"):
        refuse_strange_files(tmp_path, "store")


@pytest.mark.parametrize(
    "place", ["status", "engine/engine.log", "store", "store/7e4/7e46b928/data.bin", "metadata/x"]
)
def test_a_link_to_a_file_of_ours(tmp_path: Path, place: str) -> None:
    """The engine would write to what a stranger's link names: it may lead to his own files only."""
    ours = tmp_path / "ours"
    ours.mkdir()
    store = tmp_path / "store"
    link = store / place
    link.parent.mkdir(parents=True)
    link.symlink_to(ours)
    with pytest.raises(StoreRejected, match=f"{link} is a link that leads out"):
        refuse_strange_files(store, "store")
    link.unlink()
    (store / "tables").mkdir()
    link.symlink_to(os.path.relpath(store / "tables", link.parent))
    (store / "notes").symlink_to(ours)  # nobody's business
    refuse_strange_files(store, "store")


def test_a_pipe_for_a_definition(tmp_path: Path) -> None:
    """Nobody waits for what it may bring."""
    path = put(tmp_path, "")
    path.unlink()
    os.mkfifo(path)
    refuse_strange_files(tmp_path, "store")
