"""The store in a directory: the engine beside us as any other server, and its files beside us.

What can be done because the files are within reach is here: their fingerprint at a clean stop, and
repairing an index that cannot be read.
"""

import hashlib
import os
from pathlib import Path
from typing import Final

import attrs

from mexc_trio.clickhouse import stripelog
from mexc_trio.clickhouse.engine import Engine
from mexc_trio.clickhouse.engine_config import DATABASE, RECORDER
from mexc_trio.clickhouse.schema import qualified
from mexc_trio.clickhouse.server import ServerStore
from mexc_trio.errors import StoreError, StoreUnavailable, UsageError
from mexc_trio.files import bytes_of, sync_directory
from mexc_trio.settings.address import Address
from mexc_trio.settings.targets import ServerTarget

_FINGERPRINTED: Final = 65536
"""Bytes at the end of each file that its fingerprint covers."""
_INDEX_ENTRY: Final = 117
"""Bytes that an INSERT takes in `index.mrk`."""


@attrs.define(eq=False)
class EmbeddedStore(ServerStore):
    """A directory with an engine's tables; see `Engine` for whose engine that is."""

    directory: Path
    listen: Address | None = None
    """Where readers are answered, if the engine is ours; None for nowhere."""
    reader_password: str | None = attrs.field(default=None, repr=False)
    """None for a random one."""
    concurrency: int = attrs.field(default=4, kw_only=True)
    target: ServerTarget = attrs.field(init=False)
    known_as: str = attrs.field(init=False)
    _engine: Engine = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        password = {"reader_password": self.reader_password} if self.reader_password else {}
        self._engine = Engine(self.directory, self.listen, **password)
        self.known_as = self._engine.name
        self.target = self._engine.access().target(RECORDER)

    @property
    def one_thread(self) -> bool:
        """See `Store.one_thread`: so that commands are not felt by who records."""
        return True

    def server_start_id(self) -> str:
        self.query("SELECT 1")  # so that it is known which engine this is about
        return self._engine.access().server_start_id

    def fingerprint(self, table: str) -> str:
        """See `Store.fingerprint`: sizes of the files and a hash of their ends."""
        digest = hashlib.sha256()
        try:
            for name in ("data.bin", "index.mrk", "sizes.json"):
                with (self._files(table) / name).open("rb") as file:
                    os.fsync(file.fileno())
                    size = file.seek(0, os.SEEK_END)
                    file.seek(max(0, size - _FINGERPRINTED))
                    digest.update(f"{name} {size} ".encode() + file.read())
            sync_directory(self._files(table).resolve())
        except OSError:
            return ""  # an empty table has no files yet
        return f"sealed {digest.hexdigest()}"

    def truncate_index(self, table: str, drop: int) -> str:
        place = self._files(table).resolve()
        name = qualified(self, table)
        self.query(f"DETACH TABLE {name} SYNC")
        try:
            kept = stripelog.truncate_index(place, self.directory / "damaged", drop)
        except OSError as error:
            raise StoreError(f"{self.name}: {place}: {error.strerror}") from error
        finally:
            self.query(f"ATTACH TABLE {name}")
        return "" if kept is None else str(kept)

    def inserts(self, table: str) -> int:
        """See `Store.inserts`; by the size of the index.

        What was written in large blocks at once counts as few, which is what it takes in memory.
        """
        return bytes_of(self._files(table) / "index.mrk") // _INDEX_ENTRY

    def close(self) -> None:
        """Close the connections, and the engine if it is ours."""
        super().close()
        self._engine.close()

    def _target_of(self, index: int) -> ServerTarget:
        try:
            self.target = self._engine.access().target(RECORDER)
        except StoreUnavailable:
            raise
        except (StoreError, UsageError) as error:
            # It did work; it may again.
            raise StoreUnavailable(str(error)) from error
        return self.target

    def _files(self, table: str) -> Path:
        return self.directory / "data" / DATABASE / table
