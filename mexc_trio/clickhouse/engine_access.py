"""Where a running engine answers, and how others of the same user read that from its file."""

import json
from pathlib import Path

import attrs

from mexc_trio.clickhouse.engine_config import DATABASE, RECORDER, WHO
from mexc_trio.settings.address import LOOPBACK
from mexc_trio.settings.targets import ServerTarget


@attrs.frozen
class Access:
    """Where an engine answers, and the passwords that it takes."""

    server_start_id: str
    """Another one for each start."""
    tcp_port: int
    http_port: int
    recorder: str = attrs.field(repr=False)
    commands: str = attrs.field(repr=False)

    def target(self, user: str) -> ServerTarget:
        """Return the engine as any other server.

        But whoever is first at the port of one that has died, another user's program perhaps, would
        take any password, and then each row for good. What he cannot say is what only we can read.
        """
        return ServerTarget(
            host=LOOPBACK,
            port=self.tcp_port,
            http_port=self.http_port,
            user=user,
            password=self.recorder if user == RECORDER else self.commands,
            database=DATABASE,
            known_by=(WHO, self.server_start_id),
        )

    @classmethod
    def load(cls, path: Path) -> "Access | None":
        """Read it from a file; None if there is none, or none that can be understood."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None
