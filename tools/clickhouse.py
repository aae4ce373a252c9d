"""A throwaway ClickHouse server: started, killed, paused and wiped at will.

Tests and benchmarks use `ClickHouseServer` as a context manager. Its calls block, so an async test
makes them through `trio.to_thread.run_sync`. `python -m tools.clickhouse` runs one in the
foreground until Ctrl-C. It is the server that the embedded engine is made of, with a configuration,
data, ports and users of its own, or another one whose command is given.
"""

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import attrs
from clickhouse_driver import Client
from clickhouse_driver.errors import Error as DriverError

from mexc_trio.clickhouse import engine_process
from mexc_trio.clickhouse.engine_child import extension, is_free

HOST = "127.0.0.1"
DATABASE = "mexc_data"
# Fixed passwords will do: they guard a temporary directory on the loopback interface.
USER, PASSWORD = "recorder", "secret"
READER, READER_PASSWORD = "reader", "lookonly"

START_SECONDS = 120.0
STOP_SECONDS = 120.0
POLL_SECONDS = 0.01
LOG_TAIL_LINES = 30

# Below the range that Linux (32768 and up) and macOS give to outgoing connections. A client that
# keeps dialling a dead local port inside that range sooner or later gets the port as its own
# source, connects to itself, and so keeps the restarted server from listening there. And none that
# an embedded engine may take while this server is down.
PORTS = range(10_000, 20_000)

CONFIG = """\
<clickhouse>
    <log-level>warning</log-level>
    <logger><level>warning</level><console>1</console></logger>
    <listen_host>{host}</listen_host>
    <tcp_port>{tcp_port}</tcp_port>
    <http_port>{http_port}</http_port>
    <path>{directory}/data/</path>
    <tmp_path>{directory}/tmp/</tmp_path>
    <users_config>{directory}/users.xml</users_config>
    <mark_cache_size>16777216</mark_cache_size>
</clickhouse>
"""

# readonly 2 forbids writing but not per-query settings, which clients send with their SELECTs.
# `default` is the wheel's own session, see mexc_trio/clickhouse/engine_config.py.
USERS = """\
<clickhouse>
    <profiles>
        <default><allow_python_table_function>0</allow_python_table_function></default>
        <reading><readonly>2</readonly></reading>
    </profiles>
    <quotas><default/></quotas>
    <users>
        <default>
            <no_password/>
            <networks><ip>{host}</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
            <grants><query>GRANT SYSTEM LISTEN ON *.*</query></grants>
        </default>
        <{user}>
            <password>{password}</password>
            <networks><ip>{host}</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
        </{user}>
        <{reader}>
            <password>{reader_password}</password>
            <networks><ip>{host}</ip></networks>
            <profile>reading</profile>
            <quota>default</quota>
        </{reader}>
    </users>
</clickhouse>
"""


class ServerError(Exception):
    """The server cannot be run as asked; the message says why."""


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    for port in random.SystemRandom().sample(PORTS, 100):
        if is_free(HOST, port):
            return port
    raise ServerError(f"no free port between {PORTS.start} and {PORTS.stop}")


def _temporary_directory() -> Path:
    return Path(tempfile.mkdtemp(prefix="clickhouse-"))


@attrs.define
class ClickHouseServer:
    """One server with a directory, ports and users of its own.

    Entering it as a context manager starts it; leaving kills it and deletes its directory. Between
    the two it can be killed, stopped, paused and started again on the same data and ports.
    `config_d` and `users_d` are directories of XML files that are merged into its configuration.
    `command` runs another server than the wheel's, such as `("clickhouse-server",)`.
    """

    tcp_port: int = attrs.field(factory=free_port)
    http_port: int = attrs.field(factory=free_port)
    config_d: Path | None = None
    users_d: Path | None = None
    command: tuple[str, ...] = ()
    directory: Path = attrs.field(init=False, factory=_temporary_directory)
    _process: subprocess.Popen[bytes] | None = attrs.field(init=False, default=None)

    @property
    def url(self) -> str:
        """The store URL of the user who may write."""
        address = f"{HOST}:{self.tcp_port}/{DATABASE}"
        return f"clickhouse://{USER}:{PASSWORD}@{address}?http_port={self.http_port}"

    @property
    def readonly_url(self) -> str:
        """The store URL of the user who may only read."""
        address = f"{HOST}:{self.tcp_port}/{DATABASE}"
        return f"clickhouse://{READER}:{READER_PASSWORD}@{address}?http_port={self.http_port}"

    @property
    def data(self) -> Path:
        """The data directory; a table lies in data/<database>/<table> beneath it."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """What the server printed, over all its starts."""
        return self.directory / "server.log"

    @property
    def is_running(self) -> bool:
        """Whether its process lives (paused counts as living)."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, create_database: bool = True) -> None:
        """Start it on whatever data is there, and wait until it answers queries."""
        if self.is_running:
            raise ServerError("the server is already running")
        for port in (self.tcp_port, self.http_port):
            if not is_free(HOST, port):
                raise ServerError(f"port {port} of {HOST} is taken")
        self._write_config()
        if self.command:
            command = [*self.command, f"--config-file={self.directory}/config.xml"]
        else:
            program = engine_process.__file__
            command = [sys.executable, "-I", "-S", program, str(extension()), str(self.data)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the wheel's, or the caller's wish
                command,
                cwd=self.directory,
                # The wheel's ends with it.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Newer servers fork a watchdog, and signals would reach that one instead.
                env={**os.environ, "CLICKHOUSE_WATCHDOG_ENABLE": "0", "TZ": "UTC"},
                # A Ctrl-C at the terminal is for us, who then end the server in our own order.
                process_group=0,
            )
        try:
            self._wait_until_it_answers()
            if not self.command:
                self.execute("SYSTEM START LISTEN HTTP")
            if create_database:
                self.execute(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill it at once (SIGKILL), as a crash would; no error if it is not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._close_input()

    def stop(self) -> None:
        """Ask it to end (SIGTERM) and wait until it has; no error if it is not running."""
        if self._process is None:
            return
        self._process.terminate()
        self._close_input()
        self.resume()  # a paused process would not see the SIGTERM
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(
                f"the server did not stop within {STOP_SECONDS:g} s of SIGTERM\n{self._log_tail()}"
            ) from None

    def _close_input(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open, nothing is answered."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on (SIGCONT)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Delete all its data; only while it is not running."""
        if self.is_running:
            raise ServerError("the server is running: stop or kill it before wiping its data")
        for name in ("data", "tmp"):
            shutil.rmtree(self.directory / name, ignore_errors=True)

    def wait(self) -> int:
        """Wait until the process ends by itself, and return its exit code."""
        if self._process is None:
            raise ServerError("the server was never started")
        return self._process.wait()

    def close(self) -> None:
        """Kill it and delete its directory."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def execute(self, query: str, params: object = None, *, readonly: bool = False) -> list[Any]:
        """Run one query on a connection of its own; return the rows.

        `params` are the rows of an INSERT. The connection's database is `default`, so tables are
        named in full: `mexc_data.btc`.
        """
        client = Client(
            HOST,
            self.tcp_port,
            user=READER if readonly else USER,
            password=READER_PASSWORD if readonly else PASSWORD,
            connect_timeout=30,
            send_receive_timeout=START_SECONDS,
        )
        try:
            result = client.execute(query, params)
        finally:
            client.disconnect()
        # An INSERT answers with a number of rows instead.
        return result if isinstance(result, list) else []

    def __enter__(self) -> Self:
        try:
            try:
                self.start()
            except DriverError as error:
                if "already in use" not in str(error):
                    raise
                # Somebody has taken it since it was looked for; nobody knows of ours yet.
                self.http_port = free_port()
                self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_config(self) -> None:
        """Write its configuration, and the directories that it names, afresh."""
        for name in ("data", "tmp"):
            (self.directory / name).mkdir(exist_ok=True)
        (self.directory / "config.xml").write_text(
            CONFIG.format(
                host=HOST,
                tcp_port=self.tcp_port,
                http_port=self.http_port,
                directory=self.directory,
            )
        )
        (self.directory / "users.xml").write_text(
            USERS.format(
                host=HOST,
                user=USER,
                password=PASSWORD,
                reader=READER,
                reader_password=READER_PASSWORD,
            )
        )
        for name, source in (("config.d", self.config_d), ("users.d", self.users_d)):
            if source is not None:
                shutil.copytree(source, self.directory / name, dirs_exist_ok=True)

    def _wait_until_it_answers(self) -> None:
        """Poll it: a foreign process of any version has no better way to say that it is ready."""
        assert self._process is not None  # noqa: S101 - for the type checker
        deadline = time.monotonic() + START_SECONDS
        while True:
            if (code := self._process.poll()) is not None:
                raise ServerError(f"the server ended with code {code} on start\n{self._log_tail()}")
            try:
                # A bare connection first: the driver logs a warning for each one refused.
                socket.create_connection((HOST, self.tcp_port), timeout=1).close()
                self.execute("SELECT 1")
            except (OSError, EOFError, DriverError) as error:
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"the server did not answer within {START_SECONDS:g} s"
                        f" ({error})\n{self._log_tail()}"
                    ) from None
                time.sleep(POLL_SECONDS)
            else:
                return

    def _log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(["the end of its log:", *lines[-LOG_TAIL_LINES:]])


def main() -> int:
    """Run a server in the foreground until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tools.clickhouse", description=main.__doc__)
    parser.add_argument(
        "--port", type=int, help="port of the native protocol (default: a free one)"
    )
    arguments = parser.parse_args()
    # SIGTERM unwinds like Ctrl-C does, so that it leaves neither process nor directory behind.
    # SIGINT too is set, because a shell script starts its background jobs with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        server = ClickHouseServer() if arguments.port is None else ClickHouseServer(arguments.port)
        with server:
            print(server.url, flush=True)
            code = server.wait()
            raise ServerError(f"the server ended by itself with code {code}")
    except KeyboardInterrupt:
        return 0
    except ServerError as error:
        print(f"clickhouse: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
