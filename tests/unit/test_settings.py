"""Settings: their sources, their order, and one line for whatever is wrong."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_trio.errors import UsageError
from mexc_trio.settings import SETTINGS, SYMBOL_SETTINGS, Settings, SymbolSettings
from mexc_trio.settings.description import describe
from mexc_trio.settings.sources import load
from mexc_trio.settings.targets import (
    SERVER_OPTIONS,
    TLS_OPTIONS,
    EmbeddedTarget,
    ServerTarget,
    parse_store,
)

SHIPPED = Path(__file__).parents[2] / "settings.ini"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give every test a current directory of its own, and none of the outer settings."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("MEXC_TRIO_"):
            monkeypatch.delenv(name)
    yield tmp_path
    assert {path.name for path in tmp_path.iterdir()} <= {"settings.ini", "other.ini", "file"}


def write(text: str, name: str = "settings.ini") -> None:
    """Write a settings file into the current directory."""
    Path(name).write_text(text, encoding="utf-8")


def error_of(
    options: dict[str, str] | None = None,
    symbols: tuple[str, ...] = (),
    environ: dict[str, str] | None = None,
) -> str:
    """Return the one line that the settings are refused with."""
    with pytest.raises(UsageError) as caught:
        load(options, symbols, environ or {})
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


# The sources and their order.


def test_without_any_source_the_defaults_hold() -> None:
    """Nothing set anywhere is the same as Settings()."""
    settings = load(environ={})
    assert settings == Settings()
    assert settings.store == EmbeddedTarget(Path("mexc-data"))
    assert (settings.linger, settings.ping_interval, settings.max_errors) == (1.0, 15.0, 100)
    assert settings.min_free == 256 * 1024 * 1024


def test_the_order_of_the_sources() -> None:
    """The command line comes first, then the environment, the file, the default."""
    write("[mexc-trio]\nlinger = 2\nmax_errors = 2\nduration = 2\nsymbols = A_USDT, B_USDT")
    environ = {"MEXC_TRIO_LINGER": "3", "MEXC_TRIO_MAX_ERRORS": "3"}
    settings = load({"linger": "4"}, ["C_USDT"], environ)
    assert (settings.linger, settings.max_errors, settings.duration) == (4, 3, 2)
    assert settings.retention == 600
    assert settings.symbols == ("C_USDT",)
    assert load(environ={}).symbols == ("A_USDT", "B_USDT")
    assert load(environ={"MEXC_TRIO_SYMBOLS": "D_USDT"}).symbols == ("D_USDT",)


def test_what_the_file_says_in_vain() -> None:
    """It is known who says otherwise, also of what symbols on the command line put out of force."""
    write("[mexc-trio]\nsymbols = A_USDT\nall = yes\nretention = 2\n[B_USDT]\nlinger = 3")
    environ = {"MEXC_TRIO_LINGER": "3", "MEXC_TRIO_ALL": "yes", "MEXC_TRIO_DURATION": "3"}
    assert load({"retention": "4"}, ["C_USDT"], environ).overridden == {
        "symbols": "command line", "all": "command line", "linger": "environment",
        "retention": "command line",
    }  # fmt: skip


def test_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an environment given, it is the program's own."""
    monkeypatch.setenv("MEXC_TRIO_LINGER", "7")
    assert load().linger == 7


def test_an_empty_variable_or_key_is_none() -> None:
    """A compose file's ${PASSWORD:-} and a key without a value leave the default."""
    write("[mexc-trio]\nlinger =")
    assert load(environ={"MEXC_TRIO_STORE": ""}) == Settings(config=Path("settings.ini"))


def test_another_settings_file() -> None:
    """--config and MEXC_TRIO_CONFIG replace settings.ini; a BOM and dashes do no harm."""
    write("[mexc-trio]\nlinger = 2\nduration = 5")
    write("\ufeff[mexc-trio]\nping-interval = 3", "other.ini")
    for settings in (
        load({"config": "other.ini"}, environ={}),
        load(environ={"MEXC_TRIO_CONFIG": "other.ini"}),
    ):
        assert (settings.linger, settings.ping_interval, settings.duration) == (1, 3, None)
        assert settings.config == Path("other.ini")


def test_a_symbol_has_a_section_of_its_own() -> None:
    """A section changes its symbol and no other."""
    write("[mexc-trio]\nlinger = 2\n[btc_usdt]\ntable = bitcoin\nlinger = 0\nmax_errors = 7")
    settings = load(environ={})
    assert settings.for_symbol("BTC_USDT") == SymbolSettings(
        symbol="BTC_USDT", table="bitcoin", max_errors=7, linger=0
    )
    assert settings.for_symbol("ETH_USDC") == SymbolSettings(
        symbol="ETH_USDC", table="eth_usdc", max_errors=100, linger=2
    )


def test_the_command_line_and_the_environment_come_before_a_section() -> None:
    """What is typed now is meant now, whatever the file says about one symbol."""
    write("[BTC_USDT]\nlinger = 5\nmax_errors = 5\ntable = bitcoin")
    settings = load({"linger": "0"}, environ={"MEXC_TRIO_MAX_ERRORS": "9"}).for_symbol("BTC_USDT")
    assert (settings.linger, settings.max_errors, settings.table) == (0, 9, "bitcoin")


def test_a_table_of_another_symbol_is_refused() -> None:
    """A table in the file cannot be the one of a symbol that is recorded."""
    write("[BTC_USDT]\ntable = eth_candles")
    load({}, ["BTC_USDT"], {})
    assert error_of({}, ("ETH_USDT",)) == (
        "settings.ini: ETH_USDT and BTC_USDT would share the name 'eth_candles';"
        " give one of them another table"
    )


def test_the_journal_lives_where_the_store_does() -> None:
    """The journal is in the embedded store, in ./mexc-data for a server, or where it is put."""
    assert load({"store": "x"}, environ={}).state_directory == Path("x")
    assert load({"store": "clickhouse://h"}, environ={}).state_directory == Path("mexc-data")
    assert load({"state_dir": "y"}, environ={}).state_directory == Path("y")


# What is wrong.


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("symbols", "BTCUSDT"),
        ("store", "http://host"),
        ("url", "http://host"),
        ("url", "wss://"),
        ("url", "wss://me:pw@host"),
        ("url", "wss://host:port"),
        ("url", "wss://host..org"),
        ("rest_url", f"https://{'long' * 16}.org"),
        ("route", "socks5://.host:1080"),
        ("listen", "host..org:8123"),
        ("linger", "soon"),
        ("linger", "-0.1"),
        ("linger", "nan"),
        ("linger", "inf"),
        ("retention", "1e30"),
        ("ping_interval", "0"),
        ("ping_interval", "60"),
        ("stats_interval", "-1"),
        ("max_errors", "0"),
        ("max_errors", "1.5"),
        ("max_errors", "9" * 5000),
        ("duration", "0"),
        ("journal_sync", "maybe"),
        ("retention", "-1"),
        ("min_free_mib", "-1"),
        ("min_free_mib", "256MiB"),
        ("symbols_per_connection", "0"),
        ("store_connections", "0"),
        ("log_level", "loud"),
        ("on_event", "no-such-program --loud"),
        ("on_event", "cat 'and no end"),
        ("event_after", "-1"),
        ("state_dir", "file"),
        ("state_dir", "file/below"),
    ],
)
def test_a_bad_value_names_its_source(key: str, text: str) -> None:
    """The same value is refused in the same words from each source, and the line says which."""
    write("", "file")
    option, variable = "--" + key.replace("_", "-"), "MEXC_TRIO_" + key.upper()
    from_environment = error_of(environ={variable: text})
    assert from_environment.startswith(f"{variable}: ")
    message = from_environment.removeprefix(variable)
    assert len(message) < 200
    assert error_of({key: text}) == option + message
    write(f"[mexc-trio]\n{key} = {text}")
    assert error_of() == f"settings.ini: [mexc-trio] {key}{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("linger = 1", "line 1 is above all sections; [mexc-trio] comes first"),
        ("[mexc-trio]\nsecret", "line 2 is neither [section] nor key = value"),
        ("[mexc-trio]\nlinger = 1\nlinger = 2", "line 3: [mexc-trio] linger is there twice"),
        (
            "[mexc-trio]\nping-interval = 1\nping_interval = 2",
            "[mexc-trio] ping_interval: is there twice",
        ),
        ("[mexc-trio]\n[mexc-trio]", "line 2: [mexc-trio] is there twice"),
        ("[BTC_USDT]\n[btc_usdt]", "[btc_usdt]: BTC_USDT is there twice"),
        (
            "[mexc-trio]\nlingre = 1",
            "[mexc-trio] lingre: there is no such key; did you mean linger?",
        ),
        ("[mexc-trio]\nconfig = other.ini", "[mexc-trio] config: there is no such key"),
        ("[mexc-trio]\noverrides = 1", "[mexc-trio] overrides: there is no such key"),
        ("[BTC_USDT]\nstore = x", "[BTC_USDT] store: there is no such key"),
        ("[BTC_USDT]\nlinger = x", "[BTC_USDT] linger: 'x' is not a number of seconds"),
        (
            "[BTC_USDT]\ntable = gaps",
            "[BTC_USDT] table: 'gaps' is a table that the recorder keeps for itself",
        ),
        (
            "[mexc-trio]\nstore = x\n password = secret",
            "[mexc-trio] store: is followed by an indented line",
        ),
        (
            "[DEFAULT]",
            (
                "[DEFAULT]: there is no such section;"
                " [mexc-trio] has the settings, and one such as [BTC_USDT] a symbol's own"
            ),
        ),
    ],
)
def test_a_broken_file_is_one_line(text: str, message: str) -> None:
    """What is wrong in a file is named with its place, and no line of it is quoted."""
    write(text)
    assert error_of() == f"settings.ini: {message}"


def test_files_that_cannot_be_read(directory: Path) -> None:
    """A file that is not there, not text, or a directory is one line too."""
    assert error_of({"config": "nope"}) == "--config: there is no file 'nope'"
    assert error_of(environ={"MEXC_TRIO_CONFIG": "nope"}).startswith("MEXC_TRIO_CONFIG: ")
    assert error_of({"config": str(directory)}) == f"{directory}: Is a directory"
    Path("settings.ini").write_bytes(b"[mexc-trio]\nlinger = \xff")
    assert error_of() == "settings.ini: is not UTF-8 text"
    Path("settings.ini").unlink()
    os.mkfifo("settings.ini")
    assert error_of().startswith("settings.ini: is no file")


@given(st.text())
def test_any_file_is_read_or_refused(text: str) -> None:
    """No file gets another error than UsageError, or an error of several lines."""
    Path("settings.ini").write_text(text, encoding="utf-8", errors="replace", newline="")
    try:
        load(environ={})
    except UsageError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - the other outcome is right too


def test_an_unknown_variable_is_refused() -> None:
    """A misspelled variable would otherwise be ignored for months."""
    assert error_of(environ={"MEXC_TRIO_LINGR": "1", "OTHER": "x"}) == (
        "MEXC_TRIO_LINGR: there is no such setting; did you mean MEXC_TRIO_LINGER?"
    )
    assert error_of(environ={"MEXC_TRIO_linger": "1"}).startswith("MEXC_TRIO_linger: ")


def test_a_bad_symbol_of_the_command_line() -> None:
    """A bad symbol needs no source: it has just been typed."""
    assert error_of(symbols=("BTC",)) == "'BTC' is not a symbol; did you mean BTC_USDT?"


# The store.


def test_a_directory_is_the_embedded_engine(directory: Path) -> None:
    """A path, also one with a colon or an at sign after ./, is a directory, named absolutely."""
    assert parse_store("data").identity == str(directory / "data")
    assert parse_store("./a/../data").identity == str(directory / "data")
    assert str(parse_store("./a:b@c")) == "a:b@c"
    assert parse_store("~/data") == EmbeddedTarget(Path.home() / "data")


def test_a_server_has_defaults() -> None:
    """A host is enough."""
    assert parse_store("clickhouse://host") == ServerTarget(
        host="host", port=9000, user="default", password="", database="mexc_data", secure=False
    )
    assert parse_store("clickhouses://host/") == ServerTarget(host="host", port=9440, secure=True)


hosts = st.sampled_from(["localhost", "10.0.0.1", "::1", "db.example.org"])
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1)


@given(hosts, st.integers(1, 65535), texts, texts, st.booleans())
def test_a_servers_url_survives(
    host: str, port: int, user: str, password: str, secure: bool
) -> None:
    """Any user and password can be written in a URL, and neither text shows the password."""
    password = "pass" + password  # long enough not to be found by accident
    scheme = "clickhouses" if secure else "clickhouse"
    address = f"[{host}]" if ":" in host else host
    url = f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{address}:{port}/db"
    target = parse_store(url)
    assert target == ServerTarget(
        host=host, port=port, user=user, password=password, database="db", secure=secure
    )
    assert target.identity == f"{address}:{port}/db"
    shown = str(target)
    assert shown == url.replace(f":{quote(password, safe='')}@", ":***@")
    assert "password" not in repr(target)


def test_options_of_the_driver(directory: Path) -> None:
    """Known options reach the driver with their types, and are shown."""
    write("", "file")
    target = parse_store("clickhouses://h?connect_timeout=2.5&verify=no&ca_certs=file")
    assert isinstance(target, ServerTarget)
    assert target.options == {"connect_timeout": 2.5, "verify": False, "ca_certs": "file"}
    assert parse_store(str(target)) == target


def test_every_option_is_one_of_the_drivers() -> None:
    """The driver knows each of the options that a URL may have."""
    connection = pytest.importorskip("clickhouse_driver.connection")
    names = connection.Connection.__init__.__code__.co_varnames
    assert set(names) >= {*SERVER_OPTIONS, *TLS_OPTIONS}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://me:secret@host",
        "clickhosue://me:secret@host",
        "clickhouse:/me:secret@host",
        "clickhouse:me:secret@host",
        "clickhouse://",
        "clickhouse://me:secret@",
        "clickhouse://me:secret@host:0",
        "clickhouse://me:secret@host:70000",
        "clickhouse://me:secret@host:port",
        "clickhouse://me:secret@host..org",
        "clickhouse://me:secret@host?http_port=70000",
        "clickhouse://me:secret@host?send_receive_timeout=1e300",
        "clickhouses://me:secret@host?server_hostname=.org",
        "clickhouse://me:secret@host/a/b",
        "clickhouse://me:secret@host/a-b",
        "clickhouse://me:secret@host/db#part",
        "clickhouse://me:secret@host name/db",
        "clickhouse://me:secret%ff@host",
        "clickhouse://me:secret/word@host",
        "clickhouse://me:secret?word@host",
        "clickhouse://me:12?secret@host",
        "clickhouse://me:12/secret@host",
        "clickhouse://me:secret#word@host",
        "clickhouse://me:secret[word@host",
        "clickhouse://me:secret@host?colour=red",
        "clickhouse://me:secret@host?verify=no",
        "clickhouse://me:secret@host?connect_timeout=0",
        "clickhouse://me:secret@host?connect_timeout=1&connect_timeout=2",
        "clickhouses://me:secret@host?verify=perhaps",
        "clickhouses://me:secret@host?ca_certs=missing.pem",
    ],
)
def test_a_bad_store_is_refused_without_its_password(text: str) -> None:
    """Whatever is wrong with a URL, its password is not on the screen or in a log."""
    message = error_of({"store": text})
    assert message.startswith("--store: ")
    assert "secret" not in message


@pytest.mark.parametrize(
    "text",
    [
        "me:secret@db.example.org:9000", "me:secret@db", "clickhouse//me:secret@db/mexc_data",
        "db.example.org:9000", "db:9000/mexc_data", "[::1]:9000", ":memory:", "file:x",
        "FILE:x?mode=memory",
        "./x\r", "x\n", '"./mexc-data"', "'x'",
    ],
)  # fmt: skip
def test_what_is_no_path_makes_no_directory(text: str) -> None:
    """A mistyped server makes no directory with a password in its name."""
    message = error_of({"store": text})
    assert message.startswith("--store: ")
    assert "secret" not in message


@pytest.mark.parametrize("text", ["./me@host", "./db:9000", "/srv/a:1/b", "./file:x", "a b", "ü"])
def test_odd_names_are_paths_all_the_same(text: str) -> None:
    """Whoever means a directory with an odd name says so with ./ in front."""
    assert parse_store(text) == EmbeddedTarget(Path(text))


def test_what_kubernetes_tells_of_a_service_is_no_setting() -> None:
    """A service called mexc-trio puts its address into every container of its namespace."""
    address = "tcp://10.43.7.9:8123"
    environ = {
        "MEXC_TRIO_PORT": address,
        "MEXC_TRIO_SERVICE_HOST": "10.43.7.9",
        "MEXC_TRIO_SERVICE_PORT": "8123",
        "MEXC_TRIO_SERVICE_PORT_HTTP": "8123",
        "MEXC_TRIO_PORT_8123_TCP": address,
        "MEXC_TRIO_PORT_8123_TCP_ADDR": "10.43.7.9",
        "MEXC_TRIO_PORT_53_UDP_PROTO": "udp",
    }
    assert load(environ=environ) == load(environ={})
    assert error_of(environ={"MEXC_TRIO_PROT": "1"}).startswith("MEXC_TRIO_PROT: there is no such")


@given(st.text() | st.from_regex(r"clickhouses?://[a-z:@/?#%\[\]0-9=&]*", fullmatch=True))
def test_any_store_is_read_or_refused(text: str) -> None:
    """No text gets another error than UsageError, or an error of several lines."""
    try:
        target = parse_store(text)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - the other outcome is right too
    else:
        assert target.identity


# Secrets.


def test_a_password_of_its_own() -> None:
    """The URL can stay free of secrets; a password in it is the one that counts."""
    environ = {"MEXC_TRIO_PASSWORD": "secret"}
    for url, password in (("clickhouse://host", "secret"), ("clickhouse://me:other@host", "other")):
        target = load({"store": url}, environ=environ).store
        assert isinstance(target, ServerTarget)
        assert target.password == password
    assert load(environ=environ).store == EmbeddedTarget(Path("mexc-data"))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("password", "{}"),
        ("store", "clickhouse://me:{}@host"),
        ("route", "socks5://me:{}@host:1080"),
        ("store", "./{}"),
    ],
)
def test_what_is_not_utf8_is_refused(key: str, text: str) -> None:
    """As a password of a terminal in Latin-1: no server would understand it, for ever."""
    text = text.format("caf\udce9-secret")
    for where, sources in (
        (f"--{key}", ({key: text}, (), {})),
        (f"MEXC_TRIO_{key.upper()}", ({}, (), {f"MEXC_TRIO_{key.upper()}": text})),
    ):
        with pytest.raises(UsageError, match=f"^{where}: write it in UTF-8") as caught:
            load(*sources)
        assert "secret" not in str(caught.value)


def test_the_log_shows_every_setting_and_no_secret() -> None:
    """The log says what holds, what was set and where first, complete and fit to be shared."""
    write("[mexc-trio]\nlinger = 2\n[BTC_USDT]\ntable = bitcoin")
    settings = load(
        {"store": "clickhouse://me@host"}, ["BTC_USDT"], {"MEXC_TRIO_PASSWORD": "secret"}
    )
    lines = describe(settings)
    assert lines[:3] == [
        "command line: symbols = BTC_USDT, store = clickhouse://me:***@host:9000/mexc_data",
        "environment: password = ***",
        "settings.ini: linger = 2.0, config = settings.ini, [BTC_USDT] table = bitcoin",
    ]
    assert lines[3].startswith("default: url = wss://contract.mexc.com/edge, route = direct")
    assert "duration = none" in lines[3]
    keys = [part.split(" = ")[0] for line in lines for part in line.split(": ", 1)[1].split(", ")]
    assert sorted(keys) == sorted([*SETTINGS, "[BTC_USDT] table"])
    assert "secret" not in "".join(lines) + repr(settings) + str(settings)


def test_what_a_command_is_told_by_is_not_shown() -> None:
    """The address of a hook is often a secret, and so nothing but the program is shown."""
    settings = load({"on_event": "cat 'https://hook/s3cr et' -"}, environ={})
    assert settings.on_event == ("cat", "https://hook/s3cr et", "-")
    assert any("on_event = cat" in line for line in describe(settings))
    assert "s3cr" not in "".join(describe(settings))
    assert "s3cr" not in error_of({"on_event": "cat 's3cr"})
    assert "s3cr" not in error_of({"on_event": "no-such-program s3cr"})


def test_settings_do_not_change() -> None:
    """What was logged at the start holds until the end."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Settings().linger = 3.0  # type: ignore[misc]
    assert not hasattr(Settings(), "__dict__")


# The shipped file.


def test_the_shipped_file_changes_nothing() -> None:
    """The settings.ini that comes with the program is the defaults."""
    write(SHIPPED.read_text(encoding="utf-8"))
    assert load(environ={}) == Settings(config=Path("settings.ini"))


def test_the_shipped_file_has_every_key_with_its_default() -> None:
    """The file documents each setting that there is, none that there is not, and true defaults."""
    main, _, section = SHIPPED.read_text(encoding="utf-8").partition("#[BTC_USDT]")
    keys = dict(re.findall(r"^#(\w+) =(.*)$", main, re.MULTILINE))
    assert list(keys) == list(dict.fromkeys(keys))
    assert {key: text.strip() for key, text in keys.items()} == {
        key: field.metadata["text"] or ""
        for key, field in SETTINGS.items()
        if key != "config"  # the file cannot say which file to read
    }
    overrides = dict(re.findall(r"^#(\w+) =(.*)$", section, re.MULTILINE))
    assert overrides.keys() == SYMBOL_SETTINGS.keys()


def test_the_readme_has_every_option_with_its_default() -> None:
    """Its table, --help and settings.ini say the same of each setting."""
    text = (SHIPPED.parent / "README.md").read_text(encoding="utf-8")
    table = text.split("\n## Options\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `--([a-z-]+)` \| (.*?) \|", table, re.MULTILINE)
    told = {name.replace("-", "_"): default for name, default in rows}
    assert len(told) == len(rows) == table.count("\n| `--")
    # Passwords and symbols are no options.
    assert told.keys() == SETTINGS.keys() - {"symbols", "password", "reader_password"}
    for key, default in told.items():
        field = SETTINGS[key]
        text = field.metadata["text"]
        if text is None:
            assert not re.fullmatch("`[^`]+`", default), key  # it has no value
        elif default == "off":
            assert text == "no", key
        else:
            assert field.metadata["parse"](default.strip("`")) == field.default, key


def test_the_shipped_file_uncommented_changes_nothing_either() -> None:
    """Taking away the "#" before a key is all there is to do."""
    text = re.sub(r"^#(?=\w|\[)", "", SHIPPED.read_text(encoding="utf-8"), flags=re.MULTILINE)
    write(text)
    settings = load(environ={})
    plain = attrs.evolve(settings, overrides={}, config=None)
    assert plain == Settings()
    assert settings.for_symbol("BTC_USDT") == Settings().for_symbol("BTC_USDT")


def test_names_that_look_like_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are names wherever they stand, and no two of them are one."""
    write("[mexc-trio]\nsymbols = 4_USDT 1E5_USDT 100000_USDT\n[BTC_USDT]\ntable = 007\n")
    settings = load(environ={})
    assert settings.symbols == ("4_USDT", "1E5_USDT", "100000_USDT")
    tables = [settings.for_symbol(one).table for one in (*settings.symbols, "BTC_USDT")]
    assert tables == ["4", "1e5", "100000", "007"]
    assert load(symbols=["1e5_usdt"], environ={}).symbols == ("1E5_USDT",)
    assert load(environ={"MEXC_TRIO_SYMBOLS": "0_usdt"}).symbols == ("0_USDT",)


def test_a_settings_file_that_anybody_may_have_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In /tmp another user's settings.ini, with a program to run, is not taken unless asked for."""
    path = tmp_path / "settings.ini"
    path.write_text("[mexc-trio]\non_event = rm -r x\n")
    monkeypatch.chdir(tmp_path)
    assert load(symbols=["BTC_USDT"]).on_event
    if os.geteuid() == 0:
        os.chown(path, 4711, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 4712)
    assert load(symbols=["BTC_USDT"]).on_event, "a directory of one's own, as in a container"
    tmp_path.chmod(0o1777)
    with pytest.raises(UsageError, match="belongs to another user"):
        load(symbols=["BTC_USDT"])
    assert load({"config": "settings.ini"}, symbols=["BTC_USDT"]).on_event


def test_a_settings_file_without_an_end(tmp_path: Path) -> None:
    """What a mistake has put in its place takes no memory of a recorder that reads it again."""
    (tmp_path / "settings.ini").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match=r"settings\.ini: has more than a million letters"):
        load({"config": str(tmp_path / "settings.ini")}, environ={})
