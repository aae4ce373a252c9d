"""The embedded engine as a child process: started, found, restarted, and gone with its parent."""

import logging
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from mexc_trio.clickhouse import driver, engine_child, engine_config
from mexc_trio.clickhouse import engine as engine_module
from mexc_trio.clickhouse.embedded import EmbeddedStore
from mexc_trio.clickhouse.engine import ADDRESS, Engine
from mexc_trio.clickhouse.engine_child import free_port, is_free
from mexc_trio.clickhouse.engine_config import COMMANDS, RECORDER, Access
from mexc_trio.clickhouse.schema import count, prepare
from mexc_trio.clickhouse.server import ServerStore
from mexc_trio.clickhouse.tables import market_table
from mexc_trio.errors import StoreError, StoreLocked, StoreRejected, StoreUnavailable, UsageError
from mexc_trio.journal import open_journal
from mexc_trio.rows import Row, RowTuple
from mexc_trio.settings.address import LOOPBACK, Address
from tests.support.faults import repetitions
from tests.support.running import DEADLINE, engine_pid, environment


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine with readers, not yet started."""
    with closing(Engine(tmp_path / "store", listen=Address())) as engine:
        yield engine


def ask(access: Access, sql: str, user: str = RECORDER) -> list[tuple[object, ...]]:
    """Run one statement over the native protocol."""
    with closing(ServerStore(access.target(user), 1)) as server:
        return server.query(sql)


def test_what_is_written_is_private(engine: Engine) -> None:
    """Nobody else of the machine reads, or holds up, what is recorded; whatever the umask is."""
    before = os.umask(0)
    try:
        access = engine.access()
        ask(access, "CREATE TABLE mexc_data.t (a UInt64) ENGINE = StripeLog")
        ask(access, "INSERT INTO mexc_data.t VALUES (1)")
        path = engine.directory / "journal.sqlite"
        with open_journal(path) as journal:
            journal.queue("t").append([Row(1, "d", "x")])
            journal.flush()
            private(engine.directory)
        path.chmod(0o644)  # as an older version made it
        with open_journal(path):
            private(engine.directory)
    finally:
        os.umask(before)


def private(directory: Path) -> None:
    """Check that others get into neither a directory nor anything in it."""
    for path in [directory, *directory.rglob("*")]:
        mode = path.lstat().st_mode
        assert stat.S_ISLNK(mode) or not mode & 0o077, path


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def child_of(engine: Engine) -> int:
    """Return the process of a running engine."""
    assert engine._child is not None  # noqa: SLF001 - which process it is is nobody else's business
    return engine._child.pid  # noqa: SLF001


def running(command: list[str], cwd: Path | None = None) -> "subprocess.Popen[str]":
    """Start a program that runs until its standard input is closed; a context manager."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment(), text=True, cwd=cwd)


def lives(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def freeze(pid: int) -> None:
    """Stop a process, and see that all of its threads have stopped."""
    os.kill(pid, signal.SIGSTOP)
    states = "State:\tT"
    threads = Path(f"/proc/{pid}/task")
    until(lambda: all(states in (one / "status").read_text() for one in threads.iterdir()))


def test_release_is_one_that_was_tried(engine: Engine) -> None:
    """What the engine's program uses is no public interface: a new release may lack it.

    When this fails for a new release, see what else in this file fails with it, and give
    `embedded` in pyproject.toml another range.
    """
    assert re.match(r"26\.9\.", version("chdb-core")), "a release that nobody has tried"
    assert str(ask(engine.access(), "SELECT version()")[0][0]).startswith("26.9.")


def test_it_writes_and_reads(engine: Engine) -> None:
    """It is a server as any other; the memory that its start took is given back."""
    access = engine.access()
    if sys.platform == "linux":  # 250 MB to start, of which the code alone is 150
        assert psutil.Process(child_of(engine)).memory_info().rss < 200 * 2**20
    ask(access, "CREATE TABLE mexc_data.t (a UInt8) ENGINE = StripeLog")
    ask(access, "INSERT INTO mexc_data.t SELECT number FROM numbers(3)")
    assert ask(access, "SELECT sum(a) FROM t", COMMANDS) == [(3,)]
    assert (engine.directory / "data" / "mexc_data" / "t" / "data.bin").exists()
    with pytest.raises(StoreError):
        ask(access, "DROP TABLE mexc_data.t", COMMANDS)


def test_secrets_are_nobody_elses(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords are in files for the user alone, on no command line, and new each time."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of another program")
    access = engine.access()
    url = (engine.directory / ADDRESS).read_text()
    for path in (engine.directory / ADDRESS, *(engine.directory / "engine").iterdir()):
        if path.suffix != ".log":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((engine.directory / "engine").stat().st_mode) == 0o700
    words = Path(f"/proc/{child_of(engine)}/cmdline").read_text()
    surroundings = Path(f"/proc/{child_of(engine)}/environ").read_text()
    assert "of another program" not in surroundings
    for secret in (access.recorder, access.commands, engine.reader_password):
        assert len(secret) > 20
        assert secret not in words + surroundings
        assert secret not in repr(access) + repr(engine)
    assert engine.reader_password in url
    engine.close()
    assert not (engine.directory / ADDRESS).exists()
    assert engine.access().recorder != access.recorder


def test_second_comer_uses_the_same_engine(engine: Engine) -> None:
    """One directory, one engine; when the first goes, the second starts its own."""
    first = engine.access()
    with closing(Engine(engine.directory)) as second:
        assert second.access() == first
        engine.close()
        own = second.access()
        assert own.server_start_id != first.server_start_id
        assert ask(own, "SELECT 1") == [(1,)]


def test_two_start_at_the_same_moment(tmp_path: Path) -> None:
    """Whoever is first starts the engine; all get the same one."""
    code = (
        "import sys; from pathlib import Path; from mexc_trio.clickhouse.engine import Engine;"
        "e = Engine(Path(sys.argv[1])); print(e.access().server_start_id, flush=True);"
        "sys.stdin.read(); e.close()"
    )
    with ExitStack() as stack:
        command = [sys.executable, "-c", code, str(tmp_path / "store")]
        many = [stack.enter_context(running(command)) for _ in range(4)]
        found = {process.stdout.readline() for process in many if process.stdout}
    assert all(process.returncode == 0 for process in many)
    assert len(found) == 1
    assert found != {""}


def test_killed_engine_is_started_again(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """On the same ports, which readers know, and with all that was acknowledged."""
    access = engine.access()
    ask(access, "CREATE TABLE mexc_data.t (a UInt64) ENGINE = StripeLog")
    for n in range(repetitions(4)):
        ask(access, f"INSERT INTO mexc_data.t VALUES ({n})")
        os.kill(child_of(engine), signal.SIGKILL)
        until(lambda: engine.access().server_start_id != access.server_start_id)  # noqa: B023
        again = engine.access()
        assert (again.http_port, again.tcp_port) == (access.http_port, access.tcp_port)
        access = again
        assert ask(access, "SELECT count(), max(a) FROM mexc_data.t") == [(n + 1, n)]
    assert "the engine ended" in caplog.text


@pytest.mark.parametrize("frozen", [False, True])
def test_engine_ends_with_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: bool
) -> None:
    """However the parent ends, no orphan keeps the directory; a frozen one does, and is named."""
    monkeypatch.setattr(engine_module, "FIND", 0.2)
    code = (
        "import sys; from pathlib import Path; from mexc_trio.clickhouse.engine import Engine;"
        "e = Engine(Path(sys.argv[1])); e.access(); print(e._child.pid, flush=True);"
        "sys.stdin.read()"
    )
    for _ in range(2 if frozen else repetitions(3)):
        command = [sys.executable, "-c", code, str(tmp_path / "store")]
        with running(command) as parent:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            if frozen:
                freeze(child)
            parent.kill()
        if frozen:
            with (
                closing(Engine(tmp_path / "store")) as other,
                pytest.raises(StoreLocked, match="in use by process"),
            ):
                other.access()
            os.kill(child, signal.SIGCONT)
        until(lambda: not lives(child))  # noqa: B023


def test_engine_whose_parent_has_just_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may answer for a moment still: whoever comes waits for its end, and starts another."""
    code = (
        "import subprocess, sys; from pathlib import Path;"
        "from mexc_trio.clickhouse.engine import Engine;"
        "e = Engine(Path(sys.argv[1])); start = e.access().server_start_id;"
        "pipe = e._child._process.stdin.fileno();"  # which its parent's end does not end now
        "other = subprocess.Popen(['sleep', '600'], pass_fds=[pipe]);"
        "print(other.pid, start, flush=True); sys.stdin.read()"
    )
    with running([sys.executable, "-c", code, str(tmp_path / "store")]) as parent:
        assert parent.stdout is not None
        other, dying = parent.stdout.readline().split()
        parent.kill()
    sleep = time.sleep

    def let_it_end(seconds: float) -> None:
        with suppress(ProcessLookupError):
            os.kill(int(other), signal.SIGKILL)
        sleep(seconds)

    monkeypatch.setattr("mexc_trio.clickhouse.engine.time.sleep", let_it_end)
    try:
        with closing(Engine(tmp_path / "store")) as engine:
            assert engine.access().server_start_id != dying
            assert ask(engine.access(), "SELECT 1") == [(1,)]
    finally:
        let_it_end(0)


def test_signals_are_the_parents_business(engine: Engine) -> None:
    """A supervisor and a terminal send them to everybody; the last rows are still to be written."""
    access = engine.access()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(child_of(engine), number)
    assert ask(access, "SELECT sleep(0.3)") == [(0,)]
    assert engine.access() == access


def test_end_is_quick_even_if_it_is_frozen(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that does not end by itself is killed."""
    monkeypatch.setattr(engine_child, "STOP", 0.2)
    engine.access()
    child = child_of(engine)
    freeze(child)
    engine.close()
    assert not lives(child)


def test_surroundings_do_not_matter(tmp_path: Path) -> None:
    """Somebody's config.xml, a POSIX TZ, ClickHouse's own variables."""
    (tmp_path / "config.xml").write_text("<clickhouse><path>/nonsense</path><tcp_port>x")
    code = (
        "from pathlib import Path; from mexc_trio.clickhouse.engine import Engine;"
        "from mexc_trio.clickhouse.server import ServerStore;"
        "e = Engine(Path('store')); s = ServerStore(e.access().target('commands'));"
        "print(s.query('SELECT timezone(), toString(toDateTime(0))')); e.close()"
    )
    strange = environment(
        TZ="CET-1CEST,M3.5.0,M10.5.0/3", CLICKHOUSE_USER="x",
        CLICKHOUSE_HOST="tcp://10.0.0.1:9000", CLICKHOUSE_PORT="tcp://10.0.0.1:9000",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=strange, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "[('UTC', '1970-01-01 00:00:00')]", done.stderr


@pytest.mark.parametrize("name", ["a ", "${tcp_port}", "a\nb", os.fsdecode(b"\xe4")])
def test_names_that_the_engine_would_read_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A directory's name comes into a configuration: where that makes another of it, it is told.

    Tables would be in one directory, and the journal and all else in the other.
    """
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="for another directory"):
        Engine(Path(name)).access()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [":memory:", "file:x", "q?x=1", "a b&<c>", "ü", "-x"])
def test_names_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whatever a directory is called, it is a directory, and tables are in it."""
    monkeypatch.chdir(tmp_path)
    with closing(Engine(Path(name))) as engine:
        ask(engine.access(), "CREATE TABLE mexc_data.t (a UInt8) ENGINE = StripeLog")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / "metadata" / "mexc_data" / "t.sql").exists()


def test_directory_open_in_a_notebook(tmp_path: Path) -> None:
    """A session of chDB in another program has the directory: the error says which program."""
    code = (
        "import sys; from chdb.session import Session; s = Session(sys.argv[1]);"
        "s.query('SELECT 1'); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    with running(command, cwd=tmp_path) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "open\n"
        with (
            closing(Engine(tmp_path / "store")) as engine,
            pytest.raises(StoreLocked, match=rf"process {other.pid} \(.*close it there"),
        ):
            engine.access()
        other.stdin.close()
    with closing(Engine(tmp_path / "store")) as engine:
        assert ask(engine.access(), "SELECT 1") == [(1,)]


def test_no_port_is_free(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it says which ports it looked at, and nothing is left running."""
    monkeypatch.setattr(engine_child, "is_free", lambda host, port: False)
    before = psutil.Process().children()
    with pytest.raises(StoreError, match="no port between 20000 and 32000 is free for the engine"):
        engine.access()
    assert psutil.Process().children() == before


@pytest.mark.parametrize("protocol", ["tcp_port", "http_port"])
def test_port_that_is_taken_meanwhile(
    protocol: str, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine starts at others, although another engine answers where it was to."""
    with closing(Engine(tmp_path / "other", listen=Address())) as other:
        theirs = other.access()
        # It looked free when it was chosen, once.
        chosen = ["http_port", "tcp_port"].index(protocol)
        ports = [getattr(theirs, protocol) if number == chosen else None for number in range(2)]

        def look(wanted: int = 0) -> int:
            return (ports.pop(0) if ports else None) or free_port(wanted)

        monkeypatch.setattr(engine_module, "free_port", look)
        mine = engine.access()
        assert not ports
        assert {mine.tcp_port, mine.http_port}.isdisjoint({theirs.tcp_port, theirs.http_port})
        assert ask(mine, "SELECT 1") == ask(theirs, "SELECT 1") == [(1,)]


def test_a_stranger_at_the_port_of_an_engine_that_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's program that takes any password and each row counts for nothing."""
    table = market_table("btc")
    rows: list[RowTuple] = [(1000 + n, "d", f"{n}|1|1") for n in range(3)]
    monkeypatch.setattr(driver, "FRESH", 0.0)  # nothing has been asked of the engine for a while
    with closing(EmbeddedStore(tmp_path / "store")) as store:
        prepare(store, [table])
        store.append(table, rows[:1])
        port, child = store.target.port, psutil.Process(engine_pid(store.directory))
        child.kill()
        until(lambda: is_free(LOOPBACK, port))
        ports = [0, port]  # HTTP's is chosen first
        with monkeypatch.context() as stranger:
            stranger.setattr(
                engine_module,
                "free_port",
                lambda wanted=0: (ports.pop(0) if ports else 0) or free_port(wanted),
            )
            user = engine_config._user  # noqa: SLF001 - there is no other way to have one like that
            stranger.setattr(
                engine_config, "_user", lambda name, password, *more: user(name, None, *more)
            )
            other = EmbeddedStore(tmp_path / "other")
        with closing(other):
            assert other.target.port == port
            prepare(other, [table])
            with pytest.raises(StoreUnavailable, match="something else answers at its port"):
                store.append(table, rows[1:])
            store.append(table, rows[1:])
            assert store.target.port != port
        assert count(store, "btc") == 3


def test_a_directory_that_would_run_programs(tmp_path: Path) -> None:
    """A store that somebody else gave us runs nothing of his; one of ours has nothing to be run."""
    ran = tmp_path / "ran"
    with closing(Engine(tmp_path / "store")) as engine:
        ask(
            engine.access(),
            "CREATE DICTIONARY mexc_data.d (a UInt64, b String) PRIMARY KEY a LAYOUT(FLAT()) "
            f"LIFETIME(0) SOURCE(EXECUTABLE(COMMAND 'touch {ran}; echo' FORMAT 'CSV'))",
        )
    with closing(Engine(tmp_path / "store")) as engine:
        with pytest.raises(
            StoreRejected, match=r"d\.sql is no definition of ours, and could have the engine run"
        ):
            engine.access()
        (definition,) = engine.directory.glob("store/*/*/d.sql")
        definition.unlink()
        for place in ("engine/config.d", "user_scripts"):
            prepared = engine.directory / place / "x.xml"
            prepared.parent.mkdir()
            prepared.touch()
            with pytest.raises(StoreRejected, match=r"x\.xml could have the engine run a program"):
                engine.access()
            prepared.unlink()
        assert ask(engine.access(), "SELECT 1") == [(1,)]
    assert not ran.exists()


def test_engine_that_does_not_start(engine: Engine) -> None:
    """The error shows what the engine said last."""
    engine.directory.mkdir()
    (engine.directory / "status").mkdir()  # where it wants a file
    with pytest.raises(StoreError, match=r"the engine does not start: .*/store/status"):
        engine.access()


def test_engine_is_not_installed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it says how to install it, or to do without."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StoreRejected, match="pip install"):
        engine.access()


def test_broken_installation_is_told_apart(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wheel that does not load says why, and not that it is missing."""
    broken = tmp_path / "_chdb.abi3.so"
    broken.write_text("not a library")
    monkeypatch.setattr(engine_child, "extension", lambda: broken)
    with pytest.raises(StoreError, match=r"does not start: .*_chdb\.abi3\.so"):
        engine.access()


def test_place_that_is_no_directory(tmp_path: Path) -> None:
    """A place where nothing can be made is the user's business, and said so."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="give --store another path"):
        Engine(tmp_path / "file" / "store").access()


def test_passwords_follow_no_link(tmp_path: Path) -> None:
    """Whoever prepares a link in a store's directory gets no passwords written where it leads."""
    store, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    store.mkdir()
    elsewhere.mkdir()
    elsewhere.chmod(0o755)
    (store / "engine").symlink_to(elsewhere)
    with (
        closing(Engine(store)) as engine,
        pytest.raises(UsageError, match="store/engine is a link; take it away"),
    ):
        engine.access()
    assert list(elsewhere.iterdir()) == []
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755


def test_port_that_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Recording does not depend on the readers' port: they get another one, and a warning."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        listen = Address("127.0.0.1", port)
        with closing(Engine(tmp_path / "store", listen=listen)) as engine:
            with caplog.at_level(logging.WARNING):
                access = engine.access()
            assert access.http_port != port
            assert f"127.0.0.1:{port} is taken" in caplog.text
            assert str(access.http_port) in (tmp_path / "store" / ADDRESS).read_text()
