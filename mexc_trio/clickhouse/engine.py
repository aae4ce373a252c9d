"""The engine of an embedded store: a ClickHouse server of our own, started, found and restarted.

One directory, one engine. Whoever comes first locks the directory, starts the engine as a child
process and writes down where it answers; whoever comes later reads that and uses the same one. The
child inherits the lock, so that the directory counts as taken until it has really ended, and holds
a pipe of its parent's, with which it ends. In the store's directory, `engine/` holds the child's
configuration and log and the file `access`, which only the user can read. That file is locked by
the parent alone: once the parent is dead nobody begins with an engine that is about to end.
"""

import json
import logging
import os
import re
import secrets
import threading
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

import attrs

from mexc_trio.clickhouse import engine_config, stripelog
from mexc_trio.clickhouse.engine_child import (
    EngineChild,
    PortTakenError,
    extension,
    free_port,
    is_free,
)
from mexc_trio.clickhouse.engine_config import COMMANDS, READER, RECORDER, Access
from mexc_trio.clickhouse.schema import quoted
from mexc_trio.clickhouse.server import ServerStore
from mexc_trio.clickhouse.store_files import refuse_strange_files
from mexc_trio.errors import StoreError, StoreLocked, StoreRejected, StoreUnavailable, UsageError
from mexc_trio.files import refuse_others, write_own
from mexc_trio.locks import hold_file, is_held, write_held
from mexc_trio.settings.address import Address

log = logging.getLogger(__name__)

FIND: Final = 30.0
"""Seconds that somebody else's engine may take until it answers, or has ended with its parent. A
second will do for either; a machine that others use as well may take twenty times as long."""
POLL: Final = 0.1
_NO_SUCH_DIRECTORY: Final = 1001
_MEANS_ANOTHER: Final = re.compile(r"\$\{|[\x00-\x1f\x7f\ud800-\udfff]|\s\Z")
"""In a path: what its configuration puts something in the place of, cannot have, or cuts off."""
ADDRESS: Final = "http.url"
"""The file in the store's directory that says where a recorder's engine answers readers."""


@attrs.define(eq=False)
class Engine:
    """The engine of one directory, ours or somebody else's. Calls block; any thread may call."""

    directory: Path
    listen: Address | None = None
    """Where readers may come; None if nobody but the user's own commands is to read."""
    reader_password: str = attrs.field(factory=lambda: secrets.token_urlsafe(24), repr=False)
    _access: Access | None = attrs.field(default=None, init=False)
    _child: EngineChild | None = attrs.field(default=None, init=False)
    _lock_fd: int = attrs.field(default=-1, init=False)
    # Holds the lock of what we have written down.
    _access_fd: int = attrs.field(default=-1, init=False)
    _holding: ExitStack = attrs.field(factory=ExitStack, init=False)
    _mutex: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    @property
    def name(self) -> str:
        """What the user knows it by."""
        return f"store {self.directory}"

    def access(self) -> Access:
        """Return where the engine answers, after starting it if nobody has it running.

        Raises UsageError for a directory that cannot be used, StoreLocked for one that something
        else has, StoreRejected if the engine is not installed, StoreError if it does not start.
        """
        with self._mutex:
            if self._child is not None:
                code = self._child.exit_code
                if code is None and self._access is not None:
                    return self._access
                if code is not None:
                    log.warning("%s: the engine ended (%s); starting it again", self.name, code)
                    self._end()
            self._access = self._start() if self._try_lock() else self._wait_for_access()
            return self._access

    def close(self) -> None:
        """End the engine if it is ours, and let the directory go."""
        with self._mutex:
            if self._lock_fd < 0:
                return
            for path in (self._access_file, self.directory / ADDRESS):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            self._end()
            self._access = None
            self._lock_fd = -1
            self._holding.close()

    @property
    def _home(self) -> Path:
        return self.directory.absolute() / "engine"

    @property
    def _access_file(self) -> Path:
        return self._home / "access"

    def _try_lock(self) -> bool:
        """Return whether the directory is ours, now if not before."""
        if self._lock_fd >= 0:
            return True
        extension()  # for its error, before anything is left behind
        if _MEANS_ANOTHER.search(str(self.directory.absolute())):
            raise UsageError(
                f"{self.name}: the engine would take {self.directory.absolute()} for another "
                f"directory; choose one without ${{, signs that cannot be shown, or a space at its "
                f"end"
            )
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            refuse_others(self.directory)
        except OSError as error:
            raise UsageError(
                f"{self.name}: no directory can be made there ({error.strerror}); "
                f"give --store another path"
            ) from error
        lock = hold_file(self.directory / "store.lock", self.name)
        with suppress(StoreLocked):
            self._lock_fd = self._holding.enter_context(lock)
        return self._lock_fd >= 0

    def _wait_for_access(self) -> Access:
        """Return the access to the engine of whoever holds the directory."""
        deadline = time.monotonic() + FIND
        while (access := self._access_of_other()) is None:
            # It may be starting, or ending.
            time.sleep(POLL)
            if self._try_lock():
                return self._start()
            if time.monotonic() > deadline:
                try:
                    with hold_file(self.directory / "store.lock", self.name):
                        pass  # for its error, which says who it is
                except StoreLocked as error:
                    raise StoreLocked(f"no engine answers after {FIND:g} s: {error}") from error
        return access

    def _access_of_other(self) -> Access | None:
        """Return the access to somebody else's engine, if it answers."""
        access = Access.load(self._access_file) if is_held(self._access_file) else None
        if access is None:
            return None
        patience = {"send_receive_timeout": FIND, "sync_request_timeout": FIND}
        target = attrs.evolve(access.target(COMMANDS), options=patience)
        with closing(ServerStore(target, 1, self.name)) as server:
            try:
                server.query("SELECT 1")
            except StoreError:
                return None
        return access

    def _start(self) -> Access:
        self._end()
        try:
            self._home.mkdir(mode=0o700, exist_ok=True)
            if self._home.is_symlink():
                # Whoever can write to the store's directory would have us write passwords into
                # another one, and let nobody else into that.
                raise UsageError(f"{self.name}: {self._home} is a link; take it away")
            self._home.chmod(0o700)
            self._access_file.unlink(missing_ok=True)
            refuse_strange_files(self.directory, self.name)
            tables = self.directory / "data" / engine_config.DATABASE
            stripelog.repair_what_would_not_open(tables, self.directory / "damaged")
            for attempt in (1, 2, 3):
                access = self._configure()
                self._child = EngineChild.start(
                    self.name, self.directory, self._home, access.tcp_port, self._lock_fd
                )
                try:
                    self._child.wait_for_port()
                    self._open_to_readers(access)
                    self._publish(access)
                except (PortTakenError, StoreLocked, StoreUnavailable):
                    # Somebody took a port meanwhile, and may have answered in the engine's place.
                    # Or an engine that ends has let go of our lock a moment before its own.
                    if attempt == 3:
                        raise
                    self._end()
                    self._access = None
                    continue
                return access
        except OSError as error:
            self._end()
            raise UsageError(
                f"{self.name}: the engine cannot be started there ({error.strerror}); see --store"
            ) from error
        except BaseException:
            self._end()
            raise
        raise AssertionError

    def _configure(self) -> Access:
        # The ports that readers know from before a restart, if they can be had.
        before = self._access
        http_port = free_port(before.http_port if before else 0)
        tcp_port = free_port(before.tcp_port if before else 0)
        listen = self.listen
        if listen is not None and listen.port:
            if is_free(listen.host, listen.port):
                http_port = listen.port
            else:
                log.warning(
                    "--listen: %s is taken; readers are answered on port %d instead",
                    listen, http_port,
                )  # fmt: skip
        recorder, commands, server_start_id = (secrets.token_urlsafe(24) for _ in range(3))
        access = Access(server_start_id, tcp_port, http_port, recorder, commands)
        engine_config.write(self._home, access, listen, self.reader_password)
        return access

    def _open_to_readers(self, access: Access) -> None:
        """Let HTTP in, once it is certain that nobody reads more there than is recorded."""
        with closing(ServerStore(access.target(RECORDER), 1, self.name)) as server:
            server.query(f"CREATE DATABASE IF NOT EXISTS {quoted(engine_config.DATABASE)}")
            try:
                server.query("SELECT file('/')")
            except StoreError as error:
                safe = error.code == _NO_SUCH_DIRECTORY
            else:
                safe = False
            if not safe:
                raise StoreRejected(
                    f"{self.name}: this release of chdb-core lets readers read any file; install "
                    f"one that this program was tried with: pip install 'mexc-trio[embedded]'"
                )
            try:
                server.query("SYSTEM START LISTEN HTTP")
            except StoreError as error:
                if "in use" in str(error):
                    raise PortTakenError(str(error)) from error
                raise

    def _publish(self, access: Access) -> None:
        self._access_fd = write_held(self._access_file, json.dumps(attrs.asdict(access)))
        if self.listen is None:
            return
        place = self.listen.reachable(access.http_port)
        log.info(
            "answering SQL at http://%s/ (native protocol: port %d); user %s, password in %s",
            place, access.tcp_port, READER, self.directory / ADDRESS,
        )  # fmt: skip
        url = f"http://{READER}:{quote(self.reader_password, safe='')}@{place}/\n"
        write_own(self.directory / ADDRESS, url)

    def _end(self) -> None:
        written, self._access_fd = self._access_fd, -1
        if written >= 0:
            os.close(written)
        child, self._child = self._child, None
        if child is not None:
            child.end()
