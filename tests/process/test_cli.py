"""The command line: what reaches the commands, what is said when something is wrong, exit codes."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from mexc_trio import __version__
from mexc_trio.cli.main import main
from mexc_trio.errors import (
    DiskFull,
    ExchangeError,
    MexcTrioError,
    StoreUnavailable,
    TooManyErrors,
    UnknownContract,
    UsageError,
)
from mexc_trio.settings import SETTINGS, Settings
from mexc_trio.settings.targets import EmbeddedTarget
from tests.support.running import DEADLINE, command_text, environment, running

ROOT = Path(__file__).parents[2]
SECRETS = {"password", "reader_password"}
"""Settings that no command line has, where every user of the machine would see them."""


def run(*arguments: str, cwd: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the program as a user does, with no settings but the given variables."""
    return command_text(*arguments, cwd=cwd, COLUMNS="100", **variables)


def run_code(code: str, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run Python, which has imported nothing yet."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=environment(COLUMNS="100"),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


class Commands:
    """Stands in for the modules that do the work; remembers the settings and what was asked."""

    def __init__(self) -> None:
        self.result = 0
        self.error: BaseException | None = None
        self.called: str | None = None
        self.settings = Settings()
        self.symbols: tuple[str, ...] | None = None
        self.dropped: bool | None = None

    def _finish(self, name: str, settings: Settings, symbols: tuple[str, ...] | None) -> int:
        self.called, self.settings, self.symbols = name, settings, symbols
        if self.error is not None:
            raise self.error
        return self.result

    async def record(
        self,
        settings: Settings,
        symbols: tuple[str, ...],
        companions: Sequence[object],
        file: object,
    ) -> int:
        """Stand in for recorder.record."""
        return self._finish("record", settings, symbols)

    async def drain(self, settings: Settings) -> int:
        """Stand in for recorder.drain."""
        return self._finish("drain", settings, None)

    def setup(self, settings: Settings, symbols: tuple[str, ...], *, drop_system_logs: bool) -> int:
        """Stand in for setup.setup."""
        self.dropped = drop_system_logs
        return self._finish("setup", settings, symbols)

    def verify(self, settings: Settings, symbols: tuple[str, ...], **how: object) -> int:
        """Stand in for verify.verify."""
        return self._finish("verify", settings, symbols)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Replace the modules behind the commands, and everything that could set something."""
    commands = Commands()
    modules: dict[str, dict[str, Callable[..., object]]] = {
        "record.recorder": {"record": commands.record, "drain": commands.drain},
        "operate.setup": {"setup": commands.setup},
        "verify.verify": {"verify": commands.verify},
    }
    for name, functions in modules.items():
        module = ModuleType(f"mexc_trio.{name}")
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in list(os.environ):
        if name.startswith("MEXC_TRIO_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    # The log belongs to the program, not to the test run that it would go on in.
    monkeypatch.setattr("mexc_trio.cli.options.start_logging", lambda *given: None)
    return commands


# What reaches the commands.


def test_symbols_alone_record(commands: Commands) -> None:
    """`mexc-trio BTC_USDT eth_usdt` is the whole command."""
    assert main(["BTC_USDT", "eth_usdt"]) == 0
    assert (commands.called, commands.symbols) == ("record", ("BTC_USDT", "ETH_USDT"))
    assert commands.settings == Settings(symbols=("BTC_USDT", "ETH_USDT"))


def test_every_option_of_recording_arrives(commands: Commands) -> None:
    """Each option sets the setting that it is named after."""
    texts = {
        "store": "./data",
        "url": "ws://localhost:8765",
        "route": "direct",
        "quote": "USDT",
        "shard": "2/3",
        "rest_url": "http://localhost:8766",
        "refresh": "60",
        "channels": "deal,funding",
        "lines": "2",
        "engine": "mergetree",
        "cluster": "analytics",
        "linger": "0",
        "deals": "merged",
        "ping_interval": "5.5",
        "stats_interval": "2",
        "max_errors": "3",
        "duration": "60",
        "on_event": "cat",
        "event_after": "60",
        "state_dir": "state",
        "retention": "1",
        "listen": "127.0.0.1:8123",
        "metrics": "127.0.0.1:9648",
        "min_free_mib": "1",
        "compact_mib": "5",
        "symbols_per_connection": "2",
        "store_connections": "2",
        "log_level": "debug",
        "log_format": "json",
        "log_file": "recorder.log",
        "config": str(ROOT / "settings.ini"),
    }
    switches = {"all", "journal_sync", "live", "backfill", "wide"}
    assert texts.keys() == SETTINGS.keys() - {*SECRETS, *switches, "symbols"}
    arguments = [f"--{key.replace('_', '-')}={text}" for key, text in texts.items()]
    arguments += ["--all", "--journal-sync", "--live", "--no-backfill", "--wide"]
    assert main(["BTC_USDT", *arguments]) == 0
    for key, text in texts.items():
        assert getattr(commands.settings, key) == SETTINGS[key].metadata["parse"](text)
    assert commands.settings.all is True
    assert commands.settings.journal_sync is True
    assert commands.settings.live is True
    assert commands.settings.backfill is False
    assert commands.settings.wide is True


def test_a_switch_can_be_turned_off(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment turns on, the command line can turn off."""
    monkeypatch.setenv("MEXC_TRIO_JOURNAL_SYNC", "yes")
    assert main(["BTC_USDT"]) == 0
    assert commands.settings.journal_sync is True
    assert main(["BTC_USDT", "--no-journal-sync"]) == 0
    assert commands.settings.journal_sync is False


def test_a_bare_command_records_what_the_file_says(commands: Commands) -> None:
    """With a settings file, `mexc-trio` alone is enough."""
    Path("settings.ini").write_text("[mexc-trio]\nsymbols = BTC_USDT\n", encoding="utf-8")
    assert main([]) == 0
    assert (commands.called, commands.symbols) == ("record", ("BTC_USDT",))


def test_setup_and_its_switch(commands: Commands) -> None:
    """System logs are dropped only on demand."""
    assert main(["setup", "BTC_USDT", "--store", "data"]) == 0
    assert (commands.called, commands.symbols) == ("setup", ("BTC_USDT",))
    assert commands.settings.store == EmbeddedTarget(Path("data"))
    assert commands.dropped is False
    assert main(["setup", "BTC_USDT", "--drop-system-logs"]) == 0
    assert commands.dropped is True


def test_verify_without_symbols_means_all_tables(commands: Commands) -> None:
    """The symbols that the file records do not narrow what is verified."""
    Path("settings.ini").write_text("[mexc-trio]\nsymbols = BTC_USDT\n", encoding="utf-8")
    assert main(["verify"]) == 0
    assert (commands.called, commands.symbols) == ("verify", ())
    assert main(["verify", "ETH_USDT"]) == 0
    assert commands.symbols == ("ETH_USDT",)


def test_drain(commands: Commands) -> None:
    """A backlog can be written without naming a symbol."""
    assert main(["drain", "--state-dir", "state"]) == 0
    assert commands.called == "drain"
    assert commands.settings.state_dir == Path("state")


# Exit codes and errors.


@pytest.mark.parametrize("command", [["BTC_USDT"], ["setup", "BTC_USDT"], ["verify"], ["drain"]])
def test_a_commands_exit_code_is_the_programs(commands: Commands, command: list[str]) -> None:
    """What a command returns is what the shell sees."""
    commands.result = 1
    assert main(command) == 1


@pytest.mark.parametrize(
    ("error", "exit_code", "text"),
    [
        (UsageError("no"), 2, "no"),
        (MexcTrioError("no"), 1, "no"),
        (StoreUnavailable("two\nlines"), 1, "two lines"),
        (StoreUnavailable("evil \x1b[2J"), 1, r"evil \x1b[2J"),
        (UnknownContract("X_USDT"), 1, "the exchange knows no contract X_USDT"),
        (TooManyErrors("X_USDT", 9), 1, "9 errors of X_USDT within ten minutes"),
        (ExceptionGroup("", [ExceptionGroup("", [DiskFull("no space")])]), 1, "no space"),
        (ExceptionGroup("", [DiskFull("no space"), DiskFull("no space")]), 1, "no space"),
        (ExceptionGroup("", [ExchangeError("a"), UsageError("b")]), 2, "a; b"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BaseExceptionGroup("", [KeyboardInterrupt(), ExchangeError("a")]), 130, "interrupted"),
    ],
)
def test_an_error_is_one_line(
    commands: Commands,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    exit_code: int,
    text: str,
) -> None:
    """Our own errors, alone or in groups of groups, end the program with one line and a code."""
    commands.error = error
    assert main(["verify"]) == exit_code
    assert capsys.readouterr().err == f"mexc-trio: error: {text}\n"


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError(), ExceptionGroup("", [ZeroDivisionError(), UsageError("no")])],
)
def test_a_bug_keeps_its_traceback(commands: Commands, error: Exception) -> None:
    """What nobody foresaw is not passed off as the user's mistake."""
    commands.error = error
    with pytest.raises(type(error)):
        main(["verify"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "no symbol given; name at least one, such as BTC_USDT, or use --all"),
        (
            ["*STOCK USDT"],
            "'*STOCK USDT' is not a pattern of symbols; patterns look like '*STOCK_USDT'",
        ),
        (["setup", "*_USDT"], "'*_USDT' is a pattern; only recording takes patterns"),
        (["verify", "*_USDT"], "'*_USDT' is a pattern; only recording takes patterns"),
        (
            ["BTC_USDC", "--quote", "USDT"],
            "--quote narrows --all or a pattern, and there is neither",
        ),
        (
            ["BTC_USDC", "--shard", "1/2"],
            "--shard narrows --all or a pattern, and there is neither",
        ),
        (["--all", "--shard", "3/2"], "--shard: '3/2': there is no shard 3 of 2"),
        (["--all", "--shard", "1:2"], "--shard: '1:2' is not a shard; 1/2 is the first of two"),
        (["--all", "--quote", "US-D"], "--quote: 'US-D' is not a quote currency; USDT is"),
        (
            ["--all", "--rest-url", "contract.mexc.com"],
            "--rest-url: 'contract.mexc.com' is not a REST URL; https://contract.mexc.com is",
        ),
        (["--all", "--refresh", "0"], "--refresh: '0' must be more than 0"),
        (["BTCUSDT"], "'BTCUSDT' is not a symbol; did you mean BTC_USDT?"),
        (["BTC"], "'BTC' is not a symbol; did you mean BTC_USDT?"),
        (["BTC_USDT", "btc_usdt"], "BTC_USDT is given twice"),
        (["help"], "'help' is not a symbol; ask with mexc-trio --help"),
        (["version"], "'version' is not a symbol; ask with mexc-trio --version"),
        (["sqk"], "'sqk' is not a symbol; did you mean SQK_USDT, or mexc-trio sql?"),
        (["sql", "SELECT", "1"], "mexc-trio sql takes no '1'; the statement goes in quotes"),
        (["verfy"], "'verfy' is not a symbol; commands come first: mexc-trio verify"),
        (
            ["--store", "x", "setup", "BTC_USDT"],
            "'setup' is not a symbol; commands come first: mexc-trio setup",
        ),
        (["BTC_USDT", "--lingr", "1"], "Unknown option: --lingr. Did you mean --linger?"),
        (["BTC_USDT", "--password", "x"], "Unknown option: --password."),
        (["verify", "--linger", "1"], "Unknown option: --linger."),
        (["BTC_USDT", "--linger"], "Parameter --linger requires an argument."),
        (
            ["BTC_USDT", "--linger", "1", "--linger", "2"],
            "Parameter --linger specified multiple times.",
        ),
        (["BTC_USDT", "--linger", "soon"], "--linger: 'soon' is not a number of seconds"),
        (["BTC_USDT", "--linger", "-1"], "--linger: '-1' must be 0 or more"),
        (["BTC_USDT", "--config", "nope"], "--config: there is no file 'nope'"),
        (["setup"], "no symbol given; name at least one, such as BTC_USDT"),
        (["drain", "BTC_USDT"], "mexc-trio drain takes no 'BTC_USDT'"),
        (
            ["BTC_USDT", "--stor=clickhouse://me:secret@host"],
            "Unknown option: --stor=clickhouse://***@host.",
        ),
    ],
)
def test_a_wrong_command_line_is_one_line(tmp_path: Path, arguments: list[str], text: str) -> None:
    """A mistake is answered with one line and exit code 2, before anything is created."""
    result = run(*arguments, cwd=tmp_path)
    assert result.stderr == f"mexc-trio: error: {text}\n"
    assert (result.stdout, result.returncode) == ("", 2)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_variable_or_file_is_one_line(tmp_path: Path) -> None:
    """A mistake in the environment or the file is answered like one on the command line."""
    result = run("BTC_USDT", cwd=tmp_path, MEXC_TRIO_LINGER="soon")
    assert (
        result.stderr == "mexc-trio: error: MEXC_TRIO_LINGER: 'soon' is not a number of seconds\n"
    )
    assert result.returncode == 2
    (tmp_path / "settings.ini").write_text("[mexc-trio]\nlinger = soon\n", encoding="utf-8")
    result = run("verify", cwd=tmp_path)
    assert result.stderr == (
        "mexc-trio: error: settings.ini: [mexc-trio] linger: 'soon' is not a number of seconds\n"
    )
    assert result.returncode == 2


# Help, version, log.


def test_the_help_has_every_option_with_its_default(tmp_path: Path) -> None:
    """Whoever reads --help knows all that can be set, and what it is if it is not."""
    result = run("--help", cwd=tmp_path)
    assert (result.stderr, result.returncode) == ("", 0)
    words = " ".join(word for word in result.stdout.split() if word != "│")
    for key, field in SETTINGS.items():
        if key not in ("symbols", *SECRETS):
            assert f"--{key.replace('_', '-')} " in words
            assert field.metadata["text"] is None or f"[default: {field.metadata['text']}]" in words
    for command in ("setup", "verify", "drain"):
        assert f"│ {command} " in result.stdout
        assert run(command, "--help", cwd=tmp_path).returncode == 0


def test_help_and_mistakes_load_no_engine(tmp_path: Path) -> None:
    """Help comes at once: what takes long to import is imported when a command works."""
    code = (
        "import sys; from mexc_trio.cli.main import main; main(sys.argv[1:]);"
        "print(*{'trio', 'chdb', 'clickhouse_driver', 'sqlite3', 'msgspec'} & set(sys.modules))"
    )
    for arguments in (["--help"], ["BTC"]):
        result = run_code(code, *arguments, cwd=tmp_path)
        assert result.stdout.splitlines()[-1] == ""


def test_no_days_are_counted_at_the_start(tmp_path: Path) -> None:
    """Nor does any command wait until clickhouse-driver has looked up each day of 400 years."""
    code = (
        "import mexc_trio.clickhouse.server; from clickhouse_driver.columns import datecolumn;"
        "print(len(datecolumn.DateColumn.date_lut))"
    )
    assert run_code(code, cwd=tmp_path).stdout == "0\n"


def test_the_version(tmp_path: Path) -> None:
    """--version is the package's, and nothing else."""
    assert run("--version", cwd=tmp_path).stdout == f"{__version__}\n"


def test_the_log_goes_to_standard_error(tmp_path: Path) -> None:
    """A line has time, level and text; the websocket library's frames stay out at any level."""
    code = (
        "import logging; from mexc_trio.logs import start_logging; start_logging('debug');"
        "logging.getLogger('mexc_trio').info('hello');"
        "logging.getLogger('mexc_trio').warning('watch out');"
        "logging.getLogger('trio-websocket').debug('frame')"
    )
    result = run_code(code, cwd=tmp_path)
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first[23:] == " INFO  hello"
    assert second[23:] == " WARN  watch out"
    assert len(first[:23].replace("-", "").replace(":", "")) == len("20261122 174001.123")


def test_what_an_exchange_says_stays_in_its_line(tmp_path: Path) -> None:
    """No text moves a terminal's cursor, sets its title or begins a line of the log."""
    code = (
        "import logging; from mexc_trio.logs import start_logging; start_logging('info');"
        "evil = '\\x1b]0;owned\\x07\\x9b2J\\r\\n2026-11-25 INFO forged \\udce9';"
        "log = logging.getLogger('mexc_trio'); log.info('it says %s', evil);"
        "log.error('a bug', exc_info=ValueError(evil))"
    )
    result = run_code(code, cwd=tmp_path)
    lines = result.stderr.splitlines()
    assert lines[0][30:] == r"it says \x1b]0;owned\x07\x9b2J\r\n2026-11-25 INFO forged \udce9"
    assert lines[1][23:] == " ERROR a bug"
    assert all(line.isprintable() for line in lines)
    assert lines[2].startswith("ValueError")


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    """`mexc-trio --help | head -0` ends without a word."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as output:
        result = subprocess.run(
            [sys.executable, "-m", "mexc_trio", "--help"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    assert (result.stderr, result.returncode) == ("", 1)


async def test_a_drain_of_nothing_makes_nothing(tmp_path: Path) -> None:
    """A misspelt --store is not answered with a new, empty one."""
    async with running(tmp_path, "drain", "--store", "mexc-dta", forked=False) as program:
        assert await program.ended() == 0
        assert "nothing waits: there is no journal of this store in mexc-dta" in program.log
    assert not (tmp_path / "mexc-dta").exists()
